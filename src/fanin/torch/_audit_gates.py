"""What goes into a recurrent layer's gates and into attention's softmax, computed once more."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fanin.model import GATES

QUERIES = 64  # rows of scores, of each head


def gates(module: Any, arguments: tuple[Any, ...]) -> dict[str, Tensor]:
    """What the first layer's gates see of the first step: ``{"forget_gate": before its sigmoid}``."""
    kind = next((known for known in ("LSTM", "GRU") if known in type(module).__name__.upper()), None)
    if kind is None or not arguments:
        return {}
    cell = isinstance(module, nn.RNNCellBase)
    suffix = "" if cell else "_l0"
    with torch.no_grad():
        first = arguments[0] if cell else _first_step(module, arguments[0])
        state = _state(module, arguments[1] if len(arguments) > 1 else None, first)
        inputs = nn.functional.linear(
            first, getattr(module, f"weight_ih{suffix}"), _bias(module, "ih", suffix)
        )
        memory = nn.functional.linear(
            state, getattr(module, f"weight_hh{suffix}"), _bias(module, "hh", suffix)
        )
        parts = zip(
            GATES[kind], inputs.chunk(len(GATES[kind]), -1), memory.chunk(len(GATES[kind]), -1), strict=True
        )
        found: dict[str, Tensor] = {}
        for name, input_part, memory_part in parts:
            # The reset gate multiplies what the new gate takes from the state.
            scale = torch.sigmoid(found["reset_gate"]) if name == "new_gate" else 1.0
            found[name] = input_part + scale * memory_part
    return found


def _bias(module: Any, what: str, suffix: str) -> Tensor | None:
    return getattr(module, f"bias_{what}{suffix}") if module.bias else None


def _first_step(module: Any, sequence: Any) -> Any:
    if isinstance(sequence, PackedSequence):
        return sequence.data[: sequence.batch_sizes[0]]
    if sequence.dim() < 3:
        return sequence[:1]
    return sequence[:, 0] if module.batch_first else sequence[0]


def _state(module: Any, given: Any, first: Tensor) -> Any:
    size = getattr(module, "proj_size", 0) or module.hidden_size
    if given is None:
        return first.new_zeros(len(first), size)
    state = given[0] if isinstance(given, tuple) else given
    if isinstance(module, nn.RNNCellBase):
        return state
    return state[0].reshape(-1, size)


def scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What `torch.nn.functional.scaled_dot_product_attention` takes the softmax of: of the first example
    and evenly spaced queries."""
    with torch.no_grad():
        length, keys = query.shape[-2], key.shape[-2]
        rows = torch.linspace(0, length - 1, min(QUERIES, length), device=query.device).round().long()
        query, key = _example(query)[..., rows, :], _example(key)
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        found = (query @ key.mT).float() * (scale or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            found = found.masked_fill(torch.arange(keys, device=rows.device) > rows[:, None], -math.inf)
        if attn_mask is not None:
            mask = _example(attn_mask.broadcast_to(*attn_mask.shape[:-2], length, keys))[..., rows, :]
            found = found.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else found + mask
    return found


def _example(tensor: Tensor) -> Tensor:
    """The first of a batch of several heads."""
    return tensor[0] if tensor.dim() > 3 else tensor
