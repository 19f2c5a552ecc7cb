"""From a model and one batch to a `fanin.audit.trace.Trace`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from fanin._types import Array
from fanin.audit import measure, updates
from fanin.audit.drafts import COTANGENTS, JACOBIAN, descent, may_be_tied, said
from fanin.audit.follow import followed
from fanin.audit.trace import Operation, Signal, Trace, Weights
from fanin.errors import TraceError
from fanin.jax._audit_gates import gates
from fanin.jax._audit_model import Pure, callable_of, shapes, split
from fanin.jax._audit_operations import Found, recognize
from fanin.jax._audit_run import Run
from fanin.jax._audit_steps import flat
from fanin.jax._tree import is_array
from fanin.jax._walk import AxesOf

Loss: TypeAlias = Callable[[Any, Any], Any]


def traced(
    model: Any,
    batch: Any,
    loss: Loss | None,
    params: Any,
    axes: AxesOf | None,
    optimizer: Any,
    seed: int,
    *,
    isometry: bool,
) -> Trace:
    """See `fanin.jax.trace`."""
    arrays, joined = split(batch)
    made = callable_of(model, params, joined(arrays), axes)
    run = Audit(made, arrays, joined, loss, seed)
    gradients = run.first()
    singular_values = run.singular_values() if isometry else ()
    weights = run.weights([gradients], optimizer)
    if may_be_tied(weights):
        weights = run.weights([gradients, run.after_a_step(gradients)], optimizer)
    return replace(
        run.trace(weights),
        singular_values=singular_values,
        optimizer=optimizer if isinstance(optimizer, str) else "" if optimizer is None else "optax",
    )


class Audit:
    """One model on one batch: its operations, and what they gave."""

    def __init__(
        self,
        made: Pure,
        arrays: Sequence[Any],
        joined: Callable[[Sequence[Any]], Any],
        loss: Loss | None,
        seed: int,
    ) -> None:
        self.made, self.arrays, self.joined = made, arrays, joined
        self.batch = joined(arrays)
        self._loss, self.seed = loss, seed
        self.loss: float | None = None
        self.blind_loss: float | None = None
        closed, shape = self._traced()
        self.structure = jax.tree.structure(shape)
        program = flat(closed, lambda at: at < len(made.values))
        self.results = program.results
        self.main = program.results[_main(shape)]
        self.recognized = recognize(program, made.described.model.tensors, self.main)
        if self.recognized.output < 0:
            raise TraceError("the model's output depends on no parameter")
        self.run = Run(program, self.recognized)
        self.after: dict[int, Signal] = {}
        self.silent: dict[int, Array | None] = {}
        self.facts: dict[int, dict[str, Any]] = {}
        self.gradients: dict[int, dict[str, Any]] = {}  # {"backward": Spread, "loss_gradient": Spread}

    def _traced(self) -> tuple[Any, Any]:
        def call(values: list[Any], arrays: list[Any]) -> Any:
            return self.made.call(values, self.joined(arrays))

        with self._told("the model raised {}"):
            return jax.make_jaxpr(call, return_shape=True)(list(self.made.values), list(self.arrays))

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of the user's code: what they say is passed on, with the shapes."""
        try:
            yield
        except TraceError:
            raise
        except Exception as error:
            raise TraceError(f"{what.format(said(error))}; the batch was {shapes(self.arrays)}") from error

    # --- forward and back ------------------------------------------------------------------------

    def first(self, *, back: bool = True) -> list[Any]:
        """Run it, and back, measuring everything; the parameters' gradients, by the loss if there is one."""
        by_value = {found.value: found for found in self.recognized.operations}

        def see(number: int, known: Mapping[int, Any]) -> None:
            found = by_value[number]
            values = np.asarray(known[number])
            self.after[number] = measure.signal(values, found.units)
            self.silent[number] = measure.silent(values, found.units)
            self.facts[number] = self._facts(found, known)

        with self._told("forward raised {}"):
            known = self.run.forward((*self.made.values, *self.arrays), see)
        return self._back(known, self._see_gradient) if back else []

    def _facts(self, found: Found, known: Mapping[int, Any]) -> dict[str, Any]:
        """What is measured of what an operation takes."""
        facts: dict[str, Any] = {}
        if found.watched is not None:
            before = np.asarray(known[found.watched])
            activation = "softmax" if found.kind == "softmax" else found.activation or ""
            facts["saturated"] = measure.saturated(activation, before)
            if found.kind == "activation":
                units = measure.axis_of(found.units, before.ndim)
                facts["linear"] = measure.linear(activation, before, units)
        if found.loop is not None:
            inside = gates(found.loop, [known[take] for take in found.loop.takes])
            facts["gates"] = {gate: measure.signal(np.asarray(values)) for gate, values in inside.items()}
        return facts

    def _see_gradient(self, number: int, rows: Any) -> None:
        values = np.asarray(rows)
        if (silent := self.silent[number]) is not None:
            values = np.where(silent, 0, values)
        n_real = len(values) - COTANGENTS
        measured = self.gradients.setdefault(number, {})
        measured["backward"] = measure.spread(values[n_real:])
        if n_real:
            measured["loss_gradient"] = measure.spread(values[0])

    def _back(self, known: dict[int, Any], see: Callable[[int, Any], None]) -> list[Any]:
        """Gradients of the parameters; the first row of cotangents is that of the loss, if there is one."""
        outputs = {number: known[number] for number in self.results}
        kind = outputs[self.main]
        drawn = np.random.default_rng(self.seed).standard_normal((COTANGENTS, *kind.shape), np.float32)
        rows = {self.main: jnp.asarray(drawn, kind.dtype)}
        if self._loss is not None:
            real = self._loss_gradients(outputs)
            rows = {
                number: jnp.concatenate(
                    [
                        gradient[None],
                        rows.get(number, jnp.zeros((COTANGENTS, *gradient.shape), gradient.dtype)),
                    ]
                )
                for number, gradient in real.items()
            }
        with self._told("backward raised {}"):
            found = self.run.backward(known, rows, see)
        pairs = zip(self.run.program.given, self.made.values, strict=False)
        return [jnp.zeros_like(value) if found.get(at) is None else found[at] for at, value in pairs]

    def _loss_gradients(self, outputs: Mapping[int, Any]) -> dict[int, Any]:
        """Of the outputs, by the loss."""
        floating = [number for number in outputs if _is_floating(outputs[number])]

        def loss_of(values: Sequence[Any]) -> Any:
            known = {**outputs, **dict(zip(floating, values, strict=True))}
            output = jax.tree.unflatten(self.structure, [known[number] for number in self.results])
            return self._loss(output, self.batch)  # type: ignore[misc]

        values = [outputs[number] for number in floating]
        with self._told("`loss` raised {}; it is called as loss(output, batch)"):
            found, gradients = jax.value_and_grad(loss_of)(values)
            blind = loss_of([jnp.zeros_like(value) for value in values])
        if self.loss is None:
            self.loss, self.blind_loss = float(found), float(blind)
        return dict(zip(floating, gradients, strict=True))

    # --- afterwards ------------------------------------------------------------------------------

    def after_a_step(self, gradients: Sequence[Any]) -> list[Any]:
        """The parameters' gradients when each has made a small step of plain descent."""
        pairs = zip(self.made.values, gradients, strict=True)
        moved = [_moved(value, gradient) for value, gradient in pairs]
        known = self.run.forward((*moved, *self.arrays), lambda number, known: None)
        return self._back(known, lambda number, rows: None)

    def singular_values(self) -> tuple[float, ...]:
        """Of the Jacobian of one example's output by its input."""
        at = next((at for at, array in enumerate(self.arrays) if _is_floating(array)), None)
        if at is None:
            raise TraceError("`isometry` takes derivatives by the batch, which has no floating point array")
        number = self.results.index(self.main)

        def output(one: Any) -> Any:
            arrays = [*self.arrays[:at], self.arrays[at].at[0].set(one), *self.arrays[at + 1 :]]
            return jax.tree.leaves(self.made.call(self.made.values, self.joined(arrays)))[number][0].ravel()

        one = self.arrays[at][0]
        n_out, n_in = jax.eval_shape(output, one).size, one.size
        if min(n_out, n_in) > JACOBIAN:
            raise TraceError(
                f"`isometry` takes at most {JACOBIAN} outputs or inputs, one example of this model has "
                f"{n_out} and {n_in}"
            )
        jacobian = (jax.jacrev if n_out <= n_in else jax.jacfwd)(output)(one).reshape(n_out, n_in)
        return tuple(map(float, np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)))

    def weights(self, gradients: Sequence[Sequence[Any]], optimizer: Any) -> tuple[Weights, ...]:
        model = self.made.described.model
        paths = [tensor.path for tensor in model.tensors]

        def reader(values: Sequence[Any]) -> Callable[[str], Array]:
            held = dict(zip(paths, values, strict=True))
            return lambda path: np.asarray(held[path])

        step = updates.stepper(optimizer) if isinstance(optimizer, str) else None
        changes = None
        if optimizer is not None and step is None:
            changes = reader(_first_step(optimizer, paths, self.made.values, gradients[0]))
        readers = [reader(each) for each in gradients]
        return tuple(measure.weights(model, reader(self.made.values), readers, step, changes))

    def trace(self, weights: tuple[Weights, ...]) -> Trace:
        operations = tuple(self.operations())
        return Trace(
            framework="jax",
            weights=followed(operations, weights),
            operations=operations,
            batch=tuple(measure.signal(np.asarray(array)) for array in self.arrays if _is_floating(array)),
            outputs=(self.recognized.output,),
            loss=self.loss,
            blind_loss=self.blind_loss,
        )

    def operations(self) -> Iterator[Operation]:
        before = {-1: self._of_batch()}
        for found in self.recognized.operations:
            yield Operation(
                name=found.name,
                kind=found.kind,
                layer=found.layer,
                inputs=found.inputs,
                after=self.after[found.value],
                before=next((before[source] for source in found.inputs if source in before), None),
                parameters=found.parameters,
                activation=found.activation,
                **self.facts[found.value],
                **self.gradients.get(found.value, {}),
            )

    def _of_batch(self) -> Signal | None:
        first = next((array for array in self.arrays if _is_floating(array)), None)
        return None if first is None else measure.signal(np.asarray(first))


def _is_floating(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _main(output: Any) -> int:
    """The place of the main output among all: the array, ``logits``, or the first floating point array."""
    leaves = jax.tree_util.tree_flatten_with_path(output)[0]
    floating = [at for at, (_, leaf) in enumerate(leaves) if is_array(leaf) and _is_floating(leaf)]
    if not floating:
        raise TraceError(f"the model's output ({type(output).__name__}) holds no floating point array")
    called = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return next((at for at in floating if called[at] == "logits"), floating[0])


def _moved(value: Any, gradient: Any) -> Any:
    """A parameter after a small step; where its gradient is zero or not finite it stays."""
    size, slope = (float(jnp.sqrt(jnp.mean(jnp.square(each)))) for each in (value, gradient))
    factor = descent(size, slope)
    return value + (gradient * factor).astype(value.dtype) if factor else value


def _first_step(
    optimizer: Any, paths: Sequence[str], values: Sequence[Any], gradients: Sequence[Any]
) -> list[Any]:
    """What a transformation of optax adds, or that of an optimizer of nnx."""
    rule = getattr(optimizer, "tx", optimizer)
    if not hasattr(rule, "init") or not hasattr(rule, "update"):
        raise TraceError(
            f"`optimizer` must be a transformation of optax, an nnx.Optimizer or text such as 'adam 0.001', "
            f"got {type(optimizer).__name__}"
        )
    held, slopes = (dict(zip(paths, each, strict=True)) for each in (values, gradients))
    try:
        added, _ = rule.update(slopes, rule.init(held), held)
    except Exception as error:
        raise TraceError(f"`optimizer` raised at its first step: {said(error)}") from error
    return [added[path] for path in paths]
