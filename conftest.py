"""One framework per process: its adapter is collected only where it is asked for by path.

``pytest`` alone runs what needs no framework in its process; ``pytest tests/adapters/torch src/fanin/torch``
an adapter's tests and the examples in its docstrings.
"""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
FRAMEWORKS = ("torch", "keras", "tensorflow", "jax")
ADAPTERS = [
    ROOT / place
    for name in FRAMEWORKS
    for place in (f"tests/adapters/{name}", f"src/fanin/{name}", f"src/fanin/{name}.py")
]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    inside = [place for place in ADAPTERS if collection_path.is_relative_to(place)]
    if inside and not any(path.is_relative_to(place) for path in asked for place in inside):
        return True
    return None
