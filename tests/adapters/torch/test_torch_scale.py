"""Sharding and streaming as users run them: the example, a rank that is lost, a disk that is full, damage."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import fanin.torch as ft
from fanin.materialize.writer import PARTIAL

ROOT = Path(__file__).resolve().parents[3]
SHARDS = ("--max-shard-size", "40KB")
CLI = "from fanin.cli import main; main()"
# No file may be larger than this, and the second of three is: the disk is full in the middle.
FULL = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); {CLI}"
# A process of root may write everywhere, unless it gives up CAP_DAC_OVERRIDE (1) before its program starts.
BOUND = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", {CLI!r}, *sys.argv[1:]])
"""


def python(code, *arguments, seconds=60):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)


def one_line(text):
    """What a terminal shows, without its line breaks."""
    return " ".join(text.split())


def names(folder):
    return sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    model = nn.Sequential(nn.Linear(90, 100), nn.Linear(100, 200), nn.Linear(200, 40))
    ft.plan(model, "he_normal", seed=3).save(path)
    return path


def test_the_example_prints_one_digest_for_every_layout(tmp_path):
    script = ROOT / "examples" / "one_seed_one_network.py"
    command = [sys.executable, str(script), "--world", "1", "2", "--steps", "2"]
    command += ["--picture", str(tmp_path / "losses.svg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = re.findall(r"^ +(\d+)  (one process|FSDP2|TP) +([0-9a-f]{12}) ", done.stdout, re.MULTILINE)
    assert [row[:2] for row in rows] == [("1", "one process"), ("2", "FSDP2"), ("2", "TP")]
    assert len({digest for *_, digest in rows}) == 1
    assert "3 layouts: fanin made 1 network" in done.stdout
    assert (tmp_path / "losses.svg").read_text().rstrip().endswith("</svg>")


RANKS = """
import os, sys, time
sys.path[:0] = sys.argv[1:]
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
import fanin
import fanin.torch as ft
from one_seed_one_network import launch
from sharded import Collectives

def stages(world):
    mesh = init_device_mesh("cpu", (world,))
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(300)))
    for layer in model:  # every rank has all of its stage: sharding it further changes nothing here
        for name, whole in list(layer.named_parameters()):
            placed = distribute_tensor(whole.detach(), mesh, src_data_rank=None)
            setattr(layer, name, torch.nn.Parameter(placed))
    with Collectives() as sent:
        ft.initialize(model, "he_normal", seed=0, name_prefix=f"stage{dist.get_rank() // 2}.")
    return sent.bytes

def lost(world, what):
    model = torch.nn.Linear(64, 64)
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    dist.barrier()
    if dist.get_rank() == 1:
        time.sleep(6 if what == "stuck" else 0)
        os._exit(1)
    before = [p.to_local().clone() for p in model.parameters()]
    try:
        ft.initialize(model, "he_normal", seed=0)
    except fanin.PlanError as error:
        same = all(torch.equal(a, b.to_local()) for a, b in zip(before, model.parameters()))
        how = "late" if "Timed out" in str(error.__cause__) else "gone"
        line = f"{what} {'untouched' if same else 'changed'} {how} {error}\\n"
        os.write(1, line.encode())  # whole, beside the other ranks' lines

for what in ("dead", "stuck"):
    try:
        launch(3, lost, what, seconds=3)
    except RuntimeError as error:
        print(error, flush=True)
print("sent", launch(6, stages), flush=True)
"""


@pytest.fixture(scope="module")
def ranks():
    """What the ranks of the script above said."""
    done = python(RANKS, ROOT / "examples", ROOT / "benchmarks")
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_rank_that_is_lost_leaves_the_others_with_an_error_and_as_they_were(ranks):
    for what, how in (("dead", "gone"), ("stuck", "late")):
        said = [line for line in ranks.splitlines() if line.startswith(what)]
        assert len(said) == 2, ranks
        for line in said:
            assert line.startswith(f"{what} untouched {how} a rank did not come to compare its plan; ")


def test_what_is_sent_does_not_grow_with_ranks_times_parameters(ranks):
    [line] = [line for line in ranks.splitlines() if line.startswith("sent")]
    for sent in json.loads(line.removeprefix("sent")):
        assert sum(sent) > 0
        names = 600 * len("stage0.299.weight")
        assert sum(sent) < 3 * 2 * names  # three stages' names once, not those of six ranks; in and out


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(plan, tmp_path):
    done = python(FULL, "init", plan, "--out", tmp_path, *SHARDS)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: .*File too large; .* go on with resume: '.*/model-00002-of-00003\.safetensors'\n",
        done.stderr,
    )
    assert names(tmp_path) == [PARTIAL]
    assert (
        "holds an unfinished run; go on with it (resume)"
        in python(CLI, "init", plan, "--out", tmp_path).stderr
    )
    assert python(CLI, "init", plan, "--out", tmp_path, *SHARDS, "--resume").returncode == 0
    assert PARTIAL not in names(tmp_path)
    done = python(CLI, "verify", tmp_path, plan)
    assert (done.returncode, done.stdout) == (0, "6 tensors, 0 differ\n")


def test_a_folder_that_may_not_be_written_is_one_line(plan, tmp_path):
    tmp_path.chmod(0o555)
    done = python(BOUND, "init", plan, "--out", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*Permission denied: '.*'\n", done.stderr)
    assert names(tmp_path) == []


def test_a_part_that_is_missing_is_told(plan, tmp_path):
    done = python(CLI, "init", plan, "--out", tmp_path, *SHARDS, "--part", "2/2")
    assert done.returncode == 0
    assert "; other parts are not finished" in one_line(done.stdout)
    assert names(tmp_path) == [PARTIAL]
    done = python(CLI, "verify", tmp_path, plan)
    assert done.returncode == 2
    assert "no model.safetensors and no model.safetensors.index.json there" in done.stderr
    assert python(CLI, "init", plan, "--out", tmp_path, *SHARDS, "--part", "1/2").returncode == 0
    assert python(CLI, "verify", tmp_path, plan).returncode == 0


def test_damage_is_found(plan, tmp_path):
    assert python(CLI, "init", plan, "--out", tmp_path, *SHARDS).returncode == 0
    file = tmp_path / "model-00002-of-00003.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = python(CLI, "verify", tmp_path, plan)
    assert done.returncode == 1
    assert re.search(
        r"^1\.weight\[199, 99\]: .*, planned .*\n6 tensors, 1 differ$", done.stdout, re.MULTILINE
    )
    file.unlink()
    done = python(CLI, "verify", tmp_path, plan)
    assert done.returncode == 2
    assert "names 'model-00002-of-00003.safetensors', which is not there" in done.stderr
