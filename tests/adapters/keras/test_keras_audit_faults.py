"""Faults planted in Keras models, and models without: the audit names the first and lets the others pass.

``python benchmarks/audit_faults.py --framework keras`` judges all of them over many seeds.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from audit_cases import Fault, Healthy, judge
from keras import layers, ops

import fanin
import fanin.keras as fk
from fanin.dtypes import as_dtype

EXAMPLES, WIDTH, CLASSES, LENGTH = 64, 48, 10, 16
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# Keras reads tensors by np.array(tensor), which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# --- batches -------------------------------------------------------------------------------------


def labelled(seed: int, *shape: int) -> tuple[Any, Any]:
    """Standard normal inputs and their classes, as ``fit`` takes them."""
    draws = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return draws, np.arange(shape[0]) % CLASSES


def case(model: keras.Model, batch: Any, loss: Any = LOSS) -> dict[str, Any]:
    return {"model": model, "batch": batch, "loss": loss}


# --- models --------------------------------------------------------------------------------------


def mlp(seed: int, depth: int = 8, recipe: Any = "he_normal", activation: str = "relu") -> dict[str, Any]:
    sizes = [WIDTH] * depth
    return chain(seed, sizes, recipe, activation)


def chain(seed: int, sizes: list[int], recipe: Any, activation: str) -> dict[str, Any]:
    hidden = [layers.Dense(size, activation, name=f"h{at}") for at, size in enumerate(sizes)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, layers.Dense(CLASSES, name="head")])
    fk.initialize(model, recipe, seed=seed)
    return case(model, labelled(seed, EXAMPLES, WIDTH))


def residual(seed: int, depth: int) -> dict[str, Any]:
    """Branches of two layers, no normalization."""
    x = inputs = keras.Input((WIDTH,))
    for at in range(depth):
        inside = layers.Dense(WIDTH, "relu", name=f"inner{at}")(x)
        x = x + layers.Dense(WIDTH, name=f"outer{at}")(inside)
    model = keras.Model(inputs, layers.Dense(CLASSES, name="head")(x))
    fk.initialize(model, "he_normal", seed=seed)
    return case(model, labelled(seed, EXAMPLES, WIDTH))


def lstm(seed: int) -> dict[str, Any]:
    """As Keras starts it: the forget gate's bias is one."""
    keras.utils.set_random_seed(seed)
    made = [keras.Input((5, WIDTH)), layers.LSTM(WIDTH, name="lstm"), layers.Dense(CLASSES, name="head")]
    return case(keras.Sequential(made), labelled(seed, EXAMPLES, 5, WIDTH))


def resnet(seed: int) -> dict[str, Any]:
    def normed(x: Any, activation: str) -> Any:
        x = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
        return layers.Activation(activation)(layers.BatchNormalization()(x))

    inputs = keras.Input((12, 12, 3))
    x = normed(inputs, "relu")
    for _ in range(2):
        x = layers.ReLU()(layers.Add()([x, normed(normed(x, "relu"), "linear")]))
    model = keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
    fk.initialize(model, "he_normal", seed=seed)
    return case(model, labelled(seed, 16, 12, 12, 3))


class Block(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = layers.LayerNormalization(), layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(4, WIDTH // 4, dropout=0.1)
        self.up, self.down = layers.Dense(4 * WIDTH), layers.Dense(WIDTH)
        self.dropout = layers.Dropout(0.1)

    def call(self, x: Any) -> Any:
        inside = self.norm_1(x)
        x = x + self.attention(inside, inside, use_causal_mask=True)
        return x + self.dropout(self.down(ops.gelu(self.up(self.norm_2(x)))))


class Gpt(keras.Model):
    """Its head is its table."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = layers.Embedding(CLASSES, WIDTH), layers.Embedding(LENGTH, WIDTH)
        self.blocks = [Block() for _ in range(depth)]
        self.norm = layers.LayerNormalization()

    def call(self, words: Any) -> Any:
        x = self.wte(words) + self.wpe(ops.arange(ops.shape(words)[1]))
        for block in self.blocks:
            x = block(x)
        return ops.matmul(self.norm(x), ops.transpose(self.wte.embeddings))


def gpt(seed: int) -> dict[str, Any]:
    words = np.random.default_rng(seed).integers(0, CLASSES, (8, LENGTH))
    model = Gpt()
    model(words)
    fk.initialize(model, "gpt2", seed=seed)
    return case(model, (words, words))


def mobile_net(seed: int) -> dict[str, Any]:
    """As published, with its softmax, for small images."""
    keras.utils.set_random_seed(seed)
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=CLASSES)
    return case(model, labelled(seed, 16, 32, 32, 3), "sparse_categorical_crossentropy")


def small_start(seed: int) -> dict[str, Any]:
    """Keras's own start of three layers."""
    keras.utils.set_random_seed(seed)
    made = [layers.Dense(WIDTH, "relu"), layers.Dense(WIDTH, "relu"), layers.Dense(CLASSES, "softmax")]
    model = keras.Sequential([keras.Input((WIDTH,)), *made])
    return case(model, labelled(seed, EXAMPLES, WIDTH), "sparse_categorical_crossentropy")


def deep_tanh(seed: int) -> dict[str, Any]:
    return mlp(seed, 100, fanin.Orthogonal(fanin.critical("tanh").gain), "tanh")


# --- faults --------------------------------------------------------------------------------------


def changed(
    given: dict[str, Any], layer: str, change: Callable[[Any], Any], what: str = "kernel"
) -> dict[str, Any]:
    """A model in which NumPy did something to a parameter."""
    variable = getattr(given["model"].get_layer(layer), what)
    variable.assign(change(values_of(variable)))
    return given


def values_of(variable: keras.Variable) -> Any:
    return np.array(ops.convert_to_numpy(variable.value))


def put(values: Any, at: Any, value: Any) -> Any:
    values[at] = value
    return values


def cloned(seed: int) -> dict[str, Any]:
    given = mlp(seed)
    other = given["model"].get_layer("h2").kernel
    return changed(given, "h5", lambda w: values_of(other))


def twins(seed: int) -> dict[str, Any]:
    """Two units that take and give the same."""
    given = changed(mlp(seed), "h0", lambda w: put(w, (slice(None), 1), w[:, 0]))
    return changed(given, "h1", lambda w: put(w, 1, w[0]))


def transposed(seed: int) -> dict[str, Any]:
    """A kernel (256, 64) drawn as one of 64 inputs."""
    return changed(chain(seed, [256, 64, 256, 64, 256, 64], "he_normal", "relu"), "h3", lambda w: 2 * w)


def forgetful(seed: int) -> dict[str, Any]:
    given = lstm(seed)
    bias = given["model"].get_layer("lstm").cell.bias
    bias.assign(put(values_of(bias), slice(WIDTH, 2 * WIDTH), 30.0))
    return given


def rounded(w: Any) -> Any:
    return np.array(w).astype(as_dtype("bfloat16")).astype(np.float32)


FAULTS = [
    Fault("ten times too large", lambda s: changed(mlp(s), "h4", lambda w: 10 * w), "scaled-layer", "h4"),
    Fault("a layer of zeros", lambda s: changed(mlp(s), "h3", np.zeros_like), "zero-layer", "h3"),
    Fault("no unit passes", lambda s: changed(mlp(s), "h4", lambda b: b - 30, "bias"), "dead-bias", "h4"),
    Fault(
        "a unit of nan",
        lambda s: changed(mlp(s), "h2", lambda w: put(w, (slice(None), 3), np.nan)),
        "not-finite",
        "h2",
    ),
    Fault("one layer copied to another", cloned, "repeated-tensor", "h5"),
    Fault("one constant", lambda s: mlp(s, 4, fanin.Constant(0.1), "tanh"), "symmetry", "h1"),
    Fault("two units tied", twins, "symmetry", "h0"),
    Fault("the fan of a transposed kernel", transposed, "wrong-fan", "h3"),
    Fault("LeCun's gain before ReLU", lambda s: mlp(s, 20, "lecun_normal"), "wrong-gain", "h0"),
    Fault(
        "tanh layers of variance 1",
        lambda s: mlp(s, 6, fanin.RandomNormal(0.0, 1.0), "tanh"),
        "wrong-gain",
        "h1",
    ),
    Fault("a gate that never forgets", forgetful, "saturated-gate", "lstm.bias_ih.forget_gate"),
    Fault("values that were bfloat16", lambda s: changed(mlp(s), "h3", rounded), "coarse-values", "h3"),
    Fault("branches that are not scaled", lambda s: residual(s, 24), "residual-scale", "outer23"),
]
HEALTHY = [
    Healthy("ReLU layers, He", mlp),
    Healthy("Keras's own start of three layers", small_start),
    Healthy("100 orthogonal tanh layers at criticality", deep_tanh),
    Healthy("LSTM", lstm),
    Healthy("GPT-2", gpt),
    Healthy("ResNet with batch norm", resnet),
    # Built once, as all of keras.applications: on JAX each of its shapes is compiled.
    *([Healthy("MobileNetV2", mobile_net)] if keras.backend.backend() == "tensorflow" else []),
]


@pytest.mark.parametrize("given", [*FAULTS, *HEALTHY], ids=lambda given: given.name)
def test_the_audit_is_right(given: Fault | Healthy) -> None:
    verdict = judge(given, fk.audit)
    assert verdict.right, f"expected {verdict.expected}, found {verdict.found}"
