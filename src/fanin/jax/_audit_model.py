"""A model as a pure function of its parameters and a batch, with the names of its modules in named scopes."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fanin.errors import FaninError, TraceError
from fanin.jax._audit_steps import mark
from fanin.jax._linen import PARAMS, is_linen, trace
from fanin.jax._tree import Node, Path, is_a, is_abstract, is_array, is_key, is_nnx, walk
from fanin.jax._walk import AxesOf, Described, describe

EQUINOX = "equinox._module._module.Module"
AS_TRAINED = {"deterministic": True, "use_running_average": False}  # dropout is off, batch norm is not
NAME = "fanin_module"  # where a module of the copy keeps its name


@dataclass(frozen=True)
class Pure:
    """A model that can be called.

    Attributes
    ----------
    described : Described
        Its parameters.
    values : list of array
        Theirs, one for each tensor of ``described.model``.
    call : callable
        ``call(values, batch)`` is the model's output; the model itself stays as it is.
    """

    described: Described
    values: list[Any]
    call: Callable[[Sequence[Any], Any], Any]


def callable_of(model: Any, params: Any, batch: Any, axes: AxesOf | None) -> Pure:
    """Make a pure function of a model.

    Raises
    ------
    TraceError
        When it has no parameters with values, or cannot be called.
    """
    try:
        made = _made(model, params, batch, axes)
    except TraceError:
        raise
    except FaninError as error:
        raise TraceError(str(error)) from error
    for tensor, value in zip(made.described.model.tensors, made.values, strict=True):
        if is_abstract(value):
            raise TraceError(f"{tensor.path!r} is abstract and has no values; initialize the model first")
    return made


def _made(model: Any, params: Any, batch: Any, axes: AxesOf | None) -> Pure:
    if is_nnx(model):
        if params is not None:
            raise TraceError(f"`params` are in a {type(model).__name__} itself; leave them out")
        return _of_nnx(model, axes)
    if is_linen(model):
        return _of_linen(model, params, batch, axes)
    if not callable(model):
        raise TraceError(
            f"`model` is a {type(model).__name__}, which cannot be called; expected a module of Flax or "
            f"Equinox, or a function of (params, batch) with `params`"
        )
    if params is not None:
        return _of_tree(params, axes, model)
    leaves = [leaf for leaf in jax.tree.leaves(model) if is_array(leaf)]
    if not leaves:
        raise TraceError("`params` are missing: the parameters of a function are its first argument")
    if is_a(type(model), EQUINOX):
        inference = sys.modules["equinox"].nn.inference_mode
        return _of_tree(model, axes, lambda tree, given: _mapped(inference(tree), given))
    return _of_tree(model, axes, _call)


def arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as arguments: a tuple is several, a mapping are those by name."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (batch if isinstance(batch, tuple) else (batch,)), {}


def _call(function: Callable[..., Any], batch: Any) -> Any:
    args, kwargs = arguments(batch)
    return function(*args, **kwargs)


def _mapped(function: Callable[..., Any], batch: Any) -> Any:
    """A function of one example, for each of a batch."""
    args, kwargs = arguments(batch)
    return jax.vmap(lambda args, kwargs: function(*args, **kwargs))(args, kwargs)


# --- trees ---------------------------------------------------------------------------------------


def _slots(described: Described) -> list[Node]:
    """A leaf for each stored tensor."""
    return [described.slots[tensor.path][0] for tensor in described.model.tensors]


def _of_tree(tree: Any, axes: AxesOf | None, call: Callable[[Any, Any], Any]) -> Pure:
    described = describe(tree, axes)
    structure = jax.tree.structure(tree)
    leaves = _slots(described)
    at = {leaf.path: number for number, leaf in enumerate(described.leaves)}

    def with_values(values: Sequence[Any], batch: Any) -> Any:
        filled = [leaf.array for leaf in described.leaves]
        for leaf, value in zip(leaves, values, strict=True):
            filled[at[leaf.path]] = value
        return call(jax.tree.unflatten(structure, filled), batch)

    return Pure(described, [leaf.array for leaf in leaves], with_values)


# --- linen ---------------------------------------------------------------------------------------


def _of_linen(module: Any, params: Any, batch: Any, axes: AxesOf | None) -> Pure:
    if not isinstance(params, Mapping) or PARAMS not in params:
        raise TraceError(
            f"`params` of {type(module).__name__} are missing: pass the variables that its `init` returned, "
            f"{{{PARAMS!r}: ...}}"
        )
    args, kwargs = arguments(batch)
    traced = trace(module, kwargs or args)
    described = describe(params[PARAMS], axes, traced)
    leaves = _slots(described)
    at = {leaf.path: number for number, leaf in enumerate(described.leaves)}
    structure = jax.tree.structure(params[PARAMS])
    names = {node.path: node.name for node in walk(params[PARAMS], traced.layers, (PARAMS,))}
    mutable = [name for name in traced.variables if name != PARAMS]

    def with_values(values: Sequence[Any], batch: Any) -> Any:
        filled = [leaf.array for leaf in described.leaves]
        for leaf, value in zip(leaves, values, strict=True):
            filled[at[leaf.path]] = value
        variables = {**params, PARAMS: jax.tree.unflatten(structure, filled)}
        args, kwargs = arguments(batch)
        with sys.modules["flax.linen"].intercept_methods(_as_trained(names)):
            found = module.apply(
                variables, *args, **kwargs, mutable=mutable, rngs={PARAMS: jax.random.key(0)}
            )
        return found[0]

    return Pure(described, [leaf.array for leaf in leaves], with_values)


def _as_trained(names: Mapping[Path, str]) -> Callable[..., Any]:
    """An interceptor of linen: every call in a named scope, dropout off, batch norm of the batch."""

    def listen(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if module.scope is None or context.method_name == "setup":
            return call(*args, **kwargs)
        if is_a(type(module), "flax.linen.stochastic.Dropout"):
            return args[0] if args else kwargs["inputs"]
        name = names.get((PARAMS, *module.path), ".".join(module.path))
        with _batch_statistics(module, kwargs) as mended, jax.named_scope(mark(name, type(module).__name__)):
            return call(*args, **mended)

    return listen


@contextmanager
def _batch_statistics(module: Any, kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Let a batch norm of linen, which is a copy made for this call, normalize by its batch."""
    if not is_a(type(module), "flax.linen.normalization.BatchNorm"):
        yield kwargs
        return
    before = module.use_running_average
    object.__setattr__(module, "use_running_average", None)
    try:
        yield {**kwargs, "use_running_average": False}
    finally:
        object.__setattr__(module, "use_running_average", before)


# --- nnx -----------------------------------------------------------------------------------------


def _of_nnx(model: Any, axes: AxesOf | None) -> Pure:
    described = describe(model, axes)
    leaves = _slots(described)
    names = {node.path: node.name for node in walk(model) if not node.is_leaf}
    clone = sys.modules["flax.nnx"].clone

    def with_values(values: Sequence[Any], batch: Any) -> Any:
        mine = clone(model)
        mine.set_attributes(**AS_TRAINED, raise_if_not_found=False)
        nodes = {node.path: node for node in walk(mine)}
        for leaf, value in zip(leaves, values, strict=True):
            nodes[leaf.path].value.set_value(value)
        for path, name in names.items():
            _announce(nodes[path].value, name)
        return _call(mine, batch)

    return Pure(described, [leaf.array for leaf in leaves], with_values)


def _announce(module: Any, name: str) -> None:
    """Let a module, which is our copy, say its name wherever it is called."""
    if is_nnx(module) and callable(module):
        object.__setattr__(module, NAME, name)
        kind: Any = type(module)
        object.__setattr__(module, "__class__", _announcing(kind))


@cache
def _announcing(kind: Any) -> type:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with jax.named_scope(mark(getattr(self, NAME), kind.__name__)):
            return kind.__call__(self, *args, **kwargs)

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    made: type = type(kind)(kind.__name__, (kind,), {"__call__": call, **names})
    return made


# --- batches -------------------------------------------------------------------------------------


def split(batch: Any) -> tuple[list[jax.Array], Callable[[Sequence[Any]], Any]]:
    """The arrays of a batch, NumPy's as JAX's, and a function that puts others in their place.

    Raises
    ------
    TraceError
        When it holds no array.
    """
    leaves, tree = jax.tree.flatten(batch)
    at = [number for number, leaf in enumerate(leaves) if is_array(leaf)]
    if not at:
        raise TraceError(f"`batch` ({type(batch).__name__}) holds no array")
    for number in at:
        if is_abstract(leaves[number]):
            raise TraceError(f"`batch` holds shapes without values: {leaves[number]}")
    arrays = [leaves[number] if is_key(leaves[number]) else jnp.asarray(leaves[number]) for number in at]

    def joined(values: Sequence[Any]) -> Any:
        filled = list(leaves)
        for number, value in zip(at, values, strict=True):
            filled[number] = value
        return jax.tree.unflatten(tree, filled)

    return arrays, joined


def shapes(arrays: Sequence[Any]) -> str:
    return ", ".join(f"{np.dtype(a.dtype).name}{list(a.shape)}" if not is_key(a) else "key" for a in arrays)
