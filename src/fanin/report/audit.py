"""The outcome of an audit: what was measured, what was found, and every form in which it can be read."""

import io
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fanin.audit import Finding
from fanin.audit.trace import SCHEMA as TRACE_SCHEMA
from fanin.audit.trace import Trace, plain
from fanin.errors import ArgumentError, FaninError
from fanin.report import audit_words

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "fanin.audit/1"
COMMANDS = {"fail": "error", "warn": "warning", "info": "notice"}


@dataclass(frozen=True)
class Report:
    """A trace and what the checks found in it, gravest first.

    Made by ``fanin.torch.audit``, ``fanin.keras.audit``, ``fanin.jax.audit``, or read by `from_json`.

    Parameters
    ----------
    trace : fanin.audit.Trace
    findings : tuple of fanin.audit.Finding

    Examples
    --------
    >>> from fanin.audit.trace import Trace
    >>> report = Report(Trace("torch", ()), ())
    >>> report.ok, report.verdict
    (True, 'Nothing speaks against these 0 parameters; no batch was run.')
    """

    trace: Trace
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found at the levels "warn" and "fail"."""
        return all(finding.level == "info" for finding in self.findings)

    @cached_property
    def verdict(self) -> str:
        """The result in one sentence."""
        return audit_words.verdict(self.trace, self.findings)

    def show(self, console: "Console | None" = None) -> None:
        """Print it to the terminal, or to a console of rich."""
        from rich.console import Console

        from fanin.report.audit_table import audit_table

        (console or Console()).print(audit_table(self))

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        self.show(Console(file=text, width=100, color_system=None))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def to_html(self) -> str:
        """One page that needs no network and no script."""
        from fanin.report.audit_page import audit_html

        return audit_html(self)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style and the notebook's stay apart."""
        # Without a base, a link to a row would lead to the notebook's address.
        page = self.to_html().replace("<head>", '<head><base href="about:srcdoc">', 1)
        style = "width:100%;height:42rem;border:1px solid #8888;border-radius:6px"
        return f'<iframe sandbox title="fanin audit" style="{style}" srcdoc="{escape(page)}"></iframe>'

    def to_json(self) -> str:
        """All of it as JSON of schema "fanin.audit/1", which `from_json` reads without loss."""
        head = {"schema": SCHEMA, "ok": self.ok, "verdict": self.verdict}
        return json.dumps(plain(head | asdict(self)), indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "report") -> Self:
        """Read what `to_json` wrote; an error names ``where`` and what does not fit."""
        import msgspec

        try:
            data = json.loads(text)
            found = data.get("schema") if isinstance(data, dict) else None
            if found != SCHEMA:
                raise ArgumentError(f"schema {found!r}; expected {SCHEMA!r}")
            report = msgspec.convert(data, cls, strict=False, str_keys=True)
        except (ValueError, RecursionError, msgspec.ValidationError, FaninError) as error:
            raise ArgumentError(f"{where}: {error}") from error
        if report.trace.schema != TRACE_SCHEMA:
            raise ArgumentError(
                f"{where}: trace of schema {report.trace.schema!r}; expected {TRACE_SCHEMA!r}"
            )
        return report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page or the JSON, by the suffix; the file appears whole or not at all.

        Parameters
        ----------
        path : path
            Ends in ``.html`` or ``.json``.
        """
        place = Path(path)
        make = {".html": self.to_html, ".json": self.to_json}.get(place.suffix.lower())
        if make is None:
            raise ArgumentError(f"`path` {str(path)!r}: its suffix must be .html or .json")
        text = make()
        beside = place.with_name(f".{place.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            # Names from a model may hold lone surrogates, which no encoding has.
            beside.write_text(text, encoding="utf-8", errors="backslashreplace")
            os.replace(beside, place)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise ArgumentError(f"`path` {str(path)!r} cannot be written: {error.strerror}") from error

    def github(self) -> str:
        """Workflow commands of GitHub Actions: each finding becomes an annotation of the run."""
        return "".join(f"{line}\n" for line in self._annotations())

    def _annotations(self) -> Iterator[str]:
        for finding in self.findings:
            title = _escaped(f"fanin {finding.code}: {finding.where}", ":,")
            said = (
                f"measured: {finding.measured}\nexpected: {finding.expected}\n"
                f"why: {finding.why}\nwhat to do: {finding.advice}"
            )
            yield f"::{COMMANDS[finding.level]} title={title}::{_escaped(said)}"


def _escaped(text: str, more: str = "") -> str:
    """As the runner decodes it: percent signs and line ends, in a property also colons and commas."""
    for character in "%\r\n" + more:  # the percent sign first
        text = text.replace(character, f"%{ord(character):02X}")
    return text
