"""An audit in words: its verdict, and how its numbers are written."""

import math
import re
from collections.abc import Sequence

from fanin.audit import Finding
from fanin.audit.trace import Trace

MARKS = {"fail": "✗", "warn": "!", "info": "i"}
LEVELS = {
    "fail": "do not expect it to train",
    "warn": "slower or less sure",
    "info": "worth knowing",
}


def verdict(trace: Trace, findings: Sequence[Finding]) -> str:
    """The whole audit in one sentence."""
    grave = [finding for finding in findings if finding.level != "info"]
    if grave:
        first = grave[0]
        head = {
            "fail": "Do not expect it to train",
            "warn": "It may train, but slower or less surely",
        }[first.level]
        others = len(grave) - 1
        more = f" (and {others} more {plural('finding', others)})" if others else ""
        return f"{head}; {_clause(first.where)}: {_clause(first.measured)}{more}."
    if not trace.operations:
        many = len(trace.weights)
        return f"Nothing speaks against these {many} {plural('parameter', many)}; no batch was run."
    ways = [
        f"{low} to {high} {way}"
        for way, (low, high) in (("forward", extent(forward(trace))), ("backward", extent(backward(trace))))
        if low
    ]
    signal = f": the signal stays within {' and '.join(ways)}" if ways else ""
    return f"Nothing speaks against training{signal}."


def _clause(text: str) -> str:
    """What stands before the details."""
    return re.split(r"; |: | \(|\. |\n", text.strip())[0].rstrip(".")


def forward(trace: Trace) -> list[float]:
    """The forward scale of each operation of the longest trunk, or of all where there is none."""
    return [trace.operations[at].after.rms for at in _spine(trace)]


def backward(trace: Trace) -> list[float]:
    """The backward scale of the same operations, where it was measured."""
    found = (trace.operations[at].backward for at in _spine(trace))
    return [spread.rms for spread in found if spread is not None]


def _spine(trace: Trace) -> Sequence[int]:
    return trace.trunks[0] if trace.trunks else range(len(trace.operations))


def extent(values: Sequence[float]) -> tuple[str, str]:
    """The smallest and the largest of some scales, as they are written; empty of none.

    >>> extent([0.5, 0.25])
    ('0.250', '0.500')
    """
    known = [value for value in values if math.isfinite(value)]
    return (number(min(known)), number(max(known))) if known else ("", "")


def between(values: Sequence[float]) -> str:
    """The range of some scales, or the one that they all have.

    >>> between([0.5, 0.25]), between([0.5])
    ('0.250 … 0.500', '0.500')
    """
    low, high = extent(values)
    return low if low == high else f"{low} … {high}"


def cosine(value: float | None) -> str:
    """Two decimals, and no sign before zero.

    >>> cosine(0.987), cosine(-0.001)
    ('0.99', '0.00')
    """
    return "" if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def number(value: float | None) -> str:
    """Three digits; nothing of nothing.

    >>> number(0.0432), number(12.0), number(1234.5), number(1.25e-5), number(0.0), number(None)
    ('0.0432', '12.0', '1230', '1.25e-5', '0', '')
    """
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 9.995e-4 <= abs(value) < 99995:
        return f"{float(f'{value:.3g}'):.{max(0, 2 - exponent(value))}f}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits}e{int(power)}"


def exponent(value: float) -> int:
    """The power of ten of the first digit, once rounded to three.

    >>> exponent(9.99), exponent(9.996)
    (0, 1)
    """
    return int(f"{value:.2e}".partition("e")[2])


def share(value: float | None) -> str:
    """A share in percent.

    >>> share(0.25), share(0.004), share(1e-5), share(0.9999), share(0.0)
    ('25 %', '0.4 %', '< 0.1 %', '> 99.9 %', '0 %')
    """
    if value is None:
        return ""
    if value in (0.0, 1.0):
        return f"{value:.0%}".replace("%", " %")
    if value < 0.001:
        return "< 0.1 %"
    if value > 0.999:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if value < 0.0995 or value > 0.9949 else f"{100 * value:.0f} %"


def plural(word: str, count: int) -> str:
    """The word for so many.

    >>> plural("row", 1), plural("row", 2)
    ('row', 'rows')
    """
    return word if count == 1 else f"{word}s"


def shape(sizes: Sequence[int]) -> str:
    """A shape.

    >>> shape((8, 3, 3))
    '8 x 3 x 3'
    """
    return " x ".join(map(str, sizes)) or "scalar"


def parameters(trace: Trace) -> str:
    """How many, and how many values they have."""
    count, values = len(trace.weights), sum(weights.values.n for weights in trace.weights)
    return f"{count:,} {plural('parameter', count)} with {values:,} values"
