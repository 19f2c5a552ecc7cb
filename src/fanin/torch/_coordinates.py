"""The coordinate check of modules: built at several widths, trained for a few steps, measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fanin.audit import CoordinateCheck
from fanin.audit import coordinate_check as check
from fanin.errors import ArgumentError
from fanin.torch._audit import _arguments as arguments
from fanin.torch._audit import _as_tensors as as_tensors
from fanin.torch._calibrate import Engine

KINDS = ("dense", "conv", "recurrent", "attention")


def coordinate_check(
    build: Callable[[int, int], nn.Module],
    batch: Any,
    loss: Callable[[Any, Any], torch.Tensor],
    optimizer: Callable[[nn.Module, int], torch.optim.Optimizer],
    *,
    widths: Sequence[int] = (64, 128, 256, 512, 1024),
    steps: int = 3,
    seeds: int = 1,
) -> CoordinateCheck:
    """Do layers' outputs keep their size as the model gets wider? Slopes by layer, and a verdict.

    Models are built at each width, trained for a few steps on one batch, and traced.

    Parameters
    ----------
    build : callable
        From a width and a seed to a model with its initial weights.
    batch, loss
        As for `audit`: ``loss(output, batch)`` is a number.
    optimizer : callable
        From a model and its width to its optimizer: learning rates by width are what is checked.
    widths : sequence of int
        Two or more.
    steps : int
        Of training, before sizes are measured.
    seeds : int
        Sizes are means over seeds 0 to ``seeds - 1``.

    Returns
    -------
    fanin.audit.CoordinateCheck
        ``verdict``, ``ok``, ``layers``; print it for the table.

    Raises
    ------
    ArgumentError
        As `fanin.audit.coordinate_check`. An output layer that starts at zero has size 0 before it learns.

    Examples
    --------
    >>> from fanin.torch import initialize
    >>> def build(width, seed):
    ...     model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))
    ...     initialize(model, "he_normal", seed=seed)
    ...     return model
    >>> def adam(model, width):
    ...     return torch.optim.Adam(model.parameters(), 0.01)
    >>> x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    >>> found = coordinate_check(build, x, lambda y, x: (y - 1).square().mean(), adam, widths=[64, 512, 4096])
    >>> found.verdict, found.worst.layer
    ('grows', '2')
    """
    if not isinstance(steps, int) or steps < 0:
        raise ArgumentError(f"`steps` must be an integer >= 0, got {steps!r}")

    def measure(width: int, seed: int) -> Mapping[str, float]:
        model = build(width, seed)
        stepper = optimizer(model, width)
        given = as_tensors(batch, next(model.parameters()))
        args, kwargs = arguments(given)
        for _ in range(steps):
            stepper.zero_grad()
            torch.autograd.backward(loss(model(*args, **kwargs), given))
            stepper.step()
        trace = Engine(model, given, seed).trace()
        return {each.name: each.after.rms for each in trace.operations if each.kind in KINDS}

    return check(measure, widths, seeds=seeds)
