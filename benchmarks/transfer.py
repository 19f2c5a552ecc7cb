"""Sharded safetensors into a PyTorch model: fanin.torch.transfer beside load_file and load_state_dict.

Into a model with values, and into one on the meta device. Each way runs in a process of its own, by turns,
with the files in the page cache: seconds, processor seconds (medians; on a machine with other work the latter
tell more) and the most memory it had (VmHWM) beyond what it had before. The digests of the plan, which are
made when it is saved, are timed apart. Usage: python benchmarks/transfer.py [gigabytes]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

SIDE = 4096
WAYS = {
    "load_file + load_state_dict": "cpu",
    "transfer": "cpu",
    "transfer, allow_nonfinite": "cpu",
    "to_empty, load_file + load_state_dict": "meta",
    "transfer to a meta model": "meta",
    "plan.sign(): the digests": "cpu",
}
TURNS = 3


def model(layers: int) -> nn.Module:
    return nn.Sequential(*(nn.Linear(SIDE, SIDE) for _ in range(layers)))


def write(folder: Path, layers: int) -> None:
    """Shards of at most four layers, and the index."""
    placed, total = {}, 0
    generator = torch.Generator().manual_seed(0)
    for first in range(0, layers, 4):
        shard = {}
        for at in range(first, min(first + 4, layers)):
            shard[f"{at}.weight"] = torch.randn(SIDE, SIDE, generator=generator)
            shard[f"{at}.bias"] = torch.randn(SIDE, generator=generator)
        name = f"model-{first:05d}.safetensors"
        save_file(shard, folder / name)
        placed |= dict.fromkeys(shard, name)
        total += sum(tensor.nbytes for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def peak() -> int:
    """The most memory this process had, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def one(way: str, folder: Path, layers: int) -> None:
    """One way, once: prints its seconds and bytes."""
    import fanin.torch as ft
    import fanin.transfer  # noqa: F401  (imported when it is first used; importing is not timed)

    with torch.device(WAYS[way]):
        net = model(layers)
    plan = ft.transfer(net, folder, device="cpu") if "sign" in way else None
    before, worked, start = peak(), time.process_time(), time.perf_counter()
    if plan is not None:
        plan.sign()
    elif "transfer" in way:
        ft.transfer(net, folder, device="cpu", allow_nonfinite="allow" in way)
    else:
        if "to_empty" in way:
            net.to_empty(device="cpu")
        for file in sorted(folder.glob("*.safetensors")):
            net.load_state_dict(load_file(file), strict=False)
    print(json.dumps([time.perf_counter() - start, time.process_time() - worked, peak() - before]))


def main(gigabytes: float) -> None:
    layers = max(1, round(gigabytes * 1e9 / (4 * SIDE * (SIDE + 1))))
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), layers)
        found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for _ in range(TURNS):
            for way in WAYS:
                command = [sys.executable, __file__, "--one", way, name, str(layers)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[way].append(json.loads(said.splitlines()[-1]))
    print(
        f"{layers} layers, {layers * 4 * SIDE * (SIDE + 1) / 1e9:.2f} GB, {torch.get_num_threads()} threads"
    )
    for way, runs in found.items():
        seconds, worked, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{way:<38} {seconds:7.2f} s {worked:7.2f} CPU s {memory / 1e6:8.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
