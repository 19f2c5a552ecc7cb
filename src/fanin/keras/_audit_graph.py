"""The steps of a model, written down by calling it on symbols.

A model is called once on Keras's symbolic tensors. Composite layers and the user's own are gone into, so that
their layers and the functions of ``keras.ops`` in them are steps, and the model's parameters are symbols too.
A layer whose code asks for values stays one step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional
from keras.src.ops.node import Node
from keras.src.ops.numpy import GetItem

from fanin.keras._layers import CHILDREN
from fanin.keras._names import children

# Keras's own layers whose code is made of layers and functions, and bases of the user's.
COMPOSITE = {
    keras.Layer,
    keras.Model,
    keras.Sequential,
    Functional,
    layers.Wrapper,
    layers.Lambda,
    layers.MultiHeadAttention,
    layers.GroupQueryAttention,
}
COUNTERS = "object_name_uids"  # of Keras's automatic names


@dataclass(frozen=True)
class Step:
    """An operation and what it is called with: symbols stand for tensors."""

    operation: Any
    place: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Any, ...]


@dataclass
class Graph:
    """What a model does with its inputs."""

    inputs: list[Any]
    steps: list[Step] = field(default_factory=list)
    parameters: dict[int, tuple[Any, keras.Variable]] = field(default_factory=dict)  # by id of the symbol
    output: Any = None


def is_composite(layer: Any) -> bool:
    """Whether a layer is what is in it: the nearest class of Keras that it is made from says so."""
    if not isinstance(layer, keras.Layer):
        return False
    return next((kind in COMPOSITE for kind in type(layer).__mro__ if _is_kerass(kind)), False)


def _is_kerass(kind: type) -> bool:
    return kind.__module__.startswith("keras.")


def places(layer: keras.Layer, name: str = "") -> Iterator[tuple[keras.Layer, str]]:
    """Each layer with its canonical name."""
    yield layer, name.removesuffix(".")
    if layer._layers:
        for child in children(layer):
            word = child.name.removesuffix(".")
            yield from places(child.layer, name + (f"{CHILDREN[word]}." if word in CHILDREN else child.name))


def graph(
    model: keras.Layer,
    names: Mapping[int, str],
    trainable: Sequence[keras.Variable],
    args: Any,
    kwargs: Any,
) -> Graph:
    """What a model does with tensors like these.

    Parameters
    ----------
    model : keras.Layer
    names : mapping
        {identity of a layer: its canonical name}.
    trainable : sequence of keras.Variable
    args, kwargs : tree of tensors
        What it is called with.
    """
    args, kwargs = keras.tree.map_structure(_symbol, (args, kwargs))
    inputs = [each for each in keras.tree.flatten((args, kwargs)) if isinstance(each, keras.KerasTensor)]
    recorder = _Recorder(Graph(inputs), model, names, trainable)
    with recorder.recording():
        recorder.graph.output = model(*args, **kwargs)
    return recorder.graph


def _symbol(value: Any) -> Any:
    return keras.KerasTensor(value.shape, _dtype(value)) if keras.ops.is_tensor(value) else value


def _computed_in(layer: keras.Layer, variable: keras.Variable) -> str:
    """The dtype in which a layer sees its variable."""
    return str(layer.compute_dtype if layer.autocast and variable._autocast else variable.dtype)


def _dtype(value: Any) -> str:
    return str(keras.backend.standardize_dtype(value.dtype))


class _Recorder:
    def __init__(
        self,
        graph: Graph,
        model: keras.Layer,
        names: Mapping[int, str],
        trainable: Sequence[keras.Variable],
    ) -> None:
        self.graph, self.names = graph, names
        self.model, self.trainable = model, trainable
        self.places = [""]
        self.quiet = 0  # how many layers that are one step are asked for the shape of their output
        self.swaps: dict[int, list[tuple[str, keras.Variable, Any]]] = {}  # by id of the layer
        self.original: Callable[..., Any] = keras.Layer.symbolic_call

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Nodes are written down here and not in the layers; parameters in attributes become symbols."""
        with ExitStack() as stack:
            scope = stack.enter_context(keras.StatelessScope())
            # What is read without an attribute of its layer is a symbol still, so that it is no constant.
            for variable in self.trainable:
                scope.state_mapping[id(variable)] = self._parameter(variable, variable.dtype)
            for layer in self.model._flatten_layers():
                self._stand_in(layer)
                stack.callback(self._swap, layer, symbols=False)
                self._swap(layer, symbols=True)

            def node(_: Any, *args: Any, **kwargs: Any) -> None:
                self._node(*args, **kwargs)

            def symbolic_call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
                return self._layer(layer, args, kwargs)

            stack.enter_context(replaced(Node, "__init__", node))
            stack.enter_context(replaced(keras.Layer, "symbolic_call", symbolic_call))
            stack.enter_context(replaced(keras.KerasTensor, "__getitem__", _part))
            yield

    # --- parameters ------------------------------------------------------------------------------

    def _parameter(self, variable: keras.Variable, dtype: Any) -> Any:
        symbol = keras.KerasTensor(variable.shape, dtype)
        self.graph.parameters[id(symbol)] = symbol, variable
        return symbol

    def _stand_in(self, layer: keras.Layer) -> None:
        known = {id(variable) for variable in self.trainable}
        self.swaps[id(layer)] = [
            (name, value, self._parameter(value, _computed_in(layer, value)))
            for name, value in vars(layer).items()
            if isinstance(value, keras.Variable) and id(value) in known
        ]

    def _swap(self, layer: keras.Layer, *, symbols: bool) -> None:
        for name, variable, symbol in self.swaps.get(id(layer), ()):
            vars(layer)[name] = symbol if symbols else variable

    # --- steps -----------------------------------------------------------------------------------

    def _node(self, operation: Any, call_args: Any, call_kwargs: Any, outputs: Any) -> None:
        if not self.quiet and not isinstance(operation, keras.Layer):
            self._step(operation, call_args, call_kwargs, outputs)

    def _step(self, operation: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        made = tuple(keras.tree.flatten(outputs))
        self.graph.steps.append(Step(operation, self.places[-1], tuple(args), dict(kwargs), made))

    def _layer(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        if self.quiet:
            return self.original(layer, *args, **kwargs)
        if is_composite(layer):
            start = len(self.graph.steps)
            self.places.append(self.names.get(id(layer), self.places[-1]))
            try:
                return layer.call(*args, **kwargs)
            except Exception:  # the user's code asked for values: it is called on some, as one step
                del self.graph.steps[start:]
            finally:
                self.places.pop()
        outputs = self._shapes(layer, args, kwargs)
        self._step(layer, args, kwargs, outputs)
        return outputs

    def _shapes(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        """The symbols of a layer's outputs, by its own rule, which may look at its parameters."""
        inside = layer._flatten_layers()
        for each in inside:
            self._swap(each, symbols=False)
        self.quiet += 1
        try:
            return self.original(layer, *args, **kwargs)
        finally:
            self.quiet -= 1
            for each in inside:
                self._swap(each, symbols=True)


def _part(symbol: Any, key: Any) -> Any:
    """``symbol[key]``, also for the keys that Keras's own symbols refuse."""
    if isinstance(key, keras.KerasTensor) or hasattr(key, "shape"):
        return keras.ops.take(symbol, key, axis=0)
    return GetItem().symbolic_call(symbol, key if isinstance(key, int | tuple) else (key,))


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute that is another for a while."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def left_alone(model: keras.Layer) -> Iterator[None]:
    """Layers keep the attributes that they have, and Keras the numbers of its automatic names."""
    kept = [(layer, dict(vars(layer))) for layer in model._flatten_layers()]
    counts = global_state.get_global_attribute(COUNTERS)
    numbers = None if counts is None else dict(counts)
    try:
        yield
    finally:
        for layer, attributes in kept:
            vars(layer).clear()
            vars(layer).update(attributes)
        if numbers is not None:
            counts.clear()
            counts.update(numbers)
