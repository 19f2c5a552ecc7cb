"""Without data: mean and variance of every signal, carried through the traced graph, tell the factors."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fanin.audit import theory
from fanin.audit.trace import Operation, Trace
from fanin.calibrate.engine import Engine
from fanin.calibrate.forward import Outcome
from fanin.calibrate.layers import Layer, layers
from fanin.calibrate.result import Scale
from fanin.calibrate.store import Store
from fanin.errors import CalibrationError


class Moments(NamedTuple):
    """Mean and variance of a signal's elements."""

    mean: float
    variance: float

    @property
    def square(self) -> float:
        return self.mean**2 + self.variance


def analytic(engine: Engine, store: Store, *, head: bool = False) -> Outcome:
    r"""Each layer's output gets variance 1, as far as moments tell: no value of the batch is looked at.

    .. math:: W \leftarrow f W, \qquad
              f^2\, \mathrm{fan\_in}\, \overline{w^2}\, (\nu + \mu^2)\, v + \overline{b^2} = 1

    with mean mu and variance nu of the input, carried from a batch of mean 0 and variance 1 through every
    operation of the trace, and v the share of a convolution's taps that lie inside. Ends of N residual
    branches get ``1 / N``. Weights are taken as independent of their inputs and without a mean,
    pre-activations as normal, terms of a sum as independent. Where no formula is known (attention, recurrent
    layers, pools over neighbours that are alike) the factor that a run on the batch shows is taken.

    Parameters
    ----------
    head : bool
        Whether to take the head too.

    References
    ----------
    Bingham and Miikkulainen 2023, arXiv:2109.08958. Fans are the layer's own (depthwise: of one channel),
    padding counts its taps, and dropout is as in `fanin.torch.audit`: not active.
    """
    trace = engine.trace()
    chosen, left = layers(trace, head=head)
    wanted = {layer.at: layer for layer in chosen if not layer.gate}
    left |= {layer.name: "a gate: no formula" for layer in chosen if layer.gate}
    if not wanted:
        raise CalibrationError("nothing to calibrate: no layer that is not left out")
    found: list[Moments] = []
    goals: dict[int, float] = {}
    for at, operation in enumerate(trace.operations):
        moments = _after(trace, operation, found)
        layer = wanted.get(at)
        if layer is not None:
            goals[at] = layer.share
            store.scale(layer.kernels, np.asarray(_needed(trace, operation, layer, found)))
            moments = Moments(0.0, layer.share**2)
        found.append(moments)
    after = engine.trace()
    scales = []
    for at, layer in wanted.items():
        measured, now = (run.operations[at].after.std for run in (trace, after))
        scales.append(Scale(layer.name, measured, now, goals[at], layer.kernels))
    return Outcome("standard deviation of the output, before its activation", tuple(scales), left)


def _needed(trace: Trace, operation: Operation, layer: Layer, found: Sequence[Moments]) -> float:
    alone = _product(trace, operation, _inputs(operation, found))
    bias = _bias(trace, layer.biases)
    if alone is None or alone <= 0:
        raise CalibrationError(f"{layer.name!r} is dead: its kernel or its input is zero")
    if bias >= layer.share**2:
        raise CalibrationError(
            f"{layer.name!r}: its bias alone has size {math.sqrt(bias):.3g}, and the output is to have "
            f"{layer.share:.3g}; start with smaller biases"
        )
    return math.sqrt((layer.share**2 - bias) / alone)


def _product(trace: Trace, operation: Operation, before: Sequence[Moments]) -> float | None:
    """The variance of an input times a kernel; None where the kernel has no fans."""
    held = [trace[name] for name in operation.parameters if trace[name].weight_variance is not None]
    held = [each for each in held if each.role in theory.KERNELS or len(each.shape) > 1]
    if len(before) != 1 or not held:
        return None
    units = sum(each.values.n / (each.fan_in or 1) for each in held)
    variance = sum((each.weight_variance or 0) * each.values.n / (each.fan_in or 1) for each in held) / units
    return variance * before[0].square * _inside(trace, operation)


def _inside(trace: Trace, operation: Operation) -> float:
    """The share of a convolution's taps that do not lie in its padding."""
    kernels = [trace[name] for name in operation.parameters if trace[name].role in theory.KERNELS]
    source = operation.inputs[0]
    signal = operation.before if source < 0 else trace.operations[source].after
    if operation.kind != "conv" or not kernels or signal is None:
        return 1.0
    axes = kernels[0].axes
    rank = len(operation.after.shape) - 2
    if axes is None or rank < 1 or not len(signal.shape) == len(kernels[0].shape) == rank + 2:
        return 1.0
    taps = [kernels[0].shape[axis] for axis in axes.order(rank + 2)[2:]]
    channels_last = operation.after.shape[-1] == operation.after.units
    start = 1 if channels_last and operation.after.shape[1] != operation.after.units else 2
    sizes = zip(
        signal.shape[start : start + rank], operation.after.shape[start : start + rank], taps, strict=True
    )
    return math.prod(_side(n, out, k) for n, out, k in sizes)


def _side(n: int, out: int, taps: int) -> float:
    """Along one side: outputs ``stride`` apart, padded evenly by as much as their number tells.

    >>> _side(7, 7, 3), _side(8, 6, 3)
    (0.9047619047619048, 1.0)
    """
    if out > n + taps - 1:  # transposed: its fans count the stride
        return 1.0
    stride = max(1, round(n / out))
    padded = max(0, (out - 1) * stride + taps - n)
    first = -(padded // 2) if stride == 1 else -((padded + 1) // 2)
    places = first + stride * np.arange(out)[:, None] + np.arange(taps)
    return float(np.mean((places >= 0) & (places < n)))


def _bias(trace: Trace, biases: Sequence[str]) -> float:
    held = [trace[name].values for name in biases]
    n = sum(values.n for values in held)
    return sum(values.n * values.rms**2 for values in held) / n if n else 0.0


def _inputs(operation: Operation, found: Sequence[Moments]) -> list[Moments]:
    return [Moments(0.0, 1.0) if at < 0 else found[at] for at in operation.inputs]


# --- one operation -------------------------------------------------------------------------------


def _after(trace: Trace, operation: Operation, found: Sequence[Moments]) -> Moments:
    """The moments of an output, by its kind; by the run's own factor where there is no formula."""
    before = _inputs(operation, found)
    if operation.kind in ("embedding", "norm") or not before:
        return Moments(operation.after.mean, operation.after.std**2)
    rule = RULES.get(operation.kind)
    moments = None if rule is None else rule(trace, operation, before)
    return _as_run(trace, operation, before) if moments is None else moments


def _weighted(trace: Trace, operation: Operation, before: Sequence[Moments]) -> Moments | None:
    alone = _product(trace, operation, before)
    bias = [name for name in operation.parameters if trace[name].role in theory.BIASES]
    return None if alone is None else Moments(0.0, alone + _bias(trace, bias))


def _activated(trace: Trace, operation: Operation, before: Sequence[Moments]) -> Moments | None:
    if operation.activation is None or len(before) != 1:
        return None
    found = theory.moments(operation.activation, before[0].mean, math.sqrt(before[0].variance))
    return None if found is None else Moments(found[0], max(0.0, found[1] - found[0] ** 2))


def _added(trace: Trace, operation: Operation, before: Sequence[Moments]) -> Moments:
    terms = [*before, *_held(trace, operation)]
    return Moments(sum(term.mean for term in terms), sum(term.variance for term in terms))


def _multiplied(trace: Trace, operation: Operation, before: Sequence[Moments]) -> Moments | None:
    factors = [*before, *_held(trace, operation)]
    if len(factors) < 2:  # by a number, which the run shows
        return None
    mean = math.prod(factor.mean for factor in factors)
    return Moments(mean, math.prod(factor.square for factor in factors) - mean**2)


def _joined(trace: Trace, operation: Operation, before: Sequence[Moments]) -> Moments | None:
    if any(at < 0 for at in operation.inputs):
        return None
    sizes = [trace.operations[at].after.n for at in operation.inputs]
    mean = sum(n * part.mean for n, part in zip(sizes, before, strict=True)) / sum(sizes)
    square = sum(n * part.square for n, part in zip(sizes, before, strict=True)) / sum(sizes)
    return Moments(mean, square - mean**2)


def _held(trace: Trace, operation: Operation) -> list[Moments]:
    held = [trace[name].values for name in operation.parameters]
    return [Moments(values.mean, values.std**2) for values in held]


RULES: dict[str, Callable[[Trace, Operation, Sequence[Moments]], Moments | None]] = {
    "dense": _weighted,
    "conv": _weighted,
    "activation": _activated,
    "add": _added,
    "multiply": _multiplied,
    "concat": _joined,
}


def _as_run(trace: Trace, operation: Operation, before: Sequence[Moments]) -> Moments:
    """The measured output, times what the first input's size is to what it was in that run."""
    source = operation.inputs[0]
    signal = operation.before if source < 0 else trace.operations[source].after
    if operation.kind in ("recurrent", "softmax") or signal is None or signal.rms == 0:
        return Moments(operation.after.mean, operation.after.std**2)
    factor = math.sqrt(before[0].square) / signal.rms
    return Moments(operation.after.mean * factor, (operation.after.std * factor) ** 2)
