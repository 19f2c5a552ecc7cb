"""``[tool.fanin.audit]`` in pyproject.toml: which checks run, and their thresholds.

.. code-block:: toml

    [tool.fanin.audit]
    select = ["symmetry", "forward-scale"]   # all by default
    ignore = ["first-update"]

    [tool.fanin.audit.forward-scale]
    warn = 0.5
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any

from fanin.audit.checks import CHECKS
from fanin.audit.findings import Check
from fanin.audit.ranking import chosen
from fanin.errors import ArgumentError, FaninError, near

FILE = "pyproject.toml"
LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Config:
    """What `fanin.audit.examine` is to be called with."""

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    checks: Sequence[Check] = CHECKS


def find(start: str | Path = ".") -> Path | None:
    """The pyproject.toml of a folder, or of the nearest above it that has one."""
    folder = Path(start).resolve()
    return next((each / FILE for each in (folder, *folder.parents) if (each / FILE).is_file()), None)


def load(path: str | Path | None) -> Config:
    """The table of a file; without a file, or without the table in it, all checks as they are.

    Raises
    ------
    ArgumentError
        Names the file and the key.
    """
    import tomllib

    if path is None:
        return Config()
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{path}: {error}") from error
    table: Any = data
    for key in ("tool", "fanin", "audit"):
        table = table.get(key, {}) if isinstance(table, dict) else table
    return read(table, f"{path}: tool.fanin.audit")


def read(table: Any, where: str = "tool.fanin.audit") -> Config:
    """The configuration that a table holds.

    Examples
    --------
    >>> read({"ignore": ["first-update"]}).ignore
    ('first-update',)
    >>> read({"ignor": []})
    Traceback (most recent call last):
        ...
    fanin.errors.ArgumentError: tool.fanin.audit: no key 'ignor'; did you mean ignore?
    """
    if not isinstance(table, dict):
        raise ArgumentError(f"{where}: {table!r}; expected a table")
    codes = {check.code: check for check in CHECKS}
    for key in table:
        if key not in ("select", "ignore", *codes):
            raise ArgumentError(f"{where}: no key {key!r}; {near(key, ('select', 'ignore', *codes))}")
    select = _codes(table["select"], f"{where}.select") if "select" in table else None
    ignore = _codes(table.get("ignore", []), f"{where}.ignore")
    changed = [
        _changed(check, table[code], f"{where}.{code}") if code in table else check
        for code, check in codes.items()
    ]
    return Config(select, ignore, tuple(changed))


def _codes(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(code, str) for code in value):
        raise ArgumentError(f"{where}: {value!r}; expected a list of codes")
    try:
        chosen(value, None)
    except FaninError as error:
        raise ArgumentError(f"{where}: {error}") from error
    return tuple(value)


def _changed(check: Any, table: Any, where: str) -> Any:
    """A check with other thresholds: they are its fields."""
    known = [field.name for field in fields(check)] if hasattr(check, "__dataclass_fields__") else []
    if not isinstance(table, dict):
        raise ArgumentError(f"{where}: {table!r}; expected a table of thresholds")
    for key, value in table.items():
        if key not in known:
            names = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise ArgumentError(f"{where}: no threshold {key!r}; {names}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (0 <= value <= LARGEST or value == inf):
            raise ArgumentError(f"{where}.{key}: {value!r}; expected a number >= 0 that float64 can hold")
    return replace(check, **{key: float(value) for key, value in table.items()})
