"""A model of JAX and a batch as `fanin.calibrate` sees them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fanin._types import Array
from fanin.audit.measure import axis_of
from fanin.audit.trace import Trace
from fanin.calibrate.engine import Correction, Seen, Visit
from fanin.calibrate.example import entries, features, unknown
from fanin.jax._audit import Audit
from fanin.jax._audit_gates import gates
from fanin.jax._audit_model import callable_of, split
from fanin.jax._linen import PARAMS, is_linen
from fanin.jax._tree import is_nnx
from fanin.jax._walk import AxesOf
from fanin.model import Model


def example(model: Any) -> Any:
    """A batch for a module of nnx that begins with a linear layer or an embedding."""
    first = _first(model) if is_nnx(model) else model
    kind = type(first).__name__
    if is_nnx(model) and kind == "Linear":
        return jnp.asarray(features([first.in_features]))
    if is_nnx(model) and kind == "Embed":
        return jnp.asarray(entries(first.num_embeddings))
    raise unknown(kind)


def _first(module: Any) -> Any:
    """The first layer, as attributes were set."""
    inside = next((each for each in vars(module).values() if is_nnx(each)), None)
    return module if inside is None else _first(inside)


class _AgainError(Exception):
    """Weights changed that the rest of this run does not get."""


class Engine:
    """See `fanin.calibrate.Engine`. A module of nnx is changed in place, other parameters are made anew."""

    def __init__(self, model: Any, batch: Any, params: Any, axes: AxesOf | None, seed: int) -> None:
        arrays, joined = split(batch)
        self._made = callable_of(model, params, joined(arrays), axes)
        self._audit = Audit(self._made, arrays, joined, None, seed)
        self._in_place = is_nnx(model)
        self._linen = is_linen(model)
        self._given = model if params is None else params
        paths = [tensor.path for tensor in self.model.tensors]
        self._at = {path: number for number, path in enumerate(paths)}

    @property
    def model(self) -> Model:
        return self._made.described.model

    @property
    def calibrated(self) -> Any:
        """The module of nnx itself; a new tree, or variables of linen, with the values as they are now."""
        if self._in_place:
            return self._given
        described = self._made.described
        held = {described.slots[path][0].path: self._made.values[at] for path, at in self._at.items()}
        leaves = [held.get(leaf.path, leaf.array) for leaf in described.leaves]
        tree = jax.tree.unflatten(
            jax.tree.structure(self._given[PARAMS] if self._linen else self._given), leaves
        )
        return {**self._given, PARAMS: tree} if self._linen else tree

    def trace(self, *, gradients: bool = False) -> Trace:
        found = self._audit.first(back=gradients)
        return self._audit.trace(self._audit.weights([found] if gradients else [], None))

    def forward(self, visit: Visit) -> None:
        seen: set[int] = set()
        while not self._run(visit, seen):
            pass

    def _run(self, visit: Visit, seen: set[int]) -> bool:
        """Whether a run came to its end: what has been seen before is not shown again."""
        operations = {found.value: (at, found) for at, found in enumerate(self._audit.recognized.operations)}

        def see(number: int, known: Mapping[int, Any]) -> None:
            at, found = operations[number]
            if at in seen:
                return
            seen.add(at)
            later = {name for k, other in operations.values() if k > at for name in other.parameters}
            values = np.asarray(known[number])
            if found.loop is not None:
                inside = gates(found.loop, [known[take] for take in found.loop.takes])
                before = list(self._made.values)
                for gate, given in inside.items():
                    visit(Seen(at, np.asarray(given), -1, gate))
                if any(one is not two for one, two in zip(before, self._made.values, strict=True)):
                    raise _AgainError
                return
            units = axis_of(found.units, values.ndim)
            correction = visit(Seen(at, values, units))
            if correction is not None:
                known[number] = _corrected(known[number], correction, units)  # type: ignore[index]
                if later & set(found.parameters):
                    raise _AgainError

        try:
            self._audit.run.forward((*self._made.values, *self._audit.arrays), see)
        except _AgainError:
            return False
        return True

    def read(self, path: str) -> Array:
        return np.array(self._made.values[self._at[path]])

    def write(self, path: str, values: Array) -> None:
        at = self._at[path]
        old = self._made.values[at]
        self._made.values[at] = jax.device_put(jnp.asarray(values, old.dtype), old.sharding)
        if self._in_place:
            self._made.described.slots[path][0].value.set_value(self._made.values[at])


def _corrected(values: Any, correction: Correction, units: int) -> Any:
    for part, change in ((correction.scale, jnp.multiply), (correction.shift, jnp.add)):
        side = [1] * values.ndim
        if np.size(part) > 1:
            side[units] = -1
        values = change(values, jnp.asarray(part, values.dtype).reshape(side))
    return values
