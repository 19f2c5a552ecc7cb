"""The loss before the first step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from fanin.audit.findings import Finding, initialize, reason
from fanin.audit.trace import Trace


@dataclass(frozen=True)
class LossAtStart:
    """A network that knows nothing should not be sure: the first steps go to unlearning what was drawn.

    Beside the loss of outputs that are all zero, ln K for K classes. Independent normal outputs of variance v
    cost v / 2 more.

    Attributes
    ----------
    info, warn : float
        The loss as a multiple of that of zero outputs. 1.05 is a share of noise. Three times it is what
        normal outputs of standard deviation 4.3 make of 10 classes; a sound start of thirty ReLU layers of
        256 units, whose output varies by a factor of 2 from seed to seed, reaches 2.5 once in twenty.
    """

    code: ClassVar[str] = "loss-at-start"
    info: float = 1.05
    warn: float = 3.0

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report a loss above that of zero outputs, or one that is not finite."""
        loss, blind = trace.loss, trace.blind_loss
        if loss is None:
            return
        outputs = [trace.operations[at] for at in trace.outputs]
        size = max((operation.after.rms for operation in outputs), default=0.0)
        at = tuple(
            name
            for operation in outputs
            for name in (*(n for n in operation.parameters if trace[n].role in HEADS), operation.name)
        )
        if not math.isfinite(loss):
            level, expected = "fail", "a number"
        elif blind is None or blind <= 0 or not math.isfinite(blind) or loss <= self.info * blind:
            return
        else:
            level = "warn" if loss > self.warn * blind else "info"
            expected = f"{blind:.4g}, that of zero outputs"
        yield Finding(
            code=self.code,
            level="fail" if level == "fail" else "warn" if level == "warn" else "info",
            where="loss",
            measured=f"{loss:.4g}, with outputs of size {size:.3g}",
            expected=expected,
            why=reason(self),
            advice="start the last layer at zero or a tenth of its size; center and scale targets",
            at=at,
            snippet=_snippet(trace),
            after="" if blind is None else f"{blind:.4g}",
            weight=loss / blind if blind and math.isfinite(loss) else math.inf,
        )


HEADS = ("kernel", "head", "embedding")


def _snippet(trace: Trace) -> str:
    rules = 'fanin.Recipe([(fanin.role("head"), "zeros"), ("*", "he_normal")])'
    code = initialize(trace, rules)
    return f"import fanin\n{code}" if code else ""
