"""What a check reports."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from fanin.audit.trace import Trace

Level = Literal["fail", "warn", "info"]
LEVELS: tuple[Level, ...] = ("fail", "warn", "info")  # worst first


@dataclass(frozen=True)
class Finding:
    """One thing that is worth knowing, with the numbers that show it.

    Attributes
    ----------
    code : str
        Which check found it: ``"symmetry"``, ``"balance"``, ``"forward-scale"``, ...
    level : {"fail", "warn", "info"}
        ``"fail"``: do not expect it to train. ``"warn"``: training is slower or less sure. ``"info"``:
        worth knowing, and no reason to stop.
    where, measured, expected, why, advice : str
        The place, what was found there, what a sound start shows, the reason, what to do.
    at : tuple of str
        The operations or parameters it is about, by name; the one it is most about first.
    snippet : str
        The repair as code for the framework of the trace.
    after : str
        What theory expects to be measured after the repair.
    weight : float
        Orders findings of one level: larger comes first.
    """

    code: str
    level: Level
    where: str
    measured: str
    expected: str
    why: str
    advice: str
    at: tuple[str, ...] = ()
    snippet: str = ""
    after: str = ""
    weight: float = 0.0


class Check(Protocol):
    """A stateless class: its docstring says why it matters, ``run`` looks at one trace."""

    code: ClassVar[str]

    def run(self, trace: Trace) -> Iterable[Finding]:
        """What is to be said of ``trace``."""
        ...


def reason(check: Check) -> str:
    """Why a check's findings matter: the first paragraph of its docstring, on one line."""
    return " ".join((type(check).__doc__ or "").strip().partition("\n\n")[0].split())


VERBS = {"torch": ("fanin.torch", "ft"), "keras": ("fanin.keras", "fk"), "jax": ("fanin.jax", "fj")}


def initialize(trace: Trace, recipe: str) -> str:
    """Code that starts the model anew, in the words of the trace's framework; none for weights alone.

    Examples
    --------
    >>> print(initialize(Trace("torch", ()), '"he_normal"'))
    import fanin.torch as ft
    <BLANKLINE>
    ft.initialize(model, "he_normal", seed=0)
    """
    if trace.framework not in VERBS:
        return ""
    module, short = VERBS[trace.framework]
    return f"import {module} as {short}\n\n{short}.initialize(model, {recipe}, seed=0)"
