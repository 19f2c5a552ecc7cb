"""What each kind of Keras layer's parameters are: one function per kind, found by the layer's type.

A function takes a layer and returns {attribute: the pieces in it}, their names relative to the layer.
Attributes may be those of a sublayer (``cell.kernel``): what a parent says goes before what that says itself.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import keras
from keras import layers
from keras.src.applications.convnext import LayerScale

from fanin.fans import IO, LOOKUP, OI, Axes, Fans
from fanin.initializers import Constant, Ones, Zeros
from fanin.keras._activations import activation_name
from fanin.model import GATES, PROJECTIONS, Piece, beside

Pieces: TypeAlias = Mapping[str, Piece | Iterable[Piece]]
Layer: TypeAlias = Callable[[Any], Pieces]
L = TypeVar("L", bound=Layer)

LAYERS: dict[type, Layer] = {}


def layer(*types: type) -> Callable[[L], L]:
    """Say what the parameters of your own kinds of layers are, once, for every plan.

    Parameters
    ----------
    *types : type
        Layers, by their class; subclasses are meant too, unless they are listed themselves. The function
        takes a layer and returns ``{attribute: Piece}``; an attribute that is None is passed over.

    Examples
    --------
    >>> import keras, fanin.keras as fk
    >>> class Gate(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.w = self.add_weight(shape=(3, shape[-1]))
    >>> @fk.layer(Gate)
    ... def gate(layer):
    ...     return {"w": fk.Piece("weight", "kernel", "gate", fk.Axes.parse("o i -> o | i"))}
    >>> mine = Gate()
    >>> mine.build((None, 4))
    >>> fk.plan(mine, "he_normal", seed=0)["weight"].fans
    Fans(fan_in=4, fan_out=3)
    """

    def listed(function: L) -> L:
        LAYERS.update(dict.fromkeys(types, function))
        return function

    return listed


def pieces_of(of: keras.Layer) -> Pieces:
    """What a layer says of its variables, by the nearest type that is known."""
    function = next((LAYERS[kind] for kind in type(of).__mro__ if kind in LAYERS), None)
    return {} if function is None else function(of)


def affine(kind: str, axes: Axes, of: Any) -> dict[str, Piece]:
    """``weight`` and ``bias`` of a layer that multiplies and adds: the bias has the fans of the weight."""
    follows = activation_name(of.activation)
    known = beside(axes.fans(tuple(of.kernel.shape)))
    return {
        "kernel": Piece("weight", "kernel", kind, axes, activation=follows),
        "bias": Piece("bias", "bias", kind, known, activation=follows),
        **low_rank(of, "kernel"),
    }


def low_rank(of: Any, what: str) -> dict[str, Piece]:
    """The two kernels that ``enable_lora`` adds: their product starts at zero."""
    if not getattr(of, "lora_enabled", False):
        return {}
    return {
        f"lora_{what}_a": Piece("lora_a", "kernel", "lora", IO),
        f"lora_{what}_b": Piece("lora_b", "kernel", "lora", IO, own=Zeros()),
    }


# --- kernels -------------------------------------------------------------------------------------


@layer(layers.Dense)
def dense(of: layers.Dense) -> dict[str, Piece]:
    return affine("linear", IO, of)


@layer(layers.EinsumDense)
def einsum_dense(of: layers.EinsumDense) -> dict[str, Piece]:
    """Letters that operands and result share are stacks, in kernel and bias alike."""
    axes = Axes.einsum(of.equation)
    found = affine("linear", axes, of)
    found["kernel"] = replace(found["kernel"], name="{}." * len(axes.stack) + "weight")
    if of.bias is not None:
        bias, depth = _einsum_bias(of, axes)
        found["bias"] = replace(found["bias"], name="{}." * depth + "bias", axes=bias)
    return found


def _einsum_bias(of: layers.EinsumDense, axes: Axes) -> tuple[Axes, int]:
    """The axes of a bias, which spans the result from the first of its own letters on, and its stacks."""
    operands, result = of.equation.replace("...", "").split("->")
    weight = operands.split(",")[1]
    letters = result[min(map(result.index, of.bias_axes)) :]
    stacked = [weight[axis] for axis in axes.stack]
    stack = tuple(letters.index(letter) for letter in stacked if letter in of.bias_axes)
    out = tuple(axis for axis in range(len(of.bias.shape)) if axis not in stack)
    return Axes(out, (), stack=stack, known=axes.fans(tuple(of.kernel.shape))), len(stack)


@layer(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def conv(of: Any) -> Pieces:
    return affine(f"conv{of.rank}d", Axes(IO.out, IO.in_, groups=of.groups), of)


def depthwise(channels: int) -> Axes:
    """(*field, channels, multiplier): each channel has outputs of its own."""
    return Axes.parse("* c m -> c m |", groups=channels)


@layer(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def depthwise_conv(of: Any) -> Pieces:
    return affine(f"conv{of.rank}d", depthwise(of.kernel.shape[-2]), of)


@layer(layers.SeparableConv1D, layers.SeparableConv2D)
def separable_conv(of: Any) -> Pieces:
    kind, follows = f"conv{of.rank}d", activation_name(of.activation)
    known = beside(IO.fans(tuple(of.pointwise_kernel.shape)))
    first = depthwise(of.depthwise_kernel.shape[-2])
    return {
        "depthwise_kernel": Piece("depthwise.weight", "kernel", kind, first),
        "pointwise_kernel": Piece("pointwise.weight", "kernel", kind, IO, activation=follows),
        "bias": Piece("pointwise.bias", "bias", kind, known, activation=follows),
    }


@layer(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def conv_transpose(of: Any) -> Pieces:
    """Stored as (*field, out, in), the kernel of the convolution that it is the adjoint of."""
    return affine(f"conv_transpose{of.rank}d", Axes(IO.in_, IO.out, stride=math.prod(of.strides)), of)


# --- tables, norms, slopes -----------------------------------------------------------------------


@layer(layers.Embedding)
def embedding(of: layers.Embedding) -> dict[str, Piece]:
    table = Piece("weight", "embedding", "embedding", LOOKUP)
    return {"embeddings": table, **low_rank(of, "embeddings")}


@layer(layers.ReversibleEmbedding)
def reversible_embedding(of: layers.ReversibleEmbedding) -> Pieces:
    found = embedding(of)
    if not of.tie_weights:
        found["reverse_embeddings"] = Piece("reverse.weight", "head", "linear", IO)
    return found


def norm(kind: str, scale: str = "gamma", shift: str | None = "beta") -> Layer:
    """A layer that scales and shifts what it has normalized."""
    found = {scale: Piece("weight", "norm_scale", kind, OI)}
    if shift is not None:
        found[shift] = Piece("bias", "norm_bias", kind, OI)
    return lambda of: found


layer(layers.BatchNormalization)(norm("batch_norm"))
layer(layers.LayerNormalization)(norm("layer_norm"))
layer(layers.GroupNormalization)(norm("group_norm"))
layer(layers.RMSNormalization)(norm("rms_norm", "scale", None))


@layer(layers.PReLU)
def prelu(of: layers.PReLU) -> Pieces:
    return {"alpha": Piece("weight", "slope", "prelu", OI)}


@layer(LayerScale)
def layer_scale(of: Any) -> Pieces:
    """Of a ConvNeXt's residual branches; how small it starts is the architecture's own."""
    return {"gamma": Piece("gamma", "scale", "layer_scale", OI, own=Constant(of.init_values))}


# --- attention -----------------------------------------------------------------------------------

CHILDREN = {
    **dict(zip(("_query_dense", "_key_dense", "_value_dense"), PROJECTIONS, strict=True)),
    "_gate_dense": "gate_proj",
    "_output_dense": "out_proj",
}


@layer(layers.MultiHeadAttention, layers.GroupQueryAttention)
def attention(of: Any) -> Pieces:
    found = {}
    for child, name in CHILDREN.items():
        if (projection := getattr(of, child, None)) is not None:
            for key, piece in einsum_dense(projection).items():
                found[f"{child}.{key}"] = replace(piece, name=f"{name}.{piece.name}", layer="attention")
    return found


@layer(layers.Attention)
def dot_attention(of: layers.Attention) -> Pieces:
    names = ("scale", "concat_score_weight")
    return {name: Piece(name, "scale", "attention", OI, own=Ones()) for name in names}


@layer(layers.AdditiveAttention)
def additive_attention(of: layers.AdditiveAttention) -> Pieces:
    """The vector that a sum of query and key is multiplied by."""
    if of.scale is None:
        return {}
    axes = Axes((), (0,), known=Fans(of.scale.shape[0], 1))
    return {"scale": Piece("weight", "kernel", "attention", axes, activation="tanh")}


# --- recurrent layers ----------------------------------------------------------------------------

RESET, UPDATE, NEW = GATES["GRU"]


def cell(kind: str, gates: tuple[str, ...], of: Any, *, inner: str = "") -> dict[str, Piece]:
    """The four parts of a cell, each gate on its own; ``inner`` leads from the layer to its cell."""
    members = {"g": gates}
    field = "* " if len(of.kernel.shape) > 2 else ""
    axes = Axes.parse(f"{field}i (g o) -> g : o | i", members=members)
    bias = replace(Axes.parse("(g o) -> g : o |", members=members), known=axes.fans(tuple(of.kernel.shape)))
    return {
        f"{inner}kernel": Piece("weight_ih.{}", "kernel", kind, axes),
        f"{inner}recurrent_kernel": Piece("weight_hh.{}", "recurrent_kernel", kind, axes),
        f"{inner}bias": Piece("bias_ih.{}", "gate_bias", kind, bias),
    }


@layer(layers.LSTMCell)
def lstm(of: layers.LSTMCell) -> Pieces:
    return cell("lstm", GATES["LSTM"], of)


@layer(layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
def conv_lstm(of: Any) -> Pieces:
    return cell("conv_lstm", GATES["LSTM"], of.cell, inner="cell.")


@layer(layers.GRUCell)
def gru(of: layers.GRUCell) -> Pieces:
    """With ``reset_after`` the bias is two rows: that of the inputs and that of the state."""
    gates = (UPDATE, RESET, NEW)
    found: dict[str, Any] = dict(cell("gru", gates, of))
    if of.bias is not None and len(of.bias.shape) == 2:
        found["bias"] = [
            replace(
                found["bias"],
                name="{}.{}",
                role=role,
                axes=replace(
                    Axes.parse("b (g o) -> b g : o |", members={"b": (name,), "g": gates}),
                    known=found["bias"].axes.known,
                ),
                window=((row, row + 1), (0, of.bias.shape[1])),
            )
            for row, (name, role) in enumerate((("bias_ih", "gate_bias"), ("bias_hh", "recurrent_bias")))
        ]
    return found


@layer(layers.SimpleRNNCell)
def rnn(of: layers.SimpleRNNCell) -> Pieces:
    return {
        "kernel": Piece("weight_ih", "kernel", "rnn", IO),
        "recurrent_kernel": Piece("weight_hh", "recurrent_kernel", "rnn", IO),
        "bias": Piece("bias_ih", "gate_bias", "rnn", beside(IO.fans(tuple(of.kernel.shape)))),
    }
