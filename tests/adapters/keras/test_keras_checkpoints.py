"""Keras's files: the archive, the weights alone, the older form; names as the model itself would say them."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from fanin import checkpoints
from fanin.errors import CheckpointError

# Keras's own, when it saves on PyTorch
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Mixer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4)
        self.stack = [layers.Dense(4, use_bias=False), layers.Dense(4)]

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")
        for layer in (self.inner, *self.stack):
            layer.build((None, 4))

    def call(self, x):
        for layer in (self.inner, *self.stack):
            x = layer(x)
        return x * self.scale


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((5, 4))
    x = layers.LSTM(6, return_sequences=True)(inputs)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.BatchNormalization(scale=False)(layers.LayerNormalization()(x))
    encoder = keras.Sequential([layers.Dense(4), layers.Dense(4, use_bias=False)], name="encoder")
    x = Mixer(name="mixer")(layers.Conv1D(4, 2)(encoder(x)))
    x = layers.Dropout(0.1)(layers.Dense(2, name="head")(x))
    model = keras.Model(inputs, x)
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype == "float32":  # the dropout's seed is not
            variable.assign(rng.normal(size=variable.shape).astype("float32"))
    return model


def named(model):
    """The values of a model by the names that are promised, from its own attributes."""
    by_name = {layer.name: layer for layer in model.layers}
    encoder, mixer, both = by_name["encoder"], by_name["mixer"], by_name["both"]
    (lstm,) = (layer for layer in model.layers if isinstance(layer, layers.LSTM))
    (norm,) = (layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    (scaled,) = (layer for layer in model.layers if isinstance(layer, layers.LayerNormalization))
    (conv,) = (layer for layer in model.layers if isinstance(layer, layers.Conv1D))
    attention = by_name["attention"]
    found = {}

    def add(name, layer, *attributes):
        found.update(
            {f"{name}/{each}": keras.ops.convert_to_numpy(getattr(layer, each)) for each in attributes}
        )

    cell = ("kernel", "recurrent_kernel", "bias")
    add("lstm/cell", lstm.cell, *cell)
    add("both/forward_layer/cell", both.forward_layer.cell, *cell)
    add("both/backward_layer/cell", both.backward_layer.cell, *cell)
    for part in ("query", "key", "value", "output"):
        add(f"attention/{part}_dense", getattr(attention, f"_{part}_dense"), "kernel", "bias")
    add("layer_normalization", scaled, "gamma", "beta")
    add("batch_normalization", norm, "beta", "moving_mean", "moving_variance")
    add("encoder/dense", encoder.layers[0], "kernel", "bias")
    add("encoder/dense_1", encoder.layers[1], "kernel")
    add("conv1d", conv, "kernel", "bias")
    add("head", by_name["head"], "kernel", "bias")
    add("mixer/inner", mixer.inner, "kernel", "bias")
    add("mixer/stack/dense", mixer.stack[0], "kernel")
    add("mixer/stack/dense_1", mixer.stack[1], "kernel", "bias")
    found["mixer/0"] = keras.ops.convert_to_numpy(mixer.scale)
    return found


def read(place):
    with checkpoints.open(place) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.tensors}, checkpoint


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        assert got[name].tobytes() == array.tobytes(), name


def test_an_archive_tells_the_names_of_its_layers_and_variables(tmp_path, model):
    model.save(tmp_path / "m.keras")
    got, checkpoint = read(tmp_path / "m.keras")
    assert checkpoint.kind == "keras"
    assert_same(got, named(model))
    reasons = dict(checkpoint.left_out)
    assert all(reason == "of the optimizer" for name, reason in reasons.items() if "optimizer" in name)
    assert [name for name in reasons if "optimizer" in name]


def test_weights_alone_keep_the_number_of_a_variable_where_the_class_leaves_doubt(tmp_path, model):
    model.save_weights(tmp_path / "m.weights.h5")
    got, checkpoint = read(tmp_path / "m.weights.h5")
    assert checkpoint.kind == "h5"
    doubtful = {"beta": "0", "moving_mean": "1", "moving_variance": "2"}
    expected = named(model)
    for name, number in doubtful.items():
        expected[f"batch_normalization/{number}"] = expected.pop(f"batch_normalization/{name}")
    assert_same(got, expected)


def test_the_older_form_has_the_names_that_keras_gives(tmp_path, model):
    model.save(tmp_path / "m.h5")
    got, checkpoint = read(tmp_path / "m.h5")
    expected = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    seeds = {name for name in expected if "seed" in name}
    assert_same(got, {name: array for name, array in expected.items() if name not in seeds})
    assert checkpoint.metadata["keras_version"] == keras.__version__


def test_weights_in_several_files_are_one_checkpoint(tmp_path, model):
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=2e-6)
    files = {file for files in json.loads((tmp_path / "m.weights.json").read_text())["weight_map"].values()
             for file in files}  # fmt: skip
    assert len(files) > 1
    got, _ = read(tmp_path / "m.weights.json")
    expected = named(model)
    assert len(got) == len(expected)
    assert sorted(map(np.ndarray.tobytes, got.values())) == sorted(map(np.ndarray.tobytes, expected.values()))
    assert got["lstm/cell/0"].tobytes() == expected["lstm/cell/kernel"].tobytes()


def test_a_subclassed_models_layers_are_named_by_its_attributes(tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Dense(3), layers.Dense(2)

        def call(self, x):
            return self.last(self.first(x))

    net = Net()
    net(np.ones((1, 4), "float32"))
    net.save_weights(tmp_path / "m.weights.h5")
    got, _ = read(tmp_path / "m.weights.h5")
    assert set(got) == {"first/kernel", "first/bias", "last/kernel", "last/bias"}
    assert got["first/kernel"].tobytes() == keras.ops.convert_to_numpy(net.first.kernel).tobytes()


def test_bfloat16_is_read(tmp_path):
    net = keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype=keras.DTypePolicy("bfloat16"))])
    net.save(tmp_path / "m.keras")
    with checkpoints.open(tmp_path / "m.keras") as checkpoint:
        assert checkpoint.tensors["dense/kernel"].dtype == "bfloat16"
        held = checkpoint.read("dense/kernel").astype(np.float32)
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(net.layers[0].kernel, "float32"))
    assert held.tolist() == kernel.tolist()


def test_an_archive_cut_short_is_one_clear_error(tmp_path, model):
    path = tmp_path / "m.keras"
    model.save(path)
    whole = path.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            checkpoints.open(path)
