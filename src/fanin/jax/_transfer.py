"""What a model keeps besides its parameters, and other names by which checkpoints know all of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fanin._types import Array
from fanin.checkpoints.contents import readable
from fanin.errors import PlanError
from fanin.fans import Axes
from fanin.initializers import Constant
from fanin.jax._apply import starts
from fanin.jax._layers import nearest
from fanin.jax._linen import PARAMS, Traced
from fanin.jax._tree import Node, is_abstract, is_array, is_key, is_nnx, is_variable, walk
from fanin.jax._verify import held_by
from fanin.jax._walk import Described
from fanin.model import BUFFER, Model, Piece, Tensor
from fanin.plan import Plan

MOVING = {"mean": "running_mean", "var": "running_var"}
# State in canonical words.
WORDS: Mapping[str, Mapping[str, str]] = {"nnx.BatchNorm": MOVING, "linen.BatchNorm": MOVING}


def with_state(described: Described, traced: Traced | None = None, started: Any = None) -> Described:
    """A model's parameters, and its state as buffers: variables of nnx, collections of linen; no random keys.

    Parameters
    ----------
    described
        The parameters.
    traced, started
        Of a linen module, and its other collections with values, once there are some.
    """
    parameters = {leaf.path for several in described.slots.values() for leaf in several}
    if traced is None:
        leaves = [leaf for leaf in described.leaves if is_variable(leaf.value)]
    else:
        leaves = list(_collections(traced, started))
    same: dict[int, list[Node]] = {}
    for leaf in leaves:
        array = leaf.array
        plain = is_array(array) and not is_key(array) and readable(np.dtype(array.dtype).name)
        if plain and leaf.path not in parameters:
            same.setdefault(id(leaf.value), []).append(leaf)
    tensors = list(described.model.tensors)
    slots = dict(described.slots)
    taken = {piece.name for tensor in tensors for piece in tensor.pieces}
    for several in same.values():
        tensor = _buffer(several, taken)
        taken.add(tensor.pieces[0].name)
        tensors.append(tensor)
        slots[tensor.path] = tuple(several)
    named = tuple(
        replace(tensor, ties=(*tensor.ties, *_saved_as(tensor, described, linen=traced is not None)))
        for tensor in tensors
    )
    return replace(described, model=Model(named, described.model.facts), slots=slots)


def _collections(traced: Traced, started: Any) -> Iterator[Node]:
    """The leaves of a linen module's variables but the parameters, beside the layers that they are of."""
    for name, tree in (traced.variables if started is None else started).items():
        if name != PARAMS:
            layers = {(name, *path[1:]): layer for path, layer in traced.layers.items()}
            yield from (node for node in walk(tree, layers, (name,)) if node.is_leaf)


def _buffer(several: list[Node], taken: set[str]) -> Tensor:
    first, *others = (".".join(leaf.path) for leaf in several)
    leaf = several[0]
    array = leaf.array
    words = nearest(WORDS, type(leaf.module)) or {}
    name = ".".join(filter(None, (*leaf.names[:-1], words.get(leaf.names[-1], leaf.names[-1]))))
    start = starts(leaf)
    own = Constant(start) if start is not None and is_abstract(array) else None
    axes = Axes(tuple(range(len(array.shape))), ())
    piece = Piece(first if name in taken else name, BUFFER, type(leaf.module).__name__, axes, own=own)
    return Tensor(first, tuple(array.shape), np.dtype(array.dtype).name, (piece,), tuple(others))


def _saved_as(tensor: Tensor, described: Described, *, linen: bool) -> Iterator[str]:
    """What Orbax calls the arrays of an ``nnx.state``, and those of a linen module's parameters alone."""
    if linen and tensor.path.startswith(f"{PARAMS}."):
        yield tensor.path.removeprefix(f"{PARAMS}.")
    elif is_nnx(described.tree):
        yield from (f"{path}.value" for path in (tensor.path, *tensor.ties))


def reader(plan: Plan, model: Any) -> Callable[[str], Array]:
    """A function that gives the present values of a tensor of a plan."""
    arrays = {tensor.path: several[0] for tensor, several in held_by(plan, model)}

    def read(path: str) -> Array:
        if is_abstract(arrays[path]):
            raise PlanError(f"{path!r} is abstract and has no values")
        return np.asarray(arrays[path])

    return read
