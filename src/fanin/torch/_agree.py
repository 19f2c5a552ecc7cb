"""Ranks that initialize a sharded model agree on what it is, before anything is written."""

import hashlib
from typing import Any

import torch.distributed as dist

from fanin.errors import PlanError
from fanin.plan import Plan

HINT = "give every rank the same recipe and seed"


def agree(plan: Plan) -> None:
    """Compare seeds, contracts and plans between all ranks: one small gather of a few bytes each.

    Ranks of one pipeline stage have the same plan. Those of different stages have different parameters, all
    of them: a name in two stages whose other names differ would draw the same numbers for two tensors.

    Raises
    ------
    PlanError
        On every rank alike; also when a rank has died or does not come before the process group's timeout.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    mine = (plan.seed, plan.contract, plan.recipe, _names_digest(plan))
    everyone = _gathered(mine)
    for what, at in (("seed", 0), ("value contract", 1), ("recipe", 2)):
        values = {each[at] for each in everyone}
        if len(values) > 1:
            raise PlanError(f"ranks differ in the {what}: {', '.join(map(str, sorted(values)))}; {HINT}")
    if len({each[3] for each in everyone}) == 1:
        _check_same(plan)
        return
    claimed: dict[str, str] = {}
    for names, digest in set(_gathered((tuple(row.key for row in plan.rows), mine[3]))):
        for name in names:
            if claimed.setdefault(name, digest) != digest:
                raise PlanError(
                    f"two pipeline stages have a parameter {name!r}; if their names were counted afresh, "
                    f"give each stage its own name_prefix='...'"
                )


def _check_same(plan: Plan) -> None:
    digest = hashlib.sha256(plan.to_json().encode()).hexdigest()
    if len(set(_gathered(digest))) > 1:
        raise PlanError(f"ranks have the same parameters, but plan them differently; {HINT}")


def _names_digest(plan: Plan) -> str:
    return hashlib.sha256("\n".join(row.key for row in plan.rows).encode()).hexdigest()


def _gathered(value: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    try:
        dist.all_gather_object(found, value)
    except RuntimeError as error:  # a peer has died, or the process group's timeout has passed
        raise PlanError("a rank did not come to compare its plan; nothing has been written") from error
    return found
