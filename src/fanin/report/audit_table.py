"""An audit for the terminal."""

import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fanin.audit import Finding
from fanin.report._html import printable
from fanin.report.audit_view import View
from fanin.report.audit_words import (
    MARKS,
    cosine,
    number,
    shape,
    share,
)
from fanin.report.outline import Fold, Leaf, Part, folded

if TYPE_CHECKING:
    from fanin.report.audit import Report

COLOURS = {"fail": "red", "warn": "yellow", "info": "blue"}
WIDE = 118  # narrower terminals get the columns that matter most
BAR = 4  # cells on each side of 1
LINES = 400  # of the table; the page has all


class Column(NamedTuple):
    """One column: its heading, what it shows of some operations, and whether a narrow terminal gets it."""

    heading: str
    cell: Callable[[View, Sequence[int]], str]
    narrow: bool = True


def audit_table(report: "Report") -> RenderableType:
    """The verdict, one line per operation with equal blocks folded, and the findings.

    Examples
    --------
    >>> import io
    >>> from rich.console import Console
    >>> from fanin.audit.trace import Trace
    >>> from fanin.report import Report
    >>> console = Console(width=80, file=io.StringIO())
    >>> console.print(audit_table(Report(Trace("torch", ()), ())))
    >>> console.file.getvalue().strip()
    'Nothing speaks against these 0 parameters; no batch was run.'
    """
    return _AuditTable(report)


class _AuditTable:
    def __init__(self, report: "Report") -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view = View(self._report.trace, self._report.findings)
        grave = [finding.level for finding in view.findings if finding.level != "info"]
        colour = COLOURS[grave[0]] if grave else "green"
        yield Text(printable(self._report.verdict), f"bold {colour}")
        wide = options.max_width >= WIDE
        if view.operations:
            yield _operations(view, wide)
            yield Text(
                "Root mean square of each output (->) and of its gradient (<-), with bars around 1 on a "
                "logarithmic scale; cosine between two examples; units that are dead, values where an "
                "activation is flat.",
                "dim",
            )
        elif view.trace.weights:
            yield _weights(view, wide)
        told: set[str] = set()
        for finding in view.findings:
            yield from _finding(finding, told)
            told.add(finding.snippet)


def _operations(view: View, wide: bool) -> Table:
    every = (
        Column("output", lambda v, rows: shape(v.operations[rows[-1]].after.shape), narrow=False),
        Column("->", lambda v, rows: number(_forward(v, rows[-1]))),
        Column("", lambda v, rows: _bar(_forward(v, rows[-1]), v.reach[0])),
        Column("theory", lambda v, rows: _theory(v, rows[-1]), narrow=False),
        Column("<-", lambda v, rows: number(_backward(v, rows[-1]))),
        Column("", lambda v, rows: _bar(_backward(v, rows[-1]), v.reach[1])),
        Column("cosine", lambda v, rows: cosine(v.operations[rows[-1]].after.cosine)),
        Column("dead, flat", _faults),
    )
    columns = tuple(column for column in every if wide or column.narrow)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("operation", overflow="fold", ratio=1 if wide else None)
    for column in columns:
        left = column.heading in ("", "dead, flat")
        table.add_column(column.heading, justify="left" if left else "right", no_wrap=True)
    lines = list(_lines(view, view.tree, 0))
    for label, rows in lines[:LINES]:
        table.add_row(label, *(Text(column.cell(view, rows)) for column in columns))
    if len(lines) > LINES:
        table.add_row(Text(f"and {len(lines) - LINES} more lines: save the page", "dim"))
    return table


def _lines(view: View, parts: Sequence[Part], depth: int) -> Iterator[tuple[Text, Sequence[int]]]:
    """The tree: a label, and the operations that the line is about; the last of them is a module's output."""
    for part in folded(parts, view.named):
        rows = tuple(part.operations)
        label = Text("  " * depth)
        if isinstance(part, Fold):
            label.append(f"{printable(part.label)} ", "dim").append(f"({part.count} alike)", "dim")
            yield label, rows
        elif isinstance(part, Leaf):
            if part.at in view.flags:
                level = view.findings[view.flags[part.at]].level
                label.append(f"{MARKS[level]} ", f"bold {COLOURS[level]}")
            label.append(printable(part.label)).append(f" {printable(view.kind(part.at))}", "dim")
            yield label, rows
        else:
            yield label.append(printable(part.label), "bold"), rows
            yield from _lines(view, part.parts, depth + 1)


def _forward(view: View, at: int) -> float | None:
    return view.operations[at].after.rms


def _backward(view: View, at: int) -> float | None:
    found = view.operations[at].backward
    return None if found is None else found.rms


def _theory(view: View, at: int) -> str:
    return ("≠ " if view.surprising(at) else "") + number(view.theory[at])


def _faults(view: View, rows: Sequence[int]) -> str:
    """The worst of some operations."""
    operations = [view.operations[at] for at in rows]
    dead = max(operation.after.dead for operation in operations)
    flat = max(operation.saturated or 0.0 for operation in operations)
    broken = sum(operation.after.broken for operation in operations)
    said = [f"{broken} not finite"] if broken else []
    return ", ".join(
        said + [f"{name} {share(value)}" for name, value in (("dead", dead), ("flat", flat)) if value]
    )


def _bar(value: float | None, reach: tuple[int, int]) -> str:
    """A bar to the left of the middle below 1, to the right above."""
    if value is None or not value > 0 or not math.isfinite(value):
        return " " * BAR + "│"
    halves = min(round(2 * BAR * abs(math.log10(value)) / max(2, *map(abs, reach))), 2 * BAR)
    whole, half = divmod(halves, 2)
    if value < 1:
        return ("▐" * half + "█" * whole).rjust(BAR) + "│"
    return " " * BAR + "│" + "█" * whole + "▌" * half


def _weights(view: View, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("parameter", overflow="fold")
    table.add_column("shape", justify="right", no_wrap=True)
    table.add_column("rms", justify="right", no_wrap=True)
    if wide:
        table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("looks like", overflow="fold")
    for at in view.shown[:LINES]:
        weights = view.trace.weights[at]
        label = Text()
        if at in view.flags:
            level = view.findings[view.flags[at]].level
            label.append(f"{MARKS[level]} ", f"bold {COLOURS[level]}")
        cells = [shape(weights.shape), number(weights.values.rms)]
        cells += [number(weights.values.mean)] * wide + [printable(view.looks[weights.name])]
        table.add_row(label.append(printable(weights.name)), *map(Text, cells))
    if len(view.names) > LINES:
        table.add_row(Text(f"and {len(view.names) - LINES:,} more: save the JSON", "dim"))
    return table


def _finding(finding: Finding, told: Set[str]) -> Iterator[RenderableType]:
    """All of it; of what is no reason to stop, what was found and what to do."""
    head = Text(f"\n{MARKS[finding.level]} {finding.level} ", f"bold {COLOURS[finding.level]}")
    head.append(printable(finding.code), "bold").append(f"  {printable(finding.where)}")
    yield head
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    grave = finding.level != "info"
    for term, said, always in (
        ("measured", finding.measured, True),
        ("expected", finding.expected, True),
        ("why", finding.why, grave),
        ("what to do", finding.advice, True),
        ("as code", finding.snippet, grave and finding.snippet not in told),
        ("then", finding.after, grave),
    ):
        if said and always:
            facts.add_row(term, Text(printable(said)))
    yield Padding(facts, (0, 0, 0, 2))
