"""What users call: plan, initialize, trace, audit, calibrate."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from fanin import threads
from fanin._types import Array
from fanin.dtypes import as_dtype
from fanin.errors import PlanError
from fanin.keras._values import own_memory, put, written
from fanin.keras._walk import Described, describe
from fanin.memory import side_by_side
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import PlanLike, paired, planned

if TYPE_CHECKING:
    from fanin.audit.trace import Trace
    from fanin.calibrate import Calibration
    from fanin.report import Report

TOGETHER = 1 << 25  # bytes of new memory for variables made side by side


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


def trace(
    model: keras.Layer,
    batch: Any,
    loss: "Callable[[Any, Any], Any] | keras.losses.Loss | str | None" = None,
    *,
    optimizer: "keras.optimizers.Optimizer | str | None" = None,
    seed: int = 0,
    isometry: bool = False,
) -> "Trace":
    """What one batch does on its way through a model and back, in numbers. The model is left as it was.

    It runs as it would train, but without dropout and noise: batch norms take the moments of the batch. The
    functions of ``keras.ops`` in layers of your own are operations too. Where the code of a layer asks for
    values (``if``, ``float``, a backend's own functions), the layers in it still are; what it does between
    them is not seen, and edges there are those that the order of calls leaves open.

    Parameters
    ----------
    model : keras.Model or keras.Layer
        Built: by an input shape, or by a call.
    batch : tensor, array, tuple, list or mapping
        What the model is called with. Functional and Sequential models take all inputs as one argument; of
        others a tuple holds positional arguments, and a mapping keyword arguments if its keys are some.
        With a loss of Keras, ``(x, y)`` or ``(x, y, weights)``, as for ``fit``.
    loss : callable, keras.losses.Loss or str, optional
        ``loss(output, batch)`` gives a scalar; or one of Keras's, or its name (``model.loss``), which is
        given the targets ``y`` of the batch.
    optimizer : keras.optimizers.Optimizer or str, optional
        Whose first step is measured (``model.optimizer``), or text such as ``"adam 0.001"``.
    seed : int
        Of the random gradients of the output.
    isometry : bool
        Whether to take the singular values of the Jacobian of one example's output by its input.

    Returns
    -------
    fanin.audit.trace.Trace
        Operations in the order of execution, and parameters; numbers alone. The activation of a layer is an
        operation of its own.

    Raises
    ------
    TraceError
        When the model or its loss raises, is not built or has no parameters; when the batch is of another
        type, or the output depends on no parameter.

    Examples
    --------
    >>> layers = [keras.Input((8,)), keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(4)]
    >>> found = trace(keras.Sequential(layers), np.linspace(-1, 1, 64).reshape(8, 8))
    >>> [(step.name, step.kind, step.inputs, step.after.units) for step in found.operations]
    [('hidden', 'dense', (-1,), 32), ('hidden:relu', 'activation', (0,), 32), ('dense', 'dense', (1,), 4)]
    """
    from fanin.keras._audit import traced

    return traced(model, batch, loss, optimizer, seed, isometry)


def audit(
    model: keras.Layer,
    batch: Any,
    loss: "Callable[[Any, Any], Any] | keras.losses.Loss | str | None" = None,
    *,
    optimizer: "keras.optimizers.Optimizer | str | None" = None,
    seed: int = 0,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    isometry: bool = False,
) -> "Report":
    """Will it train? What speaks against it before the first step, where, why, and what to do about it.

    Parameters
    ----------
    model, batch, loss, optimizer, seed, isometry
        As for `trace`. With a loss its value and its own gradients are looked at too, with an optimizer the
        first step.
    select, ignore : iterable of str, optional
        Codes of the checks to run, and not to run.

    Returns
    -------
    fanin.report.Report
        ``findings``, ``ok``, ``show()``, ``save("audit.html")``, ``to_json()``.

    Raises
    ------
    TraceError
        As `trace`.
    UnknownNameError
        When there is no such check.

    Examples
    --------
    >>> model = keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(64, "relu") for _ in range(30))])
    >>> planned = initialize(model, "lecun_normal", seed=0)
    >>> batch = np.random.default_rng(0).standard_normal((64, 64))
    >>> audit(model, batch).ok
    False
    >>> planned = initialize(model, "he_normal", seed=0)
    >>> audit(model, batch, ignore=["distinguishability"]).ok
    True
    """
    from fanin.audit import examine
    from fanin.report import Report

    found = trace(model, batch, loss, optimizer=optimizer, seed=seed, isometry=isometry)
    return Report(found, examine(found, select=select, ignore=ignore))


def calibrate(
    model: keras.Layer,
    batch: Any,
    method: str = "lsuv",
    *,
    plan: "Plan | str | Path | None" = None,
    seed: int = 0,
    **options: Any,
) -> "Calibration":
    """Scale a model's layers to what one batch shows; after an error it is as it was, bit for bit.

    Parameters
    ----------
    model, batch
        As for `trace`.
    method : str
        ``"lsuv"``, ``"weight_norm"``, ``"krahenbuhl_within"``, ``"krahenbuhl_between"``, ``"analytic"``
        (which looks at the batch's shapes alone), ``"jacobian"`` or ``"head"``: the functions of
        `fanin.calibrate`, which say what options they take.
    plan : Plan or path, optional
        That the model was initialized with: then ``result.plan`` is one that makes the calibrated values.
        Without it the result has the factors alone.
    seed : int
        Of random gradients.

    Returns
    -------
    fanin.calibrate.Calibration
        ``before``, ``after``, ``left_out``, ``plan``, ``undo()``; print it for the table.

    Raises
    ------
    CalibrationError
        When a layer is dead or puts out what is not finite, or nothing would change; it names the layer.
    TraceError
        As `trace`.

    Examples
    --------
    >>> layers = [keras.Input((8,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(4)]
    >>> model = keras.Sequential(layers)
    >>> planned = initialize(model, "lecun_normal", seed=0)
    >>> batch = np.random.default_rng(0).standard_normal((256, 8), np.float32)
    >>> result = calibrate(model, batch, plan=planned)
    >>> {layer: round(scale, 4) for layer, scale in result.after.items()}
    {'dense': 1.0}
    """
    from fanin.calibrate import calibrated, checked
    from fanin.keras._calibrate import Engine

    checked(method, options, () if batch is None else batch)
    base = Plan.from_file(plan) if isinstance(plan, str | Path) else plan
    return calibrated(Engine(model, batch, seed), method, base, options, model)


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
