"""Initializers that draw nothing: Zeros, Ones, Constant, Identity."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin.dtypes import held
from fanin.errors import ArgumentError, ShapeError
from fanin.fans import Axes, Fans
from fanin.initializers._base import Description, Initializer
from fanin.sampling import Canvas, finite


@dataclass(frozen=True, eq=False)
class Constant(Initializer):
    r"""Every element the same value, or an array that fits the shape.

    .. math:: w_i = \mathrm{value}

    Parameters
    ----------
    value : number or array_like
        A number, or an array that broadcasts to the shape of the tensor (as it is stored).

    Raises
    ------
    ShapeError
        When the array does not fit the shape.
    DtypeError
        When a value is beyond the dtype, or has a fraction and the dtype is an integer.

    Examples
    --------
    >>> Constant(0.1)((2, 3)).tolist() == np.full((2, 3), 0.1, np.float32).tolist()
    True
    >>> Constant([[1, 2], [3, 4]])((2, 2), dtype="int32").tolist()
    [[1, 2], [3, 4]]
    """

    drawn = False

    value: Any = 0.0
    uses_axes = False
    formula = "w = value"

    def __post_init__(self) -> None:
        value = self.value
        if not isinstance(value, bool | int | float | complex):
            try:
                array = np.array(value)
            except ValueError as error:
                raise ArgumentError(f"`value` must be a number or a full array: {error}") from error
            if array.dtype.kind == "U":
                with suppress(ValueError):
                    array = array.astype(np.complex128)  # as `to_dict` writes what is complex
            if array.dtype.kind not in "biufcV":
                raise ArgumentError(f"`value` must be numeric, got {value!r}")
            if array.ndim == 0:
                value = array.item()
            else:
                array.setflags(write=False)
                value = array
        self._set(value=value)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `fanin.from_dict` turns back into an equal initializer."""
        array = np.asarray(self.value)  # JSON has no complex numbers: they are text
        written = (array.astype(str) if array.dtype.kind == "c" else array).tolist()
        return {"name": self.name(), "value": written}

    def _key(self) -> tuple[Any, ...]:
        if isinstance(self.value, np.ndarray):
            return self.value.shape, tuple(self.value.ravel().tolist())
        return (self.value,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        value = self.value
        if isinstance(value, np.ndarray):
            try:
                value = np.broadcast_to(value, where.shape)[where.window]
            except ValueError as error:
                raise ShapeError(
                    f"`value` of shape {value.shape} does not fit `shape` {where.shape}"
                ) from error
        where.out[...] = held(value, where.out.dtype, "`value`")

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        array = np.asarray(self.value)  # of objects for an integer beyond 64 bits
        text = f"every element {self.value}" if array.ndim == 0 else f"an array of shape {array.shape}"
        if array.dtype.kind not in "biuf" or array.size == 0:
            return Description(str(self), shape, self.formula, text, fans=fans)
        with np.errstate(all="ignore"):  # of values that are not finite, or too large to be added
            moments = [float(moment) for moment in (array.mean(), array.std())]
        mean, std = moments if np.isfinite(moments).all() else (None, None)
        return Description(str(self), shape, self.formula, text, mean, std, fans=fans)


@dataclass(frozen=True)
class _Fixed(Initializer):
    """One number everywhere."""

    drawn = False

    uses_axes = False

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        Constant(self._number())._fill(where, seed, name, axes)

    def _number(self) -> int:
        raise NotImplementedError

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        number = self._number()
        return Description(str(self), shape, self.formula, f"every element {number}", number, 0.0, fans=fans)


@dataclass(frozen=True)
class Zeros(_Fixed):
    """All zeros: right for biases, wrong for kernels (every unit stays equal).

    .. math:: w_i = 0

    Examples
    --------
    >>> Zeros()((3,)).tolist()
    [0.0, 0.0, 0.0]
    """

    formula = "w = 0"

    def _number(self) -> int:
        return 0


@dataclass(frozen=True)
class Ones(_Fixed):
    """All ones: right for the scales of a normalization.

    .. math:: w_i = 1

    Examples
    --------
    >>> Ones()((2,), dtype="bool").tolist()
    [True, True]
    """

    formula = "w = 1"

    def _number(self) -> int:
        return 1


@dataclass(frozen=True)
class Identity(Initializer):
    r"""The identity matrix times a gain; rectangular ones have ones on the main diagonal.

    .. math:: w_{ij} = \mathrm{gain}\,[i = j]

    Parameters
    ----------
    gain : float
        The diagonal's value.

    Raises
    ------
    ShapeError
        When the tensor does not have exactly 2 axes.

    Examples
    --------
    >>> Identity(2.0)((2, 3)).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
    """

    drawn = False

    gain: float = 1.0
    formula = "w[i, j] = gain if i == j else 0"

    def __post_init__(self) -> None:
        self._set(gain=finite("gain", self.gain))

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        self._check(where.shape)
        rows, columns = where.window
        diagonal = np.equal.outer(np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop))
        gain = held(self.gain, where.out.dtype, "`gain`")
        where.out[...] = np.where(diagonal, gain, np.zeros_like(gain))

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2:
            raise ShapeError(f"identity needs exactly 2 axes, got `shape` {shape}")

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        self._check(shape)
        text = f"{self.gain:g} on the main diagonal, 0 elsewhere"
        return Description(str(self), shape, self.formula, text, fans=fans)
