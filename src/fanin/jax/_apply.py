"""From a plan to arrays: everything is checked, then everything is made, then everything is set."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from fanin import threads
from fanin._types import Array, Window
from fanin.errors import PlanError
from fanin.jax._arrays import assembled, sizes_of
from fanin.jax._sharded import agree, placed
from fanin.jax._tree import Node, Path, is_a, is_abstract, is_key
from fanin.jax._walk import Described
from fanin.memory import aligned
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import paired
from fanin.sampling import Canvas, bits, name_stream

BATCH_STAT, COUNT, KEY = (
    f"flax.nnx.{place}" for place in ("variablelib.BatchStat", "rnglib.RngCount", "rnglib.RngKey")
)
STATISTICS = {"mean": 0.0, "var": 1.0}  # before any batch


def made(plan: Plan, described: Described, places: Mapping[Path, Sharding]) -> dict[Path, Any]:
    """The new value of each leaf that has one. Nothing is set.

    Parameters
    ----------
    plan, described
        Of one model.
    places : mapping of path to Sharding
        Where arrays are to be; others are on JAX's default device.

    Raises
    ------
    PlanError
        Before anything is made.
    """
    if isinstance(jnp.zeros(()), jax.core.Tracer):
        raise PlanError(
            "initialize outside jit, vmap and grad: its numbers would be constants of the program"
        )
    pairs = list(paired(plan, described.model))
    for tensor, mine in pairs:
        for leaf in described.slots[mine.path]:
            _check(plan, tensor, leaf)
    lost = list(_lost(described, plan.seed))
    agree(plan, places)
    values = {}
    ready = _side_by_side(plan, [(tensor, described.slots[mine.path][0]) for tensor, mine in pairs], places)
    for tensor, mine in pairs:
        leaves = described.slots[mine.path]
        if plan.sets(tensor.path):
            place = places.get(leaves[0].path)
            array = make(plan, tensor, leaves[0].array, place, ready.pop(tensor.path, None))
            values.update({leaf.path: array for leaf in leaves})
    values.update({leaf.path: placed(leaf, value, places) for leaf, value in lost})
    for leaf in described.leaves:
        if leaf.path not in values and leaf.path in places:
            values[leaf.path] = placed(leaf, leaf.array, places)
    return values


def _check(plan: Plan, tensor: Tensor, leaf: Node) -> None:
    kept = [row.name for row, _ in plan.parts(tensor) if row.initializer is None]
    if kept and is_abstract(leaf.array):
        raise PlanError(f"{kept[0]!r} is abstract and has no value to keep; give it a rule")
    if kept and plan.sets(tensor.path) and not getattr(leaf.array, "is_fully_addressable", True):
        raise PlanError(f"{kept[0]!r} is kept in an array of which other processes hold parts")


# --- arrays --------------------------------------------------------------------------------------


def _side_by_side(
    plan: Plan, leaves: list[tuple[Tensor, Node]], places: Mapping[Path, Sharding]
) -> dict[str, Array]:
    """Whole arrays that JAX adopts as they are, on the host, made one in a thread: {path: values}."""
    if jax.default_backend() != "cpu":
        return {}
    found: dict[str, Array] = {}

    def fill(tensor: Tensor, dtype: np.dtype[Any]) -> None:
        found[tensor.path] = plan.fill(tensor.path, out=aligned(tensor.shape, dtype))

    threads.run_all(
        partial(fill, tensor, np.dtype(leaf.array.dtype))
        for tensor, leaf in leaves
        if leaf.path not in places
        and not plan.coupled(tensor.path)
        and all(row.initializer is not None for row, _ in plan.parts(tensor))
    )
    return found


def make(
    plan: Plan, tensor: Tensor, old: Any, place: Sharding | None, ready: Array | None = None
) -> jax.Array:
    """A stored tensor of a plan as a ``jax.Array``, each process its own windows.

    Parameters
    ----------
    plan, tensor
        Which values.
    old : array or ShapeDtypeStruct
        Has what is kept.
    place : Sharding, optional
        Where they are to be.
    ready : array, optional
        All of the values, if they have been made.
    """
    kept = any(row.initializer is None for row, _ in plan.parts(tensor))
    before = np.asarray(old) if kept else None

    def window(part: Window) -> Array:
        if ready is not None:
            return ready
        out = aligned(sizes_of(part), np.dtype(old.dtype))
        if before is not None:
            out[...] = before[part]
        return plan.fill(tensor.path, window=part, out=out)

    return assembled(tensor.shape, np.dtype(old.dtype), place, window)


# --- what is no parameter ------------------------------------------------------------------------


def _lost(described: Described, seed: int) -> Iterator[tuple[Node, Any]]:
    """A value for everything abstract that no plan sets: statistics before any batch, random streams.

    Raises
    ------
    PlanError
        For what nothing tells.
    """
    parameters = {leaf.path for several in described.slots.values() for leaf in several}
    for leaf in described.leaves:
        if not is_abstract(leaf.array) or leaf.path in parameters:
            continue
        kind, old, start = type(leaf.value), leaf.array, starts(leaf)
        if start is not None:
            yield leaf, jnp.full(old.shape, start, old.dtype)
        elif is_a(kind, KEY) and is_key(old):
            yield leaf, key(seed, leaf.name, old)
        else:
            raise PlanError(
                f"{leaf.name!r} ({kind.__name__}) is abstract and no parameter; give it a value first"
            )


def starts(leaf: Node) -> float | None:
    """The value that all elements of a variable of nnx have before any batch, if its class tells."""
    kind = type(leaf.value)
    if is_a(kind, BATCH_STAT):
        return STATISTICS.get(leaf.path[-1])
    return 0 if is_a(kind, COUNT) else None


def key(seed: int, name: str, like: Any = None) -> jax.Array:
    """Random keys that belong to a seed and a name, of the shape and kind of others; one key by default.

    >>> key(0, "dropout.rngs.key").shape
    ()
    """
    like = jax.eval_shape(jax.random.key, 0) if like is None else like
    kinds: list[Any] = []

    def words_of(keys: Any) -> jax.Array:  # traced, an abstract key tells its kind
        kinds.append(jax.random.key_impl(keys))
        return jax.random.key_data(keys)

    words = jax.eval_shape(words_of, like).shape
    whole = tuple(slice(0, size) for size in words)
    drawn = bits(Canvas(words, whole, np.empty(words, np.uint32)), name_stream(seed, name, words))
    made_of: jax.Array = jax.random.wrap_key_data(jnp.asarray(drawn), impl=kinds[0])
    return made_of
