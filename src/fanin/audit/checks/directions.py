"""Are inputs still told apart?"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from fanin.audit import lines, repair
from fanin.audit.findings import Finding, Level, initialize, reason
from fanin.audit.trace import Signal, Trace


@dataclass(frozen=True)
class Distinguishability:
    """When all inputs point one way inside the network, outputs and gradients cannot tell them apart.

    ReLU layers draw inputs together even where every size is kept: orthogonal ones have a cosine of 0.97
    after 30 layers, 0.996 after 100.

    Attributes
    ----------
    info, warn, fail : float
        Mean cosine between two rows, where that of the inputs is lower. 0.995 is what 90 ReLU layers make of
        orthogonal inputs; at 0.9999 one part in 10000 of a signal's energy is left to tell inputs apart.
    share : float
        Of the distance between inputs, ``1 - cosine``, what may be left for a warning.
    """

    code: ClassVar[str] = "distinguishability"
    info: float = 0.95
    warn: float = 0.995
    fail: float = 0.9999
    share: float = 0.01

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report lines at whose end rows are nearly parallel."""
        for trunk in trace.trunks:
            places = [
                at
                for at in lines.before_head(trace, trunk)
                if trace.operations[at].kind in lines.PLACES and trace.operations[at].after.cosine is not None
            ]
            first = _first(trace, places)
            if len(places) < 2 or first is None or first.cosine is None or first.cosine > self.info:
                continue
            last = trace.operations[places[-1]]
            cosine = last.after.cosine or 0.0
            if cosine <= self.info:
                continue
            left = (1 - cosine) / (1 - first.cosine)
            level: Level = "fail" if cosine > self.fail else "warn" if cosine > self.warn else "info"
            phi = repair.activation(trace, places)
            yield Finding(
                code=self.code,
                level="info" if left > self.share else level,
                where=f"{len(places)} layers, up to {last.name}",
                measured=f"mean cosine {cosine:.4g}, {last.after.rank or 1:.2g} directions of "
                f"{last.after.rows} rows",
                expected=f"as at the start: {first.cosine:.2g}",
                why=reason(self),
                advice="use fewer layers, skips, or norms; for tanh and its kin a variance at the critical "
                "point (fanin.critical); orthogonal or looks_linear for ReLU",
                at=(last.name,),
                snippet=initialize(trace, '"looks_linear"' if phi == "relu" else '"orthogonal"'),
                weight=cosine,
            )


def _first(trace: Trace, places: list[int]) -> Signal | None:
    if not places:
        return None
    taken = trace.operations[places[0]]
    if taken.before is not None:
        return taken.before
    return trace.batch[0] if trace.batch and -1 in taken.inputs else taken.after
