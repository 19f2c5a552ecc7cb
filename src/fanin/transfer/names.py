"""From the names in a checkpoint to those of a model: what the user says, and what could be meant."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fanin.errors import ArgumentError, near

ALIKE = 0.6  # of `difflib`, from which two names may be meant for one another
# One of several tensors that a weight is computed from (weight_norm, spectral_norm), and not that weight.
COMPUTED = re.compile(r"\.parametrizations\.|\bweight_(g|v|orig)$")
WILD = re.compile(r"([*?])")


def renamed(keys: Iterable[str], rename: Mapping[str, str]) -> dict[str, str]:
    """The keys of a checkpoint by their new names: {name: key}. The first rule that fits a key is used.

    A rule is a whole key, its dotted front (``""`` is before all), or a glob; what ``*`` and ``?`` stood for
    is put where the new name has them.

    Raises
    ------
    ArgumentError
        When a rule fits no key, or two keys become one.

    Examples
    --------
    >>> renamed(["h.0.fc", "ln.w"], {"h": "blocks", "*.w": "*.weight"})
    {'blocks.0.fc': 'h.0.fc', 'ln.weight': 'ln.w'}
    """
    known = list(keys)
    used = set()
    found: dict[str, str] = {}
    for key in known:
        name = key
        for old, new in rename.items():
            changed = _changed(key, old, new)
            if changed is not None:
                name = changed
                used.add(old)
                break
        if name in found:
            raise ArgumentError(f"`rename` makes {name!r} of {found[name]!r} and of {key!r}")
        found[name] = key
    for old in rename:
        if old not in used:
            raise ArgumentError(
                f"`rename` {old!r} fits no tensor of the checkpoint; {near(old, known[:1000])}"
            )
    return found


def _changed(key: str, old: str, new: str) -> str | None:
    if WILD.search(old):
        parts = WILD.split(old)
        pattern = "".join(
            {"*": "(.*)", "?": "(.)"}.get(part, re.escape(part)) if at % 2 else re.escape(part)
            for at, part in enumerate(parts)
        )
        match = re.fullmatch(pattern, key)
        if match is None:
            return None
        wild = iter(match.groups())
        if len(WILD.findall(new)) > len(match.groups()):
            raise ArgumentError(f"`rename` {old!r}: {new!r} has more of * and ? than there are")
        return WILD.sub(lambda _: next(wild), new)
    if key == old and new:
        return new
    front = old if not old or old.endswith(".") else f"{old}."
    if not key.startswith(front):
        return None
    rest = key[len(front) :]
    return f"{new.removesuffix('.')}.{rest}" if new else rest


def also(metadata: Mapping[str, Any], *, places: bool) -> dict[str, str]:
    """What a file calls tensors besides their keys: {name: key}, where a name is one tensor's.

    TensorFlow's has the names of the variables. With ``places`` those in a file of Keras, which tells layers
    by class and number alone: they are for the very model that wrote it.

    >>> also({"full_names": {"model/0": "dense/kernel"}}, places=False)
    {'dense/kernel': 'model/0'}
    """
    pairs = [*metadata.get("full_names", {}).items(), *(metadata.get("places", {}).items() if places else ())]
    counts = Counter(name for _, name in pairs)
    return {name: key for key, name in pairs if counts[name] == 1}


def suggested(
    missing: Mapping[str, tuple[int, ...]], unexpected: Mapping[str, tuple[int, ...]], most: int = 4
) -> dict[str, str]:
    """Renames that are likely meant: a common front, else names that are alike and have one shape.

    Examples
    --------
    >>> suggested({"fc.weight": (2, 3)}, {"module.fc.weight": (2, 3)})
    {'module.': ''}
    >>> suggested({"fc1.weight": (2, 3)}, {"fc_1.weight": (2, 3), "fc1_weight": (3, 2)})
    {'fc_1.weight': 'fc1.weight'}
    >>> suggested({"fc.weight": (2, 3)}, {"fc.weight_g": (2, 1), "fc.weight_v": (2, 3)})
    {}
    """
    unexpected = {key: its for key, its in unexpected.items() if not COMPUTED.search(key)}
    fronts: Counter[tuple[str, str]] = Counter()
    ends: dict[str, list[str]] = {}
    for key in unexpected:
        ends.setdefault(key.rpartition(".")[2], []).append(key)
    for name in missing:
        for key in ends.get(name.rpartition(".")[2], ()):
            if key.endswith(f".{name}"):
                fronts[key[: -len(name)], ""] += 1
            elif name.endswith(f".{key}"):
                fronts["", name[: -len(key)]] += 1
    if fronts:
        (front, count), *_ = fronts.most_common(1)
        if count * 2 >= len(missing):
            return dict([front])
    found: dict[str, str] = {}
    for name, shape in list(missing.items())[:most]:
        fitting = [key for key, its in unexpected.items() if its == shape and key not in found]
        for key in difflib.get_close_matches(name, fitting, 1, ALIKE):
            found[key] = name
    return found
