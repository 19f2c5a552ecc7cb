"""From a plan to variables, in place where that is possible, a few at a time."""

import math
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import keras
import numpy as np

from fanin import threads
from fanin._types import Array
from fanin.dtypes import as_dtype
from fanin.errors import PlanError
from fanin.keras._values import own_memory, put, written
from fanin.keras._walk import Described
from fanin.memory import side_by_side
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import paired

TOGETHER = 1 << 25  # bytes of new memory for variables made side by side


class Target(NamedTuple):
    """A stored tensor of a plan, its variable, and that one's memory where it is written in place."""

    stored: Tensor
    variable: keras.Variable
    memory: Array | None


def apply(made: Plan, described: Described, *, whole: bool = False) -> None:
    """Set what a plan sets.

    With ``whole`` all values are made before the first variable is changed: what a plan takes from files can
    fail on the way.
    """
    targets = []
    for stored, mine in paired(made, described.model):
        if made.sets(stored.path):
            variable = described.variables[mine.path]
            if getattr(variable.value, "is_meta", False):
                name = stored.pieces[0].name
                raise PlanError(f"{name!r} is on the meta device; build the model on another")
            targets.append(Target(stored, variable, own_memory(variable)))
    _check_apart(targets)
    if whole:
        targets = [target._replace(memory=None) for target in targets]
    for target in targets:
        if target.memory is not None:
            written(target.variable)
    for group in [targets] if whole else _groups(targets):
        values = _room(made, group)
        jobs = [
            (made.coupled(target.stored.path), partial(made.fill, target.stored.path, out=out))
            for target, out in zip(group, values, strict=True)
        ]
        threads.run_all(job for coupled, job in jobs if not coupled)
        for coupled, job in jobs:
            if coupled:
                job()
        pairs = zip(group, values, strict=True)
        put([(target.variable, out) for target, out in pairs if target.memory is None])


def _check_apart(targets: list[Target]) -> None:
    """Refuse two variables in one memory, as those around one parameter of PyTorch: it would be set twice."""
    seen: dict[int, str] = {}
    for target in targets:
        if target.memory is not None:
            name = target.stored.pieces[0].name
            first = seen.setdefault(target.memory.__array_interface__["data"][0], name)
            if first != name:
                raise PlanError(
                    f"{first!r} and {name!r} lie in the same memory, but not as one variable; keep one of "
                    f"them: ({name!r}, 'keep')"
                )


def _groups(targets: list[Target]) -> Iterator[list[Target]]:
    """Variables made side by side, one in a thread: as many as need `TOGETHER` bytes of new memory."""
    group: list[Target] = []
    room = TOGETHER
    for target in targets:
        shape, dtype = target.stored.shape, as_dtype(target.stored.dtype)
        size = math.prod(shape) * dtype.itemsize if target.memory is None else 0
        if group and size > room:
            yield group
            group, room = [], TOGETHER
        group.append(target)
        room -= size
    if group:
        yield group


def _room(made: Plan, group: list[Target]) -> list[Array]:
    """Memory for the values of variables, with the present ones where the plan keeps them."""
    fresh = [target for target in group if target.memory is None]
    room = side_by_side([(target.stored.shape, as_dtype(target.stored.dtype)) for target in fresh])
    for target, values in zip(fresh, room, strict=True):
        if any(row.initializer is None for row, _ in made.parts(target.stored)):
            np.copyto(values, keras.ops.convert_to_numpy(target.variable))
    new = iter(room)
    return [next(new) if target.memory is None else target.memory for target in group]
