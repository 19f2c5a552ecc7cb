"""What the verbs of all adapters have in common: from a recipe to a plan, and from a plan back to a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from fanin import recipes
from fanin.errors import PlanError
from fanin.model import BUFFER, Model, Tensor
from fanin.plan import Plan, resolve
from fanin.recipe import KEEP, Recipe
from fanin.recipes import RecipeLike

PlanLike: TypeAlias = "RecipeLike | Plan"


def planned(model: Model, recipe: PlanLike, seed: int | None) -> Plan:
    """The plan of a model from a recipe, its name or file, an initializer, or a plan or its file.

    Examples
    --------
    >>> from fanin.fans import OI
    >>> from fanin.model import Piece
    >>> weight = Tensor("w", (2, 3), "float32", (Piece("w", "kernel", "linear", OI),))
    >>> planned(Model((weight,)), "he_normal", 0)["w"].fans
    Fans(fan_in=3, fan_out=2)
    """
    if isinstance(recipe, str | Path) and str(recipe).endswith(".json") and Plan.is_file(recipe):
        recipe = Plan.from_file(recipe)
    if isinstance(recipe, Plan):
        if seed is not None and seed != recipe.seed:
            raise PlanError(f"`seed` {seed}: the plan has its own, {recipe.seed}; leave it out")
        return recipe
    return resolve(model, recipes.concrete(recipe, model.facts), seed)


def kept(model: Model) -> Plan:
    """A plan that keeps everything: how a model is stored, and no more."""
    return resolve(model, Recipe([("*", KEEP)], name=KEEP), 0)


def has_buffers(plan: Plan) -> bool:
    """Whether it speaks of more than parameters, as those do that keep everything or take a checkpoint."""
    return any(tensor.pieces[0].role == BUFFER for tensor in plan.tensors)


def without_kept_buffers(plan: Plan) -> tuple[Plan, list[str]]:
    """A plan without the buffers that stay as they are, and their names: no file can be made of these.

    >>> from fanin.fans import OI
    >>> from fanin.model import Piece
    >>> plan = kept(Model((Tensor("steps", (), "int64", (Piece("steps", BUFFER, "norm", OI),)),)))
    >>> without_kept_buffers(plan)[1]
    ['steps']
    """
    left_out = {row.name: row.path for row in plan.rows if row.role == BUFFER and row.initializer is None}
    paths = set(left_out.values())
    tensors = tuple(tensor for tensor in plan.tensors if tensor.path not in paths)
    rows = tuple(row for row in plan.rows if row.path not in paths)
    return replace(plan, tensors=tensors, rows=rows), list(left_out)


def paired(plan: Plan, model: Model) -> Iterator[tuple[Tensor, Tensor]]:
    """Each tensor of a plan beside that of a model, paired by the canonical names in them.

    Raises
    ------
    PlanError
        When the plan is for another model.
    """
    sizes = {tensor.pieces[0].name: tensor.pieces[0].axes.logical for tensor in plan.tensors}
    model = model.unpadded({name: shape for name, shape in sizes.items() if shape is not None})
    kept = {tuple(piece.name for piece in tensor.pieces): tensor for tensor in model.tensors}
    wanted = {tuple(piece.name for piece in tensor.pieces): tensor for tensor in plan.tensors}
    for names in kept.keys() ^ wanted.keys():
        where = "plan" if names in kept else "model"
        raise PlanError(f"{names[0]!r} is not in the {where}; make the plan for this model")
    for names, tensor in wanted.items():
        mine = kept[names]
        if (mine.shape, mine.dtype, mine.pieces) != (tensor.shape, tensor.dtype, tensor.pieces):
            raise PlanError(
                f"{names[0]!r}: the plan is for {tensor.dtype} {tensor.shape}, the model has {mine.dtype} "
                f"{mine.shape}; make the plan for this model"
            )
        yield tensor, mine


def agree(who: str, told: Sequence[Mapping[str, Any]]) -> None:
    """Compare what ranks, or processes, say of their plans, each by the same words.

    Raises
    ------
    PlanError
        The first word in which they differ, and what they say.

    Examples
    --------
    >>> agree("processes", [{"seed": 1}, {"seed": 2}])
    Traceback (most recent call last):
    fanin.errors.PlanError: processes differ in the seed: 1, 2; give all processes the same recipe and seed
    """
    for what in told[0]:
        values = {said[what] for said in told}
        if len(values) > 1:
            raise PlanError(
                f"{who} differ in the {what}: {', '.join(map(str, sorted(values)))}; give all {who} the same "
                f"recipe and seed"
            )
