"""Whole PyTorch models from checkpoints of others: outputs, buffers, poison, nothing half-applied, files."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

import fanin
import fanin.torch as ft
from fanin.errors import CheckpointError, FaninError, PlanError
from fanin.transfer import ADAPTERS
from fanin.transfer.adapters import Goal


class Net(nn.Module):
    def __init__(self, channels=3, classes=10, width=8):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.bn(self.conv(x)).relu().mean((2, 3)))


@pytest.fixture
def old():
    torch.manual_seed(0)
    net = Net()
    net.bn.running_mean.normal_()
    net.bn.running_var.uniform_(0.5, 2)
    net.bn.num_batches_tracked.fill_(7)
    return net.eval()


@pytest.fixture
def file(old, tmp_path):
    torch.save(old.state_dict(), tmp_path / "old.pt")
    return tmp_path / "old.pt"


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_same_model_is_the_same(old, file):
    new = Net().eval()
    plan = ft.transfer(new, file)
    assert same(new.state_dict(), old.state_dict())
    assert ft.verify(new, plan) == []
    assert ft.distance(new, plan).total == 0
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(new(x), old(x))


def test_a_changed_model_keeps_what_it_shares(old, file):
    new = Net(channels=6, classes=4).eval()
    adapt = {"conv.weight": "channels", "head.*": ("classes", {"take": [3, 1, 9, 0]})}
    plan = ft.transfer(new, file, adapt=adapt)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(new(torch.cat([x, x], 1)), old(x)[:, [3, 1, 9, 0]])
    assert ft.verify(new, fanin.Plan.from_json(plan.to_json())) == []
    new.bn.num_batches_tracked.add_(1)
    with torch.no_grad():
        new.head.bias[2] += 1
    found = {mismatch.path for mismatch in ft.verify(new, plan)}
    assert found == {"bn.num_batches_tracked", "head.bias"}


def test_a_model_without_memory_gets_all_of_it(old, file):
    with torch.device("meta"):
        new = Net()
    with pytest.raises(PlanError, match="say where the model should live"):
        ft.transfer(new, file)
    assert new.head.weight.is_meta
    ft.transfer(new, file, device="cpu")
    assert same(new.state_dict(), old.state_dict())
    with torch.device("meta"):
        new = Net()
    partial = {name: value for name, value in old.state_dict().items() if not name.startswith("bn.")}
    torch.save(partial, file)
    plan = ft.transfer(new, file, "he_normal", seed=0, device="cpu")
    assert {row.name: row.source for row in plan.rows}["bn.running_var"] == "constant"
    assert torch.equal(new.bn.running_var, torch.ones(8))
    assert ft.verify(new, plan) == []


@pytest.mark.parametrize("bad", ["nan", "shape", "lacks", "overflow", "damaged"])
def test_after_an_error_nothing_has_changed(old, file, bad):
    stored = state(old)
    new = Net()
    if bad == "nan":
        stored["head.bias"][-1] = float("nan")
    elif bad == "shape":
        stored["head.bias"] = torch.zeros(11)
    elif bad == "lacks":
        del stored["head.bias"]
    elif bad == "overflow":
        stored["head.bias"][-1] = 1e6
        new.head.half()
    torch.save(stored, file)
    if bad == "damaged":
        file.write_bytes(file.read_bytes()[:-200])
    before = state(new)
    with pytest.raises(FaninError):
        ft.transfer(new, file)
    assert same(new.state_dict(), before)


def test_a_dry_run_changes_nothing(file):
    new = Net()
    before = state(new)
    plan = ft.transfer(new, file, dry_run=True)
    assert same(new.state_dict(), before)
    assert {mismatch.path for mismatch in ft.verify(new, plan)} >= {"conv.weight", "head.weight"}


@pytest.mark.parametrize("how", ["truncated", "replaced", "gone"])
@pytest.mark.parametrize("memory", ["cpu", "meta"])
def test_a_checkpoint_that_changes_after_planning_leaves_the_model_as_it_was(old, tmp_path, how, memory):
    path = tmp_path / "old.safetensors"
    save_file(old.state_dict(), path)
    with torch.device(memory):
        new = Net()
    plan = ft.transfer(new, path, dry_run=True)
    saved = fanin.Plan.from_json(plan.to_json())
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-40] if how == "truncated" else data[:-40] + bytes(40))
    before = None if memory == "meta" else state(new)
    for each in (plan, saved):
        with pytest.raises((CheckpointError, FileNotFoundError)):
            ft.initialize(new, each, device="cpu")
        if before is None:
            assert all(value.is_meta for value in new.state_dict().values())
        else:
            assert same(new.state_dict(), before)
    path.write_bytes(data)
    ft.initialize(new, saved, device="cpu")
    assert same(new.state_dict(), old.state_dict())


@pytest.mark.parametrize("memory", ["cpu", "meta"])
def test_a_read_that_fails_in_the_middle_leaves_the_model_as_it_was(old, tmp_path, memory):
    path = tmp_path / "old.npz"
    np.savez(path, **{name: value.numpy() for name, value in old.state_dict().items()})
    third = list(old.state_dict().values())[2].numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(third)] ^= 1  # its checksum is read with it
    path.write_bytes(data)
    with torch.device(memory):
        new = Net()
    before = None if memory == "meta" else state(new)
    with pytest.raises(CheckpointError, match="damaged"):
        ft.transfer(new, path, device="cpu")
    if before is None:
        assert all(value.is_meta for value in new.state_dict().values())
    else:
        assert same(new.state_dict(), before)


@pytest.mark.parametrize("memory", ["cpu", "meta"])
def test_nan_in_the_last_tensor_leaves_the_model_as_it_was_and_can_be_taken(tmp_path, memory):
    old = nn.Sequential(nn.Linear(300, 2000), nn.Linear(2000, 3))
    with torch.no_grad():
        old[1].weight[2, -1] = float("nan")
    save_file(old.state_dict(), tmp_path / "old.safetensors")
    with torch.device(memory):
        new = nn.Sequential(nn.Linear(300, 2000), nn.Linear(2000, 3))
    before = None if memory == "meta" else state(new)
    with pytest.raises(PlanError, match=r"'1.weight' holds NaN or infinity"):
        ft.transfer(new, tmp_path / "old.safetensors", device="cpu")
    assert new[0].weight.is_meta if before is None else same(new.state_dict(), before)
    plan = ft.transfer(new, tmp_path / "old.safetensors", device="cpu", allow_nonfinite=True)
    assert torch.equal(new[1].weight.view(torch.int32), old[1].weight.view(torch.int32))
    assert ft.verify(new, plan) == []


@pytest.mark.parametrize("wrap", [weight_norm, spectral_norm, orthogonal])
def test_parametrized_weights_by_the_names_of_a_state_dict(tmp_path, wrap):
    torch.manual_seed(0)
    old, new = (nn.Sequential(wrap(nn.Linear(4, 4)), nn.Linear(4, 3)) for _ in range(2))
    torch.save(old.state_dict(), tmp_path / "old.pt")
    before = state(new)
    ft.transfer(new, tmp_path / "old.pt", dry_run=True)
    assert same(new.state_dict(), before)
    plan = ft.transfer(new, tmp_path / "old.pt")
    assert same(new.state_dict(), old.state_dict())
    assert plan.unexpected == ()
    assert ft.verify(new, fanin.Plan.from_json(plan.to_json())) == []
    x = torch.randn(2, 4)
    assert torch.equal(new.eval()(x), old.eval()(x))
    with torch.no_grad():
        first = next(new[0].parametrizations.weight.parameters())
        first[0, 0] += 1
    assert len(ft.verify(new, plan)) == 1


def test_a_parametrized_weight_from_one_that_is_not(tmp_path):
    old = nn.Sequential(nn.Linear(4, 4))
    torch.save(old.state_dict(), tmp_path / "old.pt")
    new = nn.Sequential(weight_norm(nn.Linear(4, 4)))
    ft.transfer(new, tmp_path / "old.pt")
    torch.testing.assert_close(new[0].weight, old[0].weight)


@pytest.mark.parametrize("old_grid", [4, 7])
@pytest.mark.parametrize("new_grid", [3, 7, 10])
@pytest.mark.parametrize("antialias", [True, False])
def test_positions_are_interpolated_as_pytorch_does(old_grid, new_grid, antialias):
    values = np.random.default_rng(0).standard_normal((1, 1 + old_grid**2, 5)).astype(np.float32)
    goal = Goal((1, 1 + new_grid**2, 5), 1, 0, "p", lambda: values)
    made = ADAPTERS["interpolate"](values, goal, prefix=1, antialias=antialias)
    grid = torch.from_numpy(values[:, 1:]).double().reshape(1, old_grid, old_grid, 5).permute(0, 3, 1, 2)
    wanted = nn.functional.interpolate(
        grid, (new_grid, new_grid), mode="bicubic", antialias=antialias, align_corners=False
    )
    np.testing.assert_array_equal(made[:, :1], values[:, :1])
    np.testing.assert_allclose(
        made[:, 1:], wanted.permute(0, 2, 3, 1).reshape(1, -1, 5).numpy(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("new", [3, 9, 20])
def test_sequences_are_interpolated_as_pytorch_does(new):
    values = np.random.default_rng(0).standard_normal((9, 5))
    made = ADAPTERS["interpolate"](values, Goal((new, 5), 1, 0, "p", lambda: values), mode="linear")
    wanted = nn.functional.interpolate(torch.from_numpy(values).T[None], new, mode="linear")[0].T
    np.testing.assert_allclose(made, wanted.numpy(), rtol=1e-12, atol=1e-12)


# --- transformers --------------------------------------------------------------------------------


def gpt2(**changes):
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 50, "n_positions": 12}
    config = transformers.GPT2Config(**(sizes | changes), bos_token_id=0, eos_token_id=0)
    torch.manual_seed(1)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_gpt2_with_more_words_and_layers(tmp_path, shards):
    old = gpt2()
    old.save_pretrained(tmp_path, max_shard_size=shards)
    (tmp_path / "config.json").unlink()
    (tmp_path / "generation_config.json").unlink()
    tokens = torch.arange(10)[None]
    new = gpt2()
    ft.transfer(new, tmp_path)
    assert torch.equal(new(tokens).logits, old(tokens).logits)

    new = gpt2(vocab_size=53)
    plan = ft.transfer(new, tmp_path, adapt={"*wte*": ("rows", {"new": "mean"})})
    torch.testing.assert_close(new(tokens).logits[..., :50], old(tokens).logits)
    assert new.lm_head.weight is new.transformer.wte.weight
    assert ft.verify(new, plan) == []

    new = gpt2(n_layer=4)
    plan = ft.transfer(new, tmp_path, adapt={"*.h.*": "stack"})
    assert plan.unexpected == ()
    for at in range(4):
        assert torch.equal(new.transformer.h[at].mlp.c_fc.weight, old.transformer.h[at // 2].mlp.c_fc.weight)

    new = gpt2(n_embd=8)
    with pytest.raises(PlanError, match=r"holds several parameters.*give `source`"):
        ft.transfer(new, tmp_path, adapt={"*": "select"})
    ft.transfer(new, tmp_path, adapt={"*": "select"}, source=ft.plan(old, "zeros", seed=0))
    q, k, v = old.transformer.h[0].attn.c_attn.weight.chunk(3, 1)
    wanted = torch.cat([each[::2, ::2] for each in (q, k, v)], 1)
    assert torch.equal(new.transformer.h[0].attn.c_attn.weight, wanted)


def test_vit_at_another_size_with_other_channels_and_classes(tmp_path):
    def vit(**changes):
        sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
        config = transformers.ViTConfig(**sizes, **({"image_size": 32, "patch_size": 8} | changes))
        return transformers.ViTForImageClassification(config).eval()

    old = vit()
    torch.save(old.state_dict(), tmp_path / "pytorch_model.bin")
    new = vit(image_size=48, num_channels=6, num_labels=7)
    adapt = {"*position_embeddings": "interpolate", "*patch_embeddings*": "channels", "classifier.*": "draw"}
    plan = ft.transfer(new, tmp_path, "vit", seed=0, adapt=adapt)
    sources = {row.path: row.source for row in plan.rows}
    assert sources["classifier.weight"] in ("draw", "constant")
    assert sources["vit.embeddings.position_embeddings"] == "adapted"
    assert ft.verify(new, plan) == []
    image = torch.randn(1, 3, 32, 32)
    same_size = vit(num_channels=6)
    ft.transfer(same_size, tmp_path, adapt=adapt | {"classifier.*": ("classes", {"take": [0, 1]})})
    torch.testing.assert_close(same_size(torch.cat([image, image], 1)).logits, old(image).logits)


def test_fused_and_separate_projections(tmp_path):
    fused = nn.MultiheadAttention(8, 2)
    torch.save(fused.state_dict(), tmp_path / "fused.pt")

    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                setattr(self, name, nn.Linear(8, 8))

    new = Apart()
    ft.transfer(new, tmp_path / "fused.pt", source=ft.plan(fused, "zeros", seed=0))
    assert torch.equal(
        torch.cat([new.q_proj.weight, new.k_proj.weight, new.v_proj.weight]), fused.in_proj_weight
    )
    torch.save(new.state_dict(), tmp_path / "apart.pt")
    back = nn.MultiheadAttention(8, 2)
    ft.transfer(back, tmp_path / "apart.pt")
    assert same(back.state_dict(), fused.state_dict())


# --- command line --------------------------------------------------------------------------------


def cli(*arguments, cwd, code=0):
    done = subprocess.run(
        [sys.executable, "-c", "from fanin.cli import main; main()", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_line_writes_verifies_and_prints_a_card(tmp_path, old):
    torch.save({f"module.{k}": v for k, v in old.state_dict().items()}, tmp_path / "old.ckpt")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Module()\n"
        "    net.conv, net.bn, net.head = nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 12)\n"
        "    return net\n"
    )
    asked = ["transfer", "mine:build", "old.ckpt", "--recipe", "he_normal", "--plan", "plan.json"]
    asked += ["--rename", "module.=", "--adapt", "conv.weight=channels", "--adapt", "head.*=rows:new=draw"]
    cli(*asked, "--out", "new", cwd=tmp_path)
    assert "0 differ" in cli("verify", "new/model.safetensors", "plan.json", cwd=tmp_path)
    assert "| adapted from a checkpoint | 3 |" in cli("card", "plan.json", cwd=tmp_path)
    again = Net(channels=4, classes=12)
    ft.transfer(again, tmp_path / "new" / "model.safetensors")
    assert torch.equal(again.head.weight[:10], old.head.weight)
    assert again.bn.num_batches_tracked == 7
    assert json.loads((tmp_path / "plan.json").read_text())["rows"][0]["source"] == "adapted"
    assert "did you mean rename" in cli(
        "transfer", "mine:build", "old.ckpt", "--dry-run", cwd=tmp_path, code=2
    )
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model.safetensors"]


def test_a_killed_command_leaves_the_old_file_and_goes_on(tmp_path):
    old = nn.Linear(4000, 4000)
    save_file(old.state_dict(), tmp_path / "old.safetensors")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Linear(4000, 4000)\n"
    )
    out = tmp_path / "new.safetensors"
    out.write_bytes(b"what was there before")
    asked = ["transfer", "mine:build", "old.safetensors", "--out", "new.safetensors"]
    command = [sys.executable, "-c", "from fanin.cli import main; main()", *asked]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    mark = tmp_path / ".new.safetensors.fanin-partial" / ".fanin-partial" / "done"
    while not mark.exists() and run.poll() is None:
        time.sleep(0.001)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    assert out.read_bytes() == b"what was there before"
    cli(*asked, "--resume", cwd=tmp_path)
    assert same(load_file(out), old.state_dict())
    assert not list(tmp_path.glob(".*"))


def run_ranks(program, folder):
    command = [sys.executable, "-c", program]
    running = [
        subprocess.Popen([*command, str(rank), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said


RANK = """
import sys, torch, torch.distributed as dist, fanin.torch as ft
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 7))
for layer in (model[0], model[2]):
    layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
plan = ft.transfer(model, f"{folder}/old.pt", adapt={"2.*": "rows"})
assert ft.verify(model, plan) == []
torch.save({n: p.full_tensor() if hasattr(p, "full_tensor") else p for n, p in model.state_dict().items()},
           f"{folder}/rank{rank}.pt")
dist.destroy_process_group()
"""


WINDOWS = """
import sys, torch, torch.distributed as dist, fanin.torch as ft
from fanin.errors import PlanError
from pathlib import Path
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/windows", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))

def sharded(device):
    with torch.device(device):
        model = nn.Linear(1024, 8192, bias=False)
    whole = distribute_tensor(model.weight.detach(), mesh, [Shard(0)], src_data_rank=None)
    model.weight = nn.Parameter(whole)
    return model

def read():
    said = Path("/proc/self/io").read_text().splitlines()
    return int(said[0].split()[1])

ft.transfer(sharded("meta"), f"{folder}/good.safetensors", device="cpu")  # imports
model = sharded("meta")
before = read()
ft.transfer(model, f"{folder}/good.safetensors", device="cpu")
share = (read() - before) / (1024 * 8192 * 4)
assert 0.5 <= share < 0.52, share
for device in ("cpu", "meta"):
    model = sharded(device)
    old = model.weight.to_local().clone()
    try:
        ft.transfer(model, f"{folder}/bad.safetensors", device="cpu")
    except PlanError as error:
        said = str(error)
    assert ("rank 1: " in said) == (rank == 0), said
    assert "'weight' holds NaN" in said, said
    assert model.weight.is_meta if device == "meta" else torch.equal(model.weight.to_local(), old)
dist.destroy_process_group()
"""


def test_ranks_read_their_windows_alone_and_what_one_refuses_none_writes(tmp_path):
    weight = torch.ones(8192, 1024)
    save_file({"weight": weight}, tmp_path / "good.safetensors")
    weight[-1, -1] = float("nan")  # in what rank 1 reads
    save_file({"weight": weight}, tmp_path / "bad.safetensors")
    run_ranks(WINDOWS, tmp_path)


def test_ranks_write_their_own_shards(tmp_path):
    old = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    old[1].num_batches_tracked.fill_(3)
    torch.save(old.state_dict(), tmp_path / "old.pt")
    run_ranks(RANK, tmp_path)
    both = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    assert same(*both)
    assert torch.equal(both[0]["0.weight"], old[0].weight)
    assert torch.equal(both[0]["2.weight"][:4], old[2].weight)
    torch.testing.assert_close(both[0]["2.weight"][4:], old[2].weight.mean(0).expand(3, 5))
    assert both[0]["1.num_batches_tracked"] == 3
