"""Rule 3: neither too large nor too small."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fanin.audit import lines, repair, theory
from fanin.audit.findings import Finding, Level, initialize, reason
from fanin.audit.lines import Change, Line
from fanin.audit.trace import Trace

# Decades by which a signal may grow or shrink over the whole line. Up to one decade trains
# like none; from three on, plain SGD with one learning rate cannot serve both ends: a 30-layer
# ReLU chain of variance 1/fan_in loses 4.4 decades and stays at a blind guess at every rate,
# while 10 layers of it lose 1.4 and learn.
WARN_DECADES = 1.0
FAIL_DECADES = 3.0
NAMED = 3  # places that a finding names in words


def forward_rms(trace: Trace) -> tuple[float, ...]:
    """Root mean square of the signal along the longest line, bottom to top."""
    found = lines.lines(trace)
    return lines.forward(trace, found[0]) if found else ()


def backward_rms(trace: Trace) -> tuple[float, ...]:
    """Size of the gradient along the longest line, bottom to top."""
    found = lines.lines(trace)
    return lines.backward(trace, found[0]) if found else ()


@dataclass(frozen=True)
class ForwardScale:
    """Every layer scales the signal by about one factor; over many it fades or explodes.

    Measured between one norm and the next, where the signal's size is felt. A drift that neither the usual
    step nor single steps make (one that slows down, as towards tanh's fixed point at zero) does no harm.

    Attributes
    ----------
    warn, fail : float
        Decades over the whole line. Up to one trains like none; over three, plain SGD with one learning rate
        cannot serve both ends.
    """

    code: ClassVar[str] = "forward-scale"
    warn: float = WARN_DECADES
    fail: float = FAIL_DECADES

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report lines whose signal drifts, or ends."""
        for whole in lines.lines(trace):
            if whole.relative:
                continue
            for line in lines.between_norms(trace, whole):
                found = lines.change(lines.forward(trace, line))
                level = _level(found, self.warn, self.fail)
                if level is not None:
                    yield _finding(self, "forward", trace, line, found, level)


@dataclass(frozen=True)
class BackwardScale:
    """Every layer scales the gradient by about one factor; low layers get none or too much.

    The gradient's size per example along the whole line, norms or not; where a norm takes the signal's size
    away, relative to the signal.

    Attributes
    ----------
    warn, fail : float
        Decades over the whole line, as for forward-scale.
    normed : float
        How many times that where norms lie between: a kernel before a norm has no size of its own, so that
        steps of any size come to suit it. A ResNet-50 has 1.8 decades, and trains.
    """

    code: ClassVar[str] = "backward-scale"
    warn: float = WARN_DECADES
    fail: float = FAIL_DECADES
    normed: float = 3.0

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report lines whose gradient drifts on its way down, or ends."""
        for line in lines.lines(trace):
            sizes = lines.backward(trace, line)[::-1]
            if not any(sizes) and all(lines.forward(trace, line)):
                continue  # the head is zero, and lets the gradient through after one step
            down = Line(line.places[::-1], line.relative)
            found = lines.change(sizes)
            times = self.normed if _has_norms(trace, line) else 1.0
            level = _level(found, times * self.warn, times * self.fail)
            if level is not None:
                yield _finding(self, "backward", trace, down, found, level)


def _has_norms(trace: Trace, line: Line) -> bool:
    between = trace.operations[line.places[0] : line.places[-1] + 1]
    return any(operation.kind == "norm" for operation in between)


def _level(found: Change, warn: float, fail: float) -> Level | None:
    if abs(found.total) <= warn:
        return None
    if not abs(found.total) <= fail:
        return "fail"
    return "warn" if found.jumps or abs(found.steady) > abs(found.total) / 2 else "info"


def _finding(
    check: ForwardScale | BackwardScale, way: str, trace: Trace, line: Line, found: Change, level: Level
) -> Finding:
    names = [trace.operations[at].name for at in line.places]
    phi = repair.activation(trace, line.places)
    named = _named(found, line, way)
    if named and len(named) < len(names):
        where = f"{way}, at {', '.join(trace.operations[at].name for at in named[:NAMED])}"
    else:
        where = f"{way}, over {len(names)} layers, {names[0]} to {names[-1]}"
    small = found.total < 0 or any(size == 0 for size in lines.forward(trace, line))
    return Finding(
        code=check.code,
        level=level,
        where=where,
        measured=_measured(found, small) + _theory(trace, line, way),
        expected=f"at most {check.warn:g} decade in all",
        why=reason(check),
        advice=_advice(phi, small, bool(named)),
        at=tuple(_names(trace, named or line.places)),
        snippet=initialize(trace, f'"{repair.recipe(phi)}"'),
        after=repair.keeps(phi, len(names), found.total) if math.isfinite(found.total) else "",
        weight=abs(found.total) if math.isfinite(found.total) else math.inf,
    )


def _named(found: Change, line: Line, way: str) -> list[int]:
    """The places whose operations make the jumps: on the way down, the step to a place is made above it."""
    back = way == "backward"
    return [line.places[max(k - 1, 0) if back else k] for k in found.jumps]


def _measured(found: Change, small: bool) -> str:
    if math.isfinite(found.total) and found.jumps:
        return f"{found.leap:+.2g} decades there, {found.total:+.2g} in all"
    if math.isfinite(found.total):
        return f"{found.per_layer:+.2g} decades per layer, {found.total:+.2g} in all"
    return "no signal arrives" if small else "the signal is not finite"


def _theory(trace: Trace, line: Line, way: str) -> str:
    """What theory says of the same steps, where it says something of all."""
    if way != "forward" or len(line.places) < 2:
        return ""
    expected = theory.predicted(trace)
    first, last = line.places[0], line.places[-1]
    trunk = next((trunk for trunk in trace.trunks if set(line.places) <= set(trunk)), ())
    passed = [at for at in trunk if first <= at <= last]
    total = 0.0
    for below, at in itertools.pairwise(passed):
        before, predicted = trace.operations[below].after.rms, expected[at]
        if not before or not predicted:
            return ""
        total += math.log10(predicted / before)
    return f"; theory {total / (len(line.places) - 1):+.2g} per layer"


def _advice(phi: str | None, small: bool, one: bool) -> str:
    size = "larger" if small else "smaller"
    if one:
        return (
            f"give this layer the {size} std of the others: {repair.recipe(phi)} for {phi or 'linear'} layers"
        )
    return (
        f"use a {size} std: {repair.recipe(phi)} keeps the size through {phi or 'linear'} layers; orthogonal "
        "with the activation's gain for deep chains"
    )


def _names(trace: Trace, places: Sequence[int]) -> Iterator[str]:
    """Operations, each with its kernel."""
    for at in places:
        operation = trace.operations[at]
        yield operation.name
        yield from (name for name in operation.parameters if trace[name].role == "kernel")


@dataclass(frozen=True)
class ResidualScale:
    """Each block adds its branch to the stream; unless branches shrink with their number, the stream grows.

    Of L blocks whose branches are as large as the stream, the last output is 2**(L / 2) times the first;
    branches scaled by 1 / sqrt(2 L) leave it of one size (Fixup, SkipInit, ReZero begin with none at all).

    Attributes
    ----------
    warn, fail : float
        Decades by which the stream grows from the first sum to the last, where no norm takes its size away.
        Where one does, later blocks only count for less: that is reported as information.
    """

    code: ClassVar[str] = "residual-scale"
    warn: float = WARN_DECADES
    fail: float = FAIL_DECADES

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report streams of at least two sums that grow."""
        for whole in lines.lines(trace):
            for line in lines.between_norms(trace, whole):
                sums = [at for at in line.places if _is_sum(trace, at)]
                sizes = [trace.operations[at].after.rms for at in sums]
                if len(sums) < 2 or not sizes[0] > 0:
                    continue
                grown = lines.change(sizes)
                if not self.warn < grown.total < math.inf or len(grown.jumps) == 1:
                    continue
                yield self._finding(trace, sums, grown, line.relative)

    def _finding(self, trace: Trace, sums: Sequence[int], grown: Change, relative: bool) -> Finding:
        branches = [name for at in sums for name in _branch_kernels(trace, at)]
        n = len(sums)
        level = _level(grown, self.warn, self.fail)
        return Finding(
            code=self.code,
            level="info" if relative or level is None else level,
            where=f"{n} sums, {trace.operations[sums[0]].name} to {trace.operations[sums[-1]].name}",
            measured=f"the stream grows {10**grown.total:.3g} times",
            expected=f"at most {10**self.warn:g} times",
            why=reason(self),
            advice=f"multiply the last kernel of each branch by 1 / sqrt({n}), or start it at zero",
            at=(*branches, *(trace.operations[at].name for at in sums)),
            snippet=_scaled(trace, branches, n),
            after=f"the stream grows about {math.sqrt(2):.3g} times",
            weight=grown.total,
        )


def _is_sum(trace: Trace, at: int) -> bool:
    return trace.operations[at].kind == "add" and len(trace.operations[at].inputs) > 1


def _branch_kernels(trace: Trace, at: int) -> list[str]:
    """The last kernels of the branch that a sum takes in: of its inputs the one nearest before it."""
    source = max(trace.operations[at].inputs)
    while source >= 0:
        operation = trace.operations[source]
        kernels = [name for name in operation.parameters if trace[name].role == "kernel"]
        if kernels:
            return kernels
        source = max(operation.inputs, default=-1)
    return []


def _scaled(trace: Trace, branches: Sequence[str], n: int) -> str:
    if not branches:
        return initialize(trace, '"he_normal"')
    last = branches[0].split(".")[-2:]
    rule = f'fanin.Recipe([("*.{".".join(last)}", "scaled(he_normal, {n**-0.5:.4g})"), ("*", "he_normal")])'
    code = initialize(trace, rule)
    return f"import fanin\n{code}" if code else ""
