"""From a plan to the memory of a module: everything is checked, then everything is written."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from fanin.errors import PlanError
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.torch._buffers import Buffers, rebuild
from fanin.torch._tensors import check, fill
from fanin.torch._walk import Described, Slot

Device: TypeAlias = str | int | torch.device
PART = 1 << 24  # elements looked at together
ALIKE = 1e-4  # 1 - cosine, from which a parametrization does not hold what it was given


class Target(NamedTuple):
    """A stored tensor of a plan, and where a module keeps it."""

    planned: Tensor
    slots: tuple[Slot, ...]
    value: torch.Tensor

    @property
    def parametrized(self) -> bool:
        return self.slots[0].attribute not in self.slots[0].module._parameters


def apply(plan: Plan, described: Described, device: Device | None, buffers: Buffers | None) -> None:
    """Write a plan's values into the module they were planned for.

    Raises
    ------
    PlanError, OutError, DtypeError
        Before anything is changed.
    """
    targets = list(_targets(plan, described))
    for target in targets:
        _check(plan, target, device)
    rebuilt = rebuild(described.places, device, buffers)
    made = [(target.slots, _materialized(plan, target, device)) for target in targets if target.value.is_meta]
    for target in targets:
        if target.value.is_meta or not plan.sets(target.planned.path):
            continue
        if target.parametrized:
            _assign(plan, target)
        else:
            _write(plan, target, target.value)
    for slots, parameter in made:
        for slot in slots:
            slot.module._parameters[slot.attribute] = parameter
    for buffer in rebuilt:
        buffer.module._buffers[buffer.attribute] = buffer.value


def _targets(plan: Plan, described: Described) -> Iterator[Target]:
    """The plan's tensors beside the module's, paired by the canonical names in them."""
    kept = {tuple(piece.name for piece in tensor.pieces): tensor for tensor in described.model.tensors}
    planned = {tuple(piece.name for piece in tensor.pieces): tensor for tensor in plan.tensors}
    for names in kept.keys() ^ planned.keys():
        where = "plan" if names in kept else "model"
        raise PlanError(f"{names[0]!r} is not in the {where}; make the plan for this model")
    for names, tensor in planned.items():
        mine = kept[names]
        if (mine.shape, mine.dtype, mine.pieces) != (tensor.shape, tensor.dtype, tensor.pieces):
            raise PlanError(
                f"{names[0]!r}: the plan is for {tensor.dtype} {tensor.shape}, the model has {mine.dtype} "
                f"{mine.shape}; make the plan for this model"
            )
        slots = described.slots[mine.path]
        with torch.no_grad():
            yield Target(tensor, slots, getattr(slots[0].module, slots[0].attribute))


# --- checking ------------------------------------------------------------------------------------


def _check(plan: Plan, target: Target, device: Device | None) -> None:
    name = target.slots[0].name
    kept = [row.name for row, _ in plan.parts(target.planned) if row.initializer is None]
    if target.value.is_meta:
        if device is None:
            raise PlanError(f"{name!r} is on the meta device; say where the model should live: device='cpu'")
        if kept:
            raise PlanError(f"{kept[0]!r} is on the meta device and has no value to keep; give it a rule")
        if target.parametrized:
            raise PlanError(
                f"{name!r} is parametrized on the meta device; parametrize the model after initializing it"
            )
    elif kept != [row.name for row, _ in plan.parts(target.planned)]:
        if target.parametrized:
            _check_parametrized(plan, target)
        else:
            check(target.value, name)


def _check_parametrized(plan: Plan, target: Target) -> None:
    """Whether the value comes back from the tensors that it is computed from, up to a factor."""
    slot = target.slots[0]
    chain: Any = copy.deepcopy(slot.module.parametrizations[slot.attribute])  # type: ignore[index]
    without = [type(step).__name__ for step in chain if not hasattr(step, "right_inverse")]
    if without:
        raise PlanError(
            f"{slot.name!r} is parametrized by {without[0]}, which has no right_inverse to set it by"
        )
    wanted = _value(plan, target)
    try:
        with torch.no_grad():
            chain.right_inverse(wanted)
            held = chain()
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise PlanError(f"{slot.name!r}: its parametrization refuses the value: {error}") from error
    cosine = nn.functional.cosine_similarity(wanted.flatten().double(), held.flatten().double(), dim=0)
    if wanted.count_nonzero() and cosine < 1 - ALIKE:
        raise PlanError(
            f"{slot.name!r} is parametrized by {type(chain[0]).__name__}, which cannot hold "
            f"{', '.join(str(row.initializer) for row, _ in plan.parts(target.planned))}"
        )


# --- writing -------------------------------------------------------------------------------------


def _write(plan: Plan, target: Target, tensor: torch.Tensor) -> None:
    path = target.planned.path
    fill(tensor, lambda window, out: plan.fill(path, window=window, out=out), what=target.slots[0].name)


def _value(plan: Plan, target: Target) -> torch.Tensor:
    value = torch.empty_like(target.value, requires_grad=False)
    _write(plan, target, value)
    return value


def _assign(plan: Plan, target: Target) -> None:
    with torch.no_grad():
        setattr(target.slots[0].module, target.slots[0].attribute, _value(plan, target))


def _materialized(plan: Plan, target: Target, device: Device | None) -> nn.Parameter:
    """A parameter with memory in place of one without: poisoned, filled, and checked for what was left."""
    old = target.value
    memory = torch.empty_like(old, device=device, requires_grad=False)
    memory.fill_(float("nan"))
    _write(plan, target, memory)
    if _has_nan(memory):
        raise PlanError(f"{target.slots[0].name!r} was not set completely")
    new = nn.Parameter(memory, requires_grad=old.requires_grad)
    new.__dict__.update(vars(old))
    return new


def _has_nan(tensor: torch.Tensor) -> bool:
    wide = tensor.dtype.itemsize > 1
    flat = tensor.flatten()
    parts = (flat[at : at + PART] for at in range(0, flat.numel(), PART))
    return any(bool((part if wide else part.half()).sum().isnan()) for part in parts)
