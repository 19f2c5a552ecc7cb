"""A plan reaches a Keras model's variables whole or not at all, with the same bytes on every backend."""

import hashlib
import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import fanin
import fanin.keras as fk
from fanin.errors import PlanError, SeedError
from fanin.fans import Axes
from fanin.plan import Plan
from fanin.recipe import KEEP, Recipe, Rule, role

# Keras reads variables by np.array(variable), which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

KERNELS = Rule(role("kernel", "recurrent_kernel", "bias"), "he_normal", optional=True)
DRAWN = Recipe([KERNELS, Rule(role("*"), "random_normal", optional=True)])


def value(variable):
    return np.array(keras.ops.convert_to_numpy(variable))


def values(model):
    return {at: value(variable).tobytes() for at, variable in enumerate(model.variables)}


def built(layer, shape):
    layer.build((None, *shape))
    return layer


# --- values --------------------------------------------------------------------------------------

OI = Axes((0,), (1,))
# layer, input, the kernel's shape as PyTorch has it, its axes there, and how Keras turns it
TURNED = {
    "dense": (lambda: layers.Dense(5), (3,), (5, 3), OI, (1, 0)),
    "conv2d": (lambda: layers.Conv2D(8, (3, 2)), (9, 9, 4), (8, 4, 3, 2), OI, (2, 3, 1, 0)),
    "grouped": (
        lambda: layers.Conv2D(8, 3, groups=2),
        (9, 9, 4),
        (8, 2, 3, 3),
        Axes((0,), (1,), groups=2),
        (2, 3, 1, 0),
    ),
    "transposed": (
        lambda: layers.Conv2DTranspose(6, (4, 3), strides=(2, 1)),
        (9, 9, 4),
        (4, 6, 4, 3),
        Axes((1,), (0,), stride=2),
        (2, 3, 1, 0),
    ),
    "embedding": (lambda: layers.Embedding(7, 5), (3,), (7, 5), Axes((0,), (1,), lookup=True), (0, 1)),
}


@pytest.mark.parametrize("name", TURNED)
def test_kernels_are_pytorch_s_turned(name):
    make, shape, theirs, axes, turn = TURNED[name]
    layer = built(make(), shape)
    fk.initialize(layer, DRAWN, seed=3)
    init = fanin.RandomNormal() if name == "embedding" else fanin.HeNormal()
    expected = init(theirs, seed=3, name="weight", axes=axes).transpose(turn)
    assert value(layer.trainable_variables[0]).tobytes() == expected.tobytes()


def test_a_depthwise_kernel_is_pytorch_s_grouped_one():
    layer = built(layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 4))
    fk.initialize(layer, "he_normal", seed=3)
    axes = Axes((0,), (1,), groups=4)
    theirs = fanin.HeNormal()((8, 1, 3, 3), seed=3, name="weight", axes=axes)
    expected = theirs.reshape(4, 2, 3, 3).transpose(2, 3, 0, 1)
    assert value(layer.kernel).tobytes() == expected.tobytes()
    assert value(layer.kernel).std() == pytest.approx(np.sqrt(2 / 9), rel=5 / np.sqrt(2 * 72))


def test_projections_of_attention_are_linear_layers():
    layer = layers.MultiHeadAttention(4, 5)
    layer.build((None, 6, 12), (None, 6, 12))
    fk.initialize(layer, DRAWN, seed=3)
    shapes = {"query": (20, 12), "key": (20, 12), "value": (20, 12), "output": (12, 20)}
    for child, shape in shapes.items():
        member = "out_proj" if child == "output" else f"{child[0]}_proj"
        expected = fanin.HeNormal()(shape, seed=3, name=f"{member}.weight", axes="oi").T
        dense = getattr(layer, f"{child}_dense")
        assert value(dense.kernel).reshape(expected.shape).tobytes() == expected.tobytes()
        known = Axes((0,), (), known=OI.fans(shape))
        expected = fanin.HeNormal()(shape[:1], seed=3, name=f"{member}.bias", axes=known)
        assert value(dense.bias).tobytes() == expected.tobytes()


GATES = {
    layers.LSTM: ("input_gate", "forget_gate", "cell_gate", "output_gate"),
    layers.GRU: ("update_gate", "reset_gate", "new_gate"),
}


@pytest.mark.parametrize("kind", GATES)
def test_gates_are_drawn_one_by_one_and_forget_gates_start_at_one(kind):
    layer = built(kind(5), (7, 3))
    fk.initialize(layer, "glorot_normal", seed=3)
    cell = layer.cell
    for at, gate in enumerate(GATES[kind]):
        columns = slice(5 * at, 5 * at + 5)
        for what, kernel, shape in (("ih", cell.kernel, (5, 3)), ("hh", cell.recurrent_kernel, (5, 5))):
            expected = fanin.GlorotNormal()(shape, seed=3, name=f"weight_{what}.{gate}", axes="oi").T
            assert value(kernel)[:, columns].tobytes() == expected.tobytes()
        assert np.all(value(cell.bias)[..., columns] == (gate == "forget_gate"))


def test_the_two_biases_of_a_gru_are_apart():
    layer = built(layers.GRU(5), (7, 3))
    fk.initialize(
        layer, Recipe([("bias_ih.*", "constant(2)"), ("bias_hh.reset*", "ones"), ("*", "zeros")]), seed=0
    )
    expected = np.zeros((2, 15), np.float32)
    expected[0], expected[1, 5:10] = 2, 1
    assert np.array_equal(value(layer.cell.bias), expected)


def test_orthogonal_gates_are_orthogonal():
    layer = built(layers.LSTM(16), (7, 3))
    fk.initialize(layer, "orthogonal", seed=0)
    for gate in np.split(value(layer.cell.recurrent_kernel), 4, axis=1):
        assert np.abs(gate.T @ gate - np.eye(16)).max() < 1e-5


def small():
    """Layers of many kinds, automatic names among them."""
    images = keras.Input((12, 12, 4))
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(images)
    x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.Conv2DTranspose(6, 3, strides=2)(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.Reshape((121, 6))(x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 3)(x, x))
    x = layers.GRU(4, name="reader")(x)
    return keras.Model(images, layers.Dense(3, name="head")(x))


def batch():
    return np.random.default_rng(0).normal(size=(2, 12, 12, 4)).astype(np.float32)


def test_every_parameter_is_set_and_the_output_is_finite():
    model = small()
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan, np.float32))
    plan = fk.initialize(model, "he_normal", seed=1)
    assert len(plan.tensors) == len(model.trainable_variables)
    output = keras.ops.convert_to_numpy(model(batch()))
    assert np.isfinite(output).all()
    assert np.abs(output).max() > 0


def digests(model, plan):
    """{canonical names: SHA-256 of a variable's bytes}."""
    paths = {variable.path: variable for variable in model.trainable_variables}
    return {
        " ".join(piece.name for piece in tensor.pieces): hashlib.sha256(value(paths[tensor.path])).hexdigest()
        for tensor in plan.tensors
    }


PROGRAM = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("models", sys.argv[1])
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)
model = models.small()
plan = models.fk.initialize(model, models.DRAWN, seed=11)
print(json.dumps(models.digests(model, plan)))
"""


@pytest.mark.parametrize("backend", ["jax", "tensorflow", "torch"])
def test_every_backend_has_the_same_bytes(backend):
    """A process of each backend sets its model; this one says what the bytes are."""
    plan = fk.plan(small(), DRAWN, seed=11).with_digests()
    expected = {
        " ".join(piece.name for piece in tensor.pieces): plan.digests[tensor.path] for tensor in plan.tensors
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, __file__],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_a_layer_more_changes_no_other():
    def model(extra):
        x = keras.Input((4,))
        y = layers.Dense(8, name="first")(x)
        if extra:
            y = layers.Dense(8, name="between")(y)
        return keras.Model(x, layers.Dense(2, name="head")(y))

    one, two = model(False), model(True)
    fk.initialize(one, DRAWN, seed=5)
    fk.initialize(two, DRAWN, seed=5)
    for name in ("first", "head"):
        for mine, theirs in zip(one.get_layer(name).weights, two.get_layer(name).weights, strict=True):
            assert value(mine).tobytes() == value(theirs).tobytes()


def test_another_seed_is_another_network():
    model = small()
    fk.initialize(model, DRAWN, seed=1)
    first = values(model)
    fk.initialize(model, DRAWN, seed=2)
    changed = sum(first[at] != now for at, now in values(model).items())
    assert changed == len(model.trainable_variables)  # and the moving averages are as they were


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_the_dtype_of_the_tensor_decides(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has no float64 unless told so, and says it
        layer = built(layers.Dense(5, dtype=dtype), (3,))
        plan = fk.initialize(layer, "he_normal", seed=3)
    kept = "float32" if (dtype, keras.backend.backend()) == ("float64", "jax") else dtype
    expected = fanin.HeNormal()((5, 3), seed=3, name="weight", axes="oi", dtype=kept).T
    assert plan["weight"].dtype == kept == keras.backend.standardize_dtype(layer.kernel.value.dtype)
    assert value(layer.kernel).astype(np.float64).tobytes() == expected.astype(np.float64).tobytes()


def test_mixed_precision_keeps_float32_variables():
    layer = built(layers.Dense(5, dtype="mixed_bfloat16"), (3,))
    fk.initialize(layer, "he_normal", seed=3)
    expected = fanin.HeNormal()((5, 3), seed=3, name="weight", axes="oi").T
    assert value(layer.kernel).tobytes() == expected.tobytes()


def test_keep_leaves_values_as_they_are():
    model = small()
    before = {variable.path: value(variable).tobytes() for variable in model.variables}
    recipe = Recipe(
        [("head.weight", KEEP), ("reader.bias_ih.*", KEEP), ("reader.bias_hh.*", "ones"), ("*", "he_normal")]
    )
    fk.initialize(model, recipe, seed=1)
    head, reader = model.get_layer("head"), model.get_layer("reader").cell
    assert value(head.kernel).tobytes() == before[head.kernel.path]
    assert np.array_equal(value(reader.bias), np.repeat([[0.0], [1.0]], 12, axis=1))  # Keras's zeros, ours


def test_shared_layers_are_set_once():
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,))
    model = keras.Model(x, shared(shared(x)))
    plan = fk.initialize(model, DRAWN, seed=1)
    assert [row.name for row in plan.rows] == ["shared.weight", "shared.bias"]
    assert value(shared.kernel).tobytes() == plan.fill(plan.tensors[0].path).tobytes()


# --- plans as files ------------------------------------------------------------------------------


def test_a_saved_plan_sets_another_model_alike(tmp_path):
    first, second = small(), small()  # the second's automatic names and paths are others
    plan = fk.initialize(first, DRAWN, seed=9)
    plan.save(tmp_path / "plan.json")
    assert fk.initialize(second, str(tmp_path / "plan.json")).seed == 9
    for mine, theirs in zip(first.trainable_variables, second.trainable_variables, strict=True):
        assert mine.path == theirs.path or mine.path.split("/")[0] != theirs.path.split("/")[0]
        assert value(mine).tobytes() == value(theirs).tobytes()
    assert Plan.from_file(tmp_path / "plan.json") == plan


def test_a_model_that_was_saved_has_its_weights_and_names(tmp_path):
    model = small()
    plan = fk.initialize(model, DRAWN, seed=9)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(model.weights, loaded.weights, strict=True):
        assert value(mine).tobytes() == value(theirs).tobytes()
    assert [row.name for row in fk.plan(loaded, DRAWN, seed=9).rows] == [row.name for row in plan.rows]


# --- all or nothing ------------------------------------------------------------------------------


def refused(model, recipe, error, match, **options):
    before = values(model)
    with pytest.raises(error, match=match):
        fk.initialize(model, recipe, **options)
    assert values(model) == before


def test_after_an_error_nothing_is_set(tmp_path):
    model = small()
    refused(model, "he_normal", SeedError, "`seed`")
    refused(model, "he_normall", fanin.errors.UnknownNameError, "he_normal", seed=0)
    refused(model, Recipe([("head.*", "zeros")]), PlanError, "no rule matches stem.weight", seed=0)
    # the last parameter cannot be made: the others are not set either
    bad = Recipe([("head.weight", "convolution_orthogonal_2d"), ("*", "he_normal")])
    refused(model, bad, PlanError, r"'head\.weight'", seed=0)
    plan = fk.plan(model, "he_normal", seed=0)
    refused(model, plan, PlanError, "`seed` 1: the plan has its own, 0", seed=1)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head")])
    refused(other, plan, PlanError, "is not in the model; make the plan for this model")


def test_a_plan_for_another_shape_is_refused():
    def head(units):
        return keras.Sequential([keras.Input((4,)), layers.Dense(units, name="head")])

    plan = fk.plan(head(3), "he_normal", seed=0)
    refused(head(5), plan, PlanError, r"'head\.weight': the plan is for float32 \(4, 3\), the model has")


def test_a_value_out_of_a_narrow_dtype_is_refused():
    layer = built(layers.Dense(5, dtype="float16"), (3,))
    refused(layer, "random_normal(0, 1e5)", PlanError, "float16", seed=0)


def test_planning_touches_nothing():
    model = small()
    before = values(model)
    fk.plan(model, DRAWN, seed=0)
    assert values(model) == before


def test_every_run_of_keras_training_still_works():
    """The variables that training updates are the ones that were set."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head")])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    fk.initialize(model, "he_normal", seed=0)
    before = value(model.get_layer("head").kernel)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model.fit(x, x[:, :3], epochs=1, verbose=0)
    assert not np.array_equal(value(model.get_layer("head").kernel), before)


# --- laws ----------------------------------------------------------------------------------------


def test_the_recipe_keras_has_the_laws_of_keras():
    """Uniform kernels reach, and do not pass, the bounds of Keras's own."""
    model = keras.Sequential(
        [
            keras.Input((16, 16, 8)),
            layers.Conv2D(32, 3, groups=2, name="grouped"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
            layers.Conv2DTranspose(32, 3, strides=2, name="up"),
            layers.Reshape((-1, 32)),
            layers.LSTM(32, return_sequences=True, name="lstm"),
            layers.Dense(64, name="dense"),
        ]
    )
    variables = [variable for variable in model.trainable_variables if variable.name == "kernel"]
    own = [np.abs(value(variable)).max() for variable in variables]
    fk.initialize(model, "keras", seed=0)
    assert len(variables) == 5
    for variable, theirs in zip(variables, own, strict=True):
        count = int(np.prod(variable.shape))
        mine = np.abs(value(variable)).max()
        # the largest of n uniform draws is within 10 / n of the bound but for exp(-10) of the time
        assert mine == pytest.approx(theirs, rel=20 / count)
