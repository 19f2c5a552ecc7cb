"""The comparison's chain as `fanin.calibrate` sees it, in NumPy."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from fanin._types import Array
from fanin.audit import Trace
from fanin.calibrate import Seen, calibrated
from fanin.calibrate.engine import Visit
from fanin.errors import CalibrationError
from fanin.fans import IO
from fanin.lab.network import Network, activation_called, layer_name, trace
from fanin.model import Model, Piece, Tensor, beside


class Chain:
    """A network on one batch: see `fanin.calibrate.Engine`."""

    def __init__(self, network: Network, x: Array, labels: NDArray[np.integer], activation: str) -> None:
        self._x, self._labels, self._activation = x, labels, activation
        self._depth = len(network.weights) - 1
        self._values: dict[str, Array] = {}
        for at, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
            kernel, offset = self._names(at)
            self._values |= {kernel: np.array(weight), offset: np.array(bias)}
        self.model = Model(tuple(self._tensors()))

    def _names(self, at: int) -> tuple[str, str]:
        kernel = layer_name(at, self._depth)
        return kernel, f"{kernel.removesuffix('weight')}bias"

    def _tensors(self) -> Iterator[Tensor]:
        for at in range(self._depth + 1):
            kernel, bias = self._names(at)
            shape = self._values[kernel].shape
            role = "head" if at == self._depth else "kernel"
            yield Tensor(kernel, shape, "float32", (Piece(kernel, role, "linear", IO),))
            yield Tensor(bias, shape[1:], "float32", (Piece(bias, "bias", "linear", beside(IO.fans(shape))),))

    @property
    def network(self) -> Network:
        """The network as it is now."""
        kernels, biases = zip(*map(self._names, range(self._depth + 1)), strict=True)
        return Network(
            tuple(self._values[name] for name in kernels), tuple(self._values[name] for name in biases)
        )

    def trace(self, *, gradients: bool = False) -> Trace:
        return trace(self.network, self._x, self._labels, self._activation)

    def forward(self, visit: Visit) -> None:
        phi = activation_called(self._activation)
        values: Array = np.asarray(self._x, np.float32)
        for at in range(self._depth + 1):
            kernel, bias = self._names(at)
            values = values @ self._values[kernel] + self._values[bias]
            correction = visit(Seen(2 * at, values, -1))  # an activation is between two layers
            if correction is not None:
                values = (values * correction.scale + correction.shift).astype(np.float32)
            values = np.asarray(phi(jnp.asarray(values)))

    def read(self, path: str) -> Array:
        return self._values[path].copy()

    def write(self, path: str, values: Array) -> None:
        self._values[path] = values


def calibrate(
    network: Network, method: str, x: Array, labels: NDArray[np.integer], activation: str
) -> Network | None:
    """The network calibrated by a method with its defaults; None where it refuses."""
    chain = Chain(network, x, labels, activation)
    try:
        calibrated(chain, method, None, {})
    except CalibrationError:
        return None
    return chain.network
