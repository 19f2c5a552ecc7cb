"""What adapters share while a model runs: operations whose numbers come in, and how far it is moved."""

import math
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fanin._types import Array
from fanin.audit import measure
from fanin.audit.trace import Operation, Signal, Spread, Weights

BATCH = -1  # where an edge from the batch comes from
NOTHING = Signal(n=0, mean=0.0, std=0.0, rms=0.0, largest=0.0, zeros=0.0, broken=0)
COTANGENTS = 2  # random gradients of the output
STEP = 1e-2  # of a parameter's root mean square: a step that tells twins apart and changes nothing else
JACOBIAN = 1024  # rows
MULTIPLIED = ("kernel", "recurrent_kernel", "head")


class Sources(NamedTuple):
    """Where signals come from: operations, or the batch; and the parameters they were made with."""

    operations: tuple[int, ...]
    parameters: tuple[str, ...]


@dataclass
class Draft:
    """An operation while its numbers come in."""

    name: str
    kind: str
    layer: str
    sources: Sources
    units: int = -1
    activation: str | None = None
    saturated: float | None = None
    linear: float | None = None
    before: Signal | None = None
    gates: dict[str, Signal] = field(default_factory=dict)
    after: Signal = NOTHING
    gradients: dict[str, list[Spread]] = field(default_factory=dict)
    silent: Array | None = None

    def made(self, values: Array) -> None:
        """Measure the output."""
        self.after = measure.signal(values, self.units)
        self.silent = measure.silent(values, self.units)

    def came_back(self, way: str, gradient: Array) -> None:
        """Measure a gradient of the output, where that is not silent."""
        if self.silent is not None:
            gradient = np.where(self.silent, 0, gradient)
        self.gradients.setdefault(way, []).append(measure.spread(gradient))

    def finished(self) -> Operation:
        random, real = (self.gradients.get(way, []) for way in ("backward", "loss"))
        return Operation(
            name=self.name,
            kind=self.kind,
            layer=self.layer,
            inputs=self.sources.operations,
            after=self.after,
            before=self.before,
            parameters=self.sources.parameters,
            activation=self.activation,
            saturated=self.saturated,
            linear=self.linear,
            backward=measure.together(random) if random else None,
            loss_gradient=measure.together(real) if real else None,
            gates=self.gates,
        )


def may_be_tied(weights: Iterable[Weights]) -> bool:
    """Whether gradients after a step are needed: units of a kernel have equal values."""
    return any(each.role in MULTIPLIED and each.distinct < each.units for each in weights)


def descent(values: float, gradient: float) -> float:
    """What a gradient is multiplied by, of a small step of plain descent; both are root mean squares."""
    if not 0 < gradient < math.inf:
        return 0.0
    return -STEP * (values if 0 < values < math.inf else 1.0) / gradient


def said(error: Exception) -> str:
    """The type of an error and its first line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


@contextmanager
def generators(seed: int) -> Iterator[None]:
    """Python's and NumPy's global ones, for models that draw from them: seeded, then put back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
