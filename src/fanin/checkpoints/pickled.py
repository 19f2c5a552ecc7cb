"""PyTorch's own files, zip archives and the older form. Runs in the child process.

Only ``torch.load(weights_only=True)`` looks at the pickle. It makes the tensors without their values; where
those lie in the file is kept, so that they can be mapped one by one.
"""

import io
import os
import pickle
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fanin.checkpoints.contents import Asked, Contents, Place, Spec, readable
from fanin.checkpoints.zips import is_zip, members, start
from fanin.errors import CheckpointError

# What a training script calls the parameters among the things that it saves.
WRAPPERS = ("state_dict", "model", "model_state_dict", "module")


def contents(path: Path, asked: Asked) -> Contents:
    """The tensors of a file that ``torch.save`` wrote, or of what ``key`` names in it."""
    torch: Any = import_module("torch")
    source = _Archive(path) if is_zip(path) else _Skimmed(path)
    try:
        with source as file:
            held = torch.load(file, map_location=source.device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_refused(str(error))}") from error
    found, metadata = chosen(held, asked.key, torch.Tensor, path)
    tensors, left_out, places = {}, {}, {}
    for name, value in found.items():
        reason = _no_array(value, torch)
        if reason is None:
            spec = Spec(tuple(value.shape), str(value.dtype).removeprefix("torch."))
            width = value.element_size()
            begin = source.begin(value.untyped_storage(), name) if value.numel() else 0
            tensors[name] = spec
            places[name] = Place(
                begin + value.storage_offset() * width, tuple(step * width for step in value.stride())
            )
            if value.numel():
                last = sum((n - 1) * step for n, step in zip(value.shape, value.stride(), strict=True))
                if (value.storage_offset() + last + 1) * width > value.untyped_storage().nbytes():
                    raise CheckpointError(f"{path}: {name!r} reaches beyond its own storage")
        else:
            left_out[name] = reason
    return Contents(tensors, left_out, metadata, places)


class _Archive:
    """A zip archive; PyTorch says where a tensor on the meta device would have its bytes from."""

    device = "meta"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = {start(path, member): member for member in members(path).values() if member.file_size}
        for member in self.records.values():
            if member.compress_type:
                raise CheckpointError(
                    f"{path}: member {member.filename!r} is compressed; torch.save does not"
                )
            if member.filename.endswith("/byteorder"):
                self._check_order(member)

    def __enter__(self) -> io.BufferedReader:
        self.file = open(self.path, "rb")
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _check_order(self, member: Any) -> None:
        with open(self.path, "rb") as file:
            file.seek(start(self.path, member))
            if file.read(member.file_size) != b"little":
                raise CheckpointError(f"{self.path}: written on a big-endian machine; save it again on this")

    def begin(self, storage: Any, name: str) -> int:
        at: int = storage._checkpoint_offset
        if at not in self.records or self.records[at].file_size < storage.nbytes():
            raise CheckpointError(
                f"{self.path}: {name!r} has {storage.nbytes()} bytes that the archive lacks"
            )
        return at


class _Skimmed(io.BufferedReader):
    """A file of the older form, whose storages are passed over when they are read, and their places kept.

    PyTorch reads a storage's bytes straight into its memory: the address tells which one it is.
    """

    device = "cpu"

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.path, self.size = path, path.stat().st_size
        self.at: dict[int, int] = {}

    def readinto(self, buffer: Any) -> int:
        view, here = memoryview(buffer), self.tell()
        if here + view.nbytes > self.size:
            raise EOFError(f"a storage ends beyond the file's {self.size} bytes")
        self.at[np.frombuffer(view, np.uint8).ctypes.data] = here
        if view.nbytes == 8:  # perhaps the storage's length, which comes before it
            return super().readinto(view)
        self.seek(view.nbytes, os.SEEK_CUR)
        return view.nbytes

    def fileno(self) -> int:
        raise io.UnsupportedOperation("PyTorch is to read by these methods")

    def begin(self, storage: Any, name: str) -> int:
        if storage.data_ptr() not in self.at:
            raise CheckpointError(f"{self.path}: {name!r} has no values in the file")
        return self.at[storage.data_ptr()]


def chosen(held: Any, key: str | None, kind: type, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The mapping that holds the tensors, and the plain facts beside it."""
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{path}: holds a {type(held).__name__}, not tensors by name")
    if key is not None:
        return _named(_within(held, key, path)), _facts(held)
    inside = {str(name): value for name, value in held.items() if _has(value, kind)}
    usual = [name for name in inside if name in WRAPPERS]
    if not inside and _has(held, kind):
        return _named(held), {}
    if len(inside) == 1 and (usual or not _has(held, kind)):
        return _named(next(iter(inside.values()))), _facts(held)
    if inside:
        names = [repr(name) for name in inside] + ["'' (the file itself)"] * _has(held, kind)
        raise CheckpointError(f"{path}: tensors are in {', '.join(names)}; say which by `key`")
    raise CheckpointError(
        f"{path}: no tensors by name in it, only {_shown(held)}; say where they are by `key`, such as 'a.b'"
    )


def _within(held: Any, key: str, path: Path) -> Mapping[Any, Any]:
    """What a key leads to; dots lead deeper, where no key has the whole name."""
    rest = key
    while rest:
        if not isinstance(held, Mapping):
            break
        names = [str(name) for name in held if rest == str(name) or rest.startswith(f"{name}.")]
        if not names:
            raise CheckpointError(f"{path}: `key` {key!r} is not there; {_shown(held)}")
        name = max(names, key=len)
        held = next(value for each, value in held.items() if str(each) == name)
        rest = rest[len(name) + 1 :]
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{path}: `key` {key!r} is a {type(held).__name__}, not tensors by name")
    return held


def _has(value: Any, kind: type) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, kind) for each in value.values())


def _named(held: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in held.items()}


def _facts(held: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): value for k, value in held.items() if isinstance(value, bool | int | float | str)}


def _shown(held: Mapping[Any, Any]) -> str:
    names = [repr(str(name)) for name in held]
    return ", ".join(names[:8] + ["..."] * (len(names) > 8)) or "nothing"


def _no_array(value: Any, torch: Any) -> str | None:
    """Why a value is no array that lies in the file; nothing if it is one."""
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided:
        return str(value.layout).removeprefix("torch.")
    if value.is_quantized or not readable(str(value.dtype).removeprefix("torch.")):
        return f"dtype {str(value.dtype).removeprefix('torch.')}"
    if value.is_neg() or value.is_conj():
        return "a lazy negative or conjugate"
    if min(value.stride(), default=0) < 0:
        return "negative strides"
    return None


def _refused(text: str) -> str:
    """PyTorch's refusal without its advice to run what is in the file."""
    found = re.search(r"(?:GLOBAL|function|class|instance of) <?(?:class |function )?'?([\w.]+)", text)
    if found is not None:
        return f"it calls for {found[1]}, which is code and no weights; it was not run, and fanin never does"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if "weights_only" not in line and "torch.load" not in line]
    return f"no file of weights that torch.save wrote ({said[-1] if said else 'damaged'})"
