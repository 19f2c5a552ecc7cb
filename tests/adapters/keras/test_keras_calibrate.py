"""Calibration of Keras models: the same numbers on every backend."""

import keras
import numpy as np
import pytest
from keras import layers

import fanin.keras as fk
from fanin.errors import ArgumentError, CalibrationError
from fanin.keras._audit_backend import numbers

LIMIT = 1e-4  # of a variance that is to be 1, in float32


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def dense(activation="relu"):
    hidden = [layers.Dense(32, activation) for _ in range(6)]
    return keras.Sequential([keras.Input((16,)), *hidden, layers.Dense(4)])


def residual():
    start = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same")(start)
    for _ in range(2):
        inner = layers.Conv2D(8, 3, padding="same", activation="gelu")(x)
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(inner)])
    return keras.Model(start, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def recurrent():
    lstms = [layers.LSTM(24, return_sequences=True), layers.LSTM(24)]
    return keras.Sequential([keras.Input((6, 16)), *lstms, layers.Dense(16, "tanh"), layers.Dense(4)])


def twice():
    start, layer = keras.Input((16,)), layers.Dense(16, "tanh")
    return keras.Model(start, layers.Dense(4)(layers.Dense(16, "tanh")(layer(layer(start)))))


def values(model):
    return [np.array(numbers(variable)) for variable in model.trainable_variables]


@pytest.mark.parametrize(
    ("build", "batch", "count"),
    [
        (dense, normal(128, 16), 6),
        (residual, normal(16, 8, 8, 3), 5),
        (recurrent, 0.1 * normal(64, 6, 16), 9),
        (twice, 0.1 * normal(128, 16), 2),
    ],
)
def test_one_rescale_of_each_layer_is_exact(build, batch, count):
    model, again = build(), build()
    plan = fk.initialize(model, "glorot_uniform", seed=0)
    before = values(model)
    result = fk.calibrate(model, batch, plan=plan)
    assert len(result.scales) == count
    assert all(abs((scale.after / scale.target) ** 2 - 1) < LIMIT for scale in result.scales)
    fk.initialize(again, result.plan)
    assert all(map(np.array_equal, values(model), values(again)))
    result.undo()
    assert all(map(np.array_equal, values(model), before))


@pytest.mark.parametrize(
    "method", ["weight_norm", "krahenbuhl_within", "krahenbuhl_between", "jacobian", "head"]
)
def test_every_method_works(method):
    model = dense()
    plan = fk.initialize(model, "he_normal", seed=0)
    before = values(model)
    result = fk.calibrate(model, normal(256, 16), method, plan=plan)
    assert not all(map(np.array_equal, values(model), before))
    other = dense()
    fk.initialize(other, result.plan)
    assert all(map(np.array_equal, values(model), values(other)))
    assert all(abs(scale.after / scale.target - 1) < 0.02 for scale in result.scales)


def test_without_a_batch_inputs_tell_their_shape():
    model = dense()
    fk.initialize(model, "he_normal", seed=0)
    result = fk.calibrate(model, None, "analytic")
    assert all(abs(after - 1) < 0.1 for after in result.after.values())
    with pytest.raises(CalibrationError, match="begins with Dense, which does not tell the shape"):
        fk.calibrate(keras.Sequential([layers.Dense(3)]), None, "analytic")


def test_branches_are_found_and_patches_are_seen():
    model, batch = residual(), normal(16, 8, 8, 3)
    fk.initialize(model, "he_normal", seed=0)
    result = fk.calibrate(model, None, "residual_scaling")
    assert [scale.layer for scale in result.scales if scale.after == 0] == ["conv2d.2", "conv2d.4"]
    result.undo()
    before = values(model)
    result = fk.calibrate(model, batch, "krahenbuhl_within", weights="pca")
    first = np.array(numbers(keras.Model(model.inputs[0], model.layers[1].output)(batch)), np.float64)
    assert abs(np.corrcoef(first.reshape(-1, 8).T) - np.eye(8)).max() < 1e-2
    assert result.plan is None
    result.undo()
    assert all(map(np.array_equal, values(model), before))


def test_a_dead_layer_is_refused_by_name_and_nothing_is_changed():
    model = dense()
    fk.initialize(model, "he_normal", seed=0)
    model.layers[1].bias.assign(np.full(32, -1e3, np.float32))
    before = values(model)
    with pytest.raises(CalibrationError, match=r"^'dense\.2' is dead: its input is zero"):
        fk.calibrate(model, normal(64, 16), per_channel=True)
    assert all(map(np.array_equal, values(model), before))
    with pytest.raises(ArgumentError, match="lsuv takes no `targets`"):
        fk.calibrate(model, normal(64, 16), targets=1)
