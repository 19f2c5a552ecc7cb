"""Compare initializers by training: the same networks, data and batches, each at its best rate."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fanin._types import Array
from fanin.calibrate import checked
from fanin.errors import ArgumentError
from fanin.initializers import Initializer, get
from fanin.lab import tasks
from fanin.lab.calibrated import calibrate as calibrated
from fanin.lab.network import Network, activation_called, initialize, trace
from fanin.lab.pretrained import BASE as PRETRAINED_BASE
from fanin.lab.pretrained import pretrained
from fanin.lab.summary import rank, summarize
from fanin.lab.training import evaluation_steps, train
from fanin.report import Comparison, Row
from fanin.threads import threads

# Half-decades from a thousandth to one.
RATES = tuple(10 ** (k / 2) for k in range(-6, 1))

# The methods of the tutorial, the bad ones included, so that its three rules can be seen.
LINE_UP = (
    "zeros",
    "ones",
    "constant(0.1)",
    "random_uniform(minval=0.0, maxval=0.03125)",
    "random_uniform(minval=-0.05, maxval=0.05)",
    "random_normal(stddev=0.01)",
    "random_normal(stddev=1.0)",
    "truncated_normal(stddev=0.1)",
    "uniform_unit_scaling(factor=1.43)",
    "variance_scaling(scale=4.0)",
    "glorot_normal",
    "glorot_uniform",
    "lecun_normal",
    "he_normal",
    "he_uniform",
    "orthogonal",
    "orthogonal(gain=1.4142135623730951)",
    "identity",
    "lsuv",
)
# Not an initializer but what is made of one: orthogonal, and each layer scaled on one batch.
LSUV = "lsuv"
LSUV_BASE = "orthogonal"
# What has learned the classes that a task has before; for such tasks alone.
PRETRAINED = "pretrained"
BASES = {LSUV: LSUV_BASE, PRETRAINED: PRETRAINED_BASE}

# Examples that the signal is measured on.
TRACED = 256


def compare(
    inits: Sequence[str | Initializer] | None = None,
    *,
    activation: str = "relu",
    depth: int = 30,
    width: int = 64,
    steps: int = 400,
    seeds: int = 5,
    rates: Sequence[float] | None = None,
    task: str | Path = "digits",
    calibrate: str | None = None,
    batch: int = 64,
    threshold: float = 0.9,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Comparison:
    """Train the same networks from every initializer and say what differs.

    Every initializer trains one network per learning rate and seed: plain SGD, zero biases,
    equal steps, identical batches. Its best rate is chosen on a validation part and its accuracy
    reported on a test part, with Student's 95 % interval over the seeds. Two initializers differ
    when the interval of their paired (seed by seed) differences excludes zero.

    Parameters
    ----------
    inits : sequence of str or Initializer, optional
        Catalogue expressions such as ``"he_normal"`` or ``"orthogonal(gain=2.0)"``; by default
        ``LINE_UP``, the methods of the tutorial. ``"lsuv"`` is ``"orthogonal"``, calibrated so; with the task
        ``"halves"`` ``"pretrained"`` is ``"he_normal"`` after as many steps on the classes before, at their
        best rate, with a new head.
    activation : str
        Name of the activation function of the hidden layers.
    depth, width : int
        Hidden layers, and units of each. The head after them uses the initializer too.
    steps, batch : int
        Training steps, and examples per step.
    seeds : int
        Networks per learning rate, at least 2; seed ``s`` draws weights and batches.
    rates : sequence of float, optional
        Learning rates to choose from; by default 7 from 0.001 to 1.
    task : str or Path
        ``"digits"``, ``"halves"`` (those from 5 to 9), ``"spirals"``, or a CSV file with the label in the
        last column.
    calibrate : str, optional
        A method of `fanin.calibrate.METHODS`: each start is calibrated by it on the examples that its signal
        is measured on, and called ``"he_normal, weight_norm"``. Starts that a method refuses (zeros, ones)
        are compared as they are.
    threshold : float
        The accuracy whose first step is reported.
    on_progress : callable, optional
        Called as ``on_progress(done, total, expression)``, by one thread at a time.

    Returns
    -------
    Comparison
        Pure data; ``fanin.report`` shows it.

    References
    ----------
    The sweep over rates: Saxe, McClelland, Ganguli 2014, arXiv:1312.6120. Without one the
    ranking says which initializer suits the rate that was picked.

    Examples
    --------
    >>> small = compare(["zeros", "he_normal"], depth=2, width=16, steps=60, seeds=2)
    >>> [(row.expression, row.outcome) for row in small.rows]
    [('he_normal', 'learned'), ('zeros', 'stuck')]
    """
    began = time.perf_counter()
    data = tasks.load(task)
    line_up = LINE_UP if data.before is None else (*LINE_UP, PRETRAINED)
    expressions = tuple(map(str, line_up if inits is None else inits))
    names = frozenset(expressions) - {*BASES}
    rates = RATES if rates is None else tuple(float(rate) for rate in rates)
    sizes_given = {"depth": depth, "width": width, "steps": steps, "seeds": seeds, "batch": batch}
    _check_arguments(expressions, rates, threshold, **sizes_given)
    phi = activation_called(activation)
    initializers = [get(BASES.get(expression, expression)) for expression in expressions]
    if calibrate is not None:
        checked(calibrate, {}, ())
    x, labels = data.train
    blind = float(np.bincount(data.test[1]).max() / len(data.test[1]))
    sizes = (data.n_features, *[width] * depth, data.n_classes)
    methods = [{LSUV: LSUV, PRETRAINED: None}.get(expression, calibrate) for expression in expressions]
    sweep: dict[str, Any] = {"phi": phi, "rates": rates, "steps": steps, "batch": batch}
    trained = len(expressions) + (PRETRAINED in expressions)
    ticks = _Ticks(trained * (len(evaluation_steps(steps)) - 1), on_progress)
    learned: list[Network] = []
    if PRETRAINED in expressions:
        if data.before is None:
            raise ArgumentError(f"`inits` {PRETRAINED!r} needs a `task` with classes before: halves")
        learned = pretrained(data.before, sizes, seeds, on_chunk=lambda: ticks.tick(PRETRAINED), **sweep)
    every_start = []
    for at, init in enumerate(initializers):
        drawn = [initialize(init, sizes, seed) for seed in range(seeds)]
        starts = learned if expressions[at] == PRETRAINED else drawn
        scaled = _calibrated(starts, methods[at], (x[:TRACED], labels[:TRACED]), activation)
        if scaled is not None and expressions[at] != LSUV:
            expressions = (*expressions[:at], f"{expressions[at]}, {calibrate}", *expressions[at + 1 :])
        every_start.append(scaled or starts)

    def study(expression: str, init: Initializer, starts: list[Network]) -> Row:
        history = train(
            starts,
            data,
            **sweep,
            on_chunk=lambda: ticks.tick(expression),
        )
        return summarize(
            expression,
            init,
            [trace(start, x[:TRACED], labels[:TRACED], activation) for start in starts],
            history,
            rates=rates,
            n_classes=data.n_classes,
            n_test=len(data.test[1]),
            blind=blind,
            threshold=threshold,
            drawn=expression in names,
        )

    # One initializer per core: layers this small leave XLA's own threads little to share.
    with ThreadPoolExecutor(threads()) as pool:
        try:
            rows = list(pool.map(study, expressions, initializers, every_start))
        except BaseException as error:  # Ctrl-C too: the others stop at their next tick
            ticks.stopped = error
            pool.shutdown(cancel_futures=True)
            raise

    return Comparison(
        task=data.name,
        activation=activation,
        depth=depth,
        width=width,
        n_features=data.n_features,
        n_classes=data.n_classes,
        n_train=len(data.train[1]),
        n_validation=len(data.validation[1]),
        n_test=len(data.test[1]),
        rates=rates,
        steps=steps,
        batch=batch,
        seeds=seeds,
        threshold=threshold,
        blind=blind,
        evaluated_at=evaluation_steps(steps),
        seconds=round(time.perf_counter() - began, 1),
        rows=rank(rows),
    )


def _calibrated(
    starts: list[Network], method: str | None, batch: tuple[Array, Array], activation: str
) -> list[Network] | None:
    """The starts after a method of calibration; None without one, and where it refuses one of them."""
    if method is None:
        return None
    found = [calibrated(start, method, *batch, activation) for start in starts]
    kept = [network for network in found if network is not None]
    return kept if len(kept) == len(found) else None


class _Ticks:
    """Counts finished parts of the work for the caller's progress bar, one thread at a time.

    Once ``stopped`` by an error, every thread that ticks gets that error.
    """

    def __init__(self, total: int, on_progress: Callable[[int, int, str], None] | None) -> None:
        self.stopped: BaseException | None = None
        self._done, self._total, self._on_progress = 0, total, on_progress
        self._lock = threading.Lock()

    def tick(self, expression: str) -> None:
        with self._lock:
            if self.stopped is not None:
                raise self.stopped
            self._done += 1
            if self._on_progress is None:
                return
            try:
                self._on_progress(self._done, self._total, expression)
            except BaseException as error:
                self.stopped = error
                raise


def _check_arguments(
    expressions: Sequence[str], rates: Sequence[float], threshold: float, **sizes: int
) -> None:
    if not expressions:
        raise ArgumentError("`inits` is empty; expected at least one expression like 'he_normal'")
    for expression in expressions:
        if list(expressions).count(expression) > 1:
            raise ArgumentError(f"`inits` names {expression!r} twice; expected each once")
    for name, size in sizes.items():
        least = 2 if name == "seeds" else 1
        if size < least:
            raise ArgumentError(f"`{name}` (={size}) must be at least {least}")
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise ArgumentError(f"`rates` (={list(rates)}) must be positive finite numbers")
    if not 0 < threshold <= 1:
        raise ArgumentError(f"`threshold` (={threshold}) must be above 0 and at most 1")
