"""A comparison as one self-contained HTML page."""

import math
from collections.abc import Callable
from html import escape

from fanin.report import pictures
from fanin.report._html import document, table
from fanin.report.comparison import Comparison, Outcome, Row
from fanin.report.words import (
    RULES,
    accuracy,
    learned_before,
    listing,
    name,
    number,
    row_verdict,
    signs,
    ties,
    times,
)

FLOAT32_MAX = (2 - 2**-23) * 2.0**127

BADGES: dict[Outcome, str] = {"learned": "✓ learned", "stuck": "○ stuck", "diverged": "✗ diverged"}


def compare_html(comparison: Comparison) -> str:
    """The page: verdict, rules with evidence, pictures, table, method, and the data as JSON.

    It needs no network and no script, follows the reader's light or dark mode, and prints.
    All text that comes from outside is escaped.

    Examples
    --------
    >>> from fanin.lab import compare
    >>> small = compare(["zeros", "he_normal"], depth=2, width=8, steps=20, seeds=2)
    >>> compare_html(small)[:15]
    '<!doctype html>'
    """
    parts = (
        _head(comparison),
        _rules(comparison),
        _before(comparison),
        _training(comparison),
        _rates(comparison),
        _table(comparison),
        _method(comparison),
        _data(comparison),
    )
    return document("fanin compare: which initializer learns?", "".join(parts), "page.css")


def _head(c: Comparison) -> str:
    counts = [(outcome, len(c.of(outcome))) for outcome in BADGES]
    badges = " ".join(
        f'<span class="badge {outcome}">{BADGES[outcome]}: {count}</span>'
        for outcome, count in counts
        if count
    )
    networks = len(c.rows) * len(c.rates) * c.seeds
    return (
        "<header>\n<h1>Which initializer learns?</h1>\n"
        f'<p class="verdict">{escape(c.verdict)}</p>\n<p>{badges}</p>\n'
        f"<p>{networks} networks were trained: {len(c.rows)} initializers, each at "
        f"{len(c.rates)} learning rates with {c.seeds} seeds. From one initializer to the next "
        "nothing changes but the numbers that the weights start from.</p>\n</header>\n"
    )


def _rules(c: Comparison) -> str:
    shown: tuple[tuple[list[str], Callable[[Row], list[str]]], ...] = (
        (
            [f"units that differ, of {c.width}", "after training"],
            lambda row: [
                _bar(row.effective_width / c.width, str(row.effective_width)),
                "overflow" if row.trained_width is None else str(row.trained_width),
            ],
        ),
        (
            ["signs +/-", "mean / std"],
            lambda row: [_signs_bar(row), f"{row.mean_over_std:.2g}".replace("inf", "∞")],
        ),
        (
            ["signal, decades per layer", "gradient, likewise"],
            lambda row: [_drift_bar(row.forward_drift), _drift_bar(row.backward_drift)],
        ),
    )
    cards = []
    for index, ((code, title, why), (headings, measure)) in enumerate(zip(RULES, shown, strict=True), 1):
        reason = why.format(
            width=c.width, depth=c.depth, faded=times(0.7**-c.depth), grown=times(1.4**c.depth)
        )
        breakers = [row for row in c.rows if row.breaks(code)]
        if code == "scale":
            breakers.sort(key=lambda row: (math.isnan(row.forward_drift), row.forward_drift))
        lines = [[_expression(row), *measure(row), f"{_badge(row)} {_reached(row)}"] for row in breakers]
        kept = len(c.rows) - len(breakers)
        evidence = (
            f"<p>Broken by {len(breakers)} of {len(c.rows)}:</p>"
            + table(["initializer", *headings, "training made of it"], lines)
            if breakers
            else f"<p>Kept by all {kept}.</p>"
        )
        cards.append(
            f'<article class="card {code}"><h3><span class="rule">{index}</span> {title}</h3>'
            f"<p>{escape(reason)}</p>{evidence}</article>\n"
        )
    return (
        "<section><h2>Three rules, and what happens to those who break them</h2>\n"
        f'<div class="cards">{"".join(cards)}</div>\n{_exceptions(c)}</section>\n'
    )


def _exceptions(c: Comparison) -> str:
    """What the rules did not foresee, in both directions."""
    notes = []
    bent = [row for row in c.of("learned") if row.findings]
    if bent:
        notes.append(
            f"{escape(listing([name(row) for row in bent]))} "
            f"{'bends' if len(bent) == 1 else 'bend'} a rule and still "
            f"{'learns' if len(bent) == 1 else 'learn'} something. The rules are about what "
            "random draws need: a broken one is a reason to look, not a proof."
        )
    if any(row.expression == "identity" and row.outcome == "learned" for row in c.rows):
        notes.append(
            "identity is no random draw. Each layer hands on what it gets, so the whole chain "
            "starts as one layer, and no two units are alike. It needs layers of equal width."
        )
    unexplained = [row for row in c.rows if row.outcome != "learned" and not row.findings]
    if unexplained:
        notes.append(
            f"{escape(listing([name(row) for row in unexplained]))} kept all three rules and "
            "did not learn: the rules are needed, not sufficient."
        )
    return "".join(f'<p class="note">{note}</p>\n' for note in notes)


def _before(c: Comparison) -> str:
    beyond = [name(row) for row in c.rows if max(row.forward) > FLOAT32_MAX]
    overflow = f" The signal of {listing(beyond)} leaves float32, which ends at 3·10³⁸." if beyond else ""
    return (
        "<section><h2>Before training: does the signal get through?</h2>\n"
        "<p>One batch goes up through the untrained network, and the gradient of its loss comes "
        "back down. A straight line means that every layer multiplies by the same factor. In the "
        "green band the signal stays within a factor of ten of 1.</p>\n"
        + _figures(
            c,
            (
                pictures.forward,
                "Root mean square of each hidden layer's pre-activations. Below 10⁻⁸ there is "
                "little left to learn from." + overflow,
            ),
            (
                pictures.backward,
                "Root mean square of the gradient, from the top layer (left) to the bottom layer "
                "(right). Where it fades, the lower layers do not move; where it explodes, their "
                "first step throws them away.",
            ),
        )
        + "</section>\n"
    )


def _training(c: Comparison) -> str:
    return (
        "<section><h2>Training: what became of them</h2>\n"
        "<p>Each initializer at the learning rate that suits it best. Lines are means over "
        f"{c.seeds} seeds, bands reach from the worst seed to the best.</p>\n"
        + _figures(
            c,
            (
                pictures.accuracy,
                f"Share of the {c.n_test} test examples that the network gets right. A blind "
                f"guess gets {c.blind:.2f}; the dotted line is {c.threshold:.0%}.",
            ),
            (
                pictures.loss,
                "Cross-entropy on the training batches, in nats. A network that has learned "
                "nothing stays at the logarithm of the number of classes.",
            ),
        )
        + "</section>\n"
    )


def _rates(c: Comparison) -> str:
    edges = [
        row for row in c.of("learned") if len(c.rates) > 1 and row.best_rate in (min(c.rates), max(c.rates))
    ]
    if edges:
        names = listing([name(row) for row in edges])
        edge = f"At an edge of the sweep stands the best rate of {names}; a wider sweep may serve it better."
    else:
        edge = "No best rate of those that learned lies at an edge of the sweep."
    figure = _figure(
        c,
        pictures.rates,
        f"Mean validation accuracy after {c.steps} steps; the large dots are the chosen rates.",
    )
    return (
        "<section><h2>The learning rate: everyone at their best</h2>\n"
        f'<div class="figures">{figure}<div><p>With one rate for all, the ranking would only say '
        f"which initializer suits that rate. So each one trains at the same {len(c.rates)} rates, and "
        "its best is chosen on examples that are kept apart from the test.</p>"
        "<p>A good start is also a forgiving one: its curve is high over a wide range of rates. "
        "A start that is stuck is stuck at all of them.</p>"
        f"<p>{escape(edge)}</p></div></div></section>\n"
    )


def _table(c: Comparison) -> str:
    headings = [
        "initializer",
        "verdict",
        "test accuracy",
        "behind the first",
        f"steps to {c.threshold:.0%}",
        "best rate",
        "diverged",
        "std",
        "distinct units",
        "signs +/-",
        "signal drift",
        "gradient drift",
    ]
    lines = [
        [
            _expression(row),
            f"{_badge(row)}<br><small>{escape(row_verdict(row, c))}</small>",
            "" if row.outcome == "diverged" else accuracy(row.accuracy),
            _behind(row, c),
            _steps(row, c),
            f"{row.best_rate:.2g}" if row.outcome == "learned" else "",
            f"{row.diverged:.0%}",
            f"{row.std:.3g}",
            f"{row.effective_width} / {c.width}",
            signs(row),
            number(row.forward_drift),
            number(row.backward_drift),
        ]
        for row in c.rows
    ]
    return (
        "<section><h2>All numbers</h2>\n"
        + table(headings, lines, wide=True)
        + (f"<p>{escape(ties(c))}</p>\n" if ties(c) else "")
        + '<p class="small">Test accuracy: mean ± half of Student\'s 95 % interval over '
        f"{c.seeds} seeds, at the best rate. Behind the first: interval of the paired differences "
        "to the first row, seed by seed; “no difference detected” where it holds zero. Each "
        "interval is right in 95 of 100 cases by itself, so among many a few are wrong. Steps: "
        "median over seeds, with the share of seeds that got there. Diverged: share of all "
        f"{len(c.rates) * c.seeds} networks of the row. Drifts: decades (factors of ten) per "
        "layer before training. Std, units and signs: of the weights of the hidden layers before "
        "training.</p></section>\n"
    )


def _method(c: Comparison) -> str:
    low, high = min(c.rates), max(c.rates)
    facts = (
        (
            "Data",
            f"{c.task}: {c.n_features} inputs, {c.n_classes} classes. {c.n_train} examples "
            f"to train on, {c.n_validation} to choose the rate by, {c.n_test} to report on, every "
            "class in the same share. Inputs are centred and scaled to unit mean square by the "
            "training part.",
        ),
        (
            "Network",
            f"{c.depth} hidden layers of {c.width} {c.activation} units and a linear "
            "head. The initializer draws every weight, the head's too; biases start at zero.",
        ),
        (
            "Training",
            f"Plain stochastic gradient descent, no momentum, no decay: {c.steps} steps "
            f"of {c.batch} examples.",
        ),
        (
            "Fair",
            f"Every initializer gets the same {len(c.rates)} learning rates from {low:g} to "
            f"{high:g}, the same {c.seeds} seeds and, seed for seed, the same batches in the same "
            "order. The best rate is chosen on the validation part, never on the test part.",
        ),
        *([("Pretrained", learned_before(c))] if learned_before(c) else []),
        (
            "Stuck",
            "The mean test accuracy is less than a tenth of the way from a blind guess "
            f"({c.blind:.2f}) to all right, or within three standard errors of the guess.",
        ),
        (
            "Diverged",
            "The training loss left the finite numbers, or ended more than log(classes) "
            "above its start. An output that is not finite counts as a wrong answer.",
        ),
        (
            "Not shown",
            "The interval covers what the seeds change, weights and batches. Other "
            "data, other depths or an optimizer that rescales gradients can rank differently; "
            "normalization layers and skip connections make most of these differences small.",
        ),
    )
    items = "".join(f"<dt>{term}</dt><dd>{escape(text)}</dd>\n" for term, text in facts)
    return f"<section><h2>How it was made</h2>\n<dl>{items}</dl></section>\n"


def _data(c: Comparison) -> str:
    return (
        "<section><h2>The same facts as JSON</h2>\n"
        "<details><summary>Show the data</summary>"
        f'<pre id="data">{escape(c.to_json())}</pre></details></section>\n'
    )


def _figures(c: Comparison, *captioned: tuple[pictures.Draw, str]) -> str:
    return f'<div class="figures">{"".join(_figure(c, draw, text) for draw, text in captioned)}</div>\n'


def _figure(c: Comparison, draw: pictures.Draw, caption: str) -> str:
    svg = pictures.picture(c, draw)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _expression(row: Row) -> str:
    text = escape(name(row))
    if len(text) > 22:  # such a line may break inside
        text = text.replace("(", "(<wbr>")
    return f'<code title="{escape(row.expression)}">{text}</code>'


def _badge(row: Row) -> str:
    return f'<span class="badge {row.outcome}">{BADGES[row.outcome]}</span>'


def _reached(row: Row) -> str:
    return "" if row.outcome == "diverged" else f"{row.accuracy.mean:.2f}"


def _behind(row: Row, c: Comparison) -> str:
    if row is c.rows[0] or row.outcome != "learned":
        return ""
    if row.difference.has_zero:
        return "no difference detected"
    return f"{-row.difference.mean:.2f} ± {row.difference.half:.2f}"


def _steps(row: Row, c: Comparison) -> str:
    if row.steps_to_threshold is not None:
        return f"{row.steps_to_threshold:.0f} <small>({row.reached:.0%} of seeds)</small>"
    if row.reached:
        return f"&gt; {c.steps} <small>({row.reached:.0%} of seeds)</small>"
    return f"&gt; {c.steps}" if row.outcome == "learned" else ""


def _bar(share: float, text: str) -> str:
    return f'<span class="bar" style="--share:{share:.3f}"></span> {text}'


def _signs_bar(row: Row) -> str:
    return _bar(row.positive, signs(row))


def _drift_bar(per_layer: float) -> str:
    """A bar to the left of the middle where the signal fades, to the right where it grows."""
    if math.isnan(per_layer):
        return f'<span class="drift"></span> {number(per_layer)}'
    size = min(abs(per_layer), 1.0) / 2
    start = 0.5 if per_layer > 0 else 0.5 - size
    return f'<span class="drift" style="--start:{start:.3f};--size:{size:.3f}"></span> ' + number(per_layer)
