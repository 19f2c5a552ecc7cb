"""Checkpoints of every kind by one interface: names, shapes and dtypes first, values one by one."""

import builtins
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fanin._types import Array, Window
from fanin.checkpoints import child, npz
from fanin.checkpoints.child import Limits
from fanin.checkpoints.contents import Asked, Contents, Spec, merged, no_key
from fanin.checkpoints.formats import Found, found
from fanin.checkpoints.index import check_placed
from fanin.checkpoints.safetensors import contents as safetensors
from fanin.errors import ArgumentError, CheckpointError, near
from fanin.sampling import check_window

MEMORY = 1 << 30  # bytes
SECONDS = 300.0


class Checkpoint:
    """An open checkpoint: what is in it, and its values as they are asked for.

    Made by `open`; a context manager.

    Attributes
    ----------
    path : Path
        What was opened.
    kind : str
        The format: ``safetensors``, ``torch``, ``npz``, ``keras``, ``h5``, ``tensorflow`` or ``orbax``.
    files : tuple of Path
        Its files; an Orbax checkpoint's is a folder, TensorFlow's what their names begin with.
    tensors : mapping of str to Spec
        Shape and dtype of each tensor, in the order of the file.
    left_out : mapping of str to str
        What else is there, and why it is no tensor of a model: an optimizer's, a counter, text.
    metadata : mapping
        What the file says of itself.
    """

    def __init__(
        self, path: Path, what: Found, contents: Contents, most: int, reader: child.Reader | None
    ) -> None:
        self.path, self.kind, self.files = path, what.kind, what.files
        self.tensors: Mapping[str, Spec] = types.MappingProxyType(dict(contents.tensors))
        self.left_out: Mapping[str, str] = types.MappingProxyType(dict(contents.left_out))
        self.metadata: Mapping[str, Any] = types.MappingProxyType(dict(contents.metadata))
        self._read, self._most, self._reader = contents.read, most, reader
        self._lies = contents.lies

    def read(self, name: str, window: Window | None = None) -> Array:
        """A tensor's values, or a window of them, in an array of one's own.

        Parameters
        ----------
        name : str
            One of ``tensors``.
        window : tuple of slices, optional
            A rectangle of it, inside its shape. Safetensors and PyTorch's files are mapped, and cost what the
            window touches; Orbax reads the chunks that it touches; of the others more may be read.

        Returns
        -------
        ndarray
            Writing to it leaves the file as it is.

        Raises
        ------
        CheckpointError
            When there is no such tensor, it is damaged, or costs more than the limits.
        ShapeError
            When the window is not inside the tensor.
        """
        if self._read is None:
            raise CheckpointError(f"{self.path}: is closed")
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: no tensor {name!r}; {near(name, self.tensors)}")
        spec = self.tensors[name]
        if spec.nbytes > self._most:
            raise CheckpointError(
                f"{self.path}: {name!r} unpacks to {spec.nbytes} bytes, more than the checkpoint has and "
                f"more than `memory`; open it with more if you trust it"
            )
        return self._read(name, check_window(window, spec.shape))

    def read_into(self, name: str, window: Window, out: Array) -> None:
        """`read` into an array of the window's shape and the tensor's dtype.

        What lies in the file in one piece goes there without a mapping: a file that shrinks meanwhile is an
        error, not the end of the process.
        """
        first = None
        if name in self._lies and self._read is not None and out.flags.c_contiguous:
            shape = self.tensors[name].shape
            first = start_of(shape, check_window(window, shape))
        if first is None:
            out[...] = self.read(name, window)
            return
        file, start = self._lies[name]
        rest = out.reshape(-1).view(np.uint8).data
        with builtins.open(file, "rb", buffering=0) as handle:
            handle.seek(start + first * out.itemsize)
            while rest:
                count = handle.readinto(rest)
                if not count:
                    raise CheckpointError(f"{file}: {name!r} ends {len(rest)} bytes too early")
                rest = rest[count:]

    def close(self) -> None:
        """End the process that reads it, if there is one. Arrays that were read stay."""
        self._read = None
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.kind} checkpoint {str(self.path)!r} of {len(self.tensors)} tensors>"


def open(
    path: str | Path, *, key: str | None = None, memory: int = MEMORY, seconds: float = SECONDS
) -> Checkpoint:
    """Open a checkpoint of any known format, which is found by what is in it. No value is read yet.

    Nothing in a file is ever run, and what its headers say is checked against it before memory is taken.
    Other libraries (PyTorch, h5py, TensorFlow, TensorStore) read in a process of their own.

    Parameters
    ----------
    path : path
        A file; an index of several files; a folder with one checkpoint; or what the names of a TensorFlow
        checkpoint's files begin with.
    key : str, optional
        Where the tensors are, in a PyTorch file that holds more (``"model"``, ``"ema.module"``; ``""`` is the
        whole), or which item of an Orbax checkpoint.
    memory : int
        Bytes that a tensor may unpack to when it is more than the checkpoint has, and that another library
        may take besides three times a tensor's own.
    seconds : float
        For opening, and again for each tensor, in another library.

    Raises
    ------
    CheckpointError
        When it is damaged, refused, of no known format, or ambiguous; a missing package is named with the
        extra that brings it.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from fanin import checkpoints
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/weights.npz", kernel=np.ones((2, 3), np.float32), steps=7)
    ...     with checkpoints.open(f"{folder}/weights.npz") as checkpoint:
    ...         print(checkpoint.kind, dict(checkpoint.tensors))
    ...         print(checkpoint.read("kernel", (slice(0, 1), slice(0, 2))))
    npz {'kernel': Spec(shape=(2, 3), dtype='float32'), 'steps': Spec(shape=(), dtype='int64')}
    [[1. 1.]]
    """
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
        raise ArgumentError(f"`memory` must be an integer >= 0, of bytes, got {memory!r}")
    if not 0 < seconds < float("inf"):
        raise ArgumentError(f"`seconds` must be a number > 0, got {seconds!r}")
    path = Path(os.path.abspath(path))
    what = found(path, key)
    most = max(memory, sum(_bytes(file) for file in what.files))
    contents, reader = _contents(what, key, most, Limits(memory, seconds))
    return Checkpoint(path, what, contents, most, reader)


def start_of(shape: tuple[int, ...], window: Window) -> int | None:
    """Where in C order a window begins that is one piece there; None where it is several.

    >>> start_of((4, 3), (slice(1, 3), slice(0, 3))), start_of((4, 3), (slice(1, 3), slice(0, 2)))
    (3, None)
    """
    first, several = 0, False
    for size, part in zip(shape, window, strict=True):
        if several and part.stop - part.start < size:
            return None
        several |= part.stop - part.start > 1
        first = first * size + part.start
    return first


def _contents(
    what: Found, key: str | None, most: int, limits: Limits
) -> tuple[Contents, child.Reader | None]:
    """What the files hold together."""
    reader = None
    if what.kind in ("safetensors", "npz"):
        no_key(what.files[0], key)
        of = [(npz.contents if what.kind == "npz" else safetensors)(file) for file in what.files]
    else:
        asked = Asked(None if what.kind == "orbax" else key, most, len(what.files) > 1)
        of, reader = child.contents(what.kind, what.files, asked, limits)
    try:
        if what.index is not None and what.placed is not None and what.kind in ("safetensors", "torch"):
            names = {file.name: each.tensors for file, each in zip(what.files, of, strict=True)}
            check_placed(what.index, what.placed, names)
        for file, each in zip(what.files, of, strict=True):
            for name, spec in each.tensors.items():
                spec.check(file, name)
        return (of[0] if len(of) == 1 else merged(zip(map(str, what.files), of, strict=True))), reader
    except BaseException:
        if reader is not None:
            reader.close()
        raise


def _bytes(path: Path) -> int:
    """What a checkpoint has on disk."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}.*"))
