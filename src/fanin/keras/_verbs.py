"""What users call: plan, initialize, verify, transfer, distance, trace, audit, calibrate."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras

from fanin.keras._apply import apply
from fanin.keras._transfer import differences, reader, with_state, write_all
from fanin.keras._walk import describe
from fanin.materialize import Mismatch
from fanin.plan import Plan
from fanin.planning import PlanLike, has_buffers, kept, planned
from fanin.recipe import KEEP

if TYPE_CHECKING:
    from fanin.audit.trace import Trace
    from fanin.calibrate import Calibration
    from fanin.recipes import RecipeLike
    from fanin.report import Report
    from fanin.transfer import Distances


def plan(model: keras.Layer, recipe: PlanLike, *, seed: int | None = None) -> Plan:
    """What every parameter of a model would get. Nothing is touched, nothing is drawn.

    Parameters
    ----------
    model : keras.Model or keras.Layer
        Built: by an input shape, or by a call.
    recipe : str, Initializer, Recipe, Plan or Path
        A recipe's name (``"gpt2"``), an initializer or its name (``"he_normal"``: it fills kernels, the rest
        starts neutral), a `fanin.Recipe`, a TOML or JSON file of one, or a plan or its file. ``"keep"``
        tells how the model is stored, its state too: the `source` of a transfer.
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
    described = describe(model)
    if recipe == KEEP:
        return kept(with_state(described).model)
    return planned(described.model, recipe, seed)


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
    if has_buffers(made):  # of a transfer
        write_all(made, with_state(described))
    else:
        apply(made, described)
    return made


def verify(model: keras.Layer, plan: Plan | str | Path) -> list[Mismatch]:
    """Where a model's values are not those of a plan, bit for bit; nothing if it is as it was initialized.

    Parameters
    ----------
    model : keras.Model or keras.Layer
        Built.
    plan : Plan or path
        What it should hold; of a transfer its state, too.

    Returns
    -------
    list of Mismatch
        For each tensor that differs its path, the first element that does, and both values.

    Raises
    ------
    PlanError
        When the plan is for another model.

    Examples
    --------
    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> applied = initialize(layer, "zeros", seed=0)
    >>> verify(layer, applied)
    []
    >>> changed = layer.kernel.assign([[0, 0], [0, 0.5], [0, 0]])
    >>> print(verify(layer, applied)[0].what)
    0.5, planned 0.0
    """
    return list(differences(plan if isinstance(plan, Plan) else Plan.from_file(plan), model))


def transfer(
    model: keras.Layer,
    checkpoint: str | Path,
    recipe: "RecipeLike | None" = None,
    *,
    seed: int | None = None,
    rename: Mapping[str, str] | None = None,
    adapt: Mapping[str, Any] | None = None,
    source: Plan | str | Path | None = None,
    layout: Literal["oi", "io"] | None = None,
    inside: str | None = None,
    allow_nonfinite: bool = False,
    digests: bool = True,
    dry_run: bool = False,
) -> Plan:
    """Load what a checkpoint has, draw what it lacks: each parameter and all state is accounted for.

    All values are made and checked before one variable is changed. State that the checkpoint lacks, such as
    the seed of a dropout, stays as it is.

    Parameters
    ----------
    model : keras.Model or keras.Layer
        Built.
    checkpoint : path
        A file or folder of any format that `fanin.checkpoints.open` reads.
    recipe : optional
        As for `plan`, for what the checkpoint lacks; without one, that is an error.
    seed : int, optional
        Needed where something is drawn.
    rename : mapping, optional
        Keys of the checkpoint to the model's: fronts, or globs such as ``{"encoder/*": "backbone/*"}``.
    adapt : mapping, optional
        For names or paths by glob, the first that fits: a key of `fanin.transfer.ADAPTERS`, ``(adapter,
        options)``, several in a list, ``"draw"``, ``"keep"``, or ``"stack"`` for another number of layers.
    source : Plan or path, optional
        Of the model that the checkpoint is of, in any framework (``plan(old, "keep")``): fused, split,
        transposed and differently named tensors find their places by canonical names.
    layout : "oi" or "io", optional
        How kernels are stored in the checkpoint, if not as in Keras: PyTorch's are "oi".
    inside : str, optional
        `key` of `fanin.checkpoints.open`.
    allow_nonfinite, digests
        As for `fanin.transfer.resolve`.
    dry_run : bool
        Change nothing, return the plan.

    Returns
    -------
    Plan
        Rows are ``taken``, ``adapted``, ``draw``, ``constant`` or ``keep``; ``unexpected`` lists the keys
        that were not used. `verify` compares a model with it.

    Raises
    ------
    PlanError, ArgumentError, CheckpointError
        Before anything is changed.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> head = keras.layers.Dense(5, name="head")
    >>> new = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="body"), head])
    >>> old = {"body/kernel": np.ones((3, 2), np.float32), "body/bias": np.ones(2, np.float32)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/old.npz", **old)
    ...     made = transfer(new, f"{folder}/old.npz", "he_normal", seed=0)
    >>> [(row.name, row.source) for row in made.rows]
    [('body.weight', 'taken'), ('body.bias', 'taken'), ('head.weight', 'draw'), ('head.bias', 'constant')]
    >>> bool(keras.ops.all(new.layers[0].kernel == 1))
    True
    """
    from fanin.transfer import resolve

    described = with_state(describe(model))
    made = resolve(
        described.model,
        checkpoint,
        recipe,
        seed=seed,
        rename=rename,
        adapt=adapt,
        source=source,
        layout=layout,
        inside=inside,
        allow_nonfinite=allow_nonfinite,
        digests=digests,
    )
    if not dry_run:
        write_all(made, described)
    return made


def distance(model: keras.Layer, plan: Plan | str | Path) -> "Distances":
    """How far a model's parameters are from where a plan started them; the start is made again.

    Examples
    --------
    >>> layer = keras.layers.Dense(2, use_bias=False)
    >>> layer.build((None, 3))
    >>> applied = initialize(layer, "ones", seed=0)
    >>> changed = layer.kernel.assign(layer.kernel * 1.5)
    >>> distance(layer, applied).total
    0.5
    """
    from fanin.transfer import begun, moved

    if not isinstance(plan, Plan):
        plan = Plan.from_file(plan)
    return moved(plan, begun(plan), reader(plan, model))


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
    >>> import numpy as np
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
    >>> import numpy as np
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
        As for `trace`. Of the batch ``"analytic"`` and ``"residual_scaling"`` look at shapes alone: where the
        model has one input that says its shape it may be None.
    method : str
        ``"lsuv"``, ``"weight_norm"``, ``"krahenbuhl_within"``, ``"krahenbuhl_between"``, ``"analytic"``,
        ``"jacobian"``, ``"residual_scaling"`` or ``"head"``: the functions of `fanin.calibrate`, which say
        what options they take.
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
    >>> import numpy as np
    >>> layers = [keras.Input((8,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(4)]
    >>> model = keras.Sequential(layers)
    >>> planned = initialize(model, "lecun_normal", seed=0)
    >>> batch = np.random.default_rng(0).standard_normal((256, 8), np.float32)
    >>> result = calibrate(model, batch, plan=planned)
    >>> {layer: round(scale, 4) for layer, scale in result.after.items()}
    {'dense': 1.0}
    """
    from fanin.calibrate import calibrated, checked
    from fanin.keras._calibrate import Engine, example

    checked(method, options, batch)
    base = Plan.from_file(plan) if isinstance(plan, str | Path) else plan
    engine = Engine(model, example(model) if batch is None else batch, seed)
    return calibrated(engine, method, base, options, model)
