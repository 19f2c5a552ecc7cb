"""Does a deeper linear network learn more slowly? From a Gaussian start, not from an orthogonal one.

``python examples/orthogonal_depth.py`` trains linear networks of 3 to 100 matrices, 64 units wide, on the
whitened digits of scikit-learn by SGD at thirteen learning rates, until nine tenths of what a linear map can
explain is learned. Of each depth the best rate counts (Saxe et al. 2014, arXiv:1312.6120, figure 6).
"""

import argparse
import math
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import fanin
from fanin.lab.training import batch_order

WIDTH, DEPTHS, BATCH, LIMIT = 64, (3, 10, 30, 100), 256, 120
RATES = np.logspace(-3, 0, 13)
LEFT = 0.1  # of what can be explained
ORTHOGONAL, GAUSSIAN, SLOPE = (
    1.5,
    3.0,
    0.25,
)  # times as long at most, at least; how near the best rate's slope is -1


def whitened():
    """Inputs of covariance one, zeros where the digits have no pixels; targets of mean 0 and variance 1."""
    x, labels = load_digits(return_X_y=True)
    variances, directions = np.linalg.eigh(np.cov(x.T))
    kept = variances > 1e-6 * variances.max()
    inputs = np.zeros((len(x), WIDTH), np.float32)
    inputs[:, : kept.sum()] = (x - x.mean(0)) @ directions[:, kept] / np.sqrt(variances[kept])
    classes = np.eye(10)[labels]
    return inputs, np.asarray((classes - classes.mean(0)) / classes.std(0), np.float32)


X, Y = whitened()
BEST = Y.T @ X / len(X)  # the linear map of least squares


def drawn(init, depth, seed):
    """The first matrix, those between as one array, and the last."""
    shapes = [(WIDTH, WIDTH)] * (depth - 1) + [(Y.shape[1], WIDTH)]
    made = [init(shape, seed=seed, name=f"{at}.weight", axes="oi") for at, shape in enumerate(shapes)]
    return made[0], np.stack(made[1:-1]), made[-1]


def output(matrices, x):
    first, between, last = matrices
    inside, _ = jax.lax.scan(lambda h, matrix: (h @ matrix.T, None), x @ first.T, between)
    return inside @ last.T


def left(matrices):
    """The share of what can be explained that is not yet learned."""
    return jnp.sum((output(matrices, jnp.eye(WIDTH)).T - BEST) ** 2) / jnp.sum(BEST**2)


@partial(jax.jit, static_argnames="limit")
def steps_needed(matrices, order, limit):
    """Of each rate the steps until `LEFT` is left; more than the limit if it never is."""

    def loss(matrices, chosen):
        return (
            jnp.mean(
                jnp.sum((output(matrices, jnp.asarray(X)[chosen]) - jnp.asarray(Y)[chosen]) ** 2, axis=-1)
            )
            / 2
        )

    def step(rate, state):
        matrices, at, _ = state
        gradients = jax.grad(loss)(matrices, order[at])
        matrices = jax.tree.map(lambda matrix, gradient: matrix - rate * gradient, matrices, gradients)
        return matrices, at + 1, left(matrices)

    def going(state):
        return (state[1] < limit) & (state[2] > LEFT) & (state[2] < 1e3)  # beyond it diverges

    def one(rate):
        _, at, found = jax.lax.while_loop(going, partial(step, rate), (matrices, 0, left(matrices)))
        return jnp.where(found <= LEFT, at, limit + 1)

    return jax.lax.map(one, jnp.asarray(RATES, jnp.float32))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    order = batch_order(len(X), BATCH, LIMIT, seed + 1)[:, seed]
    table = Table(
        box=None,
        pad_edge=False,
        title=f"Steps of {BATCH} digits until {1 - LEFT:.0%} is learned, and the best rate",
    )
    for column in ("start", *(f"{depth} matrices" for depth in DEPTHS), "slope of the rate"):
        table.add_column(column, justify="left" if column == "start" else "right")
    longer, slopes = {}, {}
    for name in ("orthogonal", "lecun_normal"):
        runs = [
            np.asarray(steps_needed(drawn(fanin.get(name), depth, seed), order, LIMIT)) for depth in DEPTHS
        ]
        times, rates = [run.min() for run in runs], [RATES[run.argmin()] for run in runs]
        learned = [time <= LIMIT for time in times]
        longer[name] = times[-1] / times[0]
        slopes[name] = np.polyfit(np.log(DEPTHS), np.log(rates), 1)[0] if all(learned) else math.nan
        cells = [
            f"{time} at {rate:.2g}" if done else f"> {LIMIT}"
            for time, rate, done in zip(times, rates, learned, strict=True)
        ]
        table.add_row(name, *cells, f"{slopes[name]:+.2f}" if all(learned) else "")
    Console(width=110).print(table)
    verdicts = (
        (
            f"orthogonal: {longer['orthogonal']:.2f} times as long with 100 as with 3 (at most {ORTHOGONAL})",
            longer["orthogonal"] <= ORTHOGONAL,
        ),
        (
            f"Gaussian: {longer['lecun_normal']:.1f} or more (at least {GAUSSIAN})",
            longer["lecun_normal"] >= GAUSSIAN,
        ),
        (
            f"orthogonal: best rate by depth to the power {slopes['orthogonal']:+.2f} (-1 within {SLOPE})",
            abs(slopes["orthogonal"] + 1) <= SLOPE,
        ),
    )
    for said, holds in verdicts:
        print(f"{'as' if holds else 'not'} expected: {said}")
    sys.exit(0 if all(holds for _, holds in verdicts) else 1)


if __name__ == "__main__":
    main()
