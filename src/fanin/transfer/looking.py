"""What a plan takes from files is read once before anything is changed: what could fail then, fails here."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from fanin import threads
from fanin._types import Window
from fanin.dtypes import as_dtype
from fanin.errors import CheckpointError, FaninError, PlanError
from fanin.layout import moved, windows
from fanin.model import Tensor
from fanin.plan import Plan
from fanin.transfer.pretrained import Pretrained
from fanin.transfer.sources import Source

LOOKED = 1 << 22  # elements of one piece of work

Windows = Callable[[str], Iterable[Window]]


def _takes(plan: Plan, path: str) -> bool:
    """Whether any value of a stored tensor comes from a file."""
    rows = (row.initializer for row, _ in plan.parts(plan.tensor(path)))
    return any(initializer is not None and initializer.filed for initializer in rows)


def look(plan: Plan, places: Windows | None = None) -> None:
    """Read what a plan takes from files, and refuse what it could not write.

    Parameters
    ----------
    plan : Plan
        Any; what it draws is left aside.
    places : callable, optional
        ``places(path)`` gives the windows of a stored tensor that will be written; all of it by default.

    Raises
    ------
    CheckpointError
        When a file is gone, damaged, or not the one that the plan was made of.
    PlanError
        When there is NaN or infinity, or a value that the parameter's dtype does not hold.
    """
    work: list[Callable[[], None]] = []
    whole: list[tuple[Source, str]] = []
    for tensor in plan.tensors:
        if not _takes(plan, tensor.path):
            continue
        everything = tuple(slice(0, size) for size in tensor.shape)
        stored, divided = lying(plan, tensor.path), _divided(plan, tensor)
        for window in (everything,) if places is None else places(tensor.path):
            parts = list(_parts(window)) if divided else [window]
            if stored is not None:
                init, source = stored
                if source.mapped and (init.nonfinite or init.keys[0] in source.finite):
                    continue  # it is there, and may be anything
                work += [partial(_refuse, init, source, part) for part in parts]
                whole += [(source, init.keys[0])] if window == everything else []
            elif divided:
                work += [partial(_make, plan, tensor, part) for part in parts]
            else:
                _make(plan, tensor, window)  # which may have threads of its own
    threads.run_all(work)
    for source, key in whole:
        source.finite.add(key)


def lying(plan: Plan, path: str) -> tuple[Pretrained, Source] | None:
    """Where a tensor lies in a file just as it will be: it is read whole or not at all, and is not made."""
    tensor = plan.tensor(path)
    [(row, member), *others] = plan.parts(tensor)
    init = row.initializer
    if others or not isinstance(init, Pretrained) or member.shape != tensor.shape:
        return None
    source = init.source()
    lies = init.is_stored(tensor.shape, source)
    return (init, source) if lies and source.checkpoint.tensors[init.keys[0]].dtype == tensor.dtype else None


def _divided(plan: Plan, tensor: Tensor) -> bool:
    """Whether a part of a tensor costs no more than its share."""
    taken = (row.initializer for row, _ in plan.parts(tensor))
    mapped = all(init.source().mapped for init in taken if isinstance(init, Pretrained))
    return mapped and not plan.coupled(tensor.path)


def _parts(window: Window) -> Iterator[Window]:
    for inner in windows(tuple(part.stop - part.start for part in window), LOOKED):
        yield moved(window, inner)


def _refuse(init: Pretrained, source: Source, window: Window) -> None:
    init.refuse(source.read(init.keys[0], window))


def _make(plan: Plan, tensor: Tensor, window: Window) -> None:
    """Make values as they will be made, and drop them."""
    shape = tuple(part.stop - part.start for part in window)
    try:
        plan.fill(tensor.path, window=window, out=np.empty(shape, as_dtype(tensor.dtype)))
    except CheckpointError:
        raise
    except FaninError as error:
        raise PlanError(f"{tensor.path!r}: {error}") from error
