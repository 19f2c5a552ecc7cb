"""What a tensor's fingerprint tells: fans that were mistaken, a gain that is not its activation's, one layer
scaled unlike its equals."""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fanin import gains
from fanin.audit import repair
from fanin.audit.checks.values import listed, users
from fanin.audit.findings import Finding, Level, initialize, reason
from fanin.audit.fingerprint import GAINS, Fingerprint, blocks_of, describe, fingerprint
from fanin.audit.trace import Trace, Weights
from fanin.errors import FaninError

KERNELS = ("kernel", "recurrent_kernel")
MISTAKEN = ("transposed", "fieldless")  # flags of a fingerprint that nobody means
FEW = 16  # values that tell no width


def _kernels(trace: Trace) -> list[Weights]:
    return [
        each
        for each in trace.weights
        if each.role in KERNELS and each.values.n >= FEW and each.values.std > 0 and not each.values.broken
    ]


def _normed(trace: Trace) -> set[str]:
    """The parameters of operations that only norms follow: their scale does not matter."""
    after: dict[int, list[str]] = defaultdict(list)
    for operation in trace.operations:
        for source in operation.inputs:
            after[source].append(operation.kind)
    return {
        name
        for name, places in users(trace).items()
        if all(after[at] and set(after[at]) == {"norm"} for at in places)
    }


@dataclass(frozen=True)
class WrongGain:
    """An activation takes part of a signal's size away, and the weights before it are to give it back.

    ReLU halves the mean square, so its weights want ``sigma_w^2 = 2``; PyTorch's default layers have 1/3.
    Where norms follow, or layers are few, nothing comes of it, and it is told as information. Where the
    signal or the gradient does fade or explode it is the cause, and ranked as bad.

    Attributes
    ----------
    factor : float
        By which sigma_w^2 may differ.
    """

    code: ClassVar[str] = "wrong-gain"
    factor: float = 1.5

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the kernels before each activation together."""
        normed = _normed(trace)
        off: dict[str, list[Weights]] = defaultdict(list)
        for weights in _kernels(trace):
            wanted = _wanted(weights.activation)
            variance = weights.weight_variance
            if wanted is None or variance is None or weights.name in normed or weights.role != "kernel":
                continue
            if abs(math.log(variance / wanted)) > math.log(self.factor):
                off[str(weights.activation)].append(weights)
        for phi, kernels in off.items():
            yield self._finding(trace, phi, kernels)

    def _finding(self, trace: Trace, phi: str, kernels: Sequence[Weights]) -> Finding:
        names = tuple(each.name for each in kernels)
        variances = [each.weight_variance or 0.0 for each in kernels]
        made = describe(fingerprint(kernels[0], blocks_of(trace.weights), trace.framework), kernels[0])
        middle, wanted = statistics.median(variances), _wanted(phi) or 1.0
        several = f"{len(names)} kernels before {phi}: " if len(names) > 1 else f"before {phi}: "
        return Finding(
            code=self.code,
            level="info",
            where=several + listed(names),
            measured=f"sigma_w^2 = {middle:.4g} ({made})",
            expected=f"sigma_w^2 = {wanted:.4g}",
            why=reason(self),
            advice=f"use {repair.recipe(phi)}",
            at=names,
            snippet=initialize(trace, f'"{repair.recipe(phi)}"'),
            after=f"each layer keeps 1.0 of the signal instead of {math.sqrt(middle / wanted):.2g}",
            weight=float(len(names)),
        )


def _wanted(phi: str | None) -> float | None:
    """The sigma_w^2 that keeps a signal through an activation; None of one that nobody knows."""
    if phi is None or phi in ("linear", "identity", "sigmoid", "softmax", "softplus"):
        return None
    if phi in repair.SATURATING:
        return 1.0
    try:
        return gains.gain(phi) ** 2
    except FaninError:
        return None


@dataclass(frozen=True)
class WrongFan:
    """The fan counts what one output sums over; counted along the wrong axes it scales a layer by chance.

    A kernel (out, in) drawn as if it were (in, out) is off by ``fan_in / fan_out`` in its variance; a
    convolution whose receptive field was left out by the field's size. fan_out in place of fan_in is a choice
    where all layers make it (He et al. 2015, equation 14), and a slip where one does.

    Attributes
    ----------
    factor : float
        By which the two readings must differ to be told apart.
    """

    code: ClassVar[str] = "wrong-fan"
    factor: float = 1.5

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report kernels that fit a law by other fans than those of their layer, and not by these."""
        n_layer = blocks_of(trace.weights)
        found = [(each, fingerprint(each, n_layer, trace.framework)) for each in _kernels(trace)]
        normed = _normed(trace)
        for weights, print in found:
            best = print.best
            if best is None or not best.flag or not weights.fan_in or not weights.fan_out:
                continue
            slip = best.flag in MISTAKEN or (best.flag == "fan_out" and self._alone(weights, print, found))
            if slip or best.flag == "uncorrected":
                level: Level = "warn" if slip and weights.name not in normed else "info"
                yield self._finding(trace, weights, print, level)

    def _alone(
        self, weights: Weights, print: Fingerprint, found: Sequence[tuple[Weights, Fingerprint]]
    ) -> bool:
        """Whether most layers of its kind have the law by fan_in that it has by fan_out."""
        ratio = (weights.fan_in or 1.0) / (weights.fan_out or 1.0)
        if abs(math.log(ratio)) < math.log(self.factor) or print.best is None:
            return False
        scale = round(print.std**2 * (weights.fan_out or 1.0), 9)
        by_in = by_out = 0
        for other, its in found:
            if other is weights or other.layer != weights.layer or its.family != print.family:
                continue
            error = 10 * max(its.error, print.error, 0.005)
            by_in += math.isclose(its.std**2 * (other.fan_in or 1.0), scale, rel_tol=error)
            by_out += math.isclose(its.std**2 * (other.fan_out or 1.0), scale, rel_tol=error)
        return by_in > by_out

    def _finding(self, trace: Trace, weights: Weights, print: Fingerprint, level: Level) -> Finding:
        fan_in, fan_out = weights.fan_in or 1.0, weights.fan_out or 1.0
        return Finding(
            code=self.code,
            level=level,
            where=weights.name,
            measured=f"{describe(print, weights)}; by fan_in it is {weights.weight_variance or 0.0:.4g}",
            expected=f"fan_in {fan_in:g}, fan_out {fan_out:g} of shape {weights.shape}",
            why=reason(self),
            advice="say which axes are inputs: axes='oi' for (out, in, ...), 'io' for (..., in, out)",
            at=(weights.name,),
            snippet=initialize(trace, f'"{repair.recipe(weights.activation)}"'),
            after=_by_fan_in(print, fan_out / fan_in),
            weight=abs(math.log10(fan_in / fan_out)),
        )


def _by_fan_in(print: Fingerprint, ratio: float) -> str:
    """The width that a law by fan_out would have by fan_in."""
    if print.best is None or print.flag != "fan_out":
        return ""
    return f"std {print.best.std * math.sqrt(ratio):.3g}"


@dataclass(frozen=True)
class ScaledLayer:
    """One layer far larger or smaller than its equals is a slip: it alone makes the signal jump.

    Equals are the kernels of one place in several blocks, or of one kind of layer; at least two thirds of
    them agree in their variance times one of their fans (or as it is) to 10 %. A branch that is scaled on
    purpose is so in every block.

    Attributes
    ----------
    factor : float
        In the standard deviation, beyond the sampling error of both.
    """

    code: ClassVar[str] = "scaled-layer"
    factor: float = 1.5

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the layers that stand out."""
        normed = _normed(trace)
        said: set[str] = set()
        for equals, of_blocks in _equals(_kernels(trace)):
            for weights, ratio, mode in self._outliers(equals, of_blocks):
                if weights.name in said or (not of_blocks and _has_name(weights, trace)):
                    continue
                said.add(weights.name)
                yield self._finding(trace, weights, ratio, len(equals) - 1, mode, weights.name in normed)

    def _outliers(self, equals: Sequence[Weights], of_blocks: bool) -> Iterator[tuple[Weights, float, str]]:
        best: tuple[int, dict[str, float], str] = (0, {}, "")
        for mode in ("", "fan_in", "fan_avg", "fan_out"):
            sizes = {each.name: each.values.rms * math.sqrt(_fan(each, mode)) for each in equals}
            middle = statistics.median_low(sizes.values())
            ratios = {name: size / middle for name, size in sizes.items()}
            close = sum(abs(math.log(ratios[each.name])) < 0.1 + 5 * _error(each) for each in equals)
            if close > best[0]:
                best = (close, ratios, mode)
        close, ratios, mode = best
        most = len(equals) // 3 if of_blocks else max(1, len(equals) // 10)
        far = [
            each
            for each in equals
            if abs(math.log(ratios[each.name])) > math.log(self.factor) + 5 * _error(each)
        ]
        if 3 * close >= 2 * len(equals) and len(far) <= most:
            yield from ((each, ratios[each.name], mode) for each in far)

    def _finding(
        self, trace: Trace, weights: Weights, ratio: float, others: int, mode: str, normed: bool
    ) -> Finding:
        level: Level = "info" if normed else "warn"
        made = describe(fingerprint(weights, blocks_of(trace.weights), trace.framework), weights)
        compared = f"std times sqrt({mode})" if mode else "std"
        return Finding(
            code=self.code,
            level=level,
            where=weights.name,
            measured=f"{ratio:.3g} times the {compared} of its {others} equals ({made})",
            expected=f"std {weights.values.rms / ratio:.4g}, within 10 %",
            why=reason(self),
            advice=f"multiply it by {1 / ratio:.4g}, or draw it as its equals are",
            at=(weights.name,),
            snippet=initialize(trace, f'"{repair.recipe(weights.activation)}"'),
            after=f"std {weights.values.rms / ratio:.4g}",
            weight=abs(math.log10(ratio)),
        )


def _equals(kernels: Sequence[Weights]) -> Iterator[tuple[list[Weights], bool]]:
    """Sets of at least three kernels that should be alike, and whether they are of several blocks."""
    blocks: dict[tuple[str, ...], list[Weights]] = defaultdict(list)
    kinds: dict[tuple[str, ...], list[Weights]] = defaultdict(list)
    for each in kernels:
        if each.block is not None:
            blocks[re.sub(r"\d+", "#", each.name), each.role].append(each)
    alike = {each.name for several in blocks.values() if len(several) > 2 for each in several}
    for each in kernels:
        if each.name not in alike:
            kinds[each.role, each.layer].append(each)
    yield from ((several, True) for several in blocks.values() if len(several) > 2)
    yield from ((several, False) for several in kinds.values() if len(several) > 2)


def _fan(weights: Weights, mode: str) -> float:
    fan_in, fan_out = weights.fan_in or 1.0, weights.fan_out or 1.0
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}.get(mode, 1.0)


def _error(weights: Weights) -> float:
    """The standard error of a width, as a share of it."""
    return math.sqrt(max(weights.kurtosis - 1, 0.5) / (4 * weights.values.n))


def _has_name(weights: Weights, trace: Trace) -> bool:
    """Whether it fits a law by its own fans that has a name: then it is so on purpose."""
    found = fingerprint(weights, blocks_of(trace.weights), trace.framework)
    if found.family == "orthogonal" and found.best is not None:
        gain = getattr(found.best.initializer, "gain", 0.0)
        return any(math.isclose(gain, known) for known, _ in GAINS)
    return found.best is not None and not found.flag
