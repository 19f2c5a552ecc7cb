"""`fanin.torch.init` beside `torch.nn.init`: how many times faster a call is, 64 MiB of float32 on one core.

Two processes take turns, each with a resident parameter of its own; a ratio is the median over the turns.

    python benchmarks/torch_init.py [MEBIBYTES [TURNS]]
"""

import json
import os
import statistics
import subprocess
import sys
import time

from fanin.lab.bench import turn

WORDS = {
    "uniform_": {},
    "normal_": {},
    "trunc_normal_": {"std": 0.02, "a": -0.04, "b": 0.04},
    "xavier_uniform_": {},
    "xavier_normal_": {},
    "kaiming_uniform_": {},
    "kaiming_normal_": {},
    "orthogonal_": {},
    "sparse_": {"sparsity": 0.9},
}
LAYOUTS = ("float32", "bfloat16", "transposed", "channels last")
CASES = [(word, "float32") for word in WORDS]
CASES += [(word, layout) for layout in LAYOUTS[1:] for word in ("uniform_", "normal_", "trunc_normal_")]


def parameter(layout, elements):
    import torch

    side = 1 << (elements.bit_length() // 2)
    rows = elements // side
    if layout == "transposed":
        return torch.nn.Parameter(torch.ones(side, rows).t())
    if layout == "channels last":
        image = torch.ones(rows, side // 16, 4, 4)
        return torch.nn.Parameter(image.contiguous(memory_format=torch.channels_last))
    return torch.nn.Parameter(torch.ones(rows, side, dtype=getattr(torch, layout)))


def serve(module, word, layout, elements):
    """Fill once per line read, printing the seconds it took."""
    import importlib

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    call, weight = getattr(importlib.import_module(module), word), parameter(layout, elements)
    for _ in sys.stdin:
        began = time.perf_counter()
        call(weight, **WORDS[word])
        print(time.perf_counter() - began, flush=True)


def worker(*case):
    command = [sys.executable, __file__, "serve", json.dumps(case)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def main(mebibytes=64, turns=5):
    elements = int(mebibytes) << 18
    print(f"{'':34}{'fanin s':>10}{'torch s':>10}{'times faster':>14}")
    for word, layout in CASES:
        with (
            worker("fanin.torch.init", word, layout, elements) as ours,
            worker("torch.nn.init", word, layout, elements) as theirs,
        ):
            taken = [(turn(ours), turn(theirs)) for _ in range(int(turns) + 1)][1:]  # the first warms up
        a, b = (statistics.median(column) for column in zip(*taken, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in taken)
        print(f"{word:18}{layout:16}{a:10.4f}{b:10.4f}{ratio:14.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*json.loads(sys.argv[2]))
    else:
        main(*sys.argv[1:])
