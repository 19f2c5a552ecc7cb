"""Ranks that initialize a sharded model agree on what it is, before anything is written."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.distributed as dist

from fanin import planning
from fanin.errors import PlanError
from fanin.plan import Plan

HINT = "give all ranks the same recipe and seed"


class Said(NamedTuple):
    """What a rank says of its plan: some three hundred bytes, whatever the model."""

    seed: int
    contract: str
    recipe: str
    names: str
    plan: str


def agree(plan: Plan) -> None:
    """Compare seeds, contracts and plans between all ranks: one small gather.

    Ranks of one pipeline stage have the same plan. Those of different stages have different parameters, all
    of them: a name in two stages whose other names differ would draw the same numbers for two tensors. One
    rank of each stage tells its names.

    Raises
    ------
    PlanError
        On every rank alike; also when a rank has died or does not come before the process group's timeout.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    names = [row.key for row in plan.rows]
    mine = Said(plan.seed, plan.contract, plan.recipe, _digest("\n".join(names)), plan.identity())
    everyone: list[Any] = [None] * dist.get_world_size()
    _together(dist.all_gather_object, everyone, mine)
    told = [{"seed": s.seed, "value contract": s.contract, "recipe": s.recipe} for s in everyone]
    planning.agree("ranks", told)
    stages = list(dict.fromkeys(said.names for said in everyone))
    if len({said.plan for said in everyone}) > len(stages):
        raise PlanError(f"ranks have the same parameters, but plan them differently; {HINT}")
    if len(stages) > 1:
        _check_apart(names, [[said.names for said in everyone].index(stage) for stage in stages])


@contextmanager
def together() -> Iterator[None]:
    """An error of one rank is raised by all: what one refuses, none writes.

    Raises
    ------
    PlanError
        On the other ranks, naming it.
    """
    mine: Exception | None = None
    try:
        yield
    except Exception as error:
        mine = error
    everyone: list[str | None] = [None] * dist.get_world_size()
    _together(dist.all_gather_object, everyone, None if mine is None else str(mine))
    if mine is not None:
        raise mine
    for rank, said in enumerate(everyone):
        if said is not None:
            raise PlanError(f"rank {rank}: {said}; nothing has been written")


def _check_apart(names: list[str], speakers: list[int]) -> None:
    """No name is in two stages; ``speakers`` has one rank of each."""
    claimed: set[str] = set()
    for rank in speakers:
        told: list[Any] = [names if dist.get_rank() == rank else None]
        _together(dist.broadcast_object_list, told, src=rank)
        if both := claimed.intersection(told[0]):
            raise PlanError(
                f"two pipeline stages have a parameter {min(both)!r}; if their names were counted afresh, "
                f"give each stage its own name_prefix='...'"
            )
        claimed.update(told[0])


def _together(collective: Callable[..., object], *arguments: Any, **options: Any) -> None:
    try:
        collective(*arguments, **options)
    except RuntimeError as error:  # a peer has died, or the process group's timeout has passed
        raise PlanError("a rank did not come to compare its plan; nothing has been written") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
