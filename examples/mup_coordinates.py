"""Do features keep their size as networks get wider? muP's coordinate check.

``python examples/mup_coordinates.py`` trains perceptrons of widths 64 to 1024 for three steps of Adam on one
batch, and fits each layer's size against the width, on log-log axes: flat under muP (Yang et al. 2022,
arXiv:2203.03466), rising where widths share a rule by fan_in and a learning rate. The readout starts at zero
in both, so that its output is what was learned.
"""

import argparse
import itertools
import math
import sys

import torch
from torch import nn

import fanin.torch as ft
from fanin import recipes

WIDTHS = (64, 128, 256, 512, 1024)
BASE = WIDTHS[0]
INPUTS, CLASSES, EXAMPLES = 64, 4, 16
RATE = 1e-3
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


def check(parametrization, seeds, widths=WIDTHS, steps=3):
    def build(width, seed):
        model = perceptron(width)
        ft.initialize(model, parametrization(width)[0], seed=seed)
        nn.init.zeros_(model[-1].weight)
        return model

    def optimizer(model, width):
        rate = parametrization(width)[1]
        groups = [{"params": [each], "lr": rate(name)} for name, each in model.named_parameters()]
        return torch.optim.Adam(groups, eps=1e-15)  # gradients of wide layers are small beside 1e-8

    def loss(output, x):
        return nn.functional.cross_entropy(output, x[:, :CLASSES].argmax(1))  # there is something to learn

    x = torch.randn(EXAMPLES, INPUTS, generator=torch.Generator().manual_seed(0))
    return ft.coordinate_check(build, x, loss, optimizer, widths=widths, steps=steps, seeds=seeds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    found = {
        parametrization.__name__: check(parametrization, arguments.seeds)
        for parametrization in (mup, standard)
    }
    for name, result in found.items():
        print(f"{name}: size of each layer's output after 3 steps of Adam", result, sep="\n", end="\n\n")
    sys.exit(0 if found["mup"].ok and found["standard"].verdict == "grows" else 1)


if __name__ == "__main__":
    main()
