"""Arrays against a plan: every value that this process holds made again and compared, bit for bit."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from fanin._types import Array, Window
from fanin.errors import PlanError
from fanin.jax._arrays import explicit
from fanin.jax._linen import PARAMS, is_linen
from fanin.jax._tree import is_abstract, is_parameter, walk
from fanin.materialize import Mismatch, first_difference
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import has_buffers


def differences(plan: Plan, model: Any) -> list[Mismatch]:
    """Of each tensor that differs the first element.

    Raises
    ------
    PlanError
        When the plan is for another model.
    """
    found = []
    for tensor, arrays in held_by(plan, model):
        if any(is_abstract(array) for array in arrays):
            found.append(Mismatch(tensor.path, "has no values: it is abstract"))
        elif plan.sets(tensor.path):
            wrong = [each for array in arrays for each in _wrong(plan, tensor, array)]
            found += sorted(wrong, key=lambda mismatch: mismatch.index or ())[:1]
    return found


def held_by(plan: Plan, model: Any) -> list[tuple[Tensor, list[Any]]]:
    """Each tensor of a plan and the arrays that hold it: several, where ties have come apart."""
    if is_linen(model):
        raise PlanError(f"a linen module ({type(model).__name__}) holds no values; pass its variables")
    leaves = [node for node in walk(model) if node.is_leaf]
    parameters = [leaf for leaf in leaves if is_parameter(leaf.value)]
    if any(leaf.path[:1] == (PARAMS,) for leaf in parameters):  # linen's variables
        parameters = [leaf for leaf in parameters if leaf.path[0] == PARAMS]
    held = {".".join(leaf.path): leaf.array for leaf in parameters}
    known = {".".join(leaf.path): leaf.array for leaf in leaves} if has_buffers(plan) else held
    return list(_paired(plan, held, known))


def _paired(
    plan: Plan, held: Mapping[str, Any], known: Mapping[str, Any]
) -> Iterator[tuple[Tensor, list[Any]]]:
    """``held`` are the parameters, of which the plan must have all; ``known`` has the state, too."""
    missing = dict(held)
    for tensor in plan.tensors:
        paths = [path for path in (tensor.path, *tensor.ties) if path in known]
        arrays = {id(known[path]): known[path] for path in paths}
        for path in paths:
            missing.pop(path, None)
        if not arrays:
            raise PlanError(f"{tensor.path!r} is not in the model; make the plan for this model")
        for array in arrays.values():
            if (tuple(array.shape), np.dtype(array.dtype).name) != (tensor.shape, tensor.dtype):
                raise PlanError(
                    f"{tensor.path!r}: the plan is for {tensor.dtype} {tensor.shape}, the model has "
                    f"{array.dtype} {tuple(array.shape)}; make the plan for this model"
                )
        yield tensor, list(arrays.values())
    for path in missing:
        raise PlanError(f"{path!r} is not in the plan; make the plan for this model")


def _wrong(plan: Plan, tensor: Tensor, array: Any) -> Iterator[Mismatch]:
    """The first difference of each shard."""
    for window, values in _shards(array):
        yield from first_difference(plan, tensor.path, window, values.__getitem__)


def _shards(array: Any) -> Iterator[tuple[Window, Array]]:
    """What this process holds, and where in the array."""
    if not isinstance(array, jax.Array):
        yield tuple(slice(0, size) for size in array.shape), np.asarray(array)
        return
    for shard in array.addressable_shards:
        yield explicit(shard.index, array.shape), np.asarray(shard.data)
