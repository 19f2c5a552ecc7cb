"""Run recognized operations on a batch, forward once and back once, and measure each as it passes.

The program is cut after each value that is measured. A piece is compiled once, however many layers are alike.
Backward, a piece computes again what it needs between its ends (for a product: nothing), so that only what is
measured is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fanin.jax._audit_operations import Recognized
from fanin.jax._audit_steps import INDEX, Program, Step

Values = tuple[Any, ...]


@dataclass(frozen=True)
class Piece:
    """Steps between two measured values: which values it takes and gives, each by what it depends on.

    Signals carry gradients of every row of cotangents; values made of parameters alone those of the first.
    """

    steps: tuple[Step, ...]
    signals: tuple[int, ...]
    learned: tuple[int, ...]
    rest: tuple[int, ...]
    signals_out: tuple[int, ...]
    learned_out: tuple[int, ...]
    rest_out: tuple[int, ...]

    @property
    def gives(self) -> tuple[int, ...]:
        return (*self.signals_out, *self.learned_out, *self.rest_out)

    @property
    def takes(self) -> tuple[int, ...]:
        return (*self.signals, *self.learned, *self.rest)

    @cached_property
    def key(self) -> Any:
        """Equal for pieces that compute the same."""
        numbers: dict[int, int] = {}
        for number in (*self.takes, *(give for step in self.steps for give in step.gives)):
            numbers.setdefault(number, len(numbers))
        steps = tuple(
            (step.key, *(numbers[take] for take in step.takes), *(numbers[give] for give in step.gives))
            for step in self.steps
        )
        sizes = (len(self.signals), len(self.learned), len(self.signals_out), len(self.learned_out))
        return steps, sizes, tuple(numbers[number] for number in self.gives)

    def run(self, signals: Values, learned: Values, rest: Values) -> tuple[Values, Values, Values]:
        known = dict(zip(self.takes, (*signals, *learned, *rest), strict=True))
        for step in self.steps:
            known.update(zip(step.gives, step.run(*(known[take] for take in step.takes)), strict=True))
        return (
            tuple(known[number] for number in self.signals_out),
            tuple(known[number] for number in self.learned_out),
            tuple(known[number] for number in self.rest_out),
        )

    def back(
        self, signals: Values, learned: Values, rest: Values, rows: Values, first: Values
    ) -> tuple[Values, Values]:
        """Gradients of what it takes: of signals for every row, of the learned for the first."""
        _, pull = jax.vjp(lambda *given: self.run(given, learned, rest)[0], *signals)
        _, pull_first = jax.vjp(lambda *given: self.run(signals, given, rest)[:2], *learned)
        through = jax.vmap(pull)(rows) if signals and rows else tuple(map(jnp.zeros_like, signals))
        return through, pull_first((tuple(row[0] for row in rows), first))


@dataclass
class Compiled:
    """Functions of pieces, each compiled once."""

    forward: dict[Any, Callable[..., Any]] = field(default_factory=dict)
    backward: dict[Any, Callable[..., Any]] = field(default_factory=dict)

    def run(self, piece: Piece) -> Callable[..., Any]:
        if piece.steps[0].name == INDEX:
            return piece.run
        if piece.key not in self.forward:
            self.forward[piece.key] = jax.jit(piece.run)
        return self.forward[piece.key]

    def back(self, piece: Piece) -> Callable[..., Any]:
        if piece.key not in self.backward:
            self.backward[piece.key] = jax.jit(piece.back)
        return self.backward[piece.key]


class Run:
    """A program that can be run forward and back, watched at given values.

    Parameters
    ----------
    program : Program
    recognized : Recognized
    """

    def __init__(self, program: Program, recognized: Recognized) -> None:
        self.program = program
        self.compiled = Compiled()
        self.floating = {
            number
            for number in recognized.signals | recognized.learned
            if jnp.issubdtype(program.kinds[number].dtype, jnp.floating)
        }
        self.signals = recognized.signals & self.floating
        self.learned = recognized.learned & self.floating
        watched = {found.watched for found in recognized.operations if found.watched is not None}
        loops = [take for found in recognized.operations if found.loop for take in found.loop.takes]
        self.seen = {found.value for found in recognized.operations}
        self.kept = watched | set(loops) | set(program.results)
        self.pieces = list(self.cut())
        self.needed = {take for piece in self.pieces for take in piece.takes} | set(program.results)

    def cut(self) -> Iterator[Piece]:
        """The program in pieces; a step that takes one layer of a stack is one by itself."""
        groups: list[list[Step]] = [[]]
        for step in self.program.steps:
            if step.name == INDEX and groups[-1]:
                groups.append([])
            groups[-1].append(step)
            if step.name == INDEX or self.seen & set(step.gives):
                groups.append([])
        groups = [group for group in groups if group]
        later: list[set[int]] = [set(self.kept)]
        for group in reversed(groups):
            later.append(later[-1] | {take for step in group for take in step.takes})
        for group, wanted in zip(groups, reversed(later[:-1]), strict=True):
            made = {give: None for step in group for give in step.gives}
            takes = list(dict.fromkeys(take for step in group for take in step.takes if take not in made))
            gives = [give for give in made if give in wanted]
            yield Piece(tuple(group), *self.sorted(takes), *self.sorted(gives))

    def sorted(self, numbers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        signals = tuple(number for number in numbers if number in self.signals)
        learned = tuple(number for number in numbers if number in self.learned)
        return signals, learned, tuple(n for n in numbers if n not in self.signals | self.learned)

    # --- forward ---------------------------------------------------------------------------------

    def forward(self, given: Sequence[Any], see: Callable[[int, Mapping[int, Any]], None]) -> dict[int, Any]:
        """All values that go from piece to piece.

        Parameters
        ----------
        given : sequence of array
        see : callable
            ``see(number, values)`` is called when a value that is to be measured has been made.
        """
        known = {**self.program.constants, **dict(zip(self.program.given, given, strict=True))}
        for piece in self.pieces:
            outs = self.compiled.run(piece)(*self.of(known, piece))
            known.update(zip(piece.gives, (each for several in outs for each in several), strict=True))
            for number in piece.gives:
                if number in self.seen:
                    see(number, known)
            for number in piece.gives:
                if number not in self.needed:
                    del known[number]
        return known

    @staticmethod
    def of(known: Mapping[int, Any], piece: Piece) -> tuple[Values, Values, Values]:
        signals, learned, rest = (
            tuple(known[number] for number in numbers)
            for numbers in (piece.signals, piece.learned, piece.rest)
        )
        return signals, learned, rest

    # --- back ------------------------------------------------------------------------------------

    def backward(
        self,
        known: dict[int, Any],
        cotangents: Mapping[int, Any],
        see: Callable[[int, Any], None],
    ) -> dict[int, Any]:
        """Gradients of the parameters by the first row of cotangents.

        Parameters
        ----------
        known : dict
            What `forward` returned; it is emptied on the way.
        cotangents : mapping of int to array
            Of results, with an axis of rows before their own.
        see : callable
            ``see(number, rows)`` is called with the gradients of each value that is measured.
        """
        n_rows = len(next(iter(cotangents.values())))
        rows, first = _Sums(cotangents, axis=1), _Sums({}, axis=0)
        for piece in reversed(self.pieces):
            outs = {number: rows.take(number, self.length(number)) for number in piece.signals_out}
            for number, gradient in outs.items():
                if number in self.seen and gradient is not None:
                    see(number, gradient)
            learned = {number: first.take(number, self.length(number)) for number in piece.learned_out}
            if any(gradient is not None for gradient in (*outs.values(), *learned.values())):
                self.through(piece, known, outs, learned, (rows, first), n_rows)
            for number in piece.gives:
                known.pop(number, None)
        return {
            number: first.take(number, self.length(number))
            for number in self.program.given
            if number in self.learned
        }

    def length(self, number: int) -> int:
        return int((*self.program.kinds[number].shape, 0)[0])

    def through(
        self,
        piece: Piece,
        known: Mapping[int, Any],
        outs: Mapping[int, Any],
        learned: Mapping[int, Any],
        sums: "tuple[_Sums, _Sums]",
        n_rows: int,
    ) -> None:
        """Add the gradients of what a piece takes."""
        if piece.steps[0].name == INDEX:
            (take,), at = piece.takes, piece.steps[0].settings["at"]
            for total, found in zip(sums, (outs, learned), strict=True):
                for gradient in found.values():
                    total.rows[take][at] = gradient
            return
        kinds = self.program.kinds
        full = tuple(
            np.zeros((n_rows, *kinds[number].shape), kinds[number].dtype) if gradient is None else gradient
            for number, gradient in outs.items()
        )
        alone = tuple(
            np.zeros(kinds[number].shape, kinds[number].dtype) if gradient is None else gradient
            for number, gradient in learned.items()
        )
        found = self.compiled.back(piece)(*self.of(known, piece), full, alone)
        for total, numbers, gradients in zip(sums, (piece.signals, piece.learned), found, strict=True):
            for number, gradient in zip(numbers, gradients, strict=True):
                total.add(number, gradient)


class _Sums:
    """Gradients that add up until they are taken; those of layers of a stack are put together then."""

    def __init__(self, start: Mapping[int, Any], axis: int) -> None:
        self.totals = dict(start)
        self.axis = axis  # where the layers of a stack lie
        self.rows: dict[int, dict[int, Any]] = defaultdict(dict)

    def add(self, number: int, gradient: Any) -> None:
        before = self.totals.get(number)
        self.totals[number] = gradient if before is None else before + gradient

    def take(self, number: int, length: int) -> Any:
        """The sum, None if nothing was added; ``length`` is that of a stack."""
        rows = self.rows.pop(number, None)
        if rows:
            none = jnp.zeros_like(next(iter(rows.values())))
            self.add(number, jnp.stack([rows.get(at, none) for at in range(length)], self.axis))
        return self.totals.pop(number, None)
