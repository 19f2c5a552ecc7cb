"""New memory that a framework can adopt without a copy."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from fanin._types import Array

ALIGNMENT = 64  # bytes: frameworks adopt memory on such a boundary and copy any other


def aligned(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """A new C-ordered array at an address that a framework can adopt."""
    [array] = side_by_side([(shape, dtype)])
    return array


def side_by_side(wanted: Sequence[tuple[Sequence[int], np.dtype[Any]]]) -> list[Array]:
    """Such arrays, each by shape and dtype, in one piece of memory, which lives as long as one of them.

    The system gives a large piece in large pages, at a fraction of what many small ones cost.

    Examples
    --------
    >>> first, second = side_by_side([((2, 3), np.dtype("float32")), ((), np.dtype("float64"))])
    >>> first.shape, second.dtype, (second.ctypes.data - first.ctypes.data) % ALIGNMENT
    ((2, 3), dtype('float64'), 0)
    """
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in wanted]
    ends = list(accumulate(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes))
    memory = np.empty((ends[-1] if ends else 0) + ALIGNMENT, np.uint8)
    memory = memory[-memory.ctypes.data % ALIGNMENT :]
    return [
        memory[start : start + size].view(dtype).reshape(shape)
        for (shape, dtype), start, size in zip(wanted, [0, *ends], sizes, strict=False)
    ]
