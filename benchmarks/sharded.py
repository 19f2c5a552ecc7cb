"""What one seed costs at any world size, and a model streamed to disk.

``python benchmarks/sharded.py law`` initializes a Llama of 271 M parameters under FSDP2 on 1, 2, 4 and 8
ranks: CPU seconds, memory beyond the shard of the rank that needs most, and what is sent, beside what is
usual: ``torch.nn.init`` on the shards, every rank making all and keeping its part, and a seed checkpoint that
one rank writes and all load.

``python benchmarks/sharded.py stream FOLDER`` writes 12 GB there with ``fanin init`` under a memory limit
beside ``dd``, again while it is killed twenty times, and again in four parts; the SHA-256 must be the same.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import transformers
from gpt2 import peak_mib
from rich.console import Console
from rich.table import Table
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fanin
import fanin.torch as ft

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))
from one_seed_one_network import fsdp, launch, local

MIB = 1 << 20
LIMIT = 512_000_000  # bytes of private memory of the process that streams


def llama(layers, width, dtype=torch.float32):
    """On the meta device."""
    config = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        vocab_size=32_000,
    )
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(config).to(dtype)


# --- the ways ------------------------------------------------------------------------------------


def by_fanin(model, folder):
    ft.initialize(model, "llama", seed=0, device="cpu")


def by_orthogonal(model, folder):
    ft.initialize(model, "orthogonal", seed=0, device="cpu")


def by_torch(model, folder):
    """Other numbers for every world size, and on CPU the same ones on every rank."""
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in model.parameters():
        usual_(parameter)


def by_slicing(model, folder):
    """Each full tensor on every rank, one after the other."""
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in model.parameters():
        whole = torch.empty(parameter.shape)
        usual_(whole)
        part = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
        with torch.no_grad():
            local(parameter).copy_(local(part))


def by_seed_checkpoint(model, folder):
    """One rank makes all, with nothing sharded, and saves it; then every rank loads its shards."""
    if dist.get_rank() == 0:
        torch.manual_seed(0)
        whole = {name: torch.empty(parameter.shape) for name, parameter in model.named_parameters()}
        for tensor in whole.values():
            usual_(tensor)
        dcp.save(whole, checkpoint_id=folder, no_dist=True)
        del whole
    dist.barrier()
    model.to_empty(device="cpu")
    dcp.load(dict(model.named_parameters()), checkpoint_id=folder)


def usual_(tensor):
    if tensor.ndim > 1:
        torch.nn.init.normal_(tensor, std=0.02)
    else:
        torch.nn.init.ones_(tensor)


WAYS = {
    "fanin": by_fanin,
    "torch.nn.init on the shards": by_torch,
    "all of it on every rank, sliced": by_slicing,
    "seed checkpoint": by_seed_checkpoint,
    "fanin, orthogonal": by_orthogonal,
}


# --- the cost law --------------------------------------------------------------------------------


class Collectives(TorchDispatchMode):
    """What is sent: the bytes of the tensors of each collective."""

    def __init__(self):
        super().__init__()
        self.bytes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.namespace in ("c10d", "_c10d_functional"):
            tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
            self.bytes.append(sum(tensor.nbytes for tensor in tensors))
        return operation(*args, **(kwargs or {}))


def measure(world, way, layers, width, folder):
    """What one rank spends: the second time, after a first that counts what is sent."""
    warnings.simplefilter("ignore")  # what peers say of CPU meshes and of overwriting a checkpoint
    mesh = init_device_mesh("cpu", (world,))

    def sharded():
        model = llama(layers, width)
        fsdp(model, mesh)
        return model

    with Collectives() as sent:
        WAYS[way](sharded(), folder)
    model = sharded()
    dist.barrier()
    held = peak_mib(afresh=True)
    wall, cpu = time.perf_counter(), time.process_time()
    WAYS[way](model, folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_mib() - held
    shard = sum(local(parameter).nbytes for parameter in model.parameters()) / MIB
    return {"wall": wall, "cpu": cpu, "shard": shard, "beyond": peak - shard, "sent": sent.bytes}


def law(arguments):
    table = Table(box=None, pad_edge=False)
    for column in (
        "way",
        "ranks",
        "CPU s",
        "wall s",
        "shard MiB",
        "beyond MiB",
        "collectives",
        "largest, bytes",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, kernel {fanin.kernel()}", flush=True)
    for way in arguments.way:
        coupled = "orthogonal" in way  # each rank computes its tensors whole: a smaller model shows it
        layers, width = (2, 512) if coupled else (arguments.layers, arguments.width)
        for world in arguments.world:
            with TemporaryDirectory(dir=arguments.scratch) as folder:
                ranks = launch(world, measure, way, layers, width, folder)
            most = {key: max(rank[key] for rank in ranks) for key in ("cpu", "wall", "shard", "beyond")}
            sent = max((rank["sent"] for rank in ranks), key=len)
            table.add_row(
                way,
                str(world),
                f"{most['cpu']:.2f}",
                f"{most['wall']:.2f}",
                f"{most['shard']:.0f}",
                f"{most['beyond']:.0f}",
                str(len(sent)),
                f"{max(sent, default=0):,}",
            )
    Console(width=110).print(table)
    print(f"load {os.getloadavg()[0]:.1f} after it")


# --- streaming -----------------------------------------------------------------------------------


def init(plan, folder, *more):
    """``fanin init`` as a process whose private memory the system limits."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))"
    code = f"{limited}; from fanin.cli import main; main()"
    command = [sys.executable, "-c", code, "init", str(plan), "--out", str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(*running):
    """Wait; the most MiB that one of them held."""
    peak = 0
    for process in running:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            peak = max(peak, int(found[1]) // 1024 if found else 0)
            time.sleep(0.05)
        said = process.stderr.read().decode()
        process.stderr.close()
        if process.returncode:
            raise RuntimeError(said)
    return peak


def digest(folder):
    """One SHA-256 of all files, their names and bytes."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def stream(arguments):
    base = Path(arguments.folder) / "fanin-stream"
    base.mkdir(parents=True)
    try:
        _stream(arguments, base)
    finally:
        shutil.rmtree(base)


def _stream(arguments, base):
    plan, folder = base / "plan.json", base / "checkpoint"
    model = llama(arguments.layers, 4096, torch.bfloat16)
    ft.plan(model, "llama", seed=0).save(plan)
    size = sum(parameter.nbytes for parameter in model.parameters())
    free = shutil.disk_usage(base).free
    print(f"{size:,} bytes, {free:,} free, load {os.getloadavg()[0]:.1f}", flush=True)
    if free < size * 1.1:
        raise SystemExit("not enough room: fewer --layers")
    ratios = []
    for turn in range(arguments.turns):
        copy = ["dd", "if=/dev/zero", f"of={base / 'zeros'}", "bs=16M", "conv=fsync", "iflag=count_bytes"]
        shutil.rmtree(folder, ignore_errors=True)
        os.sync()
        start = time.perf_counter()
        subprocess.run([*copy, f"count={size}"], check=True, capture_output=True)
        copied = time.perf_counter() - start
        (base / "zeros").unlink()
        os.sync()
        start = time.perf_counter()
        peak = finish(init(plan, folder, "--workers", "2"))
        wrote = time.perf_counter() - start
        ratios.append(copied / wrote)
        print(
            f"turn {turn + 1}: dd {size / copied / 1e6:.0f} MB/s, fanin {size / wrote / 1e6:.0f} MB/s, "
            f"ratio {ratios[-1]:.2f}, peak {peak} MiB, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    expected = digest(folder)
    print(f"SHA-256 {expected[:16]}, ratio {statistics.median(ratios):.2f} (median)", flush=True)
    shutil.rmtree(folder)
    draws, kills = random.Random(0), 0
    while kills < arguments.kills:
        running = init(plan, folder, "--workers", "2", "--resume")
        time.sleep(draws.uniform(0.5, 2 * wrote / max(arguments.kills, 1)))
        if running.poll() is not None:
            finish(running)
            break
        running.send_signal(signal.SIGKILL)
        running.communicate()
        kills += 1
    finish(init(plan, folder, "--workers", "2", "--resume"))
    print(f"killed {kills} times and resumed: {same(digest(folder), expected)}", flush=True)
    shutil.rmtree(folder)
    start = time.perf_counter()
    peak = finish(*(init(plan, folder, "--workers", "2", "--part", f"{part}/4") for part in (3, 1, 4, 2)))
    took = time.perf_counter() - start
    print(f"four parts at once, {took:.0f} s, peak {peak} MiB each: {same(digest(folder), expected)}")
    print(f"load {os.getloadavg()[0]:.1f}")


def same(found, expected):
    if found != expected:
        raise SystemExit(f"SHA-256 {found}, expected {expected}")
    return "the same SHA-256"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    of_law = commands.add_parser("law")
    of_law.add_argument("--world", type=int, nargs="+", default=[1, 2, 4, 8])
    of_law.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS))
    of_law.add_argument("--layers", type=int, default=16)
    of_law.add_argument("--width", type=int, default=1024)
    of_law.add_argument("--scratch", help="folder of the seed checkpoint")
    of_law.set_defaults(run=law)
    of_stream = commands.add_parser("stream")
    of_stream.add_argument("folder")
    of_stream.add_argument("--layers", type=int, default=29, help="of 0.4 GB each, bfloat16")
    of_stream.add_argument("--turns", type=int, default=3)
    of_stream.add_argument("--kills", type=int, default=20)
    of_stream.set_defaults(run=stream)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
