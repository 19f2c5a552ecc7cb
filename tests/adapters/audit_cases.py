"""Models with a planted fault and models without: what the audit of each framework is measured by.

Each framework's ``test_<framework>_audit_faults.py`` lists ``FAULTS`` and ``HEALTHY``; its tests judge one
seed of each, ``python benchmarks/audit_faults.py`` many.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Make: TypeAlias = Callable[
    [int], Mapping[str, Any]
]  # seed -> the arguments of ``audit``: model, batch, loss, ...


@dataclass(frozen=True)
class Fault:
    """A model in which one thing is wrong.

    Attributes
    ----------
    name : str
        What was planted.
    make : callable
        ``make(seed)`` gives the arguments of ``audit``.
    code : str
        The check that must find it, before all others.
    at : str
        Where: the first finding must name this parameter, operation or module, or one in it.
    """

    name: str
    make: Make
    code: str
    at: str


@dataclass(frozen=True)
class Healthy:
    """A model that trains: nothing at all may be found at the level of a warning."""

    name: str
    make: Make


@dataclass(frozen=True)
class Verdict:
    """What the audit said of one case."""

    name: str
    expected: str
    found: str
    right: bool


def judge(case: Fault | Healthy, audit: Callable[..., Any], seed: int = 0) -> Verdict:
    """Audit one case, and say whether it is right."""
    report = audit(**case.make(seed))
    worse = [finding for finding in report.findings if finding.level != "info"]
    said = [f"{finding.code} at {', '.join(finding.at) or finding.where}" for finding in worse]
    if isinstance(case, Healthy):
        return Verdict(case.name, "nothing", "; ".join(said) or "nothing", not worse)
    right = bool(worse) and worse[0].code == case.code and _names(worse[0].at, case.at)
    return Verdict(case.name, f"{case.code} at {case.at}", said[0] if said else "nothing", right)


def _names(places: tuple[str, ...], wanted: str) -> bool:
    """Whether one of the places is the one that is wanted, or in it."""
    return any(place == wanted or place.startswith((f"{wanted}.", f"{wanted}:")) for place in places)
