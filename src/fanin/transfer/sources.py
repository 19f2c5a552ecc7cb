"""Open checkpoints by path, each once: what is read for many tensors is opened and checked one time."""

import atexit
import glob
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fanin import checkpoints
from fanin._types import Array, Window
from fanin.checkpoints import Checkpoint
from fanin.errors import CheckpointError

OPEN = 4  # checkpoints that stay open
MAPPED = ("safetensors", "torch")  # kinds of which a window costs what it touches

Identity: TypeAlias = tuple[Any, ...]


class Source:
    """One open checkpoint, read by any thread, and what is known of it.

    Attributes
    ----------
    identity : tuple
        Sizes and times of its files, whatever else is written beside them.
    finite : set of str
        The tensors that were looked at as a whole and hold no NaN and no infinity.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.identity = tuple(_identity(file) for file in checkpoint.files)
        self.finite: set[str] = set()
        self._lock = threading.Lock()
        self._digests: dict[str, str] = {}

    @property
    def mapped(self) -> bool:
        """Whether its tensors cost no memory, and their windows what they touch."""
        return self.checkpoint.kind in MAPPED

    def read(self, key: str, window: Window | None = None) -> Array:
        """Values, or a window of them."""
        with self._lock:  # other libraries answer one question at a time
            return self.checkpoint.read(key, window)

    def read_into(self, key: str, window: Window, out: Array) -> None:
        """Values into an array of their dtype."""
        if self.mapped:
            self.checkpoint.read_into(key, window, out)
        else:
            out[...] = self.read(key, window)

    def digest(self, key: str) -> str:
        """The SHA-256 of a tensor's bytes (C order, little endian)."""
        if key not in self._digests:
            self._digests[key] = hashlib.sha256(_bytes(self.read(key)).data).hexdigest()
        return self._digests[key]

    def same(self, one: str, two: str) -> bool:
        """Whether two tensors hold the same bytes."""
        specs = self.checkpoint.tensors
        return specs[one] == specs[two] and np.array_equal(_bytes(self.read(one)), _bytes(self.read(two)))

    def check(self, key: str, digest: str) -> None:
        """The tensor must be the one that a plan was made of."""
        if digest and self.digest(key) != digest:
            raise CheckpointError(
                f"{self.checkpoint.path}: {key!r} is not the tensor that the plan was made of; its digest is "
                f"{self.digest(key)}, planned {digest}"
            )


_lock = threading.Lock()
_open: OrderedDict[Identity, Source] = OrderedDict()


def opened(file: str | Path, inside: str | None = None) -> Source:
    """The checkpoint at a path, opened again when its files have changed."""
    with _lock:
        identity = (*_identity(Path(file)), inside)
        if identity not in _open:
            _open[identity] = Source(checkpoints.open(file, key=inside))
            while len(_open) > OPEN:  # arrays that were read stay
                _open.popitem(last=False)[1].checkpoint.close()
        _open.move_to_end(identity)
        return _open[identity]


def _identity(path: Path) -> Identity:
    files: Iterable[str]
    if path.is_file() and not path.name.endswith(".json"):
        files = [str(path)]
    elif path.exists():  # a folder, or an index
        with os.scandir(path if path.is_dir() else path.parent) as found:
            files = sorted(each.path for each in found if os.path.isfile(each))
    else:  # the front of several names; others may be written beside them
        files = sorted(map(str, path.parent.glob(f"{glob.escape(path.name)}.*")))
    stats = ((each, os.stat(each)) for each in files)
    return str(path), tuple((each, stat.st_mtime_ns, stat.st_size) for each, stat in stats)


@atexit.register
def _close() -> None:
    while _open:
        _open.popitem()[1].checkpoint.close()


def _bytes(values: Array) -> Array:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
