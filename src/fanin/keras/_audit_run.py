"""One forward pass: every operation is measured at once, and its gradients when they pass.

What a graph's steps are is known before. A layer whose code asks for values is run as it is: the layers in it
are operations, their inputs known by identity; what they take that no layer made comes from all that nothing
took before.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
from keras import layers
from keras.src import backend

from fanin.audit import measure
from fanin.audit.drafts import BATCH, NOTHING, Draft, Sources
from fanin.audit.functions import LOOKUPS
from fanin.audit.trace import Signal
from fanin.keras import _audit_kinds as kinds
from fanin.keras._audit_backend import numbers, watched
from fanin.keras._audit_gates import gates, masked, scores
from fanin.keras._audit_graph import Graph, graph, is_composite, replaced

NOWHERE = Sources((), ())


class Run:
    """Runs graphs, and measures gradients whenever ``way`` says which they are.

    Parameters
    ----------
    names : mapping
        {identity of a layer: its canonical name}.
    variables : sequence of keras.Variable
    parameters : mapping
        {identity of a variable: the canonical names of what is in it}.
    measuring : bool
        Whether operations are measured; without, a run is a function of its inputs alone.
    """

    def __init__(
        self,
        names: Mapping[int, str],
        variables: Sequence[keras.Variable],
        parameters: Mapping[int, tuple[str, ...]],
        *,
        measuring: bool = True,
    ) -> None:
        self.drafts: list[Draft] = []
        self.way: str | None = None
        self.failed = ""  # the layer in which an error was raised
        self._names, self._variables, self._parameters = names, variables, parameters
        self._measuring = measuring
        self._sources: dict[int, Sources] = {}  # by identity of a tensor
        self._alive: list[Any] = []  # no other tensor takes such an identity
        self._taken: set[int] = set()
        self._calls: Counter[str] = Counter()
        self._places = [""]
        self._inside = 0  # how many layers that are one operation are running
        self._unseen: list[
            tuple[int, Sources]
        ] = []  # of layers that are seen in part: the first operation, inputs
        self._call: Callable[..., Any] = keras.Layer.__call__

    def call(self, model: keras.Layer, args: Any, kwargs: Any) -> Any:
        """What a model makes of a batch."""
        for each in keras.tree.flatten((args, kwargs)):
            if is_floating(each):
                self._known(each, Sources((BATCH,), ()))
        return self._composite(model, args, kwargs)

    def sources(self, tensors: Iterable[Any]) -> Sources:
        """The operations and parameters that tensors were made of, in order."""
        operations: dict[int, None] = {}
        parameters: dict[str, None] = {}
        for each in tensors:
            if isinstance(each, keras.Variable):
                found = Sources((), self._parameters.get(id(each), ()))
            else:
                found = self._sources.get(id(each), NOWHERE)
                if found is NOWHERE and self._unseen and is_floating(each):
                    found = self._waiting(*self._unseen[-1])
                    self._known(each, found)
            operations.update(dict.fromkeys(found.operations))
            parameters.update(dict.fromkeys(found.parameters))
        return Sources(tuple(operations), tuple(parameters))

    # --- tensors ---------------------------------------------------------------------------------

    def _parameter(self, variable: keras.Variable, dtype: str) -> Any:
        value = keras.ops.cast(variable.value, dtype)
        self._known(value, self.sources([variable]))
        return value

    def _known(self, tensor: Any, sources: Sources) -> None:
        self._sources[id(tensor)] = sources
        self._alive.append(tensor)

    def _waiting(self, start: int, above: Sources) -> Sources:
        """The operations since ``start`` whose outputs nothing took, the last of them, or what was above."""
        loose = tuple(at for at in range(start, len(self.drafts)) if at not in self._taken)
        last = (len(self.drafts) - 1,) if len(self.drafts) > start else above.operations
        return Sources(loose or last, ())

    # --- operations ------------------------------------------------------------------------------

    def _composite(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        """A layer that is what is in it: step by step, or as it is."""
        tensors = [each for each in keras.tree.flatten((args, kwargs)) if keras.ops.is_tensor(each)]
        if any(backend.get_keras_mask(each) is not None for each in tensors):
            return self._seen_in_part(layer, args, kwargs)
        self._inside += 1
        try:
            found = graph(layer, self._names, self._variables, args, kwargs)
        except Exception:  # the user's code asks for values, or these do not fit: running it will tell
            found = None
        finally:
            self._inside -= 1
        if found is None:
            return self._seen_in_part(layer, args, kwargs)
        return self._steps(found, tensors)

    def _steps(self, graph: Graph, tensors: Sequence[Any]) -> Any:
        """What a graph makes of tensors."""
        known = dict(zip(map(id, graph.inputs), tensors, strict=True))
        for key, (symbol, variable) in graph.parameters.items():
            known[key] = self._parameter(variable, symbol.dtype)

        def filled(tree: Any) -> Any:
            return keras.tree.map_structure(lambda each: known.get(id(each), each), tree)

        for step in graph.steps:
            args, kwargs = filled(step.args), filled(step.kwargs)
            self._places.append(step.place)
            if not isinstance(step.operation, keras.Layer):
                made = self._function(step.operation, args, kwargs)
            elif is_composite(step.operation):  # that has no graph
                made = self._seen_in_part(step.operation, args, kwargs)
            else:
                made = self._layer(step.operation, args, kwargs)
            self._places.pop()
            known.update(zip(map(id, step.outputs), keras.tree.flatten(made), strict=True))
        return filled(graph.output)

    def _intercepted(self) -> Callable[..., Any]:
        """What a layer is called by where its caller is run as it is."""

        def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return self._call(layer, *args, **kwargs)
            return (self._composite if is_composite(layer) else self._layer)(layer, args, kwargs)

        return call

    @contextmanager
    def _running(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.failed = self.failed or name
            raise

    def _function(self, operation: Any, args: Any, kwargs: Any) -> Any:
        with self._running(self._places[-1]):
            result = operation(*args, **kwargs)
        given = [each for each in keras.tree.flatten((args, kwargs)) if is_number(each)]
        signals = [each for each in given if self.sources([each]) != NOWHERE]
        sources = self.sources(signals)
        name = kinds.function_name(operation)
        lookup = name in LOOKUPS and not sources.operations and _is_lookup(args, kwargs)
        kind = None
        if sources.operations or lookup:
            origins = len(sources.operations) + len(sources.parameters)
            constants = len([each for each in given if _is_scalar(each) and self.sources([each]) == NOWHERE])
            kind = "embedding" if lookup else kinds.function_kind(operation, len(signals), origins, constants)
        if kind == "matmul" and any(not self.sources([each]).operations for each in signals):
            kind = "dense"
        if kind is None:
            return self._passed(sources, result)
        draft = Draft(f"{self._places[-1]}:{name}", kind, name, sources)
        if kind == "activation":
            draft.activation = kinds.activation_of(operation)
        self._look(draft, signals, None if kind in FEATURES_LAST else self._axis(signals))
        if self._measuring and name == "dot_product_attention":
            more = dict(zip(("bias", "mask", "scale"), args[3:], strict=False)) | dict(kwargs)
            query, key = (*args, *(kwargs[each] for each in ("query", "key") if each in kwargs))[:2]
            draft.saturated = measure.saturated("softmax", scores(operation, query, key, more))
        return self._made(draft, result)

    def _layer(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        """A layer that is one operation; its activation is another."""
        name = self._names.get(id(layer), layer.name)
        kind, split = kinds.layer_kind(layer), kinds.own_activation(layer)
        kwargs = _as_trained(layer, kwargs)
        self._inside += 1
        try:
            with self._running(name):
                if split is None:
                    result = self._call(layer, *args, **kwargs)
                else:
                    result = _without_activation(self._call, layer, args, kwargs)
        finally:
            self._inside -= 1
        signals = [each for each in keras.tree.flatten((args, kwargs)) if is_floating(each)]
        signals = [each for each in signals if self.sources([each]) != NOWHERE]
        above = self.sources(signals)
        if kind is None:
            return self._passed(above, result)
        own = [each for variable in layer.weights for each in self._parameters.get(id(variable), ())]
        sources = Sources(above.operations, tuple(dict.fromkeys((*own, *above.parameters))))
        if sources == NOWHERE:
            return result
        if isinstance(layer, layers.ReversibleEmbedding) and signals:
            kind = "dense"
        draft = Draft(name or "model", kind, type(layer).__name__, sources)
        if kind == "activation":
            draft.activation = kinds.activation_of(layer)
        axis = kinds.units_of(layer, kind)
        self._look(draft, signals, self._axis(signals) if axis is None else axis, kwargs.get("mask"))
        if self._measuring and kind == "recurrent":
            initial = args[1] if len(args) > 1 else kwargs.get("initial_state")
            found = gates(layer, args[0] if args else kwargs["sequences"], initial)
            draft.gates = {gate: measure.signal(values) for gate, values in found.items()}
        result = self._made(draft, result)
        return result if split is None else self._activation(draft, split, result)

    def _activation(self, before: Draft, activation: Any, tensor: Any) -> Any:
        """What a layer does to its own output at last."""
        if isinstance(activation, keras.Layer):
            return self._layer(activation, (tensor,), {})
        word = kinds.activation_of(activation)
        kind = "softmax" if word == "softmax" else "activation"
        draft = Draft(f"{before.name.partition('#')[0]}:{word}", kind, word, self.sources([tensor]))
        draft.activation = word if kind == "activation" else None
        with self._running(before.name):
            result = activation(tensor)
        backend.set_keras_mask(result, backend.get_keras_mask(tensor))
        self._look(draft, [tensor], before.units)
        return self._made(draft, result)

    def _seen_in_part(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        """A layer that is run as it is: what is in it are operations, and what it makes of their outputs."""
        name = self._names.get(id(layer), self._places[-1])
        above = self.sources(each for each in keras.tree.flatten((args, kwargs)) if is_floating(each))
        start = len(self.drafts)
        self._places.append(name)
        self._unseen.append((start, above))
        try:
            with self._running(name), replaced(keras.Layer, "__call__", self._intercepted()):
                result = self._call(layer, *args, **kwargs)
            waiting = self._waiting(start, above)
        finally:
            self._places.pop()
            self._unseen.pop()
        floating = [each for each in keras.tree.flatten(result) if is_floating(each)]
        if not floating or all(id(each) in self._sources for each in floating):
            return result
        own = [each for held in layer._trainable_variables for each in self._parameters.get(id(held), ())]
        sources = Sources(waiting.operations, tuple(own))
        if sources == NOWHERE:
            return result
        alone = len(self.drafts) == start  # nothing in it was seen
        draft = Draft(name if alone and name else f"{name}:call", "other", type(layer).__name__, sources)
        self._look(draft, [], -1)
        return self._made(draft, result)

    # --- numbers ---------------------------------------------------------------------------------

    def _axis(self, signals: Sequence[Any]) -> int:
        """The axis of features of what comes from elsewhere: as it was there."""
        for at in self.sources(signals[:1]).operations:
            if at != BATCH and len(self.drafts[at].after.shape) == len(signals[0].shape):
                return self.drafts[at].units
        return -1

    def _look(self, draft: Draft, signals: Sequence[Any], units: int | None, mask: Any = None) -> None:
        """What shows of an operation's inputs."""
        draft.units = -1 if units is None else units
        if not self._measuring or not signals:
            return
        if BATCH in draft.sources.operations:
            first = next((each for each in signals if BATCH in self.sources([each]).operations), None)
            draft.before = None if first is None else signal(first, draft.units)
        activation = "softmax" if draft.kind == "softmax" else draft.activation
        if activation is None:
            return
        values = numbers(signals[0])
        if draft.kind == "softmax":
            draft.saturated = measure.saturated(activation, masked(values, mask))
        else:
            draft.saturated = measure.saturated(activation, values)
            draft.linear = measure.linear(activation, values, draft.units)

    def _passed(self, sources: Sources, result: Any) -> Any:
        """The outputs of what is no operation: they come from where its inputs did."""
        if sources != NOWHERE:
            for each in keras.tree.flatten(result):
                if is_floating(each) and id(each) not in self._sources:
                    self._known(each, sources)
        return result

    def _made(self, draft: Draft, result: Any) -> Any:
        """An operation's outputs, of which the first is measured, now and on the way back."""
        floating = [each for each in keras.tree.flatten(result) if is_floating(each)]
        if not floating:
            return result
        self._calls[draft.name] += 1
        if self._calls[draft.name] > 1:
            draft.name += f"#{self._calls[draft.name]}"
        at = len(self.drafts)
        self.drafts.append(draft)
        self._taken.update(draft.sources.operations)
        same = first = floating[0]
        draft.after = replace(NOTHING, shape=tuple(first.shape))  # by which later axes are told
        if self._measuring:
            draft.made(numbers(first))
            same = watched(first, self._seer(draft))
            backend.set_keras_mask(same, backend.get_keras_mask(first))
        for each in (same, *floating[1:]):
            self._known(each, Sources((at,), ()))
        return keras.tree.map_structure(lambda each: same if each is first else each, result)

    def _seer(self, draft: Draft) -> Callable[[Any], None]:
        def see(gradient: Any) -> None:
            if self.way is not None:
                draft.came_back(self.way, numbers(gradient))

        return see


FEATURES_LAST = ("dense", "embedding", "attention", "matmul")


def is_floating(value: Any) -> bool:
    """Whether it is a tensor of floating point numbers."""
    return bool(keras.ops.is_tensor(value)) and backend.is_float_dtype(
        keras.backend.standardize_dtype(value.dtype)
    )


def is_number(value: Any) -> bool:
    """Whether a function can be given it as one of its operands."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float | keras.Variable) or is_floating(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or math.prod(value.shape) == 1


def signal(tensor: Any, units: int = -1) -> Signal:
    return measure.signal(numbers(tensor), units)


def _is_lookup(args: Any, kwargs: Any) -> bool:
    """Whether rows are taken by numbers that are tensors."""
    tensors = [each for each in keras.tree.flatten((args, kwargs)) if keras.ops.is_tensor(each)]
    return any(not is_floating(each) and len(each.shape) > 0 for each in tensors)


def _as_trained(layer: keras.Layer, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """As in training, but nothing is dropped and no noise is added: only norms take part."""
    if not layer._call_has_training_arg:
        return dict(kwargs)
    kept = isinstance(layer, layers.BatchNormalization) or not _draws(layer)
    return dict(kwargs) if kept else {**kwargs, "training": False}


def _draws(layer: keras.Layer) -> bool:
    return any(each._seed_generators for each in layer._flatten_layers())


def _without_activation(call: Callable[..., Any], layer: Any, args: Any, kwargs: Any) -> Any:
    held = vars(layer)["activation"]
    vars(layer)["activation"] = keras.activations.linear
    try:
        return call(layer, *args, **kwargs)
    finally:
        vars(layer)["activation"] = held
