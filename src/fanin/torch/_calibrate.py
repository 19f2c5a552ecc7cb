"""A module and a batch as `fanin.calibrate` sees them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fanin._types import Array
from fanin.audit.drafts import NOTHING, Draft
from fanin.audit.trace import Trace
from fanin.calibrate.engine import Correction, Seen, Visit
from fanin.calibrate.example import entries, features, unknown
from fanin.errors import CalibrationError, TraceError
from fanin.model import Model
from fanin.torch._audit import Run, _described
from fanin.torch._audit_gates import gates
from fanin.torch._audit_record import Recorder, is_signal, numbers, signal, tensors
from fanin.torch._audit_state import as_trained
from fanin.torch._parametrized import at_rest, hold, tried
from fanin.torch._tensors import as_array
from fanin.torch._wrappers import unwrapped


class Engine:
    """See `fanin.calibrate.Engine`. Each run leaves mode, buffers, gradients and generators as they were."""

    def __init__(self, module: nn.Module, batch: Any, seed: int) -> None:
        self._module, self._seed = module, seed
        self._described = _described(module)
        self._batch = batch

    @property
    def model(self) -> Model:
        return self._described.model

    @contextmanager
    def _running(self) -> Iterator[Run]:
        with at_rest(self._module), as_trained(unwrapped(self._module), self._seed):
            yield Run(unwrapped(self._module), self._described, self._batch, None, self._seed)

    def trace(self, *, gradients: bool = False) -> Trace:
        with self._running() as run:
            run.forward()
            found = [run.backward()] if gradients else []
            weights = run.weights(found, None)
        return Trace(
            framework="torch",
            weights=weights,
            operations=tuple(draft.finished() for draft in run.recorder.drafts),
            batch=tuple(signal(leaf) for leaf in run.batch_leaves),
            outputs=run.outputs,
        )

    def forward(self, visit: Visit) -> None:
        with self._running() as run:
            run.recorder = Showing(run.recorder, visit)
            try:
                run.forward()
            except TraceError as error:  # of the model; what a method says is no error of the model's
                if isinstance(error.__cause__, CalibrationError):
                    raise error.__cause__ from None
                raise

    def read(self, path: str) -> Array:
        with at_rest(self._module):
            return numbers(self._described.slots[path][0].value).copy()

    def write(self, path: str, values: Array) -> None:
        slot = self._described.slots[path][0]
        with torch.no_grad(), at_rest(self._module):
            target = slot.value
            new = torch.empty(target.shape, dtype=target.dtype)
            as_array(new)[...] = values
            if slot.parametrization is None:
                target.copy_(new)
            else:
                new = new.to(target.device)
                tried(slot.parametrization, new, self._seed, slot.name, "the calibrated values")
                hold(slot.parametrization, new, self._seed, slot.name)


def example(module: nn.Module) -> Tensor:
    """A batch for a model that begins with a linear layer or an embedding."""
    first = next((each for each in module.modules() if next(each.children(), None) is None), module)
    if isinstance(first, nn.Linear):
        return torch.from_numpy(features([first.in_features])).to(first.weight)
    if isinstance(first, nn.Embedding):
        return torch.from_numpy(entries(first.num_embeddings)).to(first.weight.device)
    raise unknown(type(first).__name__)


class Showing(Recorder):
    """Shows each output as it is made, before anything uses it; measures none."""

    def __init__(self, like: Recorder, visit: Visit) -> None:
        super().__init__(like._modules, like._leaves)
        self._visit = visit

    def _made(self, draft: Draft, output: Any) -> None:
        at = len(self.drafts)
        super()._made(draft, output)
        if len(self.drafts) == at or draft.kind == "recurrent":
            return
        tensor = next(each for each in tensors(output) if is_signal(each))
        correction = self._visit(Seen(at, numbers(tensor), draft.units))
        if correction is not None:
            _correct(tensor, correction, draft.units)

    def _measure(self, draft: Draft, output: Tensor) -> None:
        draft.after = replace(NOTHING, shape=tuple(output.shape))  # by which later axes are told

    def _look_at_inputs(self, draft: Draft, signals: list[Tensor], activation: str | None) -> None:
        draft.units = self._axis(draft, signals)

    def _module_draft(self, module: nn.Module, name: str, kind: str, arguments: Any, *rest: Any) -> Draft:
        if kind == "recurrent":
            for gate in gates(module, arguments):
                values = gates(module, arguments)[gate]  # once more: what is shown first may change the next
                self._visit(Seen(len(self.drafts), numbers(values), -1, gate))
        return super()._module_draft(module, name, kind, arguments, *rest)


def _correct(tensor: Tensor, correction: Correction, units: int) -> None:
    with torch.no_grad():
        values = tensor.detach()
        for part, change in ((correction.scale, values.mul_), (correction.shift, values.add_)):
            side = [1] * values.dim()
            if np.size(part) > 1:
                side[units] = -1
            change(torch.as_tensor(np.asarray(part), dtype=values.dtype, device=values.device).reshape(side))
