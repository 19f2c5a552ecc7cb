"""From a Keras model and one batch to a `fanin.audit.trace.Trace`, on any backend."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras
import numpy as np

from fanin._types import Array
from fanin.audit import measure, updates
from fanin.audit.drafts import BATCH, COTANGENTS, JACOBIAN, descent, generators, may_be_tied, said
from fanin.audit.follow import followed
from fanin.audit.trace import Trace, Weights
from fanin.errors import FaninError, TraceError
from fanin.keras._audit_backend import Pull, linearized, numbers
from fanin.keras._audit_graph import left_alone, places
from fanin.keras._audit_run import Run, is_floating, signal
from fanin.keras._walk import Described, describe

Loss: TypeAlias = Callable[[Any, Any], Any] | keras.losses.Loss | str
Values: TypeAlias = dict[str, Any]  # of parameters or their gradients, by path
KERAS_BATCH = "(x, y) or (x, y, weights)"


def traced(
    model: keras.Layer,
    batch: Any,
    loss: Loss | None,
    optimizer: keras.optimizers.Optimizer | str | None,
    seed: int,
    isometry: bool,
) -> Trace:
    """See `fanin.keras.trace`."""
    if isinstance(optimizer, str):
        updates.parse(optimizer)  # before anything runs
    elif not isinstance(optimizer, keras.optimizers.Optimizer | None):
        raise TraceError(
            f"`optimizer` must be a keras.optimizers.Optimizer or text such as 'adam 0.001', got "
            f"{type(optimizer).__name__}"
        )
    described = _described(model)
    with left_alone(model), generators(seed):
        audit = _Audit(model, described, batch, loss, seed)
        audit.forward()
        singular_values = audit.singular_values() if isometry else ()
        gradients = audit.backward()
        weights = audit.weights([gradients], optimizer)
        if may_be_tied(weights):
            weights = audit.weights([gradients, audit.after_a_step(gradients)], optimizer)
    operations = tuple(draft.finished() for draft in audit.run.drafts)
    return Trace(
        framework="keras",
        weights=followed(operations, weights),
        operations=operations,
        batch=tuple(signal(leaf) for leaf in audit.leaves),
        outputs=audit.outputs,
        loss=audit.loss,
        blind_loss=audit.blind_loss,
        singular_values=singular_values,
        optimizer=_optimizer_name(optimizer),
    )


def _described(model: Any) -> Described:
    try:
        described = describe(model)
    except FaninError as error:
        raise TraceError(str(error)) from error
    if not described.variables:
        raise TraceError("`model` has no parameters, so there is nothing to audit")
    for path, variable in described.variables.items():
        if getattr(variable.value, "is_meta", False):
            raise TraceError(f"{path!r} is on the meta device and holds no values; build it on another")
    return described


# --- the batch -----------------------------------------------------------------------------------


def _as_tensors(batch: Any) -> Any:
    """The batch with NumPy arrays as tensors, floating ones as Keras computes by default."""

    def made(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            floating = np.issubdtype(value.dtype, np.floating)
            return keras.ops.convert_to_tensor(value, dtype=keras.config.floatx() if floating else None)
        if value is not None and not keras.ops.is_tensor(value):
            raise TraceError(
                f"`batch` must hold tensors or arrays, alone or in tuples, lists and mappings, got "
                f"{type(value).__name__}"
            )
        return value

    return keras.tree.map_structure(made, batch)


def _arguments(model: keras.Layer, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a model is called: one of layers takes all its inputs as one argument."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if inputs is not None:
        if isinstance(batch, tuple) and len(batch) != len(inputs):
            raise TraceError(
                f"`batch` holds {len(batch)} inputs, the model takes {len(inputs)}; {KERAS_BATCH} goes with "
                f"a loss of Keras, such as 'mse'"
            )
        single = isinstance(batch, tuple) and len(batch) == 1
        return (batch[0] if single else list(batch) if isinstance(batch, tuple) else batch,), {}
    if isinstance(batch, tuple):
        return batch, {}
    if isinstance(batch, Mapping):
        try:
            inspect.signature(model.call).bind(**batch)
        except TypeError:  # its keys are no arguments: the mapping is one
            return (batch,), {}
        return (), dict(batch)
    return (batch,), {}


def _shapes(batch: Any) -> str:
    tensors = [each for each in keras.tree.flatten(batch) if each is not None]
    return (
        ", ".join(
            f"{keras.backend.standardize_dtype(each.dtype)}{list(map(int, each.shape))}" for each in tensors
        )
        or "empty"
    )


def _floating(tree: Any) -> list[Any]:
    return [each for each in keras.tree.flatten(tree) if is_floating(each)]


def _main(output: Any) -> int:
    """Which of the floating point tensors: the only one, ``logits``, or the first."""
    found = _floating(output)
    if not found:
        raise TraceError(f"the model's output ({type(output).__name__}) holds no floating point tensor")
    logits = output.get("logits") if isinstance(output, Mapping) else None
    return next((at for at, each in enumerate(found) if each is logits), 0)


# --- losses --------------------------------------------------------------------------------------


def _inputs_of(batch: Any, loss: Loss | None) -> Any:
    """What the model gets of a batch."""
    if not _is_kerass(loss):
        return batch
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise TraceError(
            f"with a loss of Keras `batch` must be {KERAS_BATCH}, as `fit` takes it, got "
            f"{type(batch).__name__}; or pass a function loss(output, batch)"
        )
    return batch[0]


def _is_kerass(loss: Any) -> bool:
    """Whether it takes targets first: one of Keras's classes, functions or names."""
    if loss is None or isinstance(loss, str | keras.losses.Loss):
        return loss is not None
    return str(getattr(loss, "__module__", "")).startswith("keras.")


def _function_of(loss: Loss | None) -> Callable[[Any, Any], Any] | None:
    """``loss(output, batch)``."""
    if not _is_kerass(loss):
        if loss is None or callable(loss):
            return loss
        raise TraceError(
            f"`loss` must be a function loss(output, batch), a keras.losses.Loss or its name, got "
            f"{type(loss).__name__}"
        )
    try:
        compared = keras.losses.get(loss)
    except ValueError as error:
        raise TraceError(f"`loss` {loss!r} is no loss of Keras") from error

    def function(output: Any, batch: Any) -> Any:
        if isinstance(compared, keras.losses.Loss):
            return compared(batch[1], output, *batch[2:])
        value = compared(batch[1], output)
        return keras.ops.mean(value * keras.ops.cast(batch[2], value.dtype) if len(batch) > 2 else value)

    return function


# --- forward and back ----------------------------------------------------------------------------


class _Audit:
    """One model on one batch: its operations, and what they gave."""

    def __init__(
        self, model: keras.Layer, described: Described, batch: Any, loss: Loss | None, seed: int
    ) -> None:
        self.model, self.described, self.seed = model, described, seed
        self.loss: float | None = None
        self.blind_loss: float | None = None
        self.outputs: tuple[int, ...] = ()
        self._loss = _function_of(loss)
        self.batch = _as_tensors(batch)
        self._arguments = _arguments(model, _inputs_of(self.batch, loss))
        self._tensors = [each for each in keras.tree.flatten(self._arguments) if keras.ops.is_tensor(each)]
        self.leaves = [each for each in self._tensors if is_floating(each)]
        self.names = {id(layer): name for layer, name in places(model)}
        self.parameters = {
            id(described.variables[stored.path]): tuple(
                member.name for piece in stored.pieces for member in piece.members(stored.shape)
            )
            for stored in described.model.tensors
        }
        self.run = self._new_run(measuring=True)
        self.values: Values = {path: variable.value for path, variable in described.variables.items()}
        self._output: Any = None
        self._main = 0  # which of the floating point outputs
        self._results: list[Any] = []  # these outputs

    def _new_run(self, *, measuring: bool) -> Run:
        return Run(self.names, list(self.described.variables.values()), self.parameters, measuring=measuring)

    def _function(self, run: Run) -> Callable[[list[Any]], list[Any]]:
        """The floating point outputs as a function of the parameters and the batch."""

        def function(leaves: list[Any]) -> list[Any]:
            variables = list(self.described.variables.values())
            given = iter(leaves[len(variables) :])
            tensors = [next(given) if is_floating(each) else each for each in self._tensors]
            with keras.StatelessScope(list(zip(variables, leaves, strict=False))):
                output = self._called(run, tensors)
            self._output = output
            return _floating(output)

        return function

    def _called(self, run: Run, tensors: Sequence[Any]) -> Any:
        left = iter(tensors)
        args, kwargs = keras.tree.map_structure(
            lambda each: next(left) if keras.ops.is_tensor(each) else each, self._arguments
        )
        return run.call(self.model, args, {**kwargs, "training": True})

    def _linearized(self, run: Run, values: Values) -> Pull:
        """Run the model; what pulls gradients of its outputs back to the parameters and the batch."""
        leaves = [*values.values(), *self.leaves]
        with self._told(run):
            self._results, pull = linearized(self._function(run), leaves)
        return pull

    @contextmanager
    def _told(self, run: Run) -> Iterator[None]:
        try:
            yield
        except TraceError:
            raise
        except Exception as error:  # the user's code: what it says is passed on, with the place
            where = repr(run.failed) if run.failed else "the model"
            raise TraceError(
                f"forward raised in {where}: {said(error)}; the batch was {_shapes(self.batch)}"
            ) from error

    def once(self) -> None:
        """Run it without a way back."""
        with self._told(self.run):
            self._function(self.run)([*self.values.values(), *self.leaves])

    def forward(self) -> None:
        """Run it, measuring every operation."""
        self._pull = self._linearized(self.run, self.values)
        self._main = _main(self._output)
        found = self.run.sources([_floating(self._output)[self._main]])
        self.outputs = tuple(at for at in found.operations if at != BATCH)
        if not self.outputs:
            raise TraceError("the model's output depends on no parameter")

    def backward(self) -> Values:
        """Go back, measuring every operation; the parameters' gradients, by the loss if there is one."""
        beginnings = self._beginnings()
        self.run.way = "backward"
        for at in range(1 if self._loss is None else 0, COTANGENTS):
            self._pull(self._cotangents(at), beginnings)
        back = self._cotangents(0)
        if self._loss is not None:
            self.run.way = "loss"
            self.loss, back = self._loss_gradients()
            self.blind_loss = self._blind()
        gradients = self._pulled(self._pull, back)
        self.run.way = None
        del self._pull
        return gradients

    def _beginnings(self) -> list[int]:
        """Leaves enough for every operation to get its gradient, and few parameters' to be computed."""
        first = [draft.sources for draft in self.run.drafts if not draft.sources.operations]
        names = {name for sources in first for name in sources.parameters}
        variables = self.described.variables.values()
        tables = [at for at, each in enumerate(variables) if names & set(self.parameters[id(each)])]
        return [*tables, *range(len(self.values), len(self.values) + len(self.leaves))]

    def _pulled(self, pull: Pull, cotangents: Sequence[Any]) -> Values:
        pairs = zip(self.values.items(), pull(cotangents, range(len(self.values))), strict=True)
        return {
            path: keras.ops.zeros_like(value) if gradient is None else gradient
            for (path, value), gradient in pairs
        }

    def _cotangents(self, at: int) -> list[Any]:
        """A standard normal gradient of the main output, from a stream of NumPy's, so that reports repeat."""
        main = self._results[self._main]
        drawn = np.random.default_rng([self.seed, at]).standard_normal(tuple(main.shape), np.float32)
        return self._alone(keras.ops.convert_to_tensor(drawn, dtype=main.dtype))

    def _alone(self, gradient: Any) -> list[Any]:
        return [gradient if at == self._main else None for at in range(len(self._results))]

    # --- loss ------------------------------------------------------------------------------------

    def _loss_of(self, results: Sequence[Any]) -> Any:
        """The loss of other floating point outputs than the model's."""
        given = iter(results)
        output = keras.tree.map_structure(
            lambda each: next(given) if is_floating(each) else each, self._output
        )
        assert self._loss is not None
        try:
            value = self._loss(output, self.batch)
        except Exception as error:
            raise TraceError(
                f"`loss` raised {said(error)}; it is called as loss(output, batch), the batch was "
                f"{_shapes(self.batch)}"
            ) from error
        if not is_floating(value) or math.prod(value.shape) != 1:
            shown = f"shape {tuple(value.shape)}" if keras.ops.is_tensor(value) else type(value).__name__
            raise TraceError(f"`loss` must return one number, a scalar tensor, got {shown}")
        return keras.ops.reshape(value, ())

    def _loss_gradients(self) -> tuple[float, list[Any]]:
        """The loss, and its gradients by the outputs."""
        [value], pull = linearized(lambda results: [self._loss_of(results)], self._results)
        gradients = zip(
            self._results, pull([keras.ops.ones_like(value)], range(len(self._results))), strict=True
        )
        return float(numbers(value)), [
            keras.ops.zeros_like(result) if gradient is None else gradient for result, gradient in gradients
        ]

    def _blind(self) -> float | None:
        """The loss of outputs that are all zero (of a softmax: all equal); None of one that refuses them."""
        last = self.run.drafts[self.outputs[-1]]
        share = 0.0
        if last.kind == "softmax":
            share = 1.0 / self._results[self._main].shape[-1]
        elif last.activation == "sigmoid":
            share = 0.5
        blind = [
            keras.ops.full_like(each, share if at == self._main else 0.0)
            for at, each in enumerate(self._results)
        ]
        try:
            return float(numbers(self._loss_of(blind)))
        except TraceError:
            return None

    # --- after the first run ---------------------------------------------------------------------

    def singular_values(self) -> tuple[float, ...]:
        """Of the Jacobian of one example's output by its input."""
        if not self.leaves:
            raise TraceError("`isometry` takes derivatives by the batch, which has no floating point array")
        main = self._results[self._main]
        size = math.prod(main.shape[1:])
        if size > JACOBIAN:
            raise TraceError(
                f"`isometry` takes at most {JACOBIAN} outputs, one example of this model has {size}"
            )
        rows = []
        for at in range(size):
            one = np.zeros(tuple(main.shape), np.float32)
            one.reshape(len(one), -1)[0, at] = 1
            row = self._alone(keras.ops.convert_to_tensor(one, dtype=main.dtype))
            [found] = self._pull(row, [len(self.values)])
            rows.append(np.zeros(math.prod(self.leaves[0].shape[1:])) if found is None else _first(found))
        return tuple(map(float, np.linalg.svd(np.stack(rows), compute_uv=False)))

    def after_a_step(self, gradients: Values) -> Values:
        """The parameters' gradients when each has made a small step of plain descent."""
        moved = {path: _moved(value, gradients[path]) for path, value in self.values.items()}
        pull = self._linearized(self._new_run(measuring=False), moved)
        back = self._cotangents(0) if self._loss is None else self._loss_gradients()[1]
        return self._pulled(pull, back)

    def weights(
        self, gradients: Sequence[Values], optimizer: keras.optimizers.Optimizer | str | None
    ) -> tuple[Weights, ...]:
        def reader(values: Values) -> Callable[[str], Array | None]:
            return lambda path: numbers(values[path]) if path in values else None

        step = updates.stepper(optimizer) if isinstance(optimizer, str) else None
        changes = None
        if optimizer is not None and step is None:
            changes = reader(self._first_step(optimizer, gradients[0]))
        readers = [reader(each) for each in gradients]
        return tuple(measure.weights(self.described.model, reader(self.values), readers, step, changes))

    def _first_step(self, optimizer: Any, gradients: Values) -> Values:
        """What an optimizer would add to the parameters that train: one like it steps, on copies."""
        trained = {id(variable) for variable in self.model.trainable_variables}
        mine = {path: each for path, each in self.described.variables.items() if id(each) in trained}
        copies = [
            keras.Variable(numbers(each).copy(), dtype=each.dtype, name=each.name) for each in mine.values()
        ]
        try:
            like = type(optimizer).from_config(optimizer.get_config())
            like.apply([gradients[path] for path in mine], copies)
        except Exception as error:
            raise TraceError(f"`optimizer` raised at its first step: {said(error)}") from error
        return {path: new.value - each.value for (path, each), new in zip(mine.items(), copies, strict=True)}


def _first(gradient: Any) -> Array:
    return np.asarray(numbers(gradient)[0].ravel(), np.float64)


def _moved(value: Any, gradient: Any) -> Any:
    factor = descent(_rms(value), _rms(gradient))
    return value + keras.ops.cast(gradient * factor, value.dtype) if factor else value


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(numbers(values).astype(np.float64)))))


def _optimizer_name(optimizer: keras.optimizers.Optimizer | str | None) -> str:
    if optimizer is None or isinstance(optimizer, str):
        return optimizer or ""
    return f"{type(optimizer).__name__.lower()} {float(numbers(optimizer.learning_rate)):g}"
