"""Tensors as they lie in a file, mapped into memory: a window costs what it touches."""

import math
from pathlib import Path
from typing import Literal

import numpy as np

from fanin._types import Array
from fanin.dtypes import as_dtype
from fanin.errors import CheckpointError


def mapped(
    file: str | Path,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    start: int,
    strides: tuple[int, ...],
    mode: Literal["r", "c"] = "c",
) -> Array:
    """A tensor in a file, read-only ("r") or to be changed without changing the file ("c").

    ``strides`` are in bytes and not negative. What is not aligned is read as a whole.

    Raises
    ------
    CheckpointError
        When it does not lie inside the file.
    """
    kind = as_dtype(dtype)
    if math.prod(shape) == 0:
        return np.empty(shape, kind)
    span = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + kind.itemsize
    size = Path(file).stat().st_size
    if start < 0 or min(strides, default=0) < 0 or start + span > size:
        raise CheckpointError(
            f"{file}: {name!r} lies at bytes {start} to {start + span}, beyond the file's {size}; "
            f"it is truncated or its header lies"
        )
    if start % kind.alignment:
        whole = np.fromfile(file, np.uint8, span, offset=start)
        if whole.size < span:
            raise CheckpointError(f"{file}: {name!r} ends after {whole.size} of {span} bytes")
    else:
        whole = np.memmap(file, np.uint8, mode, start, (span,))
    return np.ndarray(shape, kind, whole.data, strides=strides)
