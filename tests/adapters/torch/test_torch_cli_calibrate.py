"""``fanin calibrate`` of PyTorch models: what it prints and writes, one line for what is wrong."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from fanin import Plan
from fanin.cli import main

MODELS = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = [each for _ in range(5) for each in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(16, 4))
def dead():
    model = build()
    nn.init.zeros_(model[4].weight)
    return model
def batch(): return torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    (tmp_path / "scaled.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "scaled", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fanin", "calibrate", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return code, *capsys.readouterr()

    yield run
    sys.modules.pop("scaled", None)


def test_the_table_is_printed_and_weights_and_plan_are_written(run, tmp_path):
    files = ("--out", "w.safetensors", "--save", "plan.json")
    code, printed, _ = run("scaled:build", "--batch", "scaled:batch", "--recipe", "he_normal", *files)
    assert code == 0
    assert printed.splitlines()[1].split() == ["layer", "before", "after", "target"]
    written, plan = load_file(tmp_path / "w.safetensors"), Plan.from_file(tmp_path / "plan.json")
    assert set(written) == {tensor.path for tensor in plan.tensors}
    assert all(np.array_equal(plan.fill(path), values) for path, values in written.items())


def test_json_says_all(run):
    code, printed, _ = run("scaled:build", "--batch", "scaled:batch", "--method", "weight_norm", "--json")
    assert code == 0
    said = json.loads(printed)
    assert said["method"] == "weight_norm"
    assert [scale["layer"] for scale in said["scales"]] == ["0", "2", "4", "6", "8", "10"]
    assert run("scaled:build", "--method", "analytic")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scaled:dead", "--batch", "scaled:batch"], "'4' is dead: its kernel is zero"),
        (["scaled:build"], "lsuv looks at a batch"),
        (
            ["scaled:build", "--batch", "scaled:batch", "--method", "lsu"],
            "no method 'lsu'; did you mean lsuv?",
        ),
        (["scaled:build", "--batch", "scaled:batch", "--save", "p.json"], "--save needs a --recipe"),
    ],
)
def test_what_is_wrong_is_one_line(run, arguments, said):
    code, _, error = run(*arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
