"""Pieces of a tensor whose axes are made of several: heads that hold query, key and value in turn."""

import numpy as np
import pytest

import fanin
from fanin.errors import PlanError, ShapeError
from fanin.fans import Axes
from fanin.model import Model, Piece, Tensor
from fanin.plan import Plan, resolve
from fanin.recipe import Recipe

HEADS, QUERY, VALUE, INPUTS = 3, 4, 2, 5
SPLIT = ((0, (HEADS, -1)),)


def piece(name, rows, split=SPLIT):
    axes = Axes.parse("h o i -> h o | i")
    return Piece(name, "kernel", "linear", axes, ((0, HEADS), rows, (0, INPUTS)), split)


QUERIES, VALUES = piece("q", (0, QUERY)), piece("v", (QUERY, QUERY + VALUE))
FUSED = Tensor("qv", (HEADS * (QUERY + VALUE), INPUTS), "float32", (QUERIES, VALUES))
PLAN = resolve(Model((FUSED,)), Recipe([("*", "he_normal")]), 3)


def test_each_part_is_what_it_would_be_alone() -> None:
    heads = PLAN.fill("qv").reshape(HEADS, QUERY + VALUE, INPUTS)
    for name, rows in (("q", heads[:, :QUERY]), ("v", heads[:, QUERY:])):
        alone = fanin.HeNormal()((rows.shape[0] * rows.shape[1], INPUTS), seed=3, name=name, axes="oi")
        np.testing.assert_array_equal(rows.reshape(alone.shape), alone)


def test_every_window_is_that_part_of_the_whole() -> None:
    whole = PLAN.fill("qv")
    for start in range(len(whole)):
        for stop in range(start, len(whole) + 1):
            window = (slice(start, stop), slice(1, 4))
            np.testing.assert_array_equal(PLAN.fill("qv", window=window), whole[window])


def test_what_a_plan_keeps_is_left_alone() -> None:
    plan = resolve(Model((FUSED,)), Recipe([("v", "keep"), ("q", "he_normal")]), 3)
    out = np.full(FUSED.shape, np.nan, np.float32)
    plan.fill("qv", out=out)
    heads = out.reshape(HEADS, QUERY + VALUE, INPUTS)
    assert np.isnan(heads[:, QUERY:]).all()
    assert not np.isnan(heads[:, :QUERY]).any()


def test_a_plan_of_split_tensors_is_data() -> None:
    again = Plan.from_json(PLAN.to_json())
    assert again.diff(PLAN) == []
    assert again.fill("qv").tobytes() == PLAN.fill("qv").tobytes()


@pytest.mark.parametrize(
    ("pieces", "error", "message"),
    [
        ((QUERIES, piece("v", (QUERY, 5), ())), PlanError, "split its shape .* in different ways"),
        ((QUERIES,), PlanError, "do not make up its shape"),
        ((QUERIES, piece("v", (3, 5))), PlanError, "do not make up its shape"),
        ((QUERIES, piece("v", (QUERY, 7))), PlanError, "is not inside shape"),
        ((piece("q", (0, 6), ((0, (4, -1)),)),), ShapeError, "an axis of size 18 is not made of"),
    ],
)
def test_pieces_that_do_not_fit_are_an_error(pieces, error, message) -> None:
    with pytest.raises(error, match=message):
        Tensor("qv", FUSED.shape, "float32", pieces)
