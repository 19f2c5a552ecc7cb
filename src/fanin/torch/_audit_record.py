"""Recording one forward pass: every function that makes a signal is an operation, measured at once.

Where a signal came from is asked of autograd's graph. It knows views, casts, in-place functions and masks
already: what leads from one recorded node to the next without another between them is an edge. So nothing is
kept of a tensor but the graph that its gradient needs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.overrides import TorchFunctionMode

from fanin._types import Array
from fanin.audit import measure
from fanin.audit.drafts import BATCH, Draft, Sources
from fanin.audit.functions import KINDS, LOOKUPS, VIEWS, kind_of
from fanin.audit.trace import Signal
from fanin.torch import _audit_kinds as kinds
from fanin.torch._activations import activation_name
from fanin.torch._audit_gates import gates, scores
from fanin.torch._tensors import as_array

WEIGHT = "torch::autograd::AccumulateGrad"  # the node of a leaf


@dataclass
class Frame:
    """A module that is running; with a draft if it is one operation, whatever is inside."""

    module: nn.Module
    name: str
    draft: Draft | None = None
    whole: bool = False


class Recorder(TorchFunctionMode):
    """Records operations while it is entered, and measures gradients whenever ``way`` says which they are.

    Parameters
    ----------
    modules : mapping
        {identity of a module: its canonical name}.
    leaves : mapping
        {identity of a tensor that begins a graph: the names of the parameters in it}; none of the batch's.
    """

    def __init__(self, modules: Mapping[int, str], leaves: Mapping[int, tuple[str, ...]]) -> None:
        super().__init__()
        self.drafts: list[Draft] = []
        self.way: str | None = None
        self._modules, self._leaves = modules, leaves
        self._nodes: dict[Any, int] = {}  # autograd's nodes, and the operations that made them
        self._frames: list[Frame] = []
        self._calls: Counter[str] = Counter()
        self._inside = 0  # how many modules that are one operation are running

    def names(self, leaf: Tensor) -> tuple[str, ...]:
        """The parameters in a leaf of the graph."""
        return self._leaves.get(id(leaf), ())

    def forget(self) -> None:
        """Where signals came from: without its nodes here, the graph goes when its gradients are taken."""
        self._nodes.clear()

    @property
    def module(self) -> nn.Module | None:
        """The innermost module that is running, or was when an error was raised."""
        return self._frames[-1].module if self._frames else None

    @property
    def place(self) -> str:
        """Its canonical name."""
        return self._frames[-1].name if self._frames else ""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what runs inside. Hooks are global, so that no module has one of ours."""
        with ExitStack() as stack:
            handles = (
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave),
            )
            for handle in handles:
                stack.callback(handle.remove)
            stack.enter_context(self)
            yield

    # --- modules ---------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        frame = Frame(module, self._modules.get(id(module), self.place))
        kind = None if self._inside else kinds.whole(module)
        if kind is not None:
            signals = [each for each in tensors(arguments) if is_signal(each)]
            own = [name for each in module.parameters() for name in self._leaves.get(id(each), ())]
            if signals or own:
                frame.draft = self._module_draft(module, frame.name, kind, arguments, signals, own)
            frame.whole = True
            self._inside += 1
        self._frames.append(frame)

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        while self._frames and self._frames[-1].module is not module:
            self._drop()  # its error was caught by the model
        frame = self._frames[-1]
        self._drop()
        if frame.draft is not None:
            self._made(frame.draft, output)

    def _drop(self) -> None:
        self._inside -= self._frames.pop().whole

    def _module_draft(
        self, module: nn.Module, name: str, kind: str, arguments: Any, signals: list[Tensor], own: list[str]
    ) -> Draft:
        sources = self.sources(signals)
        names = tuple(dict.fromkeys((*own, *sources.parameters)))
        draft = Draft(
            name or "model",
            kind,
            type_before_parametrizations(module).__name__,
            Sources(sources.operations, names),
        )
        self._look_at_inputs(draft, signals, activation_name(module) if kind == "activation" else None)
        if kind == "recurrent":
            draft.gates = {gate: signal(values) for gate, values in gates(module, arguments).items()}
        return draft

    # --- functions -------------------------------------------------------------------------------

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        draft = None if self._inside else self._function_draft(function, args, kwargs)
        result = function(*args, **kwargs)
        if draft is not None:
            self._made(draft, result)
        return result

    def _function_draft(self, function: Any, args: Any, kwargs: Any) -> Draft | None:
        name = kinds.plain_name(function)
        if name in VIEWS and not _is_lookup(name, args):
            return None
        given = [each for each in tensors((args, kwargs)) if each.is_floating_point() or each.is_complex()]
        signals = [each for each in given if is_signal(each)]
        if not signals or not torch.is_grad_enabled():
            return None
        sources = self.sources(signals)
        if not sources.operations and not _is_lookup(name, args):
            return None  # made of parameters alone: a parameter still
        constants = len([each for each in args if isinstance(each, int | float)])
        constants += len([each for each in given if each.numel() == 1 and not is_signal(each)])
        origins = len(sources.operations) + len(sources.parameters)
        kind = "embedding" if name in VIEWS else kind_of(name, len(signals), origins, constants)
        if kind is None:
            return None
        if kind == "matmul" and any(not self.sources([each]).operations for each in signals):
            kind = "dense"
        draft = self._named(name, kind, sources)
        activation = kinds.activation_of(name, args, kwargs) if kind == "activation" else None
        self._look_at_inputs(draft, signals, "softmax" if kind == "softmax" else activation)
        if name == "scaled_dot_product_attention":
            draft.saturated = measure.saturated("softmax", numbers(scores(*args, **kwargs)))
        if name in kinds.CHANNELS_FIRST:
            draft.units = 1
        return draft

    def _named(self, name: str, kind: str, sources: Sources) -> Draft:
        """A module that is one function, or the one that uses its parameters, gives it its name."""
        frame = self._frames[-1] if self._frames else None
        if frame is not None and kinds.is_childless(frame.module):
            own = {each for leaf in frame.module.parameters() for each in self._leaves.get(id(leaf), ())}
            if kinds.is_torchs(frame.module) or own & set(sources.parameters):
                layer = type_before_parametrizations(frame.module).__name__
                return Draft(frame.name or "model", kind, layer, sources)
        return Draft(f"{self.place}:{name}", kind, name, sources)

    # --- both ------------------------------------------------------------------------------------

    def _look_at_inputs(self, draft: Draft, signals: list[Tensor], activation: str | None) -> None:
        """What only shows before the function runs, for it may write over its input."""
        draft.units = self._axis(draft, signals)
        if BATCH in draft.sources.operations:
            first = next(each for each in signals if BATCH in self.sources([each]).operations)
            draft.before = signal(first, draft.units)
        if activation is None:
            return
        values = numbers(signals[0])
        draft.saturated = measure.saturated(activation, values)
        if activation != "softmax":
            draft.activation = activation
            draft.linear = measure.linear(activation, values, draft.units)

    def _axis(self, draft: Draft, signals: list[Tensor]) -> int:
        """The axis of its features: a convolution's is the first after the batch, and most others keep it."""
        if draft.kind == "conv":
            return 1
        if draft.kind in kinds.FEATURES_LAST or not signals:
            return -1
        above = [at for at in draft.sources.operations if at != BATCH]
        if not above:
            return 1 if signals[0].dim() > 3 else -1
        same = self.drafts[above[0]]
        rank = len(same.after.shape)
        return same.units if rank == signals[0].dim() or (draft.kind == "pool" and rank > 2) else -1

    def _made(self, draft: Draft, output: Any) -> None:
        """Note an operation, its output measured."""
        made = [each for each in tensors(output) if is_signal(each) and each.grad_fn not in self._nodes]
        if not made or made[0].numel() == 0 or made[0].grad_fn is None:
            return
        self._calls[draft.name] += 1
        if self._calls[draft.name] > 1:
            draft.name += f"#{self._calls[draft.name]}"
        at = len(self.drafts)
        self.drafts.append(draft)
        self._nodes.update((each.grad_fn, at) for each in made)
        self._measure(draft, made[0])

    def _measure(self, draft: Draft, output: Tensor) -> None:
        """Measure an output, and let autograd tell of its gradient.

        The hook is on the value as it is now: a function that writes over it later has a gradient of its own.
        """
        draft.made(numbers(output))
        output.register_hook(self._gradient_hook(draft))  # type: ignore[no-untyped-call]

    def _gradient_hook(self, draft: Draft) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if self.way is not None:
                draft.came_back(self.way, numbers(gradient))

        return hook

    def sources(self, signals: list[Tensor]) -> Sources:
        """The operations and parameters that tensors were made of, in order, none behind another."""
        operations: dict[int, None] = {}
        parameters: dict[str, None] = {}
        for tensor in signals:
            if tensor.grad_fn is None:
                self._leaf(tensor, operations, parameters)
            waiting: list[Any] = [tensor.grad_fn]
            seen = set()
            while waiting:
                node = waiting.pop()
                if node is None or node in seen:
                    continue
                seen.add(node)
                if node in self._nodes:
                    operations[self._nodes[node]] = None
                elif node.name() == WEIGHT:
                    self._leaf(node.variable, operations, parameters)
                else:
                    waiting += [above for above, _ in reversed(node.next_functions)]
        return Sources(tuple(operations), tuple(parameters))

    def _leaf(self, tensor: Tensor, operations: dict[int, None], parameters: dict[str, None]) -> None:
        if id(tensor) in self._leaves:
            names = self._leaves[id(tensor)]
            parameters.update(dict.fromkeys(names))
            if not names:
                operations[BATCH] = None


def _is_lookup(name: str, args: Any) -> bool:
    """Whether rows of a table, which is a parameter's own, are taken by numbers."""
    if KINDS.get(name) == "embedding":
        return True
    if name not in LOOKUPS or not args or not isinstance(args[0], nn.Parameter):
        return False
    return any(not each.is_floating_point() and each.dim() > 0 for each in tensors(args[1:]))


def is_signal(tensor: Tensor) -> bool:
    return tensor.requires_grad and tensor.layout is torch.strided


def tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors in lists, tuples, mappings and dataclasses, in order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for each in tree.values():
            yield from tensors(each)
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from tensors(each)
    elif is_dataclass(tree) and not isinstance(tree, type):
        yield from tensors(vars(tree))


def signal(tensor: Tensor, units: int = -1) -> Signal:
    return measure.signal(numbers(tensor), units)


def numbers(tensor: Tensor) -> Array:
    """A tensor's values in NumPy; of a complex one its two parts, side by side."""
    plain = tensor.detach().resolve_neg().resolve_conj().cpu()
    return as_array(torch.view_as_real(plain).flatten(-2) if plain.is_complex() else plain)
