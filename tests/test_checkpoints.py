"""Safetensors headers: written as the library writes them, and never believed when read."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors

from fanin.checkpoints import read_header, tensors_of, values
from fanin.checkpoints.index import index_text, shard_name
from fanin.checkpoints.safetensors import header
from fanin.errors import CheckpointError

ARRAYS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(4, dtype=np.float16),
    "c": np.array(2.5),
    "ä/ü": np.zeros((0, 4), np.float32),
    "a.weight": np.ones((2, 2), np.float32),
}


def written(path, arrays=ARRAYS, metadata=None):
    """A file made from our header and the arrays' bytes."""
    front, stored = header([(n, a.dtype.name, a.shape) for n, a in arrays.items()], metadata or {})
    with open(path, "wb") as file:
        file.write(front)
        for name, place in sorted(stored.items(), key=lambda item: item[1].start):
            assert file.tell() == place.start
            file.write(arrays[name].tobytes())
    return path


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_a_file_has_the_librarys_own_bytes(tmp_path, metadata):
    ours = written(tmp_path / "ours", metadata=metadata).read_bytes()
    safetensors.save_file(ARRAYS, tmp_path / "theirs", metadata=metadata or None)
    assert ours == (tmp_path / "theirs").read_bytes()


def test_the_librarys_files_are_read(tmp_path):
    safetensors.save_file({**ARRAYS, "steps": np.arange(3)}, tmp_path / "f")
    found = read_header(tmp_path / "f")
    for name, array in ARRAYS.items():
        held = values(tmp_path / "f", found[name])
        assert (held.dtype, held.shape) == (array.dtype, array.shape)
        assert held.tobytes() == array.tobytes()
    assert found["steps"].dtype == "I64"
    with pytest.raises(CheckpointError, match="dtype I64 holds no weights"):
        values(tmp_path / "f", found["steps"])


def test_metadata_is_sorted_and_names_may_be_any_text(tmp_path):
    one = written(tmp_path / "one", metadata={"a": "1", "b": "2"}).read_bytes()
    two = written(tmp_path / "two", metadata={"b": "2", "a": "1"}).read_bytes()
    assert one == two
    assert set(safetensors.load_file(tmp_path / "one")) == set(ARRAYS)


def raw(entries, data=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = [
    (b"", "does not fit its 0 bytes"),
    (b"\x01\x02", "does not fit its 2 bytes"),
    (raw({}, length=1 << 60), "header of 1152921504606846976 bytes does not fit"),
    (raw(b"{"), "its header is no JSON"),
    (raw(b"[" * 100_000), "its header is no JSON"),
    (raw(b"\xff\xfe{}"), "its header is no JSON"),
    (raw([1]), "is no JSON object"),
    (raw(b'{"a": 1, "a": 2}'), "a name occurs twice"),
    (raw({"a": 3}), "'a' has no dtype, shape and data_offsets"),
    (raw({"a": {"dtype": "F32", "shape": [2]}}), "'a' has no dtype"),
    (raw({"a": {**ONE, "data_offsets": [0, 8, 16]}}), "'a' has no dtype"),
    (raw({"a": {**ONE, "shape": [-2]}}, bytes(8)), "no integers >= 0"),
    (raw({"a": {**ONE, "shape": [2.0]}}, bytes(8)), "no integers >= 0"),
    (raw({"a": {**ONE, "shape": [True, 2]}}, bytes(8)), "no integers >= 0"),
    (raw({"a": {**ONE, "dtype": "F31"}}, bytes(8)), "unknown dtype 'F31'"),
    (raw({"a": {**ONE, "dtype": ["F32"]}}, bytes(8)), "unknown dtype"),
    (raw({"a": {**ONE, "shape": [3]}}, bytes(8)), "of shape \\(3,\\) and dtype F32 has 8 bytes"),
    (raw({"a": {**ONE, "shape": [1 << 40, 1 << 40]}}, bytes(8)), "has 8 bytes"),
    (raw({"a": ONE}, bytes(4)), "end at byte .*, the file at"),
    (raw({"a": ONE}, bytes(12)), "end at byte .*, the file at"),
    (raw({"a": ONE, "b": {**ONE, "data_offsets": [4, 12]}}, bytes(12)), "'b' begins at byte"),
    (raw({"a": ONE, "b": {**ONE, "data_offsets": [12, 20]}}, bytes(20)), "'b' begins at byte"),
]


@pytest.mark.parametrize(("data", "text"), HOSTILE, ids=[text for _, text in HOSTILE])
def test_a_file_that_is_not_what_its_header_says_is_one_clear_error(tmp_path, data, text):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=text) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")


# --- folders -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of two files."""
    parts = [{"a": ARRAYS["a"], "c": ARRAYS["c"]}, {"b.weight": ARRAYS["b.weight"]}]
    for at, part in enumerate(parts):
        written(tmp_path / shard_name(at, 2), part)
    files = {name: shard_name(at, 2) for at, part in enumerate(parts) for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(index_text(files, 40))
    return tmp_path


def test_a_folder_is_read_by_its_index(folder):
    found = tensors_of(folder)
    assert {name: file.name for name, (file, _) in found.items()} == {
        "a": "model-00001-of-00002.safetensors",
        "c": "model-00001-of-00002.safetensors",
        "b.weight": "model-00002-of-00002.safetensors",
    }
    assert tensors_of(folder / "model.safetensors.index.json") == found
    assert values(*found["b.weight"]).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_single_file_is_read_by_its_folder_or_itself(tmp_path):
    written(tmp_path / "model.safetensors")
    assert tensors_of(tmp_path) == tensors_of(tmp_path / "model.safetensors")


def index_of(**entries):
    return json.dumps({"weight_map": entries})


@pytest.mark.parametrize(
    ("index", "text"),
    [
        ("{", "no index with a weight_map"),
        ("[]", "no index with a weight_map"),
        ('{"weight_map": [1]}', "no index with a weight_map"),
        (index_of(a="model-00003-of-00002.safetensors"), "which is not there"),
        (index_of(a="../model.safetensors"), "not the name of a file beside it"),
        (index_of(a=3), "not the name of a file|no index"),
        (index_of(a="model-00001-of-00002.safetensors"), "holds 'c', which the index places elsewhere"),
        (index_of(**dict.fromkeys("acz", "model-00001-of-00002.safetensors")), "'z' is not in"),
    ],
)
def test_a_bad_index_is_one_clear_error(folder, index, text):
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=text):
        tensors_of(folder)


def test_a_folder_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no model\.safetensors and no model\.safetensors\.index\.json"
    ):
        tensors_of(tmp_path)
