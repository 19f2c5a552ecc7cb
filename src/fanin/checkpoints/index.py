"""A checkpoint as a folder of safetensors files, with an index where there are several."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fanin.checkpoints.safetensors import NAMES, Stored, read_header
from fanin.errors import CheckpointError
from fanin.fans import OI, Axes
from fanin.model import Model, Piece, Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def shard_name(at: int, of: int) -> str:
    """The name of file ``at`` (from 0) of a checkpoint of ``of`` files."""
    return SINGLE if of == 1 else f"model-{at + 1:05d}-of-{of:05d}.safetensors"


def index_text(files: dict[str, str], total: int) -> str:
    """The index: which file each tensor is in, and the bytes of all."""
    data = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    return json.dumps(data, indent=2) + "\n"


def tensors_of(place: str | Path) -> dict[str, tuple[Path, Stored]]:
    """Every tensor of a checkpoint: {name: (file, where in it)}.

    Parameters
    ----------
    place : path
        A folder with ``model.safetensors`` or its index, or a file.

    Raises
    ------
    CheckpointError
        When a file is missing or is not what its header says, or the index names a tensor that is not there.
    """
    place = Path(place)
    if place.is_file() and not place.name.endswith(".json"):
        return {name: (place, stored) for name, stored in read_header(place).items()}
    folder, index = (place, place / INDEX) if place.is_dir() else (place.parent, place)
    if (folder / SINGLE).is_file() and not index.is_file():
        return tensors_of(folder / SINGLE)
    if not index.is_file():
        raise CheckpointError(f"{place}: no {SINGLE} and no {INDEX} there")
    placed = weight_map(index)
    found: dict[str, tuple[Path, Stored]] = {}
    held = {}
    for file in files_of(index, placed):
        held[file] = read_header(folder / file)
        found |= {name: (folder / file, stored) for name, stored in held[file].items()}
    check_placed(index, placed, held)
    return found


def check_placed(
    index: Path, placed: Mapping[str, tuple[str, ...]], held: Mapping[str, Collection[str]]
) -> None:
    """Every tensor of the files must be where the index says, and the other way round."""
    for file, names in held.items():
        for name in names:
            if placed.get(name) != (file,):
                raise CheckpointError(
                    f"{index.parent / file}: holds {name!r}, which the index places elsewhere"
                )
    for name in sorted(placed):
        if any(name not in held[file] for file in placed[name]):
            raise CheckpointError(f"{index}: {name!r} is not in {placed[name][0]!r}")


def files_of(index: Path, placed: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The files that an index names, each of which must be there."""
    names = sorted({name for names in placed.values() for name in names})
    for name in names:
        try:
            there = (index.parent / name).is_file()
        except OSError:  # longer than a name can be
            there = False
        if not there:
            raise CheckpointError(f"{index}: names {name!r}, which is not there")
    return names


def weight_map(index: Path) -> dict[str, tuple[str, ...]]:
    """Which files beside it an index names for each tensor: one, of Keras perhaps several."""
    try:
        data: Any = json.loads(index.read_text(encoding="utf-8"))
        placed = {
            name: (files,) if isinstance(files, str) else tuple(files)
            for name, files in data["weight_map"].items()
        }
        outside = [file for files in placed.values() for file in files if Path(file).name != file]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: no index with a weight_map ({error})") from error
    if outside:
        raise CheckpointError(f"{index}: {outside[0]!r} is not the name of a file beside it")
    return placed


def model_of(place: str | Path) -> Model:
    """The tensors of a checkpoint as a model whose layers nobody knows: names, shapes and dtypes."""
    tensors = []
    for name, (file, stored) in tensors_of(place).items():
        if stored.dtype not in NAMES:
            raise CheckpointError(f"{file}: {name!r} has dtype {stored.dtype}, which holds no weights")
        axes = OI if len(stored.shape) > 1 else Axes((0,), ())
        piece = Piece(name, "unknown", "unknown", axes)
        tensors.append(Tensor(name, stored.shape, NAMES[stored.dtype], (piece,)))
    return Model(tuple(tensors))
