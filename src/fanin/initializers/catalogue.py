"""The one list of initializers, and finding one by name, expression or dictionary."""

import ast
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from fanin.errors import ArgumentError, ExpressionError, FaninError, UnknownNameError, near
from fanin.initializers import (
    as_stored,
    combinators,
    constants,
    convolution,
    icnr,
    looks_linear,
    mimetic,
    orthogonal,
    random,
    scaling,
    sinusoidal,
    siren,
    sparse,
    structured,
)
from fanin.initializers._base import Initializer, snake

CATALOGUE: dict[str, type[Initializer]] = {
    cls.name(): cls
    for cls in (
        constants.Zeros,
        constants.Ones,
        constants.Constant,
        constants.Identity,
        random.RandomNormal,
        random.TruncatedNormal,
        random.RandomUniform,
        random.UniformUnitScaling,
        scaling.VarianceScaling,
        scaling.GlorotNormal,
        scaling.GlorotUniform,
        scaling.HeNormal,
        scaling.HeUniform,
        scaling.LecunNormal,
        scaling.LecunUniform,
        orthogonal.Orthogonal,
        convolution.DeltaOrthogonal,
        convolution.ConvolutionOrthogonal1D,
        convolution.ConvolutionOrthogonal2D,
        convolution.ConvolutionOrthogonal3D,
        structured.Dirac,
        structured.Bilinear,
        structured.HadamardIdentity,
        sparse.Sparse,
        siren.Siren,
        sinusoidal.Sinusoidal,
        mimetic.Mimetic,
        icnr.ICNR,
        looks_linear.LooksLinear,
        combinators.Scaled,
        combinators.ScaledUnits,
        combinators.Blocks,
        combinators.WithRow,
        combinators.Tile,
        combinators.Masked,
        as_stored.AsStored,
    )
}
SYNONYMS = {
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
}
# Initializers of higher floors, which plans name: (module, class), imported when one is read.
ELSEWHERE = {"pretrained": ("fanin.transfer.pretrained", "Pretrained")}

# What makes the initializer of "torch:kaiming_normal(...)": filled by `fanin.dialects`, which lies above.
DIALECTS: dict[str, Callable[[str, list[Any], dict[str, Any]], Initializer]] = {}


def names(*, synonyms: bool = False) -> list[str]:
    """The catalogue's names, in its order; with the synonyms at the end if asked.

    Examples
    --------
    >>> names()[:4]
    ['zeros', 'ones', 'constant', 'identity']
    """
    return [*CATALOGUE, *(SYNONYMS if synonyms else ())]


def find(name: str) -> type[Initializer]:
    """The class with a catalogue name, in snake_case or CamelCase."""
    key = snake(name)
    key = SYNONYMS.get(key, key)
    if key in ELSEWHERE:
        module, cls = ELSEWHERE[key]
        elsewhere: type[Initializer] = getattr(import_module(module), cls)
        return elsewhere
    if key not in CATALOGUE:
        raise UnknownNameError(f"no initializer {name!r}; {near(key, names(synonyms=True))}")
    return CATALOGUE[key]


def get(expression: str | Initializer | dict[str, Any]) -> Initializer:
    """The initializer that a name or an expression describes.

    Parameters
    ----------
    expression : str, Initializer or dict
        ``"he_normal"``, ``"HeNormal"``, ``"orthogonal(gain=1.5)"``, ``"random_normal(0.0, 0.02)"``,
        ``"scaled(he_normal, 0.5)"``; the arguments are Python literals and expressions of this kind. An
        initializer is returned as it is, a dict goes to `from_dict`. ``"torch:kaiming_normal"`` is a
        framework's own: see `fanin.dialects`.

    Raises
    ------
    UnknownNameError
        Lists the names that are near.
    ExpressionError
        When the expression is not ``name`` or ``name(arguments)``, or the arguments do not fit.

    Examples
    --------
    >>> get("he_normal")
    HeNormal()
    >>> get("random_normal(0.0, stddev=0.02)")
    RandomNormal(mean=0.0, stddev=0.02)
    >>> get("scaled(orthogonal(gain=2.0), 0.5)")
    Scaled(inner=Orthogonal(gain=2.0), factor=0.5)
    """
    if isinstance(expression, Initializer):
        return expression
    if isinstance(expression, dict):
        return from_dict(expression)
    if not isinstance(expression, str):
        raise ExpressionError(f"expected a name, an expression or an initializer, got {expression!r}")
    name, args, kwargs = parse(expression)
    return _make(name, expression, args, kwargs)


def parse(expression: str) -> tuple[str, list[Any], dict[str, Any]]:
    """``"name(1, b=2)"`` as its name, positional and keyword arguments: literals and initializers."""
    try:
        node = ast.parse(re.sub(r"(\w):(?=[A-Za-z])", r"\1.", expression.strip()), mode="eval").body
        if name := _name(node):
            return name, [], {}
        if isinstance(node, ast.Call) and (name := _name(node.func)):
            args = [_argument(arg) for arg in node.args]
            kwargs = {str(word.arg): _argument(word.value) for word in node.keywords if word.arg}
            if len(kwargs) == len(node.keywords):
                return name, args, kwargs
    except UnknownNameError as error:  # of an argument
        raise ExpressionError(
            f"cannot read {expression!r}: expected a name such as 'he_normal' or 'orthogonal(gain=1.5)'; "
            f"{error}"
        ) from error
    except FaninError:  # an argument's own
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(
            f"cannot read {expression!r}: expected a name such as 'he_normal' or 'orthogonal(gain=1.5)'"
        ) from error
    raise ExpressionError(
        f"cannot read {expression!r}: expected a name such as 'he_normal' or 'orthogonal(gain=1.5)'"
    )


def _name(node: ast.expr) -> str:
    """``he_normal`` or, read as an attribute, ``torch:kaiming_normal``."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}:{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _argument(node: ast.expr) -> Any:
    """A literal, or the initializer that a name or a call describes; nothing else is evaluated."""
    if isinstance(node, ast.Name | ast.Attribute | ast.Call):
        return get(ast.unparse(node))
    return ast.literal_eval(node)


def _make(name: str, what: object, args: list[Any], kwargs: dict[str, Any]) -> Initializer:
    dialect, colon, word = name.partition(":")
    if colon and dialect not in DIALECTS:
        raise UnknownNameError(f"no dialect {dialect!r} in {name!r}; {near(dialect, DIALECTS)}")
    if colon:
        return DIALECTS[dialect](word, args, kwargs)
    cls = find(name)
    try:
        return cls(*args, **kwargs)
    except ArgumentError:
        raise
    except TypeError as error:
        fields = ", ".join(cls.__dataclass_fields__) or "no arguments"  # type: ignore[attr-defined]
        raise ExpressionError(f"{what!r}: {cls.name()} takes {fields} ({error})") from error


def from_dict(data: dict[str, Any]) -> Initializer:
    """The initializer that `Initializer.to_dict` wrote.

    Examples
    --------
    >>> from_dict({"name": "random_normal", "mean": 0.0, "stddev": 0.5})
    RandomNormal(mean=0.0, stddev=0.5)
    """
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise ExpressionError(f"expected a dictionary with a 'name', got {data!r}")
    fields = {key: value for key, value in data.items() if key != "name"}
    return _make(data["name"], data, [], fields)
