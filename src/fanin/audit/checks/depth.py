"""What theory says of depth, and what the Jacobian's spectrum shows."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fanin import meanfield
from fanin.audit import lines, repair
from fanin.audit.findings import Finding, initialize, reason
from fanin.audit.trace import Trace
from fanin.errors import FaninError


@dataclass(frozen=True)
class DepthScale:
    """Through layers of these variances two signals become alike, or apart, within a depth scale xi.

    About 6 xi layers train (Schoenholz et al. 2017); at a critical point xi has no end. What was measured
    counts: this is the theory that explains it.

    Attributes
    ----------
    scales : float
        Depth scales after which nothing is left.
    """

    code: ClassVar[str] = "depth-scale"
    scales: float = 6.0

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report plain chains deeper than their depth scale allows."""
        for trunk in trace.trunks[:1]:
            inside = lines.before_head(trace, trunk)
            kinds = {trace.operations[at].kind for at in inside}
            layers = [at for at in inside if trace.operations[at].kind in ("dense", "conv")]
            if kinds & {"norm", "add", "recurrent", "attention"} or len(layers) < 2:
                continue
            phi, variance = repair.activation(trace, layers), repair.weight_variance(trace, layers)
            if phi is None or not variance or not math.isfinite(variance):
                continue
            bias = _bias_variance(trace, layers)
            try:
                scale = meanfield.depth_scale(phi, variance, bias)
            except FaninError:  # an activation or a variance that theory has no word for
                continue
            if scale is None or len(layers) <= self.scales * scale.xi_c:
                continue
            yield Finding(
                code=self.code,
                level="info",
                where=f"{len(layers)} layers, {trace.operations[layers[0]].name} to "
                f"{trace.operations[layers[-1]].name}",
                measured=f"{phi}, sigma_w^2 {variance:.3g}, sigma_b^2 {bias:.3g}: xi {scale.xi_c:.3g}",
                expected=f"at most {self.scales:g} xi = {self.scales * scale.xi_c:.3g} layers",
                why=reason(self),
                advice=_critical(phi, bias),
                at=tuple(name for at in layers for name in trace.operations[at].parameters),
                snippet=initialize(trace, f'"{repair.recipe(phi)}"'),
                weight=len(layers) / scale.xi_c,
            )


def _bias_variance(trace: Trace, layers: Sequence[int]) -> float:
    found = [
        trace[name].values.rms ** 2
        for at in layers
        for name in trace.operations[at].parameters
        if trace[name].role == "bias"
    ]
    return statistics.median(found) if found else 0.0


def _critical(phi: str, bias: float) -> str:
    point = meanfield.critical(phi, bias_variance=bias)
    if point is None:
        return f"use norms or skips: {phi} has no critical point with this bias"
    return f"use the critical variance: sigma_w^2 = {point.weight_variance:.4g} for sigma_b^2 = {bias:.3g}"


@dataclass(frozen=True)
class Isometry:
    """Where the Jacobian stretches some directions far more than others, one rate cannot serve all.

    Orthogonal layers with a nearly linear activation have all singular values near one; the product of L
    normal square ones has a few large, and most near zero (Saxe et al. 2014).

    Attributes
    ----------
    spread : float
        Largest over median singular value.
    """

    code: ClassVar[str] = "isometry"
    spread: float = 100.0

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the spectrum, when it was asked for and is wide."""
        values = trace.singular_values
        if len(values) < 2:
            return
        middle = statistics.median(values)
        if values[0] <= self.spread * middle:
            return
        energy = sum(value**2 for value in values) / len(values)
        yield Finding(
            code=self.code,
            level="info",
            where="Jacobian of the output by the input",
            measured=f"largest singular value {values[0]:.3g}, median {middle:.3g}, mean square {energy:.3g}",
            expected=f"largest at most {self.spread:g} times the median",
            why=reason(self),
            advice="use orthogonal with the activation's gain, or looks_linear for ReLU",
            snippet=initialize(trace, '"orthogonal"'),
            weight=values[0] / middle if middle else math.inf,
        )
