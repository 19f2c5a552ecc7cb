"""Units that do nothing: dead, saturated, or never anything but linear."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fanin.audit import repair
from fanin.audit.findings import Finding, initialize, reason
from fanin.audit.measure import STEEP
from fanin.audit.theory import inputs
from fanin.audit.trace import Operation, Trace

ERRORS = 5.0  # standard errors that a share of units may be off
GATES = {"input_gate": "sigmoid", "forget_gate": "sigmoid", "output_gate": "sigmoid"} | {
    "reset_gate": "sigmoid",
    "update_gate": "sigmoid",
    "cell_gate": "tanh",
    "new_gate": "tanh",
}


def _over_half(units: int) -> float:
    """Half, and what a sample of so many units may be above it."""
    return 0.5 + ERRORS * math.sqrt(0.25 / max(units, 1))


def _where(off: Sequence[Operation], worst: Operation) -> str:
    return worst.name if len(off) == 1 else f"{len(off)} places, most at {worst.name}"


def _at(trace: Trace, off: Sequence[Operation], worst: Operation) -> tuple[str, ...]:
    """The operations, the worst first, each with the parameters of what feeds it."""
    return tuple(
        name
        for operation in (worst, *(other for other in off if other is not worst))
        for name in (operation.name, *_fed_by(trace, operation))
    )


def _fed_by(trace: Trace, operation: Operation) -> tuple[str, ...]:
    return tuple(name for at in operation.inputs if at >= 0 for name in trace.operations[at].parameters)


@dataclass(frozen=True)
class DeadUnits:
    """A unit that is zero for every input passes no gradient: it never comes to life.

    Weights without a mean leave a rectifier's unit dead on one input with probability 1/2, and so at most
    half of the units on a batch, however alike its examples are.

    Attributes
    ----------
    fail : float
        Share of the units of a layer. Beyond half, and 5 standard errors, it is a warning.
    """

    code: ClassVar[str] = "dead-units"
    fail: float = 0.9

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the activations after which more than half of the units are dead."""
        off = [
            operation
            for operation in trace.operations
            if operation.kind == "activation"
            and operation.after.dead > min(_over_half(operation.after.units), self.fail)
            and any(values.rms > 0 for values in inputs(trace, operation))  # else nothing arrives
        ]
        if not off:
            return
        worst = max(off, key=lambda operation: operation.after.dead)
        yield Finding(
            code=self.code,
            level="fail" if worst.after.dead >= self.fail else "warn",
            where=_where(off, worst),
            measured=f"{worst.after.dead:.0%} of {worst.after.units} units are zero for the whole batch",
            expected="at most half",
            why=reason(self),
            advice="start biases at zero and draw weights that are symmetric about zero",
            at=_at(trace, off, worst),
            snippet=initialize(trace, f'"{repair.recipe(worst.activation)}"'),
            after="at most 50% dead",
            weight=worst.after.dead,
        )


@dataclass(frozen=True)
class SaturatedUnits:
    """Where an activation is flat its slope is nearly zero, and no gradient passes.

    Of unit normal inputs 3 % are in tanh's flat part (slope below a twentieth of the largest); of recurrent
    gates next to none.

    Attributes
    ----------
    warn, fail : float
        Share of the values. A quarter of tanh's is what inputs of standard deviation 1.9 make.
    gates : float
        Of a recurrent gate, for a warning: biases may keep a gate open on purpose, but not most of it.
    softmax : float
        Share of a softmax's rows in which one entry takes over 95 %.
    """

    code: ClassVar[str] = "saturated-units"
    warn: float = 0.25
    fail: float = 0.9
    gates: float = 0.5
    softmax: float = 0.5

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report activations, softmaxes, and gates with many flat values, each kind together."""
        flat = [
            operation
            for operation in trace.operations
            if operation.saturated is not None and operation.saturated > self._limit(operation)
        ]
        for off in ([o for o in flat if not _peaked(o)], [o for o in flat if _peaked(o)]):
            if off:
                worst = max(off, key=lambda operation: operation.saturated or 0)
                what = "rows have one entry over 95 %" if _peaked(worst) else "values lie where it is flat"
                at = _at(trace, off, worst)
                yield self._finding(trace, _where(off, worst), worst.saturated or 0.0, what, at)
        for operation in trace.operations:
            for gate, share in _flat_gates(operation):
                if share > self.gates:
                    held = tuple(name for name in operation.parameters if gate in name)
                    at = (*held, operation.name)
                    where = f"{operation.name}, {gate}"
                    yield self._finding(trace, where, share, "values lie where it is flat", at)

    def _limit(self, operation: Operation) -> float:
        return self.softmax if _peaked(operation) else self.warn

    def _finding(self, trace: Trace, where: str, share: float, what: str, at: tuple[str, ...]) -> Finding:
        return Finding(
            code=self.code,
            level="fail" if share > self.fail else "warn",
            where=where,
            measured=f"{share:.0%} of {what}",
            expected=f"at most {self.warn:.0%}",
            why=reason(self),
            advice="use a smaller std (glorot_normal), and biases near zero",
            at=at,
            snippet=initialize(trace, '"glorot_normal"'),
            after="about 3% of tanh's values, none of sigmoid's",
            weight=share,
        )


def _peaked(operation: Operation) -> bool:
    return operation.kind in ("softmax", "attention")


def _flat_gates(operation: Operation) -> Iterator[tuple[str, float]]:
    """Each gate's share of flat values, of a normal law with the moments that were measured."""
    for gate, before in operation.gates.items():
        low, high = STEEP[GATES.get(gate.rpartition(".")[2], "sigmoid")]
        if before.std == 0:
            yield gate, float(not low <= before.mean <= high)
        else:
            below, above = (before.mean - low) / before.std, (high - before.mean) / before.std
            yield gate, (math.erfc(below / math.sqrt(2)) + math.erfc(above / math.sqrt(2))) / 2


@dataclass(frozen=True)
class LinearUnits:
    """A rectifier that only ever sees positive inputs is no nonlinearity: the layer is linear.

    Weights and inputs without a common sign leave at most half of the units so on a batch.
    """

    code: ClassVar[str] = "linear-units"

    def run(self, trace: Trace) -> Iterable[Finding]:
        """Report the rectifiers with more than half such units."""
        off = [
            operation
            for operation in trace.operations
            if operation.linear is not None and operation.linear > _over_half(operation.after.units)
        ]
        if not off:
            return
        worst = max(off, key=lambda operation: operation.linear or 0)
        yield Finding(
            code=self.code,
            level="info",
            where=_where(off, worst),
            measured=f"{worst.linear:.0%} of {worst.after.units} units are positive for the whole batch",
            expected="at most half",
            why=reason(self),
            advice="start biases at zero and draw weights that are symmetric about zero",
            at=_at(trace, off, worst),
            weight=worst.linear or 0.0,
        )
