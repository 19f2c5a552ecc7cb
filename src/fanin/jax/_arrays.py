"""From windows of NumPy arrays to ``jax.Array``: at once, in shards, and inside compiled functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec, Sharding

from fanin._types import Array, Window
from fanin.dialects import InDialect
from fanin.dtypes import as_dtype
from fanin.errors import ArgumentError, DtypeError, SeedError, ShapeError
from fanin.fans import AxesLike, check_shape
from fanin.initializers import Constant, Initializer, Ones, Zeros
from fanin.jax._keys import key_words, seed_of_words
from fanin.memory import aligned

OutSharding: TypeAlias = NamedSharding | PartitionSpec | None
EVERYWHERE = PartitionSpec()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Tensor:
    """A tensor that can be made window by window: by what, how large, from which kind of key (or none)."""

    core: Initializer
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: AxesLike
    kind: str | None

    def window(self, words: Any, window: Window) -> Array:
        """A window of the values that belong to the words of a key."""
        seed = None if self.kind is None else seed_of_words(words, self.kind)
        out = aligned(sizes_of(window), self.dtype)
        self.core(self.shape, seed=seed, axes=self.axes, window=window, out=out)
        return out

    def block(self, sizes: tuple[int, ...], words: Any, *at: Any) -> Array:
        """One of the equal blocks that a sharding cuts the tensor into, by its number along each axis."""
        starts = [int(number) * size for number, size in zip(at, sizes, strict=True)]
        window = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        return self.window(words, window)

    def everywhere(self) -> Array | None:
        """The value of all elements, where they have one: JAX writes it without asking the host."""
        core: Initializer = self.core.meaning.core if isinstance(self.core, InDialect) else self.core
        one = isinstance(core, Zeros | Ones) or (isinstance(core, Constant) and np.ndim(core.value) == 0)
        return core((), dtype=self.dtype) if one else None


def make(
    core: Initializer, key: Any, shape: Any, dtype: Any, axes: AxesLike, out_sharding: OutSharding
) -> jax.Array:
    """The tensor of a key: everything is checked before anything is drawn, inside ``jit`` too."""
    full, real = check_shape(shape), check_dtype(dtype)
    if draws(core, full, real, axes):
        words, kind = key_words(key)
    else:
        words, kind = jnp.zeros(0, jnp.uint32), None
    tensor = Tensor(core, full, real, axes, kind)
    traced = isinstance(words, jax.core.Tracer)  # as those of a constant key are, inside a traced function
    sharding = check_sharding(out_sharding, full, traced=traced)
    return (_traced if traced else _at_once)(tensor, words, sharding)


def _at_once(tensor: Tensor, words: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    """Filled now."""
    value = tensor.everywhere() if sharding is None else None
    if value is not None:
        return jnp.full(tensor.shape, value)
    return assembled(tensor.shape, tensor.dtype, sharding, partial(tensor.window, words))


def _traced(tensor: Tensor, words: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    """Filled when the compiled function runs: by one callback, or by one for each shard."""
    if sharding is None:
        whole = _block(tensor, tensor.shape, words, [0] * len(tensor.shape))
        # XLA gives a callback one device of a mesh, a placement that JAX cannot name as a result's.
        placed: jax.Array = jax.lax.optimization_barrier(whole)  # type: ignore[no-untyped-call]
        return placed
    names = cuts(sharding, tensor.shape)
    sizes = sharding.shard_shape(tensor.shape)

    def shard(words: jax.Array) -> jax.Array:
        return _block(tensor, sizes, words, [jax.lax.axis_index(axes) if axes else 0 for axes in names])

    # The host does not tell JAX across which mesh axes its values are the same: check_vma is for device code.
    spread: Callable[[jax.Array], jax.Array] = jax.shard_map(
        shard, mesh=sharding.mesh, in_specs=EVERYWHERE, out_specs=sharding.spec, check_vma=False
    )
    return spread(words)


def _block(tensor: Tensor, sizes: tuple[int, ...], words: jax.Array, at: Sequence[Any]) -> jax.Array:
    value = tensor.everywhere()
    if value is not None:
        return jnp.full(sizes, value)
    result = jax.ShapeDtypeStruct(sizes, tensor.dtype)  # type: ignore[no-untyped-call]
    made: jax.Array = jax.pure_callback(
        partial(tensor.block, sizes), result, words, *at, vmap_method="sequential"
    )
    return made


def assembled(
    shape: tuple[int, ...], dtype: np.dtype[Any], sharding: Sharding | None, make: Callable[[Window], Array]
) -> jax.Array:
    """An array of windows that ``make`` makes: the whole on JAX's default device, or by a sharding.

    Then only those of this process's devices are made, each once however often it is stored.
    """
    if sharding is None:
        whole: jax.Array = jax.device_put(make(tuple(slice(0, size) for size in shape)))
        return whole
    made: dict[str, Array] = {}  # slices have no hash before Python 3.12

    def shard(index: Window | None) -> Array:
        assert index is not None
        window = explicit(index, shape)
        if str(window) not in made:
            made[str(window)] = make(window)
        return made[str(window)]

    return jax.make_array_from_callback(shape, sharding, shard, dtype)


def explicit(index: Window, shape: tuple[int, ...]) -> Window:
    """A window with all its bounds, where JAX leaves out those of whole axes.

    >>> explicit((slice(None), slice(2, 4)), (3, 4))
    (slice(0, 3, None), slice(2, 4, None))
    """
    return tuple(slice(*part.indices(size)[:2]) for part, size in zip(index, shape, strict=True))


def sizes_of(window: Window) -> list[int]:
    return [part.stop - part.start for part in window]


def draws(core: Initializer, shape: tuple[int, ...], dtype: np.dtype[Any], axes: AxesLike) -> bool:
    """Whether the values depend on a seed; what is wrong with the other arguments is raised here."""
    nothing = tuple(slice(0, 0) for _ in shape)
    core(shape, seed=0, axes=axes, dtype=dtype, window=nothing)
    try:
        core(shape, axes=axes, dtype=dtype, window=nothing)
    except SeedError:
        return True
    return False


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype that JAX can store now; None and ``float`` are JAX's default."""
    if dtype is None or dtype is float:
        return np.dtype(jnp.result_type(float))
    real = as_dtype(dtype)
    if jax.dtypes.canonicalize_dtype(real) != real:
        raise DtypeError(f'`dtype` {real} needs 64-bit types: jax.config.update("jax_enable_x64", True)')
    return real


def check_sharding(
    out_sharding: Any, shape: tuple[int, ...], *, traced: bool, what: str = "`out_sharding`"
) -> NamedSharding | None:
    """``out_sharding`` on a mesh, if it cuts the shape into equal parts; errors call it ``what``."""
    if out_sharding is None:
        return None
    sharding = out_sharding
    if isinstance(sharding, PartitionSpec):
        mesh = jax.sharding.get_abstract_mesh() if traced else jax.sharding.get_mesh()
        if mesh.empty:
            raise ArgumentError(
                f"{what} {sharding} needs a mesh: enter jax.set_mesh(mesh), or pass "
                f"NamedSharding(mesh, {sharding})"
            )
        try:
            sharding = NamedSharding(mesh, sharding)
        except ValueError as error:
            raise ArgumentError(f"{what} {sharding}: {error}") from error
    if not isinstance(sharding, NamedSharding):
        raise ArgumentError(f"{what} must be a NamedSharding or PartitionSpec, got {sharding!r}")
    if isinstance(sharding.mesh, AbstractMesh) and not traced:
        raise ArgumentError(f"{what} needs a mesh of devices outside jit, got {sharding.mesh}")
    spec = sharding.spec
    if len(spec) > len(shape):
        raise ShapeError(f"{what} {spec} has {len(spec)} axes, but `shape` {shape} has {len(shape)}")
    for axis, names in enumerate(cuts(sharding, shape, what)):
        parts = math.prod(sharding.mesh.shape[name] for name in names)
        if shape[axis] % parts:
            raise ShapeError(
                f"{what} {spec} must cut each axis into equal parts, but {parts} does not divide "
                f"{shape[axis]}, axis {axis} of `shape` {shape}"
            )
    return sharding


def cuts(
    sharding: NamedSharding, shape: tuple[int, ...], what: str = "`out_sharding`"
) -> list[tuple[str, ...]]:
    """The mesh axes along which each axis is cut."""
    found: list[tuple[str, ...]] = []
    for entry in sharding.spec:
        if not (entry is None or isinstance(entry, str | tuple)):
            raise ArgumentError(f"{what} {sharding.spec} must say how every axis is cut")
        found.append((entry,) if isinstance(entry, str) else entry or ())
    return found + [()] * (len(shape) - len(found))
