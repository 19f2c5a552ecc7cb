"""What users call: plan, initialize, verify, trace, audit."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fanin.materialize import Mismatch
from fanin.plan import Plan
from fanin.planning import PlanLike, planned
from fanin.torch._apply import Device, apply, differences
from fanin.torch._buffers import Buffers
from fanin.torch._sharded import reshard
from fanin.torch._walk import describe

if TYPE_CHECKING:
    from fanin.audit.trace import Trace
    from fanin.report import Report


def plan(model: nn.Module, recipe: PlanLike, *, seed: int | None = None, name_prefix: str = "") -> Plan:
    """What every parameter of a model would get. Nothing is touched, nothing is drawn.

    Parameters
    ----------
    model : torch.nn.Module
        On any device; ``torch.device("meta")`` needs no memory for the weights.
    recipe : str, Initializer, Recipe, Plan or Path
        A recipe's name (``"gpt2"``), an initializer or its name (``"he_normal"``: it fills kernels, the rest
        starts neutral), a `fanin.Recipe`, a TOML or JSON file of one, or a plan or its file.
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
    return planned(describe(model, name_prefix).model, recipe, seed)


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
    return list(differences(plan, describe(model, name_prefix)))


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
