"""What users call: plan, initialize."""

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
from fanin.keras._values import aligned, own_memory, put, written
from fanin.keras._walk import Described, describe
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import PlanLike, paired, planned

TOGETHER = 1 << 24  # bytes of new memory for variables made side by side


class Target(NamedTuple):
    """A stored tensor of a plan, its variable, and that one's memory where it is written in place."""

    stored: Tensor
    variable: keras.Variable
    memory: Array | None


def plan(model: keras.Layer, recipe: PlanLike, *, seed: int | None = None) -> Plan:
    """What every parameter of a model would get. Nothing is touched, nothing is drawn.

    Parameters
    ----------
    model : keras.Model or keras.Layer
        Built: by an input shape, or by a call.
    recipe : str, Initializer, Recipe, Plan or Path
        A recipe's name (``"gpt2"``), an initializer or its name (``"he_normal"``: it fills kernels, the rest
        starts neutral), a `fanin.Recipe`, a TOML or JSON file of one, or a plan or its file.
    seed : int
        0 .. 2**64 - 1; a plan has its own.

    Returns
    -------
    Plan
        One row per parameter. State (moving averages, adapted statistics, seeds, metrics) is none.

    Raises
    ------
    RecipeError
        When a rule matches no parameter, or a recipe needs a fact that the model does not show.
    PlanError
        When no rule matches a parameter, a layer is not built, or one is quantized.

    Examples
    --------
    >>> conv = keras.layers.Conv2D(128, 3, groups=2)
    >>> conv.build((None, 32, 32, 64))
    >>> plan(conv, "glorot_uniform", seed=0)["weight"].fans
    Fans(fan_in=288, fan_out=576)
    """
    return planned(describe(model).model, recipe, seed)


def initialize(model: keras.Layer, recipe: PlanLike, *, seed: int | None = None) -> Plan:
    """Plan a model's initialization and apply it: all parameters are set, or, after an error, none.

    Parameters
    ----------
    model, recipe, seed
        As for `plan`.

    Returns
    -------
    Plan
        What was applied.

    Examples
    --------
    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> applied = initialize(layer, "he_normal", seed=0)
    >>> import fanin
    >>> values = fanin.HeNormal()((3, 2), seed=0, name="weight", axes="io")
    >>> bool(keras.ops.all(layer.kernel == values))
    True
    """
    described = describe(model)
    made = planned(described.model, recipe, seed)
    _apply(made, described)
    return made


def _apply(made: Plan, described: Described) -> None:
    targets = []
    for stored, mine in paired(made, described.model):
        if made.sets(stored.path):
            variable = described.variables[mine.path]
            if getattr(variable.value, "is_meta", False):
                name = stored.pieces[0].name
                raise PlanError(f"{name!r} is on the meta device; build the model on another")
            targets.append(Target(stored, variable, own_memory(variable)))
    _check_apart(targets)
    for target in targets:
        if target.memory is not None:
            written(target.variable)
    for group in _groups(targets):
        values = [_present(made, target) if target.memory is None else target.memory for target in group]
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


def _present(made: Plan, target: Target) -> Array:
    """Room for the values of a variable, with its present one where the plan keeps it."""
    values = aligned(target.stored.shape, as_dtype(target.stored.dtype))
    if any(row.initializer is None for row, _ in made.parts(target.stored)):
        np.copyto(values, keras.ops.convert_to_numpy(target.variable))
    return values
