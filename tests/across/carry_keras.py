"""Keras's part, on TensorFlow."""

import carry
import keras
import tensorflow as tf
from in_keras import NETWORKS
from keras import layers

import fanin.keras as fk


def norm():
    parts = layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(epsilon=1e-5, name="bn")
    return keras.Sequential([keras.Input((6, 5, 3)), *parts])


def gru():
    return keras.Sequential([keras.Input((7, 8)), layers.GRU(6, return_sequences=True, name="gru")])


class All(keras.Model):
    def __init__(self):
        super().__init__()
        for name, make in (NETWORKS | {"norm": norm, "gru": gru}).items():
            setattr(self, name, make())

    def call(self, batches):
        return {name: getattr(self, name)(batch) for name, batch in batches.items()}


def build():
    model = All()
    model(carry.batches())
    return model


def outputs(model):
    made = model(carry.batches(), training=False)
    return {name: keras.ops.convert_to_numpy(output) for name, output in made.items()}


def write(folder):
    model = build()
    for at, variable in enumerate(model.weights):
        variable.assign(carry.values(tuple(variable.shape), variable.path, at))
    bias = keras.ops.convert_to_numpy(model.gru.layers[0].cell.bias)
    bias[1, -6:] = 0  # what Flax's cell has not: the new gate's second bias
    model.gru.layers[0].cell.bias.assign(bias)
    model.save(folder / "keras_model.keras")
    model.save_weights(folder / "keras_model.weights.h5")
    tf.train.Checkpoint(model=model).write(str(folder / "keras_objects"))
    tf.saved_model.save(model, str(folder / "keras_saved"))
    fk.plan(model, "keep").save(folder / "keras.json")
    return outputs(model)


def read(file, source):
    model = build()
    plan = fk.transfer(model, file, source=source)
    assert [key for key in plan.unexpected if not key.endswith("num_batches_tracked")] == []
    assert fk.verify(model, plan) == []
    return outputs(model)


carry.main("keras", write, read)
