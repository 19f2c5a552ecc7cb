"""A checkpoint, a recipe and a model to one plan: each parameter taken, adapted, drawn, kept, or an error."""

import math
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeAlias

from fanin import plan as plans
from fanin import recipes
from fanin.errors import ArgumentError, FaninError, PlanError, near
from fanin.fans import IO, OI, Axes
from fanin.initializers import Zeros
from fanin.model import BUFFER, Member, Model, Piece, Tensor
from fanin.plan import Plan, Row
from fanin.recipe import KEEP, Recipe, Rule, named
from fanin.recipes import RecipeLike
from fanin.streams import check_seed
from fanin.transfer.adapters import ADAPTERS, ALWAYS, DRAWING, would_do
from fanin.transfer.looking import look
from fanin.transfer.names import also, renamed, suggested
from fanin.transfer.pretrained import Part, Pretrained, step_of
from fanin.transfer.recurrent import beside, is_first, is_inner
from fanin.transfer.sources import Source, opened

Adapt: TypeAlias = Mapping[str, Any]
SHOWN = 4  # of what is missing, in an error
STACKED = 4  # a warning is of the line that called the verb
STACK = ("spread", "repeat", "interpolate")
UNSET = Zeros()  # by identity: what no rule of a recipe is for
LAYOUTS = {"oi": OI, "io": IO}


@dataclass(frozen=True)
class Change:
    """What `adapt` says of parameters: ``"draw"``, ``"keep"``, or steps; and how layers are stacked."""

    glob: str
    what: str
    steps: tuple[Any, ...] = ()
    stack: str | None = None


@dataclass(frozen=True)
class Found:
    """Where a parameter is in a checkpoint: the key, which part of it, its shape and how that is made up."""

    key: str
    part: Part | tuple[Part, ...] | None
    shape: tuple[int, ...]  # canonical
    merged: tuple[int, ...]  # outputs, inputs, field
    counts: tuple[int, int]  # of the axes that are outputs, and inputs


def names_in(
    checkpoint: str | Path, rename: Mapping[str, str] | None = None, inside: str | None = None
) -> dict[str, str]:
    """The names in a checkpoint after renaming, and its own keys."""
    return renamed(opened(os.path.abspath(checkpoint), inside).checkpoint.tensors, rename or {})


def resolve(
    model: Model,
    checkpoint: str | Path,
    recipe: "RecipeLike | None" = None,
    *,
    seed: int | None = None,
    rename: Mapping[str, str] | None = None,
    adapt: Adapt | None = None,
    source: Plan | Model | str | Path | None = None,
    layout: Literal["oi", "io"] | None = None,
    inside: str | None = None,
    allow_nonfinite: bool = False,
    digests: bool = True,
    values: bool = True,
) -> Plan:
    """What each parameter and buffer of a model takes from a checkpoint, and what the recipe draws.

    Parameters
    ----------
    model : Model
        What an adapter found, buffers too (role ``"buffer"``).
    checkpoint : path
        Of any format that `fanin.checkpoints.open` reads.
    recipe : optional
        For what the checkpoint lacks; without one, that is an error.
    seed : int, optional
        Needed where something is drawn.
    rename : mapping, optional
        Keys of the checkpoint to the model's: ``{"transformer.h": "blocks"}`` for fronts, or globs.
    adapt : mapping, optional
        For names or paths by glob, the first that fits: an adapter, ``(adapter, options)``, several in a
        list, ``"draw"``, ``"keep"``, or ``("stack", {"how": ...})`` for another number of layers. Adapters
        other than `transpose` and `classes` are for shapes that differ and leave others alone.
    source : Plan, path or Model, optional
        Of the model that the checkpoint is of, in any framework: says how each tensor is stored, fused and
        called; parameters are then paired by their canonical names. The plan by the recipe ``"keep"`` has
        buffers too, and the names that Keras's files use. Of a recurrent gate's two biases, one that the
        model lacks is added to the other, one that the source lacks is zero.
    layout : "oi" or "io", optional
        How kernels are stored in the checkpoint, when not as in the model: "io" is Keras's, Flax's and
        TensorFlow's (field, in, out).
    inside : str, optional
        `key` of `fanin.checkpoints.open`.
    allow_nonfinite : bool
        Take NaN and infinities, too.
    digests : bool
        Whether the plan, when it is saved, holds the SHA-256 of each tensor it takes.
    values : bool
        Whether to `look` at what is taken. Not needed where it will be written into new memory, which is
        dropped after an error.

    Warns
    -----
    UserWarning
        When something would be drawn though the checkpoint has unused tensors of its shape and a like name.

    Raises
    ------
    PlanError
        When something is missing, has another shape, is not finite, or does not fit its dtype.
    CheckpointError
        When the checkpoint is damaged.
    """
    file = os.path.abspath(checkpoint)
    opened_source = opened(file, inside)
    names = names_in(file, rename, inside)
    changes = [_change(glob, what) for glob, what in (adapt or {}).items()]
    base = _drawn(model, recipe, 0 if seed is None else check_seed(seed))
    unpadded = {tensor.path: tensor for tensor in base.tensors}
    model = replace(model, tensors=tuple(unpadded.get(tensor.path, tensor) for tensor in model.tensors))
    finder = _Finder(opened_source, names, _stored(source), layout, model)
    rows: list[Row] = []
    used: set[str] = set()
    unset: dict[str, tuple[int, ...]] = {}
    hits: set[str] = set()
    settled: set[str] = set()
    wanted: list[tuple[Row, Tensor, Change | None, Found]] = []
    for tensor in model.tensors:
        for piece in tensor.pieces:
            for member in piece.members(tensor.shape):
                row = base[member.name] if piece.role != BUFFER else _kept(tensor, piece, member)
                change = next((each for each in changes if _fits(each.glob, row, tensor)), None)
                hits |= {change.glob} if change else set()
                found, keys = finder.search(tensor, piece, member, change)
                used |= keys
                settled |= {member.name} if found or change else set()
                if found is None and change is None and finder.is_summed(member.name):
                    row = replace(row, initializer=Zeros(), source="constant", rule="its sum is in bias_ih")
                if change is not None and change.what == KEEP:
                    row = replace(
                        row, initializer=None, source=KEEP, mean=None, std=None, rule=f"adapt {change.glob}"
                    )
                elif found is not None:
                    wanted.append((row, tensor, change, found))
                elif row.initializer is UNSET and change is not None and change.what == "draw":
                    raise PlanError(f"{row.name!r} is to be drawn, and no recipe says how; give a `recipe`")
                elif row.initializer is UNSET:
                    unset[tensor.path] = tensor.shape
                rows.append(row)
    _check_used(changes, hits, rows)
    tensors = opened_source.checkpoint.tensors
    unexpected = tuple(key for key in tensors if key not in used)
    spare = {name: tensors[key].shape for name, key in names.items() if key not in used}
    if unset or not wanted:
        raise PlanError(_missing(file, unset, model, spare))
    drawn = [row for row in rows if row.source == "draw" and row.name not in settled]
    _warn_of_likely(file, {row.path: unpadded[row.path].shape for row in drawn}, spare)
    taken = {}
    for row, tensor, change, found in wanted:
        taken[row.name] = _taken(
            file, opened_source, row, tensor, change, found, inside, allow_nonfinite, digests, finder
        )
    final = tuple(taken.get(row.name, row) for row in rows)
    if any(_draws(row) for row in final):
        seed = check_seed(seed)
    name = base.recipe if any(_draws(row) for row in final) else "transfer"
    plan = Plan(seed or 0, name, model.tensors, final, dict(model.facts), unexpected=unexpected)
    if values:
        look(plan)
    return plan


def _change(glob: str, what: Any) -> Change:
    if what in ("draw", KEEP):
        return Change(glob, what)
    pair = isinstance(what, tuple) and len(what) == 2 and isinstance(what[1], Mapping)
    listed = [what] if isinstance(what, str) or pair else what
    if not isinstance(listed, Sequence) or not listed:
        raise ArgumentError(
            f"`adapt` {glob!r}: expected an adapter, (adapter, options), 'draw' or 'keep', got {what!r}"
        )
    steps, stack = [], None
    for each in listed:
        if each == "stack" or (
            isinstance(each, Sequence) and not isinstance(each, str) and each[0] == "stack"
        ):
            options = {} if isinstance(each, str) else dict(each[1])
            stack = options.pop("how", "spread")
            if options or stack not in STACK:
                raise ArgumentError(
                    f"`adapt` {glob!r}: stack takes `how`, one of {', '.join(STACK)}; got {each!r}"
                )
            continue
        try:
            steps.append(step_of(each))
        except FaninError as error:
            known = [*ADAPTERS, "stack", "draw", KEEP]
            raise ArgumentError(f"`adapt` {glob!r}: {error} (adapters: {', '.join(known)})") from error
    return Change(glob, "adapt", tuple(steps), stack)


def _check_used(changes: list[Change], hits: set[str], rows: list[Row]) -> None:
    for change in changes:
        if change.glob not in hits:
            known = near(change.glob, [row.name for row in rows][:500])
            raise ArgumentError(f"`adapt` {change.glob!r} fits no parameter; {known}")


def _fits(glob: str, row: Row, tensor: Tensor) -> bool:
    return any(fnmatchcase(name, glob) for name in (row.name, row.path, *tensor.ties))


def _drawn(model: Model, recipe: "RecipeLike | None", seed: int) -> Plan:
    """What the recipe would draw everywhere; what it has no rule for is `UNSET`."""
    weights = replace(
        model, tensors=tuple(tensor for tensor in model.tensors if tensor.pieces[0].role != BUFFER)
    )
    rest = Rule(named("*"), UNSET, optional=True)
    # not `everything`: it must stay one rule
    if recipe is None:
        return plans.resolve(weights, _Rest([rest], name="transfer"), seed)
    of = recipes.concrete(recipe, model.facts)
    options: dict[str, Any] = {what: getattr(of, what) for what in ("keys", "alias", "unpadded", "name")}
    return plans.resolve(weights, _Rest((*of.concrete, rest), **options), seed)


class _Rest(Recipe):
    """A recipe whose rules are as they are written."""

    @property
    def concrete(self) -> tuple[Rule, ...]:
        return self.rules


def _kept(tensor: Tensor, piece: Piece, member: Member) -> Row:
    start = piece.own
    return Row(
        name=member.name, path=tensor.path, shape=member.shape, axes=member.axes, role=piece.role,
        layer=piece.layer, rule="as it is" if start is None else "as its layer starts",
        initializer=start, fans=None, mean=None, std=None, dtype=tensor.dtype,
        source=KEEP if start is None else "constant", key=member.name,
    )  # fmt: skip


def _stored(source: Plan | Model | str | Path | None) -> dict[str, tuple[Tensor, Piece, Member]] | None:
    if source is None:
        return None
    if isinstance(source, str | Path):
        source = Plan.from_file(source)
    return {
        member.name: (tensor, piece, member)
        for tensor in source.tensors
        for piece in tensor.pieces
        for member in piece.members(tensor.shape)
    }


class _Finder:
    """Where each parameter is in a checkpoint."""

    def __init__(
        self,
        source: Source,
        names: dict[str, str],
        stored: dict[str, tuple[Tensor, Piece, Member]] | None,
        layout: str | None,
        model: Model,
    ) -> None:
        if layout is not None and layout not in LAYOUTS:
            raise ArgumentError(f"`layout` {layout!r}; expected one of {', '.join(sorted(LAYOUTS))}")
        self.tensors, self.source = source.checkpoint.tensors, source
        said = source.checkpoint.metadata
        self.names, self.stored = also(said, places=stored is not None) | names, stored
        self.by_ties = "places" in said  # a file of Keras, which has no variable's own path
        self.axes = None if layout is None else LAYOUTS[layout]
        self.paths = {path for tensor in model.tensors for path in (tensor.path, *tensor.ties)}
        self.members = {
            member.name
            for tensor in model.tensors
            for piece in tensor.pieces
            for member in piece.members(tensor.shape)
        }
        self.blends: dict[str, tuple[tuple[str, float], ...]] = {}

    def search(
        self, tensor: Tensor, piece: Piece, member: Member, change: Change | None
    ) -> tuple[Found | None, set[str]]:
        """Where to take a parameter from, if anywhere, and the keys that are dealt with thereby."""
        if change is not None and change.what in ("draw", KEEP):
            return None, self.set_aside(tensor, member)
        found = self.find(tensor, piece, member, change.stack if change else None)
        return found, set() if found is None else self.aliases(tensor, found)

    def find(self, tensor: Tensor, piece: Piece, member: Member, stack: str | None) -> Found | None:
        """None where the checkpoint has no such parameter."""
        if self.stored is not None and stack is not None:
            return self._stacked(member, piece.block, stack, self.stored)
        if self.stored is not None:
            return self._by_source(member)
        for path in self.known(tensor):
            if (place := self._place(path, piece.block, stack)) is not None:
                return self._found(place, tensor, piece, member)
        if (place := self._place(member.name, piece.block, stack)) is not None:
            return self._plain(place, piece, member.name, member.axes)
        return None

    def set_aside(self, tensor: Tensor, member: Member) -> set[str]:
        """The keys of a parameter that is not to be taken."""
        paths = (*self.known(tensor), member.name)
        return {self.names[path] for path in paths if path in self.names}

    def aliases(self, tensor: Tensor, found: Found) -> set[str]:
        """The keys that hold the same tensor as one that was found."""
        keys = {key for key, _ in self.blends.get(found.key, ((found.key, 1.0),))}
        tied = {self.names[path] for path in self.known(tensor) if path in self.names}
        for other in sorted(tied - keys) if found.key in tied and tensor.ties else ():
            if not self.source.same(other, found.key):
                raise PlanError(
                    f"{tensor.path!r} is one tensor of the model, but the checkpoint has {found.key!r} and "
                    f"{other!r} with different values; rename one of them away"
                )
            keys.add(other)
        return keys

    def known(self, tensor: Tensor) -> tuple[str, ...]:
        """The names by which a checkpoint may have a stored tensor."""
        if self.by_ties and any(name in self.names for name in tensor.ties):
            return tensor.ties
        return (tensor.path, *tensor.ties)

    def is_summed(self, name: str) -> bool:
        """Whether it is the second bias of a gate that has one bias in the source: the sum of both."""
        other = beside(name)
        return (
            self.stored is not None
            and other is not None
            and is_first(other)
            and name not in self.stored
            and other in self.stored
        )

    def _layers(
        self, name: str, block: int | None, stack: str | None, there: Collection[str], here: Collection[str]
    ) -> tuple[tuple[str, float], ...]:
        """The names that a parameter starts from, with weights: its own, or those in layers before it."""
        words = [] if stack is None or block is None else name.split(".")
        for at, word in enumerate(words):
            if word != str(block):
                continue

            def of(index: int, at: int = at) -> str:
                return ".".join([*words[:at], str(index), *words[at + 1 :]])

            old = _count(there, of)
            if old and block is not None and stack is not None:
                new = max(_count(here, of), block + 1)
                return tuple((of(layer), weight) for layer, weight in layers(block, old, new, stack))
        return ((name, 1.0),)

    def _place(self, name: str, block: int | None, stack: str | None) -> str | None:
        chosen = self._layers(name, block, stack, self.names, self.paths)
        if not all(each in self.names for each, _ in chosen):
            return None
        return self._blended(tuple((self.names[each], weight) for each, weight in chosen))

    def _blended(self, blend: tuple[tuple[str, float], ...]) -> str:
        """What one key or several with weights are called."""
        if len(blend) == 1:
            return blend[0][0]
        said = " + ".join(f"{weight:g} {key}" for key, weight in blend)
        self.blends[said] = blend
        return said

    def _shape(self, key: str) -> tuple[int, ...]:
        shapes = {self.tensors[each].shape for each, _ in self.blends.get(key, ((key, 1.0),))}
        if len(shapes) > 1:
            raise PlanError(f"{key} cannot be mixed: their shapes are {', '.join(map(str, sorted(shapes)))}")
        return shapes.pop()

    def _found(self, key: str, tensor: Tensor, piece: Piece, member: Member) -> Found:
        shape = self._shape(key)
        alone = piece.is_all and len(tensor.pieces) == 1
        if self.axes is not None and not (alone and piece.axes.plain and "transpose" not in piece.layer):
            raise PlanError(
                f"{member.name!r}: `layout` does not tell how {key!r} holds what is fused, stacked or "
                f"transposed ({piece.layer}); give `source`, a plan of the model that the checkpoint is of"
            )
        if alone and (piece.axes.plain or shape == member.shape):
            return self._plain(key, piece, member.name, member.axes)
        if shape != tensor.shape and not piece.is_all:
            raise _unlike(key, shape, tensor, "its parts lie elsewhere")
        try:
            [there] = [each for each in piece.members(shape) if each.name == member.name]
        except (FaninError, ValueError) as error:
            raise _unlike(key, shape, tensor, str(error)) from error
        return _at(key, Part.of(piece, member.name), there)

    def _plain(self, key: str, piece: Piece, name: str, axes: Axes) -> Found:
        shape = self._shape(key)
        kernel = piece.role in ("kernel", "recurrent_kernel", "head") and len(shape) > 1
        if self.axes is None or not kernel:
            if len(shape) < 2 or len(axes.out + axes.in_) > len(shape):
                axes = Axes(tuple(range(len(shape))), ()) if len(shape) < 2 else axes
                if len(axes.out + axes.in_) > len(shape):
                    raise PlanError(f"{name!r}: {key!r} has shape {shape}, of another rank; give `source`")
            return _at(key, None, Member(name, shape, axes))
        return _at(key, Part(self.axes, name, name), Member(name, shape, self.axes))

    def _stacked(
        self, member: Member, block: int | None, stack: str, stored: Collection[str]
    ) -> Found | None:
        """Where the source has what a parameter of another number of layers starts from."""
        chosen = self._layers(member.name, block, stack, stored, self.members)
        found = [each for each in (self._there(name) for name, _ in chosen) if each is not None]
        if len(found) < len(chosen):
            return None
        if len(found) == 1:
            return found[0]
        if len({each.shape for each in found}) > 1:
            raise PlanError(f"{member.name!r}: {' and '.join(name for name, _ in chosen)} differ in shape")
        key = self._blended(
            tuple((each.key, weight) for each, (_, weight) in zip(found, chosen, strict=True))
        )
        parts = tuple(each.part for each in found if isinstance(each.part, Part))
        return replace(found[0], key=key, part=parts)

    def _by_source(self, member: Member) -> Found | None:
        found, other = self._there(member.name), beside(member.name)
        if found is None or other is None or other in self.members or not is_first(member.name):
            return found
        second = self._there(other)
        return found if second is None else self._sum(found, second, member.name, other)

    def _sum(self, one: Found, two: Found, name: str, other: str) -> Found:
        """Both biases of a gate, for a model that has one."""
        assert self.stored is not None
        assert isinstance(one.part, Part)
        assert isinstance(two.part, Part)
        if is_inner(name, self.stored[name][1].layer):
            if two.part.canonical(self.source.read(two.key)).any():
                raise PlanError(
                    f"{name!r}: {two.key!r} has {other!r}, which the reset gate multiplies and the model has "
                    f"not; only zeros could be left out"
                )
            return one
        both = self._blended(((one.key, 1.0), (two.key, 1.0)))
        return replace(one, key=both, part=(one.part, two.part))

    def _there(self, name: str) -> Found | None:
        """Where the source has a parameter of this name."""
        assert self.stored is not None
        if name not in self.stored:
            return None
        tensor, piece, there = self.stored[name]
        key = next((self.names[path] for path in self.known(tensor) if path in self.names), None)
        if key is None:
            return None
        if self._shape(key) != tensor.shape:
            raise PlanError(
                f"{key!r} has shape {self._shape(key)}, in `source` it is {tensor.shape}; give the model "
                f"that the checkpoint is of"
            )
        return _at(key, Part.of(piece, name), there)


def _at(key: str, part: Part | None, there: Member) -> Found:
    order = there.axes.order(len(there.shape))
    shape = tuple(there.shape[axis] for axis in order)
    return Found(key, part, shape, _merged(shape, there.axes), _counts(there.axes))


def _counts(axes: Axes) -> tuple[int, int]:
    return len(axes.out), len(axes.in_)


def _merged(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """Several output or input axes as one, in a canonical shape."""
    if len(shape) < 2:
        return math.prod(shape), 1
    out, in_ = len(axes.out), len(axes.out) + len(axes.in_)
    return math.prod(shape[:out]), math.prod(shape[out:in_]), *shape[in_:]


def _unlike(key: str, shape: tuple[int, ...], tensor: Tensor, why: str) -> PlanError:
    return PlanError(
        f"{tensor.path!r} of shape {tensor.shape} holds several parameters, {key!r} has shape {shape}: {why}"
        f"; give `source`, a plan of the model that the checkpoint is of"
    )


def _count(names: Any, of: Any) -> int:
    count = 0
    while of(count) in names:
        count += 1
    return count


def layers(index: int, old: int, new: int, how: str) -> tuple[tuple[int, float], ...]:
    """Which of ``old`` layers the layer ``index`` of ``new`` starts from, with weights.

    ``"spread"``: ``floor(index old / new)``, so that copies are neighbours; ``"repeat"``: ``index mod old``,
    the stack on top of itself; ``"interpolate"``: the two around ``index (old - 1) / (new - 1)``.

    Examples
    --------
    >>> [layers(index, 2, 4, "spread")[0][0] for index in range(4)]
    [0, 0, 1, 1]
    >>> [layers(index, 2, 4, "repeat")[0][0] for index in range(4)]
    [0, 1, 0, 1]
    >>> layers(1, 2, 3, "interpolate")
    ((0, 0.5), (1, 0.5))
    """
    if how == "repeat":
        return ((index % old, 1.0),)
    if how == "spread":
        return ((index * old // new, 1.0),)
    low, rest = divmod(index * (old - 1), max(new - 1, 1))
    if rest == 0:
        return ((low, 1.0),)
    part = rest / (new - 1)
    return (low, 1 - part), (low + 1, part)


def _taken(
    file: str, source: Source, row: Row, tensor: Tensor, change: Change | None, found: Found,
    inside: str | None, allow_nonfinite: bool, digests: bool, finder: _Finder,
) -> Row:  # fmt: skip
    order = row.axes.order(len(row.shape))
    shape = tuple(row.shape[axis] for axis in order)
    same = found.shape == shape or (
        found.part is not None
        and found.counts != _counts(row.axes)
        and found.merged == _merged(shape, row.axes)
    )
    steps = () if change is None else tuple(s for s in change.steps if not same or s[0] in ALWAYS)
    if not same and not steps:
        would = would_do(found.shape, shape, row.role, len(row.axes.out))
        raise PlanError(
            f"{row.name!r} has shape {shape}, {found.key!r} in {file} has {found.shape} (outputs, inputs, "
            f"field); say by adapt={{{row.name!r}: ...}} what to do: {', '.join(map(repr, would))}"
        )
    blend = finder.blends.get(found.key, ((found.key, 1.0),))
    keys = tuple(key for key, _ in blend)
    drawing = any(value in DRAWING for _, options in steps for _, value in options) or any(
        step == "classes" for step, _ in steps
    )
    init = Pretrained(
        file, keys, None if digests else (), [weight for _, weight in blend], steps, found.part,
        row.initializer if drawing and row.initializer is not UNSET else None, inside, allow_nonfinite,
    )  # fmt: skip
    cast = {source.checkpoint.tensors[key].dtype for key in keys} != {tensor.dtype}
    words = [step for step, _ in steps] + ([f"as {tensor.dtype}"] if cast else [])
    said = f"{' + '.join(keys)}{': ' if words else ''}{', '.join(words)}"
    adapted = bool(words) or len(keys) > 1
    return replace(
        row,
        initializer=init,
        mean=None,
        std=None,
        source="adapted" if adapted else "taken",
        rule=f"from {said}",
    )


def _draws(row: Row) -> bool:
    if isinstance(row.initializer, Pretrained):
        return row.initializer.rest is not None or any(
            ("new", "mean_cov") in options for _, options in row.initializer.steps
        )
    return row.source == "draw"


def _warn_of_likely(file: str, drawn: dict[str, tuple[int, ...]], spare: dict[str, tuple[int, ...]]) -> None:
    """Say what the recipe draws though the checkpoint may well have it, under another name."""
    if meant := suggested(drawn, spare):
        warnings.warn(
            f"{file} has no {_few(drawn)}, which the recipe draws, but it has others that are alike: did you "
            f"mean rename={meant}? Name what is to be drawn, adapt={{{next(iter(drawn))!r}: 'draw'}}, to go "
            f"on without a warning",
            stacklevel=STACKED,
        )


def _few(lacking: dict[str, tuple[int, ...]]) -> str:
    shown = [f"{name!r} {shape}" for name, shape in list(lacking.items())[:SHOWN]]
    return ", ".join(shown) + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")


def _missing(
    file: str, unset: dict[str, tuple[int, ...]], model: Model, spare: dict[str, tuple[int, ...]]
) -> str:
    """What a checkpoint lacks, and renames that could be meant."""
    lacking = unset or {tensor.path: tensor.shape for tensor in model.tensors}
    what = f"{file} lacks" if unset else f"{file} has nothing of the model: no"
    hints = suggested(lacking, spare)
    meant = f"did you mean rename={hints}? or " if hints else ""
    kept = f"adapt={{{next(iter(lacking))!r}: 'keep'}}"
    return f"{what} {_few(lacking)}; {meant}give a recipe that draws it, or {kept}"
