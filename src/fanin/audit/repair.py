"""What a finding advises: recipes by the activation that follows, and what they make of a chain."""

import statistics
from collections import Counter
from collections.abc import Sequence

from fanin import gains
from fanin.audit.trace import Trace
from fanin.errors import FaninError

# Functions that are straight at zero and keep a signal that is small: the gain there is 1.
SATURATING = ("tanh", "softsign", "erf", "hardtanh")
RECIPES = {"relu": "he_normal", "selu": "lecun_normal"} | dict.fromkeys(SATURATING, "glorot_normal")


def activation(trace: Trace, places: Sequence[int] = ()) -> str | None:
    """The activation that most operations between these places are, or most of all."""
    low, high = (min(places), max(places)) if places else (0, len(trace.operations))
    found = [operation.activation for operation in trace.operations[low : high + 1] if operation.activation]
    return Counter(found).most_common(1)[0][0] if found else None


def recipe(phi: str | None) -> str:
    """The initializer that keeps the size of a signal through layers that an activation follows.

    Examples
    --------
    >>> recipe("relu"), recipe("tanh"), recipe("gelu"), recipe(None)
    ('he_normal', 'glorot_normal', 'variance_scaling(scale=2.352)', 'lecun_normal')
    """
    if phi is None or phi in ("linear", "identity"):
        return "lecun_normal"
    if phi in RECIPES:
        return RECIPES[phi]
    try:
        return f"variance_scaling(scale={gains.gain(phi) ** 2:.4g})"
    except FaninError:
        return "orthogonal"


def keeps(phi: str | None, layers: int, decades: float) -> str:
    """What theory expects of a chain after that, beside what was measured.

    >>> keeps("relu", 30, -4.4)
    'he_normal: 30 layers keep 1.0 of the size instead of 10^-4.4'
    """
    return f"{recipe(phi)}: {layers} layers keep 1.0 of the size instead of 10^{decades:.2g}"


def weight_variance(trace: Trace, places: Sequence[int]) -> float | None:
    """The median of sigma_w**2 of the kernels at these places."""
    found = [
        variance
        for at in places
        for name in trace.operations[at].parameters
        if trace[name].role in ("kernel", "recurrent_kernel")
        and (variance := trace[name].weight_variance) is not None
    ]
    return statistics.median(found) if found else None
