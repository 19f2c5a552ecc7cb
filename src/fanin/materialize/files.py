"""How a plan's tensors are laid out in files, and in chunks that can be made in any order."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fanin._types import Window
from fanin.checkpoints.index import shard_name
from fanin.checkpoints.safetensors import Stored, header
from fanin.dtypes import as_dtype
from fanin.errors import ArgumentError, PlanError
from fanin.layout import windows
from fanin.plan import Plan

CHUNK = 1 << 24  # bytes made at once
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class File:
    """One file: its name, the bytes before its tensors, and where each tensor goes."""

    name: str
    front: bytes
    tensors: dict[str, Stored]

    @property
    def size(self) -> int:
        return max((tensor.stop for tensor in self.tensors.values()), default=len(self.front))


@dataclass(frozen=True)
class Chunk:
    """Some rows of a tensor, dense in its file."""

    file: int
    path: str
    window: Window
    start: int
    size: int


def parse_size(text: str) -> int:
    """``5GB`` as bytes; units are powers of ten, as in transformers.

    >>> parse_size("5GB"), parse_size("300MB")
    (5000000000, 300000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if found is None or float(found[1]) <= 0:
        raise ArgumentError(f"size {text!r}: expected one such as 5GB or 300MB")
    return int(float(found[1]) * UNITS[found[2]])


def files_of(plan: Plan, largest: int) -> tuple[File, ...]:
    """The plan's tensors in files of at most ``largest`` bytes, in its order; a tensor is never split."""
    kept = [row.name for row in plan.rows if row.initializer is None]
    if kept:
        raise PlanError(f"{kept[0]!r} keeps a value that the plan does not know; a file needs every value")
    groups: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    filled = 0
    for tensor in plan.tensors:
        size = _bytes(tensor.shape, tensor.dtype)
        if groups[-1] and filled + size > largest:
            groups.append([])
            filled = 0
        groups[-1].append((tensor.path, tensor.dtype, tensor.shape))
        filled += size
    metadata = {
        "format": "pt",
        "fanin.contract": plan.contract,
        "fanin.recipe": plan.recipe,
        "fanin.seed": str(plan.seed),
    }
    return tuple(
        File(shard_name(at, len(groups)), *header(group, metadata)) for at, group in enumerate(groups)
    )


def chunks_of(plan: Plan, files: tuple[File, ...]) -> Iterator[Chunk]:
    """Every tensor in pieces of at most `CHUNK` bytes; what needs the whole tensor anyway, in one."""
    for at, file in enumerate(files):
        for path, stored in sorted(file.tensors.items(), key=lambda item: item[1].start):
            if stored.start == stored.stop:
                continue
            width = as_dtype(plan.tensor(path).dtype).itemsize
            start = stored.start
            for window in windows(stored.shape, stored.stop if plan.coupled(path) else CHUNK // width):
                size = _bytes(tuple(part.stop - part.start for part in window), plan.tensor(path).dtype)
                yield Chunk(at, path, window, start, size)
                start += size


def identity(plan: Plan, files: tuple[File, ...]) -> str:
    """What two runs must share to write into the same files: the plan, and how it is laid out."""
    names = "".join(f"{file.name}:{file.size};" for file in files)
    return hashlib.sha256((plan.identity(digests=True) + names).encode()).hexdigest()


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    size = as_dtype(dtype).itemsize
    for length in shape:
        size *= length
    return size


def final(folder: Path, files: tuple[File, ...]) -> list[Path]:
    """The files under their final names that are there."""
    return [folder / file.name for file in files if (folder / file.name).exists()]
