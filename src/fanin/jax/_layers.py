"""What each kind of layer's parameters are, in Flax (nnx and linen) and Equinox: one function per kind.

Layers are recognized by the names of their classes; neither package is imported. A function takes a layer and
the shapes of the leaves below it, and returns {leaf: piece}, names relative to the layer in PyTorch's words.
What a layer says of a leaf further down goes before what the layers below say of it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from fanin.fans import IO, LOOKUP, OI, Axes, Fans
from fanin.initializers import Zeros
from fanin.model import Piece, beside

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Pieces: TypeAlias = Mapping[str, Piece]
Layer: TypeAlias = Callable[[Any, Shapes], Pieces]
L = TypeVar("L", bound=Layer)
T = TypeVar("T")

PACKAGES = {"flax.nnx.": "nnx", "flax.linen.": "linen", "equinox.nn.": "equinox"}
LAYERS: dict[str | type, Layer] = {}


def word(kind: type) -> str | None:
    """A class of Flax or Equinox as ``nnx.Linear``, ``linen.Dense``, ``equinox.Linear``; None for others."""
    packages = (name for package, name in PACKAGES.items() if kind.__module__.startswith(package))
    return next((f"{name}.{kind.__name__}" for name in packages), None)


def nearest(table: Mapping[Any, T], kind: type) -> T | None:
    """The entry of a class, or of the nearest of those it derives from."""
    keys = (key for each in kind.__mro__ for key in (each, word(each)))
    return next((table[key] for key in keys if key in table), None)


def layer(*kinds: type | str) -> Callable[[L], L]:
    """Say what the parameters of your own kinds of layers are, once, for every plan.

    Parameters
    ----------
    *kinds : type
        Modules, by their class; subclasses are meant too, unless they are listed themselves. The function
        takes a module and ``{leaf: shape}``, and returns ``{leaf: Piece}``.

    Examples
    --------
    >>> import fanin.jax as fj, jax.numpy as jnp
    >>> from flax import nnx
    >>> class Mix(nnx.Module):
    ...     def __init__(self):
    ...         self.w = nnx.Param(jnp.zeros((4, 3)))
    >>> @fj.layer(Mix)
    ... def mix(module, shapes):
    ...     return {"w": fj.Piece("weight", "kernel", "mix", fj.Axes.parse("i o -> o | i"))}
    >>> fj.plan(Mix(), "he_normal", seed=0)["weight"].fans
    Fans(fan_in=4, fan_out=3)
    """

    def listed(function: L) -> L:
        LAYERS.update(dict.fromkeys(kinds, function))
        return function

    return listed


def affine(kind: str, axes: Axes, shapes: Shapes, kernel: str = "kernel") -> Pieces:
    """``weight`` and ``bias`` of a layer that multiplies and adds: the bias has the fans of the weight."""
    bias = beside(axes.fans(shapes[kernel]), len(shapes.get("bias", ())))
    return present(
        shapes, {kernel: Piece("weight", "kernel", kind, axes), "bias": Piece("bias", "bias", kind, bias)}
    )


def present(shapes: Shapes, pieces: Pieces) -> Pieces:
    """Those of the pieces that a layer has."""
    return {leaf: piece for leaf, piece in pieces.items() if leaf in shapes}


def sizes(setting: Any) -> tuple[int, ...]:
    """A setting that may be one number, a sequence, or nothing, as a tuple."""
    if setting is None:
        return ()
    return tuple(setting) if hasattr(setting, "__iter__") else (setting,)


# --- kernels -------------------------------------------------------------------------------------


@layer("nnx.Linear", "linen.Dense")
def linear(module: Any, shapes: Shapes) -> Pieces:
    return affine("linear", IO, shapes)


@layer("equinox.Linear")
def equinox_linear(module: Any, shapes: Shapes) -> Pieces:
    return affine("linear", OI, shapes, "weight")


@layer("nnx.LinearGeneral")
def linear_general(module: Any, shapes: Shapes) -> Pieces:
    return _general(len(module.batch_axis), len(sizes(module.in_features)), shapes)


@layer("linen.DenseGeneral")
def dense_general(module: Any, shapes: Shapes) -> Pieces:
    return _general(len(sizes(module.batch_dims)), len(sizes(module.axis)), shapes)


def _general(n_stack: int, n_in: int, shapes: Shapes) -> Pieces:
    """(batch..., in..., out...): each element of the batch has a kernel of its own."""
    rank = len(shapes["kernel"])
    stack, inputs = tuple(range(n_stack)), tuple(range(n_stack, n_stack + n_in))
    axes = Axes(tuple(range(n_stack + n_in, rank)), inputs, stack=stack)
    own = "{}." * n_stack
    bias = Axes(tuple(range(n_stack, rank - n_in)), (), stack=stack, known=axes.fans(shapes["kernel"]))
    return present(
        shapes,
        {
            "kernel": Piece(f"{own}weight", "kernel", "linear", axes),
            "bias": Piece(f"{own}bias", "bias", "linear", bias),
        },
    )


@layer("nnx.Einsum", "linen.Einsum")
def einsum(module: Any, shapes: Shapes) -> Pieces:
    if module.einsum_str is None:  # only its call knows
        return {}
    axes = Axes.einsum(module.einsum_str)
    bias = beside(axes.fans(shapes["kernel"]), len(shapes.get("bias", ())))
    return present(
        shapes,
        {
            "kernel": Piece("{}." * len(axes.stack) + "weight", "kernel", "einsum", axes),
            "bias": Piece("bias", "bias", "einsum", bias),
        },
    )


@layer("nnx.Conv", "linen.Conv")
def conv(module: Any, shapes: Shapes) -> Pieces:
    axes = Axes(IO.out, IO.in_, groups=module.feature_group_count)
    return affine(f"conv{len(shapes['kernel']) - 2}d", axes, shapes)


@layer("linen.ConvLocal")
def conv_local(module: Any, shapes: Shapes) -> Pieces:
    """A kernel (field * in, out) for each place of the output."""
    inputs, outputs = shapes["kernel"][-2:]
    field = math.prod(sizes(module.kernel_size))
    fans = Fans(inputs, outputs * field)
    axes = Axes(IO.out, IO.in_, known=fans)
    return affine(f"conv_local{len(shapes['kernel']) - 2}d", axes, shapes)


@layer("nnx.ConvTranspose", "linen.ConvTranspose")
def conv_transpose(module: Any, shapes: Shapes) -> Pieces:
    """Stored as the kernel of the convolution of the dilated input, which is the adjoint's, reversed."""
    n_dim = len(shapes["kernel"]) - 2
    strides = module.strides or 1
    stride = strides**n_dim if isinstance(strides, int) else math.prod(strides)
    axes = Axes(IO.out, IO.in_, stride=stride, flip=True)
    if module.transpose_kernel:
        axes = Axes(IO.in_, IO.out, stride=stride)
    return affine(f"conv_transpose{n_dim}d", axes, shapes)


@layer("equinox.Conv")
def equinox_conv(module: Any, shapes: Shapes) -> Pieces:
    axes = Axes(OI.out, OI.in_, groups=module.groups)
    return affine(f"conv{module.num_spatial_dims}d", axes, shapes, "weight")


@layer("equinox.ConvTranspose")
def equinox_conv_transpose(module: Any, shapes: Shapes) -> Pieces:
    axes = Axes(OI.out, OI.in_, groups=module.groups, stride=math.prod(module.stride), flip=True)
    return affine(f"conv_transpose{module.num_spatial_dims}d", axes, shapes, "weight")


@layer("nnx.LoRA")
def lora(module: Any, shapes: Shapes) -> Pieces:
    """A product of two kernels that starts at zero."""
    return {
        "lora_a": Piece("lora_a", "kernel", "lora", IO),
        "lora_b": Piece("lora_b", "kernel", "lora", IO, own=Zeros()),
    }


# --- tables, norms, slopes -----------------------------------------------------------------------


@layer("nnx.Embed", "linen.Embed")
def embedding(module: Any, shapes: Shapes) -> Pieces:
    return {"embedding": Piece("weight", "embedding", "embedding", LOOKUP)}


@layer("equinox.Embedding")
def equinox_embedding(module: Any, shapes: Shapes) -> Pieces:
    return {"weight": Piece("weight", "embedding", "embedding", LOOKUP)}


def norm(kind: str, scale: str = "scale") -> Layer:
    """A layer that scales and shifts what it has normalized."""
    vector = Axes((0,), ())

    def pieces(module: Any, shapes: Shapes) -> Pieces:
        found = {
            scale: Piece("weight", "norm_scale", kind, vector),
            "bias": Piece("bias", "norm_bias", kind, vector),
        }
        return present(shapes, found)

    return pieces


layer("nnx.BatchNorm", "linen.BatchNorm", "nnx.InstanceNorm", "linen.InstanceNorm")(norm("batch_norm"))
layer("nnx.LayerNorm", "linen.LayerNorm")(norm("layer_norm"))
layer("nnx.GroupNorm", "linen.GroupNorm")(norm("group_norm"))
layer("nnx.RMSNorm", "linen.RMSNorm")(norm("rms_norm"))
layer("equinox.BatchNorm")(norm("batch_norm", "weight"))
layer("equinox.LayerNorm")(norm("layer_norm", "weight"))
layer("equinox.GroupNorm")(norm("group_norm", "weight"))
layer("equinox.RMSNorm")(norm("rms_norm", "weight"))


@layer("linen.WeightNorm")
def weight_norm(module: Any, shapes: Shapes) -> Pieces:
    """The lengths of the columns of the kernels it wraps, by their paths."""
    return {
        leaf: Piece(leaf.replace("/", "."), "norm_scale", "weight_norm", Axes((0,), ()))
        for leaf in shapes
        if leaf.endswith("/scale")
    }


@layer("nnx.PReLU", "linen.PReLU", "equinox.PReLU")
def prelu(module: Any, shapes: Shapes) -> Pieces:
    return {"negative_slope": Piece("weight", "slope", "prelu", Axes((0,), ()))}


# --- attention -----------------------------------------------------------------------------------


@layer("nnx.MultiHeadAttention", "linen.MultiHeadDotProductAttention", "equinox.MultiheadAttention")
def attention(module: Any, shapes: Shapes) -> Pieces:
    """The projections to queries, keys and values are an attention's own; its output is a linear layer."""
    found: dict[str, Piece] = {}
    for child, name in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        for place, axes, kernel in (
            (child, Axes.parse("d n h -> n h | d"), "kernel"),
            (f"{child}_proj", OI, "weight"),
        ):
            if f"{place}.{kernel}" not in shapes:
                continue
            bias = beside(axes.fans(shapes[f"{place}.{kernel}"]), len(axes.out))
            found[f"{place}.{kernel}"] = Piece(f"{name}.weight", "kernel", "attention", axes)
            found[f"{place}.bias"] = Piece(f"{name}.bias", "bias", "attention", bias)
    return present(shapes, found)
