"""From a plan to the memory of a module: everything is checked, then everything is written."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from fanin import threads
from fanin._types import Array, Window
from fanin.dtypes import is_finite
from fanin.errors import PlanError
from fanin.layout import moved, windows
from fanin.materialize import Mismatch, first_difference
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.planning import paired
from fanin.torch._agree import agree, together
from fanin.torch._buffers import Buffers, rebuild
from fanin.torch._overlap import overlap
from fanin.torch._parametrized import at_rest, hold, take, tried, with_memory
from fanin.torch._sharded import local, local_memory, resharded, with_local_memory
from fanin.torch._tensors import as_array, as_bytes, check, fill
from fanin.torch._walk import Described, Slot

Device: TypeAlias = str | int | torch.device
PART = 1 << 24  # elements looked at together
NEW = 1 << 20  # elements of new memory that one thread poisons, fills and looks at
SMALL = 1 << 23  # elements below which a tensor is not worth dividing between threads


class Target(NamedTuple):
    """A stored tensor of a plan, and where a module keeps it."""

    planned: Tensor
    slots: tuple[Slot, ...]

    @property
    def name(self) -> str:
        return self.slots[0].name

    @property
    def parametrization(self) -> Any:
        return self.slots[0].parametrization

    @property
    def value(self) -> torch.Tensor:
        """The parameter; the value that a parametrization computes is computed here."""
        return self.slots[0].value

    @property
    def memory(self) -> list[torch.Tensor]:
        """What is written: of a sharded parameter, this rank's part."""
        if self.parametrization is None:
            return [local_memory(self.value)]
        return list(self.parametrization.parameters())

    @property
    def sharded(self) -> bool:
        return self.parametrization is None and isinstance(self.value, DTensor)

    @property
    def lost(self) -> bool:
        return any(tensor.is_meta for tensor in self.memory)


def apply(plan: Plan, described: Described, device: Device | None, buffers: Buffers | None) -> None:
    """Write a plan's values into the module they were planned for.

    Raises
    ------
    PlanError, OutError, DtypeError
        Before anything is changed.
    """
    targets = list(_targets(plan, described))
    if any(target.sharded for target in targets):
        agree(plan)
    lost = [target for target in targets if target.lost]
    alive = [target for target in targets if plan.sets(target.planned.path) and not target.lost]
    with together() if plan.filed and any(target.sharded for target in targets) else nullcontext():
        for target in targets:
            _check(plan, target, device)
        _check_apart([target for target in targets if plan.sets(target.planned.path)])
        rebuilt = rebuild(described.places, device, buffers)
        if plan.filed:
            _look(plan, alive)
        puts = _materialized(plan, lost, device)
    _set_all(plan, alive)
    for put in puts:
        put()
    for buffer in rebuilt:
        buffer.module._buffers[buffer.attribute] = buffer.value
    for target in lost:
        _flatten(target.slots)
    if puts:
        resharded(place.module for place in described.places)


def _targets(plan: Plan, described: Described) -> Iterator[Target]:
    """The plan's tensors beside the module's, paired by the canonical names in them."""
    for tensor, mine in paired(plan, described.model):
        yield Target(tensor, described.slots[mine.path])


def differences(plan: Plan, described: Described) -> Iterator[Mismatch]:
    """Where a module's values are not the plan's: of each tensor, on this rank, the first element."""
    for target in _targets(plan, described):
        path = target.planned.path
        if target.lost:
            yield Mismatch(path, "has no values: it is on the meta device")
        elif target.parametrization is not None and plan.sets(path):
            expected = _try(plan, target).parameters()
            pairs = zip(expected, target.memory, strict=True)
            if not all(torch.equal(as_bytes(one), as_bytes(two)) for one, two in pairs):
                yield Mismatch(path, "is computed from other values than the planned ones")
        elif plan.sets(path):
            memory, rectangles = local(target.value)
            for window, place in rectangles:
                part = memory.detach()[place]
                yield from first_difference(plan, path, window, partial(_values, part))


def _values(tensor: torch.Tensor, window: Any) -> Array:
    return as_array(tensor[window].cpu())


# --- checking ------------------------------------------------------------------------------------


def _check(plan: Plan, target: Target, device: Device | None) -> None:
    name = target.name
    kept = [row.name for row, _ in plan.parts(target.planned) if row.initializer is None]
    if target.lost:
        if device is None:
            raise PlanError(f"{name!r} is on the meta device; say where the model should live: device='cpu'")
        if kept:
            raise PlanError(f"{kept[0]!r} is on the meta device and has no value to keep; give it a rule")
    elif plan.sets(target.planned.path):
        for tensor in target.memory:
            check(tensor, name, allow_empty=target.sharded)
        if target.parametrization is not None:
            _try(plan, target)


def _check_apart(targets: list[Target]) -> None:
    """Refuse what would be set twice. Ties are one tensor of a plan; other views of a memory are not."""
    both = overlap((target.name, tensor) for target in targets for tensor in target.memory)
    if both is not None:
        raise PlanError(
            f"{both[0]!r} and {both[1]!r} lie in the same memory, but not as one tensor; keep one of them: "
            f"({both[1]!r}, 'keep')"
        )


def _look(plan: Plan, alive: list[Target]) -> None:
    """Read what will be taken from files in place of present values; new memory can be dropped instead."""
    from fanin.transfer import look

    places = {target.planned.path: _windows_of(target) for target in alive}
    look(plan, lambda path: places.get(path, []))


def _windows_of(target: Target) -> list[Window]:
    """What of a tensor is written here: of a sharded one, this rank's part."""
    if target.parametrization is not None:
        return [tuple(slice(0, size) for size in target.planned.shape)]
    return [window for window, _ in local(target.value)[1]]


def _try(plan: Plan, target: Target, device: Device | None = None) -> Any:
    """A copy of a parametrization that holds what the plan says."""
    said = ", ".join(dict.fromkeys(str(row.initializer) for row, _ in plan.parts(target.planned)))
    value = _value(plan, target, device)
    return tried(target.parametrization, value, plan.seed, target.name, said)


# --- writing -------------------------------------------------------------------------------------


def _write(plan: Plan, target: Target, tensor: torch.Tensor) -> None:
    path = target.planned.path
    memory, rectangles = local(tensor)
    for window, place in rectangles:
        write = partial(_window, plan, path, window)
        fill(memory.detach()[place], write, what=target.name, whole=plan.coupled(path))


def _window(plan: Plan, path: str, window: Window, inner: Window | None, out: Array) -> None:
    plan.fill(path, window=moved(window, inner), out=out)


def _value(plan: Plan, target: Target, device: Device | None = None) -> torch.Tensor:
    """What a parametrized tensor is to be: its present value where the plan keeps it."""
    with at_rest(target.parametrization):
        now = target.value.detach()
    value = torch.empty_like(now, device=device) if now.is_meta else now.clone()
    _write(plan, target, value)
    return value


def _set_all(plan: Plan, targets: list[Target]) -> None:
    """Set large tensors one after the other, each in threads, and small ones side by side."""
    small = []
    for target in targets:
        if _is_small(plan, target):
            small.append(partial(_set, plan, target))
        else:
            _set(plan, target)
    threads.run_all(small)


def _is_small(plan: Plan, target: Target) -> bool:
    """Whether it is plain host memory that is filled before threads have divided it."""
    if target.parametrization is not None or plan.coupled(target.planned.path):
        return False
    if torch.is_inference_mode_enabled():  # a mode of this thread alone
        return False
    return target.value.device.type == "cpu" and target.value.numel() < SMALL


def _set(plan: Plan, target: Target) -> None:
    if target.parametrization is None:
        _write(plan, target, target.value)
    else:
        hold(target.parametrization, _value(plan, target), plan.seed, target.name)


def _materialized(plan: Plan, lost: list[Target], device: Device | None) -> list[Callable[[], None]]:
    """What puts memory in place of none.

    A parameter is poisoned, filled, and checked for what was left; but for one that is read from a file just
    as it lies there, whole or not at all.
    """
    puts: list[Callable[[], None]] = []
    parts: list[Callable[[], None]] = []
    for target in lost:
        if target.parametrization is not None:
            puts.append(partial(take, target.parametrization, _try(plan, target, device)))
            continue
        value = target.value
        parameter = (
            with_local_memory(value, device) if isinstance(value, DTensor) else with_memory(value, device)
        )
        puts.append(partial(_put, target.slots, parameter))
        if target.sharded or parameter.device.type != "cpu" or plan.coupled(target.planned.path):
            _fill_new(plan, target, parameter)
        else:  # by parts, each of which stays in the caches, in threads
            check(parameter, target.name)
            values = as_array(parameter.detach())
            poisoned = not (plan.filed and _is_read(plan, target.planned.path))
            for window in windows(values.shape, NEW if poisoned else SMALL):
                place: Any = (..., *window)
                parts.append(partial(_fill_part, plan, target.planned.path, window, values[place], poisoned))
    threads.run_all(parts)
    return puts


def _fill_new(plan: Plan, target: Target, parameter: torch.Tensor) -> None:
    memory = local_memory(parameter).detach()
    memory.fill_(float("nan"))
    _write(plan, target, parameter)
    if _has_nan(memory) and not _may_be_nan(plan, target.planned.path):
        raise PlanError(f"{target.name!r} was not set completely")


def _is_read(plan: Plan, path: str) -> bool:
    from fanin.transfer import lying

    return lying(plan, path) is not None


def _fill_part(plan: Plan, path: str, window: Window, out: Array, poisoned: bool) -> None:
    if poisoned:
        out[...] = np.nan
    plan.fill(path, window=window, out=out)
    if poisoned and not (is_finite(out) or _may_be_nan(plan, path)) and np.isnan(out).any():
        raise PlanError(f"{path!r} was not set completely")


def _may_be_nan(plan: Plan, path: str) -> bool:
    """Whether a checkpoint was to be taken as it is."""
    rows = (row.initializer for row, _ in plan.parts(plan.tensor(path)))
    return any(getattr(initializer, "nonfinite", False) for initializer in rows)


def _put(slots: tuple[Slot, ...], parameter: nn.Parameter) -> None:
    for slot in slots:
        setattr(slot.module, slot.attribute, parameter)


def _has_nan(tensor: torch.Tensor) -> bool:
    wide = tensor.dtype.itemsize > 1
    flat = tensor.as_strided((tensor.numel(),), (1,))  # in any order: it is dense
    parts = (flat[at : at + PART] for at in range(0, flat.numel(), PART))
    return any(bool((part if wide else part.half()).sum().isnan()) for part in parts)


def _flatten(slots: tuple[Slot, ...]) -> None:
    """Recurrent layers keep their weights in one piece of memory where their device's kernels ask for it."""
    for slot in slots:
        if isinstance(slot.module, nn.RNNBase):
            slot.module.flatten_parameters()
