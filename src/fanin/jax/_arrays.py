"""From windows of NumPy arrays to ``jax.Array``: at once, in shards, and inside compiled functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from fanin._types import Array, Window
from fanin.dialects import InDialect
from fanin.dtypes import as_dtype
from fanin.errors import ArgumentError, DtypeError, SeedError, ShapeError
from fanin.fans import AxesLike, check_shape
from fanin.initializers import Constant, Initializer, Ones, Zeros
from fanin.jax._keys import key_words, seed_of_words

OutSharding: TypeAlias = NamedSharding | PartitionSpec | None
EVERYWHERE = PartitionSpec()  # type: ignore[no-untyped-call]
ALIGNMENT = 64  # bytes: at such an address JAX's CPU client takes over an array without copying it


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
        sizes = [len(range(*part.indices(size))) for part, size in zip(window, self.shape, strict=True)]
        out = aligned(sizes, self.dtype)
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
    """Filled now; of a sharded tensor only this process's windows, each once however often it is stored."""
    if sharding is None:
        value = tensor.everywhere()
        if value is not None:
            return jnp.full(tensor.shape, value)
        whole = tuple(slice(0, size) for size in tensor.shape)
        placed: jax.Array = jax.device_put(tensor.window(words, whole))
        return placed
    made: dict[tuple[tuple[int | None, int | None], ...], Array] = {}

    def shard(window: Window | None) -> Array:
        assert window is not None
        place = tuple((part.start, part.stop) for part in window)
        if place not in made:
            made[place] = tensor.window(words, window)
        return made[place]

    return jax.make_array_from_callback(tensor.shape, sharding, shard, tensor.dtype)


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


def aligned(sizes: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """A new C-ordered array at an address that JAX can take over."""
    size = math.prod(sizes) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(sizes)


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


def check_sharding(out_sharding: Any, shape: tuple[int, ...], *, traced: bool) -> NamedSharding | None:
    """``out_sharding`` on a mesh, if it cuts the shape into equal parts."""
    if out_sharding is None:
        return None
    sharding = out_sharding
    if isinstance(sharding, PartitionSpec):
        mesh = jax.sharding.get_abstract_mesh() if traced else jax.sharding.get_mesh()
        if mesh.empty:
            raise ArgumentError(
                f"`out_sharding` {sharding} needs a mesh: enter jax.set_mesh(mesh), or pass "
                f"NamedSharding(mesh, {sharding})"
            )
        sharding = NamedSharding(mesh, sharding)
    if not isinstance(sharding, NamedSharding):
        raise ArgumentError(f"`out_sharding` must be a NamedSharding or PartitionSpec, got {sharding!r}")
    if isinstance(sharding.mesh, AbstractMesh) and not traced:
        raise ArgumentError(f"`out_sharding` needs a mesh of devices outside jit, got {sharding.mesh}")
    spec = sharding.spec
    if len(spec) > len(shape):
        raise ShapeError(f"`out_sharding` {spec} has {len(spec)} axes, but `shape` {shape} has {len(shape)}")
    for axis, names in enumerate(cuts(sharding, shape)):
        parts = math.prod(sharding.mesh.shape[name] for name in names)
        if shape[axis] % parts:
            raise ShapeError(
                f"`out_sharding` {spec} must cut each axis into equal parts, but {parts} does not divide "
                f"{shape[axis]}, axis {axis} of `shape` {shape}"
            )
    return sharding


def cuts(sharding: NamedSharding, shape: tuple[int, ...]) -> list[tuple[str, ...]]:
    """The mesh axes along which each axis is cut."""
    found: list[tuple[str, ...]] = []
    for entry in sharding.spec:
        if not (entry is None or isinstance(entry, str | tuple)):
            raise ArgumentError(f"`out_sharding` {sharding.spec} must say how every axis is cut")
        found.append((entry,) if isinstance(entry, str) else entry or ())
    return found + [()] * (len(shape) - len(found))
