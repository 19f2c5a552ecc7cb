"""The trace of a chain of dense layers, from its arrays: what NumPy alone can run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanin.audit import measure
from fanin.audit.trace import Operation, Trace, Weights
from fanin.errors import ShapeError
from fanin.fans import IO
from fanin.model import Model, Piece, Tensor, beside

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Layer:
    r"""One dense layer, ``outputs = inputs @ weight + bias``, and what passed through it.

    Attributes
    ----------
    name : str
        The weight's name, as findings print it.
    weight, bias : ndarray
        Shapes ``(in, out)`` and ``(out,)``.
    inputs, outputs : ndarray
        Shapes ``(batch, in)`` and ``(batch, out)``; ``outputs`` are pre-activations :math:`z`.
    gradient : ndarray
        Shape ``(batch, out)``: :math:`\partial \ell / \partial z`, each row for the loss
        :math:`\ell` of its own example.
    """

    name: str
    weight: Array
    bias: Array
    inputs: Array
    outputs: Array
    gradient: Array

    def __post_init__(self) -> None:
        if self.weight.ndim != 2:
            raise ShapeError(f"{self.name}: weight must be (in, out), got {self.weight.shape}")
        n_in, n_out = self.weight.shape
        n_batch = len(self.inputs)
        expected = {
            "bias": (n_out,),
            "inputs": (n_batch, n_in),
            "outputs": (n_batch, n_out),
            "gradient": (n_batch, n_out),
        }
        for field, shape in expected.items():
            found = getattr(self, field).shape
            if found != shape:
                raise ShapeError(f"{self.name}: {field} must have shape {shape}, got {found}")

    @property
    def module(self) -> str:
        """The name without its last word."""
        return self.name.removesuffix(".weight")

    @property
    def bias_name(self) -> str:
        """What its bias is called."""
        return f"{self.module}.bias"


def of_chain(layers: Sequence[Layer], activation: str = "", framework: str = "") -> Trace:
    """The trace of layers in forward order, an activation between them; the last one is the head.

    Parameters
    ----------
    layers : sequence of Layer
    activation : str
        Its name, as `fanin.gain` knows it.
    framework : str
        In whose words findings say what to do.

    Examples
    --------
    >>> x = np.array([[1.0, -1.0]])
    >>> first = Layer("layers.0.weight", np.eye(2), np.zeros(2), x, x, x)
    >>> head = Layer("head.weight", np.eye(2), np.zeros(2), abs(x), abs(x), x)
    >>> [operation.name for operation in of_chain([first, head], "relu").operations]
    ['layers.0', 'layers.0:relu', 'head']
    """
    for below, above in pairwise(layers):
        if below.weight.shape[1] != above.weight.shape[0]:
            raise ShapeError(
                f"{above.name} takes {above.weight.shape[0]} inputs, but {below.name} "
                f"before it has {below.weight.shape[1]} units"
            )
    operations: list[Operation] = []
    first = measure.signal(layers[0].inputs)
    for at, layer in enumerate(layers):
        if at:
            operations.append(_between(layers[at - 1], layer, activation, len(operations) - 1))
        operations.append(
            Operation(
                name=layer.module,
                kind="dense",
                layer="linear",
                inputs=(len(operations) - 1,),
                after=measure.signal(layer.outputs),
                before=None if operations else first,
                parameters=(layer.name, layer.bias_name),
                loss_gradient=measure.spread(layer.gradient),
            )
        )
    return Trace(
        framework=framework,
        weights=tuple(_weights(layers, activation)),
        operations=tuple(operations),
        batch=(first,),
        outputs=(len(operations) - 1,),
    )


def _between(below: Layer, layer: Layer, activation: str, source: int) -> Operation:
    return Operation(
        name=f"{below.module}:{activation or 'activation'}",
        kind="activation",
        layer="activation",
        inputs=(source,),
        after=measure.signal(layer.inputs),
        activation=activation or None,
        saturated=measure.saturated(activation, below.outputs),
        linear=measure.linear(activation, below.outputs),
    )


def _weights(layers: Sequence[Layer], activation: str) -> Iterator[Weights]:
    values, gradients, tensors = {}, {}, []
    for layer in layers:
        head = layer is layers[-1]
        fans = IO.fans(layer.weight.shape)
        follows = None if head else activation or None
        for name, role, axes, value in (
            (layer.name, "head" if head else "kernel", IO, layer.weight),
            (layer.bias_name, "bias", beside(fans), layer.bias),
        ):
            piece = Piece(name, role, "linear", axes, activation=follows)
            tensors.append(Tensor(name, value.shape, str(value.dtype), (piece,)))
            values[name] = value
        with np.errstate(over="ignore", invalid="ignore"):
            gradients[layer.name] = layer.inputs.T @ layer.gradient
            gradients[layer.bias_name] = layer.gradient.sum(axis=0)
    return measure.weights(Model(tuple(tensors)), values.__getitem__, [gradients.__getitem__])
