"""What all checks find, worst first and causes before what follows from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fanin.audit.checks import CHECKS
from fanin.audit.findings import LEVELS, Check, Finding
from fanin.audit.trace import Trace
from fanin.errors import UnknownNameError, near

SIGNALS = (
    "forward-scale",
    "backward-scale",
    "distinguishability",
    "saturated-units",
    "dead-units",
    "linear-units",
    "loss-at-start",
    "dtype-range",
    "depth-scale",
    "isometry",
)
# What may follow from what. A finding belongs to the first of these that can explain it.
EXPLAINS: Mapping[str, Sequence[str]] = {
    "not-finite": ("symmetry", "balance", "residual-scale", "first-update", *SIGNALS),
    "unset-memory": ("symmetry", "balance", "scaled-layer", "residual-scale", "first-update", *SIGNALS),
    "zero-layer": ("symmetry", "residual-scale", "first-update", *SIGNALS),
    "symmetry": ("balance", "repeated-tensor", "first-update", *SIGNALS),
    "scaled-layer": ("balance", "residual-scale", "first-update", *SIGNALS),
    "wrong-fan": ("scaled-layer", "residual-scale", "first-update", *SIGNALS),
    "dead-bias": SIGNALS,
    "saturated-gate": SIGNALS,
    "residual-scale": SIGNALS,
    "balance": SIGNALS,
    "wrong-gain": ("first-update", *SIGNALS),
    "dead-units": ("forward-scale", "backward-scale", "distinguishability", "loss-at-start"),
    "forward-scale": ("first-update", *SIGNALS[1:]),
    "saturated-units": ("backward-scale", "distinguishability", "depth-scale"),
}
# Causes in one layer do not explain a drift that all layers make, nor do causes in all of them one step.
LOCAL = ("zero-layer", "scaled-layer", "dead-bias", "saturated-gate", "dead-units")
GENERAL = ("wrong-gain",)
FEW = 3  # places


def examine(
    trace: Trace,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    checks: Sequence[Check] = CHECKS,
) -> tuple[Finding, ...]:
    """What the checks find in a trace, ranked.

    Parameters
    ----------
    trace : Trace
    select, ignore : iterable of str, optional
        Codes of the checks to run, all by default, and of those to leave out.
    checks : sequence of Check
        Those there are; `fanin.audit.config` makes them with other thresholds.

    Returns
    -------
    tuple of Finding
        ``"fail"`` before ``"warn"`` before ``"info"``, then the strongest first; but what another finding
        explains follows it, and gives it its level where that is worse.

    Raises
    ------
    UnknownNameError
        For a code that no check has.
    """
    wanted = chosen(select, ignore, checks)
    found = [finding for check in checks if check.code in wanted for finding in check.run(trace)]
    return ranked(trace, list(dict.fromkeys(found)))  # trunks share places: one finding each


def chosen(
    select: Iterable[str] | None, ignore: Iterable[str] | None, checks: Sequence[Check] = CHECKS
) -> frozenset[str]:
    """The codes to run."""
    known = [check.code for check in checks]
    for codes in (select, ignore):
        for code in codes or ():
            if code not in known:
                raise UnknownNameError(f"no check {code!r}; {near(str(code), known)}")
    return frozenset(known if select is None else select) - frozenset(ignore or ())


def ranked(trace: Trace, found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings in the order in which they should be read."""
    places = [_places(trace, finding) for finding in found]
    reach = [_downstream(trace, at) for at in places]
    causes = list(EXPLAINS)
    roots: dict[int, int] = {}
    for symptom, finding in enumerate(found):
        able = [
            cause
            for cause, other in enumerate(found)
            if cause != symptom
            and finding.code in EXPLAINS.get(other.code, ())
            and _explains(other, finding, places[cause], reach[cause], places[symptom])
        ]
        if able:
            roots[symptom] = min(able, key=lambda cause: causes.index(found[cause].code))
    children: dict[int | None, list[int]] = {}
    for at in range(len(found)):
        children.setdefault(roots.get(at), []).append(at)

    def level(at: int) -> int:
        return min([LEVELS.index(found[at].level), *(level(child) for child in children.get(at, ()))])

    def order(at: int) -> tuple[int, int, float]:
        code = found[at].code
        return level(at), causes.index(code) if code in causes else len(causes), -found[at].weight

    def read(at: int | None) -> Iterable[Finding]:
        for child in sorted(children.get(at, ()), key=order):
            known = replace(found[child], level=LEVELS[level(child)])
            # A note is no reason to draw a model again, so it comes without the code for it.
            yield known if known.level != "info" else replace(known, snippet="", after="")
            yield from read(child)

    return tuple(read(None))


def _explains(
    cause: Finding, symptom: Finding, at: frozenset[int], reach: frozenset[int], felt: frozenset[int]
) -> bool:
    if not at or not felt:  # of weights alone, or of the whole model
        return True
    drift = symptom.code in ("forward-scale", "backward-scale")
    if drift and len(felt) > FEW and cause.code in LOCAL:
        return False
    if cause.code in GENERAL and (not at & felt or (drift and len(felt) <= FEW)):
        return False
    return bool(reach & felt) or symptom.code == "backward-scale"


def _places(trace: Trace, finding: Finding) -> frozenset[int]:
    names = set(finding.at)
    return frozenset(
        at
        for at, operation in enumerate(trace.operations)
        if operation.name in names or names & set(operation.parameters)
    )


def _downstream(trace: Trace, starts: frozenset[int]) -> frozenset[int]:
    found = set(starts)
    for at, operation in enumerate(trace.operations):
        if found & set(operation.inputs):
            found.add(at)
    return frozenset(found)
