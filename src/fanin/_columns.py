"""Plain tables: what a result prints."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines whose columns line up: names to the left, what stands beside them to the right.

    >>> aligned([("layer", "size"), ("0", "1.25")])
    ['layer  size', '0      1.25']
    """
    rows = list(rows)
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, wide[1:], strict=True)]
        lines.append("  ".join([name.ljust(wide[0]), *right]))
    return lines
