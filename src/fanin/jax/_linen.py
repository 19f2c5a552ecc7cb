"""Flax linen: a module's variables have no layers, so they are learned while its ``init`` is traced."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from fanin.errors import PlanError
from fanin.jax._tree import MODULES, Path, is_a, is_array, walk

PARAMS = "params"
ARRAY = object()  # stands for an array among the inputs
Init: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Traced:
    """What a module's ``init`` makes, and the modules that make it.

    Parameters
    ----------
    variables : tree of jax.ShapeDtypeStruct
        All collections.
    layers : mapping of path to module
        In the order of their first call.
    shapes : mapping of path to tuple of int
        Of each parameter as its own layer sees it: inside ``nn.scan`` and ``nn.vmap`` that is one of a stack.
    init : callable
        Makes the variables from a key and arrays such as ``given``, those among the inputs.
    """

    variables: Any
    layers: Mapping[Path, Any]
    shapes: Mapping[Path, tuple[int, ...]]
    init: Init
    given: tuple[Any, ...]


def is_linen(model: Any) -> bool:
    return is_a(type(model), MODULES["linen"])


def trace(module: Any, inputs: Any) -> Traced:
    """Trace a linen module's ``init``; nothing is computed.

    Raises
    ------
    PlanError
        Without ``inputs``.
    """
    if inputs is None:
        raise PlanError(
            f"`inputs` of {type(module).__name__} are missing: a linen module has no shapes before its first "
            f"call; pass inputs=(x,), arrays or jax.ShapeDtypeStruct"
        )
    args, kwargs = ((), inputs) if isinstance(inputs, Mapping) else (inputs, {})
    if not isinstance(args, tuple | list):
        args = (args,)
    leaves, tree = jax.tree.flatten((tuple(args), dict(kwargs)))
    given = tuple(leaf for leaf in leaves if is_array(leaf))
    rest = tuple((ARRAY, None) if is_array(leaf) else (type(leaf), leaf) for leaf in leaves)  # 1 is not True
    try:
        init, listened = _init(module, tree, rest)
    except TypeError:  # something in them has no hash: traced anew each time
        init, listened = _init.__wrapped__(module, tree, rest)
    variables, heard = jax.eval_shape(listened, jax.eval_shape(jax.random.key, 0), *given)
    return Traced(variables, heard.layers, heard.shapes, init, given)


def others(traced: Traced, key: jax.Array) -> dict[str, Any]:
    """The start of all collections but the parameters, as the module itself makes it.

    Compiled without the parameters' own draws, which nothing uses then.
    """
    names = [name for name in traced.variables if name != PARAMS]
    if not names:
        return {}
    given = [
        jnp.zeros(each.shape, each.dtype) if isinstance(each, jax.ShapeDtypeStruct) else each
        for each in traced.given
    ]
    started: dict[str, Any] = jax.jit(lambda *given: _only(names, traced.init(*given)))(key, *given)
    return started


def _only(names: list[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: variables[name] for name in names}


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Heard:
    """The layers and shapes of a `Traced`; a part of what is traced, which JAX keeps with its other parts."""

    layers: dict[Path, Any]
    shapes: dict[Path, tuple[int, ...]]


# JAX keeps the trace of a function that it knows, and tracing takes as long as drawing.
@lru_cache(maxsize=8)
def _init(module: Any, tree: Any, leaves: tuple[tuple[Any, Any], ...]) -> tuple[Init, Init]:
    """A function that initializes from a key and the arrays among the inputs; one that also tells `Heard`."""

    def init(key: jax.Array, *given: Any) -> Any:
        left = iter(given)
        made = [next(left) if kind is ARRAY else leaf for kind, leaf in leaves]
        args, kwargs = jax.tree.unflatten(tree, made)
        return module.init(key, *args, **kwargs)

    def listened(key: jax.Array, *given: Any) -> tuple[Any, Heard]:
        heard = Heard({}, {})
        with sys.modules["flax.linen"].intercept_methods(partial(_listen, heard)):
            return init(key, *given), heard

    return init, listened


def _listen(heard: Heard, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    called = context.module
    if called.scope is None:
        return call(*args, **kwargs)
    path = (PARAMS, *called.path)
    heard.layers.setdefault(path, called)  # parents first
    result = call(*args, **kwargs)
    for node in walk(called.variables.get(PARAMS, {})):
        if node.is_leaf:
            heard.shapes.setdefault(
                path + node.path, node.value.shape
            )  # a layer's call ends before a stack's
    return result
