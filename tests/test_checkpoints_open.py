"""Checkpoints of every kind by one interface; files that lie are refused before they cost anything."""

import contextlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fanin import checkpoints
from fanin.checkpoints.child import EXTRAS, Limits, Reader
from fanin.checkpoints.contents import Asked
from fanin.errors import ArgumentError, CheckpointError, ShapeError

MEMORY = Path(__file__).parent / "checkpoint_memory.py"
ARRAYS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(4, dtype=np.float16),
    "brain": np.ones((2, 2), ml_dtypes.bfloat16),
    "steps": np.array(7),
    "mask": np.array([True, False]),
    "none": np.zeros((0, 4), np.float32),
}
# npz has no name for bfloat16
PLAIN = {name: array for name, array in ARRAYS.items() if name != "brain"}


def save_h5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


WRITERS = {
    "safetensors": lambda path, arrays: save_file(arrays, path),
    "npz": lambda path, arrays: np.savez(path, **arrays),
    "packed": lambda path, arrays: np.savez_compressed(path, **arrays),
    "h5": save_h5,
}
ENDINGS = {"safetensors": "x.safetensors", "npz": "x.npz", "packed": "x.npz", "h5": "x.h5"}


def written(folder, kind, arrays=PLAIN):
    path = folder / ENDINGS[kind]
    WRITERS[kind](path, arrays)
    return path


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
def test_tensors_are_described_and_read_one_by_one(tmp_path, kind, same_bits):
    with checkpoints.open(written(tmp_path, kind)) as checkpoint:
        assert checkpoint.kind == {"packed": "npz"}.get(kind, kind)
        described = {name: (spec.shape, spec.dtype) for name, spec in checkpoint.tensors.items()}
        assert described == {name: (array.shape, array.dtype.name) for name, array in PLAIN.items()}
        for name, array in PLAIN.items():
            same_bits(checkpoint.read(name), array)
        same_bits(checkpoint.read("b.weight", (slice(1, 2), slice(0, 2))), PLAIN["b.weight"][1:2, :2])
        assert f"{kind if kind != 'packed' else 'npz'} checkpoint" in repr(checkpoint)


@pytest.mark.parametrize("kind", WRITERS)
def test_an_array_that_was_read_is_ones_own(tmp_path, kind):
    path = written(tmp_path, kind)
    before = path.read_bytes()
    with checkpoints.open(path) as checkpoint:
        checkpoint.read("b.weight")[...] = -1.0
        assert checkpoint.read("b.weight").tolist() == PLAIN["b.weight"].tolist()
        kept = checkpoint.read("half")
    assert kept.tolist() == [0, 1, 2, 3]
    assert path.read_bytes() == before


def test_the_name_of_a_file_says_nothing(tmp_path):
    for kind in WRITERS:
        path = written(tmp_path, kind)
        with checkpoints.open(path.rename(tmp_path / "weights.pt")) as checkpoint:
            assert set(checkpoint.tensors) == set(PLAIN)


def test_safetensors_keep_their_metadata_and_every_dtype(tmp_path, same_bits):
    save_file(ARRAYS, tmp_path / "f", metadata={"format": "pt"})
    with checkpoints.open(tmp_path / "f") as checkpoint:
        assert checkpoint.metadata == {"format": "pt"}
        for name, array in ARRAYS.items():
            same_bits(checkpoint.read(name), array)


def test_a_tensor_at_an_odd_byte_is_read(tmp_path):
    front = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    assert (8 + len(front)) % 4 != 0
    (tmp_path / "f").write_bytes(len(front).to_bytes(8, "little") + front + np.array([1, 2], "<f4").tobytes())
    with checkpoints.open(tmp_path / "f") as checkpoint:
        array = checkpoint.read("a")
    assert array.flags.aligned
    assert array.tolist() == [1, 2]


def test_npz_of_another_byte_and_axis_order_is_read(tmp_path, same_bits):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "f.npz", swapped=array.astype(">f4"), fortran=np.asfortranarray(array), text="abc")
    with checkpoints.open(tmp_path / "f.npz") as checkpoint:
        same_bits(checkpoint.read("swapped"), array)
        same_bits(checkpoint.read("fortran"), array)
        assert checkpoint.left_out == {"text": "dtype <U3"}


def test_wrong_questions_are_clear_errors(tmp_path):
    path = written(tmp_path, "npz")
    with checkpoints.open(path) as checkpoint:
        with pytest.raises(CheckpointError, match=r"no tensor 'b\.wieght'; did you mean b\.weight\?"):
            checkpoint.read("b.wieght")
        with pytest.raises(ShapeError, match="`window`"):
            checkpoint.read("b.weight", (slice(0, 3), slice(0, 1)))
    with pytest.raises(CheckpointError, match="is closed"):
        checkpoint.read("b.weight")
    with pytest.raises(CheckpointError, match="`key` 'model' is for PyTorch's and Orbax's"):
        checkpoints.open(path, key="model")
    with pytest.raises(CheckpointError, match="`key` 'model' is for PyTorch's and Orbax's"):
        checkpoints.open(written(tmp_path, "h5"), key="model")
    for wrong in ({"memory": -1}, {"memory": 1.5}, {"seconds": 0}, {"seconds": float("inf")}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            checkpoints.open(path, **wrong)


@pytest.mark.parametrize("kind", WRITERS)
def test_memory_is_that_of_the_largest_tensor(tmp_path, kind, python):
    largest = 8 << 20
    small = {"a": np.zeros(8, np.float32)}
    large = {f"t{at}": np.tile(np.arange(1 << 12, dtype=np.float32), largest >> 14) for at in range(8)}
    paths = [
        str(written(tmp_path, kind, small).rename(tmp_path / "small")),
        str(written(tmp_path, kind, large)),
    ]
    here, there = map(int, python(MEMORY, *paths).split())
    assert here < 2 * largest
    assert there < 2 * largest


# --- which format --------------------------------------------------------------------------------


def test_what_is_no_checkpoint_says_so(tmp_path):
    for text, front in [
        ("named .npz but none of safetensors", b"hello"),
        ("it begins with b''", b""),
        ("its header of 0 bytes|is no JSON", b"\0" * 8),
    ]:
        path = tmp_path / ("x.safetensors" if "JSON" in text else "x.npz")
        path.write_bytes(front)
        with pytest.raises(CheckpointError, match=text):
            checkpoints.open(path)
    with pytest.raises(CheckpointError, match="no such file, folder or prefix"):
        checkpoints.open(tmp_path / "nothing")
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"zip archive of no checkpoint; it holds readme\.txt"):
        checkpoints.open(tmp_path / "z")


def test_a_folder_must_hold_one_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        checkpoints.open(tmp_path)
    save_file(PLAIN, tmp_path / "adapter.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with checkpoints.open(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(PLAIN)
    np.savez(tmp_path / "b.npz", **PLAIN)
    with pytest.raises(CheckpointError, match=r"2 checkpoints .*\(adapter\.safetensors, b\.npz\); name one"):
        checkpoints.open(tmp_path)
    save_file(PLAIN, tmp_path / "model.safetensors")
    with checkpoints.open(tmp_path) as checkpoint:  # the usual name goes before others
        assert checkpoint.kind == "safetensors"
    save_h5(tmp_path / "tf_model.h5", PLAIN)
    with pytest.raises(CheckpointError, match=r"\(model\.safetensors, tf_model\.h5\)"):
        checkpoints.open(tmp_path)


def test_an_index_makes_one_of_several_files(tmp_path):
    parts = {"x-1.safetensors": {"a": PLAIN["half"]}, "x-2.safetensors": {"b": PLAIN["b.weight"]}}
    for name, part in parts.items():
        save_file(part, tmp_path / name)
    placed = {tensor: name for name, part in parts.items() for tensor in part}
    index = tmp_path / "x.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    for place in (tmp_path, index):
        with checkpoints.open(place) as checkpoint:
            assert {name: checkpoint.read(name).tolist() for name in checkpoint.tensors} == {
                "a": PLAIN["half"].tolist(),
                "b": PLAIN["b.weight"].tolist(),
            }
    for wrong, text in [
        (placed | {"z": "x-1.safetensors"}, "'z' is not in 'x-1.safetensors'"),
        (placed | {"a": "x-2.safetensors"}, "holds 'a', which the index places elsewhere|'a' is not in"),
        ({**placed, "z": "x-3.safetensors"}, "names 'x-3.safetensors', which is not there"),
        ({**placed, "z": "../x.safetensors"}, "not the name of a file beside it"),
        ({}, "names no file"),
    ]:
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(CheckpointError, match=text):
            checkpoints.open(index)


# --- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small file of each kind that is read in this process."""
    folder = tmp_path_factory.mktemp("whole")
    return {kind: written(folder, kind, {"a": PLAIN["half"], "b": PLAIN["b.weight"]}) .read_bytes()
            for kind in ("safetensors", "npz")}  # fmt: skip


def read_all(path):
    with checkpoints.open(path) as checkpoint:
        return {name: checkpoint.read(name).tobytes() for name in checkpoint.tensors}


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
@given(data=st.data())
def test_a_file_cut_anywhere_is_one_clear_error(tmp_path_factory, whole, kind, data):
    path = tmp_path_factory.getbasetemp() / ENDINGS[kind]
    path.write_bytes(whole[kind][: data.draw(st.integers(0, len(whole[kind]) - 1))])
    with pytest.raises(CheckpointError, match=f"^{path}"):
        read_all(path)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
@given(data=st.data())
def test_a_changed_byte_is_an_error_or_other_values_and_never_anything_else(
    tmp_path_factory, whole, kind, data
):
    path = tmp_path_factory.getbasetemp() / ENDINGS[kind]
    changed = bytearray(whole[kind])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    with contextlib.suppress(CheckpointError):
        read_all(path)


def archive_of(path, name, content, **changes):
    """A .npz of one member, of whose directory entry some numbers are false."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for attribute, value in changes.items():
            setattr(archive.getinfo(name), attribute, value)


def npy(shape, dtype="<f4", values=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + values


def test_objects_in_npz_are_refused_and_never_made(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "f.npz", a=np.array([Trap(trap)], object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="'a' holds Python objects, which only pickle can read"):
        checkpoints.open(tmp_path / "f.npz")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "changes", "text"),
    [
        (npy((2,), values=bytes(4)), {}, r"'a' of shape \(2,\) and dtype float32 has 4 bytes"),
        (npy((1 << 40,), values=bytes(4)), {}, "has 4 bytes"),
        (npy((-1,), values=bytes(4)), {}, r"the shape \(-1,\), which no array has"),
        (npy((1,), "O", bytes(4)), {}, "Python objects"),
        (b"no array", {}, "no header of an array"),
        (npy((2,), values=bytes(8)), {"file_size": 1 << 50}, "bytes become 1125899906842624"),
        (npy((2,), values=bytes(8)), {"compress_size": 1 << 30}, "ends at byte"),
        (npy((2,), values=bytes(8)), {"flag_bits": 1}, "is encrypted"),
        (npy((2,), values=bytes(8)), {"CRC": 5}, "damaged .*CRC"),
        (npy((2,), values=bytes(8)), {"compress_type": 12}, "method 12, not deflate"),
    ],
)
def test_an_archive_that_lies_is_one_clear_error(tmp_path, content, changes, text):
    archive_of(tmp_path / "f.npz", "a.npy", content, **changes)
    with pytest.raises(CheckpointError, match=text):
        read_all(tmp_path / "f.npz")


def test_members_that_overlap_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("a.npy", npy((2,), values=bytes(8)))
        archive.writestr("b.npy", npy((2,), values=bytes(8)))
        archive.getinfo("b.npy").header_offset = 0
    with pytest.raises(CheckpointError, match="overlaps the one before"):
        checkpoints.open(tmp_path / "f.npz")


@pytest.mark.parametrize("kind", ["packed", "h5"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, kind):
    zeros = np.zeros((4 << 20,), np.float32)
    if kind == "packed":
        path = written(tmp_path, kind, {"a": zeros})
    else:
        path = tmp_path / "f.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("a", data=zeros, chunks=(1 << 16,), compression="gzip")
    assert path.stat().st_size < zeros.nbytes // 100
    text = r"'a' unpacks to 16777216 bytes, more than .* `memory`"
    with checkpoints.open(path, memory=zeros.nbytes - 1) as held, pytest.raises(CheckpointError, match=text):
        held.read("a")
    with checkpoints.open(path, memory=256 << 20) as checkpoint:
        assert not checkpoint.read("a").any()


# --- HDF5 ----------------------------------------------------------------------------------------


def link_elsewhere(file, folder):
    file["a"] = h5py.ExternalLink(str(folder / "secret.h5"), "/a")


def link_inside(file, folder):
    file["b"] = np.ones(2)
    file["a"] = h5py.SoftLink("/b")


def values_elsewhere(file, folder):
    file.create_dataset("a", (2,), "f4", external=[(str(folder / "secret.bin"), 0, 8)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "a", (2,))
    file.create_virtual_dataset("a", layout)


def circle(file, folder):
    file.create_group("g")["again"] = file["/"]


def unwritten(file, folder):
    file.create_dataset("a", (1 << 30,), "f4")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (link_elsewhere, "'a' is a ExternalLink; only what the file itself holds"),
        (link_inside, "'a' is a SoftLink"),
        (values_elsewhere, "'a' has its values in another file"),
        (virtual, "'a' has its values in another file"),
        (circle, "'g/again' is a group that is in the file twice"),
        (unwritten, "'a' says it has 4294967296 bytes; 0 are in the file"),
    ],
)
def test_hdf5_that_leads_elsewhere_is_refused(tmp_path, make, text):
    save_h5(tmp_path / "secret.h5", {"a": np.ones(2, np.float32)})
    (tmp_path / "secret.bin").write_bytes(bytes(8))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        make(file, tmp_path)
    with pytest.raises(CheckpointError, match=text):
        checkpoints.open(tmp_path / "f.h5")


def test_hdf5_cut_short_is_one_clear_error(tmp_path):
    path = written(tmp_path, "h5")
    whole = path.read_bytes()
    for length in (9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cannot be read; truncated, damaged"):
            checkpoints.open(path)


def test_an_archive_of_keras_may_be_packed(tmp_path, same_bits):
    save_h5(tmp_path / "inner.h5", {"layers/dense/vars/0": PLAIN["b.weight"]})
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "m.keras", "w", method) as archive:
            archive.write(tmp_path / "inner.h5", "model.weights.h5")
        with checkpoints.open(tmp_path / "m.keras") as checkpoint:
            assert checkpoint.kind == "keras"
            same_bits(checkpoint.read("dense/kernel"), PLAIN["b.weight"])


# --- pickles -------------------------------------------------------------------------------------


class Trap:
    """What creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)


def old_form(folder, content):
    (folder / "f.pt").write_bytes(MAGIC + content + pickle.dumps([], 2))


def new_form(folder, content):
    with zipfile.ZipFile(folder / "f.pt", "w") as archive:
        archive.writestr("f/data.pkl", content)
        archive.writestr("f/version", "3\n")


def bare(folder, content):
    (folder / "f.pt").write_bytes(content)


def test_a_pickle_that_would_run_something_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Trap(trap)))  # it does, where it is unpickled
    trap.rmdir()
    reader = Reader(tmp_path, Limits(1 << 30, 300))
    for form in (old_form, new_form, bare):
        form(tmp_path, pickle.dumps({"a": Trap(trap)}, 2))
        with pytest.raises(CheckpointError, match=r"f\.pt: it calls for (posix|os)\.mkdir, which") as caught:
            reader.open("torch", tmp_path / "f.pt", Asked(None, 0, False))
        assert "weights_only" not in str(caught.value)
        assert not trap.exists()
    reader.close()


def test_limits_are_kept_and_named(tmp_path):
    new_form(tmp_path, pickle.dumps([[number] for number in range(1 << 16)], 2))
    with pytest.raises(CheckpointError, match=r"more than `memory` = 1048576 bytes .*pass more"):
        checkpoints.open(tmp_path / "f.pt", memory=1 << 20)
    with pytest.raises(CheckpointError, match=r"longer than `seconds` = 0\.05; pass more"):
        checkpoints.open(tmp_path / "f.pt", seconds=0.05)


def test_the_processors_time_is_limited_too():
    """Were the asking process stopped, its clock would be too."""
    program = "from fanin.checkpoints._child import _limit; _limit(1 << 30, 1.0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGXCPU


# --- the process that reads ----------------------------------------------------------------------


def test_the_end_of_the_reading_process_is_one_clear_error(tmp_path):
    with checkpoints.open(written(tmp_path, "h5")) as checkpoint:
        checkpoint._reader.process.kill()
        with pytest.raises(CheckpointError, match=r"x\.h5: the process that read it ended by SIGKILL"):
            checkpoint.read("half")


def test_the_reading_process_ends_with_the_checkpoint(tmp_path):
    checkpoint = checkpoints.open(written(tmp_path, "h5"))
    process = checkpoint._reader.process
    assert process.poll() is None
    checkpoint.close()
    assert process.poll() is not None
    forgotten = checkpoints.open(written(tmp_path, "h5"))
    process = forgotten._reader.process
    del forgotten
    assert process.wait(timeout=60) != 0


def test_the_reading_process_ends_with_this_one(tmp_path):
    program = (
        "import os, sys; from fanin import checkpoints; c = checkpoints.open(sys.argv[1]);"
        "print(c._reader.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    path = written(tmp_path, "h5")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -9, done.stderr
    status = Path("/proc") / done.stdout.strip() / "stat"
    for _ in range(100):
        # without a parent that waits for it, it may stay as a zombie
        if not status.exists() or status.read_text().rpartition(") ")[2][0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it reads on")


def test_what_lies_in_the_working_directory_is_not_imported(tmp_path, monkeypatch):
    path = written(tmp_path, "h5")
    (tmp_path / "h5py.py").write_text("raise SystemExit('from the working directory')")
    monkeypatch.chdir(tmp_path)
    with checkpoints.open(path) as checkpoint:
        assert checkpoint.read("half").tolist() == [0, 1, 2, 3]


def test_opening_imports_no_framework(tmp_path, python):
    path = written(tmp_path, "h5")
    program = (
        "import sys; from fanin import checkpoints; checkpoints.open(sys.argv[1]).close();"
        "print(*{'h5py', 'torch', 'tensorflow', 'keras', 'jax'} & set(sys.modules))"
    )
    assert python(program, str(path)).split() == []


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    path = written(tmp_path, "h5")
    monkeypatch.setattr("fanin.checkpoints.child.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"reading h5 needs h5py: pip install 'fanin\[keras\]'"):
        checkpoints.open(path)


def test_every_package_has_an_extra():
    import tomllib

    from fanin.checkpoints._child import READERS

    known = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert {reader.package for reader in READERS.values()} == set(EXTRAS)
    assert set(EXTRAS.values()) <= set(known["optional-dependencies"])
