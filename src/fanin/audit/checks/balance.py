"""Rule 2: zero mean, balanced signs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fanin.audit.findings import Finding, initialize, reason
from fanin.audit.theory import inputs
from fanin.audit.trace import Operation, Trace, Weights


@dataclass(frozen=True)
class Balance:
    """Mean and signs of some weights.

    Attributes
    ----------
    mean, std : float
        Of all entries.
    positive, negative : float
        Share of the entries above and below zero.
    n : int
        Number of entries.
    """

    mean: float
    std: float
    positive: float
    negative: float
    n: int

    @property
    def mean_over_std(self) -> float:
        """The mean in units of the std; infinite for a non-zero constant, 0 for zeros."""
        if self.std == 0.0:
            return math.copysign(math.inf, self.mean) if self.mean else 0.0
        return self.mean / self.std

    @property
    def z(self) -> float:
        """The mean in standard errors, ``mean * sqrt(n) / std``."""
        return self.mean_over_std * math.sqrt(self.n)

    @property
    def surprise(self) -> float:
        """The |z| of a normal law that is as rare as this one is for few entries: Student's, n - 1 degrees.

        Wallace 1959, within 1 %: ``(8 v + 1) / (8 v + 3) sqrt(v ln(1 + z^2 / v))``.
        """
        degrees = max(self.n - 1, 1)
        size = math.sqrt(degrees * math.log1p(self.z**2 / degrees))
        return (8 * degrees + 1) / (8 * degrees + 3) * size


def balance(weights: Sequence[Weights]) -> Balance:
    """Mean and signs of the entries of some tensors together."""
    n = sum(each.values.n for each in weights)
    shares = [each.values.n / n for each in weights]
    means = [each.values.mean for each in weights]
    mean = _together(shares, means)
    about = [each.values.std**2 + (each.values.mean - mean) ** 2 for each in weights]
    positive = _together(shares, [each.positive for each in weights])
    zero = _together(shares, [each.values.zeros for each in weights])
    return Balance(mean, math.sqrt(_together(shares, about)), positive, 1 - positive - zero, n)


def _together(shares: Sequence[float], values: Sequence[float]) -> float:
    if len(set(values)) == 1:  # exactly: a constant has no spread
        return values[0]
    if len(set(values)) == 1:  # exactly: a constant has no spread
        return values[0]
    return math.fsum(share * value for share, value in zip(shares, values, strict=True))


def common_push(trace: Trace, operation: Operation, weights: Weights) -> float:
    r"""Size of what a non-zero mean adds to every unit alike, against the spread of the units.

    .. math:: \frac{|\bar W| \, n_{in} \, |\bar x|}{\operatorname{std}(z)}

    with :math:`\bar W` the mean weight, :math:`\bar x` the mean input and :math:`z` the
    pre-activations. 0 for balanced weights or centred inputs.
    """
    taken = inputs(trace, operation)
    if len(taken) != 1 or weights.fan_in is None:
        return 0.0
    push = abs(weights.values.mean) * weights.fan_in * abs(taken[0].mean)
    broken = taken[0].broken or operation.after.broken
    if push == 0.0:
        return math.nan if broken and weights.values.mean else 0.0
    if broken:
        return math.nan
    return math.inf if operation.after.std == 0.0 else push / operation.after.std


@dataclass(frozen=True)
class Balanced:
    """A common sign pushes all units alike and drowns what tells one example from another.

    Attributes
    ----------
    z : float
        A mean this many standard errors from zero is no accident: for a normal law 6e-5 per tensor,
        0.2 % for the 31 tensors of a 30-layer chain.
    effect : float
        The common push of a non-zero mean, as a share of the spread of the pre-activations. Below a
        tenth it adds less than 1 % to their mean square.
    """

    code: ClassVar[str] = "balance"
    z: float = 4.0
    effect: float = 0.1

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the layer whose non-zero mean weighs most."""
        kernels = [
            (operation, trace[name])
            for operation in trace.operations
            if operation.kind in ("dense", "conv")
            for name in operation.parameters
            if trace[name].role in ("kernel", "head")
        ]
        off = [
            (common_push(trace, operation, weights), weights)
            for operation, weights in kernels
            if balance([weights]).surprise > self.z and not _keeps_angles(weights)
        ]
        # `not <=` so that an overflow (nan) is a finding
        off = [entry for entry in off if not entry[0] <= self.effect]
        if not off:
            return
        off.sort(key=lambda entry: -entry[0] if math.isfinite(entry[0]) else -math.inf)
        effect, worst = off[0]
        found = balance([worst])
        yield Finding(
            code=self.code,
            level="warn",
            where=worst.name
            if len(off) == 1
            else f"{len(off)} of {len(kernels)} layers, most in {worst.name}",
            measured=(
                f"mean {found.mean:.3g}, std {found.std:.3g}; "
                f"{found.positive:.0%} positive, {found.negative:.0%} negative"
            ),
            expected=f"mean within {self.z:g} std / sqrt(n) of zero, as many plus as minus",
            why=reason(self),
            advice="draw from a law that is symmetric about zero",
            at=tuple(weights.name for _, weights in off),
            snippet=initialize(trace, '"glorot_normal"'),
            after=f"mean within {self.z / math.sqrt(found.n):.2g} std of zero",
            weight=effect if math.isfinite(effect) else math.inf,
        )


def _keeps_angles(weights: Weights) -> bool:
    """Whether rows are orthogonal, the identity's for one: nothing drowns in such a product."""
    return weights.orthogonal is not None and weights.orthogonal < 1e-3
