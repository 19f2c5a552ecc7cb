"""Faults planted in models of Flax, and models without: it names the first and lets the others pass."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from audit_cases import Fault, Healthy, judge
from flax import nnx

import fanin
import fanin.jax as fj
from fanin.recipe import Recipe

BATCH, WIDTH, CLASSES = 64, 48, 10


def draws(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def classes(output: Any, batch: Any) -> Any:
    labels = jnp.arange(len(output)) % output.shape[-1]
    return -jnp.take_along_axis(jax.nn.log_softmax(output), labels[:, None], 1).mean()


def next_words(output: Any, batch: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(output), batch[..., None], -1).mean()


# --- models --------------------------------------------------------------------------------------


class Mlp(nnx.Module):
    def __init__(self, sizes: list[int], phi: Callable[[Any], Any] = nnx.relu) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List(nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes))
        self.phi = phi

    def __call__(self, x: Any) -> Any:
        *hidden, head = self.layers
        for layer in hidden:
            x = self.phi(layer(x))
        return head(x)


class Sequence(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(WIDTH, WIDTH, rngs=rngs))
        self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.lstm(x)[:, -1])


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm_1, self.norm_2 = (nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(4, WIDTH, decode=False, dropout_rate=0.1, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        mask = nnx.make_causal_mask(jnp.ones(x.shape[:2]))
        x = x + self.attention(self.norm_1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm_2(x))))


class Gpt(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.wte, self.wpe = nnx.Embed(CLASSES, WIDTH, rngs=rngs), nnx.Embed(16, WIDTH, rngs=rngs)
        self.blocks = nnx.List(Block(rngs) for _ in range(2))
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, words: Any) -> Any:
        x = self.wte(words) + self.wpe(jnp.arange(words.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.wte.attend(self.norm(x))


class Branch(nn.Module):
    """A block of a residual network without normalization."""

    zero: bool = False

    @nn.compact
    def __call__(self, x: Any, _: Any) -> tuple[Any, None]:
        inside = nn.relu(nn.Dense(WIDTH)(x))
        inside = nn.Dense(WIDTH)(inside)
        if self.zero:
            inside = inside * self.param("alpha", nn.initializers.zeros, ())
        return x + inside, None


class Residual(nn.Module):
    """Its blocks are stored together."""

    depth: int
    zero: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        scanned = nn.scan(Branch, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        x, _ = scanned(self.zero, name="blocks")(x, None)
        return nn.Dense(CLASSES, name="head")(x)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.relu(nn.BatchNorm(not train)(nn.Conv(16, (3, 3), use_bias=False)(x)))
        for _ in range(2):
            inside = nn.relu(nn.BatchNorm(not train)(nn.Conv(16, (3, 3), use_bias=False)(x)))
            x = nn.relu(x + nn.BatchNorm(not train)(nn.Conv(16, (3, 3), use_bias=False)(inside)))
        return nn.Dense(CLASSES)(x.mean((1, 2)))


# --- how they start ------------------------------------------------------------------------------


def mlp(seed: int, depth: int = 8, recipe: Any = "he_normal", phi: Any = nnx.relu) -> dict[str, Any]:
    model = Mlp([WIDTH] * depth + [CLASSES], phi)
    fj.initialize(model, recipe, seed=seed)
    return {"model": model, "batch": draws(seed, BATCH, WIDTH), "loss": classes}


def changed(case: dict[str, Any], layer: int, change: Callable[[Any], Any], leaf: str = "kernel") -> Any:
    variable = getattr(case["model"].layers[layer], leaf)
    variable.set_value(jnp.asarray(change(variable.get_value())))
    return case


def cloned(seed: int) -> dict[str, Any]:
    case = mlp(seed)
    other = case["model"].layers[2].kernel.get_value()
    return changed(case, 5, lambda kernel: other)


def transposed(seed: int) -> dict[str, Any]:
    """A kernel (256, 64) drawn as one of 64 inputs."""
    model = Mlp([WIDTH, 256, 64, 256, 64, 256, 64, CLASSES])
    fj.initialize(model, "he_normal", seed=seed)
    case = {"model": model, "batch": draws(seed, BATCH, WIDTH), "loss": classes}
    return changed(case, 3, lambda kernel: 2 * kernel)


def twins(seed: int) -> dict[str, Any]:
    """Two units that take and give the same."""
    case = changed(mlp(seed), 3, lambda kernel: kernel.at[:, 1].set(kernel[:, 0]))
    return changed(case, 4, lambda kernel: kernel.at[1].set(kernel[0]))


def lstm(seed: int, forget: float | None = None) -> dict[str, Any]:
    model = Sequence()
    fj.initialize(model, "flax", seed=seed)
    if forget is not None:
        bias = model.lstm.cell.dense_h.bias
        bias.set_value(bias.get_value().at[WIDTH : 2 * WIDTH].set(forget))
    return {"model": model, "batch": draws(seed, 16, 5, WIDTH), "loss": classes}


def residual(seed: int, depth: int, *, zero: bool = False) -> dict[str, Any]:
    model, batch = Residual(depth, zero), draws(seed, BATCH, WIDTH)
    recipe = Recipe([("*.alpha", "zeros"), ("*", "he_normal")]) if zero else "he_normal"
    params = fj.initialize(model, recipe, seed=seed, inputs=(batch,))
    return {"model": model, "params": params, "batch": batch, "loss": classes}


def scaled_in_stack(seed: int) -> dict[str, Any]:
    case = residual(seed, 6, zero=True)
    dense = case["params"]["params"]["blocks"]["Dense_1"]
    dense["kernel"] = dense["kernel"].at[2].multiply(30.0)
    return case


def resnet(seed: int) -> dict[str, Any]:
    model, batch = ResNet(), {"x": draws(seed, 16, 12, 12, 3), "train": True}
    params = fj.initialize(model, "he_normal", seed=seed, inputs=batch)
    return {"model": model, "params": params, "batch": batch, "loss": classes}


def gpt(seed: int) -> dict[str, Any]:
    model = Gpt()
    fj.initialize(model, "gpt2", seed=seed)
    words = np.random.default_rng(seed).integers(0, CLASSES, (8, 16))
    return {"model": model, "batch": words, "loss": next_words}


def deep_tanh(seed: int) -> dict[str, Any]:
    return mlp(seed, 100, fanin.Orthogonal(fanin.critical("tanh").gain), jnp.tanh)


def nothing_drawn(seed: int) -> dict[str, Any]:
    return mlp(seed, 4, fanin.Constant(0.1), jnp.tanh)


FAULTS = [
    Fault(
        "a layer ten times too large",
        lambda s: changed(mlp(s), 4, lambda w: 10 * w),
        "scaled-layer",
        "layers.4",
    ),
    Fault("one of a stack thirty times too large", scaled_in_stack, "scaled-layer", "blocks.2.Dense_1"),
    Fault("a layer of zeros", lambda s: changed(mlp(s), 3, jnp.zeros_like), "zero-layer", "layers.3"),
    Fault(
        "a bias that no unit passes",
        lambda s: changed(mlp(s), 4, lambda b: b - 30, "bias"),
        "dead-bias",
        "layers.4",
    ),
    Fault(
        "a unit of nan",
        lambda s: changed(mlp(s), 2, lambda w: w.at[:, 3].set(jnp.nan)),
        "not-finite",
        "layers.2",
    ),
    Fault("one layer copied to another", cloned, "repeated-tensor", "layers.5"),
    Fault("one constant everywhere", nothing_drawn, "symmetry", "layers.1"),
    Fault("two units tied", twins, "symmetry", "layers.3"),
    Fault("the fan of a transposed kernel", transposed, "wrong-fan", "layers.3"),
    Fault("LeCun's gain before ReLU", lambda s: mlp(s, 20, "lecun_normal"), "wrong-gain", "layers.0"),
    Fault(
        "tanh layers of variance 1",
        lambda s: mlp(s, 6, fanin.RandomNormal(0.0, 1.0), jnp.tanh),
        "wrong-gain",
        "layers.1",
    ),
    Fault(
        "a forget gate that never forgets",
        lambda s: lstm(s, 30.0),
        "saturated-gate",
        "lstm.bias_ih.forget_gate",
    ),
    Fault(
        "values that were bfloat16",
        lambda s: changed(mlp(s), 3, lambda w: w.astype("bfloat16").astype("float32")),
        "coarse-values",
        "layers.3",
    ),
    Fault("branches that are not scaled", lambda s: residual(s, 24), "residual-scale", "blocks.23.Dense_1"),
]
HEALTHY = [
    Healthy("ReLU layers, He", mlp),
    Healthy("ReLU layers, Flax's start", lambda s: mlp(s, 3, "flax")),
    Healthy("100 orthogonal tanh layers at criticality", deep_tanh),
    Healthy("LSTM", lstm),
    Healthy("GPT-2", gpt),
    Healthy("ResNet with batch norm", resnet),
    Healthy("ReZero, blocks stored together", lambda s: residual(s, 12, zero=True)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_first(fault: Fault) -> None:
    verdict = judge(fault, fj.audit)
    assert verdict.right, f"expected {verdict.expected}, found {verdict.found}"


@pytest.mark.parametrize("healthy", HEALTHY, ids=lambda healthy: healthy.name)
def test_a_healthy_model_has_no_warning(healthy: Healthy) -> None:
    verdict = judge(healthy, fj.audit)
    assert verdict.right, verdict.found
