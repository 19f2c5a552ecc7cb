"""Mean-field maps are their integrals and closed forms; their points and scales are where iteration leads."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

import fanin
from fanin import gains
from fanin import meanfield as mf
from fanin.errors import ArgumentError, UnknownNameError


def expected(f, q, *kinks):
    """E f(sqrt(q) z) by SciPy, on pieces of one deviation that end at the kinks."""
    ends = np.union1d(np.arange(-13, 14), np.array(kinks) / math.sqrt(q))
    density = lambda z: math.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731
    return math.fsum(
        integrate.quad(lambda z: f(math.sqrt(q) * z) * density(z), a, b, epsabs=1e-13, epsrel=1e-12)[0]
        for a, b in pairwise(ends)
    )


def gelu_slope(x):
    return special.ndtr(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


# phi, its derivative, kinks
PHIS = {
    "tanh": (np.tanh, lambda x: 1 - math.tanh(x) ** 2, ()),
    "gelu": (lambda x: x * special.ndtr(x), gelu_slope, ()),
    "hardtanh": (lambda x: np.clip(x, -1, 1), lambda x: float(abs(x) < 1), (-1, 1)),
}


@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize("q", [1e-3, 0.3, 1.0, 20.0])
def test_the_maps_of_the_variance_are_their_integrals(name, q):
    phi, slope, kinks = PHIS[name]
    second = expected(lambda x: phi(x) ** 2, q, *kinks)
    assert mf.q_map(name, q, 1.7, 0.2) == pytest.approx(1.7 * second + 0.2, rel=1e-9)
    slopes = expected(lambda x: slope(x) ** 2, q, *kinks)
    assert mf.chi(name, q, 1.7) == pytest.approx(1.7 * slopes, rel=1e-9)
    product = expected(lambda x: phi(x) * slope(x) * x, q, *kinks)  # d phi(sqrt(q) z)^2 / dq, times q
    assert mf.q_slope(name, q, 1.7) == pytest.approx(1.7 * product / q, rel=1e-8)


# --- the correlation's map -----------------------------------------------------------------------

CORRELATIONS = (-1, -0.999999, -0.7, 0, 1e-9, 0.3, 0.9, 0.9999, 1 - 1e-9, 1)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2, 1.0, -0.5])
@pytest.mark.parametrize("c", CORRELATIONS)
def test_a_leaky_relus_map_is_its_closed_form(slope, c):
    """Cho and Saul 2009; with a slope, Zhang et al. 2022."""
    arc = (math.sqrt(1 - c * c) + (math.pi - math.acos(c)) * c) / math.pi
    form = ((1 - slope) ** 2 * arc + 2 * slope * c) / (1 + slope**2)
    weight = 2 / (1 + slope**2)
    assert mf.c_map("leaky_relu", c, weight, slope=slope) == pytest.approx(form, abs=2e-9)


@settings(max_examples=25)
@given(st.floats(-1, 1), st.floats(0.01, 30), st.floats(0.1, 5), st.floats(0, 2))
def test_the_error_functions_map_is_its_arcsine(c, q, weight, bias):
    """Williams 1997."""
    moment = 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    product = 2 / math.pi * math.asin(2 * q * c / (1 + 2 * q))
    form = (weight * product + bias) / (weight * moment + bias)
    assert mf.c_map("erf", c, weight, bias, q=q) == pytest.approx(form, abs=1e-9)


@pytest.mark.parametrize("c", [-0.9, 0.0, 0.4, 0.99])
def test_any_functions_map_is_its_double_integral(c):
    """A clip at odd places, by SciPy in two dimensions: for each u the kinks of v are known."""
    lower, upper, q = -0.6, 1.3, 1.5
    phi = lambda x: float(np.clip(x, lower, upper))  # noqa: E731
    rest = math.sqrt(1 - c * c)

    def mean(kink, u):  # E max(v - kink, 0) for v normal around c u
        at = (kink - c * u) / (rest * math.sqrt(q))
        return (
            math.sqrt(q) * rest * (math.exp(-at * at / 2) / math.sqrt(2 * math.pi) - at * special.ndtr(-at))
        )

    inner = lambda u: lower + mean(lower, u) - mean(upper, u)  # noqa: E731
    near = [kink / c + math.sqrt(q) * rest * d for kink in (lower, upper) for d in (-4, 0, 4)] if c else []
    kinks = [at for at in (lower, upper, *near) if abs(at) < 13 * math.sqrt(q)]
    product = expected(lambda u: phi(u) * inner(u), q, *kinks)
    moment = expected(lambda u: phi(u) ** 2, q, lower, upper)
    got = mf.c_map(lambda x: np.clip(x, lower, upper), c, 2.0, 0.1, q=q)
    assert got == pytest.approx((2 * product + 0.1) / (2 * moment + 0.1), abs=1e-8)


def test_relu_forgets_angles_as_is_known():
    c, found = 0.0, {}
    for layer in range(1, 101):
        c = mf.c_map("relu", c, 2.0, q=1.0)
        found[layer] = c
    assert found[1] == pytest.approx(1 / math.pi, abs=1e-9)
    for layer, known in {5: 0.735946, 10: 0.871536, 30: 0.972011, 100: 0.996423}.items():
        assert found[layer] == pytest.approx(known, abs=1e-6)


def test_a_wide_relu_network_follows_the_map():
    """30 layers of 1024 units, eight orthogonal inputs: their cosines are .02 from the map at most."""
    h, c = np.eye(8, 1024) * 32, 0.0
    for layer in range(30):
        w = fanin.HeNormal()((1024, 1024), seed=0, name=f"{layer}.weight", dtype="float64")
        h = np.maximum(h, 0) @ w
        c = mf.c_map("relu", c, 2.0, q=1.0) if layer else 0.0  # the inputs' own cosines are 0
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    assert abs((unit @ unit.T)[np.triu_indices(8, 1)] - c).max() < 0.02


# --- critical points -----------------------------------------------------------------------------

TANH = {  # bias variance: q, weight variance
    0.001: (0.10729, 1.18919),
    0.01: (0.27330, 1.42421),
    0.025: (0.41100, 1.59009),
    0.05: (0.57005, 1.76095),
    0.1: (0.80580, 1.98607),
    0.2: (1.16450, 2.28515),
}


@pytest.mark.parametrize("bias", TANH)
def test_tanhs_critical_line_is_the_known_one(bias):
    point = fanin.critical("tanh", bias_variance=bias)
    assert (point.q, point.weight_variance) == pytest.approx(TANH[bias], abs=1e-5)
    assert point.bias_variance == bias
    by_q = fanin.critical("tanh", q=point.q)
    assert by_q == pytest.approx(point, rel=1e-9)
    assert point.gain == math.sqrt(point.weight_variance)


AT_ONE = {  # weight and bias variance at q = 1
    "tanh": (2.15330, 0.15096),
    "gelu": (2.19370, 0.06719),
    "silu": (2.63517, 0.06247),
    "mish": (2.08732, 0.05582),
    "elu": (1.49678, 0.03466),
    "selu": (0.93321, 0.06679),
    "erf": (1.75620, 0.18414),
    "softsign": (4.39230, 0.19615),
    "relu": (2, 0),
    "linear": (1, 0),
}


@pytest.mark.parametrize("name", AT_ONE)
def test_critical_points_are_the_known_ones_and_fixed(name):
    point = fanin.critical(name, q=1.0)
    assert point[:2] == pytest.approx(AT_ONE[name], abs=1e-5)
    assert mf.chi(name, 1.0, point.weight_variance) == pytest.approx(1, rel=1e-12)
    assert mf.q_map(name, 1.0, *point[:2]) == pytest.approx(1, rel=1e-9)
    assert mf.q_slope(name, 1.0, point.weight_variance) == pytest.approx(point.q_slope, rel=1e-12)


def test_tanh_at_a_sixteenth():
    assert fanin.critical("tanh", q=1 / 16)[:2] == pytest.approx((1.11538, 0.00024), abs=1e-5)


@pytest.mark.parametrize(
    ("phi", "weight", "q"),
    [("tanh", 1, 0), ("gelu", 4, 0), ("erf", math.pi / 4, 0), ("relu", 2, 1), (lambda x: 3 * x, 1 / 9, 1)],
)
def test_without_biases_a_point_is_at_zero_or_anywhere(phi, weight, q):
    point = fanin.critical(phi)
    assert point == pytest.approx((weight, 0, q, 1), abs=1e-9)


def test_elu_near_zero_is_two_lines():
    slopes = (1 + 0.3**2) / 2
    point = fanin.critical(lambda x: np.where(x > 0, x, 0.3 * np.expm1(np.minimum(x, 0))))
    assert point == pytest.approx((1 / slopes, 0, 0, 1), abs=1e-9)


@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
def test_no_critical_point_is_an_answer(name):
    for bias in (0, 0.05, 1):
        assert fanin.critical(name, bias_variance=bias) is None
    for q in (1e-3, 0.1, 1, 10, 30):
        assert fanin.critical(name, q=q) is None
    assert fanin.half_stable(name) is None


def test_a_flat_or_scale_free_function_has_none_with_biases():
    assert fanin.critical("relu", bias_variance=0.05) is None
    assert fanin.critical(np.ones_like) is None
    assert fanin.critical("relu_squared") is None  # no slope at 0


def test_a_sigmoid_is_critical_only_where_it_is_saturated():
    """Checked by SciPy: at that q, chi = 1 and the variance is fixed without biases."""
    point = fanin.critical("sigmoid", q_max=100)
    slopes = expected(lambda x: (special.expit(x) * special.expit(-x)) ** 2, point.q, -4, 0, 4)
    second = expected(lambda x: special.expit(x) ** 2, point.q, -4, 0, 4)
    assert point.q > mf.Q_MAX
    assert point.weight_variance * slopes == pytest.approx(1, rel=1e-9)
    assert point.weight_variance * second == pytest.approx(point.q, rel=1e-9)


HALF_STABLE = {  # weight and bias variance, q
    "gelu": (1.98305826, 0.17292239, (3 + math.sqrt(17)) / 2),
    "gelu_tanh": (1.98288824, 0.17289520, 3.556773),
    "silu": (1.98800468, 0.55514317, 14.320174),
    "mish": (2.01352407, 0.09452179, 1.670169),
}


@pytest.mark.parametrize("name", HALF_STABLE)
def test_half_stable_points_are_the_known_ones(name):
    point = fanin.half_stable(name)
    assert point[:2] == pytest.approx(HALF_STABLE[name][:2], abs=6e-9)
    assert point.q == pytest.approx(HALF_STABLE[name][2], abs=1e-6)
    assert point.q_slope == pytest.approx(1, abs=1e-10)
    assert fanin.critical(name, q=point.q / 2).q_slope > 1 > fanin.critical(name, q=point.q * 2).q_slope


@pytest.mark.parametrize("name", ["tanh", "relu", "linear", "hardtanh", "elu", "selu", "softsign", "erf"])
def test_others_have_no_half_stable_point(name):
    assert fanin.half_stable(name) is None


# --- fixed points and depth scales ---------------------------------------------------------------


def test_selu_times_three_quarters_has_the_known_fixed_point():
    """And 100 layers of 512 units have it, too: activations of std .1996, within .02."""
    weight = 9 / 16
    q = mf.fixed_point("selu", weight)
    values, _, weights = gains.sampled("selu").pieces(q).at_normal(q)
    std = math.sqrt(weights @ values**2 - (weights @ values) ** 2)
    assert std == pytest.approx(0.1996, abs=5e-5)
    assert mf.chi("selu", q, weight) == pytest.approx(1.0037, abs=5e-5)
    selu = gains.FUNCTIONS["selu"]
    x = fanin.RandomNormal()((64, 512), seed=0, name="x", dtype="float64")
    for layer in range(100):
        w = fanin.LecunNormal()((512, 512), seed=0, name=f"{layer}.weight", dtype="float64")
        x = selu(x @ w * 0.75)
    assert abs(x.std() - std) < 0.02


@pytest.mark.parametrize(
    ("name", "weight", "bias"),
    [("tanh", 1.5, 0.05), ("tanh", 2.5, 0.05), ("relu", 1.0, 0.1), ("silu", 2.0, 0.1)],
)
def test_a_depth_scale_is_how_fast_deviations_shrink(name, weight, bias):
    scale = fanin.depth_scale(name, weight, bias)
    assert mf.q_map(name, scale.q, weight, bias) == pytest.approx(scale.q, rel=1e-9)
    near = scale.q * (1 + 1e-5)
    shrunk = (mf.q_map(name, near, weight, bias) - scale.q) / (near - scale.q)
    assert math.exp(-1 / scale.xi_q) == pytest.approx(shrunk, rel=1e-4)
    h = 1e-4  # one-sided: beyond 1 there is no correlation
    shrunk = (scale.c - mf.c_map(name, scale.c - h, weight, bias)) / h
    assert math.exp(-1 / scale.xi_c) == pytest.approx(shrunk, rel=2e-2 if name == "relu" else 1e-3)


def test_order_and_chaos():
    assert fanin.depth_scale("tanh", 1.5, 0.05).c == 1
    chaotic = fanin.depth_scale("tanh", 2.5, 0.05)
    assert 0 < chaotic.c < 0.99
    assert mf.c_map("tanh", chaotic.c, 2.5, 0.05) == pytest.approx(chaotic.c, abs=1e-9)
    for c in (0.0, chaotic.c - 0.1, chaotic.c + 0.1, 0.99):  # every start comes nearer
        nearer = mf.c_map("tanh", c, 2.5, 0.05, q=chaotic.q)
        assert (nearer - c) * (chaotic.c - c) > 0
        assert abs(nearer - chaotic.c) < abs(c - chaotic.c)


def test_where_the_signal_dies_it_halves_as_its_gradients():
    scale = fanin.depth_scale("tanh", 0.5)
    assert scale == pytest.approx((1 / math.log(2), 1 / math.log(2), 0, 1), rel=1e-9)


def test_at_criticality_depth_has_no_end():
    for name, weight in (("relu", 2.0), ("tanh", 1.0), ("linear", 1.0)):
        scale = fanin.depth_scale(name, weight)
        assert scale.xi_c == scale.xi_q == math.inf
    point = fanin.critical("tanh", bias_variance=0.05)
    assert fanin.depth_scale("tanh", *point[:2]).xi_c > 1e7


def test_a_variance_without_end_or_of_zero_is_an_answer():
    assert mf.fixed_point("relu", 2.1) == math.inf
    assert fanin.depth_scale("relu", 2.1, 0.1) is None
    assert mf.fixed_point("tanh", 0.9) == 0
    assert mf.fixed_point("relu", 1.0, 0.1) == pytest.approx(0.2, rel=1e-12)
    assert mf.fixed_point("tanh", 1.5, 0.05, start=100.0) == pytest.approx(mf.fixed_point("tanh", 1.5, 0.05))
    with pytest.raises(ArgumentError, match="the variance grows without end; pass the `q` that is meant"):
        mf.c_map("relu", 0.5, 2.1)
    with pytest.raises(ArgumentError, match="`activation` sign jumps at 0"):
        fanin.depth_scale(np.sign, 1.0)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fanin.critical("tanh", bias_variance=-0.1), "`bias_variance` must be a finite number >= 0"),
        (lambda: fanin.critical("tanh", bias_variance=math.nan), "`bias_variance` .*got nan"),
        (lambda: fanin.critical("tanh", q=0), "`q` must be a finite number > 0, got 0"),
        (
            lambda: fanin.critical("tanh", q=1, bias_variance=0),
            "give `bias_variance` or `q`, not both: got 0 and 1",
        ),
        (lambda: fanin.critical("tanh", q_max=-1), "`q_max` must be a finite number > 0"),
        (lambda: fanin.half_stable("tanh", q_max="1"), "`q_max` must be a finite number > 0, got '1'"),
        (lambda: fanin.depth_scale("tanh", 0), "`weight_variance` must be a finite number > 0, got 0"),
        (lambda: fanin.depth_scale("tanh", True), "`weight_variance` .*got True"),
        (lambda: mf.c_map("tanh", 1.1, 1.0), "`c` must be a correlation from -1 to 1, got 1.1"),
        (lambda: mf.fixed_point("tanh", 1.0, start=-1), "`start` must be a finite number > 0, got -1"),
        (lambda: mf.chi("tanh", 1.0, 1.0, slope=0.1), "`slope` belongs to leaky_relu"),
        (lambda: mf.chi(np.sign, 1.0, 1.0), "`activation` sign jumps at 0"),
        (lambda: mf.q_map(lambda x: x[:2], 1.0, 1.0), r"it returned shape \(2,\)"),
    ],
)
def test_a_wrong_argument_is_named(call, said):
    with pytest.raises(ArgumentError, match=said):
        call()


def test_a_gated_pair_has_no_mean_field_here():
    with pytest.raises(UnknownNameError, match="no gain for 'swiglu'; did you mean silu"):
        fanin.critical("swiglu")
