"""Projections that transformers' layers store together: each is told apart, with a name and fans of its own.

So fused and separate layouts of the same maths have the same names and the same numbers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from fanin.fans import OI, Axes
from fanin.model import PROJECTIONS, Piece, beside
from fanin.torch._activations import activation_name
from fanin.torch._layers import Layer, Pieces
from fanin.torch._wrappers import unwrapped

GATED = ("gate_proj", "up_proj")  # the factor that an activation follows, and the other


def fused(
    module: nn.Module, child: str, parts: Mapping[str, int], *, heads: int = 1, activation: object = None
) -> dict[str, list[Piece]]:
    """A linear layer whose output is that of several, one after another.

    Parameters
    ----------
    module : Module
        What holds it.
    child : str
        Its attribute.
    parts : mapping of str to int
        Names and numbers of outputs, in order.
    heads : int
        Heads that follow one another, each with these parts.
    activation : module or function, optional
        What follows the first part.
    """
    layer: Any = unwrapped(getattr(module, child))
    turned = is_turned(layer)
    inputs = layer.weight.shape[0 if turned else 1]
    pattern = "h o i -> h o | i" if heads > 1 else "i o -> o | i" if turned else "o i -> o | i"
    split = ((0, (heads, -1)),) if heads > 1 else ()
    front = ((0, heads),) if heads > 1 else ()
    weights, biases = [], []
    start = 0
    for name, width in parts.items():
        rows, columns = (start, start + width), (0, inputs)
        window = (columns, rows) if turned else (*front, rows, columns)
        known = beside(OI.fans((heads * width, inputs)))
        followed = activation_name(activation) if start == 0 else None
        weights.append(
            Piece(f"{name}.weight", "kernel", "linear", Axes.parse(pattern), window, split, followed)
        )
        axes = replace(known, out=(0, 1)) if heads > 1 else known
        biases.append(Piece(f"{name}.bias", "bias", "linear", axes, (*front, rows), split, followed))
        start += width
    return {f"{child}.weight": weights, f"{child}.bias": biases}


def is_turned(layer: nn.Module) -> bool:
    """Whether a linear layer is transformers' `Conv1D`, which stores (in, out)."""
    return type(layer).__name__ == "Conv1D"


def equal(child: str, names: tuple[str, ...], *, held: str | None = None) -> Layer:
    """A module that fuses projections of one size; the activation that it holds follows the first."""

    def pieces(module: nn.Module) -> Pieces:
        layer: Any = unwrapped(getattr(module, child))
        size = layer.weight.shape[1 if is_turned(layer) else 0] // len(names)
        activation = None if held is None else getattr(module, held)
        return fused(module, child, dict.fromkeys(names, size), activation=activation)

    return pieces


def attention_parts(queries: int, keys: int) -> dict[str, int]:
    return dict(zip(PROJECTIONS, (queries, keys, keys), strict=True))


def gpt2_attention(module: Any) -> Pieces:
    if not module.is_cross_attention:
        return equal("c_attn", PROJECTIONS)(module)
    others = fused(module, "q_attn", {PROJECTIONS[0]: module.embed_dim})
    return {**equal("c_attn", PROJECTIONS[1:])(module), **others}


def gpt_bigcode_attention(module: Any) -> Pieces:
    if module.is_cross_attention:
        return {}
    if module.multi_query:
        return fused(module, "c_attn", attention_parts(module.embed_dim, module.kv_dim))
    size = module.head_dim
    return fused(module, "c_attn", attention_parts(size, size), heads=module.num_heads)


def gpt_neox_attention(module: Any) -> Pieces:
    size = module.head_size
    heads = module.config.num_attention_heads
    return fused(module, "query_key_value", attention_parts(size, size), heads=heads)


def bloom_attention(module: Any) -> Pieces:
    size = module.head_dim
    return fused(module, "query_key_value", attention_parts(size, size), heads=module.num_heads)


def falcon_attention(module: Any) -> Pieces:
    """The queries of a key, the key and its value; with one key for all of them there is one such group."""
    groups, size = module.num_kv_heads, module.head_dim
    if not module.new_decoder_architecture and not module.multi_query:
        return bloom_attention(module)
    queries = module.num_heads // groups * size
    return fused(module, "query_key_value", attention_parts(queries, size), heads=groups)


def phi3_attention(module: Any) -> Pieces:
    config, size = module.config, module.head_dim
    parts = attention_parts(config.num_attention_heads * size, config.num_key_value_heads * size)
    return fused(module, "qkv_proj", parts)


def gated_attention(module: Any) -> Pieces:
    """The query of a head and the gate of its output."""
    parts = dict.fromkeys(("q_proj", "gate_proj"), module.head_dim)
    return fused(module, "q_proj", parts, heads=module.config.num_attention_heads)


def grouped_delta_net(module: Any) -> Pieces:
    """All that belongs to one key head, then what belongs to the next."""
    heads, keys = module.num_k_heads, module.head_k_dim
    shared = module.num_v_heads // heads
    values = shared * module.head_v_dim
    parts = {**attention_parts(keys, keys), "v_proj": values, "in_proj_z": values}
    gates = dict.fromkeys(("in_proj_b", "in_proj_a"), shared)
    return {
        **fused(module, "in_proj_qkvz", parts, heads=heads),
        **fused(module, "in_proj_ba", gates, heads=heads),
    }


def delta_net(module: Any) -> Pieces:
    parts = {**attention_parts(module.key_dim, module.key_dim), "v_proj": module.value_dim}
    return fused(module, "in_proj_qkv", parts)


# --- experts -------------------------------------------------------------------------------------


def experts(module: Any) -> Pieces:
    """Stacked experts, laid out as their class says of itself."""
    if not hasattr(module, "is_transposed"):
        return {}
    first = GATED if module.has_gate else GATED[1:]
    stored = "gate_up_proj" if module.has_gate else "up_proj"
    layout = {"turned": module.is_transposed, "by_turns": not module.is_concatenated}
    return {
        **_stacked(module, stored, first, activation=getattr(module, "act_fn", None), **layout),
        **_stacked(module, "down_proj", ("down_proj",), **layout),
    }


def llama4_experts(module: Any) -> Pieces:
    return {
        **_stacked(module, "gate_up_proj", GATED, activation=module.act_fn, turned=True),
        **_stacked(module, "down_proj", ("down_proj",), turned=True),
    }


def _stacked(
    module: nn.Module,
    stored: str,
    names: tuple[str, ...],
    *,
    activation: object = None,
    turned: bool = False,
    by_turns: bool = False,
) -> dict[str, list[Piece]]:
    """Projections of all experts in one tensor: (experts, out, in), or (experts, in, out) if ``turned``.

    Several share the axis of outputs one after another, or output by output ``by_turns``.
    """
    weight = module.get_parameter(stored)
    count, inputs, outputs = weight.shape if turned else (weight.shape[0], weight.shape[2], weight.shape[1])
    size = outputs // len(names)
    inner, parts = ("o s", (size, len(names))) if by_turns else ("s o", (len(names), size))
    pattern = f"e i {inner}" if turned else f"e {inner} i"
    stacks = (
        (stored, "weight", pattern, "e s : o | i", 2 if turned else 1),
        (f"{stored}_bias", "bias", f"e {inner}", "e s : o |", 1),
    )
    found: dict[str, list[Piece]] = {parameter: [] for parameter, *_ in stacks}
    for at, name in enumerate(names):
        bounds = {"e": (0, count), "s": (at, at + 1), "o": (0, size), "i": (0, inputs)}
        followed = activation_name(activation) if at == 0 else None
        for parameter, word, order, meaning, axis in stacks:
            axes = Axes.parse(f"{order} -> {meaning}", members={"s": (name,)})
            window = tuple(bounds[atom] for atom in order.split())
            found[parameter].append(
                Piece(
                    f"{{}}.{{}}.{word}",
                    "kernel" if word == "weight" else "bias",
                    "linear",
                    replace(axes, known=OI.fans((size, inputs))),
                    window,
                    ((axis, parts),),
                    followed,
                )
            )
    return {name: pieces for name, pieces in found.items() if getattr(module, name, None) is not None}
