"""The safetensors format: eight bytes of length, a JSON header, the tensors' bytes without holes.

Headers are read and written here, because a checkpoint larger than memory is made of them and of windows;
everything they say is checked against the file before it is believed.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fanin._types import Array, Window
from fanin.checkpoints.contents import Contents, Spec
from fanin.checkpoints.mapped import mapped
from fanin.dtypes import as_dtype
from fanin.errors import CheckpointError

LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
# The format's order: the widest first, so that each tensor is aligned.
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "bfloat16": "BF16",
    "float16": "F16",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
NAMES = {code: name for name, code in DTYPES.items()}
# Those that hold no weights: counters, masks.
OTHER = {
    "I64": "int64",
    "U64": "uint64",
    "I32": "int32",
    "U32": "uint32",
    "I16": "int16",
    "U16": "uint16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
CODES = DTYPES | {name: code for code, name in OTHER.items()}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its dtype by the format's code, its shape, and where its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def header(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, Stored]]:
    """The first bytes of a file of these (name, dtype, shape), and where each tensor goes.

    Tensors are in the order of the format (the widest dtype first, then by name) and the metadata sorted, so
    that equal tensors make equal bytes.
    """
    ranks = list(CODES)
    ordered = sorted(
        tensors,
        key=lambda tensor: (-as_dtype(tensor[1]).itemsize, ranks.index(tensor[1]), tensor[0]),
    )
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for name, dtype, shape in ordered:
        size = math.prod(shape) * as_dtype(dtype).itemsize
        entries[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    front = len(text).to_bytes(8, "little") + text
    stored = {
        name: Stored(CODES[dtype], shape, *(len(front) + place for place in entries[name]["data_offsets"]))
        for name, dtype, shape in ordered
    }
    return front, stored


def read_header(path: str | Path) -> dict[str, Stored]:
    """Where each tensor of a file lies.

    Raises
    ------
    CheckpointError
        When the file is not what its header says: the message names the file and the tensor.
    """
    return _checked(path)[0]


def _checked(path: str | Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """Where each tensor of a file lies, and what the file says of itself."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        front = file.read(8)
        length = int.from_bytes(front, "little")
        if len(front) < 8 or length > min(LONGEST_HEADER, size - 8):
            raise CheckpointError(f"{path}: its header of {length} bytes does not fit its {size} bytes")
        text = file.read(length)
    try:
        entries = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is no JSON ({error})") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path}: its header is no JSON object")
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(each, str) for each in metadata.values()):
        raise CheckpointError(f"{path}: its metadata is no JSON object of text")
    found = {name: _stored(path, name, entry, 8 + length) for name, entry in entries.items()}
    at = 8 + length
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start != at:
            raise CheckpointError(
                f"{path}: {name!r} begins at byte {tensor.start}, not where the last ended ({at})"
            )
        at = tensor.stop
    if at != size:
        raise CheckpointError(f"{path}: its tensors end at byte {at}, the file at {size}")
    return found, metadata


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _stored(path: str | Path, name: str, entry: Any, data: int) -> Stored:
    try:
        code, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, start, stop]
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: {name!r} has no dtype, shape and data_offsets: {entry!r}") from error
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise CheckpointError(f"{path}: {name!r} has a shape or offsets that are no integers >= 0: {entry!r}")
    if not isinstance(code, str) or not (code in NAMES or code in OTHER):
        raise CheckpointError(f"{path}: {name!r} has the unknown dtype {code!r}")
    spec = Spec(tuple(shape), {**NAMES, **OTHER}[code])
    if spec.nbytes != stop - start:
        raise CheckpointError(
            f"{path}: {name!r} of shape {tuple(shape)} and dtype {code} has {stop - start} bytes"
        )
    spec.check(path, name)
    return Stored(code, tuple(shape), data + start, data + stop)


def values(path: str | Path, tensor: Stored) -> Array:
    """A tensor's values, read from the file as they are asked for."""
    if tensor.dtype not in NAMES:
        raise CheckpointError(f"{path}: dtype {tensor.dtype} holds no weights")
    return numbers(path, tensor)


def numbers(path: str | Path, tensor: Stored) -> Array:
    """The same of a tensor that may hold counters or masks."""
    return _mapped(path, repr(tensor), tensor, "r")


def contents(path: Path) -> Contents:
    """The tensors of a file, in the order of its header."""
    stored, metadata = _checked(path)
    names = {**NAMES, **OTHER}
    tensors = {name: Spec(tensor.shape, names[tensor.dtype]) for name, tensor in stored.items()}

    def read(name: str, window: Window) -> Array:
        return _mapped(path, name, stored[name], "c")[window]

    lies = {name: (path, tensor.start) for name, tensor in stored.items()}
    return Contents(tensors, {}, metadata, read=read, lies=lies)


def _mapped(path: str | Path, name: str, tensor: Stored, mode: Literal["r", "c"]) -> Array:
    dtype = as_dtype({**NAMES, **OTHER}[tensor.dtype])
    steps = [math.prod(tensor.shape[axis + 1 :]) * dtype.itemsize for axis in range(len(tensor.shape))]
    return mapped(path, name, dtype.name, tensor.shape, tensor.start, tuple(steps), mode)
