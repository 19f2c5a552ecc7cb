"""A recipe from the values a model has: fingerprints gathered into few rules, with the evidence for each."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from fanin.audit.fingerprint import (
    FLAGS,
    SHAPES,
    SIGMAS,
    Fingerprint,
    Fit,
    blocks_of,
    fingerprint,
    fit_of,
    kurtosis,
)
from fanin.audit.trace import Weights
from fanin.errors import TraceError
from fanin.initializers import RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling
from fanin.normal import TRUNCATED_STD
from fanin.recipe import KEEP, Match, Recipe, Rule, layer, named, role

SPECIAL = re.compile(r"([*?\[])")
ALTERNATIVES = 3  # named in a comment
MISTAKES = ("packed", "transposed", "fieldless")  # laws with these flags are named only where no other fits


@dataclass(frozen=True)
class _Told:
    """A parameter and what may have drawn it, by expression."""

    weights: Weights
    print: Fingerprint
    fits: dict[str, Fit]

    @classmethod
    def of(cls, weights: Weights, print: Fingerprint) -> "_Told":
        sound = [fit for fit in print.fits if fit.flag not in MISTAKES]
        best = sorted(sound or print.fits, key=lambda fit: fit.flag != "")
        return cls(weights, print, {str(fit.initializer): fit for fit in best})

    @property
    def options(self) -> tuple[str, ...]:
        """The expressions of its rule, the best first."""
        return tuple(self.fits) or (KEEP,)


@dataclass(frozen=True)
class _Group:
    """What one rule is for; ``init`` is an expression, or keeps what cannot be told."""

    match: Match
    told: tuple[_Told, ...]
    init: str

    @property
    def rule(self) -> Rule:
        first = self.told[0].fits.get(self.init)
        return Rule(self.match, KEEP if first is None else first.initializer)


@dataclass(frozen=True)
class Inferred:
    """A recipe, and its TOML text with the evidence for each rule in comments."""

    recipe: Recipe
    text: str


def infer(weights: Sequence[Weights], *, framework: str = "", target: str = "a model") -> Inferred:
    """The recipe by which a model's parameters may have been drawn.

    Rules are for roles; what does not fit the law of most of its role goes before, by kind of layer or by
    name, numbers in names left open. What no law fits is kept as it is. Numbers are not recovered, only laws.

    Parameters
    ----------
    weights : sequence of Weights
        Of the model's parameters, as `fanin.audit.measure.weights` makes them.
    framework : str
        Whose defaults are thought of first: ``"torch"``, ``"keras"`` or ``"jax"``.
    target : str
        What the first comment calls the model.

    Examples
    --------
    >>> from fanin.audit import measure
    >>> from fanin.fans import OI
    >>> from fanin.initializers import HeNormal
    >>> from fanin.model import Model, Piece, Tensor
    >>> model = Model((Tensor("w", (64, 32), "float32", (Piece("w", "kernel", "linear", OI),)),))
    >>> values = {"w": HeNormal()((64, 32), seed=0, name="w", axes="oi")}
    >>> print(infer(tuple(measure.weights(model, values.get))).recipe)
    role kernel  he_normal()
    """
    if not weights:
        raise TraceError(f"{target} has no parameters to infer a recipe from")
    n_layer = blocks_of(weights)
    told = [_Told.of(each, fingerprint(each, n_layer, framework)) for each in weights]
    groups: list[_Group] = []
    for name in dict.fromkeys(each.weights.role for each in told):
        groups += _groups(name, _nameless([each for each in told if each.weights.role == name]))
    recipe = Recipe([group.rule for group in groups])
    return Inferred(recipe, "\n".join([_header(weights, target), *map(_text, groups)]))


# --- gathering -----------------------------------------------------------------------------------


def _nameless(told: list[_Told]) -> list[_Told]:
    """Those that fit no name get a law of their own, one for as many as it fits."""
    found = list(told)
    for pool in (_common_std, _common_scale, None):
        without = [at for at, each in enumerate(found) if not each.fits and each.print.family in SHAPES]
        for at in without:
            same = [found[k] for k in without if found[k].print.family == found[at].print.family]
            fit = (pool or _common_std)(same if pool else [found[at]], found[at].weights)
            if fit is not None:
                found[at] = replace(found[at], fits={str(fit.initializer): fit})
    return found


def _common_std(told: list[_Told], weights: Weights) -> Fit | None:
    """A law of fixed width that most of these may have."""
    mean = 0.0
    if abs(weights.values.mean) > 0.1 * weights.values.std:
        mean = _rounded(_median(each.weights.values.mean for each in told))
    width = _width(told, [1.0] * len(told), mean)
    family = told[0].print.family
    if family == "uniform":
        return fit_of(weights, "", RandomUniform(_rounded(mean - width), _rounded(mean + width)))
    if family == "truncated":
        return fit_of(weights, "", TruncatedNormal(mean, _rounded(width / TRUNCATED_STD)))
    return fit_of(weights, "", RandomNormal(mean, _rounded(width)))


def _common_scale(told: list[_Told], weights: Weights) -> Fit | None:
    """A law by fan_in that most of these may have."""
    known = [each for each in told if each.weights.fan_in]
    if not known:
        return None
    family = told[0].print.family
    width = _width(known, [math.sqrt(each.weights.fan_in or 1.0) for each in known], 0.0)
    scale = _rounded(width**2 / 3 if family == "uniform" else width**2)
    distribution = {"uniform": "uniform", "truncated": "truncated_normal"}.get(family, "untruncated_normal")
    return fit_of(weights, "", VarianceScaling(scale, "fan_in", distribution))


def _width(told: list[_Told], factors: list[float], mean: float) -> float:
    """The standard deviation times a factor, of the middle one and those near; a uniform law's limit."""
    sized = [(each, each.print.std * factor, factor) for each, factor in zip(told, factors, strict=True)]
    middle = _median(size for _, size, _ in sized)
    near = [each for each in sized if abs(each[1] / middle - 1) <= SIGMAS * each[0].print.error]
    total = sum(each.weights.values.n for each, _, _ in near)
    if told[0].print.family == "uniform":
        largest = max((each.weights.values.largest - abs(mean)) * factor for each, _, factor in near)
        return largest * (1 + 1 / total + 2e-5)  # the largest of n is about 1 / n below the limit
    return math.sqrt(sum(each.weights.values.n * size**2 for each, size, _ in near) / total)


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _groups(name: str, told: list[_Told]) -> list[_Group]:
    """The rules of one role: exceptions by name, by kind of layer, and last what most have."""
    most, rest = _most(told)
    last = [_Group(role(name), most[1], most[0])]
    by_layer = []
    for kind in dict.fromkeys(each.weights.layer for each in rest):
        mine = [each for each in rest if each.weights.layer == kind]
        if len(mine) > 1 and len(mine) == sum(each.weights.layer == kind for each in told):
            common, left = _most(mine)
            by_layer.append(_Group(role(name) & layer(_glob(kind)), common[1], common[0]))
            rest = [each for each in rest if each.weights.layer != kind] + left
    return [*_by_name(name, rest, told), *by_layer, *last]


def _most(told: list[_Told]) -> tuple[tuple[str, tuple[_Told, ...]], list[_Told]]:
    """The law that fits the most of them, of several the first choice of most; and those it does not fit."""
    votes = Counter(init for each in told for init in each.options)
    firsts = Counter(each.options[0] for each in told)
    odd = Counter(init for each in told for init, fit in each.fits.items() if fit.flag)
    best = max(votes, key=lambda init: (votes[init], -odd[init], firsts[init]))
    fitting = tuple(each for each in told if best in each.options)
    return (best, fitting), [each for each in told if best not in each.options]


def _by_name(name: str, rest: list[_Told], told: list[_Told]) -> list[_Group]:
    """Rules for exceptions, the numbers in their names left open where that takes in no other parameter."""
    found: list[tuple[str, tuple[str, ...], tuple[_Told, ...]]] = []
    for pattern in dict.fromkeys(_pattern(each.weights.name) for each in rest):
        left = [each for each in rest if _pattern(each.weights.name) == pattern]
        while left:
            (init, fitting), left = _most(left)
            names = tuple(_glob(each.weights.name) for each in fitting)
            taken = sum(fnmatchcase(each.weights.name, pattern) for each in told)
            found.append((init, (pattern,) if taken == len(fitting) > 1 else names, fitting))
    # Of equal laws one rule.
    joined: dict[str, tuple[tuple[str, ...], tuple[_Told, ...]]] = {}
    for init, names, fitting in found:
        before = joined.get(init, ((), ()))
        joined[init] = (before[0] + names, before[1] + fitting)
    return [_Group(role(name) & named(*names), every, init) for init, (names, every) in joined.items()]


def _glob(name: str) -> str:
    """A name as a glob that fits it alone.

    >>> _glob("layers[0].w")
    'layers[[]0].w'
    """
    return SPECIAL.sub(r"[\1]", name)


def _pattern(name: str) -> str:
    """A name with its numbers left open.

    >>> _pattern("transformer.h.11.attn.c_proj.weight")
    'transformer.h.*.attn.c_proj.weight'
    """
    return ".".join("*" if word.isdecimal() else _glob(word) for word in name.split("."))


# --- text ----------------------------------------------------------------------------------------


def _header(weights: Sequence[Weights], target: str) -> str:
    values = sum(each.values.n for each in weights)
    shown = re.sub(r"[^ -~]", "?", target)
    return (
        f"# Inferred from the values of {shown}: {len(weights)} parameters, {values:,} values.\n"
        "# A recipe says how values are drawn, not which: the seed is not recovered.\n"
        '# Lines that begin with "# ?" are for you to decide.\n'
    )


def _text(group: _Group) -> str:
    import tomli_w

    lines = [*_evidence(group), *_doubts(group)]
    [rule] = Recipe([group.rule]).to_dict()["rules"]
    return "".join(f"# {line}\n" for line in lines) + "[[rules]]\n" + tomli_w.dumps(rule)


def _evidence(group: _Group) -> Iterator[str]:
    """What was measured, and how sure that is."""
    count = len(group.told)
    front = f"{count} tensor{'s' * (count > 1)}"
    values = [each.weights.values for each in group.told]
    fits = [each.fits[group.init] for each in group.told if group.init in each.fits]
    total = sum(each.n for each in values)
    if not fits:
        stds = [each.std for each in values]
        yield f"{front}, {total:,} values: std {_range(stds)}"
        return
    if fits[0].words:
        heads = {fit.words.partition(":")[0] for fit in fits}
        owners = {head.partition(" of ")[0] for head in heads}
        name = heads if len(heads) == 1 or len(owners) > 1 else owners
        yield "".join([min(name), *fits[0].words.partition(":")[1:]])
    if fits[0].family == "constant":
        yield f"{front}, every value exactly {values[0].mean:.6g}"
    elif fits[0].family not in SHAPES:
        yield f"{front}, std {_range([each.std for each in values])}"
    else:
        ratio, error = _against(group, group.init)
        stds = [fit.std for fit in fits]
        if math.isclose(min(stds), max(stds), rel_tol=1e-9):
            yield f"{front}, std {_measured(stds[0] * ratio, stds[0] * error)}"
        else:
            yield f"{front}, std {_range(stds)}: {_measured(ratio, error)} times the law's"
    if fits[0].flag:
        yield f"note: {FLAGS[fits[0].flag]}"


def _against(group: _Group, init: str) -> tuple[float, float]:
    """The standard deviation of all its values as a share of a law's, and the standard error of that."""
    fits = [each.fits[init] for each in group.told]
    total = sum(each.weights.values.n for each in group.told)
    pairs = zip(group.told, fits, strict=True)
    square = sum(each.weights.values.n * (each.print.std / fit.std) ** 2 for each, fit in pairs)
    fourth = kurtosis(SHAPES[fits[0].family])[0] if fits[0].family in SHAPES else 3.0
    return math.sqrt(square / total), math.sqrt((fourth - 1) / (4 * total))


def _may_be(group: _Group, init: str) -> bool:
    """Whether a law is worth a comment: not odd, and not refuted by all values together."""
    if any(each.fits[init].flag in MISTAKES or not each.fits[init].std for each in group.told):
        return False
    ratio, error = _against(group, init)
    return abs(ratio - 1) <= SIGMAS * error


def _doubts(group: _Group) -> Iterator[str]:
    """What the values do not tell."""
    if group.rule.init == KEEP:
        yield "? fits no law that is known; it keeps the values the model has: give it an initializer"
        return
    common = set.intersection(*(set(each.fits) for each in group.told)) - {group.init}
    ordered = [init for init in group.told[0].options if init in common and _may_be(group, init)]
    equal = [init for init in ordered if all(_same_law(each, init, group.init) for each in group.told)]
    close = [init for init in ordered if init not in equal and not group.told[0].fits[init].flag]
    square = all(each.weights.fan_in == each.weights.fan_out for each in group.told)
    for several, why in (
        (equal, "fan_in is fan_out" if square else "the same law in these shapes"),
        (close, "too few values to tell"),
    ):
        if several:
            yield f"? could be {' or '.join(several[:ALTERNATIVES])}: {why}"


def _same_law(told: _Told, one: str, two: str) -> bool:
    a, b = told.fits[one], told.fits[two]
    return a.family == b.family and math.isclose(a.std, b.std, rel_tol=1e-9)


def _measured(value: float, error: float) -> str:
    """A number to the digits that its error leaves.

    >>> _measured(0.0199811, 0.0000312)
    '0.01998 +- 0.00003'
    """
    digits = max(0, -math.floor(math.log10(error)))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"
