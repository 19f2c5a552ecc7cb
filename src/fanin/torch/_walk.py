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
from fanin.torch._parametrized import at_rest
from fanin.torch._tensors import dtype_name
from fanin.torch._transformers import transformers_layer
from fanin.torch._wrappers import unwrapped, wrapped

# Hooks that compute a parameter before each forward, and the parametrizations that replace them.
HOOKS = {"WeightNorm": "weight_norm", "SpectralNorm": "spectral_norm"}
# Where quantized modules keep their weights: no parameter shows them.
PACKED = ("_packed_params", "_packed_weight_ih", "_all_weight_values")


@dataclass(frozen=True)
class Place:
    """A module where it stands, with its path in storage and its canonical name, both with their last dot.

    A wrapper has the name of what it wraps.
    """

    module: nn.Module
    path: str
    name: str
    block: int | None


class Slot(NamedTuple):
    """One place where a parameter is kept, or a value that a parametrization computes."""

    module: nn.Module
    attribute: str
    path: str
    name: str

    @property
    def parametrization(self) -> Any:
        """What computes its value from other tensors; None of a parameter."""
        if parametrize.is_parametrized(self.module, self.attribute):
            return self.module.parametrizations[self.attribute]  # type: ignore[index]
        return None

    @property
    def value(self) -> torch.Tensor:
        computed = self.parametrization
        if computed is None:
            return self.module._parameters[self.attribute]  # type: ignore[return-value]
        try:
            with torch.no_grad():
                return computed()  # type: ignore[no-any-return]
        except Exception as error:  # other people's code: what it says is passed on
            raise PlanError(f"{self.name!r}: its parametrization has no value: {error}") from error


@dataclass(frozen=True)
class Described:
    """The facts of a module, where each stored tensor is kept, and all its modules."""

    model: Model
    slots: Mapping[str, tuple[Slot, ...]]
    places: tuple[Place, ...]


def describe(module: nn.Module, name_prefix: str = "") -> Described:
    """Every parameter of a module once, and what is known of it. Nothing is touched.

    Canonical names begin with ``name_prefix``: that of the whole model, when this is a part of it.

    Raises
    ------
    PlanError
        When a parameter cannot be set: it has no shape yet, is quantized, or is flattened into others.
    """
    if not isinstance(module, nn.Module):
        raise PlanError(f"`model` must be a torch.nn.Module, got {type(module).__name__}")
    with at_rest(module):
        return _describe(module, name_prefix)


def _describe(module: nn.Module, name_prefix: str) -> Described:
    everywhere = tuple(places(module, name_prefix))
    found = tuple(place for place in everywhere if wrapped(place.module) is None)
    for place in found:
        _check_module(place)
    kept: dict[Any, list[Slot]] = {}
    tensors: dict[Any, torch.Tensor] = {}
    for place in found:
        for slot in _slots(place):
            tensor = slot.value
            _check(slot, tensor)
            computed = slot.parametrization
            key = _identity(tensor) if computed is None else id(computed)
            kept.setdefault(key, []).append(slot)
            tensors.setdefault(key, tensor if computed is None else torch.empty_like(tensor, device="meta"))
    said = _said(found)
    stored, slots = [], {}
    for key, tensor in tensors.items():
        ordered = sorted(kept[key], key=lambda slot: (not _is_table(said.get(slot.name)), slot.name))
        first = ordered[0]
        pieces = said.get(first.name) or (unknown(first.module, first.name, tensor),)
        others = tuple(slot.path for slot in ordered[1:])
        stored.append(Tensor(first.path, tuple(tensor.shape), _dtype(first, tensor), pieces, others))
        slots[first.path] = tuple(ordered)
    return Described(Model(tuple(stored), facts_of(module, found)), slots, everywhere)


def places(module: nn.Module, name_prefix: str = "") -> Iterator[Place]:
    """Every module, once for each place it stands at, parents first."""
    waiting = [(Place(module, "", name_prefix, None), frozenset[int]())]
    while waiting:
        place, above = waiting.pop()
        yield place
        above |= {id(place.module)}  # a module that holds one of those above it would have no end
        waiting += reversed([(each, above) for each in _held(place) if id(each.module) not in above])


def _held(place: Place) -> Iterator[Place]:
    module = place.module
    attribute = wrapped(module)
    if attribute is not None:
        yield Place(getattr(module, attribute), f"{place.path}{attribute}.", place.name, place.block)
        return
    blocks = place.block is None and _lists_blocks(module)
    for at, (name, child) in enumerate(module._modules.items()):
        inner = name == "parametrizations" and parametrize.is_parametrized(module)
        if child is not None and not inner:
            block = at if blocks else place.block
            yield Place(child, f"{place.path}{name}.", f"{place.name}{name}.", block)


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


def _check_module(place: Place) -> None:
    """Refuse a module whose weights are not where its parameters are."""
    kind, name = type(place.module), repr(place.name[:-1] or "model")
    if any(hasattr(place.module, attribute) for attribute in PACKED):
        raise PlanError(f"{name}: {kind.__name__} is quantized; initialize before quantizing")
    if isinstance(place.module, torch.jit.ScriptModule):
        raise PlanError(f"{name} is compiled by torch.jit; initialize before compiling")
    for hook in place.module._forward_pre_hooks.values():
        if old := HOOKS.get(type(hook).__name__):
            raise PlanError(
                f"{name} has the old torch.nn.utils.{old}, a hook that computes a parameter from others; use "
                f"torch.nn.utils.parametrizations.{old}"
            )


def _slots(place: Place) -> Iterator[Slot]:
    """The parameters a module itself keeps; of a parametrized one the value, not what it is computed from."""
    module = place.module
    attributes = [name for name, parameter in module._parameters.items() if parameter is not None]
    if parametrize.is_parametrized(module):
        chains = module.parametrizations.items()  # type: ignore[union-attr,operator]
        attributes += [name for name, chain in chains if chain._parameters]  # else it is a buffer
    for attribute in attributes:
        yield Slot(module, attribute, place.path + attribute, place.name + attribute)


def _check(slot: Slot, tensor: torch.Tensor) -> None:
    if is_lazy(tensor):
        raise PlanError(
            f"{slot.name!r} has no shape before the model's first forward; call the model on a batch first"
        )
    if getattr(tensor, "_is_flat_param", False):
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
    if tensor.numel() == 0 or tensor.layout != torch.strided or type(tensor) not in PLAIN:
        return id(tensor)
    where = tensor.untyped_storage()._cdata, tensor.storage_offset()
    return *where, tuple(tensor.shape), tensor.stride(), tensor.dtype


PLAIN = (torch.Tensor, nn.Parameter)


def _is_table(pieces: tuple[Piece, ...] | None) -> bool:
    return bool(pieces) and all(piece.role == "embedding" for piece in pieces or ())
