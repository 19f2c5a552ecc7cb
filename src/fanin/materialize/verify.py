"""A checkpoint against its plan: every value made again and compared, bit for bit."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fanin._types import Array, Window
from fanin.checkpoints import tensors_of
from fanin.checkpoints.safetensors import CODES, numbers
from fanin.dtypes import as_dtype
from fanin.layout import moved, windows
from fanin.plan import Plan

ELEMENTS = 1 << 22  # compared at once


@dataclass(frozen=True)
class Mismatch:
    """The first element of a tensor that is not what the plan makes, or what is wrong with it altogether."""

    path: str
    what: str
    index: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return f"{self.path}{'' if self.index is None else list(self.index)}: {self.what}"


def verify(
    plan: Plan, place: str | Path, *, on_progress: Callable[[int, int], None] | None = None
) -> list[Mismatch]:
    """Where a checkpoint differs from its plan, one finding for each tensor; nothing if it is the same.

    Parameters
    ----------
    plan : Plan
        What it should hold.
    place : path
        A folder of safetensors files, an index, or a file.
    on_progress : callable, optional
        ``on_progress(elements done, elements in all)``.

    Raises
    ------
    CheckpointError
        When a file is missing, truncated or damaged in its header.
    """
    stored = tensors_of(place)
    found = [
        Mismatch(path, "not in the plan") for path in sorted(set(stored) - {t.path for t in plan.tensors})
    ]
    total, done = sum(math.prod(tensor.shape) for tensor in plan.tensors), 0
    for tensor in plan.tensors:
        if tensor.path not in stored:
            found.append(Mismatch(tensor.path, "not in the checkpoint"))
            continue
        file, entry = stored[tensor.path]
        if (entry.shape, entry.dtype) != (tensor.shape, CODES.get(tensor.dtype)):
            found.append(
                Mismatch(
                    tensor.path,
                    f"{entry.dtype} {entry.shape}, planned {CODES.get(tensor.dtype)} {tensor.shape}",
                )
            )
            continue
        if plan.sets(tensor.path):
            held = numbers(file, entry)
            whole = tuple(slice(0, size) for size in tensor.shape)
            found += first_difference(plan, tensor.path, whole, held.__getitem__)
        done += math.prod(tensor.shape)
        if on_progress is not None:
            on_progress(done, total)
    return found


def first_difference(
    plan: Plan, path: str, window: Window, held: Callable[[Window], Array]
) -> Iterator[Mismatch]:
    """The first element of a window of a stored tensor that differs from the plan's, if one does.

    ``held(part)`` gives the values of a part of the window, in its own coordinates. What the plan keeps is
    not compared.
    """
    tensor = plan.tensor(path)
    shape = tuple(part.stop - part.start for part in window)
    bits = np.dtype(f"u{as_dtype(tensor.dtype).itemsize}")
    for inner in windows(shape, max(1, math.prod(shape)) if plan.coupled(path) else ELEMENTS):
        place: Any = (..., *inner)
        values = np.array(held(place), order="C")
        made = plan.fill(path, window=moved(window, inner), out=values.copy())
        wrong = np.atleast_1d(made.view(bits) != values.view(bits))
        if wrong.any():
            at = tuple(int(axis[0]) for axis in np.nonzero(wrong))[: made.ndim]
            index = tuple(
                where + part.start + outer.start for where, part, outer in zip(at, inner, window, strict=True)
            )
            yield Mismatch(path, f"{values[at]}, planned {made[at]}", index)
            return
