"""The four networks in Keras, on the backend that KERAS_BACKEND names."""

import keras
import numpy as np
from keras import layers
from shared import SEED, main

import fanin.keras as fk


def mlp():
    return keras.Sequential([
        *(keras.Input((12,)), layers.Dense(32, "relu", name="fc1"), layers.Dense(32, "relu", name="fc2")),
        layers.Dense(10, name="head"),
    ])  # fmt: skip


def cnn():
    return keras.Sequential([
        keras.Input((15, 14, 3)),
        layers.Conv2D(8, 3, strides=2, activation="relu", name="stem"),
        layers.Conv2D(16, (3, 2), groups=4, activation="relu", name="grouped"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise"),
        layers.Conv2DTranspose(6, (3, 4), strides=2, activation="relu", name="up"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(10, name="head"),
    ])  # fmt: skip


def lstm():
    return keras.Sequential([
        keras.Input((7,), dtype="int32"),
        layers.Embedding(20, 8, name="embedding"),
        layers.LSTM(16, return_sequences=True, name="lstm"),
        layers.Dense(20, name="head"),
    ])  # fmt: skip


class Encoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(20, 16)
        self.attention = layers.MultiHeadAttention(4, 4)
        self.norm1, self.norm2 = (layers.LayerNormalization(epsilon=1e-5) for _ in range(2))
        self.fc1, self.fc2, self.head = layers.Dense(64), layers.Dense(16), layers.Dense(20)

    def call(self, x):
        x = self.embedding(x)
        y = self.norm1(x)
        x = x + self.attention(y, y)
        x = x + self.fc2(keras.activations.gelu(self.fc1(self.norm2(x)), approximate=False))
        return self.head(x)


NETWORKS = {"mlp": mlp, "cnn": cnn, "lstm": lstm, "encoder": Encoder}


def run(name, recipe, batch):
    model = NETWORKS[name]()
    model(batch)
    plan = fk.initialize(model, recipe, seed=SEED)
    weights = {w.path: keras.ops.convert_to_numpy(w) for w in model.trainable_weights}
    output = keras.ops.convert_to_numpy(model(batch))
    return plan, {tensor.path: weights[tensor.path] for tensor in plan.tensors}, np.asarray(output)


if __name__ == "__main__":
    main(run)
