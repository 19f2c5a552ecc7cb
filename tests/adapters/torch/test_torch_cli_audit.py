"""``fanin audit`` and ``fanin recipe infer`` of PyTorch models: exit codes, one line for what is wrong."""

import json
import sys
from typing import NamedTuple

import pytest

from fanin import Recipe
from fanin.cli import main

MODELS = """
import numpy, torch
from torch import nn

def mlp(depth=3, width=64):
    sizes = [8] + [width] * depth
    layers = [each for n, m in zip(sizes, sizes[1:]) for each in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 4))
def deep(): return mlp(30)
def zero():
    model = mlp()
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    return model
class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 2)
    def forward(self, x): raise KeyError("no\\nsuch thing")
def empty(): return nn.Sequential()
def boom(): raise RuntimeError("boom")
def batch(): return torch.linspace(-1, 1, 128).reshape(16, 8)
array = numpy.linspace(-1, 1, 128, dtype="float32").reshape(16, 8)
def wide(): return torch.zeros(16, 9)
def text(): return "words"
def loss(output, batch): return output.square().mean()
def bad_loss(output, batch): return output / 0 if len(batch) == 1 else missing
"""


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``fanin`` with these arguments, in a folder with the models."""
    (tmp_path / "audited.py").write_text(MODELS)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "audited", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fanin", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    yield run
    sys.modules.pop("audited", None)


def codes(done):
    return [finding["code"] for finding in json.loads(done.stdout)["findings"] if finding["level"] != "info"]


@pytest.mark.parametrize("batch", ["audited:batch", "audited:array"])
def test_a_sound_model_is_fine(run, batch):
    sound = ("--batch", batch, "--recipe", "he_normal", "--seed", "3", "--ignore", "distinguishability")
    done = run("audit", "audited:mlp", *sound)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("audit", "audited:mlp", *sound, "--loss", "audited:loss", "--json").returncode == 0


def test_torchs_default_before_relu_is_the_cause_in_a_deep_network(run):
    done = run("audit", "audited:deep", "--batch", "audited:batch", "--json")
    assert done.returncode == 1
    assert codes(done)[0] == "wrong-gain"


def test_a_zero_layer_is_named_and_the_page_is_written(run, tmp_path):
    done = run("audit", "audited:zero", "--batch", "audited:batch", "--html", "page.html", "--github")
    assert done.returncode == 1
    assert done.stdout.startswith("::error title=fanin zero-layer%3A 2.weight")
    assert "zero-layer" in (tmp_path / "page.html").read_text()


def test_without_a_batch_the_weights_are_looked_at(run):
    done = run("audit", "audited:mlp", "--json")
    assert done.returncode == 0
    trace = json.loads(done.stdout)["trace"]
    assert (trace["framework"], len(trace["weights"]), trace["operations"]) == ("torch", 8, [])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["audited:Raises", "--batch", "audited:batch"], "forward raised in the model (Raises): KeyError"),
        (["audited:mlp", "--batch", "audited:wide"], "shapes cannot be multiplied"),
        (["audited:mlp", "--batch", "audited:text"], "batch"),
        (["audited:mlp", "--batch", "audited:boom"], "batch 'audited:boom' raised RuntimeError: boom"),
        (["audited:boom"], "model 'audited:boom' raised RuntimeError: boom"),
        (["broken:mlp"], "importing broken raised ZeroDivisionError"),
        (["audited:empty", "--batch", "audited:batch"], "no parameters"),
        (["audited:empty"], "has no parameters"),
        (
            ["audited:mlp", "--batch", "audited:batch", "--loss", "audited:bad_loss"],
            "`loss` raised: NameError",
        ),
        (
            ["audited:mlp", "--batch", "audited:batch", "--loss", "audited:nothing"],
            "audited has no 'nothing'",
        ),
        (["audited:mlp", "--batch", "audited:batch", "--optimizer", "adamm 1"], "adamm"),
        (["audited:mlp", "--loss", "audited:loss"], "--loss needs a --batch"),
        (["audited:mlp", "--recipe", "he_norml"], "no initializer 'he_norml'"),
        (["audited:mlp", "--select", "symetry"], "no check 'symetry'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, text):
    done = run("audit", *arguments)
    assert done.returncode == 2, done.stdout
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_inferred_recipe_is_a_recipe(run, tmp_path):
    done = run("recipe", "infer", "audited:mlp", "--out", "r.toml")
    assert (done.returncode, done.stdout) == (0, "wrote 2 rules for 8 parameters to r.toml\n")
    shown = run("recipe", "infer", "audited:mlp")
    assert "torch default" in shown.stdout
    assert Recipe.from_file(tmp_path / "r.toml").rules
    assert run("plan", "audited:mlp", "--recipe", "r.toml").returncode == 0
    refused = run("recipe", "infer", "audited:empty")
    assert refused.returncode == 2
    assert "has no parameters" in refused.stderr
