"""Tensors that a parametrization computes from others: set by right_inverse, tried on a copy first."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList

from fanin.errors import PlanError
from fanin.streams import fold_seed

ALIKE = 1e-4  # 1 - cosine, from which a parametrization does not hold what it was given


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Let parametrizations compute with copies of their buffers: spectral_norm's move whenever it is used."""
    chains = [each for each in module.modules() if isinstance(each, ParametrizationList)]
    kept = [(step, step._buffers) for chain in chains for step in chain.modules()]
    try:
        for step, buffers in kept:
            step._buffers = {
                name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()
            }
        yield
    finally:
        for step, buffers in kept:
            step._buffers = buffers


def tried(chain: Any, value: Tensor, seed: int, name: str, what: str) -> Any:
    """A copy of a ``ParametrizationList`` that holds a value up to a positive factor, on the value's device.

    Raises
    ------
    PlanError
        When there is no right_inverse, it refuses, or something else comes back (an orthogonal matrix in
        place of a normal one); ``what`` was to be held by ``name``.
    """
    kinds = [type(step).__name__ for step in chain]
    without = [type(step).__name__ for step in chain if not hasattr(step, "right_inverse")]
    if without:
        raise PlanError(f"{name!r} is parametrized by {without[0]}, which has no right_inverse to set it by")
    lost = [tensor for tensor in chain.parameters() if tensor.is_meta]
    copied = copy.deepcopy(chain, {id(tensor): with_memory(tensor, value.device) for tensor in lost})
    try:
        hold(copied, value, seed, name)
        with torch.no_grad(), at_rest(copied):
            held = copied()
    except Exception as error:  # other people's code: what it says is passed on
        raise PlanError(f"{name!r}: its parametrization refuses the value: {error}") from error
    if held.is_meta or any(tensor.is_meta for tensor in copied.buffers()):
        raise PlanError(
            f"{name!r} is parametrized by {', '.join(kinds)}, which has lost its buffers on the meta device; "
            f"parametrize the model after initializing it"
        )
    if not _alike(value, held):
        raise PlanError(f"{name!r} is parametrized by {', '.join(kinds)}, which cannot hold {what}")
    return copied


def hold(chain: Any, value: Tensor, seed: int, name: str) -> None:
    """Set what a value is computed from, in place, and what goes with it."""
    with torch.no_grad(), _generator(fold_seed(f"{seed} {name}".encode(), "parametrization"), value.device):
        chain.right_inverse(value)
        numbers = [""] if chain.is_tensor else range(chain.ntensors)
        inputs = [getattr(chain, f"original{number}") for number in numbers]
        for step in chain:
            if isinstance(step, _SpectralNorm) and value.dim() > 1:
                _follow(step, *inputs)
            elif step is not chain[-1]:
                inputs = [step(*inputs)]


def take(chain: Any, copied: Any) -> None:
    """Let a parametrization without memory have the tensors of its copy."""
    for mine, its in zip(chain.modules(), copied.modules(), strict=True):
        mine._parameters.update(its._parameters)
        mine._buffers.update(its._buffers)


def with_memory(parameter: Tensor, device: Any) -> nn.Parameter:
    """A parameter of the same class, with the same attributes, that has memory."""
    memory = torch.empty_like(parameter, device=device, requires_grad=False)
    new = torch.Tensor._make_subclass(type(parameter), memory, parameter.requires_grad)
    vars(new).update(vars(parameter))
    return new  # type: ignore[return-value]


def _follow(step: Any, weight: Tensor) -> None:
    """Singular vectors of the new weight: with those of the old one its norm could be negative.

    In float64, and rounded, so that the order in which a library sums does not show.
    """
    fresh: Any = _SpectralNorm(weight.double(), step.n_power_iterations, step.dim, step.eps)
    for name, vector in fresh.named_buffers():
        mine = getattr(step, name)
        if mine.is_meta:
            setattr(step, name, vector.to(mine.dtype))
        else:
            mine.copy_(vector)


@contextmanager
def _generator(seed: int, device: torch.device) -> Iterator[None]:
    """PyTorch's generator, told by a seed: orthogonal completes a tall matrix by chance."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        generator = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
        generator.manual_seed(seed)
        yield


def _alike(wanted: Tensor, held: Tensor) -> bool:
    """Whether two tensors differ by a positive factor and rounding."""
    if not wanted.any():
        return not held.any()
    cosine = nn.functional.cosine_similarity(wanted.flatten().double(), held.flatten().double(), dim=0)
    return bool(cosine > 1 - ALIKE)  # false for NaN
