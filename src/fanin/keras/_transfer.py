"""What a model keeps besides its parameters, and the names by which Keras's files know all of it."""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
from keras import layers
from keras.src.saving import saving_lib

from fanin._types import Array
from fanin.checkpoints.contents import readable
from fanin.checkpoints.hdf5 import spelled
from fanin.errors import PlanError
from fanin.fans import Axes
from fanin.keras._apply import apply
from fanin.keras._audit_backend import numbers
from fanin.keras._names import attributes
from fanin.keras._walk import Described, Place, describe, paths_of
from fanin.materialize import Mismatch, first_difference
from fanin.model import BUFFER, Model, Piece, Tensor
from fanin.plan import Plan
from fanin.planning import has_buffers, paired

# State in canonical words, by the attributes that hold it.
WORDS = {layers.BatchNormalization: {"moving_mean": "running_mean", "moving_variance": "running_var"}}


def with_state(described: Described) -> Described:
    """A model's parameters, and its state as buffers: moving averages, adapted statistics, random states."""
    layer = described.places[0].layer
    in_keras, in_tensorflow = _in_files(layer), _in_checkpoints(layer)
    state = _state(described)
    variables = [*described.variables.values(), *state.values()]
    by_path = dict(zip(paths_of(variables), variables, strict=True))
    named = {id(variable): (name, kind) for (name, kind), variable in state.items()}
    known = {tensor.path: tensor for tensor in described.model.tensors}
    stored = [
        known[path] if path in known else _buffer(path, variable, *named[id(variable)])
        for path, variable in by_path.items()
    ]
    tensors = tuple(
        replace(tensor, ties=tuple(dict.fromkeys((*tensor.ties, *in_keras[at], *in_tensorflow[at]))))
        for tensor, at in ((tensor, id(by_path[tensor.path])) for tensor in stored)
    )
    return replace(described, model=Model(tensors, described.model.facts), variables=by_path)


def described_for(plan: Plan, model: keras.Layer) -> Described:
    """A model with as much of it as a plan speaks of."""
    described = describe(model)
    return with_state(described) if has_buffers(plan) else described


def write_all(plan: Plan, described: Described) -> None:
    """Set parameters and state together; layers that compute with what they make of their state make it."""
    apply(plan, described, whole=True)
    new = {id(described.variables[tensor.path]) for tensor in plan.tensors if plan.sets(tensor.path)}
    for place in described.places:
        if hasattr(place.layer, "finalize_state") and new & set(map(id, place.layer.weights)):
            place.layer.finalize_state()


def held(variable: keras.Variable) -> Array:
    """The values of a variable, in the dtype of its tensor."""
    if getattr(variable.value, "is_meta", False):
        raise PlanError(f"{variable.path!r} is on the meta device and has no values")
    return numbers(variable)


def differences(plan: Plan, model: keras.Layer) -> Iterator[Mismatch]:
    """Of each variable that differs from a plan the first element."""
    described = described_for(plan, model)
    for tensor, mine in paired(plan, described.model):
        if plan.sets(tensor.path):
            whole = tuple(slice(0, size) for size in tensor.shape)
            values = held(described.variables[mine.path])
            yield from first_difference(plan, tensor.path, whole, values.__getitem__)


def reader(plan: Plan, model: keras.Layer) -> Any:
    """A function that gives the present values of a tensor of a plan."""
    described = described_for(plan, model)
    places = {tensor.path: mine.path for tensor, mine in paired(plan, described.model)}

    def read(path: str) -> Array:
        return held(described.variables[places[path]])

    return read


# --- state ---------------------------------------------------------------------------------------


def _state(described: Described) -> dict[tuple[str, str], keras.Variable]:
    """The variables that are no parameters, by name and kind of layer, each once."""
    seen = {id(variable) for variable in described.variables.values()}
    taken = {piece.name for tensor in described.model.tensors for piece in tensor.pieces}
    found = {}
    for place in described.places:
        for name, variable in _own_state(place):
            if id(variable) in seen or not readable(_dtype(variable)):
                continue
            seen.add(id(variable))
            unique = name if name not in taken else variable.path
            taken.add(unique)
            found[unique, type(place.layer).__name__] = variable
    return found


def _own_state(place: Place) -> Iterator[tuple[str, keras.Variable]]:
    """The state of a layer itself."""
    layer = place.layer
    words = next((WORDS[kind] for kind in type(layer).__mro__ if kind in WORDS), {})
    known = attributes(layer) if layer._non_trainable_variables else {}
    for variable in layer._non_trainable_variables:
        attribute = known.get(id(variable), variable.name)
        yield place.name + words.get(attribute, attribute), variable
    for number, generator in enumerate(layer._seed_generators):
        yield f"{place.name}seed_generator{f'.{number}' if number else ''}.state", generator.state


def _buffer(path: str, variable: keras.Variable, name: str, kind: str) -> Tensor:
    shape = tuple(variable.shape)
    piece = Piece(name, BUFFER, kind, Axes(tuple(range(len(shape))), ()))
    return Tensor(path, shape, _dtype(variable), (piece,))


def _dtype(variable: keras.Variable) -> str:
    return str(keras.backend.standardize_dtype(variable.value.dtype))


# --- names in files ------------------------------------------------------------------------------


class _Places(saving_lib.H5IOStore):  # type: ignore[misc]
    """Takes down what Keras would write where, and writes nothing."""

    def __init__(self) -> None:
        self.written: dict[str, dict[str, Any]] = {}
        self.given: dict[str, str] = {}

    def __bool__(self) -> bool:
        return True

    def make(self, path: str, metadata: dict[str, str] | None = None) -> dict[str, Any]:
        self.given[path] = (metadata or {}).get("name", "")
        return self.written.setdefault(path, {})


def _in_files(layer: keras.Layer) -> dict[int, list[str]]:
    """By a variable's identity: its place in a file of Keras, and what `fanin.checkpoints` calls that."""
    store = _Places()
    try:
        saving_lib._save_state(layer, store, None, "", set())
    except Exception as error:  # a layer's own code
        raise PlanError(
            f"{layer.name!r} cannot say how it is saved: {type(error).__name__}: {error}"
        ) from error
    found = defaultdict(list)
    for place, written in store.written.items():
        steps = place.split("/") if place else []
        words = spelled(steps, store.given)
        for leaf, variable in written.items():
            if isinstance(variable, keras.Variable):
                names = ([*steps, "vars", leaf], [*words, variable.name], [*words, leaf])
                found[id(variable)] = ["/".join(name) for name in names]
    return found


def _in_checkpoints(layer: keras.Layer) -> dict[int, list[str]]:
    """The shortest way to a variable among TensorFlow's objects, also in a ``Checkpoint(model=...)``."""
    found: dict[int, list[str]] = defaultdict(list)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        view = tf.train.TrackableView(layer)
        for kind in ("checkpoint", "savedmodel"):
            seen, waiting = {id(layer)}, deque([("", layer)])
            while waiting:
                way, at = waiting.popleft()
                if isinstance(at, keras.Variable):
                    found[id(at)] += [way, f"model/{way}"]
                    continue
                for name, child in view.children(at, kind).items():
                    if id(child) not in seen:
                        seen.add(id(child))
                        waiting.append((f"{way}/{name}".lstrip("/"), child))
    return found
