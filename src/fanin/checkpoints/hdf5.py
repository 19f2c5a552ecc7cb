"""HDF5 files of Keras: .weights.h5, the archive .keras, and the older .h5. Runs in the child process.

Only what lies in the file itself is read: links, and data in or from other files, are refused.
"""

import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

from fanin._types import Array, Window
from fanin.checkpoints.contents import Asked, Contents, Spec, no_key, readable
from fanin.checkpoints.zips import is_zip, members, start
from fanin.dtypes import as_dtype
from fanin.errors import CheckpointError

WEIGHTS = "model.weights.h5"  # in a .keras archive
# What a layer calls its variables, in the order in which it makes them, with the option that each depends on.
AFFINE = (("kernel", None), ("bias", "use_bias"))
NORM = (("gamma", "scale"), ("beta", "center"))
CELL = (("kernel", None), ("recurrent_kernel", None), ("bias", "use_bias"))
SEPARABLE = (("depthwise_kernel", None), ("pointwise_kernel", None), ("bias", "use_bias"))
VARIABLES: dict[str, tuple[tuple[str, str | None], ...]] = {
    **dict.fromkeys(("dense", "einsum_dense", "conv1d", "conv2d", "conv3d"), AFFINE),
    **dict.fromkeys(("conv1d_transpose", "conv2d_transpose", "conv3d_transpose"), AFFINE),
    **dict.fromkeys(("depthwise_conv1d", "depthwise_conv2d"), AFFINE),
    **dict.fromkeys(("separable_conv1d", "separable_conv2d"), SEPARABLE),
    **dict.fromkeys(("layer_normalization", "group_normalization"), NORM),
    "batch_normalization": (*NORM, ("moving_mean", None), ("moving_variance", None)),
    "rms_normalization": (("scale", None),),
    "embedding": (("embeddings", None),),
    "p_re_lu": (("alpha", None),),
    **dict.fromkeys(("lstm_cell", "gru_cell", "simple_rnn_cell"), CELL),
}
# Attributes by which Keras's own layers hold such layers.
HELD = dict.fromkeys(("query_dense", "key_dense", "value_dense", "output_dense"), "einsum_dense")


def contents(path: Path, asked: Asked) -> Contents:
    """The weights of a file by readable names: ``encoder/dense/kernel``."""
    no_key(path, asked.key)
    h5py: Any = import_module("h5py")
    source, config = _in_archive(path, asked.most) if is_zip(path) else (path, None)
    file = h5py.File(source, "r", locking=False) if source is path else h5py.File(source, "r")
    datasets = {name: _checked(path, name, dataset) for name, dataset in _datasets(path, file, h5py)}
    legacy = _is_legacy(file)
    named, metadata = _legacy(file) if legacy else (_named(file, datasets, config, asked.part), {})
    tensors, left_out, of = {}, {}, {}
    for place, dataset in datasets.items():
        name = named.get(place)
        spec = Spec(tuple(dataset.shape), _dtype(dataset))
        if name is None:
            left_out[place] = (
                "of the optimizer" if place.startswith("optimizer") else "no weight of the model"
            )
        elif not readable(spec.dtype):
            left_out[name] = f"dtype {dataset.dtype}"
        elif place.split("/")[-3:-1] == ["seed_generator", "vars"]:
            left_out[name] = "state of a random generator"
        else:
            tensors[name], of[name] = spec, dataset
    if not legacy:
        metadata["places"] = {name: place for place, name in named.items() if name in tensors}

    def read(name: str, window: Window) -> Array:
        values = np.asarray(of[name][window])
        dtype = as_dtype(tensors[name].dtype)
        return values.view(dtype) if values.dtype.kind == "V" else values.astype(dtype, copy=False)

    return Contents(tensors, left_out, metadata, read=read)


# --- the file ------------------------------------------------------------------------------------


class _Region(io.RawIOBase):
    """Some bytes of a file as a file."""

    def __init__(self, path: Path, begin: int, size: int) -> None:
        self.handle, self.begin, self.size, self.at = os.open(path, os.O_RDONLY), begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, where: int, whence: int = 0) -> int:
        self.at = where + (0, self.at, self.size)[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self.size - self.at)]
        part = os.pread(self.handle, len(view), self.begin + self.at)
        view[: len(part)] = part
        self.at += len(part)
        return len(part)


def _in_archive(path: Path, most: int) -> tuple[Any, Any]:
    """The weights' file in a .keras archive, and the model's config."""
    found = members(path)
    if WEIGHTS not in found:
        raise CheckpointError(f"{path}: no {WEIGHTS} in the archive")
    weights, config = found[WEIGHTS], found.get("config.json")
    for member in filter(None, (weights, config)):
        if member.compress_type and member.file_size > most:
            raise CheckpointError(
                f"{path}: {member.filename} unpacks to {member.file_size} bytes, more than `memory`; "
                f"pass more if you trust it"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read(config)) if config is not None else None
            if not weights.compress_type:
                return _Region(path, start(path, weights), weights.file_size), described
            unpacked: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as this process)
            with archive.open(weights) as packed:
                shutil.copyfileobj(packed, unpacked)
            return unpacked, described
    except (zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged archive ({error})") from error


def _datasets(path: Path, file: Any, h5py: Any) -> Iterator[tuple[str, Any]]:
    """Every array in the file itself, by its place."""
    seen, waiting = {h5py.h5o.get_info(file.id).addr}, [("", file)]
    while waiting:
        where, group = waiting.pop()
        inner = []
        for name in group:
            place = f"{where}/{name}" if where else name
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise CheckpointError(
                    f"{path}: {place!r} is a {type(link).__name__}; only what the file itself holds is read"
                )
            held = group[name]
            if isinstance(held, h5py.Dataset):
                yield place, held
            elif isinstance(held, h5py.Group):
                address = h5py.h5o.get_info(held.id).addr
                if address in seen:
                    raise CheckpointError(f"{path}: {place!r} is a group that is in the file twice")
                seen.add(address)
                inner.append((place, held))
        waiting += reversed(inner)


def _checked(path: Path, name: str, dataset: Any) -> Any:
    """A dataset whose values are in the file, all of them."""
    if dataset.external or dataset.is_virtual:
        raise CheckpointError(f"{path}: {name!r} has its values in another file, which is not followed")
    if dataset.shape is None:
        raise CheckpointError(f"{path}: {name!r} has no values")
    stored, said = dataset.id.get_storage_size(), dataset.nbytes
    if dataset.chunks is None and stored < said:
        raise CheckpointError(f"{path}: {name!r} says it has {said} bytes; {stored} are in the file")
    return dataset


def _dtype(dataset: Any) -> str:
    said = dataset.attrs.get("dtype")
    if dataset.dtype.kind == "V" and isinstance(said, str) and readable(said):
        return said if as_dtype(said).itemsize == dataset.dtype.itemsize else str(dataset.dtype)
    name: str = dataset.dtype.newbyteorder("=").name
    return name


# --- names ---------------------------------------------------------------------------------------


def _named(file: Any, datasets: dict[str, Any], config: Any, part: bool) -> dict[str, str]:
    """Readable names of the places that Keras 3 writes to: ``layers/dense/vars/0`` is ``dense/kernel``.

    A layer in a model has its own name, or where that was automatic its class and number there; a layer in an
    attribute has that. In one of several files (``part``), which knows only its own layers, all have class
    and number. Places whose names would be the same keep their place.
    """
    named = {}
    for place in datasets:
        *where, leaf = place.split("/")
        if where[:1] == ["optimizer"]:
            continue
        if where[-1:] != ["vars"]:
            named[place] = place
            continue
        given: dict[str, str] = {}
        settings, word = config, ""
        for at, step in enumerate(where[:-1]):
            group = file["/".join(where[: at + 1])]
            if step == "layers" and "vars" not in group:
                continue
            named_here = "vars" in group and not part
            own = str(group["vars"].attrs.get("name", step)) if named_here else step
            given["/".join(where[: at + 1])] = own
            held = at > 0 and where[at - 1] == "layers"
            settings = _config(settings, own) if held else None
            words = (HELD.get(step, ""), _word(step), _word(own))
            word = next((word for word in words if word in VARIABLES), "")
        path = spelled(where[:-1], given)
        names = {} if part else _variables(word, settings, len(file["/".join(where)]))
        path.append(names.get(leaf, leaf))
        named[place] = "/".join(path)
    counts = Counter(named.values())
    return {place: name if counts[name] == 1 else place for place, name in named.items()}


def spelled(steps: Sequence[str], given: Mapping[str, str]) -> list[str]:
    """The steps to a layer in words: in a model its own name, unless that was automatic.

    Parameters
    ----------
    steps : sequence of str
        As in the file: ``["layers", "dense_1"]``.
    given : mapping of str to str
        {place of a layer: its name}; lists of layers have none.

    Examples
    --------
    >>> spelled(["layers", "dense_1"], {"layers/dense_1": "head"})
    ['head']
    >>> spelled(["layers", "dense_1"], {"layers/dense_1": "dense_7"})
    ['dense_1']
    """
    words = []
    for at, step in enumerate(steps):
        own = given.get("/".join(steps[: at + 1]))
        if own is None and step == "layers":
            continue
        held = at > 0 and steps[at - 1] == "layers"
        words.append(own if own and held and _word(own) != _word(step) else step)
    return words


def _word(name: str) -> str:
    """A name without the number that Keras puts behind it."""
    return re.sub(r"_\d+$", "", name)


def _config(model: Any, name: str | None) -> Any:
    """What a model's config says of the layer of a name."""
    try:
        layers = model["config"]["layers"]
        return next((layer for layer in layers if layer["config"]["name"] == name), None)
    except (TypeError, KeyError):
        return None


def _variables(word: str, settings: Any, count: int) -> dict[str, str]:
    """What the variables of a layer are called, if its class and their number leave no doubt."""
    table = VARIABLES.get(word, ())
    options = settings.get("config", {}) if isinstance(settings, dict) else {}
    names = [name for name, option in table if option is None or options.get(option, True)]
    sure = [name for name, option in table if option is None]
    if len(names) != count and (not options or len(table) == len(sure) + 1):
        names = sure
    return {str(at): name for at, name in enumerate(names)} if len(names) == count else {}


def _is_legacy(file: Any) -> bool:
    return "layer_names" in file.attrs or "layer_names" in getattr(file.get("model_weights"), "attrs", {})


def _legacy(file: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """The names that the older form gives its weights, and who wrote it."""
    root, before = (file, "") if "layer_names" in file.attrs else (file["model_weights"], "model_weights/")
    named = {}
    for layer in [*root.attrs["layer_names"], "top_level_model_weights"]:
        if _text(layer) in root:
            group = root[_text(layer)]
            for weight in group.attrs.get("weight_names", ()):
                named[f"{before}{_text(layer)}/{_text(weight)}"] = _text(weight).removesuffix(":0")
    counts = Counter(named.values())
    facts = {name: _text(root.attrs[name]) for name in ("keras_version", "backend") if name in root.attrs}
    return {
        place: name if counts[name] == 1 else place.removeprefix(before) for place, name in named.items()
    }, facts


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
