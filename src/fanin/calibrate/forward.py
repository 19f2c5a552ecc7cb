"""Methods that look at what layers put out: LSUV, weight normalization's, Krähenbühl's within layers.

A layer's output is ``y + b`` with ``y`` proportional to its kernel, so the right factor is exact: one run
calibrates a whole network, each layer on inputs that are already calibrated.
"""

import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanin._types import Array
from fanin.audit.trace import Trace
from fanin.calibrate.directions import Find, finder, redirect
from fanin.calibrate.engine import Correction, Engine, Seen
from fanin.calibrate.layers import Layer, layers
from fanin.calibrate.result import Scale
from fanin.calibrate.store import Store
from fanin.errors import ArgumentError, CalibrationError

DEAD = 1e-6  # of the largest of a layer's units; of what its weights would make of a unit input
TINY = 1e-18  # below this, squares leave float32
EPSILON = 1e-10  # Salimans and Kingma's, under the root

Real = NDArray[np.float64]


class Outcome(NamedTuple):
    """What a method found and did; its changes are in the store."""

    measure: str
    scales: tuple[Scale, ...]
    left_out: Mapping[str, str]


def lsuv(
    engine: Engine,
    store: Store,
    *,
    target: float | Mapping[str, float] = 1.0,
    per_channel: bool = False,
    head: bool = False,
) -> Outcome:
    r"""Layer-sequential unit variance: each layer's output gets the standard deviation `target`.

    .. math:: W \leftarrow f W, \qquad \operatorname{Var}(f y + b) = \mathrm{target}^2

    Parameters
    ----------
    target : float or mapping
        Standard deviation of what a layer puts out, before its activation: one for all, or by patterns of
        layers' names (``{"*": 1.0, "blocks.*.fc2": 0.1}``, the last that fits counts). At the ends of N
        residual branches it is divided by ``sqrt(N)``, the ``sqrt(2 L)`` of L blocks of two, so that the
        stream grows by one target in all.
    per_channel : bool
        One factor for each output unit rather than for each layer.
    head : bool
        Whether to take the head too.

    References
    ----------
    Mishkin and Matas 2016, arXiv:1511.06422, algorithm 1. Its loop guards against other batches; here the
    batch is one, and the factor is solved for, bias included. Orthonormal weights are the recipe's to choose.
    """
    targets = _targets(target)

    def goal(layer: Layer) -> float:
        return targets(layer.name) * layer.share

    def factors(layer: Layer, y: Real, b: Real) -> tuple[Real, Real | None]:
        return (_unit_factors if per_channel else factor_for)(layer, y, b, goal(layer)), None

    return _sequential(engine, store, factors, goal, head, per_channel)


def weight_norm(engine: Engine, store: Store, *, head: bool = True) -> Outcome:
    r"""Weight normalization's start: each unit's output gets mean 0 and variance 1 over the batch.

    .. math:: W_k \leftarrow W_k / s_k, \quad b_k \leftarrow (b_k - m_k) / s_k, \qquad
              s_k = \sqrt{\operatorname{Var}_k + 10^{-10}}

    A layer without biases is scaled alone, and keeps its means.

    Parameters
    ----------
    head : bool
        Whether to take the head too, as the paper does.

    References
    ----------
    Salimans and Kingma 2016, arXiv:1602.07868, equation 6.
    """
    return _whitened(engine, store, 0.0, EPSILON, head)


def krahenbuhl_within(
    engine: Engine, store: Store, *, weights: str = "kept", beta: float = 0.1, head: bool = True
) -> Outcome:
    r"""Krähenbühl's start within layers: each unit's output gets mean `beta` and variance 1.

    .. math:: W_k \leftarrow W_k / \sigma_k, \quad b_k \leftarrow \beta - \mu_k / \sigma_k

    Parameters
    ----------
    weights : {"kept", "pca", "kmeans"}
        Directions: those that the weights have (``RandomNormal(0, 1)`` is the paper's Gaussian start), the
        principal components of the patches that a layer sees, or the centres of k-means of these patches,
        whitened and of unit length (by scikit-learn, seeded by 0). Units beyond the number of components or
        patches keep theirs, as do gates. These directions are the batch's: no plan makes them.
    beta : float
        The authors' code has 0.1.
    head : bool
        Whether to take the head too, as the paper does.

    References
    ----------
    Krähenbühl et al. 2016, arXiv:1511.06856, section 3.1. Coates and Ng 2012, "Learning feature
    representations with k-means".
    """
    if not math.isfinite(beta):
        raise ArgumentError(f"`beta` must be finite, got {beta!r}")
    find = None if weights == "kept" else finder(weights)
    return _whitened(engine, store, beta, 0.0, head, find)


def _whitened(
    engine: Engine, store: Store, mean: float, epsilon: float, head: bool, find: Find | None = None
) -> Outcome:
    def factors(layer: Layer, y: Real, b: Real) -> tuple[Real, Real | None]:
        variance = y.var(axis=0)
        _check_dead(layer, np.sqrt(variance))
        scale = 1 / np.sqrt(variance + epsilon)
        return scale, mean - y.mean(axis=0) * scale

    return _sequential(engine, store, factors, lambda layer: 1.0, head, per_unit=True, find=find)


# --- one run -------------------------------------------------------------------------------------

# From a layer, its output without bias and its bias: the kernel's factor, and the new bias if it changes.
Factors = Callable[[Layer, Real, Real], tuple[Real, Real | None]]


def _sequential(
    engine: Engine,
    store: Store,
    factors: Factors,
    target: Callable[[Layer], float],
    head: bool,
    per_unit: bool,
    find: Find | None = None,
) -> Outcome:
    trace = engine.trace()
    chosen, left = layers(trace, head=head)
    if per_unit:
        packed = [layer for layer in chosen if not store.side_by_side(layer.kernels)]
        left |= {layer.name: "its packed kernels do not lie side by side" for layer in packed}
        chosen = [layer for layer in chosen if layer not in packed]
    if not chosen:
        raise CalibrationError(f"nothing to calibrate: {reasons(left)}")
    wanted = {(layer.at, layer.gate): layer for layer in chosen}
    before = _measured(engine, wanted, per_unit)

    def visit(seen: Seen) -> Correction | None:
        layer = due.get((seen.at, seen.gate))
        if layer is None:
            return None
        table = _table(seen)
        check_finite(layer, table)
        if all(not store.values(name).any() for name in layer.kernels):
            raise CalibrationError(f"{layer.name!r} is dead: its kernel is zero, and no factor changes that")
        bias = store.beside(layer.biases, table.shape[1])
        _check_input(layer, trace, table - bias)
        factor, shift = factors(layer, table - bias, bias)
        store.scale(layer.kernels, factor)
        if shift is not None and layer.biases:
            rest = layer.biases[len(layer.kernels) :]  # a gate's second bias stays
            store.set(layer.biases[: len(layer.kernels)], shift - store.beside(rest, len(shift)))
            return Correction(factor, shift - bias * factor)
        return Correction(factor, bias - bias * factor)

    # Directions are those of patches that calibrated layers put out: each layer has a run of its own.
    steps = [chosen] if find is None else [[layer] for layer in chosen]
    for step in steps:
        if find is not None and not step[0].gate:
            redirect(engine, store, trace, step[0], find)
        due = {(layer.at, layer.gate): layer for layer in step}
        engine.forward(visit)
    after = _measured(engine, wanted, per_unit)
    changed = {**store.factors, **store.constants}
    scales = []
    for key, layer in wanted.items():
        names = tuple(name for name in (*layer.kernels, *layer.biases) if name in changed)
        scales.append(Scale(layer.name, before[key], after[key], target(layer), names))
    measure = "root of the mean variance of a unit" if per_unit else "standard deviation of the output"
    return Outcome(f"{measure}, before its activation", tuple(scales), left)


def _measured(
    engine: Engine, wanted: Mapping[tuple[int, str], Layer], per_unit: bool
) -> dict[tuple[int, str], float]:
    found: dict[tuple[int, str], float] = {}

    def visit(seen: Seen) -> None:
        if (seen.at, seen.gate) in wanted:
            table = _table(seen)
            check_finite(wanted[seen.at, seen.gate], table)
            variance = table.var(axis=0).mean() if per_unit else table.var()
            found[seen.at, seen.gate] = math.sqrt(float(variance))

    engine.forward(visit)
    for key, layer in wanted.items():
        if key not in found:
            raise CalibrationError(f"{layer.name!r} did not run again: the model does not do the same twice")
    return found


def _table(seen: Seen) -> Real:
    """Rows are examples and positions, columns units."""
    last = np.moveaxis(np.asarray(seen.values), seen.units, -1)
    return last.reshape(-1, last.shape[-1]).astype(np.float64)


# --- one layer -----------------------------------------------------------------------------------


def factor_for(layer: Layer, y: Real, b: Real, target: float) -> Real:
    """The positive f with ``Var(f y + b) = target**2``, over the whole tensor."""
    _check_dead(layer, y.std())
    variance, fixed = float(y.var()), float(b.var())
    shared = float(((y.mean(axis=0) - y.mean()) * (b - b.mean())).mean())
    under = shared**2 - variance * (fixed - target**2)
    root = (math.sqrt(under) - shared) / variance if under >= 0 else -1.0
    if root <= 0:
        raise CalibrationError(
            f"{layer.name!r}: its bias alone has a standard deviation of {math.sqrt(fixed):.3g}, and the "
            f"output is to have {target:.3g}; start with smaller biases"
        )
    return np.asarray(root)


def _unit_factors(layer: Layer, y: Real, b: Real, target: float) -> Real:
    deviations = y.std(axis=0)
    _check_dead(layer, deviations)
    found: Real = target / deviations
    return found


def _check_dead(layer: Layer, deviations: Array) -> None:
    """Refuse what puts out the same for all examples: its factor would be endless."""
    dead = np.flatnonzero(~(np.atleast_1d(deviations) > DEAD * max(float(np.max(deviations)), TINY)))
    if not dead.size:
        return
    units = (
        "" if np.ndim(deviations) == 0 else f" in {dead.size} of {np.size(deviations)} units ({_few(dead)})"
    )
    raise CalibrationError(
        f"{layer.name!r} is dead{units}: it puts out the same for all examples, and no factor changes that"
    )


def _check_input(layer: Layer, trace: Trace, y: Real) -> None:
    """Refuse a layer into which next to nothing goes, whatever the size of its weights."""
    held = [trace[name].weight_variance for name in layer.kernels]
    expected = math.sqrt(max((variance for variance in held if variance is not None), default=0.0))
    if math.sqrt(float(np.mean(y * y))) <= DEAD * expected:
        raise CalibrationError(
            f"{layer.name!r} is dead: its input is zero, or next to it; look at what comes before it"
        )
    if not layer.gate and len(y) > 1 and float(y.std(axis=0).max()) <= DEAD * float(abs(y).max()):
        raise CalibrationError(f"{layer.name!r} is dead: it puts out the same for all examples")


def check_finite(layer: Layer, table: Real) -> None:
    """Refuse a layer that puts out what is not finite."""
    broken = int(np.sum(~np.isfinite(table)))
    if broken:
        raise CalibrationError(f"{layer.name!r}: {broken} of its {table.size} outputs are nan or infinite")


def _few(numbers: Array) -> str:
    return ", ".join(map(str, numbers[:4].tolist())) + (", ..." if numbers.size > 4 else "")


def reasons(left: Mapping[str, str]) -> str:
    """The first few of them, as one sentence."""
    return "; ".join(f"{name}: {why}" for name, why in list(left.items())[:4]) or "no operation has a kernel"


def _targets(target: float | Mapping[str, float]) -> Callable[[str], float]:
    patterns = target if isinstance(target, Mapping) else {"*": target}
    for pattern, value in patterns.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ArgumentError(f"`target` of {pattern!r} must be a number > 0, got {value!r}")

    def of(name: str) -> float:
        fitting = [float(value) for pattern, value in patterns.items() if fnmatch.fnmatchcase(name, pattern)]
        return fitting[-1] if fitting else 1.0

    return of
