"""Flax modules as they start, and the recipe that their values show."""

import pytest
from flax import nnx
from inferred import recovered


class Network(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(200, 32, rngs=rngs)
        self.conv = nnx.Conv(32, 16, (3,), rngs=rngs)
        self.up = nnx.ConvTranspose(16, 8, (3,), strides=(2,), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 8, 16, rngs=rngs, decode=False)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.fc = nnx.Linear(8, 64, rngs=rngs)
        self.cell = nnx.LSTMCell(64, 32, rngs=rngs)


@pytest.mark.parametrize("seed", range(3))
def test_flax_defaults_are_recovered(seed, tmp_path):
    found = recovered(Network(nnx.Rngs(seed)), "jax", tmp_path)
    assert len(found.recipe.rules) <= 9
    assert "# flax default: normal, cut at 2 standard deviations, sigma_w^2 = 1 by fan_in" in found.text
