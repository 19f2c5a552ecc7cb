"""Frozen dataclasses to JSON and back, checked on the way in."""

import json
import math
import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fanin.errors import ArgumentError


def encode(value: Any) -> Any:
    """Plain JSON data; ``inf``, ``-inf`` and ``nan``, which JSON has no numbers for, as strings.

    >>> encode((1, -math.inf))
    [1, '-inf']
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def decode(kind: Any, data: Any, where: str) -> Any:
    """The value of type ``kind`` that ``encode`` made ``data`` from.

    ``kind`` is a dataclass, ``tuple[item, ...]``, ``Literal``, ``float``, ``int``, ``str`` or
    one of these ``| None``. Anything that does not fit is an error naming its place.

    >>> decode(tuple[float, ...], [1, "-inf"], "values")
    (1.0, -inf)
    >>> decode(int, "7", "steps")
    Traceback (most recent call last):
        ...
    fanin.errors.ArgumentError: steps: '7'; expected int
    """
    if is_dataclass(kind):
        if not isinstance(data, dict):
            raise _misfit(where, data, "an object")
        hints = get_type_hints(kind)
        missing = sorted(hints.keys() - data.keys())
        if missing:
            raise ArgumentError(f"{where}: no {', '.join(missing)}")
        build: Any = kind
        return build(**{k: decode(hint, data[k], f"{where}.{k}") for k, hint in hints.items()})
    if isinstance(kind, types.UnionType):
        (inner,) = (option for option in get_args(kind) if option is not types.NoneType)
        return None if data is None else decode(inner, data, where)
    if get_origin(kind) is tuple:
        if not isinstance(data, list):
            raise _misfit(where, data, "a list")
        item = get_args(kind)[0]
        return tuple(decode(item, value, f"{where}[{i}]") for i, value in enumerate(data))
    if get_origin(kind) is Literal:
        if data not in get_args(kind):
            raise _misfit(where, data, "one of " + ", ".join(get_args(kind)))
        return data
    if kind is float:
        number = isinstance(data, int | float) and not isinstance(data, bool)
        try:
            if number or data in ("inf", "-inf", "nan"):
                return float(data)
        except OverflowError as error:
            raise _misfit(where, data, "a number that float64 can hold") from error
        raise _misfit(where, data, "a number")
    if type(data) is not kind:
        raise _misfit(where, data, kind.__name__)
    return data


def parse(text: str) -> Any:
    """JSON data, or an error that names the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ArgumentError(f"line {error.lineno}: not JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits; too deep
        raise ArgumentError(f"not JSON that can be read ({error})") from error


def _misfit(where: str, data: Any, expected: str) -> ArgumentError:
    return ArgumentError(f"{where}: {data!r}; expected {expected}")
