"""Starts that have learned other classes before, by way of checkpoints."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fanin.initializers import get
from fanin.lab.network import Activation, Network, by_name, described, initialize, of_names
from fanin.lab.summary import best_rate
from fanin.lab.tasks import Task
from fanin.lab.training import train
from fanin.transfer import resolve

BASE = "he_normal"  # what it was before, and what the new head is


def pretrained(
    before: Task,
    sizes: Sequence[int],
    seeds: int,
    *,
    phi: Activation,
    rates: Sequence[float],
    steps: int,
    batch: int,
    on_chunk: Callable[[], None] = lambda: None,
) -> list[Network]:
    """Networks that were trained on a task before, at its best rate; their heads are drawn for the next one.

    Parameters
    ----------
    before : Task
        Of other classes and the same features.
    sizes : sequence of int
        Units of each layer: inputs, hidden layers, classes of the task to come.
    seeds, phi, rates, steps, batch, on_chunk
        As for `fanin.lab.training.train`.
    """
    starts = [initialize(get(BASE), (*sizes[:-1], before.n_classes), seed) for seed in range(seeds)]
    history = train(starts, before, phi=phi, rates=rates, steps=steps, batch=batch, on_chunk=on_chunk)
    best = best_rate(history)

    def trained(seed: int) -> Network:
        found: Network = jax.tree.map(lambda leaf: leaf[best, seed], history.networks)
        return found

    with tempfile.TemporaryDirectory() as folder:
        return [_started(trained(seed), sizes, seed, Path(folder)) for seed in range(seeds)]


def _started(trained: Network, sizes: Sequence[int], seed: int, folder: Path) -> Network:
    """A network that takes all but the head from a checkpoint of another."""
    file = folder / f"{seed}.npz"
    arrays: dict[str, Any] = by_name(trained)
    np.savez(file, **arrays)
    plan = resolve(described(sizes), file, BASE, seed=seed, adapt={"head.*": "draw"})
    return of_names({tensor.path: plan.fill(tensor.path) for tensor in plan.tensors})
