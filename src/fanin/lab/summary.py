"""From traces and training histories to the rows of a comparison."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fanin._types import Array
from fanin.audit import Finding, Trace, examine
from fanin.audit.checks import backward_rms, balance, effective_widths, forward_rms
from fanin.audit.lines import drift
from fanin.initializers import Initializer
from fanin.lab.network import Network
from fanin.lab.statistics import paired_difference, t_interval
from fanin.lab.training import History
from fanin.report import Row
from fanin.report.comparison import Outcome

# Trained units closer than this share of the largest weight count as one: it is above the
# rounding errors of some hundred float32 steps and far below any difference that was drawn.
SAME_UNIT = 1e-4
# To have learned is to have gone this share of the way from a blind guess to all right, and to
# lie this many standard errors of the test part above the guess.
LEARNED_SHARE = 0.1
LEARNED_ERRORS = 3.0
# What the tutorial's three rules are checked by.
RULES = ("symmetry", "balance", "forward-scale", "backward-scale")


def summarize(
    expression: str,
    init: Initializer,
    traces: Sequence[Trace],
    history: History,
    *,
    rates: Sequence[float],
    n_classes: int,
    n_test: int,
    blind: float,
    threshold: float,
    drawn: bool = True,
) -> Row:
    """What the starts of one initializer look like and what training made of them.

    With ``drawn`` they are as the initializer draws them, and not calibrated.
    """
    diverged = has_diverged(history, n_classes)
    best = best_rate(history)
    accuracy = t_interval(history.accuracy[best, :, -1].tolist())
    outcome: Outcome = "stuck"
    if accuracy.mean > learned_from(blind, n_test):
        outcome = "learned"
    elif diverged[best].mean() > 0.5:
        outcome = "diverged"

    reached = first_reached(history, best, threshold)
    middle = float(np.median(reached))
    hidden = [weights for t in traces for weights in t.weights if weights.role == "kernel"]
    described = init.describe(hidden[-1].shape, "io")
    signs = balance(hidden)
    forward = [forward_rms(t) for t in traces]
    backward = [backward_rms(t) for t in traces]
    return Row(
        expression=expression,
        std=described.std if drawn and described.std is not None else signs.std,
        effective_width=min(min(effective_widths(t)) for t in traces),
        trained_width=trained_width(history.networks, best),
        mean_over_std=signs.mean_over_std,
        positive=signs.positive,
        negative=signs.negative,
        forward=_geometric_mean(forward),
        backward=_geometric_mean(backward),
        forward_drift=_mean([drift(signal) for signal in forward]),
        backward_drift=_mean([drift(signal[::-1]) for signal in backward]),
        findings=common_findings(traces),
        validation=_short(history.validation_accuracy.mean(axis=1)),
        best_rate=rates[best],
        accuracies=_short(history.accuracy[best, :, -1]),
        accuracy=accuracy,
        diverged=float(diverged.mean()),
        steps_to_threshold=middle if math.isfinite(middle) else None,
        reached=float(np.isfinite(reached).mean()),
        outcome=outcome,
        accuracy_curve=tuple(_short(seed) for seed in history.accuracy[best]),
        loss_curve=tuple(_short(seed) for seed in loss_curve(history, best)),
    )


def learned_from(blind: float, n_test: int) -> float:
    """The accuracy above which a network has learned something.

    >>> round(learned_from(0.1, n_test=360), 2), round(learned_from(0.5, n_test=9), 2)
    (0.19, 1.0)
    """
    error = math.sqrt(blind * (1 - blind) / n_test)
    return blind + max(LEARNED_SHARE * (1 - blind), LEARNED_ERRORS * error)


def has_diverged(history: History, n_classes: int) -> NDArray[np.bool_]:
    """Which networks diverged, shape ``(rates, seeds)``.

    Those whose training loss left the finite numbers, or ended more than the loss of a blind
    guess, ``log(n_classes)``, above where it began.
    """
    first, last = history.losses[..., 0], loss_curve(history)[..., -1]
    with np.errstate(invalid="ignore"):
        rose = last > first + math.log(n_classes)
    broken: NDArray[np.bool_] = ~np.isfinite(history.losses).all(axis=-1) | rose
    return broken


def best_rate(history: History) -> int:
    """Index of the rate with the highest mean validation accuracy.

    Ties go to the lower validation loss, then to the lower rate.
    """
    accuracy = history.validation_accuracy.mean(axis=1)
    loss = history.validation_loss.mean(axis=1)
    loss = np.where(np.isnan(loss), np.inf, loss)
    return int(np.lexsort((np.arange(len(loss)), loss, -accuracy))[0])


def first_reached(history: History, rate: int, threshold: float) -> NDArray[np.float64]:
    """First evaluated step at which each seed's test accuracy is ``threshold``; inf for never."""
    there = history.accuracy[rate] >= threshold
    steps = np.asarray(history.evaluated_at, np.float64)[there.argmax(axis=1)]
    return np.where(there.any(axis=1), steps, np.inf)


def loss_curve(history: History, rate: int | None = None) -> NDArray[np.float32]:
    """Training loss at each evaluation: the mean since the one before; at step 0 the first."""
    losses = history.losses if rate is None else history.losses[rate]
    spans = pairwise(history.evaluated_at)
    means = [losses[..., begin:end].mean(axis=-1) for begin, end in spans]
    return np.stack([losses[..., 0], *means], axis=-1)


def trained_width(networks: Network, rate: int) -> int | None:
    """Fewest distinct units of any hidden layer of any seed; None if a weight is not finite."""
    weights = [np.asarray(weight[rate]) for weight in networks.weights]
    biases = [np.asarray(bias[rate]) for bias in networks.biases]
    if not all(np.isfinite(leaf).all() for leaf in [*weights, *biases]):
        return None
    layers = list(zip(weights, biases, weights[1:], strict=False))
    return min(
        distinct_units(weight[seed], bias[seed], above[seed], rtol=SAME_UNIT)
        for weight, bias, above in layers
        for seed in range(len(weight))
    )


def distinct_units(weight: Array, bias: Array, weight_above: Array, rtol: float) -> int:
    """Number of units of one layer that differ in incoming weights, bias or outgoing weights.

    Two are equal when no entry differs by more than ``rtol`` times the largest magnitude. Units that agree
    in all three compute the same value, receive the same gradient, and so stay the same for ever.

    >>> distinct_units(np.full((3, 4), 0.1), np.zeros(4), np.full((4, 2), 0.1), rtol=0.0)
    1
    """
    rows = np.hstack([weight.T, bias[:, None], weight_above])
    tolerance = rtol * float(np.max(np.abs(rows), initial=0.0))
    kept: list[Array] = []
    for row in rows:
        if not kept or np.abs(np.asarray(kept) - row).max(axis=1).min() > tolerance:
            kept.append(row)
    return len(kept)


def common_findings(traces: Sequence[Trace]) -> tuple[Finding, ...]:
    """The findings on the three rules that more than half of the traces share, one of each code."""
    each = [{f.code: f for f in examine(t, select=RULES) if f.level != "info"} for t in traces]
    codes = dict.fromkeys(code for found in each for code in found)
    return tuple(
        next(found[code] for found in each if code in found)
        for code in codes
        if sum(code in found for found in each) > len(traces) / 2
    )


def rank(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows best first, each with its difference to the first and the rows it equals."""
    order: tuple[Outcome, ...] = ("learned", "stuck", "diverged")
    ranked = sorted(rows, key=lambda row: (order.index(row.outcome), -row.accuracy.mean))
    return tuple(
        dataclasses.replace(
            row,
            difference=paired_difference(row.accuracies, ranked[0].accuracies),
            alike=tuple(
                other.expression
                for other in ranked
                if other is not row and paired_difference(row.accuracies, other.accuracies).has_zero
            ),
        )
        for row in ranked
    )


def _geometric_mean(signals: Sequence[Sequence[float]]) -> tuple[float, ...]:
    with np.errstate(divide="ignore"):
        logs = np.log10(np.asarray(signals))
    return tuple(float(f"{10 ** _mean(column):.4g}") for column in logs.T.tolist())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)  # inf and nan pass through without a warning


def _short(values: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(f"{value:.5g}") for value in values.tolist())
