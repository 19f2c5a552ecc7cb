"""Which layers a layer holds, and what they and its variables are called in it.

A subclassed layer knows its parts by its attributes. Sequential and functional models know them by the
layers' names; an automatic one, which counts all layers of the process (``dense_7``), becomes the class and
the number in this model (``dense``, ``dense.1``). Wrappers have the name of what they wrap.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import keras
from keras import layers
from keras.src.utils.naming import to_snake_case  # what Keras makes automatic names with

from fanin.errors import PlanError


class Child(NamedTuple):
    """A layer in another: its name there, with a last dot, and its place in a sequence of equal blocks."""

    name: str
    layer: keras.Layer
    block: int | None


# What holds layers as parts of itself, and what it calls them.
HELD: dict[type, Callable[[Any], dict[str, Any]]] = {
    layers.Wrapper: lambda wrapper: {"": wrapper.layer},
    layers.RNN: lambda rnn: {"": rnn.cell},
    layers.Bidirectional: lambda both: {"": both.forward_layer, "reverse.": both.backward_layer},
    layers.StackedRNNCells: lambda stack: {
        f"{at}." if at else "": cell for at, cell in enumerate(stack.cells)
    },
    keras.Sequential: lambda model: in_model(model.layers),
    keras.Function: lambda model: in_model(model.layers),
}


def children(layer: keras.Layer) -> Iterator[Child]:
    """The layers that a layer holds, each once."""
    held = next((HELD[kind] for kind in type(layer).__mro__ if kind in HELD), None)
    named = {} if held is None else {id(child): name for name, child in held(layer).items()}
    others = [child for child in layer._layers if id(child) not in named]
    known = attributes(layer) if others else {}
    named |= {id(child): f"{known[id(child)]}." for child in others if id(child) in known}
    rest = [child for child in others if id(child) not in known]  # replaced in their attributes since
    named |= {id(child): name for name, child in in_model(rest).items()}
    blocks = _blocks(layer) if layer._layers else {}
    for child in layer._layers:
        yield Child(named[id(child)], child, blocks.get(id(child)))


# --- names ---------------------------------------------------------------------------------------


def in_model(listed: Sequence[keras.Layer]) -> dict[str, keras.Layer]:
    """Layers by their own names. Automatic ones are counted by class, in the order in which they were made.

    As with recurrent layers on one another, the first has no number, so that a second changes none.
    """
    named = [_given(layer) for layer in listed]
    counts: Counter[str] = Counter()
    ranks = {}
    for at in sorted(range(len(named)), key=lambda at: named[at].number):
        ranks[at] = counts[named[at].word]
        counts[named[at].word] += not named[at].given
    return {
        f"{name.word}.{ranks[at]}." if ranks[at] and not name.given else f"{name.word}.": layer
        for at, (name, layer) in enumerate(zip(named, listed, strict=True))
    }


class Name(NamedTuple):
    """A name that was given, or the word for a class and the number that Keras put behind it."""

    word: str
    given: bool
    number: int


def _given(layer: keras.Layer) -> Name:
    """What a layer is called; a wrapper without a name of its own as what it wraps."""
    own = _parsed(layer.name, layer)
    if own.given:
        return own
    if isinstance(layer, layers.Bidirectional):
        return _parsed(layer.forward_layer.name.removeprefix("forward_"), layer.forward_layer)
    return _given(layer.layer) if isinstance(layer, layers.Wrapper) else own


def _parsed(name: str, layer: keras.Layer) -> Name:
    word = to_snake_case(type(layer).__name__)
    automatic = re.fullmatch(rf"{re.escape(word)}(?:_(\d+))?", name)
    return Name(name, True, 0) if automatic is None else Name(word, False, int(automatic[1] or 0))


def attributes(layer: keras.Layer) -> dict[int, str]:
    """{identity of a layer or variable: the attribute that holds it}, such as ``blocks.0``."""
    found: dict[int, str] = {}
    for name, value in _own(layer):
        for path, thing in _things(name, value):
            found[id(thing)] = min(path, found.get(id(thing), path))
    return found


def _own(layer: keras.Layer) -> Iterator[tuple[str, Any]]:
    """The attributes of a layer but those that Keras and its backends keep for themselves."""
    held = vars(layer)
    for name, value in {**held, **held.get("_modules", {})}.items():  # PyTorch keeps modules apart
        if name not in _bookkeeping() and not name.startswith("_self_"):
            yield name, value


@cache
def _bookkeeping() -> frozenset[str]:
    return frozenset(vars(keras.Model(name="empty")))


def _things(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Layers and variables in an attribute, or in the containers in it."""
    if isinstance(value, keras.Layer | keras.Variable):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _things(f"{path}.{key}", inner)
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield from _things(f"{path}.{at}", inner)
    elif isinstance(value, set | frozenset) and any(
        isinstance(inner, keras.Layer | keras.Variable) for inner in value
    ):
        raise PlanError(f"{path!r} is a set, whose members have no order to be named by; make it a list")


# --- blocks --------------------------------------------------------------------------------------


def _blocks(layer: keras.Layer) -> dict[int, int]:
    """{identity of a layer: its number} of equal layers of several parts: the blocks of a deep network."""
    if isinstance(layer, keras.Sequential | keras.Function):
        return _numbered([each for each in layer.layers if _is_own(each)])
    found: dict[int, int] = {}
    for _, value in _own(layer):
        if isinstance(value, list | tuple) and all(isinstance(each, keras.Layer) for each in value):
            found |= _numbered(value)
    return found


def _numbered(listed: Sequence[Any]) -> dict[int, int]:
    parts = all(each._layers and (_is_own(each) or isinstance(each, keras.Model)) for each in listed)
    alike = len({type(each) for each in listed}) == 1
    return {id(each): at for at, each in enumerate(listed)} if len(listed) > 1 and parts and alike else {}


def _is_own(layer: keras.Layer) -> bool:
    """Whether it is a layer of the user's, with layers in it."""
    return bool(layer._layers) and not type(layer).__module__.startswith("keras.")
