"""The first step of an optimizer."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from fanin.audit.findings import Finding, Level, reason
from fanin.audit.trace import Trace, Weights

HALF_ULP = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


@dataclass(frozen=True)
class FirstUpdate:
    """A step that is a large part of the weights destroys the start; one below their rounding is lost.

    Attributes
    ----------
    low, high : float
        Root mean square of the first step as a share of the weights': what is usual lies between 1e-4 and
        1e-2, and is only reported.
    warn, fail : float
        Half of the weights, five times them. A warning too is a step below half a unit in the last place of
        the weights' dtype, which changes nothing.
    """

    code: ClassVar[str] = "first-update"
    low: float = 1e-4
    high: float = 1e-2
    warn: float = 0.5
    fail: float = 5.0

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report kernels whose first step is too large or too small for them, each way together."""
        moved = [
            (weights.update, weights)
            for weights in trace.weights
            if weights.role in ("kernel", "recurrent_kernel", "head") and weights.update
        ]
        lost = [entry for entry in moved if entry[0] < HALF_ULP.get(entry[1].dtype, 0)]
        large = sorted((entry for entry in moved if entry[0] > self.warn), key=lambda entry: -entry[0])
        if lost:
            yield self._finding(
                trace, "warn", "is lost in rounding", lost, "a larger rate, or float32 weights"
            )
        if large:
            level: Level = "fail" if large[0][0] > self.fail else "warn"
            yield self._finding(
                trace, level, "is a large part of the weights", large, "a smaller rate, or warm-up"
            )
        usual = [entry for entry in moved if entry not in lost and entry not in large]
        for entries, what, advice in (
            ([entry for entry in usual if entry[0] > self.high], "is large", "warm-up"),
            ([entry for entry in usual if entry[0] < self.low], "is small", "a larger rate"),
        ):
            if len(entries) > len(moved) / 2:
                yield self._finding(trace, "info", what, entries, advice)

    def _finding(
        self, trace: Trace, level: Level, what: str, entries: list[tuple[float, Weights]], advice: str
    ) -> Finding:
        shares = [share for share, _ in entries]
        return Finding(
            code=self.code,
            level=level,
            where=f"{len(entries)} kernels, first {entries[0][1].name}",
            measured=f"the first step of {trace.optimizer or 'the optimizer'} {what}: "
            f"{statistics.median(shares):.1g} of it",
            expected=f"{self.low:.0e} to {self.high:.0e}",
            why=reason(self),
            advice=f"use {advice}",
            at=tuple(weights.name for _, weights in entries),
            weight=max(shares) if level != "info" else 0.0,
        )
