"""Functions as polynomials on panels that end at their kinks, and their means at a normal distribution."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from fanin._types import Array
from fanin.errors import ArgumentError

ORDER = 16  # nodes of a panel
REACH = 13.0  # in standard deviations: beyond, the normal's mass is 1e-38
NARROW = 2.0**-28  # width of a panel, relative to where it is: only a kink leads there
FINEST = 2.0**-33  # the width at which halving ends
MOST = 4096  # panels
ROUNDING = 1e-13  # of phi's size: what a panel may miss
TAIL = 1e-9  # of a second moment, past the last deviation within reach
PROBES = np.array([1e-8 - 1, 1 - 1e-8])
ROOT_2_PI = math.sqrt(2 * math.pi)


@cache
def rule() -> tuple[Array, Array, Array]:
    """Gauss-Legendre nodes and weights on [-1, 1], and what makes values at the nodes coefficients.

    The nodes leave 1/200 at each end of a panel unseen, where a kink may hide: `PROBES` look there.
    """
    from numpy.polynomial import legendre

    nodes, weights = legendre.leggauss(ORDER)
    degrees = np.arange(ORDER)[:, None] + 0.5
    return nodes, weights, degrees * legendre.legvander(nodes, ORDER - 1).T * weights


def density(z: Array) -> Array:
    """Of the standard normal."""
    return np.exp(-z * z / 2) / ROOT_2_PI


def on_panels(ends: Array) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre on the panels between the ends, which are the last axis."""
    nodes, weights, _ = rule()
    half = np.diff(ends)[..., None] / 2
    x = ends[..., :-1, None] + half * (1 + nodes)
    flat = (*ends.shape[:-1], -1)
    return x.reshape(flat), (half * weights).reshape(flat)


class RoughError(ArgumentError):
    """A function that polynomials on panels do not follow."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """A function that is a polynomial on each panel: Legendre coefficients of shape ``(ORDER, panels)``."""

    ends: Array
    coefficients: Array

    def __call__(self, x: Array) -> Array:
        from numpy.polynomial import legendre

        panel = np.clip(np.searchsorted(self.ends, x, side="right") - 1, 0, self.ends.size - 2)
        left, right = self.ends[panel], self.ends[panel + 1]
        where = (2 * x - left - right) / (right - left)
        values: Array = legendre.legval(where, self.coefficients[:, panel], tensor=False)
        return values

    def at_normal(self, q: float) -> tuple[Array, Array, Array]:
        """Values at sqrt(q) z, the z, and their weights: a sum of weight times g(value, z) is its mean."""
        scale = math.sqrt(q)
        inside = self.ends[abs(self.ends) < REACH * scale] / scale
        z, weights = on_panels(np.union1d(inside, np.linspace(-REACH, REACH, 7)))
        values, weights = self(scale * z), weights * density(z)
        if diverges(values, z, weights):
            raise ArgumentError(f"the activation grows too fast: E phi^2 at a normal of variance {q:g}")
        return values, z, weights

    def sides(self) -> tuple[Array, Array]:
        """The limits from the left and from the right at each inner end."""
        signs = np.where(np.arange(ORDER) % 2, -1.0, 1.0)
        return self.coefficients.sum(0)[:-1], (signs @ self.coefficients)[1:]


def diverges(values: Array, z: Array, weights: Array) -> bool:
    squares = weights * values**2
    return bool(squares[abs(z) > REACH - 1].sum() > TAIL * squares.sum())


def refined(
    f: Callable[[Array], Array], ends: Array, tolerance: Callable[[Array, Array, Array], Array]
) -> tuple[Pieces, Array]:
    """A function on panels that halve until it is a polynomial on each, and the middles of the narrow ones.

    `tolerance` takes the values, a row for each panel, and the panels' ends, and says how large the last
    three coefficients of each may be. None is smaller than `FINEST`.
    """
    from numpy.polynomial import legendre

    nodes, _, transform = rule()
    points, at_probes = np.concatenate([nodes, PROBES]), legendre.legvander(PROBES, ORDER - 1)
    left, right = ends[:-1], ends[1:]
    kept = []
    count = 0
    while left.size:
        count += left.size
        if count > MOST:
            raise RoughError(f"is too rough: {MOST} panels are not enough to follow it")
        middle, half = (left + right) / 2, (right - left) / 2
        values = f(middle[:, None] + half[:, None] * points)
        coefficients = values[:, :ORDER] @ transform.T
        missed = abs(coefficients @ at_probes.T - values[:, ORDER:]).max(axis=1)
        allowed = tolerance(values, left, right)
        smooth = (abs(coefficients[:, -3:]).max(axis=1) <= allowed) & (missed <= ORDER * allowed)
        width = (right - left) / np.maximum(1, abs(middle))
        done = smooth | (width < FINEST)
        coefficients[abs(coefficients) <= allowed[:, None] / ORDER] = 0  # noise, which a derivative amplifies
        kept.append((left[done], coefficients[done], middle[done & (width < NARROW)]))
        left, middle, right = left[~done], middle[~done], right[~done]
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
    starts, found, narrow = (np.concatenate(part) for part in zip(*kept, strict=True))
    order = np.argsort(starts)
    return Pieces(np.append(starts[order], ends[-1]), found[order].T), narrow
