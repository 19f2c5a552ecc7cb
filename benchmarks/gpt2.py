"""GPT-2 small (124 M parameters, float32), initialized by itself, by a loop of torch.nn.init, and by fanin.

One process, the three taking turns, parameters resident; a ratio is the median over the turns. Memory is what
the process holds at most beyond what it held before the first turn.
"""

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

import fanin
import fanin.torch as ft


def itself(model: transformers.PreTrainedModel) -> None:
    """transformers' own way; it passes over what it has already initialized unless told to forget that."""
    for part in (*model.modules(), *model.parameters()):
        part._is_hf_initialized = False  # type: ignore[assignment]
    model.init_weights()


def loop(model: transformers.PreTrainedModel) -> None:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)


def planned(model: transformers.PreTrainedModel) -> None:
    ft.initialize(model, "gpt2", seed=0)


def peak_mib(*, afresh: bool = False) -> float:
    """The most memory the process has held, or, afresh, what it holds now and counts from (Linux)."""
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def seconds(
    work: Callable[[transformers.PreTrainedModel], None], model: transformers.PreTrainedModel
) -> float:
    start = time.perf_counter()
    work(model)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    fanin.set_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    before = peak_mib(afresh=True)
    planned(model)
    beyond = peak_mib() - before
    times = {work: [] for work in (itself, loop, planned)}
    for _ in range(arguments.turns):
        for work, taken in times.items():
            taken.append(seconds(work, model))
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.threads} threads, kernel {fanin.kernel()}, {size:,} parameters")
    for work, what in ((itself, "init_weights"), (loop, "loop of torch.nn.init.normal_"), (planned, "fanin")):
        ratio = statistics.median(a / b for a, b in zip(times[work], times[planned], strict=True))
        print(f"{what:<30} {statistics.median(times[work]) * 1e3:8.1f} ms   {ratio:5.2f}")
    print(f"memory beyond the model: {beyond:.1f} MiB")


if __name__ == "__main__":
    main()
