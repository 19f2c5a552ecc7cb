"""Without data: a sample of every signal's law, carried through the traced graph, tells the factors."""

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add, mul

import numpy as np

from fanin.audit import theory
from fanin.audit.trace import Operation, Signal, Trace
from fanin.calibrate import laws
from fanin.calibrate.engine import Engine
from fanin.calibrate.forward import Outcome, check_finite, factor_for
from fanin.calibrate.laws import Real
from fanin.calibrate.layers import WEIGHTED, Layer, biases_of, kernels_of, layers
from fanin.calibrate.result import Scale
from fanin.calibrate.store import Store
from fanin.errors import CalibrationError


def analytic(engine: Engine, store: Store, *, head: bool = False) -> Outcome:
    r"""Each layer's output gets standard deviation 1, as far as formulas tell: no value of the batch is seen.

    .. math:: \operatorname{Var}(f\, W x + b) = 1, \qquad W \leftarrow f W

    over units and examples, with x carried from independent normal inputs of mean 0 and variance 1 through
    every operation of the trace, and the weights that are there. The law of a signal is a sample of 512: what
    examples share, and lengths that grow apart, are most of a deep narrow network's signal, and one mean and
    variance know neither. Ends of N residual branches get ``1 / N``.

    Not known: correlations of neighbouring inputs, as images have; what attention, recurrent layers, pools
    and normalization do. Of these a run on the batch shows the sizes.

    Parameters
    ----------
    head : bool
        Whether to take the head too.

    References
    ----------
    Bingham and Miikkulainen 2023, arXiv:2109.08958, which carries a mean and a variance. Fans are the layer's
    own (depthwise: of one channel), padding counts its taps, and dropout is as in `fanin.torch.audit`: not
    active.
    """
    trace = engine.trace()
    chosen, left = layers(trace, head=head)
    if not chosen:
        raise CalibrationError("nothing to calibrate: no layer that is not left out")
    after = trace
    # What attention makes of scores depends on their size: the second run has the right one.
    for _ in range(2 if any(operation.kind in SCORED for operation in trace.operations) else 1):
        samples = _Samples(after, store)
        for at in range(len(trace.operations)):
            samples.carry(at, [layer for layer in chosen if layer.at == at])
        after = engine.trace()
    scales = tuple(
        Scale(layer.name, _std(trace, layer), _std(after, layer), layer.share, layer.kernels)
        for layer in chosen
    )
    return Outcome("standard deviation of the output, before its activation", scales, left)


def _std(trace: Trace, layer: Layer) -> float:
    operation = trace.operations[layer.at]
    return (operation.gates[layer.gate] if layer.gate else operation.after).std


class _Samples:
    """A sample of what each operation puts out, as long as another takes it."""

    def __init__(self, trace: Trace, store: Store) -> None:
        self._trace, self._store = trace, store
        self._known: dict[int, Real] = {}
        self._last = {source: at for at, each in enumerate(trace.operations) for source in each.inputs}

    def carry(self, at: int, chosen: Sequence[Layer]) -> None:
        """Scale the layers in an operation to what its input makes of them, and make its output's sample."""
        x = None
        for layer in chosen:
            y = self._product(at, layer.kernels)
            if y is None:  # a kernel of another shape: what the run shows
                y = self._as_run(at)
            check_finite(layer, y)
            b = self._store.beside(layer.biases, y.shape[1])
            f = factor_for(layer, y, b, layer.share)
            self._store.scale(layer.kernels, f)
            x = None if layer.gate else f * y + b
        if x is None:
            x = self._made(at)
        self._known[at] = self._as_run(at) if x is None else x
        self._known = {k: each for k, each in self._known.items() if self._last.get(k, k) > at}

    def _made(self, at: int) -> Real | None:
        """An output by a formula; None where there is none."""
        operation = self._trace.operations[at]
        if operation.kind in WEIGHTED:
            y = self._product(at, kernels_of(self._trace, operation))
            biases = biases_of(self._trace, operation)
            return None if y is None else y + self._store.beside(biases, y.shape[1])
        signals, units = self._inputs(at), operation.after.units
        if operation.kind == "activation" and operation.activation is not None and len(signals) == 1:
            return laws.activated(signals[0], operation.activation)
        if operation.kind in SUMS:
            terms = laws.together([*signals, *self._held(at)], units, self._draws(at))
            return reduce(SUMS[operation.kind], terms) if len(terms) > 1 else None
        if operation.kind == "concat" and sum(x.shape[1] for x in signals) == units:
            return np.concatenate(signals, axis=1)
        return None

    def _inputs(self, at: int) -> list[Real]:
        operation = self._trace.operations[at]
        batch = operation.before.units if operation.before is not None else operation.after.units
        return [
            self._known[source] if source >= 0 else laws.drawn(batch, 0.0, 0.0, 1.0, self._draws(-1))
            for source in operation.inputs
        ]

    def _draws(self, at: int) -> np.random.Generator:
        return np.random.default_rng(at + 1)

    def _held(self, at: int) -> Iterator[Real]:
        """Parameters that are added or multiplied, as they are."""
        units = self._trace.operations[at].after.units
        for name in self._trace.operations[at].parameters:
            values = self._store.values(name).astype(np.float64)
            if values.size in (1, units):
                yield values.reshape(1, -1)
            else:
                yield laws.mixed(values, units, self._draws(at))

    def _product(self, at: int, names: tuple[str, ...]) -> Real | None:
        """An input times a kernel; None where that is no matrix of outputs by inputs."""
        operation, signals = self._trace.operations[at], self._inputs(at)
        rows = [self._store.values(name) for name in names]
        if len(signals) != 1 or not rows or not all(1 < each.ndim < 6 for each in rows):
            return None
        kernel = np.concatenate(rows).astype(np.float64)
        inputs, x = kernel.shape[1], signals[0]
        if inputs != x.shape[1] and not (operation.kind == "conv" and x.shape[1] % inputs == 0):
            if inputs % x.shape[1] == 0:
                x = laws.flattened(x, inputs, units_last=_units_last(_source(self._trace, operation)))
            else:
                x = laws.mixed(x, inputs, self._draws(at))
        taps = kernel[0].size
        share = (self._trace[names[0]].fan_in or taps) / taps * _inside(self._trace, operation)
        return laws.weighted(x, kernel, share, self._draws(at))

    def _as_run(self, at: int) -> Real:
        """Of the sizes that a run shows, as much larger as the inputs are than in it."""
        seen = self._trace.operations[at].after
        grown = math.prod(self._growth(at))
        offset, within = seen.offset * grown, max(0.0, seen.rms**2 - seen.offset**2) * grown**2
        signals = self._inputs(at)
        if len(signals) == 1 and signals[0].shape[1] == seen.units:
            return laws.sized(signals[0], offset, within)
        return laws.drawn(seen.units, seen.mean * grown, offset, within, self._draws(at))

    def _growth(self, at: int) -> Iterator[float]:
        """Of the inputs in whose size the output grows."""
        operation = self._trace.operations[at]
        if operation.kind in ("norm", "embedding", "recurrent", "softmax"):
            return
        # Of attention in its values alone, which come last.
        sources = operation.inputs if operation.kind == "matmul" else operation.inputs[-1:]
        for source in sources:
            size = self._trace.operations[source].after.rms if source >= 0 else 0.0
            if size:
                yield math.sqrt(float(np.mean(self._known[source] ** 2))) / size


SUMS = {"add": add, "multiply": mul}
SCORED = ("attention", "softmax")


def _inside(trace: Trace, operation: Operation) -> float:
    """The share of a convolution's taps that do not lie in its padding."""
    kernels = [trace[name] for name in operation.parameters if trace[name].role in theory.KERNELS]
    signal = _source(trace, operation)
    if operation.kind != "conv" or not kernels or signal is None:
        return 1.0
    axes = kernels[0].axes
    rank = len(operation.after.shape) - 2
    if axes is None or rank < 1 or not len(signal.shape) == len(kernels[0].shape) == rank + 2:
        return 1.0
    taps = [kernels[0].shape[axis] for axis in axes.order(rank + 2)[2:]]
    start = 1 if _units_last(operation.after) else 2
    sizes = zip(
        signal.shape[start : start + rank], operation.after.shape[start : start + rank], taps, strict=True
    )
    return math.prod(_side(n, out, k) for n, out, k in sizes)


def _side(n: int, out: int, taps: int) -> float:
    """Along one side, whose stride and padding the sizes tell: half as many outputs as inputs are padded.

    >>> _side(7, 7, 3), _side(8, 6, 3), _side(8, 3, 3)
    (0.9047619047619048, 1.0, 1.0)
    """
    if out > n + taps - 1:  # transposed: its fans count the stride
        return 1.0
    padded_evenly = out in (n, (n + 1) // 2)
    if not padded_evenly and out in [(n - taps) // stride + 1 for stride in range(1, taps + 1)]:
        return 1.0
    stride = max(1, round(n / out))
    padded = max(0, (out - 1) * stride + taps - n)
    first = -(padded // 2) if stride == 1 else -((padded + 1) // 2)
    places = first + stride * np.arange(out)[:, None] + np.arange(taps)
    return float(np.mean((places >= 0) & (places < n)))


def _units_last(signal: Signal | None) -> bool:
    """Whether channels lie along the last axis rather than after the batch."""
    return signal is not None and len(signal.shape) > 2 and signal.shape[1] != signal.units


def _source(trace: Trace, operation: Operation) -> Signal | None:
    """What was measured at the first input."""
    first = operation.inputs[0] if operation.inputs else -1
    return operation.before if first < 0 else trace.operations[first].after
