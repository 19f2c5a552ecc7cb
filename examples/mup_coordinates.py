"""Do features keep their size as networks get wider? muP's coordinate check.

``python examples/mup_coordinates.py`` trains perceptrons of widths 64 to 1024 for three steps of Adam on one
batch, and measures each layer's output with ``ft.trace``. Against the width, on log-log axes, a line is
fitted: flat under muP (Yang et al. 2022, arXiv:2203.03466), rising where widths share a rule by fan_in and a
learning rate. The readout starts at zero in both, so that its output is what was learned.
"""

import argparse
import itertools
import math
import statistics
import sys

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import fanin.torch as ft
from fanin import recipes

WIDTHS = (64, 128, 256, 512, 1024)
BASE = WIDTHS[0]
INPUTS, CLASSES, EXAMPLES = 64, 4, 16
STEPS, RATE = 3, 1e-3
FLAT, STEEP = 0.1, 0.5  # slopes: what muP may have at most, and the standard parametrization at least
READS, HIDDEN, READOUT = "0.weight", ("2.weight", "4.weight"), "6.weight"


def perceptron(width):
    sizes = (INPUTS, width, width, width)
    layers = [layer for n, m in itertools.pairwise(sizes) for layer in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def mup(width):
    """The recipe, and the learning rate of each parameter: hidden and output kernels divide by m."""
    std = math.sqrt(2 / BASE)
    recipe = recipes.mup(base_width=BASE, d_model=width, std=std, inputs=[READS], outputs=[READOUT])
    return recipe, lambda name: RATE * BASE / width if name in (*HIDDEN, READOUT) else RATE


def standard(width):
    """He by fan_in, one learning rate."""
    return "he_normal", lambda name: RATE


def sizes(parametrization, width, seed):
    """Root mean squares of the linear layers' outputs after three steps."""
    model = perceptron(width)
    recipe, rate = parametrization(width)
    ft.initialize(model, recipe, seed=seed)
    nn.init.zeros_(model[-1].weight)
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, INPUTS, generator=draws)
    y = x[:, :CLASSES].argmax(1)  # there is something to learn, the same at every width
    groups = [{"params": [each], "lr": rate(name)} for name, each in model.named_parameters()]
    optimizer = torch.optim.Adam(groups, eps=1e-15)  # gradients of wide layers are small beside 1e-8
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return {step.name: step.after.rms for step in ft.trace(model, x).operations if step.kind == "dense"}


def slope(found):
    """Of the fitted line through log2 size against log2 width."""
    x, y = [math.log2(width) for width in found], [math.log2(size) for size in found.values()]
    return statistics.linear_regression(x, y).slope


def slopes(parametrization, seeds):
    """{layer: (slope, {width: size})}, sizes averaged over seeds."""
    runs = {width: [sizes(parametrization, width, seed) for seed in range(seeds)] for width in WIDTHS}
    found = {}
    for layer in runs[BASE][0]:
        means = {width: statistics.mean(each[layer] for each in several) for width, several in runs.items()}
        found[layer] = (slope(means), means)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    table = Table(box=None, pad_edge=False, title=f"Size of each layer's output after {STEPS} steps of Adam")
    for column in ("", "layer", *map(str, WIDTHS), "slope"):
        table.add_column(column, justify="left" if column in ("", "layer") else "right")
    worst = {}
    for name, parametrization in (("muP", mup), ("standard", standard)):
        found = slopes(parametrization, arguments.seeds)
        for layer, (fitted, means) in found.items():
            table.add_row(name, layer, *(f"{size:.3f}" for size in means.values()), f"{fitted:+.2f}")
        worst[name] = max((fitted for fitted, _ in found.values()), key=abs)
    Console().print(table)
    flat, steep = abs(worst["muP"]) <= FLAT, worst["standard"] >= STEEP
    for name, good, wanted in (
        ("muP", flat, f"at most {FLAT:g}"),
        ("standard", steep, f"at least {STEEP:g}"),
    ):
        print(f"{name}: largest slope {worst[name]:+.2f}, {'as' if good else 'not'} expected ({wanted})")
    sys.exit(0 if flat and steep else 1)


if __name__ == "__main__":
    main()
