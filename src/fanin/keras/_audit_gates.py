"""What goes into a recurrent layer's gates and into attention's softmax, computed once more."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import layers

from fanin._types import Array
from fanin.keras._audit_backend import numbers
from fanin.keras._layers import NEW, RESET, UPDATE
from fanin.model import GATES

QUERIES = 64  # rows of scores, of each head


def gates(layer: Any, sequence: Any, initial: Any) -> dict[str, Array]:
    """What the gates see of the first step: ``{"forget_gate": before its sigmoid}``.

    Of layers on one another the first, of two directions the forward one; of other cells than LSTM and GRU
    nothing.
    """
    layer = layer.forward_layer if isinstance(layer, layers.Bidirectional) else layer
    cell: Any = getattr(layer, "cell", None)
    if isinstance(cell, layers.StackedRNNCells):
        cell, initial = cell.cells[0], None
    lstm = isinstance(cell, layers.LSTMCell)
    if not lstm and not isinstance(cell, layers.GRUCell):
        return {}
    first = numbers(sequence)[:, -1 if layer.go_backwards else 0]
    inputs = first @ numbers(cell.kernel)
    state = initial[0] if isinstance(initial, list | tuple) else initial
    memory = np.zeros_like(inputs) if state is None else numbers(state) @ numbers(cell.recurrent_kernel)
    if cell.bias is not None:
        biases = numbers(cell.bias).reshape(-1, inputs.shape[-1])
        inputs, memory = inputs + biases[0], memory + biases[1:].sum(axis=0)
    names = GATES["LSTM"] if lstm else (UPDATE, RESET, NEW)
    found: dict[str, Array] = {}
    pairs = zip(names, *(np.split(each, len(names), -1) for each in (inputs, memory)), strict=True)
    for name, input_part, memory_part in pairs:
        # The reset gate multiplies what the new gate takes from the state.
        scale = 1 / (1 + np.exp(-found[RESET])) if name == NEW else 1.0
        found[name] = input_part + scale * memory_part
    return found


def scores(operation: Any, query: Any, key: Any, more: Mapping[str, Any]) -> Array:
    """What `keras.ops.dot_product_attention` takes the softmax of: of the first example and evenly spaced
    queries, (heads, queries, keys)."""
    queries, keys = (np.moveaxis(numbers(each[0]), 1, 0).astype(np.float32) for each in (query, key))
    length, known = queries.shape[1], keys.shape[1]
    rows = np.linspace(0, length - 1, min(QUERIES, length)).round().astype(int)
    keys = np.repeat(keys, len(queries) // len(keys), axis=0)
    scale = more.get("scale")
    found: Array = queries[:, rows] @ np.swapaxes(keys, 1, 2)
    found = found * (1 / math.sqrt(queries.shape[-1]) if scale is None else float(numbers(scale)))
    for name in ("bias", "mask"):
        given = more.get(name)
        if given is None:
            continue
        full = np.broadcast_to(numbers(given)[:1], (1, len(queries), length, known))[0][:, rows]
        found = found + full if name == "bias" else np.where(full, found, -np.inf)
    if operation.is_causal:
        found = np.where(np.arange(known) <= rows[:, None], found, -np.inf)
    return found


def masked(values: Array, mask: Any) -> Array:
    """Scores with those that a softmax layer's masks take away at minus infinity."""
    for each in mask if isinstance(mask, list | tuple) else [mask]:
        if each is not None:
            values = np.where(numbers(each) > 0.5, values, -np.inf)
    return values
