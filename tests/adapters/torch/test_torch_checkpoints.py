"""PyTorch's files: both forms, their wrappers, their indexes; no value is read before it is asked for."""

import contextlib
import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanin import checkpoints
from fanin.checkpoints.child import Limits, Reader
from fanin.checkpoints.contents import Asked
from fanin.errors import CheckpointError

MEMORY = Path(__file__).parents[2] / "checkpoint_memory.py"
FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Open files in one process that reads, since each imports PyTorch."""
    reader = Reader(tmp_path_factory.getbasetemp(), Limits(1 << 30, 300))
    yield lambda path, key=None: reader.open("torch", path, Asked(key, path.stat().st_size, False))
    reader.close()


def whole(shape):
    return tuple(slice(0, size) for size in shape)


def saved(path, held, zipped=True):
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    return path


def state():
    base = torch.arange(12.0).reshape(3, 4)
    return {
        "base": base,
        "turned": base.t(),
        "part": base[1:, ::2],
        "tied": base,
        "brain": torch.ones(5, dtype=torch.bfloat16),
        "steps": torch.tensor(7),
        "one": torch.tensor(2.5),
        "none": torch.empty(0, 3),
        "complex": torch.ones(2, dtype=torch.complex64),
        "mask": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@FORMS
def test_every_tensor_has_its_shape_dtype_and_bits(tmp_path, zipped):
    expected = state()
    with checkpoints.open(saved(tmp_path / "f.pt", expected, zipped)) as checkpoint:
        assert checkpoint.kind == "torch"
        assert list(checkpoint.tensors) == list(expected)
        for name, tensor in expected.items():
            spec = checkpoint.tensors[name]
            assert (spec.shape, f"torch.{spec.dtype}") == (tuple(tensor.shape), str(tensor.dtype))
            assert checkpoint.read(name).tobytes() == bits(tensor), name
        window = (slice(1, 3), slice(0, 2))
        assert checkpoint.read("turned", window).tolist() == expected["turned"][1:3, :2].tolist()


@FORMS
def test_what_is_no_plain_array_is_listed(tmp_path, zipped, opened):
    held = {
        "w": torch.ones(2),
        "sparse": torch.eye(3).to_sparse(),
        "lazy": torch.ones(2, dtype=torch.complex64).conj(),
        "epoch": 3,
    }
    found = opened(saved(tmp_path / "f.pt", held, zipped))
    assert list(found.tensors) == ["w"]
    assert found.left_out == {
        "sparse": "sparse_coo",
        "lazy": "a lazy negative or conjugate",
        "epoch": "a int",
    }


def test_dtypes_of_eight_bits_are_read(tmp_path, opened):
    tensor = torch.arange(4.0).to(torch.float8_e4m3fn)
    found = opened(saved(tmp_path / "f.pt", {"w": tensor}))
    assert found.tensors["w"].dtype == "float8_e4m3fn"
    assert found.read("w", whole((4,))).tobytes() == bits(tensor)


def test_a_modules_own_file_is_read(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    with checkpoints.open(saved(tmp_path / "f.pth", module.state_dict())) as checkpoint:
        assert {name: checkpoint.read(name).tobytes() for name in checkpoint.tensors} == {
            name: bits(tensor) for name, tensor in module.state_dict().items()
        }


@FORMS
@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "module"])
def test_a_wrapper_is_looked_into(tmp_path, name, zipped, opened):
    weights = {"w": torch.ones(2)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    held = {name: weights, "optimizer": optimizer, "epoch": 3, "rng": torch.zeros(4, dtype=torch.uint8)}
    found = opened(saved(tmp_path / "f.pt", held, zipped))
    assert list(found.tensors) == ["w"]
    assert found.metadata == {"epoch": 3}


def test_several_candidates_are_listed_and_chosen_by_key(tmp_path, opened):
    held = {"model": {"w": torch.ones(2)}, "ema": {"w": torch.zeros(2)}, "deep": {"er": {"x": torch.ones(1)}}}
    path = saved(tmp_path / "f.pt", held)
    with pytest.raises(CheckpointError, match=r"tensors are in 'model', 'ema'; say which by `key`"):
        opened(path)
    assert list(opened(path, "deep.er").tensors) == ["x"]
    with checkpoints.open(path, key="ema") as checkpoint:
        assert not checkpoint.read("w").any()
    with pytest.raises(CheckpointError, match="`key` 'eta' is not there; 'model', 'ema', 'deep'"):
        opened(path, "eta")
    with pytest.raises(CheckpointError, match="no tensors by name in it, only 'deep'; say where"):
        opened(saved(path, {"deep": {"er": {"x": torch.ones(1)}}}))
    with pytest.raises(CheckpointError, match="holds a list, not tensors by name"):
        opened(saved(path, [torch.ones(1)]))
    assert list(opened(saved(path, {"w": torch.ones(1), "more": {"x": torch.ones(1)}}), "").tensors) == ["w"]


def test_an_index_of_bin_files_is_one_checkpoint(tmp_path):
    parts = {"pytorch_model-1.bin": {"a": torch.ones(2)}, "pytorch_model-2.bin": {"b": torch.zeros(3)}}
    for name, part in parts.items():
        saved(tmp_path / name, part)
    placed = {tensor: name for name, part in parts.items() for tensor in part}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    with checkpoints.open(tmp_path) as checkpoint:
        assert checkpoint.read("a").tolist() == [1, 1]
        assert checkpoint.read("b").tolist() == [0, 0, 0]
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-1.bin"}}))
    with pytest.raises(CheckpointError, match=r"'b' is not in 'pytorch_model-1\.bin'"):
        checkpoints.open(tmp_path)


@FORMS
def test_memory_is_that_of_the_largest_tensor(tmp_path, zipped, python):
    largest = 8 << 20
    small = saved(tmp_path / "small.pt", {"a": torch.ones(2)}, zipped)
    large = {f"t{at}": torch.rand(largest // 4) for at in range(8)}
    here, there = map(int, python(MEMORY, str(small), str(saved(tmp_path / "f.pt", large, zipped))).split())
    assert here < 2 * largest
    assert there < 2 * largest


@FORMS
def test_a_file_cut_short_is_one_clear_error(tmp_path, zipped, opened):
    path = saved(tmp_path / "f.pt", {"w": torch.ones(8), "v": torch.ones(3)}, zipped)
    full = path.read_bytes()
    for length in range(1, len(full), len(full) // 16):
        path.write_bytes(full[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            opened(path)


@pytest.mark.parametrize("claimed", [1 << 20, 1 << 50])
@FORMS
def test_a_storage_that_is_larger_than_its_file_is_refused(tmp_path, zipped, claimed, opened):
    """The pickle says how many numbers a storage has: 4-byte integers here, made larger by hand."""
    numbers = 70_001  # of three bytes, so that it is found
    path = saved(tmp_path / "f.pt", {"w": torch.ones(numbers)}, zipped)
    old, new = b"J" + struct.pack("<i", numbers), b"\x8a\x08" + struct.pack("<q", claimed)
    full = path.read_bytes()
    if zipped:
        with zipfile.ZipFile(path) as archive:
            held = {member.filename: archive.read(member) for member in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in held.items():
                assert not name.endswith("data.pkl") or content.count(old) == 2  # the storage's, the shape's
                archive.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)
    else:
        assert full.count(old) == 2
        path.write_bytes(full.replace(old, new))
    with pytest.raises(CheckpointError, match=str(path)):
        opened(path)


def test_a_view_that_repeats_itself_is_a_bomb(tmp_path):
    path = saved(tmp_path / "f.pt", {"w": torch.ones(1).expand(1 << 40)})
    text = "'w' unpacks to 4398046511104 bytes"
    with checkpoints.open(path) as checkpoint, pytest.raises(CheckpointError, match=text):
        checkpoint.read("w")


def test_an_archive_that_was_packed_is_refused(tmp_path, opened):
    path = saved(tmp_path / "f.pt", {"w": torch.zeros(1 << 16)})
    with zipfile.ZipFile(path) as archive:
        held = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="is compressed"):
        opened(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_an_error_or_other_values(tmp_path, opened, data):
    path = saved(tmp_path / "f.pt", {"w": torch.ones(8)}, data.draw(st.booleans()))
    changed = bytearray(path.read_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    with contextlib.suppress(CheckpointError):
        found = opened(path)
        for name, spec in found.tensors.items():
            assert (
                spec.nbytes > path.stat().st_size or found.read(name, whole(spec.shape)).nbytes == spec.nbytes
            )
