"""An audit as one self-contained HTML page."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fanin.audit import Finding
from fanin.report._html import document, text
from fanin.report.audit_plots import pictures
from fanin.report.audit_rows import RANGES, breakable, far, flag, mark, rows
from fanin.report.audit_view import View
from fanin.report.audit_words import LEVELS, between, number, parameters, plural, shape
from fanin.report.outline import Fold, Leaf, Part, folded

if TYPE_CHECKING:
    from fanin.report.audit import Report

LINKS = 8  # places that a finding links to; the rest are counted
NAMES = 40  # unused parameters that are named


def audit_html(report: "Report") -> str:
    """The page: verdict, findings, pictures, a row for each operation, the tree of modules.

    It needs no network and no script, follows the reader's light or dark mode, and prints.
    All text that comes from outside is escaped.

    Examples
    --------
    >>> from fanin.audit.trace import Trace
    >>> from fanin.report import Report
    >>> audit_html(Report(Trace("torch", ()), ()))[:15]
    '<!doctype html>'
    """
    view = View(report.trace, report.findings)
    parts = (
        _head(report, view),
        _findings(view),
        _pictures(view),
        rows(view),
        _tree(view),
        _method(view),
    )
    return document("fanin audit: will it train?", "".join(parts), "page.css", "audit.css")


def _head(report: "Report", view: View) -> str:
    counts = {level: sum(finding.level == level for finding in view.findings) for level in LEVELS}
    badges = " ".join(
        f'<a class="badge {level}" href="#findings">{mark(level)} {level}: {counts[level]}</a>'
        for level in LEVELS
        if counts[level]
    )
    worst = next((level for level in ("fail", "warn") if counts[level]), "ok")
    facts = "".join(f"<li>{text(fact)}</li>" for fact in _facts(view))
    return (
        f'<header>\n<h1>Will it train?</h1>\n<p class="verdict {worst}">{text(report.verdict)}</p>\n'
        f'<p>{badges}</p>\n<ul class="facts">{facts}</ul>\n</header>\n'
    )


def _facts(view: View) -> Iterator[str]:
    trace = view.trace
    if trace.framework:
        yield trace.framework
    yield parameters(trace)
    if view.operations:
        yield f"{len(view.operations)} {plural('operation', len(view.operations))}"
    if trace.batch:
        yield "batch " + ", ".join(shape(signal.shape) for signal in trace.batch)
    if trace.loss is not None:
        blind = "" if trace.blind_loss is None else f", all outputs zero {number(trace.blind_loss)}"
        yield f"loss {number(trace.loss)}{blind}"
    if trace.optimizer:
        yield f"first step of {trace.optimizer}"
    if trace.singular_values:
        values = sorted(trace.singular_values)
        low, middle, high = values[0], values[len(values) // 2], values[-1]
        yield f"singular values of the Jacobian {number(low)} … {number(high)}, median {number(middle)}"


# --- findings ------------------------------------------------------------------------------------


def _findings(view: View) -> str:
    if not view.findings:
        return '<section id="findings"><h2>Findings</h2>\n<p>None.</p></section>\n'
    grave = [_finding(view, at) for at, finding in enumerate(view.findings) if finding.level != "info"]
    notes = [_finding(view, at) for at, finding in enumerate(view.findings) if finding.level == "info"]
    more = ""
    if notes:
        opened = "" if grave else " open"
        many = f"{len(notes)} {plural('note', len(notes))}, no reason to stop"
        more = f"<details{opened}><summary>{many}</summary>\n{''.join(notes)}</details>\n"
    return f'<section id="findings"><h2>Findings, gravest first</h2>\n{"".join(grave)}{more}</section>\n'


def _finding(view: View, at: int) -> str:
    finding = view.findings[at]
    facts = [
        ("measured", text(finding.measured)),
        ("expected", text(finding.expected)),
        ("why", text(finding.why)),
        ("what to do", text(finding.advice)),
    ]
    if finding.snippet and any(finding.snippet == before.snippet for before in view.findings[:at]):
        facts.append(("as code", "as above"))
    elif finding.snippet:
        facts.append(("as code", f"<pre><code>{text(finding.snippet)}</code></pre>"))
    if finding.after:
        facts.append(("then", text(finding.after)))
    if links := _links(view, finding):
        facts.append(("rows", links))
    items = "".join(f"<dt>{term}</dt><dd>{said}</dd>\n" for term, said in facts if said)
    return (
        f'<article class="card {finding.level}" id="finding-{at}">'
        f'<h3>{mark(finding.level)} <code>{text(finding.code)}</code> <span class="where">'
        f"{text(finding.where)}</span></h3>\n<dl>{items}</dl></article>\n"
    )


def _links(view: View, finding: Finding) -> str:
    """The rows that it names, each once."""
    shown = set(view.shown)
    found = dict.fromkeys(row for name in finding.at if (row := view.row(name)) in shown)
    links = [f'<a href="#row-{row}">{breakable(view.names[row])}</a>' for row in list(found)[:LINKS]]
    left = len(found) - len(links)
    return ", ".join(links) + (f" and {left} more" if left else "")


# --- pictures ------------------------------------------------------------------------------------


def _pictures(view: View) -> str:
    figures = "".join(
        f"<figure><h3>{picture.title}</h3>{picture.svg}<figcaption>{picture.caption}</figcaption></figure>\n"
        for picture in pictures(view)
    )
    if not figures:
        return ""
    hint = "A point leads to its row in the table. " + RANGES
    return (
        f'<section id="pictures"><h2>Pictures</h2>\n<p class="small">{hint}</p>\n'
        f'<div class="figures">{figures}</div></section>\n'
    )


# --- the tree ------------------------------------------------------------------------------------


def _tree(view: View) -> str:
    if not view.operations:
        return ""
    shown = set(view.shown)
    unused = _unused(view)
    return (
        '<section id="tree"><h2>The model, with (→ forward, ← backward) beside each line</h2>\n'
        '<p class="small">Between a tenth and ten a scale is of no concern; beyond it is bold. '
        "Blocks that are alike are folded.</p>\n"
        f'<ul class="tree">{_branches(view, view.tree, shown)}</ul>\n{unused}</section>\n'
    )


def _branches(view: View, parts: Sequence[Part], shown: set[int]) -> str:
    return "".join(_line(view, part, shown) for part in folded(parts, view.named))


def _line(view: View, part: Part | Fold, shown: set[int]) -> str:
    if isinstance(part, Leaf):
        if part.at not in shown:
            return ""
        label = f'<a href="#row-{part.at}">{breakable(part.label)}</a>'
        kind = f"<small>{text(view.kind(part.at))}</small>"
        return f"<li>{flag(view, part.at)}{label} {kind} {_both(view, [part.at])}</li>\n"
    inside = [at for at in part.operations if at in shown]
    if not inside:
        return ""
    if isinstance(part, Fold):
        summary = f"{breakable(part.label)} <small>({part.count} alike)</small> {_both(view, inside)}"
        lines = "".join(_line(view, one, shown) for one in part.parts)
        return f"<li><details><summary>{summary}</summary><ul>{lines}</ul></details></li>\n"
    summary = f"<b>{breakable(part.label)}</b> {_both(view, inside[-1:])}"
    return (
        f"<li><details open><summary>{summary}</summary>"
        f"<ul>{_branches(view, part.parts, shown)}</ul></details></li>\n"
    )


def _both(view: View, rows: Sequence[int]) -> str:
    """The scales of some operations both ways, as ``(→ 0.43, ← 1.20)``."""
    forward = [view.operations[at].after.rms for at in rows]
    backward = [found.rms for at in rows if (found := view.operations[at].backward) is not None]
    said = [
        f'<span class="{way}{far(min(values)) or far(max(values))}">{arrow} {between(values)}</span>'
        for way, arrow, values in (("forward", "→", forward), ("backward", "←", backward))
        if values
    ]
    return f'<span class="both">({", ".join(said)})</span>'


def _unused(view: View) -> str:
    used = {name for operation in view.operations for name in operation.parameters}
    names = [weights.name for weights in view.trace.weights if weights.name not in used]
    if not names:
        return ""
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    listed = ", ".join(breakable(name) for name in names[:NAMES])
    return f'<p class="note">Used by no operation that was seen: {listed}{more}.</p>\n'


# --- method --------------------------------------------------------------------------------------


def _method(view: View) -> str:
    if not view.operations:
        return ""
    return (
        '<section><h2>How it was measured</h2>\n<p class="small">One batch went through the model as it '
        "would in training, with dropout inactive. Gradients came back: of standard normal random numbers at "
        "the output, and of the loss where one was given. The model is as it was before. This says what is "
        "likely before the first step; it is no proof. Where layers normalize their inputs, or skips carry "
        "the signal, the scale of a single weight matters little.</p></section>\n"
    )
