"""Which variance trains thirty ReLU layers? He's; 1 / fan_in at no learning rate.

``python examples/thirty_relu_layers.py`` trains networks of 64 units on the digits of scikit-learn, by plain
SGD at seven learning rates, without biases at the start. With 1 / fan_in each layer halves the signal's
second moment and the gradient's: after thirty they are 2**-30, and no rate helps; after ten either start does
(He et al. 2015, arXiv:1502.01852, section 2.2).
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

import fanin
from fanin.lab import network, tasks, training

WIDTH, DEPTHS, STEPS, BATCH = 64, (10, 30), 1000, 64
RATES = np.logspace(-3, 0, 7)
STARTS = ("he_normal", "lecun_normal")
LEARNED, BLIND = 0.9, 2.29  # accuracy at least; loss at least (a blind guess is ln 10 = 2.303)


def trained(name, depth, seeds):
    """Accuracy and loss on the training part after training, each of shape (rates, seeds)."""
    task = tasks.load("digits")
    sizes = (task.n_features, *[WIDTH] * depth, task.n_classes)
    history = training.train(
        [network.initialize(fanin.get(name), sizes, seed) for seed in range(seeds)],
        replace(task, validation=task.train),
        phi=network.activation_called("relu"),
        rates=RATES.tolist(),
        steps=STEPS,
        batch=BATCH,
    )
    return history.validation_accuracy, history.validation_loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    seeds = parser.parse_args().seeds
    table = Table(
        box=None, pad_edge=False, title=f"Training loss after {STEPS} steps, mean of {seeds} seeds, by rate"
    )
    for column in ("layers", "start", *(f"{rate:.2g}" for rate in RATES), "best accuracy"):
        table.add_column(column, justify="left" if column == "start" else "right")
    accuracy, loss = {}, {}
    for depth in DEPTHS:
        for name in STARTS:
            right, lost = trained(name, depth, seeds)
            accuracy[name, depth] = right.min(axis=1).max()  # of the best rate the worst seed
            loss[name, depth] = np.nanmin(lost)
            cells = [f"{value:.3g}" if np.isfinite(value) else "diverged" for value in lost.mean(axis=1)]
            table.add_row(str(depth), name, *cells, f"{accuracy[name, depth]:.1%}")
    Console(width=110).print(table)
    he, lecun = STARTS
    verdicts = (
        (f"he_normal learns {DEPTHS[1]} layers", accuracy[he, DEPTHS[1]] >= LEARNED),
        (f"lecun_normal keeps a loss of {BLIND} there at every rate", loss[lecun, DEPTHS[1]] >= BLIND),
        (f"both learn {DEPTHS[0]}", min(accuracy[name, DEPTHS[0]] for name in STARTS) >= LEARNED),
    )
    for said, holds in verdicts:
        print(f"{'as' if holds else 'not'} expected: {said}")
    sys.exit(0 if all(holds for _, holds in verdicts) else 1)


if __name__ == "__main__":
    main()
