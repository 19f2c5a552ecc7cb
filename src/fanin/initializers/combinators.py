"""Initializers made of another one: Scaled, ScaledUnits, Blocks, WithRow, Tile, Masked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fanin._types import Array
from fanin.dtypes import check_drawable, check_range
from fanin.errors import ArgumentError, ShapeError
from fanin.fans import Axes, Fans
from fanin.initializers._base import Description
from fanin.initializers._canonical import store
from fanin.initializers._nested import (
    InitializerLike,
    Nested,
    axis_of,
    base_name,
    check_role,
    mixed,
    parts_of,
    ranges,
    resized,
)
from fanin.initializers.structured import check_count
from fanin.sampling import Canvas, finite


@dataclass(frozen=True)
class Scaled(Nested):
    r"""Another initializer's values times a factor.

    .. math:: w = \mathrm{factor} \cdot w_{\mathrm{inner}}

    The product is made in float32 (float64 for float64), the factor rounded to it first, and rounded once to
    a narrower dtype.

    Parameters
    ----------
    inner : Initializer, str or dict
        What is scaled, such as ``"he_normal"``.
    factor : float
        ``1 / sqrt(2 * layers)`` for the last layer of a residual branch.

    Raises
    ------
    DtypeError
        When the dtype is no float, or a value is beyond its range.

    Examples
    --------
    >>> w = Scaled("he_normal", 0.5)((784, 256), seed=0, name="w")
    >>> from fanin import HeNormal
    >>> bool((w == HeNormal()((784, 256), seed=0, name="w") / 2).all())
    True
    """

    inner: InitializerLike
    factor: float
    uses_axes = False
    formula = "w = factor * inner"

    def __post_init__(self) -> None:
        self._adopt(factor=finite("factor", self.factor))

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        check_drawable(where.out.dtype)
        wide = where.out.dtype == np.float64
        real = np.dtype(np.float64 if wide else np.float32)
        check_range(real, abs(self.factor), "`factor`")
        values = self._within(where.shape, seed=seed, name=name, axes=axes, dtype=real, window=where.window)
        with np.errstate(over="ignore"):  # what is beyond the range is an error of `store`
            values *= real.type(self.factor)
        store(where.out, values, str(self))

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        inner, size = self._describe_inner(shape, shape, axes, f"{self.factor:g} times"), abs(self.factor)
        return replace(
            inner,
            mean=None if inner.mean is None else inner.mean * self.factor,
            std=None if inner.std is None else inner.std * size,
            std_before=None if inner.std_before is None else inner.std_before * size,
            limit=None if inner.limit is None else inner.limit * size,
        )


@dataclass(frozen=True)
class ScaledUnits(Nested):
    r"""Another initializer's values, each output unit times a factor of its own.

    .. math:: w_{oi} = \mathrm{factor}_o \cdot w_{\mathrm{inner}, oi}

    The arithmetic is that of `Scaled`.

    Parameters
    ----------
    inner : Initializer, str or dict
        What is scaled.
    factors : sequence of float
        One for each output unit, several output axes flattened.

    Raises
    ------
    ShapeError
        When there are not as many factors as output units.
    DtypeError
        As `Scaled`.

    Examples
    --------
    >>> ScaledUnits("ones", [1, 2])((3, 2), seed=0).tolist()
    [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]
    """

    inner: InitializerLike
    factors: Sequence[float]
    formula = "w = factors[unit] * inner"

    def __post_init__(self) -> None:
        if not isinstance(self.factors, list | tuple) or not self.factors:
            raise ArgumentError(f"`factors` must be a list of numbers, got {self.factors!r}")
        self._adopt(factors=tuple(finite("factors", factor) for factor in self.factors))

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        check_drawable(where.out.dtype)
        wide = where.out.dtype == np.float64
        real = np.dtype(np.float64 if wide else np.float32)
        check_range(real, max(map(abs, self.factors)), "`factors`")
        factors = self._placed(where.shape, axes).astype(real)
        sides = zip(where.window, factors.shape, strict=True)
        window = tuple(part if size > 1 else slice(None) for part, size in sides)
        values = self._within(where.shape, seed=seed, name=name, axes=axes, dtype=real, window=where.window)
        with np.errstate(over="ignore"):
            values *= factors[window]
        store(where.out, values, self.name())

    def _placed(self, shape: tuple[int, ...], axes: Axes) -> Array:
        """The factors along the output axes of a shape, which are all axes of a vector."""
        rank = len(shape)
        order = axes.order(rank)
        outputs = order if rank < 2 else order[: len(axes.out)]
        sizes = [shape[axis] for axis in outputs]
        if math.prod(sizes) != len(self.factors):
            raise ShapeError(
                f"scaled_units: {len(self.factors)} factors for {math.prod(sizes)} output units of `shape` "
                f"{shape}"
            )
        canonical = np.array(self.factors).reshape(sizes + [1] * (rank - len(outputs)))
        return canonical.transpose(np.argsort(order)) if rank else canonical.reshape(())

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        factors = np.array(self.factors)
        text = f"{len(factors)} factors of {abs(factors).min():g} to {abs(factors).max():g}, times"
        inner = replace(self._describe_inner(shape, shape, axes, text), std_before=None, limit=None)
        if inner.mean is None or inner.std is None:
            return inner
        mean, square = float(factors.mean()), float(np.mean(factors**2))
        variance = square * (inner.std**2 + inner.mean**2) - (inner.mean * mean) ** 2
        return replace(inner, mean=inner.mean * mean, std=math.sqrt(max(variance, 0.0)))


@dataclass(frozen=True)
class Blocks(Nested):
    r"""Independent blocks side by side: each has its own stream and the fans of one block.

    .. math:: W = [\,W_0 \mid W_1 \mid \dots \mid W_{n-1}\,]

    Block i of a tensor called ``name`` holds the values that ``inner`` gives a tensor of the block's shape
    called ``name[i]``. For packed projections and gates whose members have names of their own, say so in
    `fanin.Axes` instead.

    Parameters
    ----------
    inner : Initializer, str or dict
        What each block is filled with.
    n : int
        Number of blocks.
    axis : int, "out" or "in"
        The axis they lie along.

    Raises
    ------
    ShapeError
        When ``n`` does not divide the axis.

    Examples
    --------
    >>> w = Blocks("glorot_uniform", 3)((64, 192), seed=0, name="qkv")
    >>> from fanin import GlorotUniform
    >>> bool((w[:, 64:128] == GlorotUniform()((64, 64), seed=0, name="qkv[1]")).all())
    True
    """

    inner: InitializerLike
    n: int
    axis: int | str = "out"
    formula = "block i = inner(block's shape, name[i])"

    def __post_init__(self) -> None:
        self._adopt(n=check_count("n", self.n), axis=check_role("axis", self.axis))

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        axis, size = self._parts(where.shape, axes)
        shape, base = resized(where.shape, axis, size), base_name(name, where.shape)
        along = where.window[axis]
        for block in range(self.n):
            start, stop = max(along.start, block * size), min(along.stop, (block + 1) * size)
            if start < stop or block == 0:  # the first says what is wrong, even with an empty window
                stop = max(start, stop)
                inside = slice(start - block * size, stop - block * size) if start < stop else slice(0, 0)
                place = (slice(None),) * axis + (slice(start - along.start, stop - along.start),)
                self._within(
                    shape,
                    seed=seed,
                    name=f"{base}[{block}]",
                    axes=axes,
                    window=(*where.window[:axis], inside, *where.window[axis + 1 :]),
                    out=where.out[place],
                )

    def _parts(self, shape: tuple[int, ...], axes: Axes) -> tuple[int, int]:
        axis = axis_of(self.axis, shape, axes, "blocks")
        return axis, parts_of(shape, axis, self.n, "blocks")

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        axis, size = self._parts(shape, axes)
        return self._describe_inner(
            shape, resized(shape, axis, size), axes, f"{self.n} blocks along axis {axis}, each"
        )


@dataclass(frozen=True)
class WithRow(Nested):
    r"""Another initializer's values, except that one row along the first stored axis is constant.

    .. math:: w_{ij} = \mathrm{value} \;(i = \mathrm{index}), \qquad w_{ij} = w^{\mathrm{inner}}_{ij}

    For the padding entry of a table (entries, features): ``WithRow("random_normal(0.0, 0.02)", 0)``.

    Parameters
    ----------
    inner : Initializer, str or dict
        What fills the other rows; they are as they would be without this.
    index : int
        The row; negative ones count from the end.
    value : float
        Its value.

    Raises
    ------
    ShapeError
        When there is no such row.
    DtypeError
        When the dtype cannot hold the value.

    Examples
    --------
    >>> WithRow("ones", 1)((3, 2)).tolist()
    [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    """

    inner: InitializerLike
    index: int
    value: float = 0.0
    formula = "w[index] = value, w[i] = inner for every other row"

    def __post_init__(self) -> None:
        if isinstance(self.index, bool) or not isinstance(self.index, int | np.integer):
            raise ArgumentError(f"`index` must be an integer, got {self.index!r}")
        self._adopt(index=int(self.index), value=finite("value", self.value))

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        row = self._row(where.shape)
        constant = np.empty((), where.out.dtype)
        store(constant, np.array(self.value), "`value`")
        self._within(where.shape, seed=seed, name=name, axes=axes, window=where.window, out=where.out)
        if where.window[0].start <= row < where.window[0].stop:
            where.out[row - where.window[0].start] = constant

    def _row(self, shape: tuple[int, ...]) -> int:
        entries = shape[0] if shape else 0
        if not -entries <= self.index < entries:
            raise ShapeError(f"`index` (={self.index}) is not one of the {entries} rows of `shape` {shape}")
        return self.index % entries

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        text = f"{self.value:g} in row {self._row(shape)}, elsewhere"
        return mixed(self._describe_inner(shape, shape, axes, text), 1.0 - 1.0 / shape[0], self.value)


@dataclass(frozen=True)
class Tile(Nested):
    r"""A smaller tensor repeated, as ``numpy.tile`` does: for more input channels, a larger table, Net2Net.

    .. math:: w_{ij\dots} = w^{\mathrm{inner}}_{i \bmod m,\; j \bmod n,\; \dots}

    Repeating inputs n times multiplies what a unit sums up by n; ``Scaled(Tile(inner, reps), 1 / n)`` undoes
    that.

    Parameters
    ----------
    inner : Initializer, str or dict
        Fills the smaller tensor, of the shape divided by ``reps``, under the same name; the fans are its own.
    reps : int or tuple of int
        Repetitions along each stored axis; an integer for a vector.

    Raises
    ------
    ShapeError
        When there are not as many repetitions as axes, or one does not divide its axis.

    Examples
    --------
    >>> Tile("constant([1.0, 2.0])", 2)((4,)).tolist()
    [1.0, 2.0, 1.0, 2.0]
    """

    inner: InitializerLike
    reps: int | tuple[int, ...]
    formula = "w[i] = inner[i mod (shape / reps)]"

    def __post_init__(self) -> None:
        given = self.reps if isinstance(self.reps, tuple | list) else (self.reps,)
        self._adopt(reps=tuple(check_count("reps", count) for count in given))

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        shape = self._part(where.shape)
        indexes = [index % max(1, size) for index, size in zip(ranges(where), shape, strict=True)]
        where.out[...] = self._gather(where, shape, indexes, seed, name, axes)

    def _part(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        reps: Any = self.reps
        if len(reps) != len(shape):
            raise ShapeError(
                f"`reps` {reps} has {len(reps)} entries, but `shape` {shape} has {len(shape)} axes"
            )
        return tuple(parts_of(shape, axis, count, "tile") for axis, count in enumerate(reps))

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        part = self._part(shape)
        return self._describe_inner(shape, part, axes, f"one tensor of shape {part}, repeated")


@dataclass(frozen=True, eq=False)
class Masked(Nested):
    r"""Another initializer's values where a mask is true, zero elsewhere.

    .. math:: w = \mathrm{mask} \odot w^{\mathrm{inner}}

    The fans are those of the full tensor: a mask that keeps one input in four wants ``Scaled(..., 2.0)``.

    Parameters
    ----------
    inner : Initializer, str or dict
        What fills the kept elements; they are as they would be without the mask.
    mask : array_like of bool
        Truth values (or 0 and 1) that broadcast to the shape as it is stored.

    Raises
    ------
    ShapeError
        When the mask does not fit the shape.

    Examples
    --------
    >>> Masked("ones", [[1, 0], [1, 1]])((2, 2)).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """

    inner: InitializerLike
    mask: Any
    uses_axes = False
    formula = "w = inner where mask, else 0"

    def __post_init__(self) -> None:
        try:
            given = np.array(self.mask)
        except ValueError as error:
            raise ArgumentError(f"`mask` must be a full array: {error}") from error
        if given.dtype.kind not in "biu" or not np.isin(given, (0, 1)).all():
            raise ArgumentError("`mask` must hold truth values, or integers 0 and 1")
        mask = given.astype(bool)
        mask.setflags(write=False)
        self._adopt(mask=mask)

    def _key(self) -> tuple[Any, ...]:
        return self.inner, self.mask.shape, self.mask.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masked) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        kept = self._kept(where.shape)[where.window]
        self._within(where.shape, seed=seed, name=name, axes=axes, window=where.window, out=where.out)
        where.out[~kept] = 0

    def _kept(self, shape: tuple[int, ...]) -> Array:
        try:
            return np.broadcast_to(self.mask, shape)
        except ValueError as error:
            raise ShapeError(f"`mask` of shape {self.mask.shape} does not fit `shape` {shape}") from error

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        kept = self._kept(shape)
        count = int(np.count_nonzero(kept))
        text = f"0 in {kept.size - count} of {kept.size} elements, in the others"
        return mixed(self._describe_inner(shape, shape, axes, text), count / max(1, kept.size), 0.0)
