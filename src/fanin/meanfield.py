r"""Mean-field theory of wide networks: variances and correlations of pre-activations, layer by layer.

With weights of variance :math:`\sigma_w^2 / n` (``weight_variance``) and biases of variance
:math:`\sigma_b^2` (``bias_variance``), :math:`h = W \varphi(h') + b`, the pre-activations of a wide layer are
normal, and two numbers say all: the variance q, and the correlation c of two inputs' pre-activations.

Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232; Roberts, Yaida, Hanin 2022,
arXiv:2106.10165 (half-stable points).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fanin._types import Array
from fanin.errors import ArgumentError
from fanin.gains import Activation, sampled
from fanin.pieces import Pieces, density, on_panels, refined

Phi: TypeAlias = str | Callable[[Any], Any]

Q_MIN = 1e-8  # below, a variance is called 0 where nothing adds to it
Q_MAX = 32.0  # beyond, a unit of a critical network would be saturated nearly always
Q_ENDLESS = 1e8
CLOSE = 1e-8  # two inputs nearer than this are alike
ACCURACY = 1e-11  # of an integral over two pre-activations
EQUAL = 1e-9  # relative: what two quantities that should be equal may differ by
WIDE = np.linspace(-9.0, 9.0, 5)  # of a common part, in deviations
HALF = np.array([0.0, 1.0, 3.0, 9.0])


class CriticalPoint(NamedTuple):
    """Where gradients neither grow nor shrink: chi = 1 at the fixed point `q` of the variance.

    `q_slope` is the slope of the variance's map there: below 1 the point attracts, above 1 it repels.
    """

    weight_variance: float
    bias_variance: float
    q: float
    q_slope: float

    @property
    def gain(self) -> float:
        """The factor on ``1 / sqrt(fan_in)``: the square root of the weight variance."""
        return math.sqrt(self.weight_variance)


class DepthScale(NamedTuple):
    """Layers after which a deviation from the fixed points `q` and `c` is e times smaller."""

    xi_q: float
    xi_c: float
    q: float
    c: float


# --- maps ----------------------------------------------------------------------------------------


def q_map(
    activation: Phi,
    q: float,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    slope: float | None = None,
) -> float:
    r"""The variance of the next layer's pre-activations.

    .. math:: q' = \sigma_w^2\, \mathbb E\,\varphi(\sqrt q z)^2 + \sigma_b^2, \qquad z \sim \mathcal N(0, 1)

    Parameters
    ----------
    activation : str or callable
        As `fanin.gain` takes it, but no gated pair.
    q : float
        The variance of this layer's, > 0.
    weight_variance, bias_variance : float
        Of the weights times fan_in, > 0, and of the biases.
    slope : float, optional
        Of leaky_relu below zero.

    References
    ----------
    Poole et al. 2016, equation 3.

    Examples
    --------
    >>> round(q_map("relu", 3.0, 2.0, 0.1), 12)
    3.1
    """
    phi, weight, bias = sampled(activation, slope=slope), _weight(weight_variance), _bias(bias_variance)
    return weight * _second(phi.pieces, _positive("q", q)) + bias


def q_slope(activation: Phi, q: float, weight_variance: float, *, slope: float | None = None) -> float:
    r"""The slope of `q_map`: how a deviation of the variance goes on.

    .. math:: \frac{\partial q'}{\partial q} =
              \frac{\sigma_w^2}{2 q}\, \mathbb E\,\varphi(\sqrt q z)^2 (z^2 - 1)

    Examples
    --------
    >>> round(q_slope("relu", 3.0, 2.0), 12)
    1.0
    """
    return _weight(weight_variance) * _growth(sampled(activation, slope=slope), _positive("q", q))


def chi(activation: Phi, q: float, weight_variance: float, *, slope: float | None = None) -> float:
    r"""What a layer multiplies the squared gradient by, and the slope of the correlation's map at 1.

    .. math:: \chi_1 = \sigma_w^2\, \mathbb E\,\varphi'(\sqrt q z)^2

    Below 1 gradients vanish and inputs become alike (ordered), above they explode and inputs part (chaotic).

    References
    ----------
    Schoenholz et al. 2017, equation 5.

    Examples
    --------
    >>> round(chi("tanh", 1.0, 1.592537**2), 4)
    1.1778
    """
    return _weight(weight_variance) * _second(sampled(activation, slope=slope).slopes, _positive("q", q))


def c_map(
    activation: Phi,
    c: float,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    q: float | None = None,
    slope: float | None = None,
) -> float:
    r"""The correlation of the next layer's pre-activations of two inputs.

    .. math:: c' = \frac{\sigma_w^2\, \mathbb E\,\varphi(u) \varphi(v) + \sigma_b^2}
                        {\sigma_w^2\, \mathbb E\,\varphi(u)^2 + \sigma_b^2}, \qquad
              u, v \sim \mathcal N(0, q) \text{ with correlation } c

    Parameters
    ----------
    c : float
        The correlation of this layer's, from -1 to 1.
    q : float, optional
        Their variance; the fixed point that variances come to from 1 by default.

    Raises
    ------
    ArgumentError
        When no `q` is given and the variance grows without end.

    References
    ----------
    Poole et al. 2016, equation 5. For ReLU it is
    :math:`(\sqrt{1 - c^2} + (\pi - \arccos c)\, c) / \pi` (Cho and Saul 2009).

    Examples
    --------
    >>> round(c_map("relu", 0.0, 2.0), 6)  # 1 / pi
    0.31831
    """
    phi, weight, bias = sampled(activation, slope=slope), _weight(weight_variance), _bias(bias_variance)
    if not _real(c) or not -1 <= c <= 1:
        raise ArgumentError(f"`c` must be a correlation from -1 to 1, got {c!r}")
    if q is None:
        q = _fixed_point(phi, weight, bias, 1.0)
        if q == math.inf:
            raise ArgumentError("the variance grows without end; pass the `q` that is meant")
    else:
        q = _positive("q", q)
    return 1 - _apart(*_anywhere(phi, q), weight, bias, 1 - float(c))


def fixed_point(
    activation: Phi,
    weight_variance: float,
    bias_variance: float = 0.0,
    *,
    start: float = 1.0,
    slope: float | None = None,
) -> float:
    """The variance that the pre-activations of a deep network come to: 0 and inf are answers.

    Parameters
    ----------
    start : float
        The variance in the first layer, > 0. Where there are several fixed points, the answer is the next one
        in the direction in which the first layers go.

    Examples
    --------
    >>> round(fixed_point("tanh", 1.76095, 0.05), 4)
    0.57
    >>> fixed_point("tanh", 0.9), fixed_point("relu", 2.1), fixed_point("relu", 2.0)
    (0.0, inf, 1.0)
    """
    phi, weight, bias = sampled(activation, slope=slope), _weight(weight_variance), _bias(bias_variance)
    return _fixed_point(phi, weight, bias, _positive("start", start))


# --- where they lead -----------------------------------------------------------------------------


def critical(
    activation: Phi,
    *,
    bias_variance: float | None = None,
    q: float | None = None,
    q_max: float = Q_MAX,
    slope: float | None = None,
) -> CriticalPoint | None:
    r"""The weight variance at which gradients keep their size, or None where there is no such point.

    .. math:: \sigma_w^2 = \frac{1}{\mathbb E\,\varphi'(\sqrt q z)^2}, \qquad
              \sigma_b^2 = q - \sigma_w^2\, \mathbb E\,\varphi(\sqrt q z)^2 \ge 0

    Parameters
    ----------
    activation : str or callable
        As `fanin.gain` takes it, but no gated pair.
    bias_variance : float, optional
        Of the biases, 0 by default; of several critical points the one with the smallest q.
    q : float, optional
        Instead of the bias variance: the point with this variance of pre-activations.
    q_max : float
        The largest variance of pre-activations to search. A sigmoid has no point below 32; one of weight
        variance 103 and q = 46, where nearly all units are saturated, is found with a larger one.
    slope : float, optional
        Of leaky_relu below zero.

    Returns
    -------
    CriticalPoint or None
        ``weight_variance, bias_variance, q, q_slope``, and ``.gain``. Without biases q is 0 for a smooth
        activation with phi(0) = 0, and 1 for one that is critical at every q (relu, linear).
        None: no bias variance >= 0 makes it critical (softplus), or none with that bias variance.

    Raises
    ------
    ArgumentError
        When both `bias_variance` and `q` are given, or one is negative; when the activation jumps.

    References
    ----------
    Poole et al. 2016, section 2; Schoenholz et al. 2017, section 3.

    Examples
    --------
    >>> point = critical("tanh", bias_variance=0.05)
    >>> round(point.weight_variance, 5), round(point.q, 5)
    (1.76095, 0.57005)
    >>> round(critical("tanh").gain, 9)
    1.0
    >>> print(critical("softplus", q=1.0))
    None
    """
    phi = sampled(activation, slope=slope)
    if bias_variance is not None and q is not None:
        raise ArgumentError(f"give `bias_variance` or `q`, not both: got {bias_variance!r} and {q!r}")
    if q is not None:
        return _point(phi, _positive("q", q))
    bias = _bias(0.0 if bias_variance is None else bias_variance)
    variances = _variances(_positive("q_max", q_max))
    biases = [_bias_at(phi, q) for q in variances]
    if bias <= abs(biases[0]) and _starts_at_zero(phi):
        homogeneous = all(abs(b) <= EQUAL * q for b, q in zip(biases, variances, strict=True))
        return _point(phi, 1.0 if homogeneous else 0.0)
    bracket = _crossing(variances, [b - bias for b in biases])
    if bracket is None:
        return None
    found = _point(phi, _root(lambda q: _bias_at(phi, q) - bias, *bracket))
    return None if found is None else found._replace(bias_variance=bias)


def half_stable(activation: Phi, *, q_max: float = Q_MAX, slope: float | None = None) -> CriticalPoint | None:
    """The critical point at which the variance, too, has slope 1, or None where there is none.

    On the critical lines of gelu, silu and mish, points with a smaller q repel and those with a larger q
    attract. An activation that is so at q = 0 (tanh) or at every q (relu) has no such point between; neither
    have sigmoid and softplus.

    Parameters
    ----------
    activation, q_max, slope
        As in `critical`.

    References
    ----------
    Roberts, Yaida, Hanin 2022, section 5.3.4.

    Examples
    --------
    >>> point = half_stable("gelu")
    >>> round(point.weight_variance, 6), round(point.bias_variance, 6), round(point.q, 6)
    (1.983058, 0.172922, 3.561553)
    >>> print(half_stable("sigmoid"))
    None
    """
    phi = sampled(activation, slope=slope)

    def excess(q: float) -> float:
        return _growth(phi, q) / _second(phi.slopes, q) - 1

    variances = _variances(_positive("q_max", q_max))
    bracket = _crossing(variances, [round(excess(q), 7) for q in variances])
    return None if bracket is None else _point(phi, _root(excess, *bracket))


def depth_scale(
    activation: Phi, weight_variance: float, bias_variance: float = 0.0, *, slope: float | None = None
) -> DepthScale | None:
    r"""How many layers a signal lives, or None where the variance grows without end.

    .. math:: \xi_q = -1 / \ln \left|\frac{\partial q'}{\partial q}\right|, \qquad
              \xi_c = -1 / \ln \chi_{c}, \quad \chi_c = \sigma_w^2\, \mathbb E\,\varphi'(u) \varphi'(v)

    at the fixed points of the variance and of the correlation. Networks up to about :math:`6 \xi_c` deep
    train; at a critical point it is inf.

    Parameters
    ----------
    activation : str or callable
        As `fanin.gain` takes it, but no gated pair.
    weight_variance, bias_variance : float
        Of the weights times fan_in, > 0, and of the biases.
    slope : float, optional
        Of leaky_relu below zero.

    Returns
    -------
    DepthScale or None
        ``xi_q, xi_c`` and the fixed points ``q, c`` (c = 1: ordered; c < 1: chaotic). Where q is 0, xi_c is
        the depth scale of covariances and gradients.

    References
    ----------
    Schoenholz et al. 2017, equations 9 and 11, and section 5 for the six.

    Examples
    --------
    >>> scale = depth_scale("tanh", 1.5, 0.05)
    >>> round(scale.xi_q, 2), round(scale.xi_c, 2), scale.c
    (1.68, 15.79, 1.0)
    """
    phi, weight, bias = sampled(activation, slope=slope), _weight(weight_variance), _bias(bias_variance)
    q = _fixed_point(phi, weight, bias, 1.0)
    if q == math.inf:
        return None
    near, at = _anywhere(phi, q)
    distance = _distance(near, at, weight, bias)
    chi_c = weight * (_second(near.slopes, at) - _spread(near.slopes(at), at, distance))
    return DepthScale(_layers(weight * _growth(near, at)), _layers(chi_c), q, 1 - distance)


# --- expectations --------------------------------------------------------------------------------


def _second(pieces: Callable[[float], Pieces], q: float) -> float:
    """E f^2 at a normal of variance q."""
    values, _, weights = pieces(q).at_normal(q)
    return float(weights @ values**2)


def _starts_at_zero(phi: Activation) -> bool:
    return bool(abs(phi(np.zeros(1))[0]) <= EQUAL * phi.size)


def _anywhere(phi: Activation, q: float) -> tuple[Activation, float]:
    """At q = 0 an activation is its tangents there, and those are the same at every variance."""
    if q > 0:
        return phi, q
    slopes = phi.slopes(1.0)
    below, above = (side[np.searchsorted(slopes.ends, 0.0) - 1] for side in slopes.sides())
    return replace(phi, phi=lambda x: np.where(x > 0, above, below) * x, _made={}), 1.0


def _growth(phi: Activation, q: float) -> float:
    """The derivative of E phi^2 by q; differentiating the density instead asks nothing of phi."""
    values, z, weights = phi.pieces(q).at_normal(q)
    return float(weights @ (values**2 * (z * z - 1))) / (2 * q)


def _spread(f: Pieces, q: float, distance: float) -> float:
    """E (f(u) - f(v))^2 / 2 at correlation 1 - distance, exact where the two are close.

    u = p + r and v = p - r with independent p and r. For a given r the kinks in p are known; what is left is
    smooth in r but for a few points, which panels find.
    """
    if distance == 0:
        return 0.0
    common, half = math.sqrt(q * max(1 - distance / 2, 1e-15)), math.sqrt(q * distance / 2)
    ends = f.ends[abs(f.ends) < WIDE[-1] * (common + half)]

    def inner(y: Array) -> Array:
        r = half * y.reshape(-1, 1)
        kinks = np.concatenate([ends - r, ends + r], axis=1) / common
        grid = np.broadcast_to(WIDE, (r.size, WIDE.size))
        z, weights = on_panels(np.sort(np.concatenate([kinks.clip(WIDE[0], WIDE[-1]), grid], axis=1)))
        squares = (f(common * z + r) - f(common * z - r)) ** 2
        means: Array = (weights * density(z) * squares).sum(axis=1)
        return means.reshape(y.shape) * density(y)

    size = float(inner(np.array([0.5, 1.0, 2.0])).max())
    rounding = 1e-15 * float(abs(f.coefficients).max())
    allowed = ACCURACY * size + rounding * (math.sqrt(size) + rounding)
    pieces, _ = refined(inner, HALF, lambda values, left, right: allowed / (right - left))
    return float(pieces.coefficients[0] @ np.diff(pieces.ends))


def _apart(phi: Activation, q: float, weight: float, bias: float, distance: float) -> float:
    """The next layer's distance, 1 minus its correlation."""
    moment = weight * _second(phi.pieces, q) + bias
    return weight * _spread(phi.pieces(q), q, distance) / moment if moment else 0.0


def _bias_at(phi: Activation, q: float) -> float:
    """The bias variance on the critical line, negative where there is none."""
    slopes = _second(phi.slopes, q)
    return q - _second(phi.pieces, q) / slopes if slopes else -math.inf


def _point(phi: Activation, q: float) -> CriticalPoint | None:
    """The critical point with this variance, if there is a slope and the bias variance is not negative."""
    near, at = _anywhere(phi, q)
    slopes, bias = _second(near.slopes, at), _bias_at(near, at)
    if bias < -EQUAL * at or slopes <= (EQUAL * phi.size) ** 2:
        return None
    return CriticalPoint(1 / slopes, bias if bias > EQUAL * at else 0.0, q, _growth(near, at) / slopes)


# --- roots ---------------------------------------------------------------------------------------


def _fixed_point(phi: Activation, weight: float, bias: float, start: float) -> float:
    def drift(q: float) -> float:
        return weight * _second(phi.pieces, q) + bias - q

    first = drift(start)
    if abs(first) <= EQUAL * start:
        return start
    factor = 2.0 if first > 0 else 0.5
    here = start
    while drift(here * factor) * first > 0:
        here *= factor
        if here > Q_ENDLESS * start:
            return math.inf
        if here < Q_MIN and bias == 0:
            return 0.0
    return _root(drift, here, here * factor)


def _distance(phi: Activation, q: float, weight: float, bias: float) -> float:
    """1 minus the correlation that two inputs come to: 0 when ordered, for the map is convex from 0 to 1."""

    def excess(distance: float) -> float:
        return _apart(phi, q, weight, bias, distance) / distance - 1

    return _root(excess, CLOSE, 1.0) if excess(CLOSE) > EQUAL else 0.0


def _variances(q_max: float) -> list[float]:
    """Where a crossing is looked for: eight variances a decade."""
    decades = max(1.0, math.log10(q_max / Q_MIN))
    return [float(q) for q in np.geomspace(Q_MIN, q_max, math.ceil(8 * decades))]


def _crossing(places: list[float], values: list[float]) -> tuple[float, float] | None:
    """The first two places, in order, between which values change sign."""
    signed = [(at, value) for at, value in zip(places, values, strict=True) if value]
    for (a, before), (b, after) in pairwise(signed):
        if (before < 0) != (after < 0):
            return a, b
    return None


def _root(f: Callable[[float], float], a: float, b: float) -> float:
    """A zero between two places of different sign (Illinois's rule of false position)."""
    at_a, at_b = f(a), f(b)
    for _ in range(100):
        if at_b == 0 or abs(b - a) <= 1e-15 * abs(b):
            break
        c = b - at_b * (b - a) / (at_b - at_a)
        at_c = f(c)
        if (at_c < 0) != (at_b < 0):
            a, at_a = b, at_b
        else:
            at_a /= 2
        if abs(c - b) <= 1e-14 * abs(c):
            return c
        b, at_b = c, at_c
    return b


def _layers(factor: float) -> float:
    """Layers in which a deviation that each multiplies by a factor shrinks e times."""
    if factor == 0:
        return 0.0
    rate = -math.log(abs(factor))
    return math.inf if abs(rate) <= EQUAL else 1 / rate


# --- arguments -----------------------------------------------------------------------------------


def _real(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _positive(name: str, value: Any) -> float:
    if not _real(value) or value <= 0:
        raise ArgumentError(f"`{name}` must be a finite number > 0, got {value!r}")
    return float(value)


def _weight(value: Any) -> float:
    return _positive("weight_variance", value)


def _bias(value: Any) -> float:
    if not _real(value) or value < 0:
        raise ArgumentError(f"`bias_variance` must be a finite number >= 0, got {value!r}")
    return float(value)
