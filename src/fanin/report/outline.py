"""The operations of a trace as a tree of their modules, where blocks that are alike can be folded."""

import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from fanin.audit.trace import Operation

DEPTH = 24  # levels of a tree; what lies deeper keeps its dots
PERIOD = 16  # siblings that can make one motif
ALIKE = 4  # motifs that are worth folding


@dataclass(frozen=True)
class Leaf:
    """One operation: its label inside its module, and its place in the trace."""

    label: str
    at: int
    kind: Hashable

    @property
    def operations(self) -> Iterator[int]:
        """Its place alone."""
        yield self.at


@dataclass(frozen=True)
class Branch:
    """A module and what happens in it, in the order of execution."""

    label: str
    parts: tuple["Leaf | Branch", ...]

    @cached_property
    def kind(self) -> Hashable:
        """Equal for modules that are alike but for their numbers."""
        return _unnumbered(self.label), tuple(part.kind for part in self.parts)

    @property
    def operations(self) -> Iterator[int]:
        """The places of all operations in it."""
        for part in self.parts:
            yield from part.operations


@dataclass(frozen=True)
class Fold:
    """Neighbours that are alike, to be shown as one line: how many times over, and what they are."""

    count: int
    parts: tuple[Leaf | Branch, ...]

    @property
    def label(self) -> str:
        """From the first to the last of them."""
        first, last = self.parts[0].label, self.parts[-1].label
        return first if len(self.parts) == 1 else f"{first} … {last}"

    @property
    def operations(self) -> Iterator[int]:
        """The places of all operations in it."""
        for part in self.parts:
            yield from part.operations


Part = Leaf | Branch


def outline(operations: Sequence[Operation]) -> tuple[Part, ...]:
    """The tree of modules, whose leaves are the operations.

    A module's branch stands where its first operation is; one that only holds another is joined with it.
    """
    return _tree([_placed(at, operation) for at, operation in enumerate(operations)])


def _placed(at: int, operation: Operation) -> tuple[tuple[str, ...], Leaf]:
    path, _, function = operation.name.partition(":")
    modules = path.split(".", DEPTH) if path else []
    label = f":{function}" if function or not modules else modules.pop()
    return tuple(modules), Leaf(label, at, (_unnumbered(label), operation.layer, operation.after.shape[1:]))


def _tree(entries: Sequence[tuple[tuple[str, ...], Leaf]]) -> tuple[Part, ...]:
    order: list[str | Leaf] = []
    inside: dict[str, list[tuple[tuple[str, ...], Leaf]]] = {}
    for modules, leaf in entries:
        if not modules:
            order.append(leaf)
            continue
        first, *rest = modules
        if first not in inside:
            inside[first] = []
            order.append(first)
        inside[first].append((tuple(rest), leaf))
    return tuple(one if isinstance(one, Leaf) else _branch(one, _tree(inside[one])) for one in order)


def _branch(label: str, parts: tuple[Part, ...]) -> Branch:
    if len(parts) == 1 and isinstance(parts[0], Branch):
        return Branch(f"{label}.{parts[0].label}", parts[0].parts)
    return Branch(label, parts)


def _unnumbered(label: str) -> str:
    return re.sub(r"\d+", "0", label)


def folded(parts: Sequence[Part], kept: Collection[int] = ()) -> Iterator[Part | Fold]:
    """The parts, with runs of equal motifs folded but for their first, their last, and those in ``kept``.

    Parameters
    ----------
    parts : sequence of Leaf or Branch
    kept : collection of int
        Operations that stay in sight.
    """
    start = 0
    while start < len(parts):
        period, count = _motif(parts, start)
        motifs = [parts[start + k * period : start + (k + 1) * period] for k in range(count)]
        hidden: list[Sequence[Part]] = []
        for k, motif in enumerate(motifs):
            ends = count < ALIKE or k in (0, count - 1)
            if ends or any(at in kept for part in motif for at in part.operations):
                yield from _hide(hidden)
                yield from motif
                hidden = []
            else:
                hidden.append(motif)
        start += period * count


def _hide(motifs: Sequence[Sequence[Part]]) -> Iterator[Part | Fold]:
    parts = tuple(part for motif in motifs for part in motif)
    if len(parts) > 1:
        yield Fold(len(motifs), parts)
    else:
        yield from parts


def _motif(parts: Sequence[Part], start: int) -> tuple[int, int]:
    """The shortest run of siblings that covers most when repeated, and how often it is; (1, 1) for none."""
    best = (1, 1)
    for period in range(1, min(PERIOD, (len(parts) - start) // ALIKE) + 1):
        if period * best[1] >= len(parts) - start:
            break
        count = _repeats(parts, start, period)
        if count >= ALIKE and period * count > best[0] * best[1]:
            best = (period, count)
    return best


def _repeats(parts: Sequence[Part], start: int, period: int) -> int:
    at = start + period
    while at < len(parts) and parts[at].kind == parts[at - period].kind:
        at += 1
    return (at - start) // period
