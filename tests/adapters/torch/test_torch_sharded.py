"""Rectangles of shards are those that PyTorch itself cuts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from fanin.errors import OutError
from fanin.torch._sharded import rectangles


@st.composite
def layouts(draw):
    """A shape, a mesh, a coordinate in it, and placements."""
    shape = tuple(draw(st.lists(st.integers(0, 13), min_size=1, max_size=3)))
    mesh = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    at = tuple(draw(st.integers(0, size - 1)) for size in mesh)
    axes = st.integers(0, len(shape) - 1)
    placement = st.one_of(
        st.just(Replicate()),
        st.builds(Shard, axes),
        st.builds(lambda axis, factor: _StridedShard(axis, split_factor=factor), axes, st.integers(1, 4)),
    )
    return shape, mesh, at, [draw(placement) for _ in mesh]


def cut(shape, mesh, at, placements):
    """The elements a rank holds, cut by PyTorch's own splitting of an arange."""
    mine = torch.arange(int(torch.tensor(shape).prod())).reshape(shape)
    for parts, k, placement in zip(mesh, at, placements, strict=True):
        if not isinstance(placement, Replicate):
            mine = placement._split_tensor(mine, parts, with_padding=False, contiguous=False)[0][k]
    return mine


@given(layouts())
def test_rectangles_are_what_pytorch_cuts(layout):
    shape, *_ = layout
    whole = torch.arange(int(torch.tensor(shape).prod())).reshape(shape)
    expected = cut(*layout)
    made = torch.full_like(expected, -1)
    for window, place in rectangles(*layout):
        assert (made[place] == -1).all()
        made[place] = whole[window]
    assert torch.equal(made, expected)


def test_fsdp_over_tensor_parallelism_holds_strips():
    found = list(rectangles((8, 3), (2, 2), (1, 0), [_StridedShard(0, split_factor=2), Shard(0)]))
    assert [window[0] for window, _ in found] == [slice(2, 4)]
    found = list(rectangles((8, 3), (2,), (1,), [_StridedShard(0, split_factor=2)]))
    assert [window[0] for window, _ in found] == [slice(2, 4), slice(6, 8)]
    assert [place[0] for _, place in found] == [slice(0, 2), slice(2, 4)]


def test_partial_sums_are_refused():
    with pytest.raises(OutError, match="holds sums in progress"):
        list(rectangles((4,), (2,), (0,), [Partial()]))
