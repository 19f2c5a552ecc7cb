"""Which axes of a weight are its outputs and inputs, and what follows: fans and the canonical order."""

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

from fanin._types import Mode
from fanin.errors import ArgumentError, ShapeError

ELEMENT_LIMIT = 1 << 63


class Fans(NamedTuple):
    """Inputs that one output unit sums over, and outputs that one input unit feeds."""

    fan_in: float
    fan_out: float


@dataclass(frozen=True)
class Axes:
    """The roles of a weight's axes. What is neither output nor input nor stack is receptive field.

    Axes are numbered as stored, after `split`; negative ones count from the end. `Axes.parse` and
    `Axes.einsum` write all but the simplest for you.

    Parameters
    ----------
    out, in_ : tuple of int
        Outputs and inputs, each in the order in which they are flattened.
    groups : int
        Groups of a grouped convolution: an input feeds the outputs of its own group only.
    stride : int
        Product of the strides of a transposed convolution: an output sums over one input in ``stride``.
    lookup : bool
        A table (entries, features): one entry is looked up, so fan_in is 1.
    split : tuple of (axis, sizes)
        Stored axes made of several, outermost first; one size may be -1.
    stack : tuple of int
        Axes along which separate tensors are stored: packed projections, gates, experts, scanned layers.
        Each member has its own name and its own numbers.
    members : tuple of tuple of str
        What the members along each stack axis are called; ``"0"``, ``"1"``, ... by default.
    flip : bool
        The receptive field is stored reversed (Flax's transposed convolutions).
    logical : tuple of int, optional
        The stored shape without its padding; padding is zero and not part of the tensor.
    known : Fans, optional
        Fans that the shape does not show: a bias has those of its layer's kernel.

    Examples
    --------
    >>> Axes(out=(-1,), in_=(-2,)).fans((3, 3, 64, 128))
    Fans(fan_in=576, fan_out=1152)
    """

    out: tuple[int, ...]
    in_: tuple[int, ...]
    groups: int = 1
    stride: int = 1
    lookup: bool = False
    split: tuple[tuple[int, tuple[int, ...]], ...] = ()
    stack: tuple[int, ...] = ()
    members: tuple[tuple[str, ...], ...] = ()
    flip: bool = False
    logical: tuple[int, ...] | None = None
    known: Fans | None = None

    def __post_init__(self) -> None:
        for what in ("out", "in_", "stack"):
            value = getattr(self, what)
            if not isinstance(value, tuple) or not all(type(axis) is int for axis in value):
                raise ArgumentError(f"`{what}` must be a tuple of integers, got {value!r}")
        for what in ("groups", "stride"):
            if type(getattr(self, what)) is not int or getattr(self, what) < 1:
                raise ArgumentError(f"`{what}` must be >= 1, got {getattr(self, what)!r}")
        if self.members and len(self.members) != len(self.stack):
            raise ArgumentError(f"`members` names {len(self.members)} stack axes of {len(self.stack)}")

    @property
    def plain(self) -> bool:
        """Whether the stored tensor is one tensor, with one index for each stored axis."""
        return not (self.split or self.stack or self.flip or self.logical)

    def order(self, rank: int) -> tuple[int, ...]:
        """The axes in canonical order: outputs, inputs, receptive field (those of a stack left out)."""
        if rank - len(self.stack) < 2 and not self.split:
            return tuple(axis for axis in range(rank) if axis not in positive(self.stack, rank))
        named = positive(self.out + self.in_ + self.stack, rank)
        if len(set(named)) != len(named) or not all(0 <= axis < rank for axis in named):
            raise ShapeError(
                f"`axes` {self} do not fit a tensor of rank {rank}: each axis once, in {-rank} .. {rank - 1}"
            )
        field = tuple(axis for axis in range(rank) if axis not in named)
        return named[: len(self.out) + len(self.in_)] + field

    def fans(self, shape: tuple[int, ...]) -> Fans:
        """``fan_in = prod(in) field / stride`` and ``fan_out = prod(out) field / groups``.

        A tensor of rank 1 counts as both; a table has fan_in 1.
        """
        if self.known is not None:
            return self.known
        shape = self.atoms(shape)
        if len(shape) == len(self.stack):
            raise ShapeError("a scalar (shape ()) has no fan; fans need at least 1 axis")
        order = self.order(len(shape))
        sizes = [shape[axis] for axis in order]
        if len(sizes) == 1 and not self.split:
            return Fans(sizes[0], sizes[0])
        n_out, n_in = len(self.out), len(self.in_)
        outputs, inputs = math.prod(sizes[:n_out]), math.prod(sizes[n_out : n_out + n_in])
        if self.lookup:
            return Fans(1, inputs)
        field = math.prod(sizes[n_out + n_in :])
        return Fans(quotient(inputs * field, self.stride), quotient(outputs * field, self.groups))

    def index_strides(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """How far the canonical index moves along each axis of a plain tensor."""
        strides, step = [0] * len(shape), 1
        for axis in reversed(self.order(len(shape))):
            strides[axis] = step
            step *= shape[axis]
        return tuple(strides)

    def atoms_of_axis(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The sizes that each stored axis is made of, outermost first, padding left out."""
        if self.logical is not None:
            if len(self.logical) != len(shape) or any(
                small > big for small, big in zip(self.logical, shape, strict=True)
            ):
                raise ShapeError(f"`logical` {self.logical} does not lie inside `shape` {shape}")
            shape = self.logical
        split = {axis + len(shape) if axis < 0 else axis: sizes for axis, sizes in self.split}
        if not all(0 <= axis < len(shape) for axis in split):
            raise ShapeError(f"`split` {self.split} does not fit `shape` {shape}")
        return [_atoms(size, split.get(axis, (size,))) for axis, size in enumerate(shape)]

    def atoms(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape after `split`, padding left out."""
        if self.plain:
            return shape
        return tuple(atom for axis in self.atoms_of_axis(shape) for atom in axis)

    @classmethod
    def parse(
        cls,
        pattern: str,
        *,
        members: Mapping[str, Sequence[str]] | None = None,
        groups: int = 1,
        stride: int = 1,
        flip: bool = False,
        logical: tuple[int, ...] | None = None,
        **sizes: int,
    ) -> Self:
        """Axes from ``"stored -> outputs | inputs"`` or ``"stored -> stack : outputs | inputs"``.

        Each letter or word is an axis, parentheses hold what one stored axis is made of, ``*`` stands for
        the receptive field. The right side gives the order in which outputs and inputs are flattened.

        Parameters
        ----------
        pattern : str
            Such as ``"(s o) i -> s : o | i"`` for packed projections.
        members : mapping of str to sequence of str
            Names of the members along each stack axis; they give its size too.
        groups, stride, flip, logical
            As for `Axes`.
        **sizes : int
            Sizes of axes in parentheses; one of each pair of parentheses may be left out.

        Examples
        --------
        >>> Axes.parse("* i o -> o | i") == Axes(out=(-1,), in_=(-2,))
        True
        >>> Axes.parse("d n h -> n h | d").fans((512, 8, 64))  # a query kernel of Flax
        Fans(fan_in=512, fan_out=512)
        >>> Axes.parse("* c m -> c m |", groups=64).fans((3, 3, 64, 2))  # a depthwise kernel of Keras
        Fans(fan_in=9, fan_out=18)
        """
        found = re.fullmatch(r"(.+?)->(?:(.*):)?(.*)\|(.*)", pattern.strip())
        if found is None:
            raise ArgumentError(f"`pattern` {pattern!r}: expected 'stored -> outputs | inputs'")
        stored = re.findall(r"\([^()]*\)|\*|\w+", found[1])
        if stored.count("*") > 1:
            raise ArgumentError(f"`pattern` {pattern!r} has more than one *")
        named = members or {}
        sizes = {**{axis: len(names) for axis, names in named.items()}, **sizes}
        atoms = [axis.strip("()").split() for axis in stored]
        flat = [atom for axis in atoms for atom in axis]
        if len(set(flat)) != len(flat):
            raise ArgumentError(f"`pattern` {pattern!r} names an axis twice")
        place = {atom: _from_ends(at, flat) for at, atom in enumerate(flat)}
        roles = [(found[part] or "").split() for part in (2, 3, 4)]
        unknown = [atom for role in roles for atom in role if atom not in place]
        unknown += [atom for atom in sizes if atom not in place]
        if unknown:
            raise ArgumentError(f"`pattern` {pattern!r} does not store {', '.join(unknown)}")
        missing = sorted(set(flat) - {"*"} - {atom for role in roles for atom in role})
        if missing:
            raise ArgumentError(f"`pattern` {pattern!r} gives {', '.join(missing)} no role")
        split = tuple(
            (_from_ends(at, stored), tuple(sizes.get(atom, -1) for atom in axis))
            for at, axis in enumerate(atoms)
            if len(axis) > 1
        )
        if any(sizes_of_axis.count(-1) > 1 for _, sizes_of_axis in split):
            raise ArgumentError(f"`pattern` {pattern!r} needs more sizes: all but one in each parenthesis")
        stack, out, in_ = (tuple(place[atom] for atom in role) for role in roles)
        names = tuple(tuple(named.get(atom, ())) for atom in roles[0]) if named else ()
        return cls(out, in_, groups, stride, False, split, stack, names, flip, logical)

    @classmethod
    def einsum(cls, equation: str, *, members: Mapping[str, Sequence[str]] | None = None) -> Self:
        """Axes of the second operand of an einsum: what it sums over is input, what it adds is output.

        Letters common to both operands and the result are stacks (experts, heads of their own).

        Examples
        --------
        >>> Axes.einsum("btd,dnh->btnh").fans((512, 8, 64))
        Fans(fan_in=512, fan_out=512)
        >>> Axes.einsum("btnh,nhd->btd").fans((8, 64, 512))
        Fans(fan_in=512, fan_out=512)
        """
        found = re.fullmatch(r"(\w+),(\w+)->(\w+)", equation.replace(" ", "").replace("...", ""))
        if found is None:
            raise ArgumentError(f"`equation` {equation!r}: expected one such as 'btd,dnh->btnh'")
        data, weight, result = found.groups()
        stack = [c for c in weight if c in data and c in result]
        inputs = [c for c in weight if c in data and c not in result]
        outputs = [c for c in weight if c not in data]
        if any(c not in result for c in outputs):
            raise ArgumentError(f"`equation` {equation!r} sums the weight over an axis of its own")
        roles = f"{' '.join(stack)} : {' '.join(outputs)} | {' '.join(inputs)}"
        return cls.parse(f"{' '.join(weight)} -> {roles}", members=members)


def positive(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes counted from the start."""
    return tuple(axis + rank if axis < 0 else axis for axis in axes)


def quotient(total: int, parts: int) -> float:
    """An int where the division is exact."""
    return total // parts if total % parts == 0 else total / parts


def _atoms(size: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    known = math.prod(atom for atom in sizes if atom != -1)
    found = tuple(size // max(1, known) if atom == -1 else atom for atom in sizes)
    if math.prod(found) != size:
        raise ShapeError(f"an axis of size {size} is not made of {sizes}")
    return found


def _from_ends(at: int, flat: Sequence[str]) -> int:
    """A position counted from the end that * does not separate it from."""
    return at - len(flat) if "*" in flat[:at] else at


AxesLike: TypeAlias = str | Axes

IO = Axes(out=(-1,), in_=(-2,))  # (*field, in, out): TensorFlow, Keras, JAX
OI = Axes(out=(0,), in_=(1,))  # (out, in, *field): PyTorch
LOOKUP = Axes(out=(0,), in_=(1,), lookup=True)  # (entries, features)
SHORTHAND = {"io": IO, "oi": OI, "lookup": LOOKUP}


def as_axes(axes: AxesLike) -> Axes:
    """``"io"``, ``"oi"``, ``"lookup"``, a pattern, an einsum equation or an `Axes`, as an `Axes`."""
    if isinstance(axes, Axes):
        return axes
    if isinstance(axes, str):
        if axes in SHORTHAND:
            return SHORTHAND[axes]
        if "->" in axes:
            return Axes.einsum(axes) if "," in axes else Axes.parse(axes)
    raise ArgumentError(
        f"`axes` {axes!r} is unknown; expected 'io' (..., in, out), 'oi' (out, in, ...), 'lookup' "
        f"(entries, features), a pattern, an einsum, or fanin.Axes"
    )


def _integers(sizes: Iterable[object]) -> list[int] | None:
    """Plain ints, or None if something else is among them."""
    try:
        listed = list(sizes)
        return None if any(isinstance(size, bool) for size in listed) else [*map(operator.index, listed)]  # type: ignore[arg-type]
    except TypeError:
        return None


def check_shape(shape: object) -> tuple[int, ...]:
    """A shape as a tuple of ints, or a `ShapeError` that says what would be right."""
    if hasattr(shape, "as_list"):  # tf.TensorShape
        shape = shape.as_list()
    sizes = _integers(shape if isinstance(shape, Iterable) else (shape,))
    if sizes is None and getattr(shape, "ndim", None) == 0:  # a 0-d array is iterable, until it is asked
        sizes = _integers((shape,))
    if sizes is None:
        raise ShapeError(f"`shape` must hold integers >= 0, got {shape!r}")
    checked = tuple(sizes)
    if any(size < 0 for size in checked):
        raise ShapeError(f"`shape` must hold integers >= 0, got {shape!r}")
    if math.prod(size for size in checked if size) >= ELEMENT_LIMIT:
        raise ShapeError(f"`shape` {checked} has 2**63 elements or more; an index has 63 bits")
    return checked


MODES = ("fan_avg", "fan_geo_avg", "fan_in", "fan_out")


def fan(fans: Fans, mode: Mode) -> float:
    """The one number a mode makes of two fans."""
    if mode == "fan_in":
        return float(fans.fan_in)
    if mode == "fan_out":
        return float(fans.fan_out)
    if mode == "fan_avg":
        return (fans.fan_in + fans.fan_out) / 2
    return math.sqrt(float(fans.fan_in) * float(fans.fan_out))
