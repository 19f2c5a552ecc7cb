"""A Keras model and a batch as `fanin.calibrate` sees them, on any backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras.src import backend
from keras.src.backend.common.stateless_scope import in_stateless_scope

from fanin._types import Array
from fanin.audit.drafts import Draft, Sources, generators
from fanin.audit.follow import followed
from fanin.audit.trace import Trace
from fanin.calibrate.engine import Correction, Seen, Visit
from fanin.calibrate.example import entries, features, unknown
from fanin.errors import CalibrationError, TraceError
from fanin.keras import _audit_kinds as kinds
from fanin.keras._audit import _Audit, _described
from fanin.keras._audit_backend import numbers
from fanin.keras._audit_gates import gates
from fanin.keras._audit_graph import left_alone
from fanin.keras._audit_run import Run, is_floating, signal
from fanin.model import Model


def example(model: keras.Layer) -> Any:
    """A batch for a model of one input that says its shape."""
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or None in inputs[0].shape[1:]:
        first = next(iter(getattr(model, "layers", [])), model)
        raise unknown(type(first).__name__)
    shape, dtype = inputs[0].shape[1:], inputs[0].dtype
    if "int" not in dtype:
        return features(shape, 256 if len(shape) == 1 else 16)
    tables = [
        layer.input_dim for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)
    ]
    return entries(min(tables, default=2), (4, *shape))


class _AgainError(Exception):
    """Weights changed that the rest of this run does not get."""


class Engine:
    """See `fanin.calibrate.Engine`."""

    def __init__(self, model: keras.Layer, batch: Any, seed: int) -> None:
        self._model, self._batch, self._seed = model, batch, seed
        self._described = _described(model)
        self._waiting: dict[str, Array] = {}  # written in a run, in which variables are those of a scope

    @property
    def model(self) -> Model:
        return self._described.model

    @contextmanager
    def _running(self) -> Iterator[_Audit]:
        with left_alone(self._model), generators(self._seed):
            yield _Audit(self._model, self._described, self._batch, None, self._seed)

    def trace(self, *, gradients: bool = False) -> Trace:
        with self._running() as audit:
            audit.forward()
            found = [audit.backward()] if gradients else []
            weights = audit.weights(found, None)
        operations = tuple(draft.finished() for draft in audit.run.drafts)
        return Trace(
            framework="keras",
            weights=followed(operations, weights),
            operations=operations,
            batch=tuple(signal(leaf) for leaf in audit.leaves),
            outputs=audit.outputs,
        )

    def forward(self, visit: Visit) -> None:
        seen: set[int] = set()
        while not self._run(visit, seen):
            pass

    def _run(self, visit: Visit, seen: set[int]) -> bool:
        """Whether a run came to its end; what has been seen is not shown again."""
        with self._running() as audit:
            audit.run = Showing(audit.run, visit, seen)
            try:
                audit.once()
            except TraceError as error:
                if isinstance(error.__cause__, CalibrationError):
                    raise error.__cause__ from None
                if not isinstance(error.__cause__, _AgainError):
                    raise
                return False
            finally:
                for path, values in self._waiting.items():
                    self._described.variables[path].assign(values)
                self._waiting.clear()
        return True

    def read(self, path: str) -> Array:
        if path in self._waiting:
            return self._waiting[path].copy()
        return numbers(self._described.variables[path]).copy()

    def write(self, path: str, values: Array) -> None:
        if in_stateless_scope():
            self._waiting[path] = values
        else:
            self._described.variables[path].assign(values)


class Showing(Run):
    """Shows each output as it is made, and passes on what it is corrected to; measures none."""

    def __init__(self, like: Run, visit: Visit, seen: set[int]) -> None:
        super().__init__(like._names, like._variables, like._parameters, measuring=False)
        self._visit, self._seen = visit, seen
        self._scaled: set[str] = set()  # parameters that changed in this run

    def _layer(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        if kinds.layer_kind(layer) == "recurrent":
            self._show_gates(layer, args, kwargs)
        return super()._layer(layer, args, kwargs)

    def _show_gates(self, layer: keras.Layer, args: Any, kwargs: Any) -> None:
        at = len(self.drafts)
        if at in self._seen:
            return
        self._seen.add(at)
        initial = args[1] if len(args) > 1 else kwargs.get("initial_state")
        shown = gates(layer, args[0] if args else kwargs["sequences"], initial)
        corrections = [self._visit(Seen(at, values, -1, gate)) for gate, values in shown.items()]
        if any(each is not None for each in corrections):
            raise _AgainError

    def _made(self, draft: Draft, result: Any) -> Any:
        at = len(self.drafts)
        result = super()._made(draft, result)
        if len(self.drafts) == at or at in self._seen:
            return result
        if self._scaled & set(draft.sources.parameters):
            raise _AgainError
        self._seen.add(at)
        first = next(each for each in keras.tree.flatten(result) if is_floating(each))
        correction = self._visit(Seen(at, numbers(first), draft.units))
        if correction is None:
            return result
        self._scaled.update(draft.sources.parameters)
        made = _corrected(first, correction, draft.units)
        backend.set_keras_mask(made, backend.get_keras_mask(first))
        self._known(made, Sources((at,), ()))
        return keras.tree.map_structure(lambda each: made if each is first else each, result)


def _corrected(tensor: Any, correction: Correction, units: int) -> Any:
    parts = []
    for part in correction:
        side = [1] * len(tensor.shape)
        if np.size(part) > 1:
            side[units] = -1
        parts.append(keras.ops.convert_to_tensor(np.reshape(part, side), dtype=tensor.dtype))
    return tensor * parts[0] + parts[1]
