"""Buffers that a model on the meta device has lost: running statistics, positions, masks, rotary tables."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fanin.errors import PlanError
from fanin.torch._walk import Place

Buffers: TypeAlias = Callable[[str, nn.Module, torch.Tensor], torch.Tensor | None]
Device: TypeAlias = str | int | torch.device


class Rebuilt(NamedTuple):
    """A buffer, and the value it had lost."""

    module: nn.Module
    attribute: str
    value: torch.Tensor


def rebuild(places: Iterable[Place], device: Device | None, buffers: Buffers | None) -> list[Rebuilt]:
    """A value for every buffer on the meta device; nothing is set.

    Raises
    ------
    PlanError
        Naming a buffer whose value nothing tells, and the module it belongs to.
    """
    found = []
    for place in places:
        for attribute, buffer in place.module._buffers.items():
            if buffer is None or not buffer.is_meta:
                continue
            value = buffers(place.name + attribute, place.module, buffer) if buffers else None
            if value is None and isinstance(place.module, _NormBase):
                value = torch.full_like(buffer, float(attribute == "running_var"), device=device)
            if value is None:
                raise PlanError(f"{place.name + attribute!r} of {type(place.module).__name__} is lost")
            found.append(Rebuilt(place.module, attribute, value))
    return found
