"""From a plan to arrays: everything is checked, then everything is made, then everything is set."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding

from fanin._types import Array, Window
from fanin.errors import PlanError
from fanin.jax._arrays import aligned
from fanin.jax._tree import Node, is_a, is_key
from fanin.jax._walk import Described
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import paired
from fanin.sampling import Canvas, bits, name_stream

BATCH_STAT, COUNT, KEY = (
    f"flax.nnx.{place}" for place in ("variablelib.BatchStat", "rnglib.RngCount", "rnglib.RngKey")
)
STATISTICS = {"mean": 0.0, "var": 1.0}  # before any batch


def made(plan: Plan, described: Described) -> dict[int, Any]:
    """The new value of each leaf that has one, by its place among the leaves. Nothing is set.

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
    at = {leaf.path: place for place, leaf in enumerate(described.leaves)}
    values = {}
    for tensor, mine in pairs:
        leaves = described.slots[mine.path]
        if plan.sets(tensor.path):
            array = make(plan, tensor, leaves[0].array)
            values.update({at[leaf.path]: array for leaf in leaves})
    for leaf, value in _lost(described, plan.seed):
        values[at[leaf.path]] = value
    return values


def is_abstract(array: Any) -> bool:
    return isinstance(array, jax.ShapeDtypeStruct)


def _check(plan: Plan, tensor: Tensor, leaf: Node) -> None:
    kept = [row.name for row, _ in plan.parts(tensor) if row.initializer is None]
    if kept and is_abstract(leaf.array):
        raise PlanError(f"{kept[0]!r} is abstract and has no value to keep; give it a rule")
    if kept and plan.sets(tensor.path) and not getattr(leaf.array, "is_fully_addressable", True):
        raise PlanError(f"{kept[0]!r} is kept in an array of which other processes hold parts")


# --- arrays --------------------------------------------------------------------------------------


def make(plan: Plan, tensor: Tensor, old: Any) -> jax.Array:
    """A stored tensor of a plan as a ``jax.Array``: where its leaf was, each process its own windows.

    Parameters
    ----------
    plan, tensor
        Which values.
    old : array or ShapeDtypeStruct
        Tells where they are to be, and what is kept.
    """
    kept = any(row.initializer is None for row, _ in plan.parts(tensor))
    before = np.asarray(old) if kept else None
    sharding = sharding_of(old)

    def window(part: Window) -> Array:
        starts = [part.indices(size) for part, size in zip(part, tensor.shape, strict=True)]
        out = aligned([stop - start for start, stop, _ in starts], np.dtype(old.dtype))
        if before is not None:
            out[...] = before[part]
        return plan.fill(tensor.path, window=part, out=out)

    if sharding is None:
        whole: jax.Array = jax.device_put(window(tuple(slice(0, size) for size in tensor.shape)))
        return whole
    parts: dict[tuple[tuple[int | None, int | None], ...], Array] = {}

    def shard(part: Window | None) -> Array:  # each once, however often it is stored
        assert part is not None
        place = tuple((each.start, each.stop) for each in part)
        if place not in parts:
            parts[place] = window(part)
        return parts[place]

    return jax.make_array_from_callback(tensor.shape, sharding, shard, np.dtype(old.dtype))


def sharding_of(array: Any) -> Sharding | None:
    """Where an array is, or is to be; None for JAX's default."""
    sharding: Sharding | None = getattr(array, "sharding", None)
    placed = is_abstract(array) or isinstance(sharding, NamedSharding) or getattr(array, "committed", False)
    return sharding if placed else None


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
        kind, old = type(leaf.value), leaf.array
        if is_a(kind, BATCH_STAT) and leaf.path[-1] in STATISTICS:
            yield leaf, jnp.full(old.shape, STATISTICS[leaf.path[-1]], old.dtype)
        elif is_a(kind, COUNT):
            yield leaf, jnp.zeros(old.shape, old.dtype)
        elif is_a(kind, KEY) and is_key(old):
            yield leaf, key(seed, leaf.name, old)
        else:
            raise PlanError(
                f"{leaf.name!r} ({kind.__name__}) is abstract and no parameter; give it a value first"
            )


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
