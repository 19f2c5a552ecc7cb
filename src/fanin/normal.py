"""The normal distribution's scalars, to the last bit: decimal arithmetic is the same on every machine."""

from decimal import Decimal, localcontext
from functools import lru_cache

TRUNCATED_STD = float.fromhex("0x1.c25e4b6dba981p-1")  # 0.87962566103423978: std of N(0, 1) cut at +-2


def pi() -> Decimal:
    """Pi to the context's precision (Gauss-Legendre)."""
    a, b, t, p = Decimal(1), 1 / Decimal(2).sqrt(), Decimal("0.25"), Decimal(1)
    while True:
        mean = (a + b) / 2
        if mean == a:
            return (a + b) ** 2 / (4 * t)
        b, t, p, a = (a * b).sqrt(), t - p * (a - mean) ** 2, 2 * p, mean


def _precision(*bounds: float) -> int:
    """Digits so that 1/2 - Phi(x) keeps 40 after cancellation: the tail is about exp(-x*x/2)."""
    largest = max((abs(b) for b in bounds if abs(b) < 60), default=0.0)
    return 50 + int(largest * largest / 2)


def _density(x: Decimal) -> Decimal:
    return (-x * x / 2).exp() / (2 * pi()).sqrt()


def _cdf(x: float) -> Decimal:
    """Phi(x) by its power series: 1/2 + phi(x) (x + x^3/3 + x^5/(3*5) + ...)."""
    if abs(x) >= 60:
        return Decimal(0 if x < 0 else 1)
    value = Decimal(x)
    term, total, k = value, value, 1
    while total + term != total or k == 1:
        k += 2
        term = term * value * value / k
        total += term
    return Decimal("0.5") + _density(value) * total


@lru_cache(maxsize=256)
def masses(lower: float, upper: float) -> tuple[float, float, float]:
    """Phi(lower), Phi(upper) - Phi(lower), 1 - Phi(upper), each rounded once."""
    with localcontext() as context:
        context.prec = _precision(lower, upper)
        a, b = _cdf(lower), _cdf(upper)
        return float(a), float(b - a), float(1 - b)


@lru_cache(maxsize=256)
def truncated_moments(lower: float, upper: float) -> tuple[float, float]:
    """Mean and standard deviation of N(0, 1) cut to [lower, upper]."""
    with localcontext() as context:
        context.prec = _precision(lower, upper)
        mass = _cdf(upper) - _cdf(lower)
        a, b = (Decimal(max(-60.0, min(60.0, bound))) for bound in (lower, upper))
        low, high = _density(a), _density(b)
        mean = (low - high) / mass
        variance = 1 + (a * low - b * high) / mass - mean * mean
        return float(mean), float(variance.sqrt())
