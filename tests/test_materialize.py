"""A plan to files: the same bytes whoever writes them, whole or not at all, and verified."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import numpy as safetensors

import fanin
from fanin import recipes
from fanin.errors import ArgumentError, CheckpointError, PlanError
from fanin.fans import LOOKUP, OI, Axes
from fanin.materialize import files, materialize, parse_size, planned, verify, writer
from fanin.model import Model, Piece, Tensor
from fanin.plan import Plan, resolve
from fanin.recipe import Recipe

QKV = Axes.parse("i (s o) -> s : o | i", members={"s": ("q", "k", "v")})


def tensor(path, shape, role="kernel", axes=OI, dtype="float32"):
    return Tensor(path, shape, dtype, (Piece(path, role, "linear", axes),))


MODEL = Model((
    tensor("wte", (300, 40), "embedding", LOOKUP),
    Tensor("qkv", (40, 120), "float32", (Piece("h.{}", "kernel", "linear", QKV),)),
    tensor("fc.weight", (160, 40), dtype="bfloat16"),
    tensor("fc.bias", (160,), "bias", Axes((0,), ())),
    tensor("experts", (3, 50, 40), axes=Axes.parse("e o i -> e : o | i")),
    tensor("wide.weight", (40, 700)),
    tensor("half", (7, 9), dtype="float16"),
    tensor("scale", (), "scale", Axes((), ())),
))  # fmt: skip


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """So that these tensors have many."""
    monkeypatch.setattr(files, "CHUNK", 4096)
    monkeypatch.setattr(writer, "FLUSH", 20_000)


@pytest.fixture(scope="module")
def plan():
    recipe = Recipe([("wide.weight", "orthogonal"), ("*", "he_normal")])
    return resolve(MODEL, recipes.concrete(recipe), 11)


def bytes_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def expected(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    materialize(plan, folder, max_shard_size=60_000)
    return bytes_of(folder)


def test_files_hold_the_values_of_the_plan(plan, tmp_path):
    written = materialize(plan, tmp_path, max_shard_size=60_000)
    assert written.finished
    assert len(written.files) >= 3
    assert sorted(os.listdir(tmp_path)) == sorted([*written.files, "model.safetensors.index.json"])
    assert max(os.path.getsize(tmp_path / name) for name in written.files) < 60_000 + 150_000
    found = {}
    for name in written.files:
        found.update(safetensors.load_file(tmp_path / name)) if "F" not in name else None
    assert set(found) == {t.path for t in MODEL.tensors}
    for t in MODEL.tensors:
        assert found[t.path].shape == t.shape
        assert found[t.path].tobytes() == plan.fill(t.path).tobytes()
    assert written.total == sum(values.nbytes for values in found.values())


def test_a_model_that_fits_one_file_has_no_index(plan, tmp_path):
    assert materialize(plan, tmp_path).files == ("model.safetensors",)
    assert os.listdir(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_the_bytes_are_the_same_for_any_workers_and_parts_in_any_order(
    plan, expected, tmp_path, workers, parts
):
    order = random.Random(parts * 10 + workers).sample(range(1, parts + 1), parts)
    for at, part in enumerate(order):
        written = materialize(plan, tmp_path, max_shard_size=60_000, workers=workers, part=(part, parts))
        assert written.finished == (at == parts - 1)
        if not written.finished:
            assert os.listdir(tmp_path) == [writer.PARTIAL]  # nothing under a final name
    assert bytes_of(tmp_path) == expected


def test_a_run_that_failed_goes_on_where_it_was(plan, expected, tmp_path, monkeypatch):
    fill, calls = Plan.fill, []

    def failing(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 20:
            raise OSError(28, "No space left on device")
        return fill(self, *args, **kwargs)

    monkeypatch.setattr(Plan, "fill", failing)
    with pytest.raises(OSError, match="No space left"):
        materialize(plan, tmp_path, max_shard_size=60_000)
    assert os.listdir(tmp_path) == [writer.PARTIAL]
    with pytest.raises(CheckpointError, match="holds an unfinished run"):
        materialize(plan, tmp_path, max_shard_size=60_000)
    written = materialize(plan, tmp_path, max_shard_size=60_000, resume=True)
    assert 0 < written.wrote < written.total
    assert bytes_of(tmp_path) == expected
    assert materialize(plan, tmp_path, max_shard_size=60_000, resume=True).wrote == 0


KILLED = """
import sys
import fanin
from fanin.materialize import files, materialize, writer
files.CHUNK, writer.FLUSH = 4096, 8192
plan = fanin.Plan.from_file(sys.argv[1])
print("started", flush=True)
materialize(plan, sys.argv[2], max_shard_size=4_000_000, workers=2, resume=True)
"""


def test_a_run_killed_at_any_point_goes_on_to_the_same_bytes(tmp_path):
    model = Model(tuple(tensor(f"layer.{n}", (1000, 300)) for n in range(12)))
    big = resolve(model, recipes.concrete("he_normal"), 0)
    big.save(tmp_path / "plan.json")
    materialize(big, tmp_path / "whole", max_shard_size=4_000_000)
    draws, kills = random.Random(4), 0
    for _ in range(60):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "plan.json"), str(tmp_path / "killed")]
        run = subprocess.Popen(command, stdout=subprocess.PIPE)
        run.stdout.readline()
        time.sleep(draws.random() * 0.3)
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
        code = run.wait()
        run.stdout.close()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    else:
        pytest.fail("never finished")
    assert kills >= 1
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


@pytest.mark.parametrize("harm", [os.remove, lambda path: os.truncate(path, 100)])
@pytest.mark.parametrize("first", [1, 2])
def test_a_part_that_was_lost_is_not_taken_for_zeros(plan, tmp_path, harm, first):
    materialize(plan, tmp_path, max_shard_size=60_000, part=(first, 2))
    harm(tmp_path / writer.PARTIAL / "model-00001-of-00004.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"model-00001-of-00004.* is gone or has another size"):
            materialize(plan, tmp_path, max_shard_size=60_000, part=(3 - first, 2), resume=True)
    assert os.listdir(tmp_path) == [writer.PARTIAL]


def test_another_plan_does_not_go_on_with_an_unfinished_run(plan, tmp_path):
    materialize(plan, tmp_path, part=(1, 2))
    other = resolve(MODEL, recipes.concrete("he_normal"), 12)
    for wrong in ({"plan": other}, {"plan": plan, "max_shard_size": 50_000}):
        with pytest.raises(CheckpointError, match="what another plan or another max_shard_size left"):
            materialize(wrong.pop("plan"), tmp_path, part=(2, 2), **wrong)


def test_an_existing_checkpoint_is_not_touched(plan, tmp_path):
    materialize(plan, tmp_path)
    before = bytes_of(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds a checkpoint \(model\.safetensors\); choose another"):
        materialize(plan, tmp_path)
    assert bytes_of(tmp_path) == before


def test_what_cannot_be_written_is_said_before_anything_is(plan, tmp_path, monkeypatch):
    keeps = resolve(MODEL, recipes.concrete(Recipe([("half", "keep"), ("*", "he_normal")])), 0)
    with pytest.raises(PlanError, match="'half' keeps a value"):
        materialize(keeps, tmp_path)
    for part in ((0, 2), (3, 2)):
        with pytest.raises(ArgumentError, match="expected k/n"):
            materialize(plan, tmp_path, part=part)
    with pytest.raises(ArgumentError, match="`workers` must be >= 1"):
        materialize(plan, tmp_path, workers=0)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(CheckpointError, match=r"bytes are needed, 1,000 are free"):
        materialize(plan, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        materialize(plan, tmp_path / "file" / "ckpt")
    assert os.listdir(tmp_path) == ["file"]


def test_a_tensor_that_needs_itself_whole_is_made_at_once(plan):
    made = list(files.chunks_of(plan, files.files_of(plan, 10**9)))
    sizes = {path: [chunk.size for chunk in made if chunk.path == path] for path in ("wide.weight", "wte")}
    assert sizes["wide.weight"] == [40 * 700 * 4]
    assert max(sizes["wte"]) <= 4096
    assert sum(sizes["wte"]) == 300 * 40 * 4


def test_progress_reaches_all_of_it(plan, tmp_path):
    seen = []
    written = materialize(plan, tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (written.total, written.total)


def test_what_would_be_written_is_told(plan, tmp_path):
    told = list(planned(plan, 60_000))
    materialize(plan, tmp_path, max_shard_size=60_000)
    assert [(name, size) for name, _, size in told] == [
        (path.name, path.stat().st_size) for path in sorted(tmp_path.glob("*.safetensors"))
    ]
    assert sum(count for _, count, _ in told) == len(MODEL.tensors)


@pytest.mark.parametrize("text", ["", "5 XB", "-1GB", "0", "GB", "1e9"])
def test_a_size_is_a_number_and_a_unit(text):
    with pytest.raises(ArgumentError, match="expected one such as 5GB"):
        parse_size(text)
    assert parse_size("1.5kb") == 1500


# --- verify --------------------------------------------------------------------------------------


def test_a_checkpoint_of_the_plan_verifies(plan, tmp_path):
    materialize(plan, tmp_path, max_shard_size=60_000)
    assert verify(plan, tmp_path) == []


def test_the_first_element_that_differs_is_named(plan, tmp_path):
    materialize(plan, tmp_path)
    arrays = dict(safetensors.load_file(tmp_path / "model.safetensors"))
    arrays["experts"][2, 7, 3] += 1
    arrays["experts"][2, 7, 4] += 1
    arrays["scale"][...] = 3
    del arrays["half"]
    arrays["fc.bias"] = arrays["fc.bias"].astype(np.float16)
    arrays["extra"] = np.zeros(2, np.float32)
    safetensors.save_file(arrays, tmp_path / "model.safetensors")
    found = {mismatch.path: mismatch for mismatch in verify(plan, tmp_path)}
    assert set(found) == {"experts", "scale", "half", "fc.bias", "extra"}
    assert found["experts"].index == (2, 7, 3)
    assert str(found["experts"]).startswith("experts[2, 7, 3]: ")
    assert str(found["half"]) == "half: not in the checkpoint"
    assert str(found["extra"]) == "extra: not in the plan"
    assert str(found["fc.bias"]) == "fc.bias: F16 (160,), planned F32 (160,)"
    assert str(found["scale"]) == "scale[]: 3.0, planned 1.0"


def test_one_flipped_bit_is_found(plan, tmp_path):
    materialize(plan, tmp_path)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    assert len(verify(plan, tmp_path)) == 1


def test_a_truncated_file_is_an_error(plan, tmp_path):
    materialize(plan, tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="end at byte"):
        verify(plan, tmp_path)
    assert fanin.CheckpointError is CheckpointError
