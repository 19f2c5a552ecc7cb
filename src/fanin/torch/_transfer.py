"""A transfer plan and a module: parameters by the way of every plan, persistent buffers beside them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from fanin._types import Array
from fanin.errors import PlanError
from fanin.fans import Axes
from fanin.initializers import Constant
from fanin.materialize import Mismatch, first_difference
from fanin.model import BUFFER, Model, Piece, Tensor
from fanin.plan import Plan
from fanin.planning import paired
from fanin.torch._apply import Device, apply
from fanin.torch._buffers import CONSTANT, Buffers
from fanin.torch._sharded import local
from fanin.torch._tensors import as_array, dtype_name
from fanin.torch._walk import Described
from fanin.torch._wrappers import wrapped


class Kept(NamedTuple):
    """A persistent buffer, or what a parametrization computes from, and one of the places that have it."""

    module: nn.Module
    attribute: str
    path: str
    name: str

    @property
    def value(self) -> torch.Tensor:
        return getattr(self.module, self.attribute)  # type: ignore[no-any-return]


def persistent(described: Described) -> Mapping[str, tuple[Kept, ...]]:
    """The buffers that a state dict holds, once each: {path: where it is kept}."""
    found: dict[int, list[Kept]] = {}
    for place in described.places:
        if wrapped(place.module) is not None:
            continue
        for attribute, buffer in place.module._buffers.items():
            if buffer is not None and attribute not in place.module._non_persistent_buffers_set:
                kept = Kept(place.module, attribute, place.path + attribute, place.name + attribute)
                found.setdefault(id(buffer), []).append(kept)
    return {slots[0].path: tuple(slots) for slots in found.values()}


def originals(described: Described) -> dict[str, tuple[Kept, ...]]:
    """What parametrized tensors are computed from, as a state dict names it: {path of the tensor: ...}."""
    found = {}
    for path, (slot, *_) in described.slots.items():
        chain = slot.parametrization
        if chain is None:
            continue
        front = f"{slot.path.removesuffix(slot.attribute)}parametrizations.{slot.attribute}."
        keys = [(key, *key.rpartition(".")[::2]) for key in chain.state_dict()]
        found[path] = tuple(
            Kept(chain.get_submodule(owner), leaf, front + key, f"{slot.name}.{key}")
            for key, owner, leaf in keys
        )
    return found


def _slots(plan: Plan, described: Described) -> Mapping[str, tuple[Kept, ...]]:
    """The buffers, and what else a plan sets as if it were one."""
    planned = {tensor.path for tensor in plan.tensors}
    computed_from = (kept for group in originals(described).values() for kept in group)
    return {
        **persistent(described),
        **{kept.path: (kept,) for kept in computed_from if kept.path in planned},
    }


def with_buffers(described: Described, computed_from: Iterable[Kept] = ()) -> Model:
    """A module's parameters and persistent buffers; running statistics without values have their start.

    ``computed_from``: what of its parametrizations is to be set as if it were buffers.
    """
    tensors = list(described.model.tensors)
    buffers = {**persistent(described), **{kept.path: (kept,) for kept in computed_from}}
    for path, (first, *others) in buffers.items():
        buffer = first.value
        axes = Axes(tuple(range(buffer.ndim)), ())
        piece = Piece(first.name, BUFFER, type(first.module).__name__, axes, own=_start(first))
        ties = tuple(other.path for other in others)
        tensors.append(Tensor(path, tuple(buffer.shape), dtype_name(buffer.dtype), (piece,), ties))
    return replace(described.model, tensors=tuple(tensors))


def _start(kept: Kept) -> Constant | None:
    """What a buffer that the meta device has lost is at the start of its layer."""
    for kind, values in CONSTANT.items():
        if kept.value.is_meta and isinstance(kept.module, kind) and kept.attribute in values:
            return Constant(values[kept.attribute])
    return None


def split(plan: Plan) -> tuple[Plan, Plan]:
    """A plan of the parameters alone, and one of the buffers."""
    return _only(plan, lambda role: role != BUFFER), _only(plan, lambda role: role == BUFFER)


def _only(plan: Plan, wanted: Callable[[str], bool]) -> Plan:
    tensors = tuple(tensor for tensor in plan.tensors if wanted(tensor.pieces[0].role))
    paths = {tensor.path for tensor in tensors}
    if len(paths) == len(plan.tensors):
        return plan
    return replace(plan, tensors=tensors, rows=tuple(row for row in plan.rows if row.path in paths))


def write_all(plan: Plan, described: Described, device: Device | None, buffers: Buffers | None) -> None:
    """Write parameters and buffers. What buffers get is made first: then only memory is written."""
    weights, rest = split(plan)
    slots = _slots(rest, described)
    values = {
        path: torch.from_numpy(_plain(rest, path)).view(slots[path][0].value.dtype)
        for path in slots
        if rest.sets(path)
    }
    made = {id(slots[path][0].value): value for path, value in values.items()}
    alive = [
        (slots[path][0].value, value) for path, value in values.items() if not slots[path][0].value.is_meta
    ]
    for buffer, _ in alive:
        if buffer.is_inference() and not torch.is_inference_mode_enabled():
            raise PlanError("a buffer was made in inference mode, where alone it can be changed")

    def given(name: str, module: nn.Module, buffer: torch.Tensor) -> torch.Tensor | None:
        if id(buffer) in made:
            return made[id(buffer)].reshape(buffer.shape)
        return None if buffers is None else buffers(name, module, buffer)

    apply(weights, described, device, given)
    with torch.no_grad():
        for buffer, value in alive:
            _copy(buffer, value.reshape(buffer.shape))


def _plain(plan: Plan, path: str) -> Array:
    """Values as integers of their width where NumPy and PyTorch have no dtype in common."""
    values = plan.fill(path).reshape(-1)
    return values if values.dtype.kind in "biufc" else values.view(f"u{values.itemsize}")


def _copy(buffer: torch.Tensor, value: torch.Tensor) -> None:
    memory, rectangles = local(buffer)
    for window, place in rectangles:
        memory[place].copy_(value[window])


def buffer_differences(plan: Plan, described: Described) -> Iterator[Mismatch]:
    """Where a module's buffers are not those of a plan."""
    slots = _slots(plan, described)
    for tensor in plan.tensors:
        path = tensor.path
        if path not in slots:
            yield Mismatch(path, "is no buffer of the model")
            continue
        buffer = slots[path][0].value
        if (tuple(buffer.shape), dtype_name(buffer.dtype)) != (tensor.shape, tensor.dtype):
            said = f"{dtype_name(buffer.dtype)} {tuple(buffer.shape)}"
            yield Mismatch(path, f"{said}, planned {tensor.dtype} {tensor.shape}")
        elif buffer.is_meta:
            yield Mismatch(path, "has no values: it is on the meta device")
        elif plan.sets(path):
            memory, rectangles = local(buffer)
            for window, place in rectangles:
                yield from first_difference(plan, path, window, partial(_values, memory.detach()[place]))


def _values(tensor: torch.Tensor, window: Any) -> Array:
    return as_array(tensor[window].cpu())


def reader(plan: Plan, described: Described) -> Callable[[str], Array]:
    """A function that gives the present values of a parameter of a plan."""
    places = {tensor.path: mine.path for tensor, mine in paired(split(plan)[0], described.model)}

    def read(path: str) -> Array:
        value = described.slots[places[path]][0].value.detach()
        if value.is_meta:
            raise PlanError(f"{path!r} is on the meta device and has no values")
        full = getattr(value, "full_tensor", None)
        return as_array((value if full is None else full()).cpu().contiguous())

    return read
