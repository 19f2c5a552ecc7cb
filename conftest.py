"""One framework per process: ``pytest`` runs what needs none, ``pytest --adapter torch`` PyTorch's."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
# Where each adapter's tests, its docstrings' examples and those of its pages are.
ADAPTERS = {
    "torch": (
        "tests/adapters/torch",
        "src/fanin/torch",
        "docs/pytorch.md",
        "docs/torch_init.md",
        "docs/recipes.md",
        "docs/sharding.md",
    ),
    "keras": ("tests/adapters/keras", "src/fanin/keras", "docs/keras.md"),
    "tensorflow": ("tests/adapters/tensorflow", "src/fanin/tensorflow.py", "docs/tensorflow.md"),
    "jax": ("tests/adapters/jax", "src/fanin/jax", "docs/jax.md", "docs/flax.md"),
}
PLACES = [ROOT / place for places in ADAPTERS.values() for place in places]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--adapter", choices=[*ADAPTERS], help="run the tests and examples of one adapter")


def pytest_configure(config: pytest.Config) -> None:
    if adapter := config.getoption("--adapter"):
        config.args[:] = [str(ROOT / place) for place in ADAPTERS[adapter]]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """An adapter's files are collected where they are asked for by path."""
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    inside = [place for place in PLACES if collection_path.is_relative_to(place)]
    if inside and not any(path.is_relative_to(place) for path in asked for place in inside):
        return True
    return None
