"""What is measured of arrays: exact where it can be, and never a warning."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanin.audit import measure
from fanin.audit.measure import BLOCK, linear, saturated, signal, spread, unit_rows, weights
from fanin.fans import IO, LOOKUP, OI, Axes
from fanin.model import Member, Model, Piece, Tensor

# spreads


@given(st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=50))
def test_moments_are_those_of_exact_arithmetic(values):
    found = spread(np.array(values))
    mean = math.fsum(values) / len(values)
    size = max(map(abs, values))
    assert found.mean == pytest.approx(mean, abs=1e-14 * size)
    std = math.sqrt(math.fsum((v / size - mean / size) ** 2 for v in values) / len(values)) if size else 0
    assert found.std == pytest.approx(size * std, rel=1e-12, abs=1e-14 * size)
    assert found.rms == pytest.approx(math.hypot(found.mean, found.std))
    assert found.largest == size


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("n", [1, 7, BLOCK, 3 * BLOCK + 5])
def test_a_constant_has_no_spread_at_all(dtype, n):
    values = np.full(n, 0.1, dtype)
    found = spread(values)
    assert (found.std, found.mean, found.rms, found.largest) == (0.0, *[float(values[0])] * 3)


def test_a_small_spread_about_a_large_mean_is_not_lost():
    values = 1e6 + np.random.default_rng(0).normal(size=100_000)
    assert spread(values).std == pytest.approx(np.std(values), rel=1e-9)


@pytest.mark.parametrize("exponent", [-300, 0, 300])
def test_sizes_neither_under_nor_overflow(exponent):
    found = spread(np.array([3.0, 4.0]) * 10.0**exponent)
    assert found.rms == pytest.approx(math.sqrt(12.5) * 10.0**exponent)


def test_what_is_not_finite_is_counted_and_left_out():
    found = spread(np.array([3.0, np.nan, -4.0, np.inf, 0.0, -np.inf], np.float32))
    assert (found.n, found.broken, found.zeros, found.largest) == (6, 3, 1 / 6, 4.0)
    assert found.rms == pytest.approx(math.sqrt(25 / 3))
    nothing = spread(np.full(4, np.nan))
    assert (nothing.n, nothing.broken, nothing.rms, nothing.std) == (4, 4, 0.0, 0.0)
    assert spread(np.zeros((0, 3))).n == 0


def test_magnitudes_are_a_histogram_of_exponents():
    assert spread(np.array([0.25, 0.3, -1.0, 1.99, 0.0])).magnitudes == {-2: 2, 0: 2}


def test_a_view_is_measured_as_its_copy():
    values = np.random.default_rng(0).normal(size=(40, 30, 20))[::2, :, ::3].transpose(2, 0, 1)
    found, copied = spread(values), spread(np.ascontiguousarray(values))
    assert (found.mean, found.std, found.n) == pytest.approx((copied.mean, copied.std, copied.n), rel=1e-12)


# signals


def test_units_are_counted_along_their_axis():
    images = np.random.default_rng(0).normal(size=(8, 5, 4, 4))
    images[:, 2] = 0
    images[:, 3] = 7.0
    found = signal(images, units=1)
    assert (found.units, found.dead, found.constant) == (5, 0.2, 0.4)
    assert found.offset >= 7 / math.sqrt(5)
    assert found.rows == 8


@pytest.mark.parametrize("direction", [np.ones(64), np.r_[1.0, np.zeros(63)]])
def test_rows_that_point_one_way_have_cosine_and_rank_one(direction):
    found = signal(np.outer(np.arange(1.0, 30), direction))
    assert (found.cosine, found.rank) == (pytest.approx(1), pytest.approx(1))


def test_orthogonal_rows_have_no_cosine_and_full_rank():
    found = signal(np.eye(16))
    assert (found.cosine, found.rank) == (pytest.approx(0), pytest.approx(16))


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_cosines_do_not_feel_the_size(size):
    values = np.random.default_rng(0).normal(size=(10, 50))
    assert signal(values * size).cosine == pytest.approx(signal(values).cosine)


@pytest.mark.parametrize(
    "values", [np.zeros((4, 3)), np.full((4, 3), np.nan), np.zeros((1, 3)), np.array(1.0)]
)
def test_without_two_rows_there_is_no_cosine(values):
    assert signal(values).cosine is None


# activations


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("tanh", lambda z: 1 - math.tanh(z) ** 2),
        ("sigmoid", lambda z: 1 / (2 + math.exp(z) + math.exp(-z))),
        ("softsign", lambda z: (1 + abs(z)) ** -2),
        ("erf", lambda z: math.exp(-z * z)),
    ],
)
def test_flat_is_where_the_slope_is_a_twentieth(name, slope):
    low, high = measure.STEEP[name]
    assert slope(high) == pytest.approx(slope(0) / 20, rel=1e-3)
    assert low == -high
    assert saturated(name, np.array([0.9 * high, 1.1 * high])) == 0.5
    assert saturated("relu", np.array([9.0])) is None


def test_a_softmax_is_saturated_where_one_entry_takes_all():
    scores = np.zeros((4, 4))
    assert saturated("softmax", scores) == 0.0
    scores[:2, 1] = 9
    assert saturated("softmax", scores) == 0.5
    causal = np.where(np.tri(4, dtype=bool), 0.0, -np.inf)
    assert saturated("softmax", causal) == 0.0
    assert saturated("softmax", np.where(np.tri(4, dtype=bool), 0.0, np.finfo(np.float32).min)) == 0.0


def test_a_unit_that_is_never_negative_is_linear():
    before = np.array([[1.0, -1.0, 2.0], [3.0, 2.0, 1.0]])
    assert linear("relu", before) == pytest.approx(2 / 3)
    assert linear("tanh", before) is None


# weights


def measured(values, *gradients, axes=IO, role="kernel", step=None):
    """One parameter's numbers."""
    tensor = Tensor("w", values.shape, str(values.dtype), (Piece("w", role, "linear", axes),))
    reads = [lambda _, array=array: array for array in (values, *gradients)]
    (found,) = weights(Model((tensor,)), reads[0], reads[1:], step)
    return found


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_weights_are_told_by_their_law():
    n = 500_000
    drawn = measured(normal(500, 1000))
    # the kurtosis of a normal sample errs by sqrt(24 / n)
    assert drawn.kurtosis == pytest.approx(3, abs=5 * math.sqrt(24 / n))
    assert drawn.positive == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / n))
    assert drawn.weight_variance == pytest.approx(500, rel=5 * math.sqrt(2 / n))
    assert (drawn.bits, drawn.fan_in, drawn.fan_out) == (24, 500.0, 1000.0)
    coarse = measured(normal(50, 60).astype(ml_dtypes.bfloat16).astype(np.float32))
    assert coarse.bits == 8
    assert measured(np.zeros((3, 3), np.float32)).bits == 0


def test_rows_and_columns_may_be_orthogonal():
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 300)))
    for part in (q, q[:200], q[:, :100]):
        assert measured(part).orthogonal < 1e-12
    assert measured(normal(300, 300)).orthogonal > 0.1
    assert measured(np.zeros((3, 3))).orthogonal is None


def test_equal_tensors_have_equal_digests():
    values = normal(4, 5)
    assert measured(values).digest == measured(values.T.copy(), axes=OI).digest
    assert measured(values).digest != measured(-values).digest


def test_units_are_rows_of_outputs():
    values = np.arange(24.0).reshape(2, 3, 4)
    member = Member("w", (2, 3, 4), IO)
    assert unit_rows(np.ascontiguousarray(values.transpose(2, 1, 0)), member).shape == (4, 6)
    assert unit_rows(np.zeros((6, 2)), Member("w", (6, 2), LOOKUP)).shape == (6, 2)


def test_units_with_equal_values_and_gradients_are_tied():
    values = np.full((8, 16), 0.1, np.float32)
    same, other = np.ones_like(values), normal(8, 16)
    assert measured(values, same).tied == 15
    assert measured(values, same).effective_width == 1
    assert measured(values, other).tied == 0
    assert measured(values, same, other).tied == 0  # they come apart after a step
    assert measured(values).tied is None
    assert measured(values).effective_width == 1


def test_rounding_does_not_part_twins():
    values = np.full((8, 16), 0.1, np.float32)
    gradient = np.ones((8, 16), np.float32) * (1 + 1e-7 * normal(8, 16))
    assert measured(values, gradient).tied == 15
    assert measured(values, 1 + 1e-3 * normal(8, 16)).tied == 0


def test_a_duplicated_unit_is_one_tie():
    values, gradient = normal(64, 32), normal(64, 32, seed=1)
    values[:, 5] = values[:, 9]
    assert measured(values, gradient).tied == 0
    gradient[:, 5] = gradient[:, 9]
    assert measured(values, gradient).tied == 1
    assert (measured(values).units, measured(values).distinct) == (32, 31)


def test_classes_of_twins_are_counted_apart():
    values = np.repeat(normal(8, 4), 4, axis=1)
    gradient = np.repeat(normal(8, 8, seed=1), 2, axis=1)
    assert measured(values, gradient).tied == 16 - 8


def test_units_without_a_gradient_are_left_out_unless_all_are_one():
    zeros, gradient = np.zeros((8, 16), np.float32), normal(8, 16)
    gradient[:, 3:] = 0
    assert measured(zeros, gradient).tied == 0
    assert measured(zeros, np.zeros_like(zeros)).tied == 15
    assert measured(normal(8, 16), np.zeros_like(zeros)).tied == 0


def test_a_row_that_begins_as_another_is_no_twin():
    values = normal(32, 8)
    values[:8] = values[:8, :1]
    assert measured(values).distinct == 8


def test_the_first_step_is_a_share_of_the_weights():
    values, gradient = normal(8, 4), normal(8, 4, seed=1)

    def half(role, values, gradient):
        assert role == "kernel"
        return -0.5 * values

    assert measured(values, gradient, step=half).update == pytest.approx(0.5)
    assert measured(np.zeros_like(values), gradient, step=half).update is None


def test_members_of_a_packed_tensor_are_measured_apart():
    axes = Axes.parse("(s o) i -> s : o | i", members={"s": ("q", "k")})
    values = np.concatenate([np.ones((2, 3)), np.full((2, 3), 2.0)])
    tensor = Tensor("qk", (4, 3), "float64", (Piece("{}.weight", "kernel", "linear", axes),))
    found = list(weights(Model((tensor,)), lambda _: values))
    assert [(each.name, each.values.mean, each.shape) for each in found] == [
        ("q.weight", 1.0, (2, 3)),
        ("k.weight", 2.0, (2, 3)),
    ]
