"""What operations make of a signal, known by a sample: its units, for one example at one position.

A sample is an array of shape ``(EXAMPLES, units)``. The weights are what they are, random is the batch. So
means that all examples share, which in a narrow network are most of a signal, meet the very kernels they will
meet, and lengths that grow apart from layer to layer, so that no law stays normal, do so here too. The
examples are positions on a torus, whose neighbours a convolution's taps see.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fanin.errors import UnknownNameError
from fanin.gains import sampled

EXAMPLES = 512
GRIDS = {0: (512,), 1: (512,), 2: (16, 32), 3: (8, 8, 8)}  # of positions, for kernels of each rank
POINTS = 2**14  # at which an activation is computed; between them it is a line

Real = NDArray[np.float64]


def drawn(units: int, mean: float, offset: float, within: float, draws: np.random.Generator) -> Real:
    """Normal units: their own means have root mean square `offset`, their variance is `within`."""
    apart = math.sqrt(max(0.0, offset**2 - mean**2))
    means = mean + apart * draws.standard_normal(units)
    return means + math.sqrt(within) * draws.standard_normal((EXAMPLES, units))


def weighted(x: Real, kernel: Real, share: float, draws: np.random.Generator) -> Real:
    """A kernel's outputs.

    Parameters
    ----------
    x : ndarray
        Of as many units as the kernel has inputs, or a multiple (groups).
    kernel : ndarray of shape (outputs, inputs of a group, *taps)
    share : float
        Of the taps that do not lie in padding: others see zeros.
    """
    outputs, inputs, *taps = kernel.shape
    groups = x.shape[1] // inputs
    kernel = kernel.reshape(groups, -1, inputs, *taps)
    grouped = np.moveaxis(x.reshape(*GRIDS[len(taps)], groups, inputs), -2, 0)
    axes = tuple(range(1, len(taps) + 1))
    y = np.zeros((groups, EXAMPLES, outputs // groups))
    for tap in np.ndindex(*taps):
        shift = tuple(at - size // 2 for at, size in zip(tap, taps, strict=True))
        seen = np.roll(grouped, shift, axes).reshape(groups, EXAMPLES, inputs)
        if share < 1:
            seen = seen * (draws.random((EXAMPLES, 1)) < share)
        y += seen @ kernel[..., *tap].swapaxes(1, 2)
    return np.moveaxis(y, 0, 1).reshape(EXAMPLES, outputs)


def activated(x: Real, activation: str) -> Real | None:
    """A function of each element; None of one without a formula."""
    try:
        phi = sampled(activation)
    except UnknownNameError:
        return None
    points = np.linspace(x.min(), x.max(), POINTS)
    values: Real = np.interp(x, points, phi(points))
    return values


def flattened(x: Real, units: int, *, units_last: bool) -> Real:
    """Each unit at several positions, all of them units now."""
    positions = [np.roll(x, at, axis=0) for at in range(units // x.shape[1])]
    return np.stack(positions, axis=1 if units_last else 2).reshape(EXAMPLES, units)


def mixed(x: Real, units: int, draws: np.random.Generator) -> Real:
    """As many units, where nobody knows which is which."""
    return draws.choice(x.ravel(), (EXAMPLES, units))


def together(signals: Sequence[Real], units: int, draws: np.random.Generator) -> list[Real]:
    """Signals of one number of units: those of others are mixed."""
    return [x if x.shape[1] in (1, units) else mixed(x, units, draws) for x in signals]


def sized(x: Real, offset: float, within: float) -> Real:
    """The same units, with other sizes: each keeps its share of the means."""
    means = x.mean(axis=0)
    before = math.sqrt(float(np.mean(means**2))), float(x.var(axis=0).mean())
    grown, spread = (new / old if old else 0.0 for new, old in zip((offset, within), before, strict=True))
    made: Real = means * grown + (x - means) * math.sqrt(spread)
    return made
