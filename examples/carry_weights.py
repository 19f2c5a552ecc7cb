"""A Keras model's file into PyTorch: gates in PyTorch's order, kernels turned, batch statistics with them.

``python examples/carry_weights.py`` saves a network of Keras with the plan that tells how it is stored, loads
both into the same network of PyTorch, and prints how far the outputs are apart.
"""

import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"  # two frameworks in one process: here they are one

import keras
import numpy as np
import torch
from keras import layers
from torch import nn

import fanin.keras as fk
import fanin.torch as ft

TOKENS = np.random.default_rng(0).integers(0, 50, (4, 9))


def in_keras():
    return keras.Sequential([
        keras.Input((9,), dtype="int32"),
        layers.Embedding(50, 16, name="embedding"),
        layers.GRU(24, return_sequences=True, name="gru"),
        layers.BatchNormalization(epsilon=1e-5, name="norm"),
        layers.Dense(3, name="head"),
    ])  # fmt: skip


class InTorch(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.gru = nn.Embedding(50, 16), nn.GRU(16, 24, batch_first=True)
        self.norm, self.head = nn.BatchNorm1d(24), nn.Linear(24, 3)

    def forward(self, tokens):
        x = self.gru(self.embedding(tokens))[0]
        return self.head(self.norm(x.mT).mT)


def main():
    old, new = in_keras(), InTorch().eval()
    old.compile("adam", "mse")
    old.fit(TOKENS, np.ones((4, 9, 3)), epochs=3, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        old.save(Path(folder) / "old.keras")
        fk.plan(old, "keep").save(Path(folder) / "old.json")
        plan = ft.transfer(new, Path(folder) / "old.keras", source=Path(folder) / "old.json")
    print(plan.table())
    with torch.no_grad():
        expected, found = keras.ops.convert_to_numpy(old(TOKENS)), new(torch.from_numpy(TOKENS)).numpy()
    print(f"outputs differ by {np.abs(found - expected).max() / np.abs(expected).max():.0e}")


if __name__ == "__main__":
    main()
