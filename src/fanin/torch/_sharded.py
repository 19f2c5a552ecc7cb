"""Which rectangles of a full tensor a rank holds of a DTensor, and where in its memory. No communication."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from fanin._types import Window
from fanin.errors import OutError

Run: TypeAlias = tuple[int, int]  # a half-open range of the full tensor's indexes along one axis


def rectangles(
    shape: Sequence[int], mesh: Sequence[int], at: Sequence[int], placements: Sequence[Placement]
) -> Iterator[tuple[Window, Window]]:
    """(window of the full tensor, place in the local one) of each rectangle that one rank holds.

    A plain shard is one rectangle; one made by FSDP2 over tensor parallelism along the same axis may be as
    many as there are tensor-parallel ranks.

    Parameters
    ----------
    shape : sequence of int
        Of the full tensor.
    mesh, at : sequence of int
        The sizes of the device mesh, and the coordinate of the rank in it.
    placements : sequence of Placement
        One for each axis of the mesh, applied from left to right.

    Examples
    --------
    >>> list(rectangles((5, 4), (2,), (1,), [Shard(0)]))
    [((slice(3, 5, None), slice(0, 4, None)), (slice(0, 2, None), slice(0, 4, None)))]
    """
    runs: list[list[Run]] = [[(0, size)] for size in shape]
    for parts, mine, placement in zip(mesh, at, placements, strict=True):
        if isinstance(placement, Shard | _StridedShard):
            axis = placement.dim % len(shape)
            outer = int(placement.split_factor) if isinstance(placement, _StridedShard) else 1
            runs[axis] = _shard(runs[axis], parts, mine, outer)
        elif not isinstance(placement, Replicate):
            raise OutError(
                f"a tensor placed {placement} holds sums in progress, no values; pass Shard or Replicate"
            )
    places = [list(_places(along)) for along in runs]
    for pairs in itertools.product(*places):
        yield tuple(slice(*run) for run, _ in pairs), tuple(slice(*place) for _, place in pairs)


def _shard(runs: list[Run], parts: int, mine: int, outer: int) -> list[Run]:
    """The share of one rank, as ``torch.chunk`` cuts: of each of ``outer`` chunks, its chunk of ``parts``."""
    total = sum(stop - start for start, stop in runs)
    kept: list[Run] = []
    for start, stop in _chunks(total, outer):
        low, high = list(_chunks(stop - start, parts))[mine]
        kept += _between(runs, start + low, start + high)
    return kept


def _chunks(total: int, parts: int) -> Iterator[Run]:
    size = math.ceil(total / parts)
    for part in range(parts):
        yield min(part * size, total), min((part + 1) * size, total)


def _between(runs: list[Run], low: int, high: int) -> Iterator[Run]:
    """The elements low .. high of the concatenation of some runs."""
    passed = 0
    for start, stop in runs:
        first, last = max(low - passed, 0), min(high - passed, stop - start)
        if first < last:
            yield start + first, start + last
        passed += stop - start


def _places(runs: list[Run]) -> Iterator[tuple[Run, Run]]:
    """Each run, joined with those it continues, and where it lies in the local tensor."""
    joined: list[Run] = []
    for start, stop in runs:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    at = 0
    for start, stop in joined:
        if stop > start:
            yield (start, stop), (at, at + stop - start)
        at += stop - start


def local_memory(tensor: torch.Tensor) -> torch.Tensor:
    """What a rank holds of a tensor: all of a plain one."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor


def with_local_memory(tensor: DTensor, device: Any) -> torch.nn.Parameter:
    """A sharded parameter like one on the meta device, whose own part has memory."""
    memory = torch.empty_like(tensor._local_tensor, device=device, requires_grad=False)
    whole = DTensor.from_local(
        memory,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )
    return torch.nn.Parameter(whole, requires_grad=tensor.requires_grad)


def reshard(modules: Iterable[torch.nn.Module]) -> None:
    """Let FSDP2 hold its shards: after a forward the parameters it shows may be gathered copies."""
    for module in modules:
        if isinstance(module, FSDPModule):
            module.reshard()


def resharded(modules: Iterable[torch.nn.Module]) -> None:
    """Tell FSDP2 of parameters that have been replaced."""
    with torch.no_grad():
        for module in modules:
            if isinstance(module, FSDPModule):
                groups: Any = module._get_fsdp_state()._fsdp_param_groups
                for group in groups:
                    for parameter in group.fsdp_params:
                        parameter.reset_sharded_param()


def local(tensor: torch.Tensor) -> tuple[torch.Tensor, list[tuple[Window, Window]]]:
    """The memory of a tensor on this rank, and the rectangles of the full tensor in it."""
    if not isinstance(tensor, DTensor):
        whole = tuple(slice(0, size) for size in tensor.shape)
        return tensor, [(whole, whole)]
    memory: torch.Tensor = tensor._local_tensor
    at: Any = tensor.device_mesh.get_coordinate()
    if at is None:  # the rank is not in this mesh
        return memory, []
    found = list(rectangles(tensor.shape, tensor.device_mesh.shape, at, tensor.placements))
    return memory, [(window, place) for window, place in found if all(p.stop > p.start for p in place)]
