"""Recurrent cells: each gate on its own, whether a framework packs the gates or has a layer for each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fanin.fans import IO, Axes, Fans
from fanin.jax._layers import Pieces, Shapes, layer, present
from fanin.model import GATES, Piece, beside

LSTM, GRU = GATES["LSTM"], GATES["GRU"]
# The letters by which Flax calls the layers of gates.
LETTERS = {"lstm": dict(zip("ifgo", LSTM, strict=True)), "gru": dict(zip("rzn", GRU, strict=True))}
MINIMAL = {"f": "forget_gate", "n": "new_gate"}
ROLES = {
    "weight_ih": "kernel",
    "weight_hh": "recurrent_kernel",
    "bias_ih": "gate_bias",
    "bias_hh": "recurrent_bias",
}


def part(name: str, kind: str, axes: Axes) -> Piece:
    """One of the four parts of a cell: ``weight_ih.forget_gate`` and the like."""
    return Piece(name, ROLES[name.partition(".")[0]], kind, axes)


def of_gates(kind: str, letters: dict[str, str], shapes: Shapes) -> Pieces:
    """A layer for each gate and each side, ``ii`` or ``hf``; where only one has a bias, it is the gate's."""
    found: dict[str, Piece] = {}
    for letter, gate in letters.items():
        inputs = next(name for name in (f"i{letter}", f"i{letter}_") if f"{name}.kernel" in shapes)
        state = f"h{letter}"
        fans = IO.fans(shapes[f"{inputs}.kernel"])
        second = "bias_hh" if f"{inputs}.bias" in shapes else "bias_ih"
        found |= {
            f"{inputs}.kernel": part(f"weight_ih.{gate}", kind, IO),
            f"{state}.kernel": part(f"weight_hh.{gate}", kind, IO),
            f"{inputs}.bias": part(f"bias_ih.{gate}", kind, beside(fans)),
            f"{state}.bias": part(f"{second}.{gate}", kind, beside(fans)),
        }
    return present(shapes, found)


@layer("nnx.LSTMCell", "linen.LSTMCell", "linen.OptimizedLSTMCell")
def lstm(module: Any, shapes: Shapes) -> Pieces:
    return of_gates("lstm", LETTERS["lstm"], shapes)


@layer("linen.GRUCell")
def gru(module: Any, shapes: Shapes) -> Pieces:
    return of_gates("gru", LETTERS["gru"], shapes)


@layer("linen.MGUCell")
def minimal(module: Any, shapes: Shapes) -> Pieces:
    return of_gates("gru", MINIMAL, shapes)


def packed(
    kind: str,
    gates: Sequence[str],
    kernels: tuple[str, str],
    biases: tuple[str, ...],
    shapes: Shapes,
    *,
    io: bool,
) -> Pieces:
    """Kernels of the input and the state that hold all gates one after another, and a bias."""
    named = {"g": gates}
    axes = Axes.parse("i (g o) -> g : o | i" if io else "(g o) i -> g : o | i", members=named)
    fans = axes.fans(shapes[kernels[0]])
    bias = replace(Axes.parse("(g o) -> g : o |", members=named), known=fans)
    found = {
        kernels[0]: part("weight_ih.{}", kind, axes),
        kernels[1]: part("weight_hh.{}", kind, axes),
        **{name: part("bias_ih.{}", kind, bias) for name in biases},
    }
    return present(shapes, found)


DENSE = ("dense_i.kernel", "dense_h.kernel")
DENSE_BIASES = ("dense_i.bias", "dense_h.bias")  # a cell has one of the two


@layer("nnx.OptimizedLSTMCell")
def nnx_packed_lstm(module: Any, shapes: Shapes) -> Pieces:
    return packed("lstm", LSTM, DENSE, DENSE_BIASES, shapes, io=True)


@layer("nnx.GRUCell")
def nnx_gru(module: Any, shapes: Shapes) -> Pieces:
    return packed("gru", GRU, DENSE, DENSE_BIASES, shapes, io=True)


@layer("equinox.LSTMCell")
def equinox_lstm(module: Any, shapes: Shapes) -> Pieces:
    return packed("lstm", LSTM, ("weight_ih", "weight_hh"), ("bias",), shapes, io=False)


@layer("equinox.GRUCell")
def equinox_gru(module: Any, shapes: Shapes) -> Pieces:
    """The state has a bias for the new gate alone."""
    fans = Fans(shapes["weight_ih"][1], shapes["weight_ih"][0] // len(GRU))
    own = {"bias_n": part(f"bias_hh.{GRU[-1]}", "gru", beside(fans))}
    found = packed("gru", GRU, ("weight_ih", "weight_hh"), ("bias",), shapes, io=False)
    return {**found, **present(shapes, own)}


@layer("nnx.SimpleCell", "linen.SimpleCell")
def simple(module: Any, shapes: Shapes) -> Pieces:
    inputs, state = ("dense_i", "dense_h") if "dense_i.kernel" in shapes else ("i", "h")
    found = {
        f"{inputs}.kernel": part("weight_ih", "rnn", IO),
        f"{state}.kernel": part("weight_hh", "rnn", IO),
        f"{inputs}.bias": part("bias_ih", "rnn", beside(IO.fans(shapes[f"{inputs}.kernel"]))),
    }
    return present(shapes, found)


@layer("linen.ConvLSTMCell")
def conv_lstm(module: Any, shapes: Shapes) -> Pieces:
    """Its gates stand in an order of their own, and it adds 1 to the forget gate by itself."""
    gates = {"g": ("input_gate", "cell_gate", "forget_gate", "output_gate")}
    axes = Axes.parse("* i (g o) -> g : o | i", members=gates)
    bias = replace(Axes.parse("(g o) -> g : o |", members=gates), known=axes.fans(shapes["ih.kernel"]))
    found = {
        "ih.kernel": part("weight_ih.{}", "conv_lstm", axes),
        "hh.kernel": part("weight_hh.{}", "conv_lstm", axes),
        "ih.bias": Piece("bias_ih.{}", "bias", "conv_lstm", bias),
        "hh.bias": Piece("bias_hh.{}", "recurrent_bias", "conv_lstm", bias),
    }
    return present(shapes, found)
