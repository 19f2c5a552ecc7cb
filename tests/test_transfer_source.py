"""A checkpoint of another framework by a plan of its model: axes, biases of gates, names in files."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from fanin.errors import PlanError
from fanin.fans import IO, OI, Axes
from fanin.model import GATES, Model, Piece, Tensor
from fanin.plan import Plan
from fanin.planning import kept
from fanin.transfer import resolve
from fanin.transfer.names import also


def tensor(path, shape, *pieces, ties=()):
    return Tensor(path, shape, "float32", pieces, ties)


def gates(kind, name, role="gate_bias", *, order=None):
    axes = Axes.parse("(g o) -> g : o |", members={"g": order or GATES[kind]})
    return Piece(f"cell.{name}.{{}}", role, kind.lower(), axes)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def saved(folder, **values):
    save_file({name: np.ascontiguousarray(value) for name, value in values.items()}, folder / "x.safetensors")
    return folder / "x.safetensors"


def both(kind, size):
    """A cell that has two biases, as PyTorch stores it."""
    return Model((
        tensor("b_ih", (size,), gates(kind, "bias_ih")),
        tensor("b_hh", (size,), gates(kind, "bias_hh", "recurrent_bias")),
    ))  # fmt: skip


def test_two_biases_of_a_gate_are_added_where_a_model_has_one(tmp_path):
    one = Model((tensor("bias", (12,), gates("LSTM", "bias_ih")),))
    first, second = numbers(12), numbers(12, seed=1)
    path = saved(tmp_path, b_ih=first, b_hh=second)
    plan = resolve(one, path, source=kept(both("LSTM", 12)))
    assert {row.source for row in plan.rows} == {"adapted"}
    assert plan.unexpected == ()
    again = Plan.from_json(plan.to_json())
    assert again == plan
    expected = (first.astype(np.float64) + second).astype(np.float32)
    assert again.fill("bias").tobytes() == expected.tobytes()


def test_a_bias_that_the_source_lacks_is_zero(tmp_path):
    one = Model((tensor("bias", (12,), gates("LSTM", "bias_ih")),))
    held = numbers(12)
    path = saved(tmp_path, bias=held)
    for recipe in (None, "torch"):
        plan = resolve(both("LSTM", 12), path, recipe, seed=0, source=kept(one))
        assert plan.fill("b_ih").tobytes() == held.tobytes()
        assert not plan.fill("b_hh").any()
    with pytest.raises(PlanError, match="to be drawn, and no recipe"):
        resolve(both("LSTM", 12), path, source=kept(one), adapt={"*bias_hh*": "draw"})


def test_two_rows_of_one_tensor_are_added(tmp_path):
    """As Keras stores a GRU whose reset gate comes after, for one whose gates have one bias but the last."""
    order = {"g": ("update_gate", "reset_gate", "new_gate")}
    rows = [
        Piece(
            "cell.{}.{}", role, "gru", Axes.parse("b (g o) -> b g : o |", members={"b": (name,), **order}),
            window=((row, row + 1), (0, 6)),
        )
        for row, (name, role) in enumerate((("bias_ih", "gate_bias"), ("bias_hh", "recurrent_bias")))
    ]  # fmt: skip
    theirs = Model((tensor("bias", (2, 6), *rows),))
    last = Piece("cell.bias_hh.new_gate", "recurrent_bias", "gru", Axes((0,), ()))
    mine = Model((tensor("b", (6,), gates("GRU", "bias_ih")), tensor("bn", (2,), last)))
    held = numbers(2, 6)
    plan = resolve(mine, saved(tmp_path, bias=held), source=kept(theirs))
    update, reset, new = held.reshape(2, 3, 2).transpose(1, 0, 2)
    expected = np.concatenate([reset[0] + reset[1], update[0] + update[1], new[0]])
    np.testing.assert_allclose(Plan.from_json(plan.to_json()).fill("b"), expected, rtol=1e-6)
    assert plan.fill("bn").tobytes() == new[1].tobytes()


def test_what_the_reset_gate_multiplies_has_no_sum(tmp_path):
    one = Model((tensor("bias", (6,), gates("GRU", "bias_ih")),))
    first, second = numbers(6), numbers(6, seed=1)
    path = saved(tmp_path, b_ih=first, b_hh=second)
    with pytest.raises(PlanError, match=r"cell\.bias_ih\.new_gate.*the reset gate multiplies"):
        resolve(one, path, source=kept(both("GRU", 6)))
    second[4:] = 0
    path = saved(tmp_path, b_ih=first, b_hh=second)
    plan = resolve(one, path, source=kept(both("GRU", 6)))
    np.testing.assert_allclose(plan.fill("bias"), first + second, rtol=1e-6)


def test_a_depthwise_kernel_is_one_however_its_outputs_are_stored(tmp_path, same_bits):
    theirs = Piece("conv.weight", "kernel", "conv2d", Axes.parse("* c m -> c m |", groups=4))
    mine = Piece("conv.weight", "kernel", "conv2d", Axes(OI.out, OI.in_, groups=4))
    held = numbers(3, 3, 4, 2)
    path = saved(tmp_path, k=held)
    source = kept(Model((tensor("k", (3, 3, 4, 2), theirs),)))
    plan = resolve(Model((tensor("w", (8, 1, 3, 3), mine),)), path, source=source)
    same_bits(plan.fill("w"), np.ascontiguousarray(held.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3)))
    source.save(tmp_path / "theirs.json")
    back = resolve(Model((tensor("w", (8, 1, 3, 3), mine),)), path, source=tmp_path / "theirs.json")
    assert back == plan


def test_heads_are_joined_and_parted_but_not_cut_otherwise(tmp_path, same_bits):
    heads = Piece("q.weight", "kernel", "attention", Axes.parse("d n h -> n h | d"))
    held = numbers(6, 2, 8)
    path, source = saved(tmp_path, q=held), kept(Model((tensor("q", (6, 2, 8), heads),)))
    joined = Piece("q.weight", "kernel", "linear", OI)
    plan = resolve(Model((tensor("w", (16, 6), joined),)), path, source=source)
    same_bits(plan.fill("w"), np.ascontiguousarray(held.reshape(6, 16).T))
    with pytest.raises(PlanError, match=r"'q\.weight' has shape \(4, 4, 6\)"):
        resolve(Model((tensor("q", (6, 4, 4), heads),)), path, source=source)


@pytest.mark.parametrize(
    "piece",
    [
        gates("LSTM", "weight"),
        Piece("up.weight", "kernel", "conv_transpose2d", IO),
        Piece("up.weight", "kernel", "conv2d", Axes(OI.out, OI.in_, flip=True)),
    ],
)
def test_layout_is_no_answer_for_what_it_cannot_tell(tmp_path, piece):
    shape = (8,) if piece.axes.split else (2, 2, 3, 3)
    path = saved(tmp_path, w=numbers(*shape))
    with pytest.raises(PlanError, match=r"`layout` does not tell how 'w' holds.*give `source`"):
        resolve(Model((tensor("w", shape, piece),)), path, layout="io")


def test_ambiguous_names_in_a_file_are_none():
    said = {"full_names": {"a": "all/kernel", "b": "all/kernel", "c": "head/kernel"}, "places": {"d": "x"}}
    assert also(said, places=False) == {"head/kernel": "c"}
    assert also(said, places=True) == {"head/kernel": "c", "x": "d"}
