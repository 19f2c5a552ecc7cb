"""How far weights have moved from where they began, which is made again instead of stored."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fanin._types import Array
from fanin.layout import windows
from fanin.model import BUFFER
from fanin.plan import Plan

ELEMENTS = 1 << 22  # looked at together


@dataclass(frozen=True)
class Moved:
    """One stored tensor: the root mean square of ``w - w0``, and the same relative to that of ``w0``."""

    path: str
    shape: tuple[int, ...]
    rms: float
    relative: float


@dataclass(frozen=True)
class Distances:
    """What moved, tensor by tensor; `total` over all elements. Printed as a table."""

    rows: tuple[Moved, ...]
    total: float

    def __str__(self) -> str:
        width = max([len(row.path) for row in self.rows] + [len("parameter")])
        lines = [f"{'parameter':<{width}}  {'rms(w - w0)':>12}  {'relative':>9}"]
        lines += [f"{row.path:<{width}}  {row.rms:>12.4g}  {row.relative:>9.4g}" for row in self.rows]
        return "\n".join([*lines, f"{'all':<{width}}  {self.total:>12.4g}"])


def begun(plan: Plan) -> list[str]:
    """The paths of the parameters whose start a plan knows, all of it."""
    return [
        tensor.path
        for tensor in plan.tensors
        if tensor.pieces[0].role != BUFFER
        and all(row.initializer is not None for row, _ in plan.parts(tensor))
    ]


def moved(plan: Plan, paths: Iterable[str], read: Callable[[str], Array]) -> Distances:
    """Compare the values ``read(path)`` with those that a plan makes, in float64.

    What began at zero has an infinite relative distance as soon as it moves.
    """
    rows, squares, count = [], 0.0, 0
    for path in paths:
        now, tensor = read(path), plan.tensor(path)
        far = start = 0.0
        for window in windows(tensor.shape, max(now.size, 1) if plan.coupled(path) else ELEMENTS):
            first = plan.fill(path, window=window).astype(np.float64)
            apart = now[window].astype(np.float64) - first
            far += float(np.sum(apart * apart))
            start += float(np.sum(first * first))
        rms, before = math.sqrt(far / max(now.size, 1)), math.sqrt(start / max(now.size, 1))
        rows.append(Moved(path, tensor.shape, rms, rms / before if before else math.inf if rms else 0.0))
        squares += far
        count += now.size
    return Distances(tuple(rows), math.sqrt(squares / max(count, 1)))
