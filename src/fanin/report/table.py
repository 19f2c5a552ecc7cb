"""A comparison as a table for the terminal."""

from collections.abc import Callable
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from fanin.report.comparison import Comparison, Outcome, Row
from fanin.report.words import (
    accuracy,
    broken_rules,
    learned_before,
    name,
    number,
    short_name,
    signs,
    ties,
)

COLOURS: dict[Outcome, str] = {"learned": "green", "stuck": "yellow", "diverged": "red"}
# Narrower terminals get the columns that matter most.
WIDE = 118


class Column(NamedTuple):
    """One column: its heading, what it shows of a row, and whether a narrow terminal gets it."""

    heading: str
    cell: Callable[[Row], str]
    narrow: bool = False


def compare_table(comparison: Comparison) -> RenderableType:
    """The verdict and one line per initializer, best first.

    Examples
    --------
    >>> import io
    >>> from rich.console import Console
    >>> from fanin.lab import compare
    >>> small = compare(["zeros", "he_normal"], depth=2, width=8, steps=20, seeds=2)
    >>> console = Console(width=80, file=io.StringIO())
    >>> console.print(compare_table(small))
    >>> "he_normal" in console.file.getvalue()
    True
    """
    return _CompareTable(comparison)


class _CompareTable:
    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        c = self._comparison
        wide = options.max_width >= WIDE
        columns = [column for column in _columns(c) if wide or column.narrow]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("initializer", overflow="fold")
        for column in columns:
            table.add_column(column.heading, justify="right", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        table.add_column("breaks rule", no_wrap=True)
        for row in c.rows:
            # Texts, not strings: a string would be read as markup.
            cells = [Text(column.cell(row)) for column in columns]
            cells += [Text(row.outcome, COLOURS[row.outcome]), Text(", ".join(broken_rules(row)))]
            table.add_row(Text(name(row) if wide else short_name(row)), *cells)
        yield Text(c.verdict, "bold")
        yield table
        if tied := ties(c):
            yield Text(tied)
        if before := learned_before(c):
            yield Text(before)
        yield Text(
            f"units: distinct units, of {c.width}. up, down: decades per layer by which signal "
            "and gradient grow before training. accuracy: on test examples, at the best rate; "
            f"mean ± half of Student's 95 % interval over {c.seeds} seeds.",
            "dim",
        )


def _columns(c: Comparison) -> tuple[Column, ...]:
    return (
        Column("std", lambda row: f"{row.std:.3g}"),
        Column("units", lambda row: str(row.effective_width), narrow=True),
        Column("% +/-", signs),
        Column("up", lambda row: number(row.forward_drift), narrow=True),
        Column("down", lambda row: number(row.backward_drift), narrow=True),
        Column("rate", lambda row: f"{row.best_rate:.2g}" if row.outcome == "learned" else ""),
        Column("diverged", lambda row: f"{row.diverged:.0%}"),
        Column(f"{c.threshold:.0%} at", _steps),
        Column(
            "accuracy",
            lambda row: "" if row.outcome == "diverged" else accuracy(row.accuracy),
            narrow=True,
        ),
    )


def _steps(row: Row) -> str:
    return "" if row.steps_to_threshold is None else f"{row.steps_to_threshold:.0f}"
