"""The comparison's chain as `fanin.calibrate` sees it, in NumPy."""

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from fanin._types import Array
from fanin.audit import Trace
from fanin.calibrate import Seen, calibrated
from fanin.calibrate.engine import Visit
from fanin.errors import CalibrationError
from fanin.lab.network import (
    Network,
    activation_called,
    bias_name,
    by_name,
    described,
    layer_name,
    of_names,
    trace,
)


class Chain:
    """A network on one batch: see `fanin.calibrate.Engine`."""

    def __init__(self, network: Network, x: Array, labels: NDArray[np.integer], activation: str) -> None:
        self._x, self._labels, self._activation = x, labels, activation
        self._depth, self._values = len(network.weights) - 1, by_name(network)
        sizes = [len(network.weights[0]), *(len(bias) for bias in network.biases)]
        self.model = described(sizes)

    @property
    def network(self) -> Network:
        """The network as it is now."""
        return of_names(self._values)

    def trace(self, *, gradients: bool = False) -> Trace:
        return trace(self.network, self._x, self._labels, self._activation)

    def forward(self, visit: Visit) -> None:
        phi = activation_called(self._activation)
        values: Array = np.asarray(self._x, np.float32)
        for at in range(self._depth + 1):
            kernel = layer_name(at, self._depth)
            values = values @ self._values[kernel] + self._values[bias_name(kernel)]
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
