"""What a dialect is made of: words, each a function that returns a core initializer and how it counts."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, ParamSpec

import numpy as np

from fanin._types import Array, Dtype, Shape, Window
from fanin.dialects._seeded import Seeded, check_seed
from fanin.dtypes import as_dtype
from fanin.errors import ArgumentError, ExpressionError, ShapeError, UnknownNameError, near
from fanin.fans import Axes, AxesLike, Fans, as_axes, check_shape, quotient
from fanin.initializers import Description, Initializer, RandomNormal, RandomUniform
from fanin.initializers import TruncatedNormal as TruncatedDraws
from fanin.sampling import Canvas, Distribution, TruncatedNormal, Uniform, draw, name_stream

P = ParamSpec("P")


@dataclass(frozen=True)
class Counted(Axes):
    """A framework's rule for fans, which it counts in the shape as stored, whatever the layer sums.

    ``fan_in = size / (out batch)`` and ``fan_out = size / (in batch)`` with the products of the sizes of
    those axes: what is left is receptive field. An axis may be both input and output.

    Parameters
    ----------
    out, in_
        As for `fanin.Axes`.
    batch : tuple of int
        Axes that count for neither.
    ignore_rest : bool
        Other axes count for neither, too.
    vectors : bool
        A vector counts as both, a scalar as one.
    """

    batch: tuple[int, ...] = ()
    ignore_rest: bool = False
    vectors: bool = False

    def fans(self, shape: tuple[int, ...]) -> Fans:
        """The two fans, or a `ShapeError` where the framework has none."""
        if self.vectors and len(shape) < 2:
            return Fans(math.prod(shape), math.prod(shape))
        inputs, outputs = self._size(shape, self.in_), self._size(shape, self.out)
        if self.ignore_rest:
            return Fans(inputs, outputs)
        batch, total = self._size(shape, self.batch), math.prod(shape)
        return Fans(
            quotient(total, max(1, outputs * batch)),
            quotient(total, max(1, inputs * batch)),
        )

    @staticmethod
    def _size(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
        for axis in axes:
            if not -len(shape) <= axis < len(shape):
                raise ShapeError(f"`shape` {shape} has no axis {axis}, so its fans cannot be counted")
        return math.prod(shape[axis] for axis in axes)


@dataclass(frozen=True)
class Meaning:
    """A core initializer, and what the framework's differs in.

    ``axes`` (the dialect's own unless given) are how it counts fans and pairs rows with columns, ``ranks``
    the fewest and most axes of a tensor that it takes.
    """

    core: Initializer
    axes: Axes | None = None
    ranks: tuple[int, int] | None = None
    seed: int | None = None
    dtype: Dtype | None = None


@dataclass(frozen=True)
class _Drawn(Initializer):
    """Elements drawn from a distribution that is already known."""

    distribution: Distribution
    formula = "w ~ distribution"

    def law(self, shape: tuple[int, ...], axes: Axes) -> Distribution:
        return self.distribution


@dataclass(frozen=True)
class InDialect(Initializer):
    """A framework's own initializer: its name, its arguments, its law; drawn from fanin's streams.

    The law follows the stored shape by the framework's rule. ``axes`` only say where each number goes, and
    are the framework's layout unless given; equal axes, seed and name give the core's numbers wherever the
    laws agree. Orthogonal, sparse and Dirac tensors pair rows with columns as the framework does.

    Made by the functions of a dialect's module and by ``fanin.get("torch:kaiming_uniform")``.
    """

    dialect: str
    word: str
    arguments: tuple[tuple[str, Any], ...]
    meaning: Meaning = field(repr=False, compare=False)
    layout: Axes = field(repr=False, compare=False)
    home: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        core = self.meaning.core
        self._set(
            formula=core.formula,
            reference=f"{self.home}{self.word}",
            coupled=core.coupled,
            drawn=core.drawn,
            uses_axes=core.uses_axes,
        )

    @property
    def axes(self) -> Axes:
        """What the framework takes for outputs and inputs of a stored shape."""
        return self.layout if self.meaning.axes is None else self.meaning.axes

    @property
    def elementwise(self) -> bool:
        """Whether each element is drawn by itself."""
        return type(self.meaning.core).law is not Initializer.law

    def __call__(
        self,
        shape: Shape,
        *,
        seed: int | None = None,
        name: str | None = None,
        axes: AxesLike | None = None,
        dtype: Dtype | None = None,
        window: Window | None = None,
        out: Array | None = None,
    ) -> Array:
        """Make the tensor, or a window of it: see `fanin.Initializer`; ``seed`` may be the word's own."""
        full = self._checked(shape)
        core, roles = self.meaning.core, self.axes
        if self.elementwise:
            core, roles = _Drawn(self.law(full)), self.layout if axes is None else as_axes(axes)
        return core(
            full,
            seed=self.meaning.seed if seed is None else seed,
            name=name,
            axes=roles,
            dtype=self.meaning.dtype if dtype is None and out is None else dtype,
            window=window,
            out=out,
        )

    def _checked(self, shape: Shape) -> tuple[int, ...]:
        """The shape, if the framework takes tensors of its rank."""
        full, ranks = check_shape(shape), self.meaning.ranks
        if ranks is not None and not ranks[0] <= len(full) <= ranks[1]:
            wanted = " to ".join(map(str, dict.fromkeys(ranks)))
            raise ShapeError(f"{self.dialect}:{self.word} needs {wanted} axes, got `shape` {full}")
        return full

    def law(self, shape: tuple[int, ...], axes: Axes | None = None) -> Distribution:
        """What each element of a stored shape is drawn from; ``axes`` do not matter."""
        return self.meaning.core.law(shape, self.axes)

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        if seed is None:
            seed = self.meaning.seed
        if self.elementwise:
            draw(self.law(where.shape), where, name_stream(seed, name, where.shape), axes)
        else:
            self._checked(where.shape)
            self.meaning.core._fill(where, seed, name, self.axes)

    def describe(self, shape: Shape, axes: AxesLike | None = None) -> Description:
        """What the framework would draw for a stored shape, and its fans; ``axes`` do not matter."""
        described = self.meaning.core.describe(self._checked(shape), self.axes)
        return replace(described, initializer=str(self), reference=f"{self.home}{self.word}")

    def stored(self, shape: Shape, axes: AxesLike = "io") -> tuple[int, ...]:
        """The shape in which the framework stores a weight that ``axes`` describe.

        >>> from fanin.dialects import torch
        >>> torch.kaiming_normal_().stored((3, 3, 64, 128), "io")
        (128, 64, 3, 3)
        """
        sizes, roles = check_shape(shape), as_axes(axes)
        if not roles.plain:
            raise ArgumentError("`axes` with stacks, splits, flips or padding: pass those of one member")
        if len(sizes) < 2 or (roles.out, roles.in_) == (self.layout.out, self.layout.in_):
            return sizes
        order = roles.order(len(sizes))
        n_out, n_both = len(roles.out), len(roles.out) + len(roles.in_)
        outputs = math.prod(sizes[axis] for axis in order[:n_out])
        inputs = math.prod(sizes[axis] for axis in order[n_out:n_both])
        rest = tuple(sizes[axis] for axis in order[n_both:])
        return (outputs, inputs, *rest) if self.layout.out == (0,) else (*rest, inputs, outputs)

    def for_layer(self, shape: tuple[int, ...], axes: Axes) -> Initializer:
        """This word for a weight whose axes have known roles, however it is stored.

        Where the framework would store it so, the word itself; else the core's initializer with the law that
        the word has for the shape in which it would.

        >>> from fanin.dialects import torch
        >>> from fanin.fans import IO
        >>> torch.kaiming_normal_().for_layer((200, 10), IO)  # 200 inputs
        RandomNormal(mean=0.0, stddev=0.1)
        """
        stored = self.stored(shape, axes) if axes.plain else shape
        if stored == shape:
            return self
        if not self.elementwise:
            return self.meaning.core
        law = self.law(stored)
        if isinstance(law, Uniform):
            return RandomUniform(law.low, law.high)
        if isinstance(law, TruncatedNormal):
            return TruncatedDraws(law.loc, law.scale, law.lower, law.upper)
        return RandomNormal(law.mean, law.std)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `fanin.from_dict` turns back into an equal initializer.

        >>> from fanin.dialects import torch
        >>> torch.normal_(std=0.02).to_dict()
        {'name': 'torch:normal_', 'mean': 0.0, 'std': 0.02}
        """
        data: dict[str, Any] = {"name": f"{self.dialect}:{self.word}"}
        data.update((name, _thawed(value)) for name, value in self.arguments)
        return data

    def __str__(self) -> str:
        """The expression that makes this initializer, without arguments that are None."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments if value is not None)
        return f"{self.dialect}:{self.word}({given})"

    def __repr__(self) -> str:
        return f"fanin.get({str(self)!r})"


def _frozen(value: Any) -> Any:
    """An argument as plain, hashable data."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    return [_thawed(part) for part in value] if isinstance(value, tuple) else value


class Dialect:
    """A framework's words.

    Parameters
    ----------
    name : str
        As it stands before the colon.
    home : str
        Where the framework keeps its words, with the dot or space before them.
    axes : Axes
        Its layout, and its rule for fans where a word has no other.
    says : dict
        Its words for the core's names, where they differ.
    """

    def __init__(self, name: str, home: str, axes: Axes, says: dict[str, str] | None = None) -> None:
        self.name, self.home, self.axes, self.says = name, home, axes, says or {}
        self.words: dict[str, Callable[..., Any]] = {}  # by their full names, without synonyms
        self.spellings: dict[str, Callable[..., Any]] = {}  # with synonyms; filled from the module

    def word(self, meaning: Callable[P, Initializer | Meaning]) -> Callable[P, InDialect]:
        """Make a function that returns a meaning into one that returns the initializer."""

        @wraps(meaning)
        def speak(*args: P.args, **kwargs: P.kwargs) -> InDialect:
            return self._say(meaning, args, kwargs)

        self.words[meaning.__name__] = speak
        return speak

    def _say(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> InDialect:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        found = function(*bound.args, **bound.kwargs)
        if isinstance(found, Seeded):
            found = Meaning(found.initializer, seed=found.seed, dtype=found.dtype)
        elif isinstance(found, Initializer):
            found = Meaning(found)
        seed = check_seed(given["seed"]) if found.seed is None and "seed" in given else found.seed
        dtype = given["dtype"] if "dtype" in given and found.dtype is None else found.dtype
        if given.get("dtype") is not None:
            given["dtype"] = as_dtype(given["dtype"]).name
        arguments = tuple((name, _frozen(value)) for name, value in given.items())
        meaning = replace(found, seed=seed, dtype=dtype)
        return InDialect(self.name, function.__name__, arguments, meaning, self.axes, self.home)

    def find(self, word: str) -> Callable[..., Any]:
        """The function with a name of this dialect, in any of its spellings."""
        if word in self.spellings:
            return self.spellings[word]
        if self.says.get(word) in self.spellings:
            raise UnknownNameError(f"no initializer {word!r} in {self.name}; it says {self.says[word]!r}")
        raise UnknownNameError(f"no initializer {word!r} in {self.name}; {near(word, self.spellings)}")

    def make(self, word: str, args: list[Any], kwargs: dict[str, Any]) -> InDialect:
        """The initializer that a word and its arguments describe."""
        function = self.find(word)
        try:
            made = function(*args, **kwargs)
        except TypeError as error:
            takes = ", ".join(inspect.signature(function).parameters) or "no arguments"
            raise ExpressionError(
                f"{self.name}:{word} takes {takes}, got {args} {kwargs} ({error})"
            ) from error
        return made if isinstance(made, InDialect) else self._say(function, tuple(args), kwargs)


def listed(axes: int | Any, what: str) -> tuple[int, ...]:
    """One axis or a sequence of axes, as a tuple."""
    numbers = axes if isinstance(axes, list | tuple) else (axes,)
    if not all(type(axis) is int for axis in numbers):
        raise ArgumentError(f"`{what}` must be an integer or a sequence of integers, got {axes!r}")
    return tuple(numbers)
