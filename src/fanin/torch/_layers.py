"""What each kind of PyTorch layer's parameters are: one function per kind, found by the layer's type.

A function takes a module and returns {parameter, relative to the module: the pieces in it}, their names
relative to the module too; parameters that it does not have are no harm. What a parent says of a descendant
goes before what the descendant says itself.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fanin.fans import LOOKUP, OI, Axes, Fans
from fanin.model import GATES, PROJECTIONS, Piece, beside

Pieces: TypeAlias = Mapping[str, Piece | Iterable[Piece]]
Layer: TypeAlias = Callable[[Any], Pieces]
L = TypeVar("L", bound=Layer)

LAYERS: dict[type[nn.Module], Layer] = {}


def layer(*types: type[nn.Module]) -> Callable[[L], L]:
    """Say what the parameters of your own kinds of layers are, once, for every plan.

    Parameters
    ----------
    *types : type
        Modules, by their class; subclasses are meant too, unless they are listed themselves.

    Examples
    --------
    >>> import torch, fanin.torch as ft
    >>> class Gate(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = torch.nn.Parameter(torch.empty(4, 3))
    >>> @ft.layer(Gate)
    ... def gate(module):
    ...     return {"weight": ft.Piece("weight", "kernel", "gate", ft.Axes.parse("i o -> o | i"))}
    >>> ft.plan(Gate(), "he_normal", seed=0)["weight"].fans
    Fans(fan_in=4, fan_out=3)
    """

    def listed(function: L) -> L:
        LAYERS.update(dict.fromkeys(types, function))
        return function

    return listed


def affine(kind: str, axes: Axes, shape: Iterable[int], bias: Any, role: str = "kernel") -> dict[str, Piece]:
    """``weight`` and ``bias`` of a layer that multiplies and adds: the bias has the fans of the weight."""
    pieces = {"weight": Piece("weight", role, kind, axes)}
    if bias is not None:
        pieces["bias"] = Piece("bias", "bias", kind, beside(axes.fans(tuple(shape))))
    return pieces


def shape_of(module: nn.Module, *sizes: int) -> tuple[int, ...]:
    """The shape of a layer's weight; as its sizes say, where it has no weight of its own."""
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) else sizes


@layer(nn.Linear)
def linear(module: nn.Linear) -> Pieces:
    return affine("linear", OI, shape_of(module, module.out_features, module.in_features), module.bias)


@layer(nn.Bilinear)
def bilinear(module: nn.Bilinear) -> Pieces:
    shape = shape_of(module, module.out_features, module.in1_features, module.in2_features)
    return affine("bilinear", Axes(out=(0,), in_=(1, 2)), shape, module.bias)


@layer(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def conv(module: nn.Conv2d) -> Pieces:
    axes = Axes(out=(0,), in_=(1,), groups=module.groups)
    inputs = module.in_channels // module.groups
    shape = shape_of(module, module.out_channels, inputs, *module.kernel_size)
    return affine(f"conv{len(module.kernel_size)}d", axes, shape, module.bias)


@layer(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def conv_transpose(module: nn.ConvTranspose2d) -> Pieces:
    groups, stride = module.groups, math.prod(module.stride)
    axes = Axes(out=(1,), in_=(0,), stride=stride)
    if groups > 1:
        axes = Axes.parse("(g i) o * -> g o | i", groups=groups, stride=stride, g=groups)
    shape = shape_of(module, module.in_channels, module.out_channels // groups, *module.kernel_size)
    return affine(f"conv_transpose{len(module.kernel_size)}d", axes, shape, module.bias)


@layer(nn.Embedding, nn.EmbeddingBag)
def embedding(module: nn.Embedding) -> Pieces:
    return {"weight": Piece("weight", "embedding", "embedding", LOOKUP, padding_row=module.padding_idx)}


def norm(kind: str, *, offset: bool = False) -> Layer:
    """A layer whose ``weight`` scales what it has normalized; with ``offset`` by 1 + weight."""

    def pieces(module: nn.Module) -> Pieces:
        found = {"weight": "norm_offset" if offset else "norm_scale", "bias": "norm_bias"}
        return {
            name: Piece(name, role, kind, OI)
            for name, role in found.items()
            if getattr(module, name, None) is not None
        }

    return pieces


layer(_NormBase)(norm("batch_norm"))  # instance norm is one of them
layer(nn.LayerNorm)(norm("layer_norm"))
layer(nn.GroupNorm)(norm("group_norm"))
layer(nn.RMSNorm)(norm("rms_norm"))


@layer(nn.PReLU)
def prelu(module: nn.PReLU) -> Pieces:
    return {"weight": Piece("weight", "slope", "prelu", OI)}


@layer(nn.RNNBase, nn.RNNCellBase)
def recurrent(module: nn.RNNBase | nn.RNNCellBase) -> Pieces:
    """Each gate on its own. Layer 0 has no number in its names, so that a second layer changes none."""
    kind = type(module).__name__.removesuffix("Cell").upper()
    kind = next((known for known in ("LSTM", "GRU") if known in kind), "RNN")
    found: dict[str, Piece] = {}
    cells = [""] if isinstance(module, nn.RNNCellBase) else _suffixes(module)
    for suffix in cells:
        front = _front(suffix)
        weight = getattr(module, f"weight_ih{suffix}")
        gates = _stack("(g o) i -> g : o | i", kind)
        fans = gates.fans(tuple(weight.shape))
        for what, role, axes in (
            ("weight_ih", "kernel", gates),
            ("weight_hh", "recurrent_kernel", gates),
            ("bias_ih", "gate_bias", _stack("(g o) -> g : o |", kind, fans)),
            ("bias_hh", "recurrent_bias", _stack("(g o) -> g : o |", kind, fans)),
            ("weight_hr", "kernel", OI),
        ):
            name = f"{front}{what}" + (".{}" if axes.stack else "")
            found[f"{what}{suffix}"] = Piece(name, role, kind.lower(), axes)
    return found


def _suffixes(module: nn.RNNBase) -> list[str]:
    ends = ("", "_reverse") if module.bidirectional else ("",)
    return [f"_l{index}{end}" for index in range(module.num_layers) for end in ends]


def _front(suffix: str) -> str:
    """``_l1_reverse`` -> ``1.reverse.``, ``_l0`` -> nothing."""
    words = suffix.removeprefix("_l").split("_") if suffix else ["0"]
    return "".join(f"{word}." for word in words if word != "0")


def _stack(pattern: str, kind: str, fans: Fans | None = None) -> Axes:
    if not GATES[kind]:
        return OI if fans is None else beside(fans)
    axes = Axes.parse(pattern, members={"g": GATES[kind]})
    return replace(axes, known=fans)


@layer(nn.MultiheadAttention)
def attention(module: nn.MultiheadAttention) -> Pieces:
    """Packed or not, the projections have names of their own, and the fans of one.

    The kind says which, because PyTorch's own start of a packed projection is another.
    """
    width = module.embed_dim
    found: dict[str, Piece] = packed(
        "in_proj_weight", "in_proj_bias", PROJECTIONS, (width, width), "packed_attention"
    )
    for projection in PROJECTIONS:
        found[f"{projection}_weight"] = Piece(f"{projection}.weight", "kernel", "attention", OI)
    for bias in ("bias_k", "bias_v"):  # an entry added to the keys, and one to the values
        found[bias] = Piece(bias, "position", "attention", OI)
    out = affine("attention", OI, module.out_proj.weight.shape, module.out_proj.bias)
    found |= {f"out_proj.{what}": replace(piece, name=f"out_proj.{what}") for what, piece in out.items()}
    return found


def packed(
    weight: str,
    bias: str,
    members: tuple[str, ...],
    shape: tuple[int, int],
    kind: str,
    pattern: str = "(s o) i -> s : o | i",
) -> dict[str, Piece]:
    """Equal projections packed along one axis: ``shape`` is that of one, as (out, in)."""
    axes = Axes.parse(pattern, members={"s": members})
    stacked = Axes.parse("(s o) -> s : o |", members={"s": members})
    known = OI.fans(shape)
    one = Axes(
        stacked.out,
        stacked.in_,
        split=stacked.split,
        stack=stacked.stack,
        members=stacked.members,
        known=known,
    )
    return {weight: Piece("{}.weight", "kernel", kind, axes), bias: Piece("{}.bias", "bias", kind, one)}


def unknown(module: nn.Module, name: str, parameter: torch.Tensor) -> Piece:
    """A parameter of no layer that is known: a rule must name it."""
    return Piece(name, "unknown", type(module).__name__, OI if parameter.dim() > 1 else Axes((0,), ()))
