"""Batches for models that say what they take: nobody looks at their values."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fanin.errors import CalibrationError

SEQUENCES = (4, 16)


def features(shape: Sequence[int], examples: int = 256) -> NDArray[np.float32]:
    """Standard normal examples of a shape."""
    return np.random.default_rng(0).standard_normal((examples, *shape), np.float32)


def entries(count: int, shape: Sequence[int] = SEQUENCES) -> NDArray[np.int32]:
    """Sequences of numbers of a table's entries."""
    return (np.arange(math.prod(shape), dtype=np.int32) % count).reshape(shape)


def unknown(first: str) -> CalibrationError:
    """The error for a model that does not say."""
    return CalibrationError(
        f"the model begins with {first}, which does not tell the shape of a batch; pass one, of which only "
        f"shapes are used"
    )
