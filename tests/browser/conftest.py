"""Pages in a real browser. These tests run where they are asked for: ``pytest tests/browser``.

They need Chromium: in the path as ``chromium`` or ``google-chrome``, or where ``FANIN_BROWSER`` says.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """They are collected where they are asked for by path."""
    here = Path(__file__).parent
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(here) for path in asked) else True


class Opened(NamedTuple):
    """What a browser made of a page: its console, and what the test's own script wrote."""

    console: list[str]
    said: str


@pytest.fixture(scope="session")
def browser() -> str:
    """The browser's executable."""
    names = [os.environ["FANIN_BROWSER"]] if "FANIN_BROWSER" in os.environ else NAMES
    found = next((place for name in names if (place := shutil.which(name))), None)
    assert found, f"no browser: install chromium, or set FANIN_BROWSER (looked for {', '.join(names)})"
    return found


@pytest.fixture
def open_page(browser: str, tmp_path: Path) -> Callable[..., Opened]:
    """Open a page from a file, run a script of the test in it, and return what that evaluates to."""

    def run(page: str, script: str = "''", width: int = 1280, *, dark: bool = False) -> Opened:
        place = tmp_path / "page.html"
        says = (
            "<script>addEventListener('load', async () => {"
            f"const said = await ({script}); const pre = document.createElement('pre');"
            "pre.id = 'said'; pre.textContent = JSON.stringify(said); document.body.append(pre)})</script>"
        )
        before, end, after = page.rpartition("</body>")
        place.write_text(f"{before}{says}{end}{after}", encoding="utf-8")
        done = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
                *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"),
                *(f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=5000"),
                *("--dump-dom", place.as_uri()),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, flags=re.DOTALL)
        assert said, done.stderr
        return Opened(re.findall(r".*:CONSOLE.*", done.stderr), unescape(said[1]))

    return run
