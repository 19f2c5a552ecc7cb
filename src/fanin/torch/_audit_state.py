"""A model is audited as it would train, without dropout, and is left exactly as it was."""

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import CheckpointFunction

from fanin.audit.drafts import generators

CONTAINERS = (dict, list, set)
ONE_AT_A_TIME = threading.RLock()  # hooks, generators and the stance are the whole process's


@contextmanager
def as_trained(model: nn.Module, seed: int) -> Iterator[None]:
    """Let a model run as in training, but without dropout: batch norms alone are in training mode.

    Every parameter gets a gradient, frozen ones too. On the way out, also after an error, each module has the
    attributes that it had, its buffers (which were copies meanwhile) and hooks among them, and generators
    their states.
    """
    parameters = [each for each in model.parameters() if each.is_floating_point()]
    with ExitStack() as stack:
        stack.enter_context(ONE_AT_A_TIME)
        stack.enter_context(_generators(parameters, seed))
        stack.enter_context(_attributes(model))
        stack.enter_context(_eager())
        stack.enter_context(_gradients_of(parameters))
        model.eval()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        yield


@contextmanager
def moved(steps: dict[nn.Parameter, torch.Tensor]) -> Iterator[None]:
    """Parameters with something added to them, for a while."""
    kept = {parameter: parameter.detach().clone() for parameter in steps}
    try:
        with torch.no_grad():
            for parameter, step in steps.items():
                parameter.add_(step)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in kept.items():
                parameter.copy_(values)


@contextmanager
def _attributes(model: nn.Module) -> Iterator[None]:
    modules = list(model.modules())
    kept = [(module, dict(vars(module))) for module in modules]
    held = [value for _, attributes in kept for value in attributes.values() if isinstance(value, CONTAINERS)]
    contents = [(container, copy.copy(container)) for container in held]
    copies: dict[int, Any] = {}
    try:
        for module in modules:
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
        yield
    finally:
        for container, content in contents:
            _refill(container, content)
        for module, attributes in kept:
            vars(module).clear()
            vars(module).update(attributes)


def _refill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)


@contextmanager
def _gradients_of(parameters: list[nn.Parameter]) -> Iterator[None]:
    flags = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter, flag in zip(parameters, flags, strict=True):
            parameter.requires_grad_(flag)


@contextmanager
def _generators(parameters: list[nn.Parameter], seed: int) -> Iterator[None]:
    """PyTorch's, NumPy's and Python's: a model may draw from any of them, the global ones too."""
    devices = sorted({each.device.index or 0 for each in parameters if each.device.type == "cuda"})
    with generators(seed), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _eager() -> Iterator[None]:
    """Nothing compiled, and no activations forgotten by functions that refuse ``torch.autograd.grad``."""
    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        setattr(CheckpointFunction, "apply", staticmethod(_at_once))  # noqa: B010 (hides the inherited one)
        stack.callback(delattr, CheckpointFunction, "apply")
        yield


def _at_once(function: Callable[..., Any], preserve_rng_state: bool, *arguments: Any) -> Any:
    return function(*arguments)
