"""Calibration of JAX models: nnx in place, trees and linen anew; values equal to PyTorch's by their plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import fanin.jax as fj
from fanin.errors import ArgumentError, CalibrationError

X = jax.random.normal(jax.random.key(0), (128, 16))
LIMIT = 1e-4  # of a variance that is to be 1, in float32


class Network(nnx.Module):
    def __init__(self, depth=20):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(16 if not k else 32, 32, rngs=rngs) for k in range(depth)])
        self.head = nnx.Linear(32, 4, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return self.head(x)


class Blocks(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(8, (3, 3))(x)
        for _ in range(3):
            x = x + linen.Conv(8, (3, 3))(linen.gelu(linen.Conv(8, (3, 3))(linen.gelu(x))))
        return linen.Dense(4)(x.mean((1, 2)))


class Stacked(linen.Module):
    @linen.compact
    def __call__(self, x):
        for _ in range(2):
            x = linen.RNN(linen.LSTMCell(24))(x)
        return linen.Dense(4)(linen.tanh(linen.Dense(16)(x[:, -1])))


def test_one_rescale_of_each_layer_is_exact_in_place():
    model = Network()
    plan = fj.plan(model, "lecun_normal", seed=0)
    fj.initialize(model, plan)
    result = fj.calibrate(model, X, plan=plan)
    assert result.model is model
    assert len(result.after) == 20
    assert all(abs(after**2 - 1) < LIMIT for after in result.after.values())
    assert fj.verify(model, result.plan) == []
    again = fj.trace(model, X)
    assert [step.after.std for step in again.operations if step.name == "layers.19"] == [pytest.approx(1)]
    result.undo()
    assert fj.verify(model, plan) == []


@pytest.mark.parametrize(
    ("module", "batch", "layers"),
    [
        (Blocks(), jax.random.normal(jax.random.key(1), (16, 8, 8, 3)), 7),
        (Stacked(), 0.1 * jax.random.normal(jax.random.key(2), (64, 6, 16)), 9),
    ],
)
def test_linen_gets_new_variables(module, batch, layers):
    plan = fj.plan(module, "glorot_uniform", seed=0, inputs=batch)
    variables = fj.initialize(module, plan, inputs=batch)
    result = fj.calibrate(module, batch, params=variables, plan=plan)
    assert len(result.scales) == layers
    assert all(abs((scale.after / scale.target) ** 2 - 1) < LIMIT for scale in result.scales)
    assert fj.verify(result.model, result.plan) == []
    assert fj.verify(variables, plan) == []
    assert jax.tree.structure(result.model) == jax.tree.structure(variables)


@pytest.mark.parametrize(
    "method", ["weight_norm", "krahenbuhl_within", "krahenbuhl_between", "jacobian", "head"]
)
def test_every_method_works_on_a_tree(method):
    shapes = [{"w": jnp.zeros((16, 16)), "b": jnp.zeros(16)}] * 4

    def model(layers, x):
        for layer in layers[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return x @ layers[-1]["w"] + layers[-1]["b"]

    plan = fj.plan(shapes, "lecun_normal", seed=0)
    params = fj.initialize(shapes, plan)
    result = fj.calibrate(model, X, method, params=params, plan=plan)
    assert fj.verify(result.model, result.plan) == []
    assert fj.verify(params, plan) == []
    if method in ("weight_norm", "krahenbuhl_within"):
        first = np.asarray(X @ result.model[0]["w"] + result.model[0]["b"], np.float64)
        assert abs(first.var(0) - 1).max() < 1e-3
        assert abs(first.mean(0) - (0.1 if method == "krahenbuhl_within" else 0.0)).max() < 1e-5


def test_without_a_batch_a_module_tells_its_shape():
    model = Network(6)
    fj.initialize(model, "he_normal", seed=0)
    result = fj.calibrate(model, None, "analytic")
    assert all(abs(after - 1) < 0.1 for after in result.after.values())
    with pytest.raises(CalibrationError, match="begins with Blocks, which does not tell the shape"):
        fj.calibrate(Blocks(), None, "analytic")
    with pytest.raises(ArgumentError, match="lsuv looks at a batch"):
        fj.calibrate(model, None)


def test_branches_are_found_and_patches_are_seen():
    module, batch = Blocks(), jax.random.normal(jax.random.key(1), (16, 8, 8, 3))
    variables = fj.initialize(module, "he_normal", seed=0, inputs=batch)
    result = fj.calibrate(module, batch, "residual_scaling", params=variables)
    assert [scale.layer for scale in result.scales if scale.after == 0] == ["Conv_1", "Conv_3", "Conv_5"]
    result = fj.calibrate(module, batch, "krahenbuhl_within", params=variables, weights="pca")
    first = jax.lax.conv_general_dilated_patches(
        batch, (3, 3), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    kernel = result.model["params"]["Conv_0"]["kernel"]  # patches are channel by channel
    y = first.reshape(-1, 27) @ kernel.transpose(2, 0, 1, 3).reshape(27, 8)
    assert abs(np.corrcoef(np.asarray(y, np.float64).T) - np.eye(8)).max() < 1e-2
    assert result.plan is None


def test_a_kernel_that_is_used_again_is_scaled_once():
    def model(params, x):
        for _ in range(3):
            x = jnp.tanh(x @ params["again"])
        return jnp.tanh(x @ params["then"]) @ params["head"]

    keys = jax.random.split(jax.random.key(5), 3)
    params = {
        name: jax.random.normal(key, (16, 16)) / 8
        for name, key in zip(("again", "then", "head"), keys, strict=True)
    }
    result = fj.calibrate(model, 0.1 * X, params=params)
    assert sorted(result.factors) == ["again", "then"]
    assert all(abs(after**2 - 1) < LIMIT for after in result.after.values())
    assert result.left_out["again#2"] == "its kernel is calibrated in again"


def test_a_dead_layer_is_refused_by_name_and_nothing_is_changed():
    model = Network(3)
    model.layers[1].bias.set_value(jnp.full(32, -1e3))
    before = jax.tree.map(np.asarray, nnx.state(model))
    with pytest.raises(CalibrationError, match=r"^'layers\.2' is dead: its input is zero"):
        fj.calibrate(model, X, per_channel=True)
    after = jax.tree.map(np.asarray, nnx.state(model))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, after)))
    with pytest.raises(ArgumentError, match="lsuv takes no `targets`"):
        fj.calibrate(model, X, targets=1)
