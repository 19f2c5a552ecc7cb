"""NumPy's .npz: a zip archive of arrays, each with a header of its own. Objects are never unpickled."""

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from fanin._types import Array, Window
from fanin.checkpoints.contents import Contents, Spec, readable
from fanin.checkpoints.zips import members
from fanin.errors import CheckpointError

SUFFIX = ".npy"
LONGEST_HEADER = 10_000  # bytes; NumPy's own limit for files that are not trusted
PART = 1 << 20  # bytes unpacked at once


def contents(path: Path) -> Contents:
    """The arrays of an archive; their headers are read, and must agree with the sizes of the members."""
    found = members(path)
    tensors, left_out = {}, {}
    with zipfile.ZipFile(path) as archive:
        for member in found.values():
            name = member.filename.removesuffix(SUFFIX)
            with _opened(archive, path, name) as file:
                shape, _, dtype = _header(file, path, name)
                if dtype.hasobject:
                    raise CheckpointError(
                        f"{path}: {name!r} holds Python objects, which only pickle can read; fanin never does"
                    )
                held = member.file_size - file.tell()
            spec = Spec(shape, dtype.newbyteorder("=").name)
            if not readable(spec.dtype):
                left_out[name] = f"dtype {dtype}"
            elif spec.nbytes != held:
                raise CheckpointError(
                    f"{path}: {name!r} of shape {shape} and dtype {spec.dtype} has {held} bytes"
                )
            else:
                tensors[name] = spec

    def read(name: str, window: Window) -> Array:
        with zipfile.ZipFile(path) as archive, _opened(archive, path, name) as file:
            shape, fortran, dtype = _header(file, path, name)
            array = np.empty(shape, dtype, "F" if fortran else "C")
            flat = (array.T if fortran else array).reshape(-1).view(np.uint8)
            at = 0
            try:
                while part := file.read(min(PART, flat.size - at)):
                    flat[at : at + len(part)] = np.frombuffer(part, np.uint8)
                    at += len(part)
                whole = at == flat.size and not file.read(1)  # reads on to the checksum
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise CheckpointError(f"{path}: {name!r} is damaged ({error})") from error
            if not whole:
                raise CheckpointError(f"{path}: {name!r} ends after {at} of {flat.size} bytes")
        return array[window].astype(dtype.newbyteorder("="), copy=False)

    return Contents(tensors, left_out, read=read)


def _opened(archive: zipfile.ZipFile, path: Path, name: str) -> IO[bytes]:
    try:
        return archive.open(name + SUFFIX)
    except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise CheckpointError(f"{path}: {name!r} is damaged ({error})") from error


def _header(file: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path}: {name!r} is damaged ({error})") from error
    except Exception as error:  # NumPy reads it as a literal of Python, which fails in many ways
        raise CheckpointError(f"{path}: {name!r} has no header of an array ({error})") from error
    if not all(type(size) is int and size >= 0 for size in shape):
        raise CheckpointError(f"{path}: {name!r} has the shape {shape}, which no array has")
    return shape, fortran, dtype
