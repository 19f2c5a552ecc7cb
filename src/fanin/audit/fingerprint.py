"""Which initialization is this? From what a tensor's values look like to the laws that would draw such.

A law is compared by four numbers that do not depend on how the values were made: mean, standard deviation,
kurtosis, and the largest magnitude. Each may be off by what n draws are off, five standard errors:

- the mean by ``5 std / sqrt(n)``;
- the standard deviation by ``5 sqrt((k - 1) / (4 n))`` of itself, k the law's kurtosis: 0.5 % of a normal
  tensor of 500000 elements, 16 % of one of 500;
- the kurtosis by 5 times its standard error, ``sqrt(24 / n)`` for a normal law;
- the largest of n magnitudes leaves a tail of about 1 / n above it: less than 1e-6 / n or more than 14 / n is
  chance once in a million tensors. It tells a uniform law's limit to 14 / n.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from fanin import initializers, normal, recipes
from fanin._types import Mode
from fanin.audit.trace import Weights
from fanin.errors import FaninError
from fanin.fans import IO, OI, Axes, Fans
from fanin.initializers import AsStored, Initializer, Orthogonal, RandomNormal, VarianceScaling, get
from fanin.initializers.catalogue import CATALOGUE
from fanin.model import GATES, Member, Piece
from fanin.normal import TRUNCATED_STD
from fanin.recipe import KEEP, OWN
from fanin.sampling import Distribution, Normal, TruncatedNormal, Uniform

SIGMAS = 5.0  # standard errors that a sample may be off
RARE, COMMON = 1e-6, 14.0  # of n draws, how many may be expected above the largest; exp(-14) is 1e-6
SKEW = 8.0  # how much further up the kurtosis of few values may be, times 1 / sqrt(n)
MOSTLY = 0.5  # share of zeros from which a tensor is sparse
UNCORRECTED = TRUNCATED_STD**2  # 0.7737: the variance left of N(0, 1) cut at 2
FRAMEWORKS = ("torch", "keras", "flax")  # whose layers' defaults are recipes
DIALECTS = {"jax": "flax"}  # whose layers a framework has
FANLESS = ("norm_scale", "norm_offset", "norm_bias", "slope", "scale", "dynamics")

FAMILIES = {
    "uniform": "uniform",
    "normal": "normal",
    "truncated": "normal, cut at 2 standard deviations",
    "orthogonal": "orthogonal",
    "identity": "the identity, times a number",
    "constant": "one value",
    "sparse": "mostly zeros",
    "other": "no law that is known",
    "broken": "not finite",
}


@dataclass(frozen=True)
class Fit:
    """A law that would draw such values.

    Attributes
    ----------
    words : str
        What it is called: ``"torch default of linear: uniform, sigma_w^2 = 1/3 by fan_in"``.
    initializer : Initializer
        What draws so.
    std : float
        Of the law.
    family : str
        A key of `FAMILIES`.
    flag : str
        ``""``, or what is odd about it: a key of `FLAGS`.
    """

    words: str
    initializer: Initializer
    std: float
    family: str
    flag: str = ""


FLAGS = {
    "fan_out": "the fan_out stands where fan_in is usual",
    "uncorrected": "cut at 2 standard deviations without making up for it: 0.7737 of the variance is left",
    "packed": "its fans are those of several kernels stored as one",
    "transposed": "its fans are those of the shape read in another framework's order of axes",
    "fieldless": "its fans leave the receptive field out",
}


@dataclass(frozen=True)
class Fingerprint:
    """What a tensor's values look like, and which initializers make such.

    Attributes
    ----------
    family : str
        A key of `FAMILIES`.
    std : float
        Of the values, rows of padding left out.
    error : float
        Its standard error, as a share of it.
    fits : tuple of Fit
        The best first; none if no name fits.
    """

    family: str
    std: float
    error: float
    fits: tuple[Fit, ...]

    @property
    def best(self) -> Fit | None:
        """The first fit with nothing odd about it, else the first."""
        return next((fit for fit in self.fits if not fit.flag), self.fits[0] if self.fits else None)

    @property
    def flag(self) -> str:
        """What is odd about it: when every law that fits is."""
        return self.best.flag if self.best else ""

    @property
    def drawn(self) -> bool:
        """Whether its values look random."""
        return self.family in ("uniform", "normal", "truncated", "orthogonal", "other")


# --- the laws that have names --------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """An initializer and what people call it.

    Attributes
    ----------
    flag : str
        As of a `Fit`.
    fans : bool
        Whether its law depends on fans, which tables and vectors have not.
    axes : Axes or None
        How it reads the shape, where not as the layer does.
    """

    words: str
    initializer: Initializer
    flag: str = ""
    fans: bool = True
    axes: Axes | None = None


def _scaled(words: str, scale: float, mode: Mode, flag: str = "") -> Iterator[Named]:
    for distribution in DISTRIBUTIONS:
        yield Named(words, VarianceScaling(scale, mode, distribution), flag)


def _famous(words: str, scale: float, mode: Mode) -> Iterator[Named]:
    """Those that the catalogue has names for are called so."""
    for each, distribution in zip(_scaled(words, scale, mode), DISTRIBUTIONS, strict=True):
        name = f"{words}_{distribution}".lower()
        yield replace(each, initializer=get(name)) if name in CATALOGUE else each


def _fixed(words: str, *expressions: str) -> Iterator[Named]:
    for expression in expressions:
        yield Named(words, get(expression), fans=False)


@cache
def named(n_layer: int | None = None) -> tuple[Named, ...]:
    """Initializers that people have names for, the usual ones first.

    Parameters
    ----------
    n_layer : int, optional
        Blocks of the model, where some scale by them.
    """
    found = [
        Named("torch default", VarianceScaling(1 / 3, "fan_in", "uniform")),
        *_famous("He", 2.0, "fan_in"),
        *_famous("Glorot", 1.0, "fan_avg"),
        *_famous("LeCun", 1.0, "fan_in"),
        *_fixed(
            "fixed", *(f"random_normal(0.0, {std})" for std in (0.02, 0.01, 0.05, 1.0, 0.1, 0.001, 0.006))
        ),
        *_fixed("fixed", *(f"truncated_normal(0.0, {std})" for std in (0.02, 0.01, 0.05, 1.0, 0.1))),
        *_fixed("fixed", *(f"random_uniform(-{a}, {a})" for a in (0.05, 0.1, 0.08, 0.01, 0.001, 1.0))),
        *_fixed("fixed", "random_uniform(0.0, 1.0)", "random_uniform(0.0, 0.01)"),
    ]
    if n_layer:
        into = "into the residual stream"
        found += [
            Named(f"GPT-2's, {into}", RandomNormal(0.0, 0.02 / math.sqrt(2 * n_layer)), fans=False),
            Named(f"Wang's, {into}", VarianceScaling(4.0 / n_layer**2, "fan_in", "untruncated_normal")),
            *_scaled(f"LeCun over 2 {n_layer} branches, {into}", 0.5 / n_layer, "fan_in"),
            *_scaled(f"He over {n_layer} branches, {into}", 2.0 / n_layer, "fan_in"),
        ]
    found += [
        *_scaled("He by fan_out", 2.0, "fan_out", "fan_out"),
        *_scaled("LeCun by fan_out", 1.0, "fan_out", "fan_out"),
        Named("torch default of recurrent layers", VarianceScaling(1 / 3, "fan_out", "uniform"), "fan_out"),
        *_scaled("Glorot with ReLU's gain", 2.0, "fan_avg"),
        *_scaled("torch's gain for tanh", 25 / 9, "fan_in"),
        *_scaled("Glorot with torch's gain for tanh", 25 / 9, "fan_avg"),
        *_scaled("He for a slope of 0.2", 2 / 1.04, "fan_in"),
        *_scaled("torch's gain for SELU", 9 / 16, "fan_in"),
        Named("small init", VarianceScaling(0.4, "fan_in", "untruncated_normal")),
        Named("Haiku default", VarianceScaling(UNCORRECTED, "fan_in", "normal"), "uncorrected"),
        Named("He, uncorrected", VarianceScaling(2 * UNCORRECTED, "fan_in", "normal"), "uncorrected"),
        Named("Glorot, uncorrected", VarianceScaling(UNCORRECTED, "fan_avg", "normal"), "uncorrected"),
        Named("SIREN", initializers.Siren()),
        Named("SIREN's first layer", initializers.Siren(first=True)),
    ]
    return tuple(found)


GAINS = ((1.0, "1"), (math.sqrt(2.0), "sqrt(2), for ReLU"), (5 / 3, "5/3, torch's for tanh"), (0.01, "0.01"))
DISTRIBUTIONS = ("normal", "untruncated_normal", "uniform")
FLAT = Axes((0,), ())  # of what nobody knows the axes of
FAMOUS = 10  # how many of the named laws come first: the torch default, He, Glorot, LeCun


@lru_cache(maxsize=4096)
def _default(framework: str, role: str, layer: str, leaf: str, activation: str | None) -> Initializer | None:
    """What a framework's layers start such a parameter from."""
    piece = Piece(leaf, role, layer, Axes((0,), ()), activation=activation)
    member = Member(leaf, (1,), piece.axes)
    for rule in recipes.get(framework)().concrete:
        if rule.init != OWN and rule.match.reason(piece, member) is not None:
            return None if rule.init == KEEP else rule.init  # type: ignore[return-value]
    return None


def defaults(
    role: str, layer: str, leaf: str, activation: str | None, framework: str = ""
) -> Iterator[Named]:
    """What PyTorch, Keras and Flax start such a parameter from, the framework named first."""
    for each in sorted(FRAMEWORKS, key=lambda name: name != DIALECTS.get(framework, framework)):
        made = _default(each, role, layer, leaf, activation)
        if made is not None:
            yield Named(f"{each} default of {layer}", made)


# --- laws ----------------------------------------------------------------------------------------


def kurtosis(law: Distribution) -> tuple[float, float]:
    """The fourth standardized moment of a law, and n times the variance of its sample value.

    >>> kurtosis(Normal(0.0, 1.0))
    (3.0, 24.0)
    """
    if isinstance(law, Uniform):
        return 1.8, 1.317
    if isinstance(law, TruncatedNormal) and (law.lower, law.upper) == (-2.0, 2.0):
        return 2.36554, 3.848
    return 3.0, 24.0


def _tail(law: Distribution, magnitude: float) -> float:
    """The probability of a draw further from the mean than this."""
    if isinstance(law, Uniform):
        half = (law.high - law.low) / 2
        return max(0.0, 1.0 - magnitude / half) if half else 0.0
    scale = law.scale if isinstance(law, TruncatedNormal) else law.std
    beyond = math.erfc(magnitude / scale / math.sqrt(2.0)) if scale else 0.0
    if isinstance(law, TruncatedNormal):
        below, mass, above = normal.masses(law.lower, law.upper)
        return max(0.0, (beyond - below - above) / mass)
    return beyond


def _end(law: Distribution) -> float:
    """Where a law's magnitudes end, if they do."""
    if isinstance(law, TruncatedNormal):
        return max(abs(law.lower), abs(law.upper))
    return law.reach if isinstance(law, Uniform) else math.inf


@dataclass(frozen=True)
class _Sample:
    """The numbers that laws are compared with; exact zeros, where only some rows are, left out."""

    n: float
    mean: float
    std: float
    kurtosis: float
    largest: float
    rounding: float  # relative, of each value

    @classmethod
    def of(cls, weights: Weights) -> "_Sample":
        facts, kept = weights.values, 1.0 - weights.values.zeros
        share = kept if kept > 0 else 1.0
        n = (facts.n - facts.broken) * share
        unbiased = math.sqrt(n / (n - 1)) if n > 1 else 1.0
        centred = abs(facts.mean) < 0.5 * facts.rms
        return cls(
            n=n,
            mean=facts.mean / share,
            std=facts.std * unbiased / (math.sqrt(share) if centred else 1.0),
            kurtosis=weights.kurtosis * share if centred else weights.kurtosis,
            largest=facts.largest,
            rounding=2.0 ** -max(min(weights.bits, 24), 2),
        )

    def error(self, law_kurtosis: float) -> float:
        """How far its std may be from that of its law, as a share."""
        return SIGMAS * math.sqrt(max(law_kurtosis - 1, 0.1) / (4 * max(self.n, 1))) + self.rounding**2

    def is_from(self, law: Distribution, scale_known: bool = True) -> bool:
        """Whether it may be a sample of a law; without ``scale_known``, of the law times any number."""
        fourth, variance = kurtosis(law)
        slack = self.error(fourth)
        if self.n < 2 and scale_known:  # one value is from any law that reaches it
            return abs(self.mean - law.mean) <= min(law.reach, SIGMAS * law.std)
        if law.std == 0.0 or self.std == 0.0:
            return False
        ratio = self.std / law.std
        if scale_known and not 1 - slack <= ratio <= 1 + slack:
            return False
        if scale_known and abs(self.mean - law.mean) > SIGMAS * law.std / math.sqrt(max(self.n, 1)):
            return False
        n = max(self.n, 1.0)
        away, usual = self.kurtosis - fourth, SIGMAS * math.sqrt(variance / n) + 6 / (n + 1)
        if away < -usual or away > usual * (1 + SKEW / math.sqrt(n)):
            return False
        # As far from the centre as any value: the largest magnitude, less the mean where that is not zero.
        centre, doubt = 0.0, 0.0
        if abs(self.mean) > 0.1 * self.std:
            centre, doubt = abs(self.mean), SIGMAS * self.std / math.sqrt(self.n)
        scale, slack = (1.0, 0.0) if scale_known else (ratio, slack)
        near = (self.largest - centre - doubt) / scale * (1 - slack) * (1 - 2 * self.rounding)
        far = (self.largest - centre + doubt) / scale * (1 + slack) * (1 + 2 * self.rounding)
        likely = self.n * _tail(law, near) >= RARE
        if math.isfinite(_end(law)):
            likely = near <= (law.reach - abs(law.mean)) * (1 + 1e-7)
        return likely and self.n * _tail(law, far) <= COMMON


SHAPES: dict[str, Distribution] = {
    "uniform": Uniform(-1.0, 1.0),
    "truncated": TruncatedNormal(0.0, 1.0),
    "normal": Normal(0.0, 1.0),
}


def family_of(law: Distribution) -> str:
    """The key of `FAMILIES` for a law.

    >>> family_of(TruncatedNormal(0.0, 0.02, -100.0, 100.0))
    'normal'
    """
    if isinstance(law, Uniform):
        return "uniform"
    cut = isinstance(law, TruncatedNormal) and max(-law.lower, law.upper) < 3
    return "truncated" if cut else "normal"


# --- matching ------------------------------------------------------------------------------------


def fingerprint(weights: Weights, n_layer: int | None = None, framework: str = "") -> Fingerprint:
    """What a tensor's values look like, and which initializers make such.

    Parameters
    ----------
    weights : Weights
        Its numbers.
    n_layer : int, optional
        Blocks of the model, for laws that scale by them.
    framework : str
        Whose defaults go before those of others: ``"torch"``, ``"keras"``, ``"jax"``.

    Examples
    --------
    >>> from fanin.audit import measure
    >>> from fanin.fans import OI
    >>> from fanin.model import Model, Tensor
    >>> model = Model((Tensor("w", (256, 784), "float32", (Piece("w", "kernel", "linear", OI),)),))
    >>> drawn = get("torch:kaiming_uniform_(a=2.23606797749979)")((256, 784), seed=0, name="w")
    >>> [weights] = measure.weights(model, {"w": drawn}.get)
    >>> words(weights)
    'torch default of linear: uniform, sigma_w^2 = 1/3 by fan_in'
    """
    facts = weights.values
    if facts.broken or not facts.n:
        return Fingerprint("broken", facts.std, 0.0, ())
    if facts.std == 0.0:
        return Fingerprint("constant", 0.0, 0.0, tuple(_constants(weights, framework)))
    exact = _identity(weights) or _orthogonal(weights)
    if exact is not None:
        return Fingerprint(exact.family, facts.std, 0.0, (exact,))
    sample = _Sample.of(weights)
    families = [name for name, shape in SHAPES.items() if sample.is_from(shape, scale_known=False)]
    if facts.zeros > MOSTLY:
        return Fingerprint(
            "sparse", sample.std, sample.error(3.0) / SIGMAS, tuple(_sparse(weights, sample, families))
        )
    fits = tuple(_fits(weights, sample, families, n_layer, framework))
    if fits:
        family = next((fit.family for fit in fits if not fit.flag), fits[0].family)
    else:
        off = {name: abs(kurtosis(SHAPES[name])[0] - sample.kurtosis) for name in families}
        family = min(off, key=lambda name: off[name], default="other")
    fourth = kurtosis(SHAPES[family])[0] if family in SHAPES else max(sample.kurtosis, 1.0)
    return Fingerprint(family, sample.std, sample.error(fourth) / SIGMAS, fits)


def fit_of(weights: Weights, called: str, initializer: Initializer) -> Fit | None:
    """An initializer as a fit of a tensor, if it may have drawn it."""
    law = _law(Named(called, initializer), weights.shape, weights.axes or FLAT)
    if law is None or not _Sample.of(weights).is_from(law):
        return None
    return Fit(called, initializer, law.std, family_of(law))


def blocks_of(every: Iterable[Weights]) -> int | None:
    """How many equal blocks a model has; None of one that has none."""
    return max((weights.block + 1 for weights in every if weights.block is not None), default=None)


def _constants(weights: Weights, framework: str) -> Iterator[Fit]:
    """The value; before it, where there is one alone, what a framework may have drawn it from."""
    value = weights.values.mean
    name = {0.0: "zeros", 1.0: "ones"}.get(value)
    if weights.values.n == 1 and name is None:
        drawn = _fits(weights, _Sample.of(weights), SHAPES, None, framework)
        yield from (fit for fit in drawn if f"default of {weights.layer}:" in fit.words)
    yield Fit(name or f"all {value:g}", get(name) if name else initializers.Constant(value), 0.0, "constant")


def _sparse(weights: Weights, sample: _Sample, families: list[str]) -> Iterator[Fit]:
    """Equally many zeros in each unit, and normal values."""
    share, std = math.floor(weights.values.zeros * 1e4 + 1e-6) / 1e4, float(f"{sample.std:.4g}")
    if len(weights.shape) == 2 and "normal" in families:
        made = initializers.Sparse(share, std)
        yield Fit(f"sparse: {share:.0%} zeros, others normal, std {std:g}", made, std, "sparse")


def _identity(weights: Weights) -> Fit | None:
    """Equal numbers on the diagonal, zeros elsewhere."""
    facts = weights.values
    count = facts.n * (1.0 - facts.zeros)
    fewest = min(weights.units, facts.n // max(weights.units, 1))
    one_size = math.isclose(facts.rms**2 * facts.n, count * facts.largest**2, rel_tol=1e-5)
    one_sign = math.isclose(abs(facts.mean) * facts.n, count * facts.largest, rel_tol=1e-5)
    if len(weights.shape) < 2 or not (one_size and one_sign and round(count) == fewest > 1):
        return None
    gain = math.copysign(facts.largest, facts.mean)
    if len(weights.shape) > 2 and gain == 1.0:
        return Fit("dirac: each output copies an input", initializers.Dirac(), facts.std, "identity")
    times = "" if gain == 1.0 else f" times {gain:.4g}"
    return Fit(f"identity{times}", initializers.Identity(gain), facts.std, "identity")


def _orthogonal(weights: Weights) -> Fit | None:
    """Rows or columns that are orthogonal and of equal length, but for rounding."""
    facts, rounding = weights.values, max(1e-4, 4 * 2.0**-weights.bits)
    few = min(weights.units, facts.n // max(weights.units, 1))
    if weights.orthogonal is None or weights.orthogonal > rounding or few < 2:
        return None
    gain = facts.rms * math.sqrt(facts.n / few)
    near = [each for each in GAINS if math.isclose(each[0], gain, rel_tol=10 * rounding)]
    value, text = near[0] if near else (float(f"{gain:.6g}"), f"{gain:.4g}")
    if len(weights.shape) > 2 and facts.zeros > 0.4:
        return Fit(
            f"delta orthogonal, gain {text}", initializers.DeltaOrthogonal(value), facts.std, "orthogonal"
        )
    return Fit(f"orthogonal, gain {text}", Orthogonal(value), facts.std, "orthogonal")


def _fits(
    weights: Weights, sample: _Sample, families: Iterable[str], n_layer: int | None, framework: str
) -> Iterator[Fit]:
    """Laws that would draw such values, the usual ones first."""
    yield from _shares_of_orthogonal(weights, sample, families)
    laws = _laws_for(weights, n_layer, framework)
    # Most are told apart by their width alone: 3 is the largest kurtosis.
    apart = np.abs(sample.std / laws.stds - 1) > sample.error(3.0)
    for at in np.flatnonzero(~apart | (sample.n < 2)):
        each, law = laws.named[at], laws.laws[at]
        family = family_of(law)
        if family in families and sample.is_from(law):
            made = each.initializer if each.axes is None else _drawing(law)
            yield Fit(f"{each.words}: {_said(each, law)}", made, law.std, family, each.flag)


def _shares_of_orthogonal(weights: Weights, sample: _Sample, families: Iterable[str]) -> Iterator[Fit]:
    """Gates of a recurrent kernel that were drawn as one orthogonal matrix: of variance ``1 / (g units)``."""
    gates = max(1, len(GATES.get(weights.layer.upper(), ())))
    if weights.role != "recurrent_kernel" or gates == 1 or "normal" not in families or not weights.units:
        return
    law = Normal(0.0, 1.0 / math.sqrt(gates * weights.values.n / weights.units))
    if sample.is_from(law):
        made = Orthogonal(1.0 / math.sqrt(gates))
        yield Fit(f"one of {gates} gates of an orthogonal matrix", made, law.std, "orthogonal")


def _law(each: Named, shape: tuple[int, ...], axes: Axes) -> Distribution | None:
    """What it draws each element from; None of one that does not, or not in this shape."""
    if type(each.initializer).law is Initializer.law:
        return None
    try:
        law = each.initializer.law(shape, each.axes or axes)
    except FaninError:
        return None
    return law if law.std > 0 else None


@dataclass(frozen=True, eq=False)
class _Laws:
    """Named laws of one shape, and their standard deviations."""

    named: tuple[Named, ...]
    laws: tuple[Distribution, ...]
    stds: NDArray[np.float64]


def _laws_for(weights: Weights, n_layer: int | None, framework: str) -> _Laws:
    leaf = ".".join([word for word in weights.name.split(".")[-3:] if not word.isdecimal()][-2:])
    place = (weights.role, weights.layer, leaf, weights.activation)
    return _laws(weights.shape, weights.axes, place, n_layer, framework)


@lru_cache(maxsize=4096)
def _laws(
    shape: tuple[int, ...],
    axes: Axes | None,
    place: tuple[str, str, str, str | None],
    n_layer: int | None,
    framework: str,
) -> _Laws:
    """What has a name and can be drawn in a shape: a framework's default first, each once."""
    known = axes is not None and (len(shape) > 1 or axes.known is not None)
    fans = known and place[0] not in FANLESS
    own = FLAT if axes is None else axes
    asked = [each for each in named(n_layer) if fans or not each.fans]
    asked += _misread(shape, own) if fans else ()
    found: dict[tuple[str, Axes | None], tuple[Named, Distribution]] = {}
    for each in (*defaults(*place, framework), *asked):
        law = _law(each, shape, own)
        if law is not None:
            found.setdefault((str(each.initializer), each.axes), (each, law))
    laws = tuple(law for _, law in found.values())
    return _Laws(tuple(each for each, _ in found.values()), laws, np.array([law.std for law in laws]))


def _misread(shape: tuple[int, ...], axes: Axes) -> Iterator[Named]:
    """The best-known laws with fans that are not the layer's: as stored, packed, or mistaken."""
    if len(shape) < 2 or axes.lookup or axes.known is not None:
        return
    famous = [each for each in named()[:FAMOUS] if each.fans]
    glorot = [each for each in famous if "Glorot" in each.words]
    if axes.groups > 1 or axes.stride > 1 or (len(axes.out) == 2 and not axes.in_):
        for each in (*famous, *_scaled("He by fan_out", 2.0, "fan_out")):
            yield Named(f"{each.words}, fans as stored", AsStored(each.initializer))
    for each, count in itertools.product(glorot, (3, 4)):
        yield Named(f"{each.words}, of {count} packed", AsStored(each.initializer, packed=count), "packed")
    if len(shape) == 2:
        return
    fans = axes.fans(shape)
    outputs, inputs = (math.prod(shape[axis] for axis in each) for each in (axes.out, axes.in_))
    for each in famous:
        yield replace(each, flag="fieldless", axes=replace(axes, known=Fans(inputs, outputs)))
        for other in (IO, OI):
            if other.fans(shape) != fans:
                yield replace(each, flag="transposed", axes=other)


def _drawing(law: Distribution) -> Initializer:
    """An initializer of fixed numbers with this law."""
    if isinstance(law, Uniform):
        return initializers.RandomUniform(law.low, law.high)
    if isinstance(law, TruncatedNormal):
        return initializers.TruncatedNormal(law.loc, law.scale, law.lower, law.upper)
    return RandomNormal(law.mean, law.std)


# --- words ---------------------------------------------------------------------------------------


def words(weights: Weights, n_layer: int | None = None) -> str:
    """Which initialization a tensor has, in words; what cannot be told apart stands side by side.

    A law that fits with the usual fans goes before one that fits with odd ones.
    """
    return describe(fingerprint(weights, n_layer), weights)


def describe(found: Fingerprint, weights: Weights) -> str:
    """A fingerprint in words."""
    best = found.best
    if best is not None:
        odd = f" ({FLAGS[best.flag]})" if best.flag else ""
        others = [fit for fit in found.fits if fit.words != best.words]
        alike = [fit for fit in others if math.isclose(fit.std, best.std, rel_tol=1e-6)]
        if alike and weights.fan_in == weights.fan_out:
            return f"{best.words}{odd}; fan_in is fan_out, so it may be {_either(alike)}"
        unsure = any(not fit.flag for fit in others)
        return best.words + odd + ("; too few values to be sure" if unsure else "")
    if found.family == "broken":
        return FAMILIES["broken"]
    size = f"std {found.std:.4g}"
    if weights.weight_variance is not None and weights.role not in FANLESS:
        size += f", sigma_w^2 = {weights.weight_variance:.4g} by fan_in"
    return f"{FAMILIES[found.family]}, {size}: fits no name"


def _either(fits: list[Fit]) -> str:
    """What else it may be called."""
    return " or ".join(list(dict.fromkeys(fit.words.partition(":")[0] for fit in fits))[:2])


def _said(each: Named, law: Distribution) -> str:
    """The family, and the scale by fan or the standard deviation."""
    family = FAMILIES[family_of(law)]
    made = each.initializer
    inner = get(made.inner) if isinstance(made, AsStored) else made
    general = getattr(inner, "general", inner)
    if isinstance(general, VarianceScaling):
        return f"{family}, sigma_w^2 = {_fraction(general.scale)} by {general.mode}"
    if isinstance(law, Uniform):
        return f"{family} between {law.low:.4g} and {law.high:.4g}"
    return f"{family}, std {law.std:.4g}"


def _fraction(number: float) -> str:
    """A small fraction where it is one.

    >>> _fraction(1 / 3), _fraction(2.0), _fraction(0.7737)
    ('1/3', '2', '0.7737')
    """
    near = Fraction(number).limit_denominator(16)
    return str(near) if math.isclose(float(near), number, rel_tol=1e-9) else f"{number:.4g}"
