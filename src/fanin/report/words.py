"""The result of a comparison in words."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fanin.report.comparison import Comparison, Interval, Row

# The three rules of the tutorial: code of the checks, the rule, and why it is one.
RULES = (
    (
        "symmetry",
        "Never all equal",
        "Units that start equal get equal gradients, so they stay equal for ever: a layer of "
        "{width} such units can do no more than a layer of one.",
    ),
    (
        "balance",
        "Zero mean, balanced signs",
        "Weights that are mostly of one sign push all units the same way. Layer by layer this "
        "common push grows and drowns what tells one example from another.",
    ),
    (
        "scale",
        "Neither too large nor too small",
        "Every layer multiplies the signal on the way up, and the gradient on the way down, by "
        "about the same factor. Over {depth} layers a factor of 0.7 divides it by {faded}, a "
        "factor of 1.4 multiplies it by {grown}.",
    ),
)


def verdict(comparison: "Comparison") -> str:
    """The whole comparison in one sentence."""
    rows, learned = comparison.rows, comparison.of("learned")
    layers = "1 hidden layer" if comparison.depth == 1 else f"{comparison.depth} hidden layers"
    setting = f"With {layers} of {comparison.width} {comparison.activation} units"
    if not learned:
        who = name(rows[0]) if len(rows) == 1 else f"none of {len(rows)} initializers"
        verb = "never learns" if len(rows) == 1 else "learns"
        return f"{setting}, {who} {verb}: no network gets far from a blind guess."

    best = learned[0]
    score = f"test accuracy {accuracy(best.accuracy)}"
    equals = [row for row in learned if row.expression in best.alike]
    if len(rows) == 1:
        return f"{setting}, {name(best)} reaches {score}."
    if equals:
        group = listing([name(row) for row in (best, *equals)])
        head = f"{setting}, no difference is detectable between {group} ({score} for the first)"
    else:
        head = f"{setting}, {name(best)} learns best ({score})"
        if len(learned) > 1:
            head += f", then {name(learned[1])} ({accuracy(learned[1].accuracy)})"

    failed = [row for row in rows if row.outcome != "learned"]
    if not failed:
        return f"{head}; all {len(rows)} learn."
    broke = sum(bool(row.findings) for row in failed)
    one = len(failed) == 1
    if broke == 0:
        rules = f"though {'it' if one else 'they'} kept the three rules"
    else:
        who = "it" if one else "all of these" if broke == len(failed) else f"{broke} of these"
        rules = f"and {who} broke one of the three rules before the first step"
    return f"{head}; {len(failed)} of {len(rows)} never learn{'s' * one}, {rules}."


def row_verdict(row: "Row", comparison: "Comparison") -> str:
    """One initializer's cause of success or failure, in a few words; may be empty."""
    if row.outcome == "learned":
        if row.steps_to_threshold is None:
            speed = f"not to {comparison.threshold:.0%} in {comparison.steps} steps"
        else:
            speed = f"{comparison.threshold:.0%} in {row.steps_to_threshold:.0f} steps"
        bent = broken_rules(row)
        rules = f"rule{'s' * (len(bent) > 1)} {listing(bent)}" if bent else ""
        return f"{speed}, though it bends {rules}" if bent else speed
    reason = cause(row, comparison)
    if row.outcome == "diverged" and row.diverged == 1:
        return f"at every rate{': ' if reason else ''}{reason}"
    return reason


def ties(comparison: "Comparison") -> str:
    """The pairs among those that learned whose difference may be chance; may be empty."""
    learned = comparison.of("learned")
    pairs = [
        f"{name(row)} and {name(other)}"
        for index, row in enumerate(learned)
        for other in learned[index + 1 :]
        if other.expression in row.alike
    ]
    return f"No difference detected between {'; '.join(pairs)}." if pairs else ""


def learned_before(comparison: "Comparison") -> str:
    """What the row `pretrained` is; empty without one."""
    if all(row.expression != "pretrained" for row in comparison.rows):
        return ""
    return (
        f"pretrained is he_normal after {comparison.steps} steps on the digits 0 to 4, at the rate that is "
        f"best there, with a new head; then it is trained on the {comparison.task}, as all others are."
    )


def cause(row: "Row", comparison: "Comparison") -> str:
    """The gravest of the broken rules, with its number; empty when none is broken."""
    if row.outcome == "diverged" and row.breaks("forward-scale") and row.forward_drift > 0:
        return drift_words("signal", row.forward_drift)
    if row.breaks("symmetry"):
        return f"{comparison.width} units act as {row.effective_width}"
    if row.breaks("forward-scale"):
        return drift_words("signal", row.forward_drift)
    if row.breaks("backward-scale"):
        return drift_words("gradient", row.backward_drift)
    if row.breaks("balance"):
        return f"the weights have a mean of {row.mean_over_std:.2g} std"
    return ""


def broken_rules(row: "Row") -> list[str]:
    """The numbers of the rules that the start breaks."""
    return [str(n) for n, (code, _, _) in enumerate(RULES, 1) if row.breaks(code)]


def name(row: "Row") -> str:
    """The row's expression, short enough for a sentence."""
    return without_long_decimals(row.expression)


def short_name(row: "Row") -> str:
    """The expression without the names of its arguments, for pictures and narrow tables."""
    return re.sub(r"\b\w+=", "", name(row))


def drift_words(what: str, per_layer: float) -> str:
    """A drift in words.

    >>> drift_words("signal", -0.15), drift_words("gradient", float("nan"))
    ('the signal shrinks 0.15 decades per layer', 'no gradient gets through')
    """
    if per_layer == math.inf:
        return f"the {what} overflows"
    if not math.isfinite(per_layer):
        return f"no {what} gets through"
    way = "grows" if per_layer > 0 else "shrinks"
    return f"the {what} {way} {abs(per_layer):.2g} decades per layer"


def accuracy(interval: "Interval") -> str:
    """A mean accuracy and half its interval, with a third digit where the interval has one.

    >>> from fanin.report import Interval
    >>> accuracy(Interval(0.7, 0.6, 0.8)), accuracy(Interval(0.97, 0.967, 0.973))
    ('0.70 ± 0.10', '0.970 ± 0.003')
    """
    digits = 3 if 0.0005 <= interval.half < 0.005 else 2
    return f"{interval.mean:.{digits}f} ± {interval.half:.{digits}f}"


def listing(names: Sequence[str]) -> str:
    """Names joined as a sentence does.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def without_long_decimals(expression: str) -> str:
    """An expression whose long decimals are cut to 4 digits.

    >>> without_long_decimals("orthogonal(gain=1.4142135623730951)")
    'orthogonal(gain=1.414)'
    """
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4g}", expression)


def times(factor: float) -> str:
    """A large factor, to two digits.

    >>> times(44366.1), times(1.7e29)
    ('44,000', '10^29')
    """
    return f"{float(f'{factor:.2g}'):,.0f}" if factor < 1e7 else f"10^{math.log10(factor):.0f}"


def number(per_layer: float) -> str:
    """A drift with its sign; ``"none"`` where no signal passes, ``"inf"`` where it overflows.

    >>> number(-0.154), number(-0.001), number(float("nan"))
    ('-0.15', '0.00', 'none')
    """
    if not math.isfinite(per_layer):
        return "inf" if per_layer > 0 else "none"
    return "0.00" if abs(per_layer) < 0.005 else f"{per_layer:+.2f}"


def signs(row: "Row") -> str:
    """Shares of positive and negative weights in percent; the rest is zero."""
    return f"{100 * row.positive:.0f}/{100 * row.negative:.0f}"
