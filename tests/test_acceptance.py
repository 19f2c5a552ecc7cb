"""Published numbers: where each is shown, and those that are shown here, framework-free.

Each claim has its code: A2 to A5 gains and mean-field theory, A10 and A11 isometry, A13 to A15 calibration,
A20 starts that keep a function, T1, T2 and T5 training. PyTorch's part is in ``test_torch_acceptance.py``.
"""

import math
import re
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate
from sklearn.datasets import load_digits

import fanin
from fanin.calibrate import calibrated
from fanin.lab.calibrated import Chain
from fanin.lab.network import initialize

ROOT = Path(__file__).parents[1]
SHOWN = {  # {claim: (file, what shows it there)}
    "A2 gains to 1e-5": ("tests/test_gains.py", "test_gains_are_the_known_ones_to_five_decimals"),
    "A2 NF-Nets' to 0.1 %": (
        "tests/test_gains.py",
        "test_the_std_gains_are_those_of_nf_nets_to_their_monte_carlo_error",
    ),
    "A3 tanh's critical line": ("tests/test_meanfield.py", "test_tanhs_critical_line_is_the_known_one"),
    "A3 at q = 1/16": ("tests/test_meanfield.py", "test_tanh_at_a_sixteenth"),
    "A4 half-stable points": ("tests/test_meanfield.py", "test_half_stable_points_are_the_known_ones"),
    "A4 none": ("tests/test_meanfield.py", "test_no_critical_point_is_an_answer"),
    "A5 ReLU's cosines": ("tests/test_meanfield.py", "test_relu_forgets_angles_as_is_known"),
    "A5 in a network": ("tests/test_meanfield.py", "test_a_wide_relu_network_follows_the_map"),
    "A11 392 singular values": (
        "tests/test_convolution.py",
        "test_the_8_channel_operators_have_392_singular_values_one",
    ),
    "A11 one tap": (
        "tests/test_convolution.py",
        "test_delta_orthogonal_is_orthogonals_matrix_at_the_central_tap",
    ),
    "A11 refused": (
        "tests/test_convolution.py",
        "test_fewer_outputs_than_inputs_are_refused_with_the_reason",
    ),
    "A13 one rescale": (
        "tests/adapters/torch/test_torch_calibrate.py",
        "test_one_rescale_of_each_layer_is_exact",
    ),
    "A13 in JAX": (
        "tests/adapters/jax/test_jax_calibrate.py",
        "test_one_rescale_of_each_layer_is_exact_in_place",
    ),
    "A13 in Keras": (
        "tests/adapters/keras/test_keras_calibrate.py",
        "test_one_rescale_of_each_layer_is_exact",
    ),
    "A13 dead layers": (
        "tests/adapters/torch/test_torch_calibrate.py",
        "test_a_dead_layer_is_refused_by_name_and_nothing_is_changed",
    ),
    "A13 tied kernels": (
        "tests/adapters/torch/test_torch_calibrate.py",
        "test_a_layer_used_twice_is_scaled_once",
    ),
    "A13 state": (
        "tests/adapters/torch/test_torch_calibrate.py",
        "test_mode_buffers_gradients_and_generators_are_as_before",
    ),
    "A15 between layers": (
        "tests/adapters/torch/test_torch_calibrate.py",
        "test_between_layers_gradients_get_one_relative_size",
    ),
    "A20 Net2Net": ("tests/test_combinators.py", "test_net2net_keeps_the_function"),
    "A20 not failed": (
        "tests/adapters/torch/test_torch_audit_numbers.py",
        "test_starts_that_keep_a_function_are_not_failed",
    ),
    "A20 in JAX": (
        "tests/adapters/jax/test_jax_audit_numbers.py",
        "test_starts_that_keep_a_function_are_not_failed",
    ),
    "A20 in torch": ("tests/adapters/torch/test_torch_acceptance.py", "test_a20_a_start_keeps_its_function"),
    "T1 thirty ReLU layers": ("examples/thirty_relu_layers.py", "main"),
    "T2 depth of linear networks": ("examples/orthogonal_depth.py", "main"),
    "T5 ReZero": ("examples/rezero.py", "main"),
}


@pytest.mark.parametrize("claim", SHOWN)
def test_what_shows_a_claim_is_there(claim):
    path, name = SHOWN[claim]
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


# --- gains and isometry --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "squared"), [("sigmoid", 3.41), ("elu", 1.55)])
def test_a2_gains_of_another_library(name, squared):
    """ALF's constants, rounded to three digits under the root."""
    assert fanin.gain(name) == pytest.approx(math.sqrt(squared), rel=5e-4)


def product(init, n, layers):
    drawn = (init((n, n), seed=0, name=f"{at}.weight", dtype="float64") for at in range(layers))
    whole = np.eye(n)
    for matrix in drawn:
        whole = whole @ matrix
    return np.linalg.svd(whole, compute_uv=False)


def test_a10_a_product_of_orthogonal_matrices_is_orthogonal_and_a_gaussian_one_far_from_it():
    """Saxe et al. 2014: a hundred of 100 x 100; Gaussian ones are ill-conditioned after ten."""
    assert abs(product(fanin.Orthogonal(), 100, 100) - 1).max() < 1e-10
    gaussian = product(fanin.RandomNormal(0.0, 0.1), 100, 10)
    assert gaussian.max() / np.median(gaussian) > 50


# --- calibration ---------------------------------------------------------------------------------

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = (DIGITS / 16).astype(np.float32)


def on_digits(init, activation, hidden, batch):
    network = initialize(fanin.get(init), (64, *[64] * hidden, 10), 0)
    return Chain(network, DIGITS[batch], LABELS[batch], activation)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_a13_a_few_fresh_batches_do_as_well(activation):
    """The loop of Mishkin and Matas 2016: until a fresh batch finds every variance within a tenth."""
    order = np.random.default_rng(0).permutation(len(DIGITS)).reshape(-1, 599)
    network, rescalings = None, 0
    for batch in (*order, *order):
        chain = on_digits("orthogonal", activation, 20, batch)
        if network is not None:
            chain = Chain(network, DIGITS[batch], LABELS[batch], activation)
        result = calibrated(chain, "lsuv", None, {})
        assert all(abs(after**2 - 1) < 1e-4 for after in result.after.values())
        if all(abs(before**2 - 1) <= 0.1 for before in result.before.values()):
            break
        network, rescalings = chain.network, rescalings + 1
    assert 1 <= rescalings <= 5


@pytest.mark.parametrize(("method", "mean"), [("weight_norm", 0.0), ("krahenbuhl_within", 0.1)])
def test_a14_every_channel_has_its_mean_and_variance_after_one_pass(method, mean):
    chain = on_digits("random_normal(0.0, 1.0)", "relu", 4, slice(0, 256))
    calibrated(chain, method, None, {})
    seen = []
    chain.forward(lambda each: seen.append(each.values.astype(np.float64)))
    assert len(seen) == 5
    for values in seen:
        assert abs(values.mean(0) - mean).max() < 1e-5
        assert abs(values.var(0) - 1).max() < 1e-3


# --- linear networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("matrices", [2, 3, 9])
def test_t2_modes_of_a_linear_network_grow_as_the_closed_form_says(matrices):
    r"""Saxe et al. 2014: from aligned orthogonal matrices a mode's strength obeys an equation of its own.

    .. math:: \tau \dot u = L u^{2 - 2 / L} (s - u), \qquad
              t = \frac{\tau}{2 s} \ln \frac{u (s - u_0)}{u_0 (s - u)}

    with L matrices, the second for L = 2; u within 1 % at every step of gradient descent.
    """
    strengths = np.array([3.0, 2.0, 1.0, 0.5])
    n, rate, start = len(strengths), 1e-3 / matrices, 0.3
    turns = [fanin.Orthogonal()((n, n), seed=at, name="turn", dtype="float64") for at in range(matrices + 1)]
    target = turns[-1] @ np.diag(strengths) @ turns[0].T
    layers = [start ** (1 / matrices) * after @ before.T for before, after in pairwise(turns)]
    steps = 3000
    found = np.empty((steps, n))
    for at in range(steps):
        below = [np.eye(n)]  # products of the first matrices
        for layer in layers:
            below.append(layer @ below[-1])
        found[at] = np.diag(turns[-1].T @ below[-1] @ turns[0])
        above = below[-1] - target
        for k in range(matrices - 1, -1, -1):
            gradient, above = above @ below[k].T, layers[k].T @ above
            layers[k] = layers[k] - rate * gradient
    times = rate * np.arange(steps)
    for mode, s in enumerate(strengths):

        def slope(_, u, s=s):
            return matrices * u ** (2 - 2 / matrices) * (s - u)

        solved = integrate.solve_ivp(slope, (0, times[-1]), [start], t_eval=times, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found[:, mode], solved.y[0], rtol=0.01)
        if matrices == 2:
            known = np.log(found[:, mode] * (s - start) / (start * (s - found[:, mode]))) / (2 * s)
            grown = abs(found[:, mode] - start) > 0.05 * abs(s - start)
            inside = grown & (abs(found[:, mode] - s) > 0.05 * s)
            np.testing.assert_allclose(known[inside], times[inside], rtol=0.01)


def test_t2_at_ten_matrices_an_orthogonal_start_takes_no_longer_than_at_three():
    """The example's hundred take a minute."""
    example = runpy.run_path(str(ROOT / "examples" / "orthogonal_depth.py"))
    order = example["batch_order"](len(example["X"]), example["BATCH"], example["LIMIT"], 1)[:, 0]
    times = {
        name: [
            example["steps_needed"](
                example["drawn"](fanin.get(name), depth, 0), order, example["LIMIT"]
            ).min()
            for depth in (3, 10)
        ]
        for name in ("orthogonal", "lecun_normal")
    }
    assert times["orthogonal"][1] <= example["ORTHOGONAL"] * times["orthogonal"][0]
    assert times["lecun_normal"][1] > example["ORTHOGONAL"] * times["lecun_normal"][0]
