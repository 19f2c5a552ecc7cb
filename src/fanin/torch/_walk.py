"""From a module to a `fanin.model.Model`: canonical names, wrappers, ties, parametrizations, blocks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from fanin.dtypes import KNOWN
from fanin.errors import DtypeError, PlanError
from fanin.model import Model, Piece, Tensor
from fanin.torch._activations import followers
from fanin.torch._facts import facts_of, head_of
from fanin.torch._layers import LAYERS, Pieces, unknown
from fanin.torch._tensors import dtype_name
from fanin.torch._transformers import transformers_layer

# Wrappers by their type, and the attribute that holds what they wrap: no part of a canonical name.
DISTRIBUTED = "torch.distributed."
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.optim.swa_utils.AveragedModel": "module",
    f"{DISTRIBUTED}algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper": "_checkpoint_wrapped_module",
    f"{DISTRIBUTED}fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
}
# Modules that keep their weights where no parameter shows.
PACKED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")


@dataclass(frozen=True)
class Place:
    """A module where it stands, with its path in storage and its canonical name, both with their last dot."""

    module: nn.Module
    path: str
    name: str
    block: int | None


class Slot(NamedTuple):
    """One place where a parameter is kept."""

    module: nn.Module
    attribute: str
    path: str
    name: str


@dataclass(frozen=True)
class Described:
    """The facts of a module, where each stored tensor is kept, and all its modules."""

    model: Model
    slots: Mapping[str, tuple[Slot, ...]]
    places: tuple[Place, ...]


def describe(module: nn.Module) -> Described:
    """Every parameter of a module once, and what is known of it. Nothing is touched.

    Raises
    ------
    PlanError
        When a parameter cannot be set: it has no shape yet, is quantized, or is flattened into others.
    """
    if not isinstance(module, nn.Module):
        raise PlanError(f"`model` must be a torch.nn.Module, got {type(module).__name__}")
    found = tuple(places(module))
    said = _said(found)
    kept: dict[int, list[Slot]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for place in found:
        for attribute, tensor in _parameters(place):
            slot = Slot(place.module, attribute, place.path + attribute, place.name + attribute)
            _check(slot, tensor)
            kept.setdefault(_identity(tensor), []).append(slot)
            tensors.setdefault(_identity(tensor), tensor)
    stored, slots = [], {}
    for key, tensor in tensors.items():
        ordered = sorted(kept[key], key=lambda slot: (not _is_table(said.get(slot.name)), slot.name))
        first = ordered[0]
        pieces = said.get(first.name) or (unknown(first.module, first.name, tensor),)
        others = tuple(slot.path for slot in ordered[1:])
        stored.append(Tensor(first.path, tuple(tensor.shape), _dtype(first, tensor), pieces, others))
        slots[first.path] = tuple(ordered)
    return Described(Model(tuple(stored), facts_of(module, found)), slots, found)


def places(module: nn.Module, path: str = "", name: str = "", block: int | None = None) -> Iterator[Place]:
    """Every module, once for each place it stands at, parents first; wrappers leave no trace in names."""
    attribute = wrapped(module)
    if attribute is not None:
        yield from places(getattr(module, attribute), f"{path}{attribute}.", name, block)
        return
    yield Place(module, path, name, block)
    blocks = block is None and _lists_blocks(module)
    for child, held in module._modules.items():
        inner = child == "parametrizations" and parametrize.is_parametrized(module)
        if held is not None and not inner:
            at = int(child) if blocks else block
            yield from places(held, f"{path}{child}.", f"{name}{child}.", at)


def wrapped(module: nn.Module) -> str | None:
    """The attribute in which a wrapper holds its module; None if it is none."""
    kinds = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(module).__mro__)
    return next((WRAPPERS[kind] for kind in kinds if kind in WRAPPERS), None)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module in its wrappers."""
    while (attribute := wrapped(module)) is not None:
        module = getattr(module, attribute)
    return module


def _lists_blocks(module: nn.Module) -> bool:
    """Whether it lists modules of one type with children of their own: the blocks of a deep network."""
    if not isinstance(module, nn.ModuleList | nn.Sequential) or len(module) < 2:
        return False
    listed = [unwrapped(child) for child in module]
    return len({type(child) for child in listed}) == 1 and all(any(child.children()) for child in listed)


def _said(found: tuple[Place, ...]) -> dict[str, tuple[Piece, ...]]:
    """What layers say of their parameters: {where a parameter is, in canonical words: its pieces}."""
    after, head = followers([place.module for place in found]), head_of(found[0].module)
    said: dict[str, tuple[Piece, ...]] = {}
    for place in found:
        for relative, pieces in _pieces_of(place.module).items():
            several = (pieces,) if isinstance(pieces, Piece) else tuple(pieces)
            said.setdefault(
                place.name + relative,
                tuple(
                    replace(
                        piece,
                        name=place.name + piece.name,
                        role="head" if place.module is head and piece.role == "kernel" else piece.role,
                        block=place.block,
                        activation=piece.activation or after.get(id(place.module)),
                    )
                    for piece in several
                ),
            )
    return said


def _pieces_of(module: nn.Module) -> Pieces:
    """What a module says of its parameters and its descendants', by the nearest type that is known."""
    for kind in type(module).__mro__:
        if layer := LAYERS.get(kind) or transformers_layer(kind):
            return layer(module)
    return {}


def _parameters(place: Place) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters a module itself keeps; of a parametrized one the value, not what it is computed from."""
    module = place.module
    if type(module).__module__.startswith(PACKED):
        raise PlanError(
            f"{place.name[:-1]!r}: {type(module).__name__} is quantized; initialize before quantizing"
        )
    if any(type(hook).__name__ == "WeightNorm" for hook in module._forward_pre_hooks.values()):
        raise PlanError(
            f"{place.name[:-1]!r} has the old torch.nn.utils.weight_norm, which computes its weight from two "
            f"others; use torch.nn.utils.parametrizations.weight_norm"
        )
    for attribute, parameter in module._parameters.items():
        if parameter is not None:
            yield attribute, parameter
    if parametrize.is_parametrized(module):
        for attribute in module.parametrizations:  # type: ignore[union-attr]
            with torch.no_grad():
                yield attribute, getattr(module, attribute)


def _check(slot: Slot, tensor: torch.Tensor) -> None:
    if is_lazy(tensor):
        raise PlanError(
            f"{slot.name!r} has no shape before the model's first forward; call the model on a batch first"
        )
    if type(tensor).__name__ == "FlatParameter":
        raise PlanError(
            f"{slot.name!r} holds several parameters, flattened by FullyShardedDataParallel; initialize "
            f"before wrapping, or use torch.distributed.fsdp.fully_shard"
        )


def _dtype(slot: Slot, tensor: torch.Tensor) -> str:
    if dtype_name(tensor.dtype) not in KNOWN:
        raise DtypeError(
            f"{slot.name!r} has dtype {tensor.dtype}, which holds no weights that can be drawn; initialize "
            f"before quantizing; expected one of {', '.join(KNOWN)}"
        )
    return dtype_name(tensor.dtype)


def _identity(tensor: torch.Tensor) -> Any:
    """What tied parameters share: the object, or, where they have some, the memory."""
    if tensor.is_meta or tensor.numel() == 0 or tensor.layout != torch.strided or type(tensor) not in PLAIN:
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


PLAIN = (torch.Tensor, nn.Parameter)


def _is_table(pieces: tuple[Piece, ...] | None) -> bool:
    return bool(pieces) and all(piece.role == "embedding" for piece in pieces or ())
