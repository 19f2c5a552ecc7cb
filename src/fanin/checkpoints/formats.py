"""Which format a checkpoint has, by what is in it; its name only helps the message."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fanin.checkpoints.index import files_of, weight_map
from fanin.checkpoints.zips import members
from fanin.errors import CheckpointError

HDF5 = b"\x89HDF\r\n\x1a\n"
TABLE = bytes.fromhex("57fb808b247547db")  # the last bytes of a TensorFlow index
TREE, ITEMS = "_METADATA", "_CHECKPOINT_METADATA"  # of Orbax
STATE = "checkpoint"  # which of several is the last, of TensorFlow
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".npz", ".keras", ".h5", ".hdf5", ".index", ".ckpt")
# The names by which a library finds the weights among the other files of a folder.
USUAL = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "tf_model.h5",
    "model.weights.json",
    "model.weights.h5",
    STATE,
)
KNOWN = "safetensors, .pt/.pth/.bin, .npz, .keras, .h5, TensorFlow's and Orbax's checkpoints"
SHOWN = 8


@dataclass(frozen=True)
class Found:
    """A checkpoint's format, its files, and where an index places each tensor."""

    kind: str
    files: tuple[Path, ...]
    index: Path | None = None
    placed: Mapping[str, tuple[str, ...]] | None = None


def found(path: Path, key: str | None = None) -> Found:
    """What is at a path: a file, an index of files, a folder, or the common beginning of TensorFlow's files.

    Raises
    ------
    CheckpointError
        When there is nothing, nothing that is known, or more than one checkpoint: the message lists them.
    """
    if path.is_dir():
        return _folder(path, key)
    if path.is_file():
        return _file(path)
    if path.with_name(path.name + ".index").is_file():
        return _file(path.with_name(path.name + ".index"))
    raise CheckpointError(f"{path}: no such file, folder or prefix of TensorFlow's files")


# --- files ---------------------------------------------------------------------------------------


def _file(path: Path) -> Found:
    """A file by its first and last bytes."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        front = file.read(16)
        file.seek(max(0, size - len(TABLE)))
        back = file.read()
    if back == TABLE:
        return Found("tensorflow", (path.with_name(path.name.removesuffix(".index")),))
    data = re.fullmatch(r"(.+)\.data-\d{5}-of-\d{5}", path.name)
    if data is not None and path.with_name(f"{data[1]}.index").is_file():
        return _file(path.with_name(f"{data[1]}.index"))
    kind = _kind(path, front, size)
    if kind is not None:
        return Found(kind, (path,))
    if front.lstrip()[:1] == b"{":
        return _index(path)
    named = f"named {path.suffix} but " if path.suffix in SUFFIXES else ""
    raise CheckpointError(f"{path}: {named}none of {KNOWN}; it begins with {front!r} ({size} bytes)")


def _kind(path: Path, front: bytes, size: int) -> str | None:
    """The format of a file that is a checkpoint by itself."""
    if front[:2] == b"PK":
        return _archive(path)
    if front[:1] == b"\x80" and front[8:9] != b"{":
        return "torch"
    if _is_hdf5(path, size):
        return "h5"
    length = int.from_bytes(front[:8], "little")
    fits = front[8:9] == b"{" and length <= size - 8
    # of a damaged one its reader can say more
    return "safetensors" if fits or path.suffix == ".safetensors" else None


def _archive(path: Path) -> str:
    names = list(members(path))
    if any(re.fullmatch(r"[^/]+/data\.pkl|data\.pkl", name) for name in names):
        return "torch"
    if any(re.fullmatch(r"model\.weights\.\w+", name) for name in names):
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise CheckpointError(
        f"{path}: a zip archive of no checkpoint; it holds {', '.join(names[:SHOWN]) or 'nothing'}"
    )


def _is_hdf5(path: Path, size: int) -> bool:
    """HDF5 begins at 0, 512, 1024, 2048 ..."""
    at = 0
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            if file.read(len(HDF5)) == HDF5:
                return True
            at = max(512, 2 * at)
    return False


def _index(path: Path) -> Found:
    """An index: a JSON file with a ``weight_map``, which names files beside it."""
    placed = weight_map(path)
    names = files_of(path, placed)
    if not names:
        raise CheckpointError(f"{path}: its weight_map names no file")
    kinds = sorted({_file(path.parent / name).kind for name in names})
    if len(kinds) > 1:
        raise CheckpointError(f"{path}: names files of several formats ({', '.join(kinds)})")
    return Found(kinds[0], tuple(path.parent / name for name in names), path, placed)


# --- folders -------------------------------------------------------------------------------------


def _folder(path: Path, key: str | None) -> Found:
    if (path / TREE).is_file():
        return Found("orbax", (path,))
    if (path / ITEMS).is_file():
        return _items(path, key)
    usual = [name for name in USUAL if (path / name).is_file()]
    if usual:
        return _only(path, _without_parts(path, usual))
    listed = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    indexes = [name for name in listed if name.endswith((".index.json", ".weights.json"))]
    files = [name for name in listed if name.endswith(SUFFIXES)]
    steps = [entry.name for entry in sorted(path.iterdir()) if (entry / ITEMS).is_file()]
    return _only(path, [*_without_parts(path, indexes + files), *steps])


def _only(path: Path, names: list[str]) -> Found:
    if not names:
        raise CheckpointError(f"{path}: no checkpoint in this folder; known are {KNOWN}")
    if len(names) > 1:
        shown = ", ".join(names[:SHOWN] + ["..."] * (len(names) > SHOWN))
        raise CheckpointError(f"{path}: {len(names)} checkpoints in this folder ({shown}); name one of them")
    return _latest(path) if names == [STATE] else found(path / names[0])


def _without_parts(path: Path, names: list[str]) -> list[str]:
    """Checkpoints without the files that are parts of one of them."""
    parts = {
        part
        for name in names
        if name.endswith(".json")
        for among in weight_map(path / name).values()
        for part in among
    }
    # a whole file beside an index of several is what the index was made from
    whole = {name.removesuffix(".index.json") for name in names if name.endswith(".index.json")}
    return [name for name in names if name not in parts | whole]


def _latest(path: Path) -> Found:
    """The checkpoint that TensorFlow wrote last into a folder."""
    text = (path / STATE).read_text(encoding="utf-8", errors="replace")
    said = re.search(r'^model_checkpoint_path: ("(?:[^"\\]|\\.)*")$', text, re.MULTILINE)
    if said is None:
        raise CheckpointError(f"{path / STATE}: names no checkpoint of TensorFlow")
    # an absolute path is of the folder as it was when it was written
    name = Path(json.loads(said[1])).name
    if not (path / f"{name}.index").is_file():
        raise CheckpointError(f"{path / STATE}: names {name!r}, which is not there")
    return _file(path / f"{name}.index")


def _items(path: Path, key: str | None) -> Found:
    """A checkpoint of Orbax of several items, each in its folder."""
    items = [entry.name for entry in sorted(path.iterdir()) if (entry / TREE).is_file()]
    if key is not None and key not in items:
        raise CheckpointError(f"{path}: `key` {key!r} is not there; it holds {', '.join(items) or 'no tree'}")
    if key is None and len(items) != 1:
        raise CheckpointError(f"{path}: trees are in {', '.join(items) or 'no item'}; say which by `key`")
    return Found("orbax", (path / (key or items[0]),))
