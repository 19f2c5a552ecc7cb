"""What initializers made of another initializer share."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np

from fanin._types import Array
from fanin.errors import ArgumentError, ShapeError
from fanin.fans import Axes
from fanin.initializers._base import Description, Initializer
from fanin.sampling import Canvas
from fanin.streams import unnamed

InitializerLike: TypeAlias = Initializer | str | dict[str, Any]


class Nested(Initializer):
    """An initializer with an ``inner`` one: an initializer, a catalogue expression or a dictionary."""

    inner: InitializerLike

    def _adopt(self, **checked: Any) -> None:
        """Store the inner initializer and other checked fields, from ``__post_init__`` only."""
        from fanin.initializers.catalogue import get  # the catalogue lists the classes that need it

        inner = get(self.inner)
        self._set(inner=inner, coupled=inner.coupled, drawn=inner.drawn, filed=inner.filed, **checked)

    def sign(self) -> None:
        self._within.sign()

    @property
    def _within(self) -> Initializer:
        return cast(Initializer, self.inner)

    def _gather(
        self,
        where: Canvas,
        shape: tuple[int, ...],
        indexes: Sequence[Array],
        seed: int | None,
        name: str | None,
        axes: Axes,
    ) -> Array:
        """The inner tensor of ``shape`` at these indexes along each axis, made as the window around them."""
        window = tuple(
            slice(int(index.min()), int(index.max()) + 1) if index.size else slice(0, 0) for index in indexes
        )
        values = self._within(
            shape,
            seed=seed,
            name=base_name(name, where.shape),
            axes=axes,
            dtype=where.out.dtype,
            window=window,
        )
        places = [index - part.start for index, part in zip(indexes, window, strict=True)]
        gathered: Array = values[np.ix_(*places)] if places else values
        return gathered

    def _describe_inner(
        self, shape: tuple[int, ...], inner_shape: tuple[int, ...], axes: Axes, text: str
    ) -> Description:
        """The inner description under this initializer's name, ``text`` before its distribution."""
        inner = self._within.describe(inner_shape, axes)
        return replace(
            inner,
            initializer=str(self),
            shape=shape,
            formula=self.formula,
            distribution=f"{text}: {inner.distribution}",
            reference=self.reference or inner.reference,
        )


def mixed(inner: Description, share: float, value: float) -> Description:
    """A description whose numbers are those of all elements: a share as described, the others one value."""
    if inner.mean is None or inner.std is None:
        return replace(inner, mean=None, std=None, std_before=None, limit=None)
    apart = inner.mean - value
    variance = share * (inner.std * inner.std + (1.0 - share) * apart * apart)
    mean = value + share * apart
    return replace(inner, mean=mean, std=math.sqrt(variance), std_before=None, limit=None)


def base_name(name: str | None, shape: tuple[int, ...]) -> str:
    """The name, or that of an unnamed tensor of the outer shape."""
    return unnamed(shape) if name is None else name


def ranges(where: Canvas) -> list[Array]:
    """The indexes of a window along each axis."""
    return [np.arange(part.start, part.stop) for part in where.window]


def resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    """A shape with another size along one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def axis_of(role: int | str, shape: tuple[int, ...], axes: Axes, what: str) -> int:
    """The stored axis that is meant by a number, or by ``"out"`` or ``"in"`` where that role has one axis."""
    rank = len(shape)
    if isinstance(role, int):
        if not -rank <= role < rank:
            raise ShapeError(f"{what}: `axis` (={role}) is not one of the {rank} axes of `shape` {shape}")
        return role % rank
    of_role = axes.out if role == "out" else axes.in_
    if len(of_role) != 1 or rank < 2:
        count = len(of_role) if rank > 1 else 0
        raise ShapeError(f"{what} needs exactly one {role}put axis, got {count} in `shape` {shape}")
    return of_role[0] % rank


def parts_of(shape: tuple[int, ...], axis: int, count: int, what: str) -> int:
    """The size of one of ``count`` equal parts of an axis."""
    if shape[axis] % count:
        raise ShapeError(f"{what}: {count} must divide {shape[axis]}, axis {axis} of `shape` {shape}")
    return shape[axis] // count


def check_role(what: str, value: object) -> int | str:
    """An axis number, ``"out"`` or ``"in"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value in ("in", "out"):
        return value
    raise ArgumentError(f"`{what}` must be an axis number, 'in' or 'out', got {value!r}")
