"""What page, pictures and terminal all read of a report: theory, flags, and which rows there are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fanin.audit import Finding
from fanin.audit.trace import Operation, Spread, Trace, Weights
from fanin.report.outline import Part, outline

ROWS = 1200  # rows on a page
FEW = 3  # operations that a finding names one by one
BAR = 12  # powers of ten from 1 at which a bar ends


@dataclass(frozen=True)
class View:
    """A trace and its findings, by rows: one for each operation, or for each parameter where none ran."""

    trace: Trace
    findings: tuple[Finding, ...]

    @property
    def operations(self) -> tuple[Operation, ...]:
        """In the order of execution."""
        return self.trace.operations

    @cached_property
    def theory(self) -> Sequence[float | None]:
        """What each operation's forward scale should be by the moments of its input."""
        from fanin.audit.theory import predicted

        return predicted(self.trace)

    @cached_property
    def looks(self) -> Mapping[str, str]:
        """Of every parameter in sight, which initialization it looks like."""
        from fanin.audit.fingerprint import blocks_of, words

        n_layer = blocks_of(self.trace.weights)
        if not self.operations:
            seen = {self.names[at] for at in self.shown}
        else:
            seen = {name for at in self.shown for name in self.operations[at].parameters}
        return {
            weights.name: words(weights, n_layer) for weights in self.trace.weights if weights.name in seen
        }

    @cached_property
    def tree(self) -> tuple[Part, ...]:
        """The operations by module."""
        return outline(self.operations)

    @cached_property
    def trunk(self) -> tuple[int, ...]:
        """The longest of the trace's trunks."""
        return self.trace.trunks[0] if self.trace.trunks else ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the rows."""
        rows: Sequence[Operation | Weights] = self.operations or self.trace.weights
        return tuple(row.name for row in rows)

    @cached_property
    def _rows(self) -> Mapping[str, int]:
        """The row of each operation, and of each parameter: that of the first operation which uses it."""
        rows = {name: at for at, name in reversed(list(enumerate(self.names)))}
        for at, operation in enumerate(self.operations):
            for name in operation.parameters:
                rows.setdefault(name, at)
        return rows

    def kind(self, at: int) -> str:
        """What an operation is, where its name does not say so."""
        operation = self.operations[at]
        kind = operation.activation or operation.layer
        return "" if operation.name.rpartition(":")[2].partition("#")[0] == kind else kind

    def row(self, name: str) -> int | None:
        """The row of an operation, a parameter, or a module's first operation; None where it has none."""
        if name in self._rows:
            return self._rows[name]
        inside = (f"{name}.", f"{name}:", f"{name}#")
        return next((at for at, known in enumerate(self.names) if known.startswith(inside)), None)

    @cached_property
    def flags(self) -> Mapping[int, int]:
        """For each row that findings name, the first of these findings: the gravest."""
        flags: dict[int, int] = {}
        for number, finding in enumerate(self.findings):
            for name in finding.at:
                at = self.row(name)
                if at is not None:
                    flags.setdefault(at, number)
        return flags

    @cached_property
    def named(self) -> frozenset[int]:
        """The rows that a finding above "info" names as one of few."""
        few = (finding for finding in self.findings if finding.level != "info" and len(finding.at) <= FEW)
        rows = (self.row(name) for finding in few for name in finding.at)
        return frozenset(at for at in rows if at is not None)

    @cached_property
    def shown(self) -> tuple[int, ...]:
        """The rows on a page: all of them, or the first, the last and those with findings."""
        many = len(self.names)
        if many <= ROWS:
            return tuple(range(many))
        flagged = sorted(self.flags, key=lambda at: self.flags[at])[: ROWS // 2]
        left = ROWS - len(flagged)
        return tuple(sorted({*range(left - left // 2), *flagged, *range(many - left // 2, many)}))

    def surprising(self, at: int) -> bool:
        """Whether theory and measurement differ by more than a tenth."""
        from fanin.audit.theory import AGREES

        expected, found = self.theory[at], self.operations[at].after.rms
        return expected is not None and not abs(found - expected) <= AGREES * found

    @cached_property
    def reach(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The powers of ten between which the bars are drawn, forward and backward."""
        forward: list[Spread] = [operation.after for operation in self.operations]
        backward = [operation.backward for operation in self.operations if operation.backward is not None]
        alone = [] if self.operations else [weights.values for weights in self.trace.weights]
        return _reach(forward or alone), _reach(backward)


def _reach(spreads: Iterable[Spread]) -> tuple[int, int]:
    scales = (spread.rms for spread in spreads)
    known = [math.log10(scale) for scale in scales if scale > 0 and math.isfinite(scale)]
    low, high = math.floor(min(known, default=0.0)), math.ceil(max(known, default=0.0))
    return max(min(low, -1), -BAR), min(max(high, 1), BAR)
