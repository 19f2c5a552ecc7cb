"""From (seed, name) to the random bits that belong to them: ``docs/stream.md``, sections 1 and 2."""

import hashlib
import operator
import secrets
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fanin._kernel._reference import philox4x32 as _philox4x32
from fanin._types import Key
from fanin.errors import ArgumentError, SeedError

CONTRACT = "fanin/1"  # the domain tag: which version of the value contract a number belongs to
SEED_LIMIT = 1 << 64


@dataclass(frozen=True)
class Stream:
    """The random bits of one (seed, name): Philox keys of its values and of their low words."""

    key: Key
    low: Key
    mask: Key


def field(data: bytes) -> bytes:
    """A length-prefixed field, so that no two lists of fields hash alike."""
    return len(data).to_bytes(8, "little") + data


def words(seed: int, name: str, substream: str) -> Key:
    """BLAKE2b-128 of (tag, seed, name, substream) as four little-endian 32-bit words."""
    parts = (CONTRACT.encode(), seed.to_bytes(8, "little"), name.encode(), substream.encode())
    digest = hashlib.blake2b(b"".join(map(field, parts)), digest_size=16).digest()
    a, b, c, d = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4, 8, 12))
    return a, b, c, d


def check_seed(seed: Any) -> int:
    """A seed as an int, or a `SeedError` that says what would be right."""
    if seed is None:
        raise SeedError(
            "`seed` is required for random draws: pass an integer in 0 .. 2**64 - 1 "
            "(fanin.fresh_seed() makes one)"
        )
    try:
        value = operator.index(seed)
    except TypeError as error:
        raise SeedError(f"`seed` must be an integer in 0 .. 2**64 - 1, got {seed!r}") from error
    if isinstance(seed, bool):
        raise SeedError(f"`seed` must be an integer in 0 .. 2**64 - 1, got {seed!r}")
    if not 0 <= value < SEED_LIMIT:
        raise SeedError(
            f"`seed` must be in 0 .. 2**64 - 1, got {value}; fanin.fold_seed(seed) maps any integer there"
        )
    return value


def check_name(name: Any) -> str:
    """A parameter's name in Unicode normal form C."""
    if not isinstance(name, str):
        raise ArgumentError(f"`name` must be a str such as 'layers.0.weight', got {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"`name` {name!r} has a lone surrogate, which no text can hold") from error
    return unicodedata.normalize("NFC", name)


@lru_cache(maxsize=4096)
def stream(seed: int, name: str) -> Stream:
    """The stream of a checked seed and name."""
    return Stream(*(words(seed, name, sub) for sub in ("", "lo", "mask")))


def unnamed(shape: tuple[int, ...]) -> str:
    """The name of a draw that was given none: its shape, so that two layers never share a prefix."""
    return "unnamed:" + "x".join(map(str, shape))


def fold_seed(value: int | bytes | tuple[int, ...], kind: str = "int") -> int:
    """Map anything that identifies a random state to a seed in ``0 .. 2**64 - 1``.

    An int that already is one is returned as it is. Everything else (a negative or longer int, the words of
    a JAX key, bytes) becomes the BLAKE2b-64 of its kind and its words.

    Parameters
    ----------
    value : int, bytes or tuple of int
        The state. A tuple holds 64-bit words.
    kind : str
        Where it comes from, hashed with it, so that a key and an int with the same words differ.

    Examples
    --------
    >>> fold_seed(7)
    7
    >>> fold_seed(-1)
    1922481670167827585
    """
    if isinstance(value, int) and 0 <= value < SEED_LIMIT:
        return int(value)
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    elif isinstance(value, tuple) and all(isinstance(word, int) for word in value):
        data = b"".join((word % SEED_LIMIT).to_bytes(8, "little") for word in value)
    elif isinstance(value, bytes):
        data = value
    else:
        raise ArgumentError(f"`value` must be an int, bytes or a tuple of int, got {value!r}")
    digest = hashlib.blake2b(
        field(CONTRACT.encode()) + field(kind.encode()) + field(data), digest_size=8
    ).digest()
    return int.from_bytes(digest, "little")


def fresh_seed() -> int:
    """A seed nobody has used: 64 bits from the operating system. Print it, to be able to repeat the run.

    Examples
    --------
    >>> 0 <= fresh_seed() < 2**64
    True
    """
    return secrets.randbits(64)


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block of Philox4x32-10: the four 32-bit words of a counter and a key.

    Parameters
    ----------
    counter : tuple of 4 int
        32-bit words, least significant first.
    key : tuple of 2 int
        32-bit words.

    References
    ----------
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.

    Examples
    --------
    >>> [f"{word:08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    for what, group, length in (("counter", counter, 4), ("key", key, 2)):
        are_words = isinstance(group, tuple | list) and all(type(word) is int for word in group)
        if not are_words or len(group) != length or not all(0 <= word < 1 << 32 for word in group):
            raise ArgumentError(f"`{what}` must be {length} words in 0 .. 2**32 - 1, got {group!r}")
    return _philox4x32(counter, key)
