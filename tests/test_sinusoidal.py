"""Sinusoidal: against the formula in wide arithmetic, at late positions, and its errors."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

import fanin
from fanin.errors import ArgumentError, ShapeError
from fanin.normal import pi


def table(entries, features, period=10000.0, halves=False, closed=False):
    """The table in NumPy's float64: good to about positions * 2**-53."""
    half = features // 2
    omega = period ** (-np.arange(half) / (half - 1 if closed else half))
    phase = np.arange(entries)[:, None] * omega
    sin, cos = np.sin(phase), np.cos(phase)
    return np.concatenate((sin, cos), 1) if halves else np.stack((sin, cos), 2).reshape(entries, features)


@pytest.mark.parametrize(
    "options", [{}, {"halves": True}, {"closed": True}, {"halves": True, "closed": True}]
)
@pytest.mark.parametrize("shape", [(1, 4), (50, 6), (300, 256)])
def test_the_table_is_the_formula(shape, options):
    expected = table(*shape, **options)
    assert np.abs(fanin.Sinusoidal(**options)(shape) - expected).max() <= 2**-24
    wide = fanin.Sinusoidal(**options)(shape, dtype="float64")
    assert np.abs(wide - expected).max() <= shape[0] * 2**-51


def test_a_period_of_its_own():
    assert np.abs(fanin.Sinusoidal(100.0)((40, 8)) - table(40, 8, 100.0)).max() <= 2**-24


def test_the_first_position_is_exactly_zeros_and_ones():
    assert fanin.Sinusoidal()((1, 6)).tolist() == [[0, 1, 0, 1, 0, 1]]


def test_a_late_position_is_as_accurate_as_the_first():
    """Position 10**9 in float64: NumPy's phase alone would be off by 1e-7."""
    late = 10**9
    got = fanin.Sinusoidal()(
        (late + 1, 4), window=(slice(late, late + 1), slice(None)), dtype="float64"
    ).ravel()
    with localcontext() as context:
        context.prec = 60
        phases = [float((late * Decimal(10000) ** (Decimal(-i) / 2)) % (2 * pi())) for i in range(2)]
    expected = [f(phase) for phase in phases for f in (math.sin, math.cos)]
    assert np.abs(got - expected).max() <= late * 2.0**-62


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"period": 1.0}, "`period` must be > 1, got 1.0"),
        ({"period": "x"}, "`period`"),
        ({"halves": 1}, "`halves` must be True or False, got 1"),
        ({"closed": None}, "`closed` must be True or False, got None"),
    ],
)
def test_a_wrong_argument_is_an_error(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        fanin.Sinusoidal(**arguments)


@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, (4,)), ({}, (4, 5)), ({}, (4, 0)), ({"closed": True}, (4, 2)), ({}, (2, 4, 4))],
)
def test_a_wrong_shape_is_an_error(options, shape):
    with pytest.raises(ShapeError, match="an even number of features >= "):
        fanin.Sinusoidal(**options)(shape)
    with pytest.raises(ShapeError, match="an even number of features >= "):
        fanin.Sinusoidal(**options).describe(shape)
