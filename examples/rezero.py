"""What does one scalar per layer do? ReZero beside the same network without and with skips.

``python examples/rezero.py`` trains 64 layers of 64 ReLU units on the digits of scikit-learn, ten epochs of
Adagrad at 0.01, with the starts of the authors' notebook: Glorot normal times sqrt(2), or 1/2 where sums
let the signal grow (Bachlechner et al. 2021, arXiv:2003.04887, table 1).
"""

import argparse
import math
import statistics
import sys

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

import fanin.torch as ft
from fanin import recipes
from fanin.lab import tasks

WIDTH, DEPTH, EPOCHS, BATCH, RATE = 64, 64, 10, 16, 0.01
GROWING, KEEPING = (
    f"variance_scaling({gain**2}, 'fan_avg', 'untruncated_normal')" for gain in (0.5, math.sqrt(2))
)


class Vanilla(nn.Module):
    recipe = KEEPING

    def __init__(self, inputs, classes):
        super().__init__()
        self.first, self.head = nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, classes)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))

    def forward(self, x):
        x = torch.relu(self.first(x))
        for at, layer in enumerate(self.layers):
            x = self.joined(at, x, torch.relu(layer(x)))
        return self.head(x)

    def joined(self, at, x, branch):
        return branch


class Residual(Vanilla):
    recipe = GROWING

    def joined(self, at, x, branch):
        return x + branch


class ReZero(Vanilla):
    recipe = recipes.rezero(kernel=KEEPING, scales=["scales"])

    def __init__(self, inputs, classes):
        super().__init__(inputs, classes)
        self.scales = nn.Parameter(torch.empty(DEPTH))

    def joined(self, at, x, branch):
        return x + self.scales[at] * branch


def trained(kind, seed):
    """Training loss before the first step and after the last, and accuracy on the test part."""
    task = tasks.load("digits")
    (x, y), (unseen, right) = ((torch.tensor(a), torch.tensor(b).long()) for a, b in (task.train, task.test))
    model = kind(task.n_features, task.n_classes)
    ft.initialize(model, kind.recipe, seed=seed)
    optimizer = torch.optim.Adagrad(model.parameters(), RATE)
    order = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        before = functional.cross_entropy(model(x), y).item()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x), generator=order).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    with torch.no_grad():
        after = functional.cross_entropy(model(x), y).item()
        return before, after, (model(unseen).argmax(1) == right).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)  # layers are small, and sums have one order
    table = Table(
        box=None, pad_edge=False, title=f"{DEPTH} layers after {EPOCHS} epochs, median of {seeds} seeds"
    )
    for column in ("network", "loss before", "loss after", "test accuracy"):
        table.add_column(column, justify="left" if column == "network" else "right")
    losses = {}
    for kind in (Vanilla, Residual, ReZero):
        runs = [trained(kind, seed) for seed in range(seeds)]
        before, losses[kind], accuracy = map(statistics.median, zip(*runs, strict=True))
        table.add_row(kind.__name__, f"{before:.3f}", f"{losses[kind]:.3f}", f"{accuracy:.1%}")
    Console(width=110).print(table)
    holds = losses[ReZero] < losses[Residual] < losses[Vanilla]
    print(f"{'as' if holds else 'not'} expected: losses rise from ReZero to Residual to Vanilla")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
