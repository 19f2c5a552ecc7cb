"""Plans: a recipe resolved against one model, one row per parameter. Data: printable, savable, comparable.

A plan knows every value before it is set: `Plan.fill` makes any window of any tensor with NumPy alone.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from fanin import layout, threads
from fanin._types import Array, Dtype, Window
from fanin.dialects import InDialect
from fanin.errors import FaninError, PlanError, RecipeError, near
from fanin.fans import Axes, Fans
from fanin.initializers import Description, Initializer, WithRow, Zeros, from_dict
from fanin.model import Member, Model, Piece, Tensor
from fanin.recipe import OWN, Recipe, Rule, RuleInit
from fanin.sampling import Canvas, canvas
from fanin.streams import CONTRACT, check_name, check_seed

MANY = 8  # names listed in an error; the rest are counted


@dataclass(frozen=True)
class Row:
    """One parameter of a plan.

    Parameters
    ----------
    name, path : str
        Its canonical name, and the stored tensor that holds it.
    shape, axes
        Its own, in the order in which they are stored.
    role, layer, activation, block
        As the adapter told: see `fanin.model.Piece`.
    rule : str
        The rule that chose, in words.
    initializer : Initializer or None
        None keeps the value it has.
    fans : Fans or None
        Where the layer has some.
    mean, std : float or None
        Of the values, where they are known without drawing.
    dtype : str
        Of the stored tensor.
    source : str
        ``"draw"``, ``"constant"``, ``"keep"``; from a checkpoint ``"taken"`` or ``"adapted"``.
    key : str
        The name its numbers are drawn by: the canonical one, but for `alias` and `position`.
    """

    name: str
    path: str
    shape: tuple[int, ...]
    axes: Axes
    role: str
    layer: str
    rule: str
    initializer: Initializer | None
    fans: Fans | None
    mean: float | None
    std: float | None
    dtype: str
    source: str
    key: str
    activation: str | None = None
    block: int | None = None


@dataclass(frozen=True)
class Change:
    """One difference between two plans: a parameter, what differs, and the two values."""

    name: str
    what: str
    mine: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what} {self.mine} -> {self.theirs}"


@dataclass(frozen=True)
class Plan:
    """A recipe resolved against one model.

    Made by ``fanin.torch.plan`` and the other adapters' `plan`, or read from a file.
    """

    seed: int
    recipe: str
    tensors: tuple[Tensor, ...]
    rows: tuple[Row, ...]
    facts: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    contract: str = CONTRACT
    unexpected: tuple[str, ...] = ()  # what a checkpoint has and the model has not

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.contract != CONTRACT:
            raise PlanError(f"the plan's values are those of {self.contract!r}, this is {CONTRACT!r}")
        _unique("stored tensor", [tensor.path for tensor in self.tensors])
        _unique("parameter", [row.name for row in self.rows])
        _unique("key", [row.key for row in self.rows])

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row.name: row for row in self.rows}

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return {tensor.path: tensor for tensor in self.tensors}

    def __getitem__(self, name: str) -> Row:
        """The row of a canonical name."""
        if name not in self._rows:
            raise PlanError(f"no parameter {name!r} in the plan; {near(name, self._rows)}")
        return self._rows[name]

    def tensor(self, path: str) -> Tensor:
        """The stored tensor at a path."""
        if path not in self._tensors:
            raise PlanError(f"no tensor {path!r} in the plan; {near(path, self._tensors)}")
        return self._tensors[path]

    def sets(self, path: str) -> bool:
        """Whether anything in a stored tensor is set rather than kept."""
        return any(row.initializer is not None for row, _ in self.parts(self.tensor(path)))

    def coupled(self, path: str) -> bool:
        """Whether a part of a stored tensor costs as much as all of it, and uses all cores (orthogonal)."""
        rows = (row.initializer for row, _ in self.parts(self.tensor(path)))
        return any(initializer is not None and initializer.coupled for initializer in rows)

    @cached_property
    def filed(self) -> bool:
        """Whether any value comes from a file."""
        return any(row.initializer is not None and row.initializer.filed for row in self.rows)

    def parts(self, tensor: Tensor) -> tuple[tuple[Row, Member], ...]:
        """The parameters in a stored tensor: each row, and its shape and axes there."""
        return self._parts[tensor.path]

    @cached_property
    def _parts(self) -> dict[str, tuple[tuple[Row, Member], ...]]:
        return {
            tensor.path: tuple((self[member.name], member) for member in _members(tensor))
            for tensor in self.tensors
        }

    # --- values ----------------------------------------------------------------------------------

    def fill(
        self,
        path: str,
        *,
        window: Window | None = None,
        dtype: Dtype | None = None,
        out: Array | None = None,
    ) -> Array:
        """The values of a stored tensor, or of a window of it.

        Parameters
        ----------
        path : str
            Of the stored tensor.
        window : tuple of slices, optional
            Make only this rectangle.
        dtype : dtype, optional
            The plan's by default.
        out : ndarray, optional
            Write here instead of into a new array. What the plan keeps is left as it is, and is an error
            without ``out``.

        Returns
        -------
        ndarray
            Of the window's shape.
        """
        tensor = self.tensor(path)
        where = canvas(tensor.shape, tensor.dtype if out is None and dtype is None else dtype, window, out)
        if out is None and any(row.initializer is None for row, _ in self.parts(tensor)):
            raise PlanError(f"{path!r}: the plan keeps values it does not know; pass `out`")
        for piece in tensor.pieces:
            wholes = (where,) if piece.is_all else layout.unfolded(where, piece.whole)
            for whole in wholes:
                inside = whole if piece.is_all else _inside(whole, piece.slices(tensor.shape))
                for part in layout.parts(inside, piece.axes, piece.name):
                    row = self._rows[str(part.name)]
                    if row.initializer is not None:
                        row.initializer._fill(part.where, self.seed, row.key, part.axes)
        return where.out

    def members(self, path: str, values: Array) -> dict[str, Array]:
        """The parameters in the values of a stored tensor: {canonical name: elements in canonical order}.

        The same network has the same ones in every framework, however each stores them.
        """
        found: dict[str, Array] = {}
        for piece in self.tensor(path).pieces:
            place: Any = (..., *piece.slices(values.shape))
            inside = values[place]
            found.update(layout.members(inside, piece.axes, piece.name))
        return found

    def with_digests(self) -> Self:
        """The same plan with the SHA-256 of each stored tensor's bytes (C order, little endian).

        Tensors that keep a value have none. Coupled initializers (the orthogonal family) promise their last
        bit only for one build of the linear algebra library.
        """
        made = {}
        for tensor in self.tensors:
            if all(row.initializer is not None for row, _ in self.parts(tensor)):
                values = self.fill(tensor.path)
                made[tensor.path] = hashlib.sha256(
                    values.view(np.uint8).data if values.ndim else values.tobytes()
                ).hexdigest()
        return replace(self, digests=made)

    def sign(self) -> None:
        """Note the digests of what is taken from files, where that has been left for later.

        Saving, comparing and printing cards do it themselves; it costs a pass over the files.
        """
        made = (row.initializer for row in self.rows)
        threads.run_all([each.sign for each in made if each is not None and each.filed])

    # --- comparison ------------------------------------------------------------------------------

    def diff(self, other: "Plan") -> list[Change]:
        """What differs, parameter by parameter; nothing if both make the same network."""
        self.sign()
        other.sign()
        changes = []
        if self.seed != other.seed:
            changes.append(Change("plan", "seed", str(self.seed), str(other.seed)))
        for name in dict.fromkeys([*self._rows, *other._rows]):
            mine, theirs = self._rows.get(name), other._rows.get(name)
            if mine is None or theirs is None:
                here, there = ("absent" if row is None else str(row.shape) for row in (mine, theirs))
                changes.append(Change(name, "parameter", here, there))
                continue
            for what in ("shape", "dtype", "initializer", "fans", "axes", "key", "source"):
                one, two = getattr(mine, what), getattr(theirs, what)
                if what == "initializer" and one is not None and two is not None:
                    same = one.to_dict() == two.to_dict()
                else:
                    same = one == two
                if not same:
                    changes.append(Change(name, what, str(one), str(two)))
        return changes

    # --- as text and data ------------------------------------------------------------------------

    def __str__(self) -> str:
        return self.table()

    def table(self, *, fold: bool = False, width: int | None = None) -> str:
        """One line per parameter; with ``fold``, one for all that differ in numbers of their names alone.

        Parameters
        ----------
        fold : bool
            ``layers.{0..11}.mlp.up_proj.weight`` instead of twelve lines.
        width : int, optional
            Characters; the widest line by default.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        columns = ["parameter", "shape", "role", "rule", "initializer", "fan in, out", "std", "dtype"]
        keyed = any(row.key != row.name for row in self.rows)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for column in [*columns, "drawn by"][: None if keyed else -1]:
            right = column in ("fan in, out", "std")
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for name, row in _folded(self.rows) if fold else ((row.name, row) for row in self.rows):
            cells = [name, "x".join(map(str, row.shape)) or "scalar", row.role, row.rule, _shown(row)]
            cells += ["" if row.fans is None else f"{row.fans.fan_in:g}, {row.fans.fan_out:g}"]
            cells += ["" if row.std is None else f"{row.std:.4g}", row.dtype, row.key]
            table.add_row(*map(Text, cells[: None if keyed else -1]))
        console = Console(width=width or 10_000, no_color=True, highlight=False)
        with console.capture() as captured:
            console.print(table)
        lines = [line.rstrip() for line in captured.get().strip("\n").splitlines()]
        return "\n".join([self.headline(), *lines])

    def headline(self) -> str:
        """The recipe, the seed, and how much there is."""
        elements = sum(int(np.prod(row.shape, dtype=object)) for row in self.rows)
        kept = sum(row.initializer is None for row in self.rows)
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return (
            f"recipe {self.recipe}, seed {self.seed}, {self.contract}: {len(self.rows)} parameters, "
            f"{elements:,} elements{f', {kept} kept' if kept else ''}{f' ({facts})' if facts else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` turns back into an equal plan."""
        self.sign()
        data = {
            "contract": self.contract,
            "seed": self.seed,
            "recipe": self.recipe,
            "facts": self.facts,
            "digests": self.digests,
            "tensors": [_encode(tensor) for tensor in self.tensors],
            "rows": [_encode(row) for row in self.rows],
        }
        return data | ({"unexpected": list(self.unexpected)} if self.unexpected else {})

    def identity(self, *, digests: bool = False) -> str:
        """The SHA-256 of all it says, made without the whole text: what processes compare.

        With ``digests``, also of those of files it takes values from; ranks need not have read all of them.
        """
        if digests:
            self.sign()
        total = hashlib.sha256(json.dumps([self.contract, self.seed, self.recipe, self.facts]).encode())
        for each in (*self.tensors, *self.rows):
            said = _encode(each)
            total.update(json.dumps(said if digests else _undigested(said)).encode())
        return total.hexdigest()

    def to_json(self) -> str:
        """JSON that `from_json` reads."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "plan") -> Self:
        """The plan that `to_json` wrote; an error names ``where`` and the key."""
        import msgspec

        try:
            data = json.loads(text)  # msgspec's own would refuse infinite constants
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{where}: {error}") from error
        try:
            if isinstance(data, dict) and data.get("contract", CONTRACT) != CONTRACT:
                raise PlanError(f"its values are those of {data['contract']!r}, this is {CONTRACT!r}")
            plan = msgspec.convert(data, cls, dec_hook=_initializer)
            plan._check_rows()
        except (msgspec.ValidationError, UnicodeError, FaninError) as error:
            raise PlanError(f"{where}: {error}") from error
        return plan

    def _check_rows(self) -> None:
        """Rows are those of the tensors, and can be drawn."""
        count = sum(piece.count(tensor.shape) for tensor in self.tensors for piece in tensor.pieces)
        if count != len(self.rows):  # before they are listed: a stack may say that it has any number
            raise PlanError(f"it has {len(self.rows)} rows for {count} parameters of its tensors")
        named = {member.name: (tensor, member) for tensor in self.tensors for member in _members(tensor)}
        if list(named) != [row.name for row in self.rows]:
            wrong = sorted(set(named) ^ {row.name for row in self.rows})
            raise PlanError(f"its rows are not the parameters of its tensors: {_listed(wrong) or 'order'}")
        for row in self.rows:
            tensor, member = named[row.name]
            if (row.path, row.shape, row.axes, row.dtype) != (tensor.path, *member[1:], tensor.dtype):
                raise PlanError(f"{row.name!r}: path, shape, axes or dtype are not those of its tensor")
            if row.initializer is not None:
                _rehearse(row.name, row.initializer, member, tensor.dtype, self.seed, row.key)

    @staticmethod
    def is_file(path: str | Path) -> bool:
        """Whether a JSON file holds a plan rather than a recipe."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{path}: {error}") from error
        return isinstance(data, dict) and "rows" in data

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The plan in a JSON file."""
        return cls.from_json(Path(path).read_bytes(), str(path))

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file."""
        Path(path).write_text(self.to_json(), encoding="utf-8")


# --- deciding ------------------------------------------------------------------------------------


def resolve(model: Model, recipe: Recipe, seed: int | None) -> Plan:
    """Match every parameter of a model with the first rule for it. Nothing is drawn.

    Parameters
    ----------
    model : Model
        What an adapter found.
    recipe : Recipe
        Without a ``base``: `fanin.recipes.concrete` adds it.
    seed : int
        0 .. 2**64 - 1.

    Raises
    ------
    RecipeError
        When a rule matches no parameter, or only those that rules before it take.
    PlanError
        When no rule matches a parameter, two have one name, or an initializer cannot make one.
    """
    seed = check_seed(seed)
    model = model.unpadded(recipe.unpadded or {})
    rules = recipe.concrete
    hits, takes = [0] * len(rules), [0] * len(rules)
    rows: list[Row] = []
    unmatched = []
    decided: dict[Any, Decided] = {}
    for tensor in model.tensors:
        for piece in tensor.pieces:
            for member in piece.members(tensor.shape):
                fitting = [
                    (at, reason)
                    for at, rule in enumerate(rules)
                    if (reason := rule.match.reason(piece, member)) is not None
                    and not (rule.init == OWN and piece.own is None)
                ]
                for at, _ in fitting:
                    hits[at] += 1
                if not fitting:
                    unmatched.append((member, piece))
                    continue
                chosen, reason = fitting[0]
                takes[chosen] += 1
                key = recipe.key(member.name) if recipe.keys == "path" else f"parameter:{len(rows)}"
                init = piece.own if rules[chosen].init == OWN else rules[chosen].init
                alike = (id(init), piece.padding_row, member.shape, member.axes, tensor.dtype)
                if alike not in decided:  # as it is in each block of a deep network
                    decided[alike] = _decided(init, piece, member, tensor.dtype, seed, check_name(key))
                rows.append(_row(tensor, piece, member, decided[alike], reason, check_name(key)))
    for at, rule in enumerate(rules):
        if not (rule.optional or takes[at] or (rule.inherited and hits[at])):
            raise RecipeError(_unused(at, rule, hits[at], model))
    if unmatched:
        names = _listed([f"{m.name} {m.shape} ({p.role}, {p.layer})" for m, p in unmatched])
        raise PlanError(
            f"no rule matches {names}; name them in a rule, such as ({unmatched[0][0].name!r}, 'zeros')"
        )
    return Plan(seed, recipe.name or "of rules", model.tensors, tuple(rows), dict(model.facts))


class Decided(NamedTuple):
    """What an initializer is to parameters of one shape, axes and dtype."""

    initializer: Initializer | None
    fans: Fans | None
    mean: float | None
    std: float | None


def _decided(init: RuleInit | None, piece: Piece, member: Member, dtype: str, seed: int, key: str) -> Decided:
    chosen = _chosen(init, piece.padding_row, member)
    mean = std = None
    if chosen is not None:
        said = _rehearse(member.name, chosen, member, dtype, seed, key)
        mean, std = (None if value is None else float(value) for value in (said.mean, said.std))
    shown = len(member.shape) > 1 or member.axes.known is not None
    return Decided(chosen, member.axes.fans(member.shape) if shown else None, mean, std)


def _row(tensor: Tensor, piece: Piece, member: Member, decided: Decided, reason: str, key: str) -> Row:
    chosen = decided.initializer
    return Row(
        name=member.name,
        path=tensor.path,
        shape=member.shape,
        axes=member.axes,
        role=piece.role,
        layer=piece.layer,
        rule=reason,
        initializer=chosen,
        fans=decided.fans,
        mean=decided.mean,
        std=decided.std,
        dtype=tensor.dtype,
        source="keep" if chosen is None else "draw" if chosen.drawn else "constant",
        key=key,
        activation=piece.activation,
        block=piece.block,
    )


def _chosen(init: RuleInit | None, padding_row: int | None, member: Member) -> Initializer | None:
    """What a rule's initializer means for one parameter; None keeps its value."""
    chosen = init.for_layer(member.shape, member.axes) if isinstance(init, InDialect) else init
    if not isinstance(chosen, Initializer):
        return None
    padded = padding_row is not None and not isinstance(chosen, Zeros)
    return WithRow(chosen, padding_row or 0) if padded else chosen


def _rehearse(name: str, init: Initializer, member: Member, dtype: str, seed: int, key: str) -> Description:
    """Make an empty window of a parameter, so that all that can be wrong is said before anything is set."""
    empty = tuple(slice(0, 0) for _ in member.shape) or None
    try:
        if empty or not init.filed:  # a scalar has no empty window
            init(member.shape, seed=seed, name=key, axes=member.axes, dtype=dtype, window=empty)
        return init.describe(member.shape, member.axes)
    except FaninError as error:
        raise PlanError(f"{name!r}: {error}") from error


def _unused(at: int, rule: Rule, hits: int, model: Model) -> str:
    if hits:
        return f"rule {at + 1} ({rule}) never applies: rules before it take all {hits} parameters it matches"
    names = [member.name for tensor in model.tensors for member in _members(tensor)]
    hint = ""
    if rule.match.name:
        hint = (
            "; " + near(rule.match.name[0].replace("*", ""), names)
            if len(names) > MANY
            else f"; names: {_listed(names)}"
        )
    return f"rule {at + 1} ({rule}) matches no parameter; mend it, or make it optional{hint}"


def _members(tensor: Tensor) -> Iterator[Member]:
    for piece in tensor.pieces:
        yield from piece.members(tensor.shape)


def _unique(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise PlanError(f"two of the plan have the {what} {name!r}; rename one with `alias`")
        seen.add(name)


def _listed(names: list[str]) -> str:
    rest = len(names) - MANY
    return ", ".join(names[:MANY]) + (f" and {rest} more" if rest > 0 else "")


def _inside(where: Canvas, piece: tuple[slice, ...]) -> Canvas:
    """The part of a canvas that lies in a piece, as a window of the piece."""
    shape = tuple(part.stop - part.start for part in piece)
    window: list[slice] = []
    place: list[Any] = []
    for mine, asked in zip(piece, where.window, strict=True):
        start = min(max(mine.start, asked.start), mine.stop)
        stop = max(start, min(mine.stop, asked.stop))
        window.append(slice(start - mine.start, stop - mine.start))
        place.append(slice(start - asked.start, stop - asked.start) if stop > start else slice(0, 0))
    if any(part.stop == part.start for part in window):  # nothing of it is asked for
        window, place = [slice(0, 0)] * len(shape), [slice(0, 0)] * len(shape)
    return Canvas(shape, tuple(window), where.out[(..., *place)])


# --- showing and storing -------------------------------------------------------------------------


def _shown(row: Row) -> str:
    return "(kept)" if row.initializer is None else re.sub(r"\b\w+=", "", str(row.initializer))


def _folded(rows: tuple[Row, ...]) -> Iterator[tuple[str, Row]]:
    """(name, first row) of rows that are alike but for one number or more in their names."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        alike = (
            re.sub(r"\b\d+\b", "#", row.name),
            row.shape,
            row.role,
            row.rule,
            str(row.initializer),
            row.std,
        )
        groups.setdefault(alike, []).append(row)
    for alike, group in groups.items():
        numbers = list(zip(*(re.findall(r"\b\d+\b", row.name) for row in group), strict=True))
        name = str(alike[0])
        for column in numbers:
            ordered = sorted(set(map(int, column)))
            span = str(ordered[0]) if len(ordered) == 1 else f"{{{_spans(ordered)}}}"
            name = name.replace("#", span, 1)
        yield name, group[0]


def _spans(numbers: list[int]) -> str:
    """``0..3,7`` for 0, 1, 2, 3, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] + 1 == number:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}..{b}" for a, b in spans)


def _encode(value: Any) -> Any:
    """A fact as plain data; fields that have their default value are left out."""
    if isinstance(value, Initializer):
        return value.to_dict()
    if isinstance(value, Tensor | Row | Piece | Axes):
        data = {}
        for each in fields(value):
            held = getattr(value, each.name)
            if each.default is MISSING or held != each.default:
                data[each.name] = _encode(held)
        return data
    if isinstance(value, Fans):  # whole numbers are written as such, whatever they were read from
        return [int(fan) if float(fan).is_integer() else fan for fan in value]
    return [_encode(item) for item in value] if isinstance(value, tuple) else value


def _undigested(said: Any) -> Any:
    """Plain data without what files are known by."""
    if isinstance(said, dict):
        return {key: _undigested(value) for key, value in said.items() if key != "digests"}
    return said


def _initializer(kind: type, data: Any) -> Any:
    if issubclass(kind, Initializer):
        return from_dict(data)
    raise NotImplementedError(f"{kind}")
