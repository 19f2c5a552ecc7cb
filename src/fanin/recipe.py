"""Recipes: ordered rules that say which parameters get which initializer. Data, to write and compare."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from fanin.dialects import NAMES as DIALECTS
from fanin.errors import FaninError, RecipeError, near
from fanin.fans import check_shape
from fanin.initializers import Initializer, get
from fanin.model import ROLES, Member, Piece

KEEP, OWN = "keep", "own"  # instead of an initializer: the value it has, the start its layer defines
KEYS = ("path", "position")
Keys: TypeAlias = Literal["path", "position"]
RuleInit: TypeAlias = Initializer | str
SIZE = re.compile(r"(<=|>=|<|>)?(\d+)")


@dataclass(frozen=True)
class Match:
    """Which parameters a rule is for: every condition that is given must hold.

    Each condition is a tuple of alternatives. Texts are globs (``*``, ``?``, ``[ab]``); ``*`` also stands
    for dots. Made by `named`, `role`, `layer`, `shape`, `activation` and `block`, joined with ``&``.

    Examples
    --------
    >>> role("kernel") & layer("conv*") & named("*.conv2.*")
    Match(name=('*.conv2.*',), role=('kernel',), layer=('conv*',), shape=(), activation=(), block=())
    """

    name: tuple[str, ...] = ()
    role: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()
    shape: tuple[str, ...] = ()
    activation: tuple[str, ...] = ()
    block: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.role:
            if not any(fnmatchcase(known, pattern) for known in ROLES):
                raise RecipeError(f"no role {pattern!r}; {near(pattern, ROLES)}")
        for pattern in self.shape:
            sizes = [part.strip() for part in pattern.split(",")]
            if sizes.count("...") > 1 or not all(
                part in ("*", "...") or SIZE.fullmatch(part) for part in sizes
            ):
                raise RecipeError(
                    f"cannot read shape {pattern!r}; expected sizes such as '*, 768', '..., 3, 3', '>=1024'"
                )
        if not any(getattr(self, condition.name) for condition in fields(self)):
            raise RecipeError("a rule needs a condition: name, role, layer, shape, activation or block")

    def __and__(self, other: "Match") -> "Match":
        both = [c.name for c in fields(self) if getattr(self, c.name) and getattr(other, c.name)]
        if both:
            raise RecipeError(f"both sides of & say {', '.join(both)}; give the alternatives to one of them")
        return Match(*(getattr(self, c.name) or getattr(other, c.name) for c in fields(self)))

    @cached_property  # each parameter asks each rule
    def _globs(self) -> list[tuple[str, tuple[str, ...], int]]:
        """The conditions on texts that are given: in words, their globs, and which text they are for."""
        every = (
            ("", self.name),
            ("role ", self.role),
            ("layer ", self.layer),
            ("activation ", self.activation),
        )
        return [(what, patterns, at) for at, (what, patterns) in enumerate(every) if patterns]

    def reason(self, piece: Piece, member: Member) -> str | None:
        """The alternatives by which a parameter is meant, in words; None if it is not."""
        said = []
        texts = (member.name, piece.role, piece.layer, piece.activation)
        for what, patterns, at in self._globs:
            hit = _first(patterns, texts[at])
            if hit is None:
                return None
            said.append(what + hit)
        if self.shape:
            hit = next((pattern for pattern in self.shape if _has_shape(pattern, member.shape)), None)
            if hit is None:
                return None
            said.append(f"shape {hit}")
        if self.block:
            if piece.block not in self.block:
                return None
            said.append(f"block {piece.block}")
        return ", ".join(said)

    def __str__(self) -> str:
        said = [(c.name, " | ".join(map(str, getattr(self, c.name)))) for c in fields(self)]
        return ", ".join(
            alternatives if what == "name" else f"{what} {alternatives}"
            for what, alternatives in said
            if alternatives
        )


@lru_cache(maxsize=4096)  # parameters have few roles and kinds of layers, and are asked for by each rule
def _first(patterns: tuple[str, ...], text: str | None) -> str | None:
    """The first glob that a text fits."""
    return None if text is None else next((p for p in patterns if fnmatchcase(text, p)), None)


def _has_shape(pattern: str, shape: tuple[int, ...]) -> bool:
    sizes = [part.strip() for part in pattern.split(",")]
    if "..." in sizes:
        at = sizes.index("...")
        sizes[at : at + 1] = ["*"] * (len(shape) - len(sizes) + 1)
    return len(sizes) == len(shape) and all(map(_has_size, sizes, shape))


def _has_size(pattern: str, size: int) -> bool:
    found = SIZE.fullmatch(pattern)
    if found is None:
        return True
    bound = int(found[2])
    return {None: size == bound, "<": size < bound, "<=": size <= bound, ">": size > bound}.get(
        found[1], size >= bound
    )


def named(*patterns: str) -> Match:
    """Parameters whose canonical name fits one of these globs."""
    return Match(name=patterns)


def role(*roles: str) -> Match:
    """Parameters with one of these roles: ``role("bias")``, ``role("*bias")``.

    Examples
    --------
    >>> role("bia")
    Traceback (most recent call last):
        ...
    fanin.errors.RecipeError: no role 'bia'; did you mean bias, norm_bias, gate_bias?
    """
    return Match(role=roles)


def layer(*kinds: str) -> Match:
    """Parameters of these kinds of layers: ``layer("linear", "conv*")``."""
    return Match(layer=kinds)


def shape(*patterns: str) -> Match:
    """Parameters of these stored shapes: ``shape("*, 768")``, ``shape("..., 3, 3")``, ``shape(">=1024")``."""
    return Match(shape=patterns)


def activation(*names: str) -> Match:
    """Parameters of layers that these activations follow: ``activation("relu", "gelu*")``."""
    return Match(activation=names)


def block(*indexes: int) -> Match:
    """Parameters of these blocks, counted from 0: ``block(0, 1)``."""
    return Match(block=indexes)


@dataclass(frozen=True)
class Rule:
    """What one kind of parameters gets.

    Parameters
    ----------
    match : str or Match
        A glob of canonical names, or conditions.
    init : Initializer or str
        An initializer or its expression; ``"keep"`` leaves values as they are, ``"own"`` is the start that
        the layer itself defines.
    optional : bool
        Whether it may match no parameter.
    inherited : bool
        Whether it comes from a `base`: then rules before it may take all that it matches.
    """

    match: Match
    init: RuleInit
    optional: bool = False
    inherited: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.match, str):
            object.__setattr__(self, "match", named(self.match))
        elif not isinstance(self.match, Match):
            raise RecipeError(f"a rule matches by a glob or a fanin.Match, got {self.match!r}")

    @property
    def everything(self) -> bool:
        """Whether it is for every parameter by name: then its initializer is used as a recipe."""
        return self.match == Match(name=("*",)) and self.init not in (KEEP, OWN)

    def __str__(self) -> str:
        return str(self.match)


RuleLike: TypeAlias = Rule | tuple[str | Match, RuleInit]


@dataclass(frozen=True)
class Recipe:
    """Ordered rules: for each parameter, the first that matches gives the initializer.

    A rule that matches no parameter is an error unless it is optional; so is a parameter that no rule
    matches. The rule ``("*", init)`` is for the rest of the model, and means what ``init`` means as a recipe:
    kernels from ``init``, biases zero, norm scales one, embeddings normal(0.02), forget gates 1.

    Parameters
    ----------
    rules : sequence of Rule or (match, initializer)
        In order.
    base : str, optional
        A recipe whose rules follow, by name: ``"gpt2"``. Those of its rules that the ones before leave
        nothing to are no error.
    dialect : str, optional
        Whose words bare names are: ``"torch"``, ``"keras"``, ...; the core's by default.
    keys : "path" or "position"
        What numbers are drawn by: the canonical name, or the place among the parameters.
    alias : mapping of str to str
        Other names to draw by: {canonical name or the dotted front of one: the name instead}.
    unpadded : mapping of str to tuple of int
        The shapes of tensors that are stored larger, as vocabularies are for even shards: {canonical name:
        shape}. Fans are those of this shape; what lies beyond it is zero.
    name : str
        What it is called.

    Examples
    --------
    >>> recipe = Recipe([("*.c_proj.weight", "random_normal(0, 0.01)"), ("*", "he_normal")])
    >>> print(recipe)
    *.c_proj.weight  random_normal(mean=0.0, stddev=0.01)
    *                he_normal()
    """

    rules: tuple[Rule, ...]
    base: str | None = None
    dialect: str | None = None
    keys: Keys = "path"
    alias: Mapping[str, str] | None = None
    unpadded: Mapping[str, tuple[int, ...]] | None = None
    name: str = ""

    def __init__(
        self,
        rules: Iterable[RuleLike],
        *,
        base: str | None = None,
        dialect: str | None = None,
        keys: Keys = "path",
        alias: Mapping[str, str] | None = None,
        unpadded: Mapping[str, tuple[int, ...]] | None = None,
        name: str = "",
    ) -> None:
        if dialect is not None and dialect not in DIALECTS:
            raise RecipeError(f"`dialect` {dialect!r}; {near(str(dialect), DIALECTS)}")
        if keys not in KEYS:
            raise RecipeError(f"`keys` {keys!r}; expected one of {', '.join(KEYS)}")
        if keys == "position" and alias:
            raise RecipeError("`alias` renames paths; with keys='position' there is nothing to rename")
        made = tuple(_rule(at, rule, dialect) for at, rule in enumerate(rules))
        if not made and base is None:
            raise RecipeError("a recipe needs a rule, or a `base`")
        values = {"base": base, "dialect": dialect, "keys": keys, "alias": dict(alias or {}), "name": name}
        shapes = {each: check_shape(shape) for each, shape in (unpadded or {}).items()}
        for what, value in {"rules": made, "unpadded": shapes, **values}.items():
            object.__setattr__(self, what, value)

    @property
    def concrete(self) -> tuple[Rule, ...]:
        """The rules with ``("*", init)`` written out."""
        return tuple(
            each for rule in self.rules for each in (everywhere(rule.init) if rule.everything else (rule,))
        )

    def on(self, base: "Recipe") -> "Recipe":
        """These rules, and a base's after them."""
        rules = (*self.rules, *(replace(rule, inherited=True) for rule in base.concrete))
        options: dict[str, Any] = {what: getattr(self, what) for what in ("keys", "alias", "unpadded")}
        return Recipe(rules, name=self.name or f"of rules on {base.name}", **options)

    def key(self, name: str) -> str:
        """The name that a canonical name draws by."""
        for old, new in (self.alias or {}).items():
            if name == old:
                return new
            if name.startswith(old.removesuffix(".") + "."):
                rest = name[len(old.removesuffix(".")) + 1 :]
                return f"{new.removesuffix('.')}.{rest}" if new else rest
        return name

    def __str__(self) -> str:
        width = max((len(str(rule)) for rule in self.rules), default=0)
        lines = [f"{rule!s:<{width}}  {rule.init}" for rule in self.rules]
        if self.base:
            lines.append(f"then {self.base}")
        return "\n".join(lines)

    # --- as data ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in a file, that `from_dict` turns back into an equal recipe."""
        options = {
            "name": self.name,
            "base": self.base,
            "keys": None if self.keys == "path" else self.keys,
            "alias": dict(self.alias or {}),
            "unpadded": {name: list(shape) for name, shape in (self.unpadded or {}).items()},
        }
        data: dict[str, Any] = {what: value for what, value in options.items() if value}
        data["rules"] = [_rule_data(rule) for rule in self.rules]
        return data

    def to_json(self) -> str:
        """JSON that `from_file` reads."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_toml(self) -> str:
        """TOML that `from_file` reads."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Any, where: str = "recipe") -> Self:
        """The recipe that `to_dict` wrote; an error names ``where``, the rule and the key."""
        read = _converted(data, where)
        try:
            rules = [_read_rule(at, entry, read.dialect) for at, entry in enumerate(read.rules)]
            options = {what: getattr(read, what) for what in ("base", "keys", "alias", "unpadded", "name")}
            return cls(rules, **options)
        except FaninError as error:
            raise RecipeError(f"{where}: {error}") from error

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """The recipe in a TOML or JSON file.

        .. code-block:: toml

            base = "gpt2"

            [[rules]]
            name = "*.c_proj.weight"     # or role, layer, shape, activation, block; one or a list
            init = "random_normal(0, 0.01)"
            optional = false

        Raises
        ------
        RecipeError
            Names the file, the rule and the key.
        """
        import tomllib

        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except (ValueError, RecursionError) as error:  # both libraries' errors say the line
            raise RecipeError(f"{path}: {error}") from error
        return cls.from_dict(data, str(path))


def everywhere(init: RuleInit) -> tuple[Rule, ...]:
    """What an initializer means as a recipe: it fills kernels, everything else starts neutral.

    Embeddings and positions are normal with std 0.02 (Radford et al. 2018, section 4.1), the bias of a
    forget gate is 1 (Jozefowicz, Zaremba, Sutskever 2015), other biases are 0, norm scales 1, slopes 1/4
    (He et al. 2015), and what a layer defines itself is so.
    """
    return tuple(
        Rule(match, value, optional=True)
        for match, value in (
            (named("*"), OWN),
            (role("kernel", "recurrent_kernel", "head"), init),
            (role("embedding", "position"), get("random_normal(0.0, 0.02)")),
            (role("gate_bias") & named("*forget_gate*"), get("ones")),
            (role("bias", "gate_bias", "recurrent_bias", "norm_bias", "norm_offset"), get("zeros")),
            (role("norm_scale", "scale"), get("ones")),
            (role("slope"), get("constant(0.25)")),
        )
    )


def initializer_of(init: Any, dialect: str | None = None) -> RuleInit:
    """An initializer from what a rule was given, its bare name read as a dialect's."""
    if isinstance(init, Initializer) or init in (KEEP, OWN):
        return init  # type: ignore[no-any-return]
    bare = isinstance(init, str) and ":" not in init.partition("(")[0]
    return get(f"{dialect}:{init}" if dialect and bare else init)


def _rule(at: int, rule: Any, dialect: str | None) -> Rule:
    """A rule with its initializer found, or an error that says which rule it is."""
    if isinstance(rule, tuple) and len(rule) == 2:
        rule = Rule(*rule)
    if not isinstance(rule, Rule):
        raise RecipeError(f"rule {at + 1}: expected (match, initializer) or a fanin.Rule, got {rule!r}")
    try:
        return replace(rule, init=initializer_of(rule.init, dialect))
    except FaninError as error:
        raise RecipeError(f"rule {at + 1} ({rule}): {error}") from error


def _read_rule(at: int, entry: "_RuleData", dialect: str | None) -> Rule:
    try:
        match = Match(**{c.name: _several(getattr(entry, c.name)) for c in fields(Match)})
    except FaninError as error:
        raise RecipeError(f"rule {at + 1}: {error}") from error
    return _rule(at, Rule(match, entry.init, entry.optional), dialect)  # type: ignore[arg-type]


def _rule_data(rule: Rule) -> dict[str, Any]:
    conditions = {c.name: list(getattr(rule.match, c.name)) for c in fields(Match)}
    data: dict[str, Any] = {
        what: several[0] if len(several) == 1 else several for what, several in conditions.items() if several
    }
    data["init"] = _init_data(rule.init)
    return {**data, "optional": True} if rule.optional else data


def _init_data(init: RuleInit) -> Any:
    """An expression where that says it all, else a dictionary."""
    if not isinstance(init, Initializer):
        return init
    data = init.to_dict()
    try:
        return str(init) if get(str(init)).to_dict() == data else data
    except FaninError:  # an array is shown by its shape
        return data


# --- the shape of a file -------------------------------------------------------------------------

Several: TypeAlias = str | list[str] | None


@dataclass
class _RuleData:
    init: str | dict[str, Any]
    name: Several = None
    role: Several = None
    layer: Several = None
    shape: Several = None
    activation: Several = None
    block: int | list[int] | None = None
    optional: bool = False


@dataclass
class _RecipeData:
    rules: list[_RuleData] = field(default_factory=list)
    base: str | None = None
    dialect: str | None = None
    keys: Keys = "path"
    alias: dict[str, str] = field(default_factory=dict)
    unpadded: dict[str, tuple[int, ...]] = field(default_factory=dict)
    name: str = ""


def _converted(data: Any, where: str) -> _RecipeData:
    """Data of the right types and with known keys alone."""
    import msgspec

    try:
        read = msgspec.convert(data, _RecipeData)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise RecipeError(f"{where}: {_place(str(error))}") from error
    _check_keys(data, _RecipeData, where)
    for at, rule in enumerate(data.get("rules", ())):
        _check_keys(rule, _RuleData, f"{where}: rule {at + 1}")
    return read


def _check_keys(data: dict[str, Any], kind: type, where: str) -> None:
    known = [each.name for each in fields(kind)]
    for key in data:
        if key not in known:
            raise RecipeError(f"{where}: no key {key!r}; {near(key, known)}")


def _several(value: Any) -> tuple[Any, ...]:
    return () if value is None else tuple(value) if isinstance(value, list) else (value,)


def _place(message: str) -> str:
    """A message with its place first: "rule 2, key 'init': Expected `str`, got `int`"."""
    fact, _, place = message.partition(" - at `$")
    found = re.search(r"\.rules\[(\d+)\]", place)
    key = re.search(r"\.(\w+)(?:\[.*\])?`$", place.replace(".rules", "", 1) if found else place)
    where = [f"rule {int(found[1]) + 1}"] if found else []
    where += [f"key {key[1]!r}"] if key else []
    return f"{', '.join(where)}: {fact}" if where else fact
