"""How files are spoiled: trees of data, JSON, TOML, safetensors, archives of arrays, bytes of any kind."""

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np


class Pairs(list[Any]):
    """An object of JSON or TOML as [key, value] lists: a key may occur twice."""


class Raw(str):
    """Text that is written as it is."""

    __slots__ = ()


DEEP = 3000  # more than Python's stack holds
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e-300, 1e308, -1e308, 2**31, -(2**31), 2**53 + 1, 2**63),
    *(2**64, -(2**64), 10**400, Raw("NaN"), Raw("nan"), Raw("-Infinity"), Raw("inf"), Raw("1e999")),
    *(
        Raw("9" * 5000),
        Raw("1979-05-27"),
        Raw("[" * DEEP + "]" * DEEP),
        Raw('{"a":' * DEEP + "1" + "}" * DEEP),
    ),
    *(
        "",
        "*",
        "[",
        "..",
        "../x",
        "/etc/passwd",
        "\0",
        "é",
        "x" * 5000,
        Raw(r'"\ud800"'),
        "nan",
        "inf",
        "0x1",
    ),
    *(
        "he_normal",
        "orthogonal",
        "torch:kaiming_normal",
        "keep",
        "own",
        "gpt2",
        "zeros()",
        "a:b",
        "1-2",
        "{}",
    ),
    *("he_normal(", "(" * 300, "scaled(" * 300 + "ones" + ", 2)" * 300, "constant(" + "-" * DEEP + "1)"),
    *("constant([[1e999]])", "constant(1" + "0" * 400 + ")", "constant(1j)", "random_normal(0, -1)"),
    *("blocks(he_normal, 1000000000)", "tile(ones, (1000000000, 1))", "float31", "int64", "O", "V8", "f4,i4"),
    *([], [[]], [0], [-1], [1, 2, 3], [2**40, 2**40], ["a", 1], [0, 8], [8, 0]),
    *(
        Pairs(),
        Pairs([["name", "ones"]]),
        Pairs([["name", "scaled"], ["inner", "ones"], ["factor", 10**400]]),
    ),
]


def tree(sample: str) -> Any:
    """JSON as lists that can be changed."""
    return json.loads(sample, object_pairs_hook=lambda pairs: Pairs(map(list, pairs)))


def text(value: Any, colon: str = ":") -> str:
    """JSON, or with ``=`` for a colon a value of TOML."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, Pairs):
        return f"{{{','.join(_member(pair, colon) for pair in value)}}}"
    if isinstance(value, list):
        return f"[{','.join(text(part, colon) for part in value)}]"
    return json.dumps(value)


def _member(pair: Any, colon: str) -> str:
    key, *value = pair if isinstance(pair, list) and pair else [pair]
    return colon.join(
        [key if isinstance(key, Raw) else json.dumps(str(key)), *(text(each, colon) for each in value)]
    )


def toml(value: Any) -> str:
    """A document: its keys on lines of their own."""
    return "\n".join(_member(pair, "=") for pair in value)


def changed(value: Any, rng: "Rng") -> Any:
    """A tree, a few places of which are dropped, doubled, of another type or size, or as others in it."""
    if rng is None:
        return value
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        places = list(_places(value))
        if not places:
            break
        (holder, at), (other, there) = rng.choice(places), rng.choice(places)
        match rng.randrange(8):
            case 0:
                del holder[at]
            case 1:
                holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[at]))
            case 2:
                holder[at] = copy.deepcopy(other[there])
            case 3 | 4 | 5:
                holder[at] = copy.deepcopy(rng.choice(ODD))
            case _:
                holder[at] = _near(holder[at], rng)
    return value


def _places(value: Any) -> Iterator[tuple[list[Any], int]]:
    if isinstance(value, list):
        for at, each in enumerate(value):
            yield value, at
            yield from _places(each)


def _near(value: Any, rng: random.Random) -> Any:
    """Something of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value << 32, value * value))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e300, value * 1e-300, value + 0.5))
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        put = rng.choice(("", "*", ".", "é", "\n", "(", '"', "0", value[::-1]))
        return value[:at] + put + value[at + rng.randrange(2) :]
    if isinstance(value, list):
        return type(value)(rng.choice(([*value, *value], value[::-1], value[1:])))
    return rng.choice(ODD)


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Bytes some of which are others, where they are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
    return bytes(changed)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut, flipped, doubled, or with others between them that are no UTF-8."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        end = at + rng.randrange(1, 64)
        match rng.randrange(6):
            case 0:
                data = data[:at]
            case 1 | 2 if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 3:
                data = data[:at] + data[end:]
            case 4:
                data = data[:at] + data[at:end] + data[at:]
            case _:
                data = data[:at] + rng.choice((b"\xff", b"\0", b"\xed\xa0\x80", b"\xfe" * 9)) + data[at:]
    return data


Rng: TypeAlias = random.Random | None  # without one a sample is written as it is
Spoiled: TypeAlias = Callable[[Any, Rng], bytes]


def sometimes_damaged(data: bytes, rng: Rng) -> bytes:
    """Damage to one in four: what a parser refuses at once says little about what is behind it."""
    return data if rng is None or rng.randrange(4) else damaged(data, rng)


def as_json(sample: str, rng: Rng) -> bytes:
    return sometimes_damaged(text(changed(tree(sample), rng)).encode(), rng)


def as_toml(sample: str, rng: Rng) -> bytes:
    value = changed(tree(sample), rng)
    return sometimes_damaged(toml(value).encode(), rng)


def as_safetensors(sample: tuple[str, bytes], rng: Rng) -> bytes:
    """A header and the bytes behind it; sometimes the length before it lies, too."""
    front = text(changed(tree(sample[0]), rng)).encode()
    length, end = len(front), None
    if rng is not None and rng.randrange(4) == 0:
        length = rng.choice((0, length + 8, length - 1, 2**63, 10**8))
        end = rng.choice((None, -4))
    return sometimes_damaged(length.to_bytes(8, "little") + front + sample[1][:end], rng)


FIELDS = ("file_size", "compress_size", "header_offset", "CRC", "flag_bits", "compress_type")


def as_npz(sample: dict[str, bytes], rng: Rng) -> bytes:
    """An archive of arrays whose headers, members or directory are changed."""
    made = io.BytesIO()
    packed = rng is not None and rng.randrange(2)
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in sample.items():
            lies = rng is not None and rng.randrange(3) == 0
            archive.writestr(name, _lying(rng) if lies else sometimes_damaged(content, rng))
            if rng is not None and rng.randrange(4) == 0:
                value = rng.choice((0, 1, 8, 12, 255, 4096, 65535))
                setattr(archive.getinfo(name), rng.choice(FIELDS), value)
    return sometimes_damaged(made.getvalue(), rng)


def _lying(rng: random.Random) -> bytes:
    """An array whose header says anything."""
    said = {
        "descr": rng.choice(
            ("<f4", ">f8", "|O", "<U3", "|V8", "<f2", "?", "<c8", "<M8[s]", [("a", "<f4")], "", 7)
        ),
        "fortran_order": rng.choice((False, True, None, 3)),
        "shape": rng.choice(
            ((2,), (), (2, 3), (-1,), (1 << 40, 1 << 40), (0, 1 << 62), (True,), "2", (2.0,), 5)
        ),
    }
    front = repr(said).encode()
    version, width = rng.choice(((b"\1\0", 2), (b"\2\0", 4), (b"\3\0", 4), (b"\x09\0", 2)))
    return (
        b"\x93NUMPY"
        + version
        + len(front).to_bytes(width, "little")
        + front
        + bytes(rng.choice((0, 4, 8, 24)))
    )


def npy(array: Any) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()
