"""``fanin plan``: a model by its place, its table, its file, and one line for what is wrong."""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import fanin
from fanin.cli import main
from fanin.materialize import materialize

MODELS = """
import torch
from torch import nn

class Big(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1 << 20, 1 << 20)  # 4 TB: only the meta device holds it
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)])

made = nn.Linear(3, 2)
def gpt2_small():
    import transformers
    return transformers.GPT2LMHeadModel(transformers.GPT2Config())
def needs(x): return Big()
def text(): return "no model"
number = 3
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``fanin plan`` with these arguments, in a folder with the models."""
    (tmp_path / "my_models.py").write_text(MODELS)
    for folder, text in (("empty", "{}"), ("strange", '{"architectures": ["NoSuchModel"]}')):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fanin", "plan", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    yield run
    sys.modules.pop("my_models", None)


def test_a_model_larger_than_memory_is_planned_on_the_meta_device(run):
    done = run("my_models:Big", "--fold")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("recipe he_normal, seed 0, ")
    assert "8 parameters" in lines[0]
    assert any(line.startswith("blocks.{0..2}.0.weight") for line in lines)


def test_a_saved_plan_is_compared_with_another(run, tmp_path):
    assert run("my_models:made", "--save", "plan.json", "--digests").returncode == 0
    plan = fanin.Plan.from_file(tmp_path / "plan.json")
    expected = fanin.HeNormal()((2, 3), seed=0, name="weight", axes="oi")
    assert plan.fill("weight").tobytes() == expected.tobytes()
    assert set(plan.digests) == {"weight", "bias"}
    same = run("my_models:made", "--against", "plan.json")
    assert (same.returncode, same.stdout) == (0, "0 differences\n")
    other = run("my_models:made", "--against", "plan.json", "--recipe", "glorot_normal")
    assert other.returncode == 1
    assert "weight: initializer he_normal() -> glorot_normal()" in other.stdout


def test_json_is_a_plan(run):
    done = run("my_models:made", "--json", "--seed", "7")
    assert json.loads(done.stdout)["seed"] == 7
    assert fanin.Plan.from_json(done.stdout)["weight"].shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["my_models"], "expected package.module:name"),
        (["my_modules:Big"], "no module 'my_modules'"),
        (["my_models:Bog"], "my_models has no 'Bog'"),
        (["my_models:needs"], "cannot be called without arguments"),
        (["my_models:text"], "returns a str; expected a model"),
        (["my_models:number"], "is a int; expected a model"),
        (["config.json"], "config.json"),
        (["empty/config.json"], "no transformers config that names its `architectures`"),
        (["strange/config.json"], "transformers has no 'NoSuchModel'"),
        (["nothing.safetensors"], "nothing.safetensors"),
        (["my_models:made", "--recipe", "he_norml"], "no initializer 'he_norml'"),
        (["my_models:made", "--recipe", "gpt2"], "recipe 'gpt2' needs n_layer"),
        (["my_models:made", "--recipe", "missing.toml"], "missing.toml"),
        (["my_models:made", "--seed", "-1"], "`seed` must be in 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, text):
    done = run(*arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_the_readme_shows_what_is_printed(run):
    page = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    [shown] = re.findall(
        r"^\$ fanin plan my_models:gpt2_small (.*?)\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    printed = [line.rstrip() for line in run("my_models:gpt2_small", *shown[0].split()).stdout.splitlines()]
    for line in shown[1].splitlines():
        front = line.partition("...")[0].rstrip()
        assert any(each.startswith(front) if "..." in line else each == front for each in printed), line


def test_a_config_is_the_model_it_describes_and_its_files_are_its_shapes(run, tmp_path):
    import transformers

    config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=11, n_positions=8)
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path / "gpt")
    plan = fanin.Plan.from_json(run("gpt", "--recipe", "gpt2", "--json").stdout)
    assert plan["transformer.h.1.attn.q_proj.weight"].shape == (16, 16)
    again = fanin.Plan.from_json(run("gpt/config.json", "--recipe", "gpt2", "--json").stdout)
    assert again.diff(plan) == []
    materialize(plan, tmp_path / "gpt")
    (tmp_path / "rules.toml").write_text(
        '[[rules]]\nname = "*.ln_*"\ninit = "ones"\n[[rules]]\nrole = "*"\ninit = "zeros"\n'
    )
    shown = fanin.Plan.from_json(run("gpt/model.safetensors", "--recipe", "rules.toml", "--json").stdout)
    assert {t.path: t.shape for t in shown.tensors} == {t.path: t.shape for t in plan.tensors}
    unnamed = run("gpt/model.safetensors")
    assert unnamed.returncode == 2
    assert "no rule matches" in unnamed.stderr


def test_the_readmes_example_runs_as_it_is_copied(capsys):
    page = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [start] = [at for at, block in enumerate(blocks) if "import fanin.torch as ft" in block]
    names = {}
    for block in blocks[start : start + 2]:
        exec(block, names)
    assert capsys.readouterr().out.startswith("recipe gpt2(n_layer=12), seed 0, ")
    weight = names["model"].transformer.h[0].attn.c_proj.weight
    expected = fanin.RandomNormal(0, 0.004)(
        (768, 768), seed=0, name="transformer.h.0.attn.c_proj.weight", axes="io"
    )
    assert weight.detach().numpy().tobytes() == expected.tobytes()
