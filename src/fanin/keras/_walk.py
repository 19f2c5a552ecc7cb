"""From a Keras layer to a `fanin.model.Model`: every parameter once, by its canonical name."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple, TypeAlias

import keras

from fanin.dtypes import KNOWN
from fanin.errors import DtypeError, PlanError
from fanin.fans import IO, Axes
from fanin.keras._activations import followers
from fanin.keras._layers import pieces_of
from fanin.keras._names import attributes, children
from fanin.model import Model, Piece, Tensor, depth_facts

Said: TypeAlias = dict[int, tuple[Piece, ...]]  # what layers say of a variable, by its identity


@dataclass(frozen=True)
class Place:
    """A layer where it stands: its canonical name with a last dot, and what it and those above say."""

    layer: keras.Layer
    name: str
    block: int | None
    activation: str | None
    said: Said


class Slot(NamedTuple):
    """One place where a variable is kept, and what it is there."""

    variable: keras.Variable
    pieces: tuple[Piece, ...]

    @property
    def order(self) -> tuple[bool, bool, str]:
        """Of two places, whose name a variable takes: a table's first, and that of a layer that is known."""
        first = self.pieces[0]
        return first.role != "embedding", first.role == "unknown", first.name


@dataclass(frozen=True)
class Described:
    """The facts of a model, the variable of each stored tensor, and all layers where they stand."""

    model: Model
    variables: Mapping[str, keras.Variable]
    places: tuple[Place, ...]


def describe(layer: keras.Layer) -> Described:
    """Every parameter of a layer once, and what is known of it. Nothing is touched.

    Raises
    ------
    PlanError, DtypeError
        When a parameter cannot be set: it does not exist yet, or is quantized.
    """
    if not isinstance(layer, keras.Layer):
        raise PlanError(f"`model` must be a keras.Layer or keras.Model, got {type(layer).__name__}")
    places = tuple(_places(Place(layer, "", None, None, {})))
    kept: dict[int, list[Slot]] = {}
    for slot in itertools.chain.from_iterable(map(_slots, places)):
        kept.setdefault(id(slot.variable), []).append(slot)
    first = [min(slots, key=lambda slot: slot.order) for slots in kept.values()]
    names = [sorted({slot.pieces[0].name for slot in slots}) for slots in kept.values()]
    paths = paths_of([slot.variable for slot in first])
    stored = tuple(
        Tensor(
            path,
            tuple(slot.variable.shape),
            _dtype(slot),
            slot.pieces,
            tuple(name for name in known_as if name != slot.pieces[0].name),
        )
        for path, slot, known_as in zip(paths, first, names, strict=True)
    )
    variables = {path: slot.variable for path, slot in zip(paths, first, strict=True)}
    return Described(Model(stored, _facts(stored)), variables, places)


# --- walking -------------------------------------------------------------------------------------


def _places(place: Place) -> Iterator[Place]:
    """A layer and those in it, parents first."""
    layer = place.layer
    _check(place)
    place = replace(place, said=_said(place) | place.said)
    yield place
    if not layer._layers:  # most: they need no names for what they hold
        return
    after = followers(layer)
    for child in children(layer):
        block = child.block if place.block is None else place.block
        activation = after.get(id(child.layer), place.activation if child.name == "" else None)
        yield from _places(Place(child.layer, place.name + child.name, block, activation, place.said))


def _slots(place: Place) -> Iterator[Slot]:
    """The parameters of a layer itself: what can be trained."""
    for variable in place.layer._trainable_variables:
        yield Slot(variable, place.said.get(id(variable)) or (_unknown(place, variable),))


def _said(place: Place) -> Said:
    """What a layer says of its variables and of those of the layers in it."""
    found = {}
    for key, told in pieces_of(place.layer).items():
        variable = _variable(place, key)
        if variable is not None:
            pieces = (told,) if isinstance(told, Piece) else told
            found[id(variable)] = tuple(
                replace(
                    piece,
                    name=place.name + piece.name,
                    block=place.block,
                    activation=piece.activation or place.activation,
                )
                for piece in pieces
            )
    return found


def _variable(place: Place, key: str) -> keras.Variable | None:
    """The variable that an attribute holds; where that is computed, the private one it is computed from."""
    owner, _, name = key.rpartition(".")
    holder = attrgetter(owner)(place.layer) if owner else place.layer
    for attribute in (name, f"_{name}"):
        value = getattr(holder, attribute, "")
        if value is None or isinstance(value, keras.Variable):
            return value
    raise PlanError(f"{_where(place)}: a {type(holder).__name__} has no variable {name!r}")


def _check(place: Place) -> None:
    """Refuse a layer whose weights do not exist, or are not what they are computed with."""
    layer, kind = place.layer, type(place.layer)
    if not layer.built and kind.build not in (keras.Layer.build, keras.Model.build):
        raise PlanError(
            f"{_where(place)} ({kind.__name__}) is not built and has no weights yet; call the model on a "
            f"batch, or build it, first"
        )
    if layer.quantization_mode is not None:
        raise PlanError(
            f"{_where(place)} ({kind.__name__}) is quantized ({layer.quantization_mode}); initialize before "
            f"quantizing"
        )


def _where(place: Place) -> str:
    return repr(place.name[:-1] or "model")


def _unknown(place: Place, variable: keras.Variable) -> Piece:
    """A parameter of no layer that is known: a rule must name it."""
    name = place.name + attributes(place.layer).get(id(variable), variable.name)
    axes = IO if len(variable.shape) > 1 else Axes((0,), ())
    return Piece(name, "unknown", type(place.layer).__name__, axes, block=place.block)


# --- facts ---------------------------------------------------------------------------------------


def _dtype(slot: Slot) -> str:
    """That of the tensor: JAX keeps float32 where a float64 variable was asked for."""
    dtype = keras.backend.standardize_dtype(slot.variable.value.dtype)
    if dtype not in KNOWN:
        raise DtypeError(
            f"{slot.pieces[0].name!r} has dtype {dtype}, which holds no weights that can be drawn; make it "
            f"with trainable=False; expected one of {', '.join(KNOWN)}"
        )
    return str(dtype)


def paths_of(variables: list[keras.Variable]) -> list[str]:
    """Where Keras keeps variables; a path that several have is counted."""
    seen: Counter[str] = Counter()
    found = []
    for variable in variables:
        seen[variable.path] += 1
        count = seen[variable.path]
        found.append(variable.path if count == 1 else f"{variable.path}:{count}")
    return found


def _facts(stored: tuple[Tensor, ...]) -> dict[str, int]:
    """``n_layer``, ``d_model``, ... where the model shows them."""
    pieces = [(tensor, piece) for tensor in stored for piece in tensor.pieces]
    widths = {
        int(piece.axes.fans(tensor.shape).fan_in)
        for tensor, piece in pieces
        if piece.layer == "attention" and piece.name.endswith("q_proj.weight")
    }
    facts = depth_facts((piece.name, piece.block) for _, piece in pieces)
    return {**facts, "d_model": widths.pop()} if len(widths) == 1 else facts
