"""The coordinate check: slopes of size against width, and what they mean."""

import json

import pytest

from fanin.audit import coordinate_check
from fanin.errors import ArgumentError

WIDTHS = [64, 256, 1024]


def powers(**slopes):
    return lambda width, seed: {layer: 3 * width**slope for layer, slope in slopes.items()}


@pytest.mark.parametrize(
    ("slopes", "verdict"),
    [
        ({"a": 0.0, "b": -0.09}, "flat"),
        ({"a": 0.0, "b": 0.11}, "unclear"),
        ({"a": 0.0, "b": -0.49}, "unclear"),
        ({"a": 0.2, "b": 1.0}, "grows"),
        ({"a": 0.2, "b": -0.5001}, "shrinks"),
    ],
)
def test_the_worst_layer_tells_the_verdict(slopes, verdict):
    found = coordinate_check(powers(**slopes), WIDTHS)
    assert [each.slope for each in found.layers] == pytest.approx(list(slopes.values()))
    assert found.verdict == verdict
    assert found.ok is (verdict == "flat")
    assert found.worst.layer == "b"
    assert str(found).splitlines()[-1].startswith(f"{verdict}: ")
    assert json.loads(json.dumps(found.to_dict()))["verdict"] == verdict


def test_sizes_are_means_over_seeds():
    found = coordinate_check(lambda width, seed: {"a": 1.0 + seed * width}, [1, 3], seeds=3)
    assert found.layers[0].sizes == {1: 2.0, 3: 4.0}


def test_what_has_no_slope_is_refused():
    for measure, widths, said in [
        (powers(a=0), [64], "`widths` must be two or more different integers > 0"),
        (powers(a=0), [64, -1], "`widths` must be two or more"),
        (lambda width, seed: {"a": 0.0}, WIDTHS, "at width 64 'a' has size 0.0"),
        (lambda width, seed: {"a": float("nan")}, WIDTHS, "at width 64 'a' has size nan"),
        (lambda width, seed: {str(width): 1.0}, WIDTHS, r"at width 256 layers are \['256'\]"),
        (lambda width, seed: {}, WIDTHS, r"at width 64 layers are \[\]"),
    ]:
        with pytest.raises(ArgumentError, match=said):
            coordinate_check(measure, widths)
    with pytest.raises(ArgumentError, match="`seeds` must be an integer >= 1"):
        coordinate_check(powers(a=0), WIDTHS, seeds=0)
