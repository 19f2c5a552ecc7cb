"""Orbax's checkpoints of a tree of arrays. Runs in the child process.

The tree is in a JSON file; each array is in Zarr, alone or with all others in one key-value store, and is
read by TensorStore as Orbax itself does, window by window.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from fanin._types import Array, Window
from fanin.checkpoints.contents import Asked, Contents, Spec, readable
from fanin.errors import CheckpointError

TREE = "_METADATA"
ARRAYS = ("jax.Array", "np.ndarray", "scalar")


def contents(path: Path, asked: Asked) -> Contents:
    """The arrays of a tree; ``path`` is the folder of the tree, whose names are joined by dots."""
    tensorstore: Any = import_module("tensorstore")
    tree, spec = _tree(path)
    stores, tensors, left_out = {}, {}, {}
    for name, kind in tree.items():
        if kind not in ARRAYS:
            left_out[name] = f"a {kind}"
            continue
        store = tensorstore.open(spec(name), read=True, open=True).result()
        dtype = str(store.dtype.numpy_dtype.name)
        if readable(dtype):
            tensors[name], stores[name] = Spec(tuple(store.shape), dtype), store
        else:
            left_out[name] = f"dtype {dtype}"

    def read(name: str, window: Window) -> Array:
        return np.asarray(stores[name][window].read().result())

    return Contents(tensors, left_out, read=read)


def _tree(path: Path) -> tuple[dict[str, str], Any]:
    """{name: what is there}, and what TensorStore opens by a name."""
    try:
        said = json.loads((path / TREE).read_text(encoding="utf-8"))
        tree = {}
        for leaf in said["tree_metadata"].values():
            keys = [str(each["key"]) for each in leaf["key_metadata"]]
            tree[".".join(keys)] = str(leaf["value_metadata"]["value_type"])
        together, zarr3 = bool(said.get("use_ocdbt", True)), bool(said.get("use_zarr3", False))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {TREE} does not describe a tree ({error!r})") from error
    outside = [name for name in tree if "/" in name or "\\" in name or name in ("", ".", "..")]
    if outside:
        raise CheckpointError(f"{path}: {outside[0]!r} is no name of an array in the folder")
    whole = bool(said.get("store_array_data_equal_to_fill_value", False))

    def spec(name: str) -> dict[str, Any]:
        place: dict[str, Any] = (
            {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/"}, "path": f"{name}/"}
            if together
            else {"driver": "file", "path": f"{path / name}/"}
        )
        driver = "zarr3" if zarr3 else "zarr"
        # a part that was lost is an error, not zeros
        return {"driver": driver, "kvstore": place, "fill_missing_data_reads": not whole}

    return tree, spec
