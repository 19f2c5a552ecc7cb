"""What the audit of GPT-2 small costs, beside one step of training it (forward, backward, AdamW).

One process, the two taking turns; a ratio is the median over the turns. Memory is what the process holds at
most beyond the model during each; the first step of training makes the optimizer's state.
"""

import argparse
import ctypes
import gc
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

import fanin.torch as ft


def mib(what: str) -> float:
    """``VmRSS`` is what the process holds, ``VmHWM`` the most it held since `afresh` (Linux)."""
    [line] = re.findall(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def afresh() -> None:
    """Give back what is free, which would count as held before, and forget the most."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and MiB beyond what was held before."""
    afresh()
    before = mib("VmRSS")
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, mib("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    config = transformers.GPT2Config(n_layer=arguments.layers)
    model = transformers.GPT2LMHeadModel(config)
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (arguments.sequences, arguments.length), generator=draws)
    batch = {"input_ids": ids, "labels": ids}

    def audit() -> None:
        ft.audit(model, batch)

    def train() -> None:
        optimizer = torch.optim.AdamW(model.parameters())
        model(**batch).loss.backward()
        optimizer.step()
        model.zero_grad()

    found: dict[str, list[tuple[float, float]]] = {"audit": [], "training step": []}
    for _ in range(arguments.turns):
        for name, work in (("audit", audit), ("training step", train)):
            found[name].append(measured(work))
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.threads} threads, {size:,} parameters, {ids.numel():,} tokens")
    for name, runs in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name:<15} {seconds:7.2f} s   {memory:7.0f} MiB beyond the model")
    for at, what in enumerate(("time", "memory")):
        pairs = zip(*found.values(), strict=True)
        ratio = statistics.median(ours[at] / theirs[at] for ours, theirs in pairs)
        print(f"{what}: {ratio:.2f} times that of a training step")


if __name__ == "__main__":
    main()
