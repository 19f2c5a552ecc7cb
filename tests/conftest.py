"""What the core's tests share: Philox in plain integers, kernels to choose from, Python started afresh."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

import fanin
from fanin import _kernel

# Laws are exact and their examples differ in size, so time says nothing; a failure prints how to repeat it.
# New examples at every local run; the same ones in CI, whose verdict is about the change alone.
settings.register_profile(
    "fanin", deadline=None, database=None, print_blob=True, derandomize="CI" in os.environ
)
settings.load_profile("fanin")


collect_ignore = ["fuzz.py"]  # a program, which imports what lies beside it


def _plain_philox(counter: tuple[int, ...], key: tuple[int, ...], rounds: int = 10) -> tuple[int, ...]:
    low = 0xFFFFFFFF
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right & low, (left >> 32) ^ c3 ^ k1, left & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c0, c1, c2, c3


@pytest.fixture(scope="session")
def plain_philox() -> Callable[..., tuple[int, ...]]:
    """Philox4x32 (Salmon et al. 2011, section 3) in Python integers, written without looking at fanin's."""
    return _plain_philox


@pytest.fixture(scope="session")
def plain_words() -> Callable[..., tuple[int, ...]]:
    """The 32-bit word of each canonical index of a stream given by four key words, in Python integers."""

    def words(key: tuple[int, ...], indexes: Iterator[int]) -> list[int]:
        made = []
        for index in indexes:
            block = index // 4
            counter = (block & 0xFFFFFFFF, block >> 32, key[2], key[3])
            made.append(_plain_philox(counter, key[:2])[index % 4])
        return made

    return words


@pytest.fixture(scope="session")
def tutorial() -> tuple[str, ...]:
    """The names of the tutorial's initializers."""
    return (
        *("zeros", "ones", "constant", "identity", "random_normal", "truncated_normal", "random_uniform"),
        *("uniform_unit_scaling", "variance_scaling", "glorot_normal", "glorot_uniform", "he_normal"),
        *("he_uniform", "lecun_normal", "lecun_uniform", "orthogonal"),
    )


@pytest.fixture
def use_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make fanin draw with one of its kernels until the test ends."""

    def use(name: str) -> None:
        monkeypatch.setattr(_kernel, "fill", _kernel.KERNELS[name])

    return use


@pytest.fixture
def use_threads() -> Iterator[Callable[[int | None], None]]:
    """Set the number of threads until the test ends."""
    yield fanin.set_threads
    fanin.set_threads(None)


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """Run a program in a fresh interpreter, with warnings as errors: what it prints, or how it failed."""

    def run(program: str | Path, *arguments: str, fails: bool = False, **environment: str) -> str:
        what = [str(program)] if isinstance(program, Path) else ["-c", program]
        source = str(Path(fanin.__file__).parents[1])
        kept = {key: value for key, value in os.environ.items() if key != "FANIN_KERNEL"}
        done = subprocess.run(
            [sys.executable, "-W", "error", *what, *arguments],
            env=kept | {"PYTHONPATH": source} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(scope="session")
def same_bits() -> Callable[..., None]:
    """Assert that two arrays have the same dtype, shape and bytes, naming the first element that differs."""

    def check(got: np.ndarray, expected: np.ndarray) -> None:
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        if got.tobytes() != expected.tobytes():
            unsigned = f"u{got.dtype.itemsize}" if got.dtype.itemsize <= 8 else "V"
            a, b = (np.ascontiguousarray(x).view(unsigned) for x in (got, expected))
            different = np.argwhere(a != b)
            first = tuple(different[0])
            pytest.fail(
                f"{len(different)} of {got.size} elements differ, first at {first}: "
                f"{got[first]!r} is not {expected[first]!r}"
            )

    return check
