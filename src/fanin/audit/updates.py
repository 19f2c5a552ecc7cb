"""What an optimizer adds to a parameter at its first step."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fanin._types import Array
from fanin.errors import ArgumentError, UnknownNameError, near

EPSILON = 1e-8
Direction = Callable[[NDArray[Any]], NDArray[Any]]


def _normalized(factor: float) -> Direction:
    """``g / (|g| + epsilon)``: moments of one gradient, their bias corrected."""
    return lambda gradient: factor * gradient / (np.abs(gradient) + EPSILON)


# The direction of the first step, from all-zero moments.
RULES: dict[str, Direction] = {
    "sgd": lambda gradient: gradient,
    "momentum": lambda gradient: gradient,
    "adam": _normalized(1.0),
    "adamw": _normalized(1.0),
    "adamax": _normalized(1.0),
    "adagrad": _normalized(1.0),
    "rmsprop": _normalized(10.0),  # sqrt(1 / (1 - 0.99)): its mean of squares is not corrected
    "lion": np.sign,
}


def parse(text: str) -> tuple[str, float]:
    """The rule and the rate of ``"adam 0.001"``.

    Raises
    ------
    ArgumentError
        Says what is expected; `UnknownNameError` lists the rules that are near.

    Examples
    --------
    >>> parse("adam 1e-3")
    ('adam', 0.001)
    >>> parse("adam")
    Traceback (most recent call last):
        ...
    fanin.errors.ArgumentError: `optimizer` 'adam': expected a rule and a rate, such as 'adam 0.001'
    """
    words = text.split() if isinstance(text, str) else []
    if len(words) != 2:
        raise ArgumentError(f"`optimizer` {text!r}: expected a rule and a rate, such as 'adam 0.001'")
    rule, rate = words[0].lower(), _number(words[1])
    if rule not in RULES:
        raise UnknownNameError(f"`optimizer` {words[0]!r}; {near(rule, RULES)}")
    if rate is None or not 0 < rate < math.inf:
        raise ArgumentError(f"`optimizer` {text!r}: the rate must be a positive number, got {words[1]!r}")
    return rule, rate


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def first_step(rule: str, rate: float, role: str, values: Array, gradient: Array) -> Array:
    """What is added to ``values``: minus the rate times the direction that the rule takes first.

    Parameters
    ----------
    rule : str
        A key of `RULES`.
    rate : float
    role : str
        What the parameter is for; no rule here asks.
    values, gradient : ndarray

    Examples
    --------
    >>> first_step("sgd", 0.5, "kernel", np.ones(2), np.array([1.0, -4.0]))
    array([-0.5,  2. ])
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return -rate * RULES[rule](np.asarray(gradient, np.promote_types(values.dtype, np.float32)))


def stepper(text: str) -> Callable[[str, Array, Array], Array]:
    """What `fanin.audit.measure.weights` takes as ``step``, of an optimizer as text.

    >>> stepper("sgd 0.1")("kernel", np.ones(1), np.ones(1))
    array([-0.1])
    """
    rule, rate = parse(text)
    return lambda role, values, gradient: first_step(rule, rate, role, values, gradient)
