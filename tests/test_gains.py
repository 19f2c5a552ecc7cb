"""Gains equal the integrals that define them, and the closed forms where there are some."""

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

import fanin
from fanin import gains
from fanin.errors import ArgumentError, UnknownNameError

ALPHA, LAMBDA = 1.6732632423543772848, 1.0507009873554804934  # Klambauer et al. 2017
C = math.sqrt(2 / math.pi)


def sigmoid(x):
    return special.expit(x)


def softplus(x):
    return np.logaddexp(0.0, x)


def density(x):
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def gelu_tanh_slope(x):
    t = np.tanh(C * (x + 0.044715 * x**3))
    return (1 + t) / 2 + x / 2 * (1 - t * t) * C * (1 + 3 * 0.044715 * x * x)


def mish_slope(x):
    t = np.tanh(softplus(x))
    return t + x * (1 - t * t) * sigmoid(x)


# name: (phi, its derivative, where it has a kink)
ACTIVATIONS = {
    "linear": (lambda x: x, np.ones_like, ()),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0, (0,)),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01), (0,)),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2, ()),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x), ()),
    "selu": (
        lambda x: LAMBDA * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0))),
        lambda x: LAMBDA * np.where(x > 0, 1, ALPHA * np.exp(np.minimum(x, 0))),
        (0,),
    ),
    "elu": (
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda x: np.exp(np.minimum(x, 0)),
        (0,),
    ),
    "gelu": (lambda x: x * special.ndtr(x), lambda x: special.ndtr(x) + x * density(x), ()),
    "gelu_tanh": (lambda x: x / 2 * (1 + np.tanh(C * (x + 0.044715 * x**3))), gelu_tanh_slope, ()),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x)), ()),
    "mish": (lambda x: x * np.tanh(softplus(x)), mish_slope, ()),
    "softplus": (softplus, sigmoid, ()),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2, (0,)),
    "erf": (special.erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x), ()),
    "hardtanh": (lambda x: np.clip(x, -1, 1), lambda x: (abs(x) < 1) * 1.0, (-1, 1)),
    "relu_squared": (lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0), (0,)),
}
each_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def expectation(f, kinks):
    """E f(z) by Gauss-Legendre with 40 nodes on pieces of length 1/2 that end at the kinks, on [-13, 13]."""
    ends = np.union1d(np.linspace(-13, 13, 53), kinks)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    mid, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
    x = mid[:, None] + half[:, None] * nodes
    return math.fsum((half[:, None] * weights * f(x) * density(x)).ravel())


@each_activation
def test_the_derivatives_of_this_test_are_those_of_its_activations(name):
    phi, slope, kinks = ACTIVATIONS[name]
    x = np.random.default_rng(0).normal(size=500)
    x = x[[all(abs(at - kink) > 0.01 for kink in kinks) for at in x]]
    h = 1e-5
    np.testing.assert_allclose(slope(x), (phi(x + h) - phi(x - h)) / (2 * h), atol=1e-9)


@each_activation
def test_a_gain_is_the_integral_that_defines_it(name):
    phi, slope, kinks = ACTIVATIONS[name]
    mean = expectation(phi, kinks)
    second = expectation(lambda x: phi(x) ** 2, kinks)
    variance = expectation(lambda x: (phi(x) - mean) ** 2, kinks)
    slopes = expectation(lambda x: slope(x) ** 2, kinks)
    for criterion, moment in (("forward", second), ("std", variance), ("backward", slopes)):
        assert fanin.gain(name, criterion) == pytest.approx(1 / math.sqrt(moment), rel=1e-14), criterion


def test_the_tests_table_is_the_modules():
    assert list(ACTIVATIONS) == gains.activations()


CLOSED = [
    ("relu", "forward", math.sqrt(2)),
    ("relu", "std", 1 / math.sqrt(0.5 - 0.5 / math.pi)),
    ("relu", "backward", math.sqrt(2)),
    ("softplus", "backward", gains.gain("sigmoid")),  # softplus' derivative is the sigmoid
    ("erf", "forward", 1 / math.sqrt(2 / math.pi * math.asin(2 / 3))),
    ("erf", "backward", (math.pi**2 * 5 / 16) ** 0.25),
    ("hardtanh", "backward", 1 / math.sqrt(math.erf(1 / math.sqrt(2)))),
    ("relu_squared", "forward", math.sqrt(2 / 3)),
    ("relu_squared", "std", math.sqrt(4 / 5)),
    ("relu_squared", "backward", math.sqrt(1 / 2)),
    ("selu", "forward", 1.0),  # what its constants were chosen for
]


@pytest.mark.parametrize(("name", "criterion", "expected"), CLOSED)
def test_a_gain_is_its_closed_form_to_the_last_bits(name, criterion, expected):
    assert abs(fanin.gain(name, criterion) - expected) <= 2 * math.ulp(expected)


PUBLISHED = {  # (forward, std, backward), five decimals
    "linear": (1, 1, 1),
    "relu": (1.414214, 1.712859, 1.414214),
    "tanh": (1.592537, 1.592537, 1.467414),
    "sigmoid": (1.846229, 4.801313, 4.722646),
    "selu": (1.0, 1.0, 0.966026),
    "elu": (1.245198, 1.270843, 1.223429),
    "gelu": (1.533530, 1.700926, 1.481114),
    "gelu_tanh": (1.533581, 1.700917, 1.481168),
    "silu": (1.676532, 1.787187, 1.623320),
    "mish": (1.486848, 1.592025, 1.444755),
    "softplus": (1.041867, 1.919126, 1.846229),
    "softsign": (2.337533, 2.337533, 2.095781),
    "erf": (1.467167, 1.467167, 1.325218),
    "hardtanh": (1.392036, 1.392036, 1.210287),
    "relu_squared": (0.816497, 0.894427, 0.707107),
    "leaky_relu": (1.414143, 1.704832, 1.414143),
}


@each_activation
def test_gains_are_the_known_ones_to_five_decimals(name):
    found = [fanin.gain(name, criterion) for criterion in ("forward", "std", "backward")]
    assert found == pytest.approx(PUBLISHED[name], abs=1e-5)


def test_the_std_gains_are_those_of_nf_nets_to_their_monte_carlo_error():
    """Brock et al. 2021 measured them on samples: within 0.1 %."""
    measured = {
        "relu": 1.7139588594436646,
        "gelu": 1.7015043497085571,
        "silu": 1.7881293296813965,
        "tanh": 1.5939117670059204,
        "sigmoid": 4.803835391998291,
        "softplus": 1.9203323125839233,
        "elu": 1.2716004848480225,
        "selu": 1.0008515119552612,
        "softsign": 2.338853120803833,
    }
    for name, value in measured.items():
        assert fanin.gain(name, "std") == pytest.approx(value, rel=1e-3), name


@pytest.mark.parametrize("slope", [-2.0, -1, -0.3, 0, 0.01, 0.2, 0.99, 1, 3])
def test_a_leaky_gain_is_its_integral_for_any_slope(slope):
    def phi(x):
        return np.where(x > 0, x, slope * x)

    mean = expectation(phi, (0,))
    second = expectation(lambda x: phi(x) ** 2, (0,))
    variance = expectation(lambda x: (phi(x) - mean) ** 2, (0,))
    forward, std, backward = (
        fanin.gain("leaky_relu", criterion, slope=slope) for criterion in ("forward", "std", "backward")
    )
    assert forward == pytest.approx(1 / math.sqrt(second), rel=1e-13)
    assert std == pytest.approx(1 / math.sqrt(variance), rel=1e-13)
    assert backward == forward


def test_a_leaky_gain_has_its_limits():
    assert fanin.gain("leaky_relu") == fanin.gain("leaky_relu", slope=0.01)
    for criterion in gains.CRITERIA:
        assert fanin.gain("leaky_relu", criterion, slope=1.0) == fanin.gain("linear", criterion)
        assert fanin.gain("leaky_relu", criterion, slope=0.0) == pytest.approx(
            fanin.gain("relu", criterion), rel=1e-15
        )


def test_synonyms_mean_the_same():
    for criterion in gains.CRITERIA:
        assert fanin.gain("swish", criterion) == fanin.gain("silu", criterion)
        assert fanin.gain("identity", criterion) == fanin.gain("linear", criterion)


def test_a_gain_keeps_the_signal_of_a_wide_layer():
    """Second moment before and after ``gain * W / sqrt(n)`` and phi: 5 deviations of 4 million samples."""
    z = fanin.RandomNormal()((1 << 22,), seed=0, name="z", dtype="float64")
    for name, (phi, _, _) in ACTIVATIONS.items():
        signal = (fanin.gain(name) * phi(z)) ** 2
        assert abs(signal.mean() - 1) < 5 * signal.std() / math.sqrt(z.size), name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("gelu_tanhh", "gelu_tanh"),
        ("leaky", "leaky_relu"),
        ("ReLU6", "known names: bilinear, elu, erf"),
        (3, "no gain for 3"),
    ],
)
def test_an_unknown_activation_lists_the_near_ones(name, near):
    with pytest.raises(UnknownNameError, match=near):
        fanin.gain(name)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"criterion": "foward"}, "`criterion` 'foward'; expected one of backward, forward, std"),
        ({"criterion": "torch"}, "expected one of backward, forward, std$"),
        ({"criterion": "half_stable"}, r"it comes with a bias variance: `fanin.half_stable\(...\).gain`"),
        ({"slope": 0.1}, "`slope` belongs to leaky_relu, but the activation is relu"),
    ],
)
def test_a_wrong_argument_is_named(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        fanin.gain("relu", **arguments)


@pytest.mark.parametrize("slope", [math.nan, math.inf, True, "0.1", 0.1j])
def test_a_slope_is_a_finite_number(slope):
    with pytest.raises(ArgumentError, match="`slope` must be a finite number"):
        fanin.gain("leaky_relu", slope=slope)


# --- gated pairs ---------------------------------------------------------------------------------

GATED = {"bilinear": "linear", "glu": "sigmoid", "reglu": "relu", "geglu": "gelu", "swiglu": "silu"}


@pytest.mark.parametrize(("pair", "name"), GATED.items())
def test_a_gated_pairs_gains_are_those_of_its_product(pair, name):
    """Moments of phi(a) b and of its gradient, over 4 million independent pairs: within 5 deviations."""
    phi, slope, _ = ACTIVATIONS[name]
    a, b = (fanin.RandomNormal()((1 << 22,), seed=0, name=n, dtype="float64") for n in "ab")
    product, gradient = phi(a) * b, (slope(a) * b) ** 2 + phi(a) ** 2
    for criterion, squares in (("forward", product**2), ("std", product**2), ("backward", gradient)):
        error = fanin.gain(pair, criterion) ** 2 * squares.mean() - 1
        assert abs(error) < 5 * squares.std() / squares.mean() / math.sqrt(a.size), criterion
    assert abs(product.mean()) < 5 * product.std() / math.sqrt(a.size)


def test_all_gated_pairs_are_tested():
    assert GATED == gains.GATED
    assert fanin.gain("swiglu") == fanin.gain("silu")


# --- any function --------------------------------------------------------------------------------


@each_activation
def test_a_functions_gain_is_that_of_its_name(name):
    phi, _, _ = ACTIVATIONS[name]
    for criterion in gains.CRITERIA:
        assert fanin.gain(phi, criterion) == pytest.approx(fanin.gain(name, criterion), rel=1e-11), criterion


@each_activation
def test_the_modules_functions_are_those_of_their_names(name):
    x = np.linspace(-30, 30, 1001)
    np.testing.assert_allclose(gains.sampled(name)(x), ACTIVATIONS[name][0](x), rtol=1e-14, atol=1e-14)


def clipped(lower, upper):
    return lambda x: np.clip(x, lower, upper)


# phi, its derivative, kinks: at other places than halves, close together, far apart, and none but steep
OTHERS = {
    "relu6": (clipped(0, 6), lambda x: ((x > 0) & (x < 6)) * 1.0, (0, 6)),
    "hardswish": (
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x > 3, 1.0, np.where(x < -3, 0.0, x / 3 + 0.5)),
        (-3, 3),
    ),
    "hardsigmoid": (lambda x: np.clip(x / 5 + 0.5, 0, 1), lambda x: (abs(x) < 2.5) / 5, (-2.5, 2.5)),
    "between": (clipped(-0.777, 1.1), lambda x: ((x > -0.777) & (x < 1.1)) * 1.0, (-0.777, 1.1)),
    "narrow": (clipped(0.3, 0.3001), lambda x: ((x > 0.3) & (x < 0.3001)) * 1.0, (0.3, 0.3001)),
    "celu": (
        lambda x: np.where(x > 0, x, 0.3 * np.expm1(np.minimum(x, 0) / 0.3)),
        lambda x: np.exp(np.minimum(x, 0) / 0.3),
        (0,),
    ),
    "steep": (
        lambda x: np.tanh(50 * (x - 0.3)),
        lambda x: 50 - 50 * np.tanh(50 * (x - 0.3)) ** 2,
        (0.1, 0.3, 0.5),
    ),
    "sine": (lambda x: np.sin(30 * x), lambda x: 30 * np.cos(30 * x), ()),
    "exponential": (np.exp, np.exp, ()),
    "cubic": (lambda x: x**3 - x, lambda x: 3 * x * x - 1, ()),
    "fast": (lambda x: np.exp(x * x / 8), lambda x: x / 4 * np.exp(x * x / 8), ()),
    "large": (lambda x: 1e12 * np.tanh(x), lambda x: 1e12 / np.cosh(x) ** 2, ()),
    "small": (lambda x: 1e-12 * np.tanh(x), lambda x: 1e-12 / np.cosh(x) ** 2, ()),
}


def by_scipy(f, kinks):
    places = np.union1d(np.linspace(-13, 13, 27), kinks)
    parts = (integrate.quad(lambda x: f(x) * density(x), a, b, limit=200, epsrel=1e-12)[0]
             for a, b in itertools.pairwise(places))  # fmt: skip
    return math.fsum(parts)


@pytest.mark.parametrize("name", OTHERS)
def test_any_functions_gain_is_the_integral_that_defines_it(name):
    phi, slope, kinks = OTHERS[name]
    mean = by_scipy(phi, kinks)
    for criterion, moment in (
        ("forward", by_scipy(lambda x: phi(x) ** 2, kinks)),
        ("std", by_scipy(lambda x: (phi(x) - mean) ** 2, kinks)),
        ("backward", by_scipy(lambda x: slope(x) ** 2, kinks)),
    ):
        # "narrow" is 1e-4 wide, and kinks are found to 1e-10.
        assert fanin.gain(phi, criterion) == pytest.approx(1 / math.sqrt(moment), rel=1e-7), criterion


@given(st.floats(-3, 3), st.floats(-2, 2))
def test_a_kink_may_be_anywhere(kink, slope):
    """phi = (x - k)+ + s (x - k)-: with P = 1 - Phi(k), E phi'^2 = P + s^2 (1 - P), and E phi^2 likewise."""
    above = special.ndtr(-kink)
    square_above = (1 + kink * kink) * above - kink * density(kink)
    square_below = 1 + kink * kink - square_above

    def phi(x):
        return np.where(x > kink, x - kink, slope * (x - kink))

    forward, backward = square_above + slope**2 * square_below, above + slope**2 * (1 - above)
    assert fanin.gain(phi) == pytest.approx(1 / math.sqrt(forward), rel=1e-9)
    assert fanin.gain(phi, "backward") == pytest.approx(1 / math.sqrt(backward), rel=1e-7)


def test_a_kink_costs_few_ends_of_panels():
    """At halves and at odd places alike; without it, panels would stay as fine as halving made them."""
    for phi in (clipped(-1, 1), clipped(-0.777, 1.1)):
        assert gains.sampled(phi).pieces(1.0).ends.size < 32


def test_a_smooth_functions_gain_has_the_digits_of_forty():
    with mpmath.workdps(30):

        def mean(f):
            return mpmath.quad(lambda x: f(x) * mpmath.npdf(x), mpmath.linspace(-13, 13, 14))

        forward = 1 / mpmath.sqrt(mean(lambda x: mpmath.atan(x) ** 2))
        backward = 1 / mpmath.sqrt(mean(lambda x: 1 / (1 + x * x) ** 2))
    assert fanin.gain(np.arctan) == pytest.approx(float(forward), rel=1e-14)
    assert fanin.gain(np.arctan, "backward") == pytest.approx(float(backward), rel=1e-12)


def test_a_function_may_be_an_object_a_jump_or_integers():
    class Step:
        def __call__(self, x):
            return x > 0.3

    above = special.ndtr(-0.3)
    assert fanin.gain(Step()) == pytest.approx(1 / math.sqrt(above), rel=1e-10)
    assert fanin.gain(Step(), "std") == pytest.approx(1 / math.sqrt(above * (1 - above)), rel=1e-10)
    assert fanin.gain(lambda x: np.sign(x).astype(int)) == pytest.approx(1, rel=1e-12)


@each_activation
def test_a_function_in_float32_is_within_a_millionth(name):
    phi, _, _ = ACTIVATIONS[name]
    for criterion in gains.CRITERIA:
        got = fanin.gain(lambda x: phi(x.astype(np.float32)), criterion)
        assert got == pytest.approx(fanin.gain(name, criterion), rel=1e-6), criterion


def test_a_naive_formula_that_overflows_on_its_way_is_no_error():
    """Warnings are errors here."""
    got = fanin.gain(lambda x: x / (1 + np.exp(-(x**3) * x * x)))
    assert got == pytest.approx(fanin.gain(lambda x: x * special.expit(x**5)), rel=1e-12)


def test_a_function_is_called_with_one_shape_and_may_spoil_what_it_is_given():
    shapes = []

    def relu_(x):
        shapes.append((x.shape, x.dtype))
        return np.maximum(x, 0, out=x)

    assert fanin.gain(relu_, "std") == pytest.approx(fanin.gain("relu", "std"), rel=1e-14)
    assert set(shapes) == {((gains.CALL,), np.dtype(np.float64))}
    assert len(shapes) < 10


def test_gaining_loads_no_framework(python):
    program = """
import sys, fanin
fanin.gain(lambda x: x * x), fanin.critical("gelu", bias_variance=0.1)
try:
    fanin.gain(lambda x: x.relu())
except ValueError as error:
    assert "numpy: 'numpy.ndarray' object has no attribute 'relu'" in str(error), error
print(*sorted({"torch", "jax", "tensorflow", "keras", "scipy"} & set(sys.modules)))
"""
    assert python(program) == "\n"


# Functions of each framework, and the names that they have here.
FRAMEWORKS = {
    "torch": """
import torch
from torch import nn
F = nn.functional
functions = {
    "gelu": [F.gelu, nn.GELU(), lambda x: F.gelu(x.float())], "gelu_tanh": [nn.GELU("tanh")],
    "relu": [lambda x: x.clamp(min=0), nn.ReLU(inplace=True)], "mish": [F.mish], "silu": [nn.SiLU()],
    "tanh": [torch.tanh, nn.Sequential(nn.Identity(), nn.Tanh())], "hardtanh": [F.hardtanh],
}
refused = {
    nn.GLU(): "shape (256,)", nn.Softmax(dim=-1): "each element alone", nn.RReLU(): "each element alone",
    nn.Linear(3, 3): "torch: mat1 and mat2", (lambda x: x.half()): "float16",
}
prelu = nn.PReLU(init=0.3)
assert abs(fanin.gain(prelu, "backward") - fanin.gain("leaky_relu", slope=0.3)) < 1e-6
assert prelu.weight.requires_grad and prelu.weight.grad is None
""",
    "jax": """
import jax, jax.numpy as jnp
functions = {
    "silu": [jax.nn.silu, lambda x: x * jax.nn.sigmoid(x), lambda x: jax.nn.silu(x.astype("float32"))],
    "gelu_tanh": [jax.nn.gelu], "relu": [lambda x: jnp.maximum(x, 0)], "selu": [jax.jit(jax.nn.selu)],
}
refused = {jax.nn.softmax: "each element alone", (lambda x: x.astype("bfloat16") * 1): "bfloat16"}
assert abs(fanin.gain(jnp.tanh, "backward") - fanin.gain("tanh", "backward")) < 1e-12
assert jnp.ones(2).dtype == "float32"  # double precision was for the function alone
""",
    "tensorflow": """
import keras
import tensorflow as tf
functions = {
    "relu": [tf.nn.relu], "selu": [tf.function(tf.nn.selu)], "silu": [lambda x: x * tf.sigmoid(x)],
    "elu": [lambda x: tf.nn.elu(tf.cast(x, "float32"))], "softplus": [tf.math.softplus],
    "gelu": [keras.activations.gelu], "leaky_relu": [keras.layers.LeakyReLU(0.01)], "tanh": [keras.ops.tanh],
    "mish": [keras.layers.Activation("mish")],
}
refused = {
    tf.nn.softmax: "each element alone", (lambda x: tf.reduce_sum(x)): "shape ()",
    keras.layers.Flatten(): "shape (512, 1)",
}
""",
}
IN_FRAMEWORK = """
import fanin, re
{functions}
for name, several in functions.items():
    for phi in several:
        for criterion in ("forward", "std", "backward"):
            got, expected = fanin.gain(phi, criterion), fanin.gain(name, criterion)
            assert abs(got / expected - 1) < 1e-6, (name, phi, criterion, got, expected)
for phi, said in refused.items():
    try:
        fanin.gain(phi)
    except fanin.ArgumentError as error:
        assert str(error).startswith("`activation` ") and said in str(error), error
    else:
        raise AssertionError(phi)
print("all", len(functions))
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_functions_of_a_framework_have_gains(framework, python):
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}
    printed = python(IN_FRAMEWORK.format(functions=FRAMEWORKS[framework]), **quiet)
    assert printed.splitlines()[-1].startswith("all ")


random = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("phi", "criterion", "said"),
    [
        (lambda x: x[:3], "forward", r"it returned shape \(3,\) for an array of shape \(512,\)"),
        (lambda x: float(x.sum()), "forward", r"it returned shape \(\)"),
        (lambda x: x * 1j, "forward", "it returned complex128; real numbers"),
        (lambda x: x.astype(str), "forward", "it returned <U32; real numbers"),
        (lambda x: x.astype(np.float16), "forward", "it computes in float16; float32 or float64 is needed"),
        (np.log, "forward", "is nan at -"),
        (lambda x: 1 / x.clip(0), "std", "is inf at -"),
        (lambda x: np.exp(x * x / 3), "forward", r"grows too fast: E phi\^2 at a normal of variance 1.51"),
        (lambda x: np.exp(x * x * x * x), "forward", "is inf at "),
        (lambda x: x + random.normal(size=x.shape), "forward", "of each element alone, but at -4 it is"),
        (lambda x: np.exp(x) / np.exp(x).sum(), "forward", "of each element alone"),
        (np.cumsum, "forward", "of each element alone"),
        (lambda x: np.sin(1e7 * x), "forward", "is too rough: 4096 panels"),
        (np.ones_like, "std", "is constant: it has no gain by 'std'"),
        (np.ones_like, "backward", "is constant: it has no gain by 'backward'"),
        (np.zeros_like, "forward", "is constant: it has no gain by 'forward'"),
        (np.sign, "backward", r"jumps at 0: E phi'\^2 is infinite"),
        (lambda x: np.where(x > 1.234, x, 0), "backward", "jumps at 1.234"),
        (lambda x: np.sqrt(abs(x)), "backward", r"jumps at (0|-?\d.*e-\d+): E phi'\^2 is infinite"),
        (math.tanh, "forward", r"it takes none of the arrays it was called with \(numpy: "),
        (lambda x: max(x, 0), "forward", r"takes none of the arrays .*The truth value of an array"),
    ],
)
def test_a_function_without_a_gain_is_told_why(phi, criterion, said):
    with pytest.raises(ArgumentError, match=r"`activation` .*" + said):
        fanin.gain(phi, criterion)


def test_a_jump_or_a_vertical_tangent_has_a_forward_gain():
    assert fanin.gain(np.sign) == pytest.approx(1, rel=1e-14)
    assert fanin.gain(lambda x: np.sqrt(abs(x))) == pytest.approx((math.pi / 2) ** 0.25, rel=1e-9)


def test_a_function_has_its_own_slope():
    with pytest.raises(
        ArgumentError, match="`slope` belongs to leaky_relu, but the activation is the function tan"
    ):
        fanin.gain(np.tan, slope=0.1)
