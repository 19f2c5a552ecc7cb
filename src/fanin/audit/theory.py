"""What mean-field theory expects of each operation, given what was measured at its input.

One step at a time, so that a row that disagrees by more than a tenth is the place where an assumption fails:
weights without a mean, independent of their inputs, and pre-activations that are normal.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fanin.audit.trace import Operation, Signal, Spread, Trace
from fanin.errors import UnknownNameError
from fanin.gains import sampled
from fanin.pieces import REACH, density, on_panels

AGREES = 0.1  # of the measured value


def predicted(trace: Trace) -> tuple[float | None, ...]:
    """The root mean square that theory expects after each operation; None where it says nothing.

    ======================  ================================================================
    dense, conv             ``sqrt(fan_in E w**2 E x**2 + E b**2)``
    embedding, norm         root mean square of the table; of scale, with the bias
    activation              ``sqrt(E phi(m + s z)**2)``, z normal, m and s those of its input
    add                     ``sqrt(sum E x**2 + 2 sum m m')``: independent terms
    multiply                the product: independent factors
    matmul                  ``sqrt(n E x**2 E y**2)``: n terms without a mean
    concat                  of all together
    dropout                 as before
    ======================  ================================================================
    """
    return tuple(_predicted(trace, operation) for operation in trace.operations)


def inputs(trace: Trace, operation: Operation) -> tuple[Spread, ...]:
    """What was measured at an operation's inputs."""
    first = [operation.before] if operation.before is not None else list(trace.batch[:1])
    before = first if operation.before is not None or -1 in operation.inputs else []
    return (*before, *(trace.operations[at].after for at in operation.inputs if at >= 0))


def _predicted(trace: Trace, operation: Operation) -> float | None:
    rule = RULES.get(operation.kind)
    if rule is None or operation.after.broken:
        return None
    taken = inputs(trace, operation)
    found = rule(trace, operation, taken)
    return found if found is None or math.isfinite(found) else None


def _dense(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    held = [trace[name] for name in operation.parameters]
    kernels = [w for w in held if w.role in KERNELS and w.weight_variance is not None]
    if len(taken) != 1 or not kernels:
        return None
    # Several kernels lie side by side: packed projections.
    outputs = sum(w.values.n / (w.fan_in or 1) for w in kernels)
    variance = sum((w.weight_variance or 0) * w.values.n / (w.fan_in or 1) for w in kernels) / outputs
    return math.sqrt(variance * taken[0].rms ** 2 + _square(trace, operation, BIASES))


def _table(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    return math.sqrt(_square(trace, operation, ("embedding",))) or None


def _norm(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    roles = {trace[name].role for name in operation.parameters}
    scale = _square(trace, operation, ("norm_scale",)) if "norm_scale" in roles else 1.0
    for name in operation.parameters:
        if trace[name].role == "norm_offset":
            values = trace[name].values
            scale = (1 + values.mean) ** 2 + values.std**2
    return math.sqrt(scale + _square(trace, operation, BIASES))


def _activation(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    if len(taken) != 1 or operation.activation is None:
        return None
    return activated(operation.activation, taken[0].mean, taken[0].std)


def activated(activation: str, mean: float, std: float) -> float | None:
    """``sqrt(E phi(mean + std z)**2)`` of a standard normal z; None of an activation without a formula.

    Examples
    --------
    >>> round(activated("relu", 0.0, 2.0) ** 2, 10), activated("mine", 0.0, 1.0)
    (2.0, None)
    """
    found = moments(activation, mean, std)
    return None if found is None else math.sqrt(found[1])


def moments(activation: str, mean: float, std: float) -> tuple[float, float] | None:
    """``E phi`` and ``E phi**2`` at ``mean + std z``; None of an activation without a formula.

    Examples
    --------
    >>> round(moments("relu", 0.0, 1.0)[0] ** 2 * 2 * math.pi, 10)
    1.0
    """
    try:
        phi = sampled(activation)
    except UnknownNameError:
        return None
    if std == 0:
        value = float(phi(np.array([mean]))[0])
        return value, value * value
    pieces = phi.pieces((abs(mean) / REACH + std) ** 2)
    kinks = (pieces.ends - mean) / std
    z, weights = on_panels(np.union1d(kinks[abs(kinks) < REACH], np.linspace(-REACH, REACH, 7)))
    values = pieces(mean + std * z)
    weights = weights * density(z)
    return float(np.sum(weights * values)), float(np.sum(weights * values**2))


def _add(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    terms = [*taken, *(trace[name].values for name in operation.parameters)]
    if not terms:
        return None
    total = sum(term.mean for term in terms)
    return math.sqrt(total * total + sum(term.std**2 for term in terms))


def _multiply(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    factors = [*taken, *(trace[name].values for name in operation.parameters)]
    return math.prod(factor.rms for factor in factors) if len(factors) > 1 else None


def _matmul(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    if len(taken) != 2 or not isinstance(taken[0], Signal) or not taken[0].shape:
        return None
    return math.sqrt(taken[0].shape[-1]) * taken[0].rms * taken[1].rms


def _concat(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    n = sum(part.n for part in taken)
    return math.sqrt(sum(part.n / n * part.rms**2 for part in taken)) if n else None


def _same(trace: Trace, operation: Operation, taken: Sequence[Spread]) -> float | None:
    return taken[0].rms if len(taken) == 1 else None


def _square(trace: Trace, operation: Operation, roles: Sequence[str]) -> float:
    """Mean square of what the parameters of these roles add."""
    held = [trace[name].values for name in operation.parameters if trace[name].role in roles]
    n = sum(values.n for values in held)
    return sum(values.n / n * values.rms**2 for values in held) if n else 0.0


KERNELS = ("kernel", "recurrent_kernel", "head")
BIASES = ("bias", "gate_bias", "recurrent_bias", "norm_bias")
RULES: dict[str, Callable[[Trace, Operation, Sequence[Spread]], float | None]] = {
    "dense": _dense,
    "conv": _dense,
    "embedding": _table,
    "norm": _norm,
    "activation": _activation,
    "add": _add,
    "multiply": _multiply,
    "matmul": _matmul,
    "concat": _concat,
    "dropout": _same,
}
