"""Residual scaling: which one a model asks for is read off its graph."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from fanin.audit.trace import Trace
from fanin.calibrate.engine import Engine
from fanin.calibrate.forward import Outcome, reasons
from fanin.calibrate.layers import (
    WEIGHTED,
    Branch,
    Layer,
    ancestors,
    branches,
    end_of,
    kernels_of,
    layers,
    with_itself,
)
from fanin.calibrate.result import Scale
from fanin.calibrate.store import Store
from fanin.errors import CalibrationError

Choice = tuple[float, str]  # a factor, and why


def residual_scaling(engine: Engine, store: Store, *, zero_ends: bool = True) -> Outcome:
    r"""Residual branches are scaled down by how many there are, as their structure asks for.

    ==========================================  =============================================================
    branches that begin with a norm             the last kernel times ``1 / sqrt(N)`` (GPT-2)
    without any, of m > 1 kernels in a row      the last kernel 0, the others times ``N ** (-1 / (2 m - 2))``
                                                (Fixup)
    of one kernel, with attention, or if not    the last kernel times ``1 / sqrt(N)``
    `zero_ends`
    ==========================================  =============================================================

    N counts the branches that one stream takes in: ``2 L`` for L blocks of attention and MLP. Left alone are
    branches that start at zero, whose ends are small already, or whose end a norm or a learned scale sizes,
    and streams that a norm follows after each sum (post-LN), which `fanin.recipes.deepnorm` is for.

    Parameters
    ----------
    zero_ends : bool
        Whether branches without a norm start at zero. Fixup also starts the head there (``"head"`` does), and
        has learned scalars that a network needs to have.

    References
    ----------
    Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3. Zhang, Dauphin,
    Ma 2019, arXiv:1901.09321, section 3.3.
    """
    trace = engine.trace()
    taken, left = layers(trace, head=True, normalized=True)
    known = {layer.at: layer for layer in (*_attentions(trace), *taken) if not layer.gate}
    chosen: dict[int, Choice] = {}
    said: dict[str, str] = {}
    for stream in _streams(trace):
        found, whys = _choices(trace, stream, zero_ends)
        chosen |= found
        said |= {trace.operations[at].name: why for at, why in whys.items()}
    for at in sorted(chosen):
        if at not in known:
            name = trace.operations[at].name
            said[name] = left.get(name, "it has no kernel of its own")
    chosen = {at: choice for at, choice in sorted(chosen.items()) if at in known}
    if not chosen:
        raise CalibrationError(f"nothing to scale: {reasons(said) if said else 'no residual branches'}")
    return Outcome(
        "root mean square of the kernel",
        tuple(_scaled(store, known[at], *choice) for at, choice in chosen.items()),
        said,
    )


def _scaled(store: Store, layer: Layer, factor: float, why: str) -> Scale:
    before = _rms(store, layer)
    store.scale(layer.kernels, np.asarray(factor))
    return Scale(layer.name, before, _rms(store, layer), before * factor, layer.kernels, why)


def _rms(store: Store, layer: Layer) -> float:
    values = np.concatenate([store.values(name).ravel() for name in layer.kernels])
    return math.sqrt(float(np.mean(values.astype(np.float64) ** 2)))


# --- what the edges say --------------------------------------------------------------------------


def _streams(trace: Trace) -> list[list[Branch]]:
    """Branches by the stream that takes them in."""
    of_sum: dict[int, int] = {}
    found: dict[int, list[Branch]] = {}
    for branch in branches(trace):
        at = branch.stream
        while at >= 0 and at not in of_sum and len(set(trace.operations[at].inputs)) == 1:
            at = trace.operations[at].inputs[0]
        start = of_sum.get(at, at)
        of_sum[branch.sum] = start
        found.setdefault(start, []).append(branch)
    return list(found.values())


def _choices(
    trace: Trace, stream: list[Branch], zero_ends: bool
) -> tuple[Mapping[int, Choice], Mapping[int, str]]:
    """For each operation to scale its factor and why; for each branch that is left why it is."""
    n = len(stream)
    lasts = [branch.last for branch in stream]
    if n < 2:
        return {}, dict.fromkeys(lasts, "the only branch of its stream")
    if all(_takers(trace, branch.sum) == {"norm"} for branch in stream):
        return {}, dict.fromkeys(
            lasts, "a norm follows each sum of its stream (post-LN): see recipes.deepnorm"
        )
    above = ancestors(trace)
    chosen: dict[int, Choice] = {}
    left: dict[int, str] = {}
    ratios: list[float] = []
    for branch in stream:
        end = end_of(trace, branch)
        if end is None:
            left[branch.last] = "what ends the branch is no kernel, and sets its size"
        elif _is_zero(trace, end):
            left[end] = "the end of a residual branch that starts at zero"
        else:
            inside = _inside(trace, above, branch)
            before = [at for at in inside if trace.operations[at].kind in WEIGHTED and at != end]
            ratios.append(_size(trace, [end]) - _size(trace, before or _others(trace, stream)))
            chosen |= _choice(trace, inside, before, end, n, zero_ends)
    ratio = math.exp(float(np.mean(ratios or [0.0])))
    if ratio <= n**-0.25:  # halfway to 1 / sqrt(n), in decades
        why = f"the ends of its stream are {ratio:.2g} times as large as other kernels: scaled already"
        return {}, left | {at: why for at in lasts if at not in left}
    return chosen, left


def _choice(
    trace: Trace, inside: list[int], before: list[int], end: int, n: int, zero_ends: bool
) -> Mapping[int, Choice]:
    kinds = Counter(trace.operations[at].kind for at in inside)
    depth = _in_a_row(trace, inside)
    root = 1 / math.sqrt(n)
    if kinds["norm"]:
        return {end: (root, f"1/sqrt({n}): the end of one of {n} branches, each behind a norm (GPT-2)")}
    attends = kinds["softmax"] or kinds["attention"] or kinds["matmul"] or kinds["recurrent"]
    if depth < 2 or attends or not zero_ends:
        return {end: (root, f"1/sqrt({n}): the end of one of {n} branches without a norm")}
    power = 1 / (2 * depth - 2)
    inner = (
        n**-power,
        f"{n}**(-1/{2 * depth - 2}): in one of {n} branches of {depth} kernels, no norm (Fixup)",
    )
    return {**dict.fromkeys(before, inner), end: (0.0, f"0: the end of one of {n} branches, no norm (Fixup)")}


def _attentions(trace: Trace) -> Iterator[Layer]:
    """Attention in one operation ends with one kernel, whose canonical name is the same everywhere."""
    for at, operation in enumerate(trace.operations):
        last = [name for name in kernels_of(trace, operation) if "out_proj" in name.split(".")]
        if operation.kind == "attention" and last:
            yield Layer(at, operation.name, tuple(last), ())


def _is_zero(trace: Trace, at: int) -> bool:
    names = kernels_of(trace, trace.operations[at])
    return bool(names) and all(trace[name].values.largest == 0 for name in names)


def _inside(trace: Trace, above: list[int], branch: Branch) -> list[int]:
    """The operations of a branch: what leads to its end and not to the other term."""
    mine = with_itself(above, branch.last) & ~with_itself(above, branch.stream)
    return [at for at in range(branch.last + 1) if mine >> (at + 1) & 1]


def _in_a_row(trace: Trace, inside: Iterable[int]) -> int:
    """The most kernels on one way through a branch."""
    deep: dict[int, int] = {}
    for at in inside:
        operation = trace.operations[at]
        most = max((deep.get(source, 0) for source in operation.inputs), default=0)
        deep[at] = most + (operation.kind in WEIGHTED)
    return max(deep.values(), default=0)


def _takers(trace: Trace, source: int) -> set[str]:
    """The kinds of the operations that take an output."""
    return {operation.kind for operation in trace.operations if source in operation.inputs}


def _others(trace: Trace, stream: list[Branch]) -> list[int]:
    """The kernels that end no branch."""
    ends = {end_of(trace, branch) for branch in stream}
    return [at for at, each in enumerate(trace.operations) if each.kind in WEIGHTED and at not in ends]


def _size(trace: Trace, places: list[int]) -> float:
    """The mean logarithm of kernels' sizes, halfway between laws by fan_in and those of one deviation."""
    found = [
        math.log(weights.values.rms * (weights.fan_in or 1) ** 0.25)
        for at in places
        for name in kernels_of(trace, trace.operations[at])
        if (weights := trace[name]).values.rms > 0
    ]
    return float(np.mean(found)) if found else 0.0
