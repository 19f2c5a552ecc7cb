"""The head: small or zero, so that the first guess is blind, its bias at the shares of the classes."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fanin.calibrate.engine import Engine
from fanin.calibrate.forward import Outcome
from fanin.calibrate.layers import heads_of, layers
from fanin.calibrate.result import Scale
from fanin.calibrate.store import Store
from fanin.errors import ArgumentError, CalibrationError


def head(
    engine: Engine, store: Store, *, scale: float = 0.01, prior: Sequence[float] | None = None
) -> Outcome:
    r"""A head whose first guess is blind: its kernel times `scale`, its bias the logarithm of the `prior`.

    .. math:: W \leftarrow \mathrm{scale} \cdot W, \qquad b_k = \ln p_k

    The loss of outputs that are all zero is ``ln K``, and with the prior the entropy of the classes.

    Parameters
    ----------
    scale : float
        0 for exactly that loss; the kernel still learns, as its gradient is not zero.
    prior : sequence of float, optional
        How often each class occurs: counts or shares, all > 0. The bias is kept without one.

    References
    ----------
    Karpathy 2019, "A Recipe for Training Neural Networks": init well.
    """
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale < math.inf:
        raise ArgumentError(f"`scale` must be a number >= 0, got {scale!r}")
    trace = engine.trace()
    last = heads_of(trace)
    taken, left = layers(trace, head=True, normalized=True)
    chosen = [layer for layer in taken if layer.at in last]
    if len(chosen) != 1:
        found = ", ".join(layer.name for layer in chosen) or "none with a kernel of its own"
        raise CalibrationError(f"the model has no one head, but {found}")
    layer, operation = chosen[0], trace.operations[chosen[0].at]
    if prior is not None:
        store.set(layer.biases, _log_shares(prior, layer.name, layer.biases, operation.after.units))
    store.scale(layer.kernels, np.asarray(float(scale)))
    after = engine.trace().operations[layer.at].after
    names = (*layer.kernels, *(layer.biases if prior is not None else ()))
    return Outcome(
        "standard deviation of the output",
        (Scale(layer.name, operation.after.std, after.std, after.std, names),),
        dict.fromkeys([each.name for each in taken if each != layer] + list(left), "not the head"),
    )


def _log_shares(
    prior: Sequence[float], name: str, biases: tuple[str, ...], units: int
) -> NDArray[np.float64]:
    shares = np.asarray(prior, np.float64)
    if shares.shape != (units,) or not np.all(shares > 0) or not np.isfinite(shares).all():
        raise ArgumentError(
            f"`prior` must be {units} numbers > 0, one for each output of {name!r}, got {prior!r}"
        )
    if len(biases) != 1:
        raise CalibrationError(f"{name!r} has no bias for the prior")
    found: NDArray[np.float64] = np.log(shares / shares.sum())
    return found
