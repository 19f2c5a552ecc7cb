"""AsStored: fans as a framework reads them off the stored tensor."""

import math

import pytest

import fanin
from fanin.errors import ArgumentError
from fanin.fans import IO, LOOKUP, OI, Axes, Fans

# fan_in + fan_out that a framework counts, for glorot_uniform: (shape, axes, packed, count)
COUNTED = [
    pytest.param((8, 6), OI, 1, 14, id="dense"),
    pytest.param((8, 6), OI, 4, 6 + 32, id="four gates"),
    pytest.param((8, 3, 5), Axes((0,), (1,), groups=2), 1, 3 * 5 + 8 * 5, id="grouped"),
    pytest.param((3, 6, 8), Axes((-2,), (-1,), stride=2), 1, 3 * 6 + 3 * 8, id="transposed"),
    pytest.param((3, 6, 2), Axes.parse("* c m -> c m |", groups=6), 1, 3 * 6 + 3 * 2, id="depthwise"),
    pytest.param((9,), Axes((0,), (), known=Fans(4, 9)), 2, 4 + 18, id="bias"),
    pytest.param((50, 8), LOOKUP, 1, 1 + 8, id="table"),
]


@pytest.mark.parametrize(("shape", "axes", "packed", "count"), COUNTED)
def test_fans_are_those_of_the_stored_shape(shape, axes, packed, count):
    said = fanin.AsStored("glorot_uniform", packed).describe(shape, axes)
    assert said.limit == pytest.approx(math.sqrt(6 / count), rel=1e-15)


def test_where_nothing_hides_it_is_the_inner_initializer(same_bits):
    given = {"seed": 1, "name": "w"}
    for inner, shape, axes in (("he_normal", (3, 3, 4, 8), IO), ("lecun_uniform", (8, 4), OI)):
        made = fanin.AsStored(inner)(shape, axes=axes, **given)
        same_bits(made, fanin.get(inner)(shape, axes=axes, **given))


def test_it_is_data_and_takes_what_is_drawn_element_by_element():
    init = fanin.AsStored("he_normal", packed=3)
    assert str(init) == "as_stored(inner=he_normal(), packed=3)"
    assert fanin.get(str(init)) == init == fanin.from_dict(init.to_dict())
    with pytest.raises(ArgumentError, match=r"`inner` must be drawn element by element, got orthogonal"):
        fanin.AsStored("orthogonal")
    with pytest.raises(ArgumentError, match="`packed` must be an integer >= 1, got 0"):
        fanin.AsStored("he_normal", 0)
