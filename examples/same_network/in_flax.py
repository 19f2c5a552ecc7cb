"""The four networks in Flax nnx."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from shared import SEED, main

import fanin.jax as fj

jax.config.update("jax_default_matmul_precision", "float32")


class MLP(nnx.Module):
    def __init__(self, rngs):
        self.fc1, self.fc2 = nnx.Linear(12, 32, rngs=rngs), nnx.Linear(32, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.fc2(nnx.relu(self.fc1(x)))))


class CNN(nnx.Module):
    def __init__(self, rngs):
        valid = {"padding": "VALID", "rngs": rngs}
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, **valid)
        self.grouped = nnx.Conv(8, 16, (3, 2), feature_group_count=4, **valid)
        self.depthwise = nnx.Conv(16, 32, (3, 3), feature_group_count=16, **valid)
        self.up = nnx.ConvTranspose(32, 6, (3, 4), strides=(2, 2), **valid)
        self.head = nnx.Linear(6, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.depthwise(nnx.relu(self.grouped(nnx.relu(self.stem(x))))))
        return self.head(nnx.relu(self.up(x)).mean((1, 2)))


class LSTM(nnx.Module):
    def __init__(self, rngs):
        self.embedding = nnx.Embed(20, 8, rngs=rngs)
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(8, 16, rngs=rngs))
        self.head = nnx.Linear(16, 20, rngs=rngs)

    def __call__(self, x):
        return self.head(self.lstm(self.embedding(x)))


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.embedding = nnx.Embed(20, 16, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.norm1, self.norm2 = (nnx.LayerNorm(16, epsilon=1e-5, rngs=rngs) for _ in range(2))
        self.fc1, self.fc2 = nnx.Linear(16, 64, rngs=rngs), nnx.Linear(64, 16, rngs=rngs)
        self.head = nnx.Linear(16, 20, rngs=rngs)

    def __call__(self, x):
        x = self.embedding(x)
        y = self.norm1(x)
        x = x + self.attention(y, y)
        x = x + self.fc2(nnx.gelu(self.fc1(self.norm2(x)), approximate=False))
        return self.head(x)


NETWORKS = {"mlp": MLP, "cnn": CNN, "lstm": LSTM, "encoder": Encoder}


def run(name, recipe, batch):
    model = NETWORKS[name](nnx.Rngs(0))
    plan = fj.plan(model, recipe, seed=SEED)
    fj.initialize(model, plan)
    flat = {
        ".".join(map(str, path)): np.asarray(leaf[...])
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    weights = {tensor.path: flat[tensor.path] for tensor in plan.tensors}
    return plan, weights, np.asarray(model(jnp.asarray(batch)))


if __name__ == "__main__":
    main(run)
