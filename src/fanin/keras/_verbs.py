"""What users call: plan, initialize."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np

from fanin import threads
from fanin._types import Array
from fanin.dtypes import as_dtype
from fanin.errors import PlanError
from fanin.keras._values import aligned, tensor
from fanin.keras._walk import Described, describe
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import PlanLike, paired, planned

TOGETHER = 1 << 24  # bytes of variables made side by side
Target: TypeAlias = tuple[Tensor, Any]  # a stored tensor of a plan, and its variable


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
    targets = [
        (stored, described.variables[mine.path])
        for stored, mine in paired(made, described.model)
        if made.sets(stored.path)
    ]
    for stored, variable in targets:
        if getattr(variable.value, "is_meta", False):
            raise PlanError(f"{stored.pieces[0].name!r} is on the meta device; build the model on another")
    for group in _groups(targets):
        values = [_present(made, stored, variable) for stored, variable in group]
        jobs = [
            (made.coupled(stored.path), partial(made.fill, stored.path, out=out))
            for (stored, _), out in zip(group, values, strict=True)
        ]
        threads.run_all(job for coupled, job in jobs if not coupled)
        for coupled, job in jobs:
            if coupled:
                job()
        for (_, variable), out in zip(group, values, strict=True):
            variable.assign(tensor(out))


def _groups(targets: list[Target]) -> Iterator[list[Target]]:
    """Variables made side by side, one in a thread: as many as go into `TOGETHER` bytes."""
    group: list[Target] = []
    room = TOGETHER
    for target in targets:
        size = math.prod(target[0].shape) * as_dtype(target[0].dtype).itemsize
        if group and size > room:
            yield group
            group, room = [], TOGETHER
        group.append(target)
        room -= size
    if group:
        yield group


def _present(made: Plan, stored: Tensor, variable: keras.Variable) -> Array:
    """Room for the values of a variable, with its present one where the plan keeps it."""
    values = aligned(stored.shape, as_dtype(stored.dtype))
    if any(row.initializer is None for row, _ in made.parts(stored)):
        np.copyto(values, keras.ops.convert_to_numpy(variable))
    return values
