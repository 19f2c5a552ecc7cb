"""Checkpoints from strangers: one clear error, no code run, the model's bytes as they were."""

import json
import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import fanin.torch as ft
from fanin.errors import FaninError

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)
BYTES = WEIGHT.tobytes()
ENTRY = {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def safetensors(folder, front, data=BYTES, length=None):
    text = front if isinstance(front, bytes) else json.dumps(front).encode()
    size = len(text) if length is None else length
    (folder / "x.safetensors").write_bytes(size.to_bytes(8, "little") + text + data)


def lying_size(folder):
    safetensors(folder, {"weight": ENTRY}, length=1 << 62)


def beyond_the_end(folder):
    safetensors(folder, {"weight": ENTRY | {"data_offsets": [1 << 40, (1 << 40) + 24]}})


def negative(folder):
    safetensors(folder, {"weight": ENTRY | {"data_offsets": [-24, 0]}})


def overlapping(folder):
    safetensors(folder, {"weight": ENTRY, "other": ENTRY | {"data_offsets": [12, 36]}}, bytes(36))


def twice_one_name(folder):
    entry = json.dumps(ENTRY)
    safetensors(folder, f'{{"weight": {entry}, "weight": {entry}}}'.encode())


def enormous_header(folder):
    safetensors(folder, b"{", length=100_000_001)
    os.truncate(folder / "x.safetensors", 1 << 30)  # without taking room on the disk


def nan_in_metadata(folder):
    safetensors(folder, b'{"__metadata__": {"lr": NaN}, "weight": ' + json.dumps(ENTRY).encode() + b"}")


def number_in_metadata(folder):
    safetensors(folder, {"__metadata__": {"lr": 1}, "weight": ENTRY})


def bomb(folder):
    """A member that unpacks to a thousand times what the directory and its own header say."""
    np.savez(folder / "w.npz", weight=WEIGHT)
    with zipfile.ZipFile(folder / "w.npz") as archive:
        content = archive.read("weight.npy")
    (folder / "w.npz").unlink()
    with zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weight.npy", content + bytes(len(content) * 1000))
        archive.getinfo("weight.npy").file_size = len(content)


def honest_bomb(folder):
    np.savez_compressed(folder / "x.npz", weight=np.zeros((1 << 12, 1 << 12), np.float32))


def index(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"weight": name}}))


def path_that_leads_out(folder):
    safetensors(folder.parent, {"weight": ENTRY})
    index(folder, "../x.safetensors")


def link_to_a_device(folder):
    (folder / "x.safetensors").symlink_to("/dev/zero")
    index(folder, "x.safetensors")


def link_to_itself(folder):
    (folder / "x.safetensors").symlink_to("x.safetensors")
    index(folder, "x.safetensors")


def link_to_what_is_no_checkpoint(folder):
    (folder.parent / "secret").write_text("root:x:0:0:secret")
    (folder / "x.safetensors").symlink_to(folder.parent / "secret")
    index(folder, "x.safetensors")


def pickled_code(folder):
    (folder / "x.pt").write_bytes(pickle.dumps({"weight": Trap(folder / "trap")}, 2))


def pickled_code_in_an_archive(folder):
    with zipfile.ZipFile(folder / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"weight": Trap(folder / "trap")}, 2))
        archive.writestr("x/version", "3\n")


def pickled_array(folder):
    np.savez(folder / "x.npz", weight=np.array([Trap(folder / "trap")], object), allow_pickle=True)


def link_in_hdf5(folder):
    with h5py.File(folder.parent / "secret.h5", "w") as file:
        file["weight"] = WEIGHT
    with h5py.File(folder / "x.h5", "w") as file:
        file["weight"] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "/weight")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lying_size, "does not fit its"),
        (beyond_the_end, "not where the last ended"),
        (negative, "no integers >= 0"),
        (overlapping, "begins at byte"),
        (twice_one_name, "a name occurs twice"),
        (enormous_header, "header of 100000001 bytes does not fit"),
        (nan_in_metadata, "NaN is no JSON"),
        (number_in_metadata, "no JSON object of text"),
        (bomb, r"'weight' is damaged .*CRC"),
        (honest_bomb, r"'weight' has shape \(3, 2\), 'weight' in"),
        (path_that_leads_out, "not the name of a file beside it"),
        (link_to_a_device, "which is not there"),
        (link_to_itself, "which is not there"),
        (link_to_what_is_no_checkpoint, "does not fit its|none of safetensors"),
        (pickled_code, r"calls for (posix|os)\.mkdir, which is code"),
        (pickled_code_in_an_archive, r"calls for (posix|os)\.mkdir, which is code"),
        (pickled_array, "only pickle can read"),
        (link_in_hdf5, "is a ExternalLink"),
    ],
)
def test_a_hostile_checkpoint_leaves_the_model_as_it_was(tmp_path, make, text):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    make(folder)
    model = nn.Linear(2, 3, bias=False)
    before = model.weight.detach().clone()
    with pytest.raises(FaninError, match=text):
        ft.transfer(model, folder, "he_normal", seed=0)
    assert torch.equal(model.weight, before)
    assert not (folder / "trap").exists()


def test_links_to_whole_files_are_followed(tmp_path):
    """Caches of downloads are made of them."""
    safetensors(tmp_path, {"weight": ENTRY})
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "part.safetensors").symlink_to(tmp_path / "x.safetensors")
    index(folder, "part.safetensors")
    model = nn.Linear(2, 3, bias=False)
    ft.transfer(model, folder)
    assert model.weight.tolist() == WEIGHT.tolist()
