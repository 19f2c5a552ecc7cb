"""Methods that look at gradients, of a random normal gradient of the output."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from fanin.audit.trace import Trace
from fanin.calibrate.engine import Engine
from fanin.calibrate.forward import Outcome
from fanin.calibrate.layers import Layer, layers
from fanin.calibrate.result import Scale
from fanin.calibrate.store import Store
from fanin.errors import CalibrationError

RUNS = 10  # at most, as Krähenbühl's
CLOSE = 0.01


def krahenbuhl_between(engine: Engine, store: Store) -> Outcome:
    r"""Krähenbühl's equalization between layers: all kernels get gradients of one relative size.

    .. math:: r_n = \sqrt{\frac{\overline{\partial W_n^2}}{\overline{W_n^2}}}, \qquad
              T = e^{\overline{\ln r}} \cdot s^{1/N}, \qquad W_n \leftarrow W_n \sqrt{r_n / T}

    with s the standard deviation of the output. Biases follow the size of their layer's output. The method is
    for chains: it assumes that a factor in a kernel is one in all later outputs.

    References
    ----------
    Krähenbühl et al. 2016, arXiv:1511.06856, section 3.2; s as in the authors' code.
    """
    trace = engine.trace(gradients=True)
    chosen, left = layers(trace, head=True, normalized=True)
    for operation in trace.operations:
        sum_ = operation.kind in ("add", "multiply", "concat") and len(operation.inputs) > 1
        if operation.kind in ("norm", "recurrent", "attention", "matmul") or sum_:
            raise CalibrationError(
                f"krahenbuhl_between is for plain chains, and {operation.name!r} is of kind {operation.kind}"
            )
    if len(chosen) < 2:
        raise CalibrationError("nothing to calibrate: fewer than two layers with a kernel")
    before = _relative(trace, chosen)
    for _ in range(RUNS):
        ratios = _relative(trace, chosen)
        size = max(trace.operations[at].after.std for at in trace.outputs)
        goal = math.exp(float(np.mean(np.log(ratios)))) * size ** (1 / len(chosen))
        if np.all(abs(np.log(ratios / goal)) <= CLOSE * max(abs(math.log(goal)), CLOSE)):
            break
        passed = 1.0
        for layer, factor in zip(chosen, np.sqrt(ratios / goal), strict=True):
            passed *= float(factor)
            store.scale(layer.kernels, factor)
            if layer.biases:
                store.scale(layer.biases, np.asarray(passed))
        trace = engine.trace(gradients=True)
    after = _relative(trace, chosen)
    goal = math.exp(float(np.mean(np.log(after))))
    return Outcome("gradient of the kernel by its size", _scales(chosen, before, after, goal), left)


def _relative(trace: Trace, chosen: list[Layer]) -> NDArray[np.float64]:
    found = []
    for layer in chosen:
        held = [trace[name] for name in layer.kernels]
        gradient = math.hypot(*(each.gradient.rms for each in held if each.gradient is not None))
        size = math.hypot(*(each.values.rms for each in held))
        if not 0 < gradient < math.inf or not 0 < size < math.inf:
            raise CalibrationError(
                f"{layer.name!r}: its kernel has size {size:.3g} and gradient {gradient:.3g}; both must be "
                f"finite and > 0"
            )
        found.append(gradient / size)
    return np.array(found)


def jacobian(engine: Engine, store: Store, *, target: float = 1.0) -> Outcome:
    r"""Every layer's Jacobian gets ``chi = target``: gradients keep their size from layer to layer.

    .. math:: \chi_l = \frac{\lVert g_{l-1} \rVert^2}{\lVert g_l \rVert^2}, \qquad
              W_l \leftarrow W_l \sqrt{\mathrm{target} / \chi_l}

    with g the gradients of the layers' outputs before their activations. The first layer and the head
    keep their size; so do the ends of residual branches and what lies in them. An activation that is not
    homogeneous changes its slope with its input, so that it takes a few runs, at most ten.

    References
    ----------
    He, Doshi, Gromov 2022, arXiv:2206.13568 (AutoInit); the idea, here with one factor for each kernel.
    """
    trace = engine.trace(gradients=True)
    chosen, left = layers(trace)
    trunk = {at for places in trace.trunks for at in places}
    line = [layer for layer in chosen if layer.at in trunk and not layer.gate]
    left |= {layer.name: "it is on a branch" for layer in chosen if layer not in line}
    if len(line) < 2:
        raise CalibrationError("nothing to calibrate: no two layers that every path passes")
    before = _chi(trace, line)
    for _ in range(RUNS):
        now = _chi(trace, line)
        if np.all(abs(now / target - 1) <= CLOSE):
            break
        for layer, chi in zip(line[1:], now, strict=True):
            store.scale(layer.kernels, np.sqrt(target / chi))
        trace = engine.trace(gradients=True)
    after = _chi(trace, line)
    worst = int(np.argmax(abs(after / target - 1)))
    if abs(after[worst] / target - 1) > 0.1:
        raise CalibrationError(
            f"{line[worst + 1].name!r}: chi is {after[worst]:.3g} after {RUNS} runs, not {target:g}; no "
            f"scale of its kernel may have that chi"
        )
    left[line[0].name] = "the first layer: its size is the input's"
    return Outcome("chi, the squared gain of the gradient", _scales(line[1:], before, after, target), left)


def _chi(trace: Trace, line: list[Layer]) -> NDArray[np.float64]:
    lengths = []
    for layer in line:
        operation = trace.operations[layer.at]
        gradient = operation.backward or operation.loss_gradient
        if gradient is None or not 0 < gradient.rms < math.inf:
            raise CalibrationError(f"{layer.name!r} has no finite gradient > 0")
        lengths.append(gradient.rms**2 * gradient.n)
    return np.array([one / two for one, two in itertools.pairwise(lengths)])


def _scales(
    chosen: list[Layer],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    target: float,
) -> tuple[Scale, ...]:
    rows = zip(chosen, before.tolist(), after.tolist(), strict=True)
    return tuple(Scale(layer.name, one, two, target, layer.kernels) for layer, one, two in rows)
