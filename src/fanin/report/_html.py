"""What the pages share: the frame, and tables of cells that are already HTML."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files


def document(title: str, body: str, *styles: str, head: str = "") -> str:
    """A page that needs nothing but itself; ``styles`` are files beside this one.

    >>> document("a < b", "<p>", "page.css")[:15]
    '<!doctype html>'
    """
    style = "".join(files("fanin.report").joinpath(name).read_text(encoding="utf-8") for name in styles)
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{head}<title>{escape(title)}</title>\n"
        f"<style>\n{style}</style></head>\n<body><main>\n{body}</main></body></html>\n"
    )


def table(headings: Iterable[str], lines: Iterable[list[str]], wide: bool = False) -> str:
    """A table of cells that are already HTML, in a frame that scrolls when it is too wide."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>\n'
        for first, *rest in lines
    )
    kind = ' class="wide"' if wide else ""
    return (
        f'<div class="scroll" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
    )


def text(words: str) -> str:
    """Text from outside, for an element or an attribute: escaped, without control characters.

    >>> text("<b>\\x1b[0m")
    '&lt;b&gt;\\\\x1b[0m'
    """
    return escape(printable(words))


def printable(words: str) -> str:
    """The words, with characters that no page or terminal can show as Python escapes; lines stay lines."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in words
    )
