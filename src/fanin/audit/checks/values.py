"""What values alone tell: broken, forgotten, repeated, coarse, out of range, or zero where it hurts."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from fanin.audit.findings import Finding, Level, initialize, reason
from fanin.audit.trace import Operation, Trace, Weights
from fanin.dtypes import as_dtype

KERNELS = ("kernel", "recurrent_kernel", "head")
RECTIFIERS = ("relu", "relu6", "relu_squared")
FEW = 16  # random values that may all have one sign
NAMED = 3  # tensors that a finding names in words; `at` has all


def listed(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    every = list(names)
    rest = len(every) - NAMED
    return ", ".join(every[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def users(trace: Trace) -> dict[str, list[int]]:
    """The operations that use each parameter."""
    found: dict[str, list[int]] = defaultdict(list)
    for at, operation in enumerate(trace.operations):
        for name in operation.parameters:
            found[name].append(at)
    return found


@dataclass(frozen=True)
class NotFinite:
    """One nan or infinity reaches every output in a few steps, and every gradient after them."""

    code: ClassVar[str] = "not-finite"

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report each tensor with such values, and its rows."""
        for weights in trace.weights:
            if not weights.values.broken:
                continue
            rows = f", in row{'s' * (len(weights.broken) > 1)} {', '.join(map(str, weights.broken))}"
            yield Finding(
                code=self.code,
                level="fail",
                where=weights.name,
                measured=f"{weights.values.broken} of {weights.values.n} values are nan or infinite"
                + (rows if weights.broken else ""),
                expected="finite values",
                why=reason(self),
                advice="initialize it again; a computation before has divided by zero or overflowed",
                at=(weights.name,),
                snippet=_again(trace, weights),
                weight=weights.values.broken / weights.values.n,
            )


@dataclass(frozen=True)
class UnsetMemory:
    """Memory that nobody has written holds what was there before: pointers, text, old numbers.

    Attributes
    ----------
    low, high : float
        No initializer's values lie below 2**-low, zero aside, or above 2**high: a normal law reaches down to
        2**-30 of its width in 2**30 draws.
    """

    code: ClassVar[str] = "unset-memory"
    low: float = 90
    high: float = 60

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report tensors with magnitudes that are no weights'."""
        for weights in trace.weights:
            sizes = weights.values.magnitudes
            wild = sum(count for k, count in sizes.items() if not -self.low <= k <= self.high)
            if not wild and weights.values.largest < 2.0**self.high:
                continue
            tiny = f", {min(sizes):+d} to {max(sizes):+d} in powers of two" if sizes else ""
            yield Finding(
                code=self.code,
                level="fail",
                where=weights.name,
                measured=f"largest magnitude {weights.values.largest:.3g}{tiny}",
                expected=f"magnitudes between 2**-{self.low:g} and 2**{self.high:g}, or zero",
                why=reason(self),
                advice="it was made without values (empty, to_empty): initialize it",
                at=(weights.name,),
                snippet=_again(trace, weights),
                weight=1.0,
            )


@dataclass(frozen=True)
class RepeatedTensor:
    """Two layers with the same random values were drawn by the same seed, or are copies of one another.

    They start as one layer and learn less than two; drawn by one generator they would differ. Ties, which are
    one tensor, are not meant.

    Attributes
    ----------
    least : float
        Values that a tensor must have: fewer may be equal by chance.
    """

    code: ClassVar[str] = "repeated-tensor"
    least: float = 16

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report each set of equal tensors once; of whole layers that are copies, one finding."""
        same: dict[str, list[str]] = defaultdict(list)
        for weights in trace.weights:
            if weights.values.n >= self.least and _looks_random(weights):
                same[weights.digest].append(weights.name)
        # Layers that are copies repeat all their tensors: one finding for the layers.
        copies: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
        for names in same.values():
            if len(names) > 1:
                copies[tuple(_differing(names))].append(names)
        for layers, sets in copies.items():
            every = [name for names in sets for name in names]
            yield Finding(
                code=self.code,
                level="warn",
                where=listed(sets[0]),
                measured=f"{len(sets[0])} tensors hold the same random values"
                + (f"; so do {len(sets) - 1} more of {listed(layers)}" if len(sets) > 1 else ""),
                expected="values of their own",
                why=reason(self),
                advice="draw each by its own name, or one generator after the other; do not copy layers",
                at=tuple(every),
                snippet=initialize(trace, '"he_normal"'),
                weight=float(len(every)),
            )


def _looks_random(weights: Weights) -> bool:
    """Whether equal values are no accident: neither constant, nor made of few numbers, nor computed."""
    facts = weights.values
    drawn = weights.role in (*KERNELS, "embedding", "bias", "gate_bias", "recurrent_bias", "unknown")
    return drawn and facts.std > 0 and not facts.broken and facts.zeros < 0.5 and weights.bits > 4


def _differing(names: list[str]) -> Iterator[str]:
    """What is before the last word on which names agree: the layers that are copies."""
    words = [name.split(".") for name in names]
    common = 0
    while all(len(each) > common + 1 and each[-1 - common] == words[0][-1 - common] for each in words):
        common += 1
    yield from (".".join(each[: len(each) - common]) or name for each, name in zip(words, names, strict=True))


@dataclass(frozen=True)
class CoarseValues:
    """Values drawn in a narrower dtype and widened: ties and gaps, and sums with a bias of their own.

    A bfloat16 has 8 bits of significand, so between 1 and 2 there are 128 of them; every value of the tensor
    is one of these. Draw in float32 and round once.
    """

    code: ClassVar[str] = "coarse-values"

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report wide tensors that a narrow dtype could hold, all in one finding."""
        coarse = [each for each in trace.weights if _is_coarse(each)]
        if not coarse:
            return
        bits = max(each.bits for each in coarse)
        narrow = "bfloat16" if bits <= 8 else "float16"
        yield Finding(
            code=self.code,
            level="warn",
            where=listed(each.name for each in coarse),
            measured=f"every value fits {bits} bits of significand, as {narrow}'s do",
            expected="24 bits of float32" if coarse[0].dtype == "float32" else "53 bits of float64",
            why=reason(self),
            advice=f"draw in float32, not {narrow}, and round once",
            at=tuple(each.name for each in coarse),
            snippet=initialize(trace, '"he_normal"'),
            weight=len(coarse) / len(trace.weights),
        )


def _is_coarse(weights: Weights) -> bool:
    # Random values: computed ones, such as a grid's, are coarse because they are round.
    spread_out = weights.values.n >= 64 and len(weights.values.magnitudes) > 4
    return (
        weights.dtype in ("float32", "float64")
        and 5 < weights.bits <= 11
        and spread_out
        and _looks_random(weights)
    )


@dataclass(frozen=True)
class ZeroLayer:
    """A kernel of zeros that gets no gradient stays zero, and all that passes through it with it.

    Zeros are meant where they get a gradient at once: the head, the last layer of a residual branch (Fixup),
    LoRA's second factor. A kernel of zeros on the way that every path takes hides the input from the output;
    the layers below get no gradient until it has moved.
    """

    code: ClassVar[str] = "zero-layer"

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report kernels of zeros that get no gradient or block the way, and scales of zeros that do."""
        using = users(trace)
        trunk = {at for trunk in trace.trunks for at in trunk}
        last = max((at for at, each in enumerate(trace.operations) if _multiplies(trace, each)), default=-1)
        for weights in trace.weights:
            if weights.role not in (*KERNELS, "norm_scale") or not _is_zero(weights):
                continue
            places = using[weights.name]
            if not places:
                continue  # nothing is known of what it does
            # One that gets a gradient once a head of zeros has moved is not tied (Fixup).
            forgotten = weights.gradient is not None and weights.gradient.largest == 0 and weights.tied != 0
            blocks = any(at in trunk and at < last for at in places)
            if blocks or (forgotten and weights.role in KERNELS):
                yield self._finding(trace, weights, forgotten, blocks)

    def _finding(self, trace: Trace, weights: Weights, forgotten: bool, blocks: bool) -> Finding:
        said = ["all zero"] + ["no gradient reaches it"] * forgotten + ["every path passes it"] * blocks
        level: Level = "fail" if forgotten or weights.role == "norm_scale" else "warn"
        return Finding(
            code=self.code,
            level=level,
            where=weights.name,
            measured=", ".join(said),
            expected="random values; zeros only in the head and at the end of a residual branch",
            why=reason(self),
            advice="draw it at random",
            at=(weights.name,),
            snippet=_again(trace, weights),
            after="an output that depends on the input" if blocks else "a gradient that is not zero",
            weight=100.0,
        )


def _is_zero(weights: Weights) -> bool:
    return weights.values.n > 0 and weights.values.largest == 0 and not weights.values.broken


def _multiplies(trace: Trace, operation: Operation) -> bool:
    return any(trace[name].role in KERNELS for name in operation.parameters)


@dataclass(frozen=True)
class DeadBias:
    """A bias far below zero keeps a rectifier's unit off for every input: it gets no gradient either.

    Pre-activations spread by ``s = sqrt(sigma_w^2) rms(x)`` about their bias; at 4 s below zero one input in
    30 000 turns a unit on.

    Attributes
    ----------
    spreads : float
        How far below zero, in such spreads.
    share : float
        Of the units of a layer. A mean that n random biases have by chance, up to 5 standard errors, is none.
    """

    code: ClassVar[str] = "dead-bias"
    spreads: float = 4.0
    share: float = 0.5

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report biases before rectifiers whose mean says that most units are off."""
        using = users(trace)
        for weights in trace.weights:
            facts = weights.values
            if (
                weights.role not in ("bias", "norm_bias")
                or weights.activation not in RECTIFIERS
                or not facts.mean < 0
            ):
                continue
            # If k of n are -B and the others near zero: mean = -k B / n and mean square k B^2 / n.
            share, low = (facts.mean / facts.rms) ** 2, facts.rms * (facts.rms / -facts.mean)
            spread = _preactivation(trace, weights, using[weights.name])
            chance = facts.std > 0 and (facts.n < FEW or share * facts.n < 25 * (1 - share))
            if spread is None or chance or share < self.share or low < self.spreads * spread:
                continue
            yield Finding(
                code=self.code,
                level="fail" if share > 0.9 else "warn",
                where=weights.name,
                measured=f"{share:.0%} of {facts.n} units at about {-low:.3g}; inputs spread by {spread:.3g}",
                expected=f"above {-self.spreads * spread:.3g}, best zero",
                why=reason(self),
                advice="start it at zero",
                at=(weights.name,),
                snippet=_again(trace, weights, "zeros"),
                after="half of the units on, for each input",
                weight=50.0 + share,
            )


def _preactivation(trace: Trace, bias: Weights, places: Iterable[int]) -> float | None:
    """How far pre-activations spread without the bias; inputs are of size 1 where nobody knows."""
    front = bias.name.rpartition(".")[0]
    if not trace.operations:
        beside = (
            each for each in trace.weights if each.role in KERNELS and each.name.rpartition(".")[0] == front
        )
        return next((_spread(each, 1.0) for each in beside), None)
    for at in places:
        operation = trace.operations[at]
        if operation.kind == "norm":
            scales = (
                trace[name].values.rms for name in operation.parameters if trace[name].role == "norm_scale"
            )
            return next(scales, 1.0)
        sizes = [trace.operations[source].after.rms for source in operation.inputs if source >= 0]
        sizes += [operation.before.rms] if operation.before is not None else []
        for name in operation.parameters:
            if trace[name].role in KERNELS and sizes:
                return _spread(trace[name], max(sizes))
    return None


def _spread(kernel: Weights, size: float) -> float | None:
    return None if kernel.weight_variance is None else math.sqrt(kernel.weight_variance) * size


@dataclass(frozen=True)
class SaturatedGate:
    """A bias far from zero holds a gate open or shut, whatever the input: its slope is nearly zero.

    Biases of forget gates are 1 on purpose (Jozefowicz et al. 2015), or up to ``log T`` to remember T steps.

    Attributes
    ----------
    limit : float
        Of a sigmoid: at 8 its slope is 0.13 % of the largest, and T is 3000. Of a tanh half of it.
    """

    code: ClassVar[str] = "saturated-gate"
    limit: float = 8.0

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the biases of gates that are so on the whole."""
        for weights in trace.weights:
            if weights.role not in ("gate_bias", "recurrent_bias"):
                continue
            leaf = weights.name.rpartition(".")[2]
            limit = self.limit / 2 if leaf in ("cell_gate", "new_gate") else self.limit
            if not abs(weights.values.mean) > limit:
                continue
            yield Finding(
                code=self.code,
                level="fail",
                where=weights.name,
                measured=f"mean {weights.values.mean:.3g}, std {weights.values.std:.2g}",
                expected=f"between {-limit:g} and {limit:g}: 0, or 1 for a forget gate",
                why=reason(self),
                advice="start it at 0, a forget gate's at 1",
                at=(weights.name,),
                snippet=_again(trace, weights, "ones" if leaf == "forget_gate" else "zeros"),
                after=f"a slope of {'79 %' if leaf == 'forget_gate' else '100 %'} of the largest",
                weight=50.0,
            )


@dataclass(frozen=True)
class WeightRange:
    """A narrow dtype has no numbers for small weights: they lose digits, then become zero.

    Below the smallest normal number (2**-14 of float16, 2**-6 of float8_e4m3fn) each halving costs a bit.

    Attributes
    ----------
    warn : float
        Share of the values that may lie there. A normal law of width s has 80 % s' / s of them below s'.
    """

    code: ClassVar[str] = "weight-range"
    warn: float = 0.25

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report tensors of narrow dtypes with many values below, or any at the upper end."""
        for weights in trace.weights:
            facts = weights.values
            if weights.dtype not in NARROW or facts.std == 0 or weights.role not in (*KERNELS, "embedding"):
                continue
            smallest, biggest = _limits(weights.dtype)
            total = sum(facts.magnitudes.values())
            low = sum(count for k, count in facts.magnitudes.items() if 2.0**k < smallest)
            share = facts.zeros + (1 - facts.zeros) * low / total if total else facts.zeros
            if share <= self.warn and facts.largest < biggest:
                continue
            yield Finding(
                code=self.code,
                level="warn",
                where=weights.name,
                measured=f"{share:.0%} of the values below {smallest:.3g}, the largest {facts.largest:.3g}",
                expected=f"most between {smallest:.3g} and {biggest:.3g}, {weights.dtype}'s normal numbers",
                why=reason(self),
                advice="keep it in bfloat16 or float32, or scale it up and its output down",
                at=(weights.name,),
                weight=share,
            )


NARROW = ("float16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")


def _limits(dtype: str) -> tuple[float, float]:
    """The smallest normal number of a dtype, and its largest."""
    import ml_dtypes

    facts: Any = ml_dtypes.finfo(as_dtype(dtype))  # type: ignore[no-untyped-call]
    return float(facts.smallest_normal), float(facts.max)


@dataclass(frozen=True)
class WeightsAlone:
    """A checkpoint has names and shapes, no layers: roles and fans are read off these, and may be wrong."""

    code: ClassVar[str] = "weights-alone"

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Say so, where weights are all there is."""
        if trace.framework or trace.operations or not trace.weights:
            return
        zero = [each.name for each in trace.weights if each.role in KERNELS and _is_zero(each)]
        said = f"; all zero: {listed(zero)}" if zero else ""
        yield Finding(
            code=self.code,
            level="info",
            where=f"all {len(trace.weights)} tensors",
            measured=f"fans are guessed from names and shapes{said}",
            expected="a model and a batch, for all other checks",
            why=reason(self),
            advice="audit the model itself: fanin audit package.module:build --batch package.module:batch",
            at=tuple(zero),
        )


STARTS = {"embedding": "random_normal(0.0, 0.02)", "norm_scale": "ones"} | dict.fromkeys(KERNELS, "he_normal")


def _again(trace: Trace, weights: Weights, init: str = "") -> str:
    """Code that sets one parameter and keeps all others."""
    init = init or STARTS.get(weights.role, "zeros")
    code = initialize(trace, f'fanin.Recipe([({weights.name!r}, "{init}"), ("*", "keep")])')
    return f"import fanin\n{code}" if code else ""
