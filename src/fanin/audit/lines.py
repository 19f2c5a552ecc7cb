"""The lines along which a signal is followed from the batch to the output.

Only what every path passes counts (`Trace.trunks`): a branch beside a skip may fade without harm. And where a
norm takes the size of a signal away before anything else sees it, its size says nothing: embeddings of size
0.02 before the first norm are as good as any. There the gradient is taken relative to the signal.
"""

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fanin.audit.trace import Operation, Spread, Trace

# Where the size of a signal is compared: not after activations, whose factors are as constant as known.
PLACES = ("dense", "conv", "embedding", "recurrent", "attention", "norm", "add", "multiply", "matmul")
HOMOGENEOUS = ("dense", "conv", "add", "multiply", "pool", "dropout", "concat")
RECTIFIERS = ("relu", "leaky_relu", "prelu", "linear", "identity")
WEIGHTED = ("dense", "conv", "recurrent", "attention", "embedding")
APART = 0.5  # decades by which a step departs from the usual one: a factor of 3


@dataclass(frozen=True)
class Line:
    """Places on the way of a signal, by index; `relative` where a norm takes its size away."""

    places: tuple[int, ...]
    relative: bool = False


def lines(trace: Trace) -> tuple[Line, ...]:
    """The lines of a trace, longest first; the head, whose output is judged by the loss, is on none."""
    relative = normalized(trace)
    found = []
    for trunk in trace.trunks:
        places = [at for at in before_head(trace, trunk) if trace.operations[at].kind in PLACES]
        found.append(Line(tuple(at for at in places if at not in relative)))
        runs = itertools.groupby(places, key=relative.__contains__)
        found += [Line(tuple(run), relative=True) for free, run in runs if free]
    kept: list[Line] = []
    for line in sorted((line for line in found if line.places), key=lambda line: -len(line.places)):
        # Tables beside each other begin lines that are one from their sum on.
        if not any(line.relative == old.relative and {*line.places[1:]} <= {*old.places} for old in kept):
            kept.append(line)
    return tuple(kept)


def before_head(trace: Trace, trunk: Sequence[int]) -> Sequence[int]:
    """A trunk up to the last operation with a kernel."""
    kernels = [k for k, at in enumerate(trunk) if trace.operations[at].kind in ("dense", "conv")]
    return trunk[: kernels[-1]] if kernels else trunk


def between_norms(trace: Trace, line: Line) -> Iterator[Line]:
    """A line cut before each norm, which gives the signal a new size."""
    start = 0
    for k, at in enumerate(line.places):
        if trace.operations[at].kind == "norm" and k > start:
            yield Line(line.places[start:k], line.relative)
            start = k
    yield Line(line.places[start:], line.relative)


def normalized(trace: Trace) -> frozenset[int]:
    """The operations whose output's size a norm takes away before anything that would feel it."""
    takers: list[list[int]] = [[] for _ in trace.operations]
    for at, operation in enumerate(trace.operations):
        for source in operation.inputs:
            if source >= 0:
                takers[source].append(at)
    found: set[int] = set()
    for at in range(len(trace.operations) - 1, -1, -1):
        if (
            takers[at]
            and at not in trace.outputs
            and all(
                trace.operations[taker].kind == "norm"
                or (taker in found and _homogeneous(trace.operations[taker]))
                for taker in takers[at]
            )
        ):
            found.add(at)
    return frozenset(found)


def _homogeneous(operation: Operation) -> bool:
    """Whether it only passes on a factor in its input."""
    if operation.kind == "activation":
        return operation.activation in RECTIFIERS
    return operation.kind in HOMOGENEOUS


# --- sizes along a line --------------------------------------------------------------------------


def forward(trace: Trace, line: Line) -> tuple[float, ...]:
    """Root mean square of the signal at each place."""
    return tuple(_rms(trace.operations[at].after) for at in line.places)


def backward(trace: Trace, line: Line) -> tuple[float, ...]:
    """Size of the gradient at each place; of a relative line, times that of the signal. None if unmeasured.

    It is the root of the sum of squares, as a share of that at the last place's number of elements: a layer
    that keeps it gives each example the same derivative, whatever its width. Of equal widths it is the root
    mean square. What a pool or another operation without a kernel does to it is left out.
    """
    sizes: list[float] = []
    factor, later = 1.0, (0, 0.0)
    for at in reversed(line.places):
        operation = trace.operations[at]
        gradient = operation.backward or operation.loss_gradient
        if gradient is None:
            return ()
        if not sizes:
            last = gradient.n
        size = _rms(gradient) * math.sqrt(gradient.n / last)
        if line.relative:
            size *= _rms(operation.after) * math.sqrt(operation.after.n / last)
        if sizes and size and _reshaped(trace, at, later[0]):
            factor *= later[1] / size
        sizes.append(size * factor)
        later = at, size
    return tuple(sizes[::-1])


def _reshaped(trace: Trace, start: int, end: int) -> bool:
    """Whether something between two places changes how many elements there are, without a kernel."""
    between = trace.operations[start + 1 : end + 1]
    return any(
        operation.kind in ("pool", "other", "concat") and operation.after.n != trace.operations[start].after.n
        for operation in between
    )


def _rms(values: Spread) -> float:
    return math.nan if values.broken else values.rms


def drift(signal: Sequence[float]) -> float:
    r"""Decades per layer by which a signal grows along ``signal``.

    .. math:: \frac{\log_{10} s_L - \log_{10} s_1}{L - 1}

    0 for fewer than two layers; ``-inf`` when the signal ends at exactly zero, ``inf`` when it
    overflows, ``nan`` when it is zero or overflown from the start or becomes nan.

    For a wide ReLU chain with zero biases and Var W = v / fan_in both drifts are
    ``log10(v / 2) / 2``: 0 for He's v = 2, -0.15 for Glorot's and LeCun's v = 1 (square layers).

    Examples
    --------
    >>> drift([1.0, 0.1, 0.01])
    -1.0
    >>> drift([1.0, 0.5, 0.0])
    -inf
    """
    if len(signal) < 2:
        return 0.0
    first, last = signal[0], signal[-1]
    if math.isnan(last) or first == 0.0 or not math.isfinite(first):
        return math.nan
    if last == 0.0:
        return -math.inf
    return (math.log10(last) - math.log10(first)) / (len(signal) - 1)


@dataclass(frozen=True)
class Change:
    """How a signal changes along a line, in decades.

    Attributes
    ----------
    total, per_layer : float
        From the first place to the last; nan and infinities as in `drift`.
    steady : float
        What the usual step, the median, makes of all steps.
    jumps : tuple of int
        Where on the line it changes by steps that depart from the usual, if these make most of it.
    leap : float
        What these steps make together.
    """

    total: float
    per_layer: float
    steady: float
    jumps: tuple[int, ...]
    leap: float = 0.0


def change(signal: Sequence[float]) -> Change:
    """How a signal changes: steadily, by jumps, or neither (algebraically, or at random).

    Examples
    --------
    >>> change([1.0, 1.0, 100.0, 100.0]).jumps, change([1.0, 0.1, 0.01]).steady
    ((2,), -2.0)
    """
    per_layer = drift(signal)
    total = per_layer * (len(signal) - 1) if len(signal) > 1 else 0.0
    if not math.isfinite(total):
        lost = [k for k, size in enumerate(signal) if size == 0 or not math.isfinite(size)]
        return Change(total, per_layer, total, tuple(lost[:1]))
    if not all(0 < size < math.inf for size in signal):
        return Change(total, per_layer, total, ())
    steps = [math.log10(b / a) for a, b in itertools.pairwise(signal)]
    usual = statistics.median(steps) if steps else 0.0
    way = math.copysign(1.0, total)
    apart = [k for k, step in enumerate(steps, 1) if (step - usual) * way > APART]
    share = sum(steps[k - 1] - usual for k in apart) * way
    jumps = tuple(apart) if len(steps) > 1 and share > abs(total) / 2 else ()
    leap = sum(steps[k - 1] for k in jumps)
    return Change(total, per_layer, usual * len(steps), jumps, leap)
