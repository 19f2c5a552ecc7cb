"""An init card: where the first values of a model come from, as Markdown for a model card."""

from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

from fanin.plan import Plan, Row
from fanin.transfer.pretrained import Pretrained

SOURCES = ("taken", "adapted", "draw", "constant", "keep")
WORDS = {
    "taken": "taken from a checkpoint",
    "adapted": "adapted from a checkpoint",
    "draw": "drawn",
    "constant": "constant",
    "keep": "kept as they were",
}


def card(plan: Plan) -> str:
    """Recipe, seed, contract, what was taken, adapted and drawn, and the digests of what it was taken from.

    Examples
    --------
    >>> from fanin.fans import OI
    >>> from fanin.model import Model, Piece, Tensor
    >>> from fanin.planning import planned
    >>> weight = Tensor("w", (2, 3), "float32", (Piece("w", "kernel", "linear", OI),))
    >>> print(card(planned(Model((weight,)), "he_normal", 0)))
    ## Initialization
    <BLANKLINE>
    Recipe `he_normal`, seed 0, values of `fanin/1`; 1 parameters and buffers, 6 elements.
    <BLANKLINE>
    | source | tensors | elements | share |
    | --- | ---: | ---: | ---: |
    | drawn | 1 | 6 | 100.0% |
    <BLANKLINE>
    """
    plan.sign()
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    tensors: Counter[str] = Counter(row.source for row in plan.rows)
    elements: Counter[str] = Counter()
    for row in plan.rows:
        elements[row.source] += prod(row.shape)
    total = sum(elements.values())
    yield "## Initialization"
    yield ""
    yield (
        f"Recipe `{_cell(plan.recipe)}`, seed {plan.seed}, values of `{plan.contract}`; {len(plan.rows)} "
        f"parameters and buffers, {total:,} elements."
    )
    yield ""
    yield "| source | tensors | elements | share |"
    yield "| --- | ---: | ---: | ---: |"
    for source in SOURCES:
        if tensors[source]:
            share = elements[source] / max(total, 1)
            yield f"| {WORDS[source]} | {tensors[source]} | {elements[source]:,} | {share:.1%} |"
    yield ""
    taken = [(row, row.initializer) for row in plan.rows if isinstance(row.initializer, Pretrained)]
    if taken:
        yield from _sources(taken)
    if plan.unexpected:
        unused = ", ".join(f"`{_cell(key)}`" for key in plan.unexpected)
        yield f"Not used, though in the checkpoint: {unused}."
        yield ""


def _sources(taken: list[tuple[Row, Pretrained]]) -> Iterator[str]:
    files = dict.fromkeys(init.file for _, init in taken)
    yield f"Checkpoints: {', '.join(f'`{_cell(Path(file).name)}`' for file in files)}."
    yield ""
    adapted = [(row, init) for row, init in taken if row.source == "adapted"]
    if adapted:
        yield "| parameter | how |"
        yield "| --- | --- |"
        for row, _ in adapted:
            yield f"| `{_cell(row.name)}` | {_cell(row.rule)} |"
        yield ""
    pairs = (zip(init.keys, init.digests or (), strict=False) for _, init in taken)
    digests = dict(pair for each in pairs for pair in each)
    if digests:
        yield "<details><summary>SHA-256 of the tensors taken</summary>"
        yield ""
        yield "| tensor | SHA-256 |"
        yield "| --- | --- |"
        for key, digest in digests.items():
            yield f"| `{_cell(key)}` | `{digest}` |"
        yield ""
        yield "</details>"
        yield ""


def _cell(text: str) -> str:
    """Text that cannot end a table's cell or a span of code, nor begin HTML."""
    return " ".join(text.replace("`", "'").replace("|", "\\|").replace("<", "&lt;").split())
