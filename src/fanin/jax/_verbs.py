"""What users call: plan, initialize, verify, transfer, distance, trace, audit, calibrate."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from fanin.errors import PlanError
from fanin.jax._apply import key, made
from fanin.jax._linen import PARAMS, Traced, is_linen, others
from fanin.jax._linen import trace as trace_init
from fanin.jax._sharded import placed, places
from fanin.jax._transfer import reader, with_state
from fanin.jax._tree import is_nnx, walk
from fanin.jax._verify import differences
from fanin.jax._walk import AxesOf, Described, describe
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


def plan(
    model: Any,
    recipe: PlanLike,
    *,
    seed: int | None = None,
    inputs: Any = None,
    axes: AxesOf | None = None,
) -> Plan:
    """What every parameter of a model would get. Nothing is touched, nothing is drawn.

    Parameters
    ----------
    model : flax.nnx.Module, flax.linen.Module, or tree of arrays
        Concrete or abstract (``nnx.eval_shape``, ``jax.eval_shape``), which needs no memory for the weights.
        In a tree the layers of Equinox are known by their class, other leaves by their own words: ``kernel``,
        ``weight``, ``w`` (in, out), ``bias``, ``b``, ``scale``, ``gamma``, ``embedding``. Random keys and
        leaves that are no arrays are no parameters.
    recipe : str, Initializer, Recipe, Plan or Path
        A recipe's name (``"gpt2"``), an initializer or its name (``"he_normal"``: it fills kernels, the rest
        starts neutral), a `fanin.Recipe`, a TOML or JSON file of one, or a plan or its file. ``"keep"``
        tells how the model is stored, its state too: the `source` of a transfer.
    seed : int
        0 .. 2**64 - 1; a plan has its own.
    inputs : tuple or mapping
        Of a linen module: the arguments of its call, arrays or `jax.ShapeDtypeStruct`.
    axes : mapping, optional
        What leaves are, where the model does not say it: {glob of canonical names: axes} or (role, axes),
        such as ``{"*.conv*.w": "io", "pos": ("position", "oi")}``. Numbers of a stack are left out of
        the names.

    Returns
    -------
    Plan
        One row per parameter.

    Raises
    ------
    RecipeError
        When a rule matches no parameter, or a recipe needs a fact that the model does not show.
    PlanError
        When no rule matches a parameter, or one cannot be set.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"dense": {"kernel": jnp.zeros((784, 256)), "bias": jnp.zeros(256)}}
    >>> plan(params, "he_normal", seed=0)["dense.kernel"].fans
    Fans(fan_in=784, fan_out=256)
    """
    described, traced = _described(model, inputs, axes)
    if recipe == KEEP:
        return kept(with_state(described, traced).model)
    return planned(described.model, recipe, seed)


def initialize(
    model: Any,
    recipe: PlanLike,
    *,
    seed: int | None = None,
    inputs: Any = None,
    axes: AxesOf | None = None,
    shardings: Any = None,
) -> Any:
    """Plan a model's initialization and apply it: all parameters are set, or, after an error, none.

    Abstract parameters become arrays where their sharding says, or on the default device; others stay where
    they are. Each process makes its own shards alone, each once, and the values do not depend on how they are
    cut; processes that share arrays first agree on the plan. Batch statistics of an abstract module start at
    mean 0 and variance 1, its random streams (dropout) at keys that belong to the seed and their names; what
    a concrete module has of these stays.

    Parameters
    ----------
    model, recipe, seed, inputs, axes
        As for `plan`.
    shardings : NamedSharding, PartitionSpec, callable or tree, optional
        Where arrays are to be instead: one for all; ``shardings(path, shape)``, where the path is that of
        ``plan.tensors``; or a tree of them with the structure of the model (of a linen module's variables, of
        ``nnx.state``), which has all parameters. None is where they would be without; a ``PartitionSpec`` is
        of the mesh of ``jax.set_mesh``.

    Raises
    ------
    PlanError, ArgumentError, ShapeError
        Before anything is made: also when a sharding does not fit, or processes differ in the plan.

    Returns
    -------
    flax.nnx.Module, or tree of jax.Array
        A module of nnx itself, changed in place; a new tree of the same structure; for a linen module its
        variables, other collections as the module starts them.

    Examples
    --------
    >>> import fanin, jax, jax.numpy as jnp
    >>> shapes = {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}
    >>> params = initialize(shapes, "he_normal", seed=0)
    >>> bool((params["kernel"] == fanin.HeNormal()((3, 2), seed=0, name="kernel")).all())
    True
    >>> from jax.sharding import AxisType, NamedSharding, PartitionSpec
    >>> place = NamedSharding(jax.make_mesh((1,), ("x",), (AxisType.Auto,)), PartitionSpec(None, "x"))
    >>> initialize(shapes, "he_normal", seed=0, shardings=place)["kernel"].sharding == place
    True
    """
    described, traced = _described(model, inputs, axes)
    return _applied(planned(described.model, recipe, seed), model, described, traced, shardings)


def verify(model: Any, plan: Plan | str | Path) -> list[Mismatch]:
    """Where a model's values are not those of a plan, bit for bit; nothing if it is as it was initialized.

    Parameters
    ----------
    model : flax.nnx.Module, or tree of arrays
        What `initialize` returned, or a tree with the same paths: ``nnx.state``, a checkpoint that was read.
        Of arrays that other processes have parts of, those that are here are compared, replicas too.
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
    >>> import jax.numpy as jnp
    >>> shapes = {"dense": {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}}
    >>> decided = plan(shapes, "zeros", seed=0)
    >>> params = initialize(shapes, decided)
    >>> verify(params, decided)
    []
    >>> params["dense"]["kernel"] = params["dense"]["kernel"].at[1, 0].set(0.5)
    >>> print(verify(params, decided)[0])
    dense.kernel[1, 0]: 0.5, planned 0.0
    """
    return differences(plan if isinstance(plan, Plan) else Plan.from_file(plan), model)


def transfer(
    model: Any,
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
    inputs: Any = None,
    axes: AxesOf | None = None,
    shardings: Any = None,
    dry_run: bool = False,
) -> Any:
    """Load what a checkpoint has, draw what it lacks: each parameter and all state is accounted for.

    All values are made and checked before one is set. State that the checkpoint lacks is as `initialize`
    leaves it: batch statistics and counters of an abstract module at their start, others as they are.

    Parameters
    ----------
    model, inputs, axes, shardings
        As for `initialize`.
    checkpoint : path
        A file or folder of any format that `fanin.checkpoints.open` reads.
    recipe : optional
        As for `plan`, for what the checkpoint lacks; without one, that is an error.
    seed : int, optional
        Needed where something is drawn.
    rename : mapping, optional
        Keys of the checkpoint to the model's: ``{"transformer.h": "blocks"}`` for fronts, or globs.
    adapt : mapping, optional
        For names or paths by glob, the first that fits: a key of `fanin.transfer.ADAPTERS`, ``(adapter,
        options)``, several in a list, ``"draw"``, ``"keep"``, or ``"stack"`` for another number of layers.
    source : Plan or path, optional
        Of the model that the checkpoint is of, in any framework (``plan(old, "keep")``): fused, split,
        transposed, flipped and differently named tensors find their places by canonical names.
    layout : "oi" or "io", optional
        How kernels are stored in the checkpoint, if not as in the model: PyTorch's are "oi".
    inside : str, optional
        `key` of `fanin.checkpoints.open`.
    allow_nonfinite, digests
        As for `fanin.transfer.resolve`.
    dry_run : bool
        Change nothing, return the plan. `initialize` applies it.

    Returns
    -------
    flax.nnx.Module, tree of jax.Array, or Plan
        As `initialize`; with ``dry_run`` the plan, whose rows are ``taken``, ``adapted``, ``draw``,
        ``constant`` or ``keep``.

    Raises
    ------
    PlanError, ArgumentError, CheckpointError
        Before anything is changed.

    Examples
    --------
    >>> import tempfile, numpy as np, jax.numpy as jnp
    >>> shapes = jax.eval_shape(lambda: {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/old.npz", w=np.ones((3, 2), np.float32))
    ...     made = transfer(shapes, f"{folder}/old.npz", "he_normal", seed=0, dry_run=True)
    ...     params = initialize(shapes, made)
    >>> [(row.name, row.source) for row in made.rows]
    [('w', 'taken'), ('b', 'constant')]
    >>> params["w"].sum().item()
    6.0
    """
    from fanin.transfer import resolve

    described, traced = _described(model, inputs, axes)
    decided = resolve(
        with_state(described, traced).model,
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
    return decided if dry_run else _applied(decided, model, described, traced, shardings)


def distance(model: Any, plan: Plan | str | Path) -> "Distances":
    """How far a model's parameters are from where a plan started them; the start is made again.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> decided = plan({"w": jnp.zeros((3, 2))}, "ones", seed=0)
    >>> distance({"w": jnp.full((3, 2), 1.5)}, decided).total
    0.5
    """
    from fanin.transfer import begun, moved

    if not isinstance(plan, Plan):
        plan = Plan.from_file(plan)
    return moved(plan, begun(plan), reader(plan, model))


def trace(
    model: Any,
    batch: Any,
    loss: Callable[[Any, Any], Any] | None = None,
    *,
    params: Any = None,
    axes: AxesOf | None = None,
    optimizer: Any = None,
    seed: int = 0,
    isometry: bool = False,
) -> "Trace":
    """What one batch does on its way through a model and back, in numbers. The model is left as it was.

    It runs as it would train, but without dropout (of Flax and Equinox): batch norms of Flax take the moments
    of the batch, whatever the call says. What counts as one operation is read from the traced function: a
    product with a kernel and its bias, a normalization, a function of ``jax.nn``, a sum; a loop over stacked
    layers is unrolled, one over time is a recurrent layer.

    Parameters
    ----------
    model : flax.nnx.Module, flax.linen.Module, equinox.Module, or callable
        With its values; of Equinox a module that takes one example, which is mapped over the batch; or a
        function ``(params, batch) -> output``.
    batch : array, tuple, mapping or tree
        A tuple holds positional arguments, a mapping keyword arguments, NumPy's arrays too; a function with
        ``params`` gets it whole.
    loss : callable, optional
        ``loss(output, batch)`` gives a scalar.
    params : tree, optional
        The variables of a linen module (``{"params": ..., "batch_stats": ...}``), the parameters of a
        function.
    axes : mapping, optional
        As for `plan`.
    optimizer : optax.GradientTransformation, nnx.Optimizer or str, optional
        Whose first step is measured, or text such as ``"adam 0.001"``. One of optax gets the parameters as a
        dictionary by their paths.
    seed : int
        Of the random gradients of the output.
    isometry : bool
        Whether to take the singular values of the Jacobian of one example's output by its input.

    Returns
    -------
    fanin.audit.trace.Trace
        Operations in the order of execution, and parameters; numbers alone.

    Raises
    ------
    TraceError
        When the model or its loss raises, has no values or no parameters; when the batch holds no array, or
        the output no floating point array that depends on a parameter.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = initialize({"w": jnp.zeros((8, 32)), "b": jnp.zeros(32)}, "he_normal", seed=0)
    >>> model = lambda params, x: jax.nn.relu(x @ params["w"] + params["b"])
    >>> found = trace(model, jnp.linspace(-1, 1, 64).reshape(8, 8), params=params)
    >>> [(step.name, step.kind, step.inputs, step.after.units) for step in found.operations]
    [('w', 'dense', (-1,), 32), (':relu', 'activation', (0,), 32)]
    """
    from fanin.jax._audit import traced

    return traced(model, batch, loss, params, axes, optimizer, seed, isometry=isometry)


def audit(
    model: Any,
    batch: Any,
    loss: Callable[[Any, Any], Any] | None = None,
    *,
    params: Any = None,
    axes: AxesOf | None = None,
    optimizer: Any = None,
    seed: int = 0,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    isometry: bool = False,
) -> "Report":
    """Will it train? What speaks against it before the first step, where, why, and what to do about it.

    Parameters
    ----------
    model, batch, loss, params, axes, optimizer, seed, isometry
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
    >>> import jax.numpy as jnp
    >>> layers = [{"w": jnp.zeros((64, 64))}] * 30
    >>> def model(layers, x):
    ...     for layer in layers:
    ...         x = jax.nn.relu(x @ layer["w"])
    ...     return x
    >>> batch = jax.random.normal(jax.random.key(0), (64, 64))
    >>> audit(model, batch, params=initialize(layers, "lecun_normal", seed=0)).ok
    False
    >>> params = initialize(layers, "he_normal", seed=0)
    >>> audit(model, batch, params=params, ignore=["distinguishability"]).ok
    True
    """
    from fanin.audit import examine
    from fanin.report import Report

    found = trace(
        model,
        batch,
        loss,
        params=params,
        axes=axes,
        optimizer=optimizer,
        seed=seed,
        isometry=isometry,
    )
    return Report(found, examine(found, select=select, ignore=ignore))


def calibrate(
    model: Any,
    batch: Any,
    method: str = "lsuv",
    *,
    params: Any = None,
    axes: AxesOf | None = None,
    plan: "Plan | str | Path | None" = None,
    seed: int = 0,
    **options: Any,
) -> "Calibration":
    """Scale a model's layers to what one batch shows; after an error it is as it was, bit for bit.

    Parameters
    ----------
    model, batch, params, axes
        As for `trace`. A module of nnx is changed in place; of anything else ``result.model`` has the new
        parameters (of a linen module its variables). Of the batch ``"analytic"`` and ``"residual_scaling"``
        look at shapes alone: for a module of nnx that begins with a linear layer or an embedding it may be
        None.
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
        ``before``, ``after``, ``left_out``, ``plan``, ``model``, ``undo()``; print it for the table.

    Raises
    ------
    CalibrationError
        When a layer is dead or puts out what is not finite, or nothing would change; it names the layer.
    TraceError
        As `trace`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> shapes = {"first": {"w": jnp.zeros((8, 32))}, "head": {"w": jnp.zeros((32, 4))}}
    >>> planned = plan(shapes, "lecun_normal", seed=0)
    >>> model = lambda params, x: jnp.tanh(x @ params["first"]["w"]) @ params["head"]["w"]
    >>> batch = jax.random.normal(jax.random.key(0), (256, 8))
    >>> result = calibrate(model, batch, params=initialize(shapes, planned), plan=planned)
    >>> {layer: round(scale, 4) for layer, scale in result.after.items()}
    {'first': 1.0}
    >>> verify(result.model, result.plan)
    []
    """
    from fanin.calibrate import calibrated, checked
    from fanin.jax._calibrate import Engine, example

    checked(method, options, batch)
    base = Plan.from_file(plan) if isinstance(plan, str | Path) else plan
    engine = Engine(model, example(model) if batch is None else batch, params, axes, seed)
    result = calibrated(engine, method, base, options)
    return replace(result, model=engine.calibrated)


def _applied(decided: Plan, model: Any, described: Described, traced: Traced | None, shardings: Any) -> Any:
    """A model with the values of a plan, as `initialize` returns it."""
    rest = [] if traced is None else [node for node in walk(traced.variables) if node.is_leaf]
    here = {leaf.path for leaf in described.leaves}
    elsewhere = [leaf for leaf in rest if leaf.path not in here]
    where = places(shardings, described.slots.values(), [*described.leaves, *elsewhere])
    started = {} if traced is None else others(traced, key(decided.seed, "init"))
    full = with_state(described, traced, started) if has_buffers(decided) else described
    values = made(decided, full, where)
    if is_nnx(model):
        for leaf in described.leaves:
            if leaf.path in values:
                leaf.value.set_value(values[leaf.path])
        return model
    leaves = [values.get(leaf.path, leaf.array) for leaf in described.leaves]
    tree = jax.tree.unflatten(jax.tree.structure(described.tree), leaves)
    if traced is None:
        return tree
    nodes = [node for node in walk(started) if node.is_leaf]
    moved = [values[n.path] if n.path in values else placed(n, n.array, where) for n in nodes]
    return {PARAMS: tree, **jax.tree.unflatten(jax.tree.structure(started), moved)}


def _described(model: Any, inputs: Any, axes: AxesOf | None) -> tuple[Described, Traced | None]:
    if is_linen(model):
        traced = trace_init(model, inputs)
        return describe(traced.variables.get(PARAMS, {}), axes, traced), traced
    if inputs is not None:
        raise PlanError(f"`inputs` are for linen modules; a {type(model).__name__} shows its shapes")
    return describe(model, axes), None
