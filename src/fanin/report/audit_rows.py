"""The table of an audit's page: a row for each operation, or for each parameter where no batch was run."""

import math
import re
from collections.abc import Sequence

from fanin.audit.trace import Operation, Spread, Weights
from fanin.report._html import text
from fanin.report.audit_plots import LINES
from fanin.report.audit_view import View
from fanin.report.audit_words import LEVELS, MARKS, between, cosine, number, shape, share

# How the bars and the pictures are to be read.
RANGES = "Faint lines: float8 (e4m3) keeps its precision between 2⁻⁷ and 240, float16 between 2⁻¹⁴ and 2¹⁶."

VARIANCE = "&sigma;<sub>w</sub>²"

OPERATIONS = (
    "Forward: root mean square of the output; the bar shows it on a logarithmic scale, 1 at the line. "
    "Theory: what it should be by the moments of its own input; ≠ marks a difference of more than a tenth. "
    "Backward: the gradient of the output when the model's output has a standard normal one. "
    "Cosine: between two examples. Dead: units that are zero for the whole batch. "
    "Flat: values where the activation has next to no slope. "
)
WEIGHTS = (
    f"{VARIANCE}: fan_in times the mean square. The bar shows the root mean square on a "
    "logarithmic scale, 1 at the line. "
)


def rows(view: View) -> str:
    """The section with the table."""
    if not view.names:
        return ""
    title, table = ("Every operation", _operations) if view.operations else ("Every parameter", _weights)
    note = ""
    if len(view.shown) < len(view.names):
        note = (
            f"<p>{len(view.shown):,} rows of {len(view.names):,}: the first, the last and those with "
            "findings. The JSON has all.</p>\n"
        )
    return f'<section id="table"><h2>{title}</h2>\n{note}{table(view)}</section>\n'


def mark(level: str) -> str:
    """The sign of a level, as an icon that has text."""
    return f'<span class="mark {level}" title="{LEVELS[level]}">{MARKS[level]}</span>'


def flag(view: View, at: int) -> str:
    """The sign of the gravest finding that names a row, as a link to it."""
    if at not in view.flags:
        return ""
    finding = view.findings[view.flags[at]]
    return (
        f'<a class="mark {finding.level}" href="#finding-{view.flags[at]}" title="{text(finding.code)}">'
        f"{MARKS[finding.level]}</a> "
    )


def breakable(name: str) -> str:
    """A name as code that may break after its dots."""
    return f"<code>{text(name).replace('.', '.<wbr>')}</code>"


def far(value: float) -> str:
    """A class for scales that are a concern: those beyond a tenth and ten."""
    return "" if 0.1 <= value <= 10 else " far"


def _operations(view: View) -> str:
    backward = any(operation.backward is not None for operation in view.operations)
    loss = any(operation.loss_gradient is not None for operation in view.operations)
    headings = ["operation", "output", "forward|2", "theory"]
    headings += ["backward|2"] * backward + ["by the loss"] * loss
    headings += ["cosine", "dead, flat", "weights"]
    lines = "".join(_operation(view, at, backward, loss) for at in view.shown)
    return _frame(headings, lines, view.reach) + f'<p class="small">{OPERATIONS}{RANGES}</p>\n'


def _operation(view: View, at: int, backward: bool, loss: bool) -> str:
    operation = view.operations[at]
    cells = [
        f"<td>{shape(operation.after.shape)}</td>",
        _scale(operation.after, view.reach[0], "forward"),
        _theory(view, at),
    ]
    if backward:
        cells.append(_scale(operation.backward, view.reach[1], "backward"))
    if loss:
        gradient = operation.loss_gradient
        cells.append(f'<td class="n">{number(None if gradient is None else gradient.rms)}</td>')
    cells += [
        f'<td class="n">{cosine(operation.after.cosine)}</td>',
        f"<td>{_faults(operation)}</td>",
        f'<td class="words">{_parameters(view, operation)}</td>',
    ]
    return _row(view, at, view.kind(at), cells)


def _row(view: View, at: int, kind: str, cells: Sequence[str]) -> str:
    return (
        f'<tr id="row-{at}"><th scope="row">{flag(view, at)}{breakable(view.names[at])} '
        f"<small>{text(kind)}</small></th>{''.join(cells)}</tr>\n"
    )


def _theory(view: View, at: int) -> str:
    odd, sign = (" odd", "≠ ") if view.surprising(at) else ("", "")
    return f'<td class="n{odd}">{sign}{number(view.theory[at])}</td>'


def _scale(found: Spread | None, reach: tuple[int, int], way: str) -> str:
    """Two cells: the number, and a bar from where 1 is."""
    if found is None:
        return '<td></td><td class="track"></td>'
    bar = note = ""
    if found.broken:
        note = f'<br><small class="bad">{found.broken:,} not finite</small>'
    if found.rms > 0 and math.isfinite(found.rms):
        start, end = sorted((_place(0.0, reach), _place(math.log10(found.rms), reach)))
        start, size = min(start, 99.0), max(end - start, 1.0)
        bar = f'<i class="{way}" style="left:{start:.1f}%;width:{size:.1f}%"></i>'
    return f'<td class="n{far(found.rms)}">{number(found.rms)}{note}</td><td class="track {way}">{bar}</td>'


def _faults(operation: Operation) -> str:
    shares = (
        ("dead", operation.after.dead),
        ("flat", operation.saturated),
        ("linear", operation.linear),
    )
    return "<br>".join(f"{name} {share(value)}" for name, value in shares if value)


def _parameters(view: View, operation: Operation) -> str:
    """What its parameters look like, those that look alike in one line."""
    alike: dict[str, list[Weights]] = {}
    for name in operation.parameters:
        alike.setdefault(view.looks[name], []).append(view.trace[name])
    lines = [_alike(operation, looks, group) for looks, group in alike.items()]
    lines += [
        f"<small>{text(name)}: enters with {number(gate.rms)}</small>"
        for name, gate in operation.gates.items()
    ]
    return "<br>".join(lines)


def _alike(operation: Operation, looks: str, group: Sequence[Weights]) -> str:
    said = [text(_brief(looks))]
    variances = [w.weight_variance for w in group if len(w.shape) > 1 and w.weight_variance is not None]
    if variances:
        said.append(f'<span class="whole">{VARIANCE} = {between(variances)}</span>')
    updates = [weights.update for weights in group if weights.update is not None]
    if updates:
        said.append(f"first step {share(max(updates))}")
    names = ", ".join(_inside(weights.name, operation.module) for weights in group)
    return f'<small title="{text(looks)}">{text(names)}: {"; ".join(said)}</small>'


def _inside(name: str, module: str) -> str:
    """A parameter's name without the modules that it shares with the operation.

    >>> _inside("h.0.attn.q_proj.weight", "h.0.attn.c_attn")
    'q_proj.weight'
    """
    parts, shared = name.split("."), module.split(".")
    while len(parts) > 1 and shared and parts[0] == shared[0]:
        parts, shared = parts[1:], shared[1:]
    return ".".join(parts)


def _brief(words: str) -> str:
    """The names that a tensor's law has, without the law where its variance is told beside.

    >>> _brief("he_normal: normal, sigma_w^2 = 2 by fan_in; or torch:kaiming_normal")
    'he_normal; or torch:kaiming_normal'
    """
    return words if words.endswith("fits no name") else re.sub(r": [^;:]*sigma_w\^2[^;]*", "", words)


def _weights(view: View) -> str:
    headings = ["parameter", "role", "shape", "rms|2", "mean", VARIANCE, "looks like"]
    lines = "".join(_alone(view, at) for at in view.shown)
    return _frame(headings, lines, view.reach) + f'<p class="small">{WEIGHTS}{RANGES}</p>\n'


def _alone(view: View, at: int) -> str:
    weights = view.trace.weights[at]
    cells = [
        f"<td>{weights.role}</td>",
        f"<td>{shape(weights.shape)}</td>",
        _scale(weights.values, view.reach[0], "forward"),
        f'<td class="n">{number(weights.values.mean)}</td>',
        f'<td class="n">{number(weights.weight_variance)}</td>',
        f'<td class="words"><small>{text(view.looks[weights.name])}</small></td>',
    ]
    return _row(view, at, weights.layer, cells)


def _place(power: float, reach: tuple[int, int]) -> float:
    """How far to the right a power of ten lies, in percent of the bar."""
    low, high = reach
    return 100 * min(max((power - low) / (high - low), 0.0), 1.0)


def _frame(headings: Sequence[str], lines: str, reach: Sequence[tuple[int, int]]) -> str:
    """The table in a frame that scrolls both ways; ``name|2`` heads two columns."""
    head = "".join(
        f'<th scope="col"{f" colspan={span}" if span else ""}>{name}</th>'
        for name, _, span in (heading.partition("|") for heading in headings)
    )
    style = "".join(
        f"td.track.{way}{{background-position:{_limits(powers)}}}"
        for way, powers in zip(("forward", "backward"), reach, strict=True)
    )
    return (
        f"<style>{style}</style>\n"
        '<div class="rows" tabindex="0"><table class="audit">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table></div>\n"
    )


def _limits(reach: tuple[int, int]) -> str:
    """Where 1 and the ends of the narrow dtypes lie on a bar; what lies beyond it is out of sight."""
    powers = [0.0, *(power * math.log10(2) for power in LINES)]
    return ",".join(
        f"{_place(power, reach):.1f}% 0" if reach[0] < power < reach[1] else "-9px 0" for power in powers
    )
