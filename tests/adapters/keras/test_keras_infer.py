"""Keras models as they start, and the recipe that their values show."""

import keras
import pytest
from inferred import recovered
from keras import layers

# TensorFlow's tensors have the older signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def convolutions():
    return keras.Sequential(
        [
            keras.Input((16, 16, 4)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.SeparableConv2D(16, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(64, activation="gelu"),
            layers.Dense(10),
        ]
    )


def recurrent():
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Embedding(500, 24),
            layers.LSTM(32, return_sequences=True),
            layers.GRU(48, return_sequences=True),
            layers.SimpleRNN(16),
            layers.Dense(3),
        ]
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("build", [convolutions, recurrent])
def test_keras_defaults_are_recovered(build, seed, tmp_path):
    keras.utils.set_random_seed(seed)
    found = recovered(build(), "keras", tmp_path)
    assert len(found.recipe.rules) <= 12
    assert "keras default" in found.text


def test_gates_that_were_drawn_as_one_matrix_are_told(tmp_path):
    keras.utils.set_random_seed(0)
    found = recovered(recurrent(), "keras", tmp_path)
    assert "# one of 4 gates of an orthogonal matrix" in found.text
    assert "# one of 3 gates of an orthogonal matrix" in found.text
