"""What users call: plan, initialize, verify, trace, audit, calibrate."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from fanin.materialize import Mismatch
from fanin.plan import Plan
from fanin.planning import PlanLike, has_buffers, kept, planned
from fanin.recipe import KEEP
from fanin.torch._apply import Device, apply, differences
from fanin.torch._buffers import Buffers
from fanin.torch._sharded import reshard
from fanin.torch._transfer import (
    buffer_differences,
    originals,
    reader,
    split,
    with_buffers,
    write_all,
)
from fanin.torch._walk import describe

if TYPE_CHECKING:
    from fanin.audit.trace import Trace
    from fanin.calibrate import Calibration
    from fanin.recipes import RecipeLike
    from fanin.report import Report
    from fanin.transfer import Distances


def plan(model: nn.Module, recipe: PlanLike, *, seed: int | None = None, name_prefix: str = "") -> Plan:
    """What every parameter of a model would get. Nothing is touched, nothing is drawn.

    Parameters
    ----------
    model : torch.nn.Module
        On any device; ``torch.device("meta")`` needs no memory for the weights.
    recipe : str, Initializer, Recipe, Plan or Path
        A recipe's name (``"gpt2"``), an initializer or its name (``"he_normal"``: it fills kernels, the rest
        starts neutral), a `fanin.Recipe`, a TOML or JSON file of one, or a plan or its file. ``"keep"``
        tells how the model is stored, its persistent buffers too: the `source` of a transfer.
    seed : int
        0 .. 2**64 - 1; a plan has its own.
    name_prefix : str
        What canonical names begin with, such as ``"stage1."``: for a part of a model whose names were counted
        afresh.

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
    >>> conv = nn.Conv2d(64, 128, 3, groups=2)
    >>> plan(conv, "glorot_uniform", seed=0)["weight"].fans
    Fans(fan_in=288, fan_out=576)
    """
    described = describe(model, name_prefix)
    if recipe == KEEP:
        return kept(with_buffers(described))
    return planned(described.model, recipe, seed)


def initialize(
    model: nn.Module,
    recipe: PlanLike,
    *,
    seed: int | None = None,
    device: Device | None = None,
    buffers: Buffers | None = None,
    name_prefix: str = "",
) -> Plan:
    """Plan a model's initialization and apply it: all parameters are set, or, after an error, none.

    Parameters
    ----------
    model, recipe, seed, name_prefix
        As for `plan`. Of a model sharded by ``fully_shard``, ``parallelize_module`` or ``distribute_tensor``
        each rank fills its own shards, whose values do not depend on the sharding; ranks first agree on the
        plan.
    device : device, optional
        Where parameters and buffers on the meta device are to live.
    buffers : callable, optional
        ``buffers(name, module, meta_tensor)`` gives the value of a buffer that the meta device has lost, or
        None to have it rebuilt.

    Returns
    -------
    Plan
        What was applied.

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> applied = initialize(model, "he_normal", seed=0)
    >>> import fanin
    >>> values = fanin.HeNormal()((2, 3), seed=0, name="weight", axes="oi")
    >>> bool((model.weight.detach().numpy() == values).all())
    True
    """
    if isinstance(model, nn.Module):
        reshard(model.modules())
    described = describe(model, name_prefix)
    made = planned(described.model, recipe, seed)
    if has_buffers(made):  # of a transfer
        write_all(made, described, device, buffers)
    else:
        apply(made, described, device, buffers)
    return made


def verify(model: nn.Module, plan: Plan | str | Path, *, name_prefix: str = "") -> list[Mismatch]:
    """Where a model's values are not those of a plan, bit for bit; nothing if it is as it was initialized.

    Parameters
    ----------
    model : torch.nn.Module
        Of a sharded model each rank compares its own shards.
    plan : Plan or path
        What it should hold.
    name_prefix : str
        As for `plan`.

    Returns
    -------
    list of Mismatch
        For each tensor that differs its path, the first element that does, and both values.

    Examples
    --------
    >>> import torch
    >>> model = nn.Linear(3, 2)
    >>> applied = initialize(model, "zeros", seed=0)
    >>> verify(model, applied)
    []
    >>> with torch.no_grad():
    ...     model.weight[1, 2] = 0.5
    >>> print(verify(model, applied)[0])
    weight[1, 2]: 0.5, planned 0.0
    """
    if not isinstance(plan, Plan):
        plan = Plan.from_file(plan)
    reshard(model.modules())
    described = describe(model, name_prefix)
    weights, rest = split(plan)
    return [*differences(weights, described), *buffer_differences(rest, described)]


def transfer(
    model: nn.Module,
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
    device: Device | None = None,
    buffers: Buffers | None = None,
    name_prefix: str = "",
    dry_run: bool = False,
) -> Plan:
    """Load what a checkpoint has, draw what it lacks: each parameter and persistent buffer is accounted for.

    Everything is checked before anything is changed. Meta-device models are given memory full of NaN first,
    which is looked for afterwards.

    Parameters
    ----------
    model : torch.nn.Module
        On any device; of a sharded model each rank writes its own shards.
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
        transposed and differently named tensors find their places by canonical names.
    layout : "oi" or "io", optional
        How kernels are stored in the checkpoint, if not as in PyTorch.
    inside : str, optional
        `key` of `fanin.checkpoints.open`.
    allow_nonfinite, digests
        As for `fanin.transfer.resolve`.
    device, buffers, name_prefix
        As for `initialize`.
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
    >>> import tempfile
    >>> old, new = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save(old.state_dict(), f"{folder}/old.pt")
    ...     made = transfer(new, f"{folder}/old.pt", "he_normal", seed=0, rename={"": "0"})
    >>> [(row.name, row.source) for row in made.rows]
    [('0.weight', 'taken'), ('0.bias', 'taken'), ('1.weight', 'draw'), ('1.bias', 'constant')]
    >>> torch.equal(new[0].weight, old.weight)
    True
    """
    from fanin.transfer import names_in, resolve

    if isinstance(model, nn.Module):
        reshard(model.modules())
    described = describe(model, name_prefix)
    saved = originals(described)
    if saved:  # a checkpoint has them, or what is computed from them
        names = names_in(checkpoint, rename, inside)
        saved = {path: group for path, group in saved.items() if any(kept.path in names for kept in group)}
    made = resolve(
        with_buffers(described, (kept for group in saved.values() for kept in group)),
        checkpoint,
        recipe,
        seed=seed,
        rename=rename,
        adapt={**dict.fromkeys(saved, KEEP), **(adapt or {})},
        source=source,
        layout=layout,
        inside=inside,
        allow_nonfinite=allow_nonfinite,
        digests=digests,
        values=dry_run,  # else they are looked at where, and as far as, they are written
    )
    if not dry_run:
        write_all(made, described, device, buffers)
    return made


def distance(model: nn.Module, plan: Plan | str | Path, *, name_prefix: str = "") -> "Distances":
    """How far a model's parameters are from where a plan started them; the start is made again.

    Examples
    --------
    >>> model = nn.Linear(3, 2, bias=False)
    >>> applied = initialize(model, "ones", seed=0)
    >>> with torch.no_grad():
    ...     moved = model.weight.mul_(1.5)
    >>> print(distance(model, applied))
    parameter    rms(w - w0)   relative
    weight               0.5        0.5
    all                  0.5
    """
    from fanin.transfer import begun, moved

    if not isinstance(plan, Plan):
        plan = Plan.from_file(plan)
    return moved(plan, begun(plan), reader(plan, describe(model, name_prefix)))


def trace(
    model: nn.Module,
    batch: Any,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    *,
    optimizer: "torch.optim.Optimizer | str | None" = None,
    seed: int = 0,
    isometry: bool = False,
) -> "Trace":
    """What one batch does on its way through a model and back, in numbers. The model is left as it was.

    It runs as it would train, but without dropout: batch norms take the moments of the batch, all other
    modules are in evaluation mode. Frozen parameters are measured like all others.

    Parameters
    ----------
    model : torch.nn.Module
        On any device, with its values; of a wrapper (data parallel, compiled) what it wraps.
    batch : tensor, array, tuple or mapping
        A tuple holds positional arguments, a mapping keyword arguments. Floating point NumPy arrays get the
        dtype of the model, all arrays its device.
    loss : callable, optional
        ``loss(output, batch)`` gives a scalar; without one, the output's own ``loss`` is taken where it has
        one (transformers, with labels in the batch).
    optimizer : torch.optim.Optimizer or str, optional
        Whose first step is measured: made for this model, or text such as ``"adam 0.001"``.
    seed : int
        Of the random gradients of the output, and of what the model itself draws.
    isometry : bool
        Whether to take the singular values of the Jacobian of the output by the batch.

    Returns
    -------
    fanin.audit.trace.Trace
        Operations in the order of execution, and parameters; numbers alone.

    Raises
    ------
    TraceError
        When the model or its loss raises, has no values or no parameters, or is sharded; when the batch is of
        another type, or the output depends on no parameter.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(inplace=True), nn.Linear(32, 4))
    >>> found = trace(model, torch.linspace(-1, 1, 64).reshape(8, 8))
    >>> [(step.name, step.kind, step.inputs, step.after.units) for step in found.operations]
    [('0', 'dense', (-1,), 32), ('1', 'activation', (0,), 32), ('2', 'dense', (1,), 4)]
    """
    from fanin.torch._audit import traced

    return traced(model, batch, loss, optimizer, seed, isometry)


def audit(
    model: nn.Module,
    batch: Any,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    *,
    optimizer: "torch.optim.Optimizer | str | None" = None,
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
    >>> model = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(30)))
    >>> planned = initialize(model, "lecun_normal", seed=0)
    >>> batch = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    >>> audit(model, batch).ok
    False
    >>> planned = initialize(model, "he_normal", seed=0)
    >>> audit(model, batch).ok
    True
    """
    from fanin.audit import examine
    from fanin.report import Report

    found = trace(model, batch, loss, optimizer=optimizer, seed=seed, isometry=isometry)
    return Report(found, examine(found, select=select, ignore=ignore))


def calibrate(
    model: nn.Module,
    batch: Any,
    method: str = "lsuv",
    *,
    plan: "Plan | str | Path | None" = None,
    seed: int = 0,
    **options: Any,
) -> "Calibration":
    """Scale a model's layers to what one batch shows; after an error it is as it was, bit for bit.

    It runs as for `trace`: dropout is off, batch norms take the moments of the batch.

    Parameters
    ----------
    model, batch
        As for `trace`. Of the batch ``"analytic"`` and ``"residual_scaling"`` look at shapes alone: for a
        model that begins with a linear layer or an embedding it may be None.
    method : str
        ``"lsuv"``, ``"weight_norm"``, ``"krahenbuhl_within"``, ``"krahenbuhl_between"``, ``"analytic"``,
        ``"jacobian"``, ``"residual_scaling"`` or ``"head"``: the functions of `fanin.calibrate`, which say
        what options they take.
    plan : Plan or path, optional
        That the model was initialized with: then ``result.plan`` is one that makes the calibrated values.
        Without it the result has the factors alone.
    seed : int
        Of what the model itself draws, and of random gradients.

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
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    >>> planned = initialize(model, "lecun_normal", seed=0)
    >>> batch = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    >>> result = calibrate(model, batch, plan=planned)
    >>> {layer: round(scale, 4) for layer, scale in result.after.items()}
    {'0': 1.0, '2': 1.0}
    >>> verify(model, result.plan)
    []
    >>> result.undo()
    >>> verify(model, planned)
    []
    """
    from fanin.calibrate import calibrated, checked
    from fanin.torch._calibrate import Engine, example

    checked(method, options, batch)
    base = Plan.from_file(plan) if isinstance(plan, str | Path) else plan
    engine = Engine(model, example(model) if batch is None else batch, seed)
    return calibrated(engine, method, base, options, model)
