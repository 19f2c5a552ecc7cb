"""From a stored tensor to the tensors it stores: stacks, axes made of several, padding, reversed fields.

A stack is storage, never identity: each member has its own name and its own canonical index, so packed and
separate projections, stacked and separate experts, scanned and unrolled layers hold the same numbers.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fanin._types import Array, Window
from fanin.errors import ArgumentError, ShapeError
from fanin.fans import Axes, positive
from fanin.sampling import Canvas
from fanin.streams import unnamed


@dataclass(frozen=True)
class Part:
    """A window of one member, ready to be filled as a plain tensor."""

    name: str | None
    where: Canvas
    axes: Axes


def member_shape(axes: Axes, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one member, its axes in stored order."""
    atoms = axes.atoms(shape)
    stacked = positive(axes.stack, len(atoms))
    return tuple(size for axis, size in enumerate(atoms) if axis not in stacked)


def member_axes(axes: Axes, shape: tuple[int, ...]) -> Axes:
    """The plain axes of one member."""
    if axes.plain:
        return axes
    rank = len(axes.atoms(shape))
    stacked = positive(axes.stack, rank)
    kept = [axis for axis in range(rank) if axis not in stacked]
    if not {*positive(axes.out + axes.in_, rank)} <= {*kept}:
        raise ShapeError(f"`axes` {axes} do not fit `shape` {shape}, whose members lack some of them")
    out, in_ = (tuple(kept.index(axis) for axis in positive(role, rank)) for role in (axes.out, axes.in_))
    return Axes(out, in_, axes.groups, axes.stride, axes.lookup, known=axes.known)


def member_name(axes: Axes, shape: tuple[int, ...], name: str | None, at: tuple[int, ...]) -> str | None:
    """The name of the member at an index of the stack.

    Each ``{}`` in the name of the stored tensor stands for one stack axis; without any, the member's name is
    appended after a dot.
    """
    if not axes.stack:
        return name
    words = [
        axes.members[k][index] if axes.members and axes.members[k] else str(index)
        for k, index in enumerate(at)
    ]
    base = unnamed(shape) if name is None else name
    count = base.count("{}")
    if count == 0:
        return ".".join([base, *words])
    if count != len(words):
        raise ArgumentError(f"`name` {base!r} has {count} '{{}}', but the stack has {len(words)} axes")
    pieces = base.split("{}")
    return "".join(itertools.chain.from_iterable(zip(pieces, [*words, ""], strict=True)))


def parts(where: Canvas, axes: Axes, name: str | None) -> Iterator[Part]:
    """The parts of a stored window, each a rectangle of one member; padding is set to zero at the end."""
    if axes.plain:
        yield Part(name, where, axes)
        return
    inside, padding = _unpadded(where, axes)
    atoms = axes.atoms(where.shape)
    rank = len(atoms)
    stacked = positive(axes.stack, rank)
    stack_sizes(axes, where.shape)  # checks them
    plain, shape = member_axes(axes, where.shape), member_shape(axes, where.shape)
    for canvas in unfolded(inside, axes):
        ranges = [range(canvas.window[axis].start, canvas.window[axis].stop) for axis in stacked]
        for at in itertools.product(*ranges):
            chosen: list[int | slice] = [slice(None)] * rank
            for axis, index in zip(stacked, at, strict=True):
                chosen[axis] = index - canvas.window[axis].start
            window = tuple(part for axis, part in enumerate(canvas.window) if axis not in stacked)
            member = Canvas(shape, window, canvas.out[(..., *chosen)])
            if axes.flip:
                member = _flipped(member, plain)
            yield Part(member_name(axes, where.shape, name, at), member, plain)
    for pad in padding:
        pad[...] = 0


def stack_sizes(axes: Axes, shape: tuple[int, ...]) -> list[int]:
    """How many members there are along each axis of the stack."""
    atoms = axes.atoms(shape)
    stacked = positive(axes.stack, len(atoms))
    if len({*stacked} & {*range(len(atoms))}) < len(stacked):
        raise ShapeError(f"`stack` {axes.stack} does not fit `shape` {shape}")
    sizes = [atoms[axis] for axis in stacked]
    for names, size in zip(axes.members, sizes, strict=False):
        if names and len(names) != size:
            raise ShapeError(f"`members` names {len(names)} of a stack of {size}: {', '.join(names)}")
    return sizes


def _unpadded(where: Canvas, axes: Axes) -> tuple[Canvas, list[Array]]:
    """The part of a canvas inside the logical shape, and the rest of its memory."""
    if axes.logical is None:
        return where, []
    axes.atoms_of_axis(where.shape)  # checks `logical`
    window, rest, inside = [], [], where.out
    for axis, (part, size) in enumerate(zip(where.window, axes.logical, strict=True)):
        stop = max(part.start, min(part.stop, size))
        kept = stop - part.start
        before: tuple[slice, ...] = (slice(None),) * axis
        rest.append(inside[(*before, slice(kept, None))])
        inside = inside[(*before, slice(0, kept))]
        window.append(slice(min(part.start, size), stop) if kept else slice(0, 0))
    return Canvas(axes.logical, tuple(window), inside), rest


def unfolded(where: Canvas, axes: Axes) -> Iterator[Canvas]:
    """A canvas whose axes are the atoms: a window across them falls into several rectangles."""
    if not axes.split:
        yield where
        return
    sizes = axes.atoms_of_axis(where.shape if axes.logical is None else axes.logical)
    shape = tuple(itertools.chain.from_iterable(sizes))
    choices = [
        list(_rectangles(atoms, part.start, part.stop))
        for atoms, part in zip(sizes, where.window, strict=True)
    ]
    for choice in itertools.product(*choices):
        window = tuple(itertools.chain.from_iterable(choice))
        starts = [_flat(atoms, [s.start for s in c]) for atoms, c in zip(sizes, choice, strict=True)]
        stops = [_flat(atoms, [s.stop - 1 for s in c]) + 1 for atoms, c in zip(sizes, choice, strict=True)]
        part = where.out[
            tuple(
                slice(start - w.start, stop - w.start)
                for start, stop, w in zip(starts, stops, where.window, strict=True)
            )
        ]
        strides = [
            step * math.prod(atoms[k + 1 :])
            for atoms, step in zip(sizes, part.strides, strict=True)
            for k in range(len(atoms))
        ]
        lengths = tuple(s.stop - s.start for s in window)
        view = np.lib.stride_tricks.as_strided(part, lengths, strides, writeable=True)
        yield Canvas(shape, window, view)


def _flat(sizes: tuple[int, ...], at: list[int]) -> int:
    index = 0
    for size, k in zip(sizes, at, strict=True):
        index = index * size + k
    return index


def _rectangles(sizes: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[slice, ...]]:
    """The half-open range start .. stop of a flattened index, as rectangles of its atoms."""
    if start >= stop:
        return
    if len(sizes) == 1:
        yield (slice(start, stop),)
        return
    inner = math.prod(sizes[1:])
    first, last = -(-start // inner), stop // inner  # whole outer steps
    if first > last:  # inside one outer step
        rest = _rectangles(sizes[1:], start - last * inner, stop - last * inner)
        yield from ((slice(last, last + 1), *r) for r in rest)
        return
    if start < first * inner:
        rest = _rectangles(sizes[1:], start - (first - 1) * inner, inner)
        yield from ((slice(first - 1, first), *r) for r in rest)
    if first < last:
        yield (slice(first, last), *(slice(0, size) for size in sizes[1:]))
    if last * inner < stop:
        rest = _rectangles(sizes[1:], 0, stop - last * inner)
        yield from ((slice(last, last + 1), *r) for r in rest)


def _flipped(where: Canvas, axes: Axes) -> Canvas:
    """The same canvas with its receptive field in canonical direction."""
    rank = len(where.shape)
    field = axes.order(rank)[len(axes.out) + len(axes.in_) :]
    window = list(where.window)
    for axis in field:
        size, part = where.shape[axis], where.window[axis]
        window[axis] = slice(size - part.stop, size - part.start)
    turned = tuple(slice(None, None, -1) if axis in field else slice(None) for axis in range(rank))
    return replace(where, window=tuple(window), out=where.out[turned])


def index(axes: Axes, shape: tuple[int, ...]) -> dict[str, Array]:
    """Where each member's canonical elements are stored: {member name: flat stored position of each index}.

    Examples
    --------
    >>> index(Axes.parse("(s o) i -> s : o | i", members={"s": ("q", "k")}), (4, 2))
    {'q': array([0, 1, 2, 3]), 'k': array([4, 5, 6, 7])}
    """
    stored = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    return dict(members(stored, axes, ".".join(["{}"] * len(axes.stack))))


def members(values: Array, axes: Axes, name: str) -> Iterator[tuple[str, Array]]:
    """The members of a stored tensor's values: (name, elements in canonical order)."""
    if axes.logical is not None:
        values = values.copy()  # whose padding is set to zero
    whole = Canvas(values.shape, tuple(slice(0, size) for size in values.shape), values)
    for part in parts(whole, axes, name):
        order = part.axes.order(len(part.where.shape))
        yield part.name or "", part.where.out.transpose(order).flatten()


def windows(shape: tuple[int, ...], most: int) -> Iterator[Window]:
    """Windows of at most ``most`` elements that cover a shape in order: rows of axis 0, larger rows split.

    >>> list(windows((3, 4), 8))
    [(slice(0, 2, None), slice(0, 4, None)), (slice(2, 3, None), slice(0, 4, None))]
    """
    whole = tuple(slice(0, size) for size in shape)
    if math.prod(shape) <= most:
        yield whole
        return
    row = math.prod(shape[1:])
    if row > most:
        for at in range(shape[0]):
            for rest in windows(shape[1:], most):
                yield slice(at, at + 1), *rest
        return
    step = most // row
    for at in range(0, shape[0], step):
        yield slice(at, min(at + step, shape[0])), *whole[1:]


def moved(window: Window, inner: Window | None) -> Window:
    """A window inside another, as a window of the full tensor.

    >>> moved((slice(3, 9),), (slice(1, 2),))
    (slice(4, 5, None),)
    """
    if inner is None:
        return window
    return tuple(
        slice(outer.start + part.start, outer.start + part.stop)
        for outer, part in zip(window, inner, strict=True)
    )
