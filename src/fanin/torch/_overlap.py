"""Tensors that lie in the same memory without being one tensor."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

BASE = 1 << 12  # where every storage is said to begin


class _Extent:
    """Where a tensor lies in its storage, in words that NumPy understands; nothing is read."""

    def __init__(self, tensor: Tensor) -> None:
        size = tensor.itemsize
        strides = tuple(stride * size for stride in tensor.stride())
        last = sum((n - 1) * stride for n, stride in zip(tensor.shape, strides, strict=True))
        self.start = BASE + tensor.storage_offset() * size
        self.stop = self.start + last + size
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{size}",
            "shape": tuple(tensor.shape),
            "strides": strides,
            "data": (self.start, True),
        }

    def meets(self, other: "_Extent") -> bool:
        return np.shares_memory(np.asarray(self), np.asarray(other))


def overlap(tensors: Iterable[tuple[str, Tensor]]) -> tuple[str, str] | None:
    """The names of two tensors that have an element in common; None where there are none such.

    >>> import torch
    >>> both = torch.empty(4, 6)
    >>> overlap([("left", both[:, :3]), ("right", both[:, 3:])])
    >>> overlap([("left", both[:, :3]), ("rows", both[2:])])
    ('left', 'rows')
    """
    stored: dict[int, list[tuple[str, _Extent]]] = {}
    for name, tensor in tensors:
        storage = tensor.untyped_storage()._cdata
        stored.setdefault(storage, []).append((name, _Extent(tensor)))
    for together in stored.values():
        reaching: list[tuple[str, _Extent]] = []  # beyond where the next begins
        for name, extent in sorted(together, key=lambda each: each[1].start):
            reaching = [each for each in reaching if each[1].stop > extent.start]
            for other, before in reaching:
                if before.meets(extent):
                    return other, name
            reaching.append((name, extent))
    return None
