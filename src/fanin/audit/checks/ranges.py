"""Do signals and gradients fit a dtype?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from fanin.audit.findings import Finding, reason
from fanin.audit.trace import Spread, Trace


class Range(NamedTuple):
    """Exponents of two: magnitudes below ``low`` become zero, above ``high`` infinite or cut."""

    low: int
    high: int


# Half the smallest subnormal, and the largest finite magnitude.
RANGES = {
    "float16": Range(-25, 16),
    "bfloat16": Range(-134, 128),
    "float8_e5m2": Range(-17, 16),
    "float8_e4m3fn": Range(-10, 9),
}


@dataclass(frozen=True)
class DtypeRange:
    """A magnitude beyond a dtype's range becomes infinite, one below it zero: the gradient is lost there.

    Attributes
    ----------
    share : float
        Of an operation's values that may fall outside.
    """

    code: ClassVar[str] = "dtype-range"
    share: float = 0.05

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report a dtype that activations or gradients do not fit: its own, or float16 if it were used."""
        own = {weights.dtype for weights in trace.weights}
        for dtype in dict.fromkeys((*(name for name in RANGES if name in own), "float16")):
            for what, found in (
                ("activations", [(op.name, op.after) for op in trace.operations]),
                ("gradients", [(op.name, op.loss_gradient) for op in trace.operations if op.loss_gradient]),
            ):
                yield from self._outside(dtype, dtype in own, what, found)

    def _outside(
        self, dtype: str, own: bool, what: str, found: Sequence[tuple[str, Spread]]
    ) -> Iterable[Finding]:
        low, high = RANGES[dtype]
        shares = [(outside(values, low, high), name, values) for name, values in found]
        off = [entry for entry in shares if entry[0] > self.share]
        if not off:
            return
        share, name, values = max(off, key=lambda entry: entry[0])
        yield Finding(
            code=self.code,
            level="warn" if own else "info",
            where=f"{what} of {len(off)} of {len(found)} operations, most at {name}",
            measured=f"{share:.0%} of them outside {dtype}, root mean square {values.rms:.2g}",
            expected=f"magnitudes in 2^{low} .. 2^{high}",
            why=reason(self),
            advice="scale the loss (a gradient scaler), or use bfloat16"
            if what == "gradients"
            else "bring the signal's size to about 1",
            at=tuple(name for _, name, _ in sorted(off, key=lambda entry: -entry[0])),
            weight=share,
        )


def outside(values: Spread, low: int, high: int) -> float:
    """The share of the magnitudes that are not zero which lie outside 2**low .. 2**high.

    >>> outside(Spread(4, 0.0, 1.0, 1.0, 1.0, 0.0, 0, {-30: 1, 0: 3}), -25, 16)
    0.25
    """
    total = sum(values.magnitudes.values())
    beyond = sum(count for power, count in values.magnitudes.items() if not low <= power < high)
    return beyond / total if total else 0.0
