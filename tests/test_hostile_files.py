"""Files that lie, or are none: one of fanin's errors, before anything is made; and what once was another."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fanin
from fanin import checkpoints
from fanin.audit import Trace, config
from fanin.checkpoints import tensors_of
from fanin.errors import ArgumentError, CheckpointError, PlanError, RecipeError, TraceError
from fanin.fans import OI, Axes
from fanin.model import Model, Piece, Tensor
from fanin.plan import Plan
from fanin.planning import planned
from fanin.report import Comparison, Report

FUZZ = Path(__file__).parent / "fuzz.py"
NO_UTF8 = b'name = "\xff"'
DEEP = "[" * 3000 + "]" * 3000  # more than Python's stack holds
DIGITS = "9" * 5000  # more than Python makes a number of


def test_spoiled_files_are_refused_or_read_and_written_again(python):
    said = python(FUZZ, "--files", "160").splitlines()
    assert len(said) == 13
    assert all(line.endswith(", 0 ways to fail") for line in said)


def test_spoiled_files_of_another_library_are_refused_or_read(python):
    refused, read, _ = python(FUZZ, "--files", "8", "h5").removeprefix("h5: ").split(", ")
    assert int(refused.split()[0]) + int(read.split()[0]) == 8


# --- what spoiled files once did -----------------------------------------------------------------


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("r.toml", NO_UTF8, "can't decode byte 0xff"),
        ("r.json", NO_UTF8, "can't decode byte 0xff"),
        ("r.json", DEEP, "recursion"),
        ("r.toml", f"a = {DEEP}", "recursion"),
        ("r.json", f'{{"rules": {DIGITS}}}', "4300 digits"),
        ("r.json", r'{"rules": [], "\ud800": 1}', "surrogates not allowed"),
    ],
)
def test_a_recipe_that_cannot_be_decoded(tmp_path, name, content, text):
    path = written(tmp_path, name, content)
    with pytest.raises(RecipeError, match=text) as caught:
        fanin.Recipe.from_file(path)
    assert str(caught.value).startswith(str(path))


def one(name="w", shape=(2, 3), axes=OI, dtype="float32"):
    return Model((Tensor(name, shape, dtype, (Piece(name, "kernel", "linear", axes),)),))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (NO_UTF8, "can't decode byte 0xff"),
        (DEEP, "recursion"),
        (f'{{"seed": {DIGITS}}}', "4300 digits"),
        (r'{"seed": 1, "\ud800": 1}', "surrogates not allowed"),
    ],
)
def test_a_plan_that_cannot_be_decoded(tmp_path, content, text):
    path = written(tmp_path, "p.json", content)
    with pytest.raises(PlanError, match=text) as caught:
        Plan.from_file(path)
    assert str(caught.value).startswith(str(path))


def test_whether_a_file_is_a_plan_may_be_asked_of_any(tmp_path):
    with pytest.raises(PlanError, match="recursion"):
        planned(one(), written(tmp_path, "p.json", DEEP), 0)


def test_a_plan_may_not_say_that_it_has_more_parameters_than_rows():
    plan = planned(one("e.{}.w", (2, 3, 4), Axes.parse("e i o -> e : o | i")), "ones", 0)
    data = plan.to_dict()
    data["tensors"][0]["shape"][0] = 1 << 40
    with pytest.raises(PlanError, match="it has 2 rows for 1099511627776 parameters"):
        Plan.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"members": [["a"]]}, "`members` names 1 of a stack of 2"),
        ({"stack": [7]}, r"`stack` \(7,\) does not fit"),
        ({"out": [0]}, "do not fit .* whose members lack some"),
    ],
)
def test_a_plan_whose_axes_do_not_fit_its_stack(change, text):
    plan = planned(one("e.{}.w", (2, 3, 4), Axes.parse("e i o -> e : o | i")), "ones", 0)
    data = plan.to_dict()
    data["tensors"][0]["pieces"][0]["axes"] |= change
    with pytest.raises(PlanError, match=text):
        Plan.from_json(json.dumps(data))


@pytest.mark.parametrize("value", [float("-inf"), [[1.0], [np.inf]], [[1e308], [1e308]]])
def test_a_constant_that_has_no_mean_is_described_and_stored(value):
    init = fanin.Constant(value)
    assert init.describe((2, 1)).mean is None
    plan = planned(one(shape=(2, 1), dtype="float64"), init, 0)
    assert Plan.from_json(plan.to_json()).diff(plan) == []


@pytest.mark.parametrize("value", [1j, [1j, 2.0, float("nan")]])
def test_a_complex_constant_is_stored(value):
    plan = planned(one(dtype="complex64"), fanin.Constant(value), 0)
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()
    assert np.array_equal(Plan.from_json(plan.to_json()).fill("w"), plan.fill("w"), equal_nan=True)


@pytest.mark.parametrize(
    ("read", "error"),
    [(Trace.from_json, TraceError), (Report.from_json, ArgumentError), (Comparison.from_json, ArgumentError)],
)
@pytest.mark.parametrize("content", [DEEP, DIGITS, "{", '{"schema": 1}'])
def test_a_report_that_cannot_be_decoded(read, error, content):
    with pytest.raises(error):
        read(content)


def test_a_number_beyond_float64_is_none_of_a_report():
    from fanin.report._json import decode

    with pytest.raises(ArgumentError, match=r"rate: 1000.* a number that float64 can hold"):
        decode(float, 10**400, "rate")


def test_a_configuration_that_is_too_deep(tmp_path):
    with pytest.raises(ArgumentError, match="recursion"):
        config.load(written(tmp_path, "pyproject.toml", f"a = {DEEP}"))


def test_a_threshold_is_a_number_of_float64(tmp_path):
    table = f"[tool.fanin.audit.balance]\nz = {10**400}"
    with pytest.raises(ArgumentError, match="a number >= 0 that float64 can hold"):
        config.load(written(tmp_path, "pyproject.toml", table))


@pytest.mark.parametrize("name", ["x" * 5000, "x\0y", "..", "", "a/b", "a\\b/../c"])
def test_an_index_names_files_beside_it(tmp_path, name):
    text = json.dumps({"weight_map": {"a": name}})
    index = written(tmp_path, "model.safetensors.index.json", text)
    for read in (checkpoints.open, tensors_of):
        with pytest.raises(CheckpointError, match=r"which is not there|not the name of a file beside it"):
            read(index)


def header(**entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def npz(path, said):
    """An archive of one array without values, which says what it is in these words."""
    front = b"\x93NUMPY\1\0" + len(said).to_bytes(2, "little") + said.encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", front)


@pytest.mark.parametrize("shape", [(0, 1 << 62), (1 << 62, 0, 1 << 62), (1,) * 65 + (0,)])
def test_a_shape_that_no_array_has(tmp_path, shape):
    path = written(
        tmp_path, "x.safetensors", header(a={"dtype": "F32", "shape": shape, "data_offsets": [0, 0]})
    )
    npz(tmp_path / "x.npz", repr({"descr": "<f4", "fortran_order": False, "shape": shape}))
    for read, what in ((checkpoints.open, path), (tensors_of, path), (checkpoints.open, tmp_path / "x.npz")):
        with pytest.raises(CheckpointError, match=r"'a' has the shape .*, which no array has"):
            read(what)


@pytest.mark.parametrize("said", ["{'descr': '<f4', 'shape': (2,", "{" * 200, "\0", "{'shape': 10**9}", "[]"])
def test_an_array_without_a_header(tmp_path, said):
    npz(tmp_path / "x.npz", said)
    with pytest.raises(CheckpointError, match="'a' has no header of an array"):
        checkpoints.open(tmp_path / "x.npz")
