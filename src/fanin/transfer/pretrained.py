"""Pretrained initialization is an initializer: its values are those of a checkpoint, adapted step by step."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Self

import msgspec
import numpy as np

from fanin import layout, threads
from fanin._types import Array, Window
from fanin.dtypes import CACHED, held, is_finite, is_floating
from fanin.errors import ArgumentError, CheckpointError, PlanError, ShapeError, near
from fanin.fans import Axes, Fans
from fanin.initializers import Description, Initializer, get
from fanin.initializers._nested import InitializerLike
from fanin.model import Piece
from fanin.sampling import Canvas, check_window
from fanin.transfer.adapters import ADAPTERS, Goal
from fanin.transfer.sources import Identity, Source, opened

COPIED = 1 << 22  # elements copied at once where nothing is looked at: large copies go past the caches
Steps = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]


@dataclass(frozen=True)
class Part:
    """Which parameter of a stored tensor is meant: the piece it is in, and its name there.

    ``axes``, ``window`` and ``split`` are those of a `fanin.model.Piece`; ``base`` is that piece's name.
    """

    axes: Axes
    base: str
    member: str
    window: tuple[tuple[int, int], ...] | None = None
    split: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @classmethod
    def of(cls, piece: Piece, member: str) -> Self:
        return cls(piece.axes, piece.name, member, piece.window, piece.split)

    def canonical(self, values: Array) -> Array:
        """A view of the parameter in canonical order."""
        piece = Piece(self.base, "unknown", "unknown", self.axes, self.window, self.split)
        whole = Canvas(values.shape, check_window(None, values.shape), values)
        if self.split:
            [whole] = layout.unfolded(whole, piece.whole)
        place: Any = (..., *piece.slices(values.shape))
        inside = whole.out[place]
        canvas = Canvas(inside.shape, check_window(None, inside.shape), inside)
        for part in layout.parts(canvas, self.axes, self.base):
            if part.name == self.member:
                return part.where.out.transpose(part.axes.order(len(part.where.shape)))
        raise PlanError(f"there is no {self.member!r} in a tensor of shape {values.shape}")


@dataclass(frozen=True)
class Pretrained(Initializer):
    r"""The values of a tensor in a checkpoint, adapted to the parameter's shape, rounded once to its dtype.

    .. math:: w = \mathrm{step}_k(\cdots \mathrm{step}_1(\textstyle\sum_j \mathrm{weight}_j v_j))

    Parameters
    ----------
    file : str
        The checkpoint, of any format that `fanin.checkpoints.open` reads.
    keys : sequence of str
        The tensor; of a layer between two layers, both.
    digests : sequence of str, optional
        The SHA-256 of each one's bytes (C order, little endian), checked once before they are used; empty:
        not checked. None: they are made when a plan is saved or compared, which takes longer than loading,
        and until then the files must stay as they are.
    weights : sequence of float
        What each is multiplied by.
    steps : sequence of (str, options)
        Adapters in order: see `fanin.transfer.ADAPTERS`.
    part : Part or sequence of Part, optional
        Which parameter of the stored tensor is meant, and its axes; of several keys one for all, or one each.
        By default the whole tensor, stored as what it fills is.
    rest : Initializer, optional
        What steps draw from.
    inside : str, optional
        `key` of `fanin.checkpoints.open`.
    nonfinite : bool
        Take NaN and infinities, too; by default they are an error.

    Examples
    --------
    >>> import tempfile, numpy as np, fanin
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/old.npz", w=np.array([[1, 2, 4]], np.float32))
    ...     Pretrained(f"{folder}/old.npz", ["w"], steps=[("rows", {"new": "mean"})])((2, 3), axes="oi")
    array([[1., 2., 4.],
           [1., 2., 4.]], dtype=float32)
    """

    formula = "w = step_k(... step_1(v))"
    drawn = False
    filed = True
    seen: ClassVar[Identity | None] = None  # the files as they were, where no digest tells

    file: str
    keys: tuple[str, ...]
    digests: tuple[str, ...] | None = field(default=(), hash=False)
    weights: tuple[float, ...] = (1.0,)
    steps: Steps = ()
    part: Part | tuple[Part, ...] | None = None
    rest: InitializerLike | None = None
    inside: str | None = None
    nonfinite: bool = False

    def __init__(
        self,
        file: str,
        keys: Sequence[str],
        digests: Sequence[str] | None = (),
        weights: Sequence[float] = (1.0,),
        steps: Sequence[Any] = (),
        part: Part | dict[str, Any] | Sequence[Part | dict[str, Any]] | None = None,
        rest: InitializerLike | None = None,
        inside: str | None = None,
        nonfinite: bool = False,
    ) -> None:
        try:
            several = isinstance(part, Sequence)
            held_part = msgspec.convert(
                part, tuple[Part, ...] if several else Part | None, from_attributes=True
            )
        except msgspec.ValidationError as error:
            raise ArgumentError(f"`part`: {error}") from error
        if isinstance(keys, str) or not keys or not all(isinstance(each, str) for each in keys):
            raise ArgumentError(f"`keys` must name one tensor or more, got {keys!r}")
        if len(weights) != len(keys) or (digests and len(digests) != len(keys)):
            raise ArgumentError(f"`weights` and `digests` need one for each of {len(keys)} keys")
        if isinstance(held_part, tuple) and len(held_part) != len(keys):
            raise ArgumentError(f"`part` needs one for each of {len(keys)} keys, or one for all")
        checked = tuple(step_of(each) for each in steps)
        self._set(
            file=str(file),
            keys=tuple(keys),
            digests=None if digests is None else tuple(digests),
            weights=tuple(float(each) for each in weights),
            steps=checked,
            part=held_part,
            rest=None if rest is None else get(rest),
            inside=inside,
            nonfinite=bool(nonfinite),
            # a part of what is adapted costs as much as all of it
            coupled=bool(checked),
        )
        if digests is None:
            self._set(seen=opened(self.file, inside).identity)

    def sign(self) -> None:
        """Note the digests of what the files hold, if that has been left for later."""
        if self.digests is None:
            source = self.source()
            self._set(digests=tuple(source.digest(key) for key in self.keys))

    def source(self) -> Source:
        """The open checkpoint, which must be the one that this was made of."""
        source = opened(self.file, self.inside)
        if self.digests is None and source.identity != self.seen:
            raise CheckpointError(f"{self.file}: has changed since the plan was made; make it again")
        for key, digest in zip(self.keys, self.digests or (), strict=False):
            source.check(key, digest)
        return source

    def is_stored(self, shape: tuple[int, ...], source: Source) -> bool:
        """Whether a parameter of this shape is the tensor in the file as it lies there, dtype aside."""
        if self.part is not None or self.steps or self.weights != (1.0,):
            return False
        spec = source.checkpoint.tensors.get(self.keys[0])
        return spec is not None and spec.shape == shape

    def refuse(self, values: Array) -> None:
        """An error where values are not finite but must be."""
        if not (self.nonfinite or is_finite(values)):
            raise PlanError(
                f"{self.file}: {str(self)!r} holds NaN or infinity; pass allow_nonfinite=True to take it"
            )

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        if where.out.size == 0:
            return  # a plan is read where its checkpoint is not
        source = self.source()
        if not self.is_stored(where.shape, source):
            order = axes.order(len(where.shape))
            made = self._made(where, seed, name, axes, tuple(where.shape[axis] for axis in order))
            self._write(where.out.transpose(order), made[tuple(where.window[axis] for axis in order)])
        elif source.mapped and source.checkpoint.tensors[self.keys[0]].dtype == where.out.dtype.name:
            looked = self.nonfinite or self.keys[0] in source.finite
            work = []
            for part in layout.windows(where.out.shape, COPIED if looked else CACHED):
                place: Any = (..., *part)
                window = layout.moved(where.window, part)
                work.append(partial(self._copy, source, window, where.out[place], looked))
            threads.run_all(work)
        else:
            self._write(where.out, source.read(self.keys[0], where.window))

    def _copy(self, source: Source, window: Window, out: Array, looked: bool) -> None:
        source.read_into(self.keys[0], window, out)
        if not looked:
            self.refuse(out)

    def _write(self, out: Array, values: Array) -> None:
        places: list[Any] = [(..., *part) for part in layout.windows(out.shape, CACHED)]
        threads.run_all(partial(self._move, out[place], values[place]) for place in places)

    def _move(self, out: Array, values: Array) -> None:
        self.refuse(values)
        write(out, values, str(self))

    def _made(
        self, where: Canvas, seed: int | None, name: str | None, axes: Axes, shape: tuple[int, ...]
    ) -> Array:
        """All values in canonical order, before they are rounded."""
        order = axes.order(len(where.shape))

        def drawn() -> Array:
            if self.rest is None:
                raise PlanError("it has to draw, and no recipe says how")
            whole = get(self.rest)(where.shape, seed=seed, name=name, axes=axes, dtype=where.out.dtype)
            return whole.transpose(order)

        values = self._read(axes)
        goal = Goal(shape, min(len(axes.out), len(shape)) if len(shape) > 1 else 1, seed, name, drawn)
        try:
            for step, options in self.steps:
                values = ADAPTERS[step](values, goal, **dict(options))
        except TypeError as error:  # of the options
            raise ArgumentError(f"{step}: {error}") from error
        if values.shape != shape:
            values = _reshaped(values, shape, self)
        return values

    def _read(self, axes: Axes) -> Array:
        """The source in canonical order."""
        source = self.source()
        parts = self.part if isinstance(self.part, tuple) else (self.part,) * len(self.keys)
        found = []
        for key, part in zip(self.keys, parts, strict=True):
            values = source.read(key)
            if part is not None:
                found.append(part.canonical(values))
            else:
                found.append(values.transpose(axes.order(values.ndim)))
        if self.weights == (1.0,):
            return found[0]
        total = np.zeros(found[0].shape)
        for weight, values in zip(self.weights, found, strict=True):
            total = total + weight * values.astype(np.float64)
        return total

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        return Description(str(self), shape, self.formula, f"values of {self.file}", fans=fans)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `fanin.from_dict` turns back into an equal initializer."""
        data: dict[str, Any] = {"name": self.name()}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (value != each.default or each.default is MISSING):
                data[each.name] = value.to_dict() if isinstance(value, Initializer) else _plain(value)
        return data

    def __str__(self) -> str:
        """What is taken, and the steps."""
        said = [
            f"{key}" if weight == 1 else f"{weight:g} {key}"
            for key, weight in zip(self.keys, self.weights, strict=True)
        ]
        return ", ".join([" + ".join(said), *(step for step, _ in self.steps)])


def step_of(step: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """An adapter's name and options: ``"rows"``, ``("rows", {"new": "mean"})``."""
    name, options = (step, {}) if isinstance(step, str) else (step if len(step) == 2 else (None, {}))
    if name not in ADAPTERS:
        raise ArgumentError(f"no adapter {name!r}; {near(str(name), ADAPTERS)}")
    try:
        given = {str(key): _frozen(value) for key, value in dict(options).items()}
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: options must be a mapping, got {options!r}") from error
    known = list(inspect.signature(ADAPTERS[name]).parameters)[2:]
    for key in given:
        if key not in known:
            raise ArgumentError(f"{name}: no option {key!r}; {near(key, known) if known else 'it has none'}")
    return name, tuple(sorted(given.items()))


def _frozen(value: Any) -> Any:
    """What can be compared and written: of ranges and arrays their numbers."""
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return tuple(map(_frozen, plain)) if isinstance(plain, list | tuple | range) else plain


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and value and isinstance(value[0], Part):
        return [_plain(part) for part in value]
    return msgspec.to_builtins(value) if isinstance(value, Part) else value


def _reshaped(values: Array, shape: tuple[int, ...], what: Pretrained) -> Array:
    """Several output or input axes are one axis elsewhere: (heads, size, in) is (out, in)."""
    if what.steps or what.part is None or math.prod(values.shape) != math.prod(shape):
        raise ShapeError(f"{what} of {what.file} has shape {values.shape}, the parameter {shape}")
    return values.reshape(shape)


def write(out: Array, values: Array, what: str) -> None:
    """Values rounded once to a dtype that can hold them: finite ones stay finite, integers exact."""
    if np.can_cast(values.dtype, out.dtype):
        out[...] = values
        return
    narrow = is_floating(out.dtype) and out.dtype.itemsize < 4
    if narrow and values.dtype == np.float64:
        values = _to_odd(values)
    out[...] = held(values, out.dtype, what)


def _to_odd(values: Array) -> Array:
    """float64 as float32 rounded to odd, so that rounding that to a narrower float is rounding once."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    inexact = (single.astype(np.float64) != values) & np.isfinite(single)
    even = inexact & (single.view(np.uint32) % 2 == 0)
    toward = np.where(single.astype(np.float64) < values, np.float32(np.inf), np.float32(-np.inf))
    return np.where(even, np.nextafter(single, toward), single)
