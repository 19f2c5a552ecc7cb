"""From a module and one batch to a `fanin.audit.trace.Trace`."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree

from fanin._types import Array
from fanin.audit import measure, updates
from fanin.audit.drafts import BATCH, COTANGENTS, JACOBIAN, descent, may_be_tied, said
from fanin.audit.trace import Trace, Weights
from fanin.errors import FaninError, TraceError
from fanin.torch._audit_record import Recorder, is_signal, numbers, signal, tensors
from fanin.torch._audit_state import as_trained, moved
from fanin.torch._parametrized import at_rest
from fanin.torch._tensors import check
from fanin.torch._walk import Described, describe
from fanin.torch._wrappers import unwrapped

Loss: TypeAlias = Callable[[Any, Any], Tensor]
Gradients: TypeAlias = dict[int, Tensor]  # by the identity of what they are gradients of


def traced(
    model: nn.Module,
    batch: Any,
    loss: Loss | None,
    optimizer: torch.optim.Optimizer | str | None,
    seed: int,
    isometry: bool,
) -> Trace:
    """See `fanin.torch.trace`."""
    if isinstance(optimizer, str):
        updates.parse(optimizer)  # before anything runs
    elif not isinstance(optimizer, torch.optim.Optimizer | None):
        raise TraceError(
            f"`optimizer` must be a torch.optim.Optimizer or text such as 'adam 0.001', got "
            f"{type(optimizer).__name__}"
        )
    described = _described(model)
    with at_rest(model), as_trained(unwrapped(model), seed):
        run = Run(unwrapped(model), described, batch, loss, seed)
        run.forward()
        singular_values = run.singular_values() if isometry else ()
        gradients = run.backward()
        weights = run.weights([gradients], optimizer)
        if may_be_tied(weights):
            weights = run.weights([gradients, run.after_a_step(gradients)], optimizer)
    return Trace(
        framework="torch",
        weights=weights,
        operations=tuple(draft.finished() for draft in run.recorder.drafts),
        batch=tuple(signal(leaf) for leaf in run.batch_leaves),
        outputs=run.outputs,
        loss=run.loss,
        blind_loss=run.blind_loss,
        singular_values=singular_values,
        optimizer=optimizer_name(optimizer),
    )


# --- what cannot be traced -----------------------------------------------------------------------


def _described(model: nn.Module) -> Described:
    if not isinstance(model, nn.Module):
        raise TraceError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            raise TraceError(
                f"{name!r} is sharded over {parameter.device_mesh.size()} ranks; audit the model in one "
                f"process, before it is sharded"
            )
    try:
        described = describe(model)
        for slots in described.slots.values():
            if slots[0].parametrization is None:
                check(slots[0].value, slots[0].name, allow_empty=True)
    except FaninError as error:
        raise TraceError(str(error)) from error
    if not described.slots:
        raise TraceError("`model` has no parameters, so there is nothing to audit")
    for name, buffer in model.named_buffers():
        if buffer.is_meta:
            raise TraceError(
                f"{name!r} is on the meta device and holds no values; give the model memory first"
            )
    return described


# --- the batch -----------------------------------------------------------------------------------


def _as_tensors(batch: Any, like: Tensor) -> Any:
    """The batch, NumPy arrays made tensors: floating ones of the model's dtype."""

    def made(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        tensor = torch.from_numpy(np.ascontiguousarray(value)).to(like.device)
        return tensor.to(like.dtype) if tensor.is_floating_point() else tensor

    if isinstance(batch, Mapping):
        return {key: _pytree.tree_map(made, value) for key, value in batch.items()}
    if isinstance(batch, Tensor | np.ndarray | tuple):
        return _pytree.tree_map(made, batch)
    raise TraceError(
        f"`batch` must be a tensor or array, a tuple of positional arguments or a mapping of keyword "
        f"arguments, got {type(batch).__name__}"
    )


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    several = isinstance(batch, tuple) and not isinstance(batch, PackedSequence)
    return (batch if several else (batch,)), {}


def _shapes(batch: Any) -> str:
    args, kwargs = _arguments(batch)
    given = [*((None, each) for each in args), *kwargs.items()]
    words = []
    for key, value in given:
        shown = [f"{str(each.dtype).removeprefix('torch.')}{list(each.shape)}" for each in tensors(value)]
        words.append((f"{key}=" if key else "") + (", ".join(shown) or type(value).__name__))
    return ", ".join(words) or "empty"


def main_output(output: Any) -> Tensor:
    """The tensor, its ``logits``, or the first floating point tensor that is no loss."""
    found = output if isinstance(output, Tensor) else _named(output, "logits")
    if not isinstance(found, Tensor):
        loss = _named(output, "loss")
        floating = [each for each in tensors(output) if each.is_floating_point() or each.is_complex()]
        found = next((each for each in floating if each is not loss), None)
    if found is None or not (found.is_floating_point() or found.is_complex()):
        what = found.dtype if found is not None else type(output).__name__
        raise TraceError(f"the model's output holds no floating point tensor, but {what}")
    return found


def _named(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


# --- forward and backward ------------------------------------------------------------------------


class Run:
    """One model on one batch: its graph, and what it gave."""

    def __init__(
        self, model: nn.Module, described: Described, batch: Any, loss: Loss | None, seed: int
    ) -> None:
        self.model, self.described, self.seed = model, described, seed
        self.loss: float | None = None
        self.blind_loss: float | None = None
        self.outputs: tuple[int, ...] = ()
        self._loss = loss
        self._leaves = [each for each in model.parameters() if each.is_floating_point()]
        self.batch = _as_tensors(batch, self._leaves[0])
        self.batch_leaves: list[Tensor] = []
        names = self._names()
        self.recorder = Recorder(self._modules(), names)
        self._fed = _pytree.tree_map(self._leaf, self.batch)
        names.update({id(leaf): () for leaf in self.batch_leaves})
        self._targets: list[Tensor] = []  # all leaves, and what parametrizations made of some

    def _names(self) -> dict[int, tuple[str, ...]]:
        """The parameters in each leaf of autograd's graph."""
        names: dict[int, tuple[str, ...]] = {}
        for stored in self.described.model.tensors:
            held = tuple(member.name for piece in stored.pieces for member in piece.members(stored.shape))
            for slot in self.described.slots[stored.path]:
                chain = slot.parametrization
                for leaf in [slot.value] if chain is None else chain.parameters():
                    names[id(leaf)] = held
        return names

    def _modules(self) -> dict[int, str]:
        modules: dict[int, str] = {}
        for place in self.described.places:
            modules.setdefault(id(place.module), place.name.removesuffix("."))
        return modules

    def _leaf(self, value: Any) -> Any:
        """A copy of a tensor, of floating point ones a leaf: the batch is the caller's."""
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            value = value.detach().clone().requires_grad_(True)
            self.batch_leaves.append(value)
        return value

    def _forward(self) -> Any:
        """The model's output. Everything in the batch is copied, for models that write into it."""
        torch.manual_seed(self.seed)
        args, kwargs = _arguments(_pytree.tree_map(_cloned, self._fed))
        try:
            return self.model(*args, **kwargs)
        except Exception as error:  # the user's code: what it says is passed on, with the place
            raise TraceError(
                f"forward raised in {self._place()}: {said(error)}; the batch was {_shapes(self.batch)}"
            ) from error

    def _place(self) -> str:
        module = self.recorder.module
        kind = type(self.model if module is None else module).__name__
        return f"{self.recorder.place!r} ({kind})" if self.recorder.place else f"the model ({kind})"

    def forward(self) -> None:
        """Run it, measuring every step, and keep autograd's graph."""
        with parametrize.cached():
            with self.recorder.recording():
                output = self._forward()
            self._main = self._checked(main_output(output))
            self._value = self._loss_of(output)
            self._targets = self._parameters()
        self.outputs = tuple(at for at in self.recorder.sources([self._main]).operations if at != BATCH)
        if self._value is not None:
            self.loss = float(self._value.detach())
            self.blind_loss = self._blind(output)

    def backward(self) -> Gradients:
        """Go back, measuring every step; the parameters' gradients, by the loss if there is one.

        Their pass is the last, as the graph can go while they are made.
        """
        some, value = self._beginnings(), self._value
        self.recorder.way = "backward"
        for at in range(1 if value is None else 0, COTANGENTS):
            self._gradients(self._main, self._cotangent(at), some)
        self.recorder.forget()
        if value is None:
            found = self._gradients(self._main, self._cotangent(0), self._targets, last=True)
        else:
            self.recorder.way = "loss"
            found = self._gradients(value, None, self._targets, last=True)
        self.recorder.way = None
        del self._main, self._value
        return found

    def _checked(self, main: Tensor) -> Tensor:
        if not is_signal(main):
            raise TraceError(
                "the model's output has no gradient: it depends on no parameter, or forward runs under "
                "torch.no_grad or torch.inference_mode"
            )
        if main.numel() == 0:
            raise TraceError(
                f"the model's output is empty, shape {tuple(main.shape)}; the batch was {_shapes(self.batch)}"
            )
        return main

    def _parameters(self) -> list[Tensor]:
        """What is stored, and what parametrizations computed of it in this run."""
        computed = [
            getattr(slots[0].module, slots[0].attribute)
            for slots in self.described.slots.values()
            if slots[0].parametrization is not None
        ]
        return [*self._leaves, *computed]

    def _beginnings(self) -> list[Tensor]:
        """Leaves enough for every operation to get its gradient, and no other parameter's to be computed."""
        first = [each.sources for each in self.recorder.drafts if set(each.sources.operations) <= {BATCH}]
        names = {name for sources in first if not sources.operations for name in sources.parameters}
        tables = [leaf for leaf in self._leaves if names & set(self.recorder.names(leaf))]
        return [*self.batch_leaves, *tables] or self._targets

    def _cotangent(self, at: int) -> Tensor:
        """A standard normal gradient of the output, from a stream of NumPy's, so that reports repeat."""
        main = self._main
        size = (*main.shape, 2) if main.is_complex() else tuple(main.shape)
        drawn = torch.from_numpy(np.random.default_rng([self.seed, at]).standard_normal(size, np.float32))
        drawn = drawn.to(main.device)
        return (torch.view_as_complex(drawn) if main.is_complex() else drawn).to(main.dtype)

    def _gradients(
        self, output: Tensor, cotangent: Tensor | None, wanted: Sequence[Tensor], *, last: bool = False
    ) -> Gradients:
        wanted = [tensor for tensor in wanted if tensor.requires_grad]
        try:
            found = torch.autograd.grad(output, wanted, cotangent, retain_graph=not last, allow_unused=True)
        except Exception as error:  # custom functions and in-place changes: what is said is passed on
            raise TraceError(f"backward raised: {said(error)}") from error
        pairs = zip(wanted, found, strict=True)
        return {id(tensor): gradient for tensor, gradient in pairs if gradient is not None}

    # --- loss ------------------------------------------------------------------------------------

    def _loss_of(self, output: Any) -> Tensor | None:
        """The loss; that of the output itself (labels were in the batch) where none is given."""
        if self._loss is None:
            own = None if isinstance(output, Tensor) else _named(output, "loss")
            return own if isinstance(own, Tensor) and own.numel() == 1 and is_signal(own) else None
        try:
            value = self._loss(output, self.batch)
        except Exception as error:
            raise TraceError(f"`loss` raised: {said(error)}; the batch was {_shapes(self.batch)}") from error
        if not isinstance(value, Tensor) or value.numel() != 1 or not is_signal(value):
            shown = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TraceError(f"`loss` must return one number with a gradient, a scalar tensor, got {shown}")
        return value.reshape(())

    def _blind(self, output: Any) -> float | None:
        """The loss of outputs that are all zero; None of one that refuses them."""
        if self._loss is None:
            return None
        try:
            with torch.no_grad():
                return float(self._loss(_pytree.tree_map(_zeroed, output), self.batch))
        except Exception:  # the user's code, asked for more than it was written for
            return None

    # --- after the first run ---------------------------------------------------------------------

    def singular_values(self) -> tuple[float, ...]:
        """Of the Jacobian of one example's output by its input."""
        if not self.batch_leaves:
            raise TraceError("`isometry` takes derivatives by the batch, which has no floating point array")
        one = self._main[0].flatten() if self._main.dim() else self._main.reshape(1)
        if len(one) > JACOBIAN:
            raise TraceError(
                f"`isometry` takes at most {JACOBIAN} outputs, one example of this model has {len(one)}"
            )
        rows = [
            self._gradients(value, None, self.batch_leaves[:1]).get(id(self.batch_leaves[0])) for value in one
        ]
        if any(row is None for row in rows):
            return (0.0,) * len(rows)
        jacobian = torch.stack([row[0].flatten().double() for row in rows if row is not None])
        return tuple(torch.linalg.svdvals(jacobian).tolist())

    def after_a_step(self, gradients: Gradients) -> Gradients:
        """The parameters' gradients when each has made a small step of plain descent."""
        steps = {
            leaf: _step(leaf, gradients[id(leaf)])
            for leaf in self._leaves
            if id(leaf) in gradients and gradients[id(leaf)].any() and gradients[id(leaf)].isfinite().all()
        }
        before = self._targets
        with moved(steps), parametrize.cached():
            output = self._forward()
            loss, after = self._loss_of(output), self._parameters()
            if loss is not None:
                found = self._gradients(loss, None, after, last=True)
            else:
                self._main = self._checked(main_output(output))
                found = self._gradients(self._main, self._cotangent(0), after, last=True)
                del self._main
        return {id(was): found[id(now)] for was, now in zip(before, after, strict=True) if id(now) in found}

    def weights(
        self, gradients: Sequence[Gradients], optimizer: torch.optim.Optimizer | str | None
    ) -> tuple[Weights, ...]:
        slots = {path: several[0] for path, several in self.described.slots.items()}
        computed = [path for path, slot in slots.items() if slot.parametrization is not None]
        targets = {path: slot.value for path, slot in slots.items() if path not in computed}
        targets |= zip(computed, self._targets[len(self._leaves) :], strict=True)

        def read(path: str) -> Array:
            return numbers(slots[path].value)

        def reader(found: Gradients) -> Callable[[str], Array | None]:
            def gradient(path: str) -> Array:
                value = found.get(id(targets[path]))
                return numbers(torch.zeros_like(targets[path]) if value is None else value)

            return gradient

        step, changes = None, None
        if isinstance(optimizer, str):
            step = updates.stepper(optimizer)
        elif optimizer is not None:
            changed = first_step(optimizer, gradients[0])

            def changes(path: str) -> Array | None:
                change = changed.get(id(targets[path]))
                return None if change is None else numbers(change)

        readers = [reader(each) for each in gradients]
        return tuple(measure.weights(self.described.model, read, readers, step, changes))


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _zeroed(value: Any) -> Any:
    floating = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    return torch.zeros_like(value) if floating else value


def _step(leaf: Tensor, gradient: Tensor) -> Tensor:
    return gradient * descent(_rms(leaf.detach()), _rms(gradient))


def _rms(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) / math.sqrt(max(values.numel(), 1))


# --- the optimizer -------------------------------------------------------------------------------


def first_step(optimizer: torch.optim.Optimizer, gradients: Gradients) -> Gradients:
    """What an optimizer would add to its parameters: a copy of it steps, on copies."""
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(id(parameter) in gradients for parameter in own):
        raise TraceError("`optimizer` has none of the model's parameters; make it for this model")
    try:
        copied = copy.deepcopy(optimizer)
        copies = [parameter for group in copied.param_groups for parameter in group["params"]]
        for parameter, mine in zip(own, copies, strict=True):
            gradient = gradients.get(id(parameter))
            mine.grad = None if gradient is None else gradient.to(mine.dtype, copy=True)
        copied.step()
    except Exception as error:
        raise TraceError(f"`optimizer` raised at its first step: {said(error)}") from error
    return {id(was): now.detach() - was.detach() for was, now in zip(own, copies, strict=True)}


def optimizer_name(optimizer: torch.optim.Optimizer | str | None) -> str:
    if optimizer is None or isinstance(optimizer, str):
        return optimizer or ""
    return f"{type(optimizer).__name__.lower()} {optimizer.defaults.get('lr', '')}".strip()
