"""The network under comparison: a chain of dense layers, in JAX."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from fanin._types import Array
from fanin.audit import Layer, Trace, of_chain
from fanin.errors import UnknownNameError, near
from fanin.fans import IO
from fanin.initializers import Initializer
from fanin.model import Model, Piece, Tensor, beside

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": lambda z: z,
    "mish": jax.nn.mish,
    "relu": jax.nn.relu,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "tanh": jnp.tanh,
}


class Network(NamedTuple):
    """Weights ``(in, out)`` and biases ``(out,)`` of each layer; the last one is the head."""

    weights: tuple[Any, ...]
    biases: tuple[Any, ...]


def activation_called(name: str) -> Activation:
    """The activation function called ``name``.

    >>> float(activation_called("relu")(jnp.float32(-1.0)))
    0.0
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError(f"activation {name!r}; {near(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def layer_name(index: int, depth: int) -> str:
    """The canonical name of a layer's weight.

    >>> layer_name(0, depth=2), layer_name(2, depth=2)
    ('layers.0.weight', 'head.weight')
    """
    return "head.weight" if index == depth else f"layers.{index}.weight"


def bias_name(kernel: str) -> str:
    """The name of the bias beside a kernel.

    >>> bias_name("head.weight")
    'head.bias'
    """
    return f"{kernel.removesuffix('weight')}bias"


def described(sizes: Sequence[int]) -> Model:
    """The tensors of a network with these units: inputs, hidden layers, classes."""
    depth = len(sizes) - 2
    tensors = []
    for index, shape in enumerate(pairwise(sizes)):
        kernel = layer_name(index, depth)
        bias, beside_it = bias_name(kernel), beside(IO.fans(shape))
        role = "head" if index == depth else "kernel"
        tensors.append(Tensor(kernel, shape, "float32", (Piece(kernel, role, "linear", IO),)))
        tensors.append(Tensor(bias, shape[1:], "float32", (Piece(bias, "bias", "linear", beside_it),)))
    return Model(tuple(tensors))


def by_name(network: Network) -> dict[str, Array]:
    """The arrays of a network by their names."""
    depth = len(network.weights) - 1
    named: dict[str, Array] = {}
    for index, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        kernel = layer_name(index, depth)
        named |= {kernel: np.array(weight), bias_name(kernel): np.array(bias)}
    return named


def of_names(named: Mapping[str, Array]) -> Network:
    """The network whose arrays have these names."""
    depth = len(named) // 2 - 1
    kernels = [layer_name(index, depth) for index in range(depth + 1)]
    return Network(
        tuple(named[kernel] for kernel in kernels), tuple(named[bias_name(kernel)] for kernel in kernels)
    )


def initialize(init: Initializer, sizes: Sequence[int], seed: int) -> Network:
    """A network at its start: every weight by ``init``, the head's too, and zero biases.

    Parameters
    ----------
    init : Initializer
    sizes : sequence of int
        Units of each layer: inputs, hidden layers, classes.
    seed : int
    """
    depth = len(sizes) - 2
    weights = tuple(
        np.asarray(init((n_in, n_out), seed=seed, name=layer_name(index, depth), axes="io"), np.float32)
        for index, (n_in, n_out) in enumerate(pairwise(sizes))
    )
    return Network(weights, tuple(np.zeros(n, np.float32) for n in sizes[1:]))


def logits(network: Network, x: jax.Array, phi: Activation) -> jax.Array:
    """The network's output before softmax, shape ``(batch, classes)``."""
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        x = phi(x @ weight + bias)
    outputs: jax.Array = x @ network.weights[-1] + network.biases[-1]
    return outputs


def cross_entropy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean of ``-log softmax(outputs)[label]``, in nats; ``log(classes)`` for a blind guess."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, labels))


def trace(network: Network, x: NDArray[Any], labels: NDArray[Any], activation: str) -> Trace:
    """One batch on its way forward and its loss on the way back, in numbers."""
    return of_chain(passed(network, x, labels, activation_called(activation)), activation)


def passed(network: Network, x: NDArray[Any], labels: NDArray[Any], phi: Activation) -> list[Layer]:
    """What passes each layer, in float64.

    In float64 even a signal that leaves float32 after a few layers is measured to the end.
    """
    with jax.enable_x64(True):
        network64 = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), network)
        values = jnp.asarray(x, jnp.float64)
        signals, gradients = _signals(network64, values, jnp.asarray(labels), phi)

    depth = len(network.weights) - 1
    return [
        Layer(
            name=layer_name(index, depth),
            weight=np.asarray(network.weights[index]),
            bias=np.asarray(network.biases[index]),
            inputs=np.asarray(inputs),
            outputs=np.asarray(outputs),
            gradient=np.asarray(gradient),
        )
        for index, ((inputs, outputs), gradient) in enumerate(zip(signals, gradients, strict=True))
    ]


@partial(jax.jit, static_argnames="phi")
def _signals(network: Network, x: jax.Array, labels: jax.Array, phi: Activation) -> Any:
    """``(inputs, outputs)`` of each layer, and the loss's gradient by each layer's outputs."""

    def loss(shifts: list[jax.Array]) -> tuple[jax.Array, Any]:
        # The shifts are zeros: the derivative by them is the derivative by the outputs.
        passed, values = [], x
        for weight, bias, shift in zip(network.weights, network.biases, shifts, strict=True):
            outputs = values @ weight + bias + shift
            passed.append((values, outputs))
            values = phi(outputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return jnp.sum(losses), passed

    shifts = [jnp.zeros((len(x), len(bias)), x.dtype) for bias in network.biases]
    gradients, passed = jax.grad(loss, has_aux=True)(shifts)
    return passed, gradients
