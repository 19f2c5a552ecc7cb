"""What a checkpoint holds: tensors by name, described before one is read."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fanin._types import Array, Window
from fanin.dtypes import as_dtype, is_numeric
from fanin.errors import CheckpointError, DtypeError

LARGEST_RANK = 64  # NumPy's
Read: TypeAlias = Callable[[str, Window], Array]


@dataclass(frozen=True)
class Spec:
    """A tensor without its values: its shape, and its dtype by fanin's name."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * as_dtype(self.dtype).itemsize

    def check(self, file: str | Path, name: str) -> None:
        """Refuse a shape that no array can have; without elements its other axes count all the same."""
        stretch = math.prod(size for size in self.shape if size) * as_dtype(self.dtype).itemsize
        if len(self.shape) > LARGEST_RANK or stretch >= 1 << 63:
            raise CheckpointError(f"{file}: {name!r} has the shape {self.shape}, which no array has")


@dataclass(frozen=True)
class Place:
    """Where in a file a tensor's elements lie: its first byte, and the bytes from one to the next."""

    start: int
    strides: tuple[int, ...]

    def dense(self, spec: Spec) -> bool:
        """Whether they lie in C order without gaps."""
        steps = [math.prod(spec.shape[axis + 1 :]) for axis in range(len(spec.shape))]
        return self.strides == tuple(step * as_dtype(spec.dtype).itemsize for step in steps)


@dataclass(frozen=True)
class Asked:
    """What a reader of another library is asked: where in the file to look, and what it may unpack.

    ``part``: the file is one of several, and a layer's variables may be in more than one.
    """

    key: str | None
    most: int
    part: bool


@dataclass(frozen=True)
class Contents:
    """What a reader finds in a file.

    ``tensors`` are in the file's order; ``left_out`` says of the rest why it is no tensor of the model.
    Either ``places`` tell where the values are, or ``read`` makes them. ``lies`` has the file and the first
    byte of those that lie in one piece, in C order.
    """

    tensors: Mapping[str, Spec]
    left_out: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, Place] | None = None
    read: Read | None = None
    lies: Mapping[str, tuple[Path, int]] = field(default_factory=dict)


def readable(dtype: str) -> bool:
    """Whether an array can have this dtype: no text, no objects, nothing quantized."""
    try:
        return is_numeric(as_dtype(dtype))
    except DtypeError:
        return False


def no_key(path: Path, key: str | None) -> None:
    """Refuse a key where there is nothing to choose from."""
    if key is not None:
        raise CheckpointError(f"{path}: `key` {key!r} is for PyTorch's and Orbax's checkpoints; pass none")


def merged(of: Iterable[tuple[str, Contents]]) -> Contents:
    """The contents of several files as one; each is read by its own ``read``."""
    tensors: dict[str, Spec] = {}
    left_out: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    reads: dict[str, Read] = {}
    lies: dict[str, tuple[Path, int]] = {}
    for file, each in of:
        for name, spec in each.tensors.items():
            if name in tensors:
                raise CheckpointError(f"{file}: {name!r} is in another file of this checkpoint too")
            if each.read is None:
                raise CheckpointError(f"{file}: {name!r} cannot be read")
            tensors[name], reads[name] = spec, each.read
        left_out |= each.left_out
        metadata |= each.metadata
        lies |= each.lies
    return Contents(tensors, left_out, metadata, None, lambda name, window: reads[name](name, window), lies)
