"""Open checkpoints by path, each once: what is read for many tensors is opened and checked one time."""

import atexit
import hashlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fanin import checkpoints
from fanin._types import Array, Window
from fanin.checkpoints import Checkpoint
from fanin.errors import CheckpointError

OPEN = 4  # checkpoints that stay open
PART = 1 << 18  # elements looked at together

Identity: TypeAlias = tuple[Any, ...]


class Source:
    """One open checkpoint, read by any thread, and the digests of what was read of it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._lock = threading.Lock()
        self._digests: dict[str, str] = {}

    def read(self, key: str, window: Window | None = None) -> Array:
        """Values, or a window of them."""
        with self._lock:  # other libraries answer one question at a time
            return self.checkpoint.read(key, window)

    def digest(self, key: str) -> str:
        """The SHA-256 of a tensor's bytes (C order, little endian)."""
        if key not in self._digests:
            values = np.ascontiguousarray(self.read(key))
            self._digests[key] = hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest()
        return self._digests[key]

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
    if path.is_file() and not path.name.endswith(".json"):
        files = [path]
    else:  # a folder, an index, or the front of several names
        files = sorted(each for each in (path if path.is_dir() else path.parent).iterdir() if each.is_file())
    said = [(each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in files]
    return str(path), tuple(said)


@atexit.register
def _close() -> None:
    while _open:
        _open.popitem()[1].checkpoint.close()


def is_finite(values: Array) -> bool:
    """Whether there is no NaN and no infinity among floats; integers have none."""
    if values.dtype.kind not in "fcV" and "float" not in values.dtype.name:
        return True
    flat = values.reshape(-1)
    parts = (flat[at : at + PART] for at in range(0, flat.size, PART))
    if values.dtype not in (np.float32, np.float64):
        return all(bool(np.isfinite(part).all()) for part in parts)
    zeros = np.zeros(min(PART, flat.size), values.dtype)  # 0 x is 0, and NaN where x is not finite
    with np.errstate(invalid="ignore"):
        return not any(np.isnan(np.dot(part, zeros[: part.size])) for part in parts)
