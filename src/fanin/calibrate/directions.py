"""Directions from a batch: principal components, or k-means centres, of the patches that a layer sees."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from fanin.audit.trace import Trace
from fanin.calibrate.engine import Engine, Seen
from fanin.calibrate.layers import Layer
from fanin.calibrate.store import Store
from fanin.errors import ArgumentError, CalibrationError

PATCHES = 4096  # of all that a batch has, evenly spread
NOISE = 1e-3  # of the mean variance: what whitening adds to each
LEAST = 1e-6  # of the largest variance: below, a direction is none

Real = NDArray[np.float64]
Find = Callable[[Real, int], Real]


def pca(patches: Real, units: int) -> Real:
    """The principal components, the largest first: at most as many as there are directions.

    >>> pca(np.array([[3.0, 0.1], [-3.0, 0.1], [3.0, -0.1], [-3.0, -0.1]]), 1).tolist()
    [[1.0, 0.0]]
    """
    _, directions = _spread(patches)
    found = directions[:units]
    largest = np.take_along_axis(found, abs(found).argmax(axis=1)[:, None], axis=1)
    turned: Real = found * np.sign(largest) + 0.0  # whose signs are anyone's choice
    return turned


def kmeans(patches: Real, units: int) -> Real:
    """Spherical k-means of whitened patches: at most as many centres as there are different patches."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # scikit-learn's own; threads would add in any order

    variances, directions = _spread(patches)
    whitening = directions / np.sqrt(variances + NOISE * variances.mean())[:, None]
    white = (patches - patches.mean(axis=0)) @ whitening.T
    lengths = np.linalg.norm(white, axis=1, keepdims=True)
    white = np.unique((white / np.where(lengths > 0, lengths, 1.0)).round(6), axis=0)
    with threadpool_limits(1):
        found = KMeans(min(units, len(white)), n_init=1, random_state=0).fit(white).cluster_centers_
    centres: Real = found @ whitening
    return centres


FINDERS: dict[str, Find] = {"pca": pca, "kmeans": kmeans}


def finder(name: str) -> Find:
    """The function of a name, and what it needs is there.

    Raises
    ------
    ArgumentError
    """
    if name not in FINDERS:
        raise ArgumentError(f"`weights` {name!r}; expected one of kept, {', '.join(sorted(FINDERS))}")
    if name == "kmeans" and find_spec("sklearn") is None:
        raise ArgumentError("`weights` 'kmeans' needs scikit-learn: pip install 'fanin[calibrate]'")
    return FINDERS[name]


def redirect(engine: Engine, store: Store, trace: Trace, layer: Layer, find: Find) -> None:
    """Give a layer the directions of its patches; units beyond their number keep their own."""
    rows = np.concatenate([store.values(name) for name in layer.kernels])
    axes = trace[layer.kernels[0]].axes
    groups = 1 if axes is None else axes.groups
    flat = rows.reshape(groups, len(rows) // groups, -1).astype(np.float64)
    patches = _patches(engine, store, layer, flat.shape)
    for group, kernel in enumerate(flat):
        mine = patches[:, group]
        if not np.ptp(mine, axis=0).any():
            raise CalibrationError(f"{layer.name!r} is dead: all patches that it sees are the same")
        found = find(mine, len(kernel))
        kernel[: len(found)] = found
    store.replace(layer.kernels, flat.reshape(rows.shape))


def _spread(patches: Real) -> tuple[Real, Real]:
    """Variances of patches along their principal components, the largest first."""
    centred = patches - patches.mean(axis=0)
    variances, columns = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances > LEAST * variances[-1]
    return variances[kept][::-1], columns.T[kept][::-1]


class _ShownError(CalibrationError):
    """What was to be seen has been: the rest of a run is not needed."""


def _patches(engine: Engine, store: Store, layer: Layer, shape: tuple[int, ...]) -> Real:
    """What a layer's kernel is multiplied with, an array of shape (patches, groups, size).

    A kernel of unit vectors puts it out, whatever strides, padding and layout are in the framework.
    """
    groups, units, size = shape
    parts: list[Real] = []

    def visit(seen: Seen) -> None:
        if seen.at != layer.at:
            return
        table = np.moveaxis(np.asarray(seen.values), seen.units, -1).reshape(-1, groups * units)
        step = -(-len(table) // PATCHES)
        parts.append((table[::step] - store.beside(layer.biases, groups * units)).astype(np.float64))
        raise _ShownError("seen")

    for start in range(0, size, units):
        probe = np.zeros(shape)
        ahead = np.arange(min(units, size - start))
        probe[:, ahead, start + ahead] = 1.0
        store.replace(layer.kernels, probe.reshape(groups * units, -1))
        try:
            engine.forward(visit)
        except _ShownError:
            parts[-1] = parts[-1].reshape(-1, groups, units)[:, :, : len(ahead)]
        else:
            raise CalibrationError(f"{layer.name!r} did not run again: the model does not do the same twice")
    return np.concatenate(parts, axis=2)
