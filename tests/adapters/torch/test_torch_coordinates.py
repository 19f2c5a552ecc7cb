"""The coordinate check of PyTorch models: muP is flat, the standard parametrization is not."""

import runpy
from pathlib import Path

import pytest

from fanin.errors import ArgumentError

EXAMPLE = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "mup_coordinates.py"))
WIDTHS = (64, 256, 1024)


def test_mup_is_flat_and_the_standard_parametrization_grows():
    mup = EXAMPLE["check"](EXAMPLE["mup"], 2, WIDTHS)
    assert [each.layer for each in mup.layers] == ["0", "2", "4", "6"]
    assert mup.verdict == "flat", mup
    standard = EXAMPLE["check"](EXAMPLE["standard"], 2, WIDTHS)
    assert standard.verdict == "grows", standard
    assert standard.worst.layer == "6"
    assert standard.worst.slope == pytest.approx(1, abs=0.3)  # theory, for wide networks


def test_what_has_no_slope_is_refused():
    with pytest.raises(ArgumentError, match=r"at width 64 '6' has size 0\.0; > 0 is needed"):
        EXAMPLE["check"](EXAMPLE["mup"], 1, WIDTHS, steps=0)
    with pytest.raises(ArgumentError, match="`steps` must be an integer >= 0, got -1"):
        EXAMPLE["check"](EXAMPLE["mup"], 1, WIDTHS, steps=-1)
