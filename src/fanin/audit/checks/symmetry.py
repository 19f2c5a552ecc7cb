"""Rule 1: never all equal."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from fanin.audit.findings import Finding, initialize, reason
from fanin.audit.trace import Trace, Weights

KERNELS = ("kernel", "recurrent_kernel", "head", "embedding")


def effective_widths(trace: Trace) -> tuple[int, ...]:
    """Number of distinct units of each hidden layer."""
    return tuple(weights.effective_width for weights in trace.weights if weights.role == "kernel")


@dataclass(frozen=True)
class Symmetry:
    """Units that start equal stay equal: their gradients are the same at every step.

    A unit repeats another when its values and its gradients, now and after a step, are equal; what has equal
    values but other gradients (a zero head, the last layer of a Fixup branch, LoRA's B) comes apart.
    """

    code: ClassVar[str] = "symmetry"

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the kernels with units that repeat others, the smallest share of distinct ones first."""
        kernels = [weights for weights in trace.weights if weights.role in KERNELS]
        tied = [weights for weights in kernels if weights.tied]
        if not tied:
            return
        worst = min(tied, key=lambda weights: weights.effective_width / weights.units)
        distinct, width = worst.effective_width, worst.units
        yield Finding(
            code=self.code,
            level="fail",
            where=_where(tied, kernels, worst),
            measured=f"{distinct} distinct {'unit' if distinct == 1 else 'units'} of {width}",
            expected=f"{width} distinct units",
            why=reason(self),
            advice="draw the weights at random, or use orthogonal or identity",
            at=tuple(weights.name for weights in (worst, *(other for other in tied if other is not worst))),
            snippet=initialize(trace, '"he_normal"'),
            after=f"{width} distinct units of {width}",
            weight=1 - distinct / width,
        )


def _where(tied: list[Weights], kernels: list[Weights], worst: Weights) -> str:
    if len(tied) == 1:
        return worst.name
    return f"{len(tied)} of {len(kernels)} layers, first {worst.name}"
