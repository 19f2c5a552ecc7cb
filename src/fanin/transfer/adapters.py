"""From the values a checkpoint has to the shape a model wants: each rule is one function, exactly stated.

Values come and go in canonical order of axes: outputs, inputs, receptive field; tables as (entries,
features), positions as they are stored. Arithmetic is in float64, summed in a fixed order.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fanin._types import Array
from fanin.errors import ArgumentError, PlanError
from fanin.initializers import RandomNormal

Drawn: TypeAlias = Callable[[], Array]


@dataclass(frozen=True)
class Goal:
    """What a step works towards.

    Parameters
    ----------
    shape : tuple of int
        Of the parameter, in canonical order.
    outputs : int
        How many of its axes are outputs: the next is the first input.
    seed, name
        Of what is drawn.
    drawn : callable
        The values that the recipe would give, in canonical order.
    """

    shape: tuple[int, ...]
    outputs: int
    seed: int | None
    name: str | None
    drawn: Drawn


def channels(values: Array, goal: Goal) -> Array:
    """Input channels by repeating: ``w'[:, c] = w[:, c mod old] * old / new``; to one channel their sum.

    A gray image given as RGB, or RGB repeated, gives the same activations as before (timm's rule).
    """
    axis = goal.outputs
    if len(values.shape) != len(goal.shape) or axis >= len(goal.shape):
        raise PlanError(f"channels: {values.shape} and {goal.shape} have no input axis in common")
    old, new = values.shape[axis], goal.shape[axis]
    wide = values.astype(np.float64)
    if new == 1:
        total = np.zeros_like(np.take(wide, [0], axis))
        for channel in range(old):
            total = total + np.take(wide, [channel], axis)
        return total
    repeated: Array = np.take(wide, np.arange(new) % old, axis) * (old / new)
    return repeated


def interpolate(
    values: Array,
    goal: Goal,
    mode: Literal["bicubic", "linear"] = "bicubic",
    prefix: int | None = None,
    antialias: bool = True,
) -> Array:
    """Positions (..., tokens, features) resampled to another number of tokens.

    Parameters
    ----------
    mode : "bicubic" or "linear"
        ``"bicubic"``: tokens are a square grid in row-major order, resampled along both axes with centers
        aligned (``align_corners=False``); ``"linear"``: a sequence, resampled likewise.
    prefix : int, optional
        Tokens in front that are no part of the grid (class tokens) and stay as they are. By default the
        fewest, 0 to 5, that leave squares; none for a sequence.
    antialias : bool
        PyTorch's and timm's: Keys' cubic with a = -1/2, widened when the grid shrinks; without it a = -3/4
        on four neighbours, those outside clamped to the border.
    """
    if len(values.shape) < 2 or len(values.shape) != len(goal.shape):
        raise PlanError(
            f"interpolate: {values.shape} to {goal.shape}: expected (..., tokens, features) of both"
        )
    if mode not in ("bicubic", "linear"):
        raise ArgumentError(f"interpolate: `mode` {mode!r}; expected one of bicubic, linear")
    old, new = values.shape[-2], goal.shape[-2]
    if prefix is None:
        prefix = 0 if mode == "linear" else _prefix(old, new)
    if not 0 <= prefix < min(old, new):
        raise PlanError(f"interpolate: `prefix` {prefix} of {old} and {new} tokens leaves no grid")
    head, grid = values[..., :prefix, :].astype(np.float64), values[..., prefix:, :].astype(np.float64)
    if mode == "linear":
        return np.concatenate(
            [head, _resample(grid, -2, new - prefix, *_linear(old - prefix, new - prefix))], -2
        )
    before, after = math.isqrt(old - prefix), math.isqrt(new - prefix)
    if before**2 != old - prefix or after**2 != new - prefix:
        raise PlanError(f"interpolate: {old} and {new} tokens without {prefix} in front are no squares")
    lead, width = values.shape[:-2], values.shape[-1]
    square = grid.reshape(*lead, before, before, width)
    taps = _antialiased(before, after) if antialias else _cubic(before, after)
    for axis in (-3, -2):
        square = _resample(square, axis, after, *taps)
    return np.concatenate([head, square.reshape(*lead, after * after, width)], -2)


def _prefix(old: int, new: int) -> int:
    for prefix in range(6):
        if min(old, new) > prefix and all(math.isqrt(n - prefix) ** 2 == n - prefix for n in (old, new)):
            return prefix
    raise PlanError(
        f"interpolate: {old} and {new} tokens are no squares after the same 0 to 5 in front; say "
        f"`prefix`, or mode='linear'"
    )


def _resample(values: Array, axis: int, size: int, at: Array, weights: Array) -> Array:
    """``out[i] = sum_k weights[i, k] values[at[i, k]]`` along an axis, added in the order of k."""
    turned = np.moveaxis(values, axis, 0)
    out = np.zeros((size, *turned.shape[1:]))
    for k in range(at.shape[1]):
        out = out + turned[at[:, k]] * weights[:, k].reshape(-1, *(1,) * (out.ndim - 1))
    return np.moveaxis(out, 0, axis)


def _linear(old: int, new: int) -> tuple[Array, Array]:
    """Taps of linear interpolation with centers aligned."""
    where = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0.0, None)
    low = np.minimum(np.floor(where).astype(np.int64), old - 1)
    part = where - low
    return np.stack([low, np.minimum(low + 1, old - 1)], 1), np.stack([1 - part, part], 1)


def _cubic(old: int, new: int) -> tuple[Array, Array]:
    """Four taps of Keys' cubic with a = -3/4."""
    where = (np.arange(new) + 0.5) * (old / new) - 0.5
    low = np.floor(where)
    steps = np.arange(-1, 3)
    at = np.clip(low[:, None].astype(np.int64) + steps, 0, old - 1)
    return at, _keys((where - low)[:, None] - steps, -0.75)


def _antialiased(old: int, new: int) -> tuple[Array, Array]:
    """Taps of Keys' cubic with a = -1/2, as wide as an output's own share; they sum to one."""
    scale = old / new
    wide = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    first = np.maximum((centers - 2 * wide + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + 2 * wide + 0.5).astype(np.int64), old)
    steps = np.arange(int((last - first).max()))
    at = first[:, None] + steps
    weights = np.where(at < last[:, None], _keys((at - centers[:, None] + 0.5) / wide, -0.5), 0.0)
    total = np.zeros(new)
    for k in steps:
        total = total + weights[:, k]
    return np.minimum(at, old - 1), weights / total[:, None]


def _keys(x: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def rows(
    values: Array,
    goal: Goal,
    new: Literal["mean", "mean_cov", "copy", "draw"] = "mean",
    of: Sequence[int] = (),
) -> Array:
    """More or fewer entries along the first axis (a vocabulary): the first stay, those in addition are `new`.

    Parameters
    ----------
    new : "mean", "mean_cov", "copy" or "draw"
        ``"mean"``: the mean of all old entries. ``"mean_cov"``: normal with their mean and 1e-9 times their
        covariance (divided by n), as transformers resizes embeddings; the mean alone where the covariance
        has no Cholesky factor. ``"copy"``: the entries `of`, one for each new one. ``"draw"``: what the
        recipe says, with the numbers that a whole new tensor would have there.
    """
    _same_but_first("rows", values.shape, goal.shape)
    old, count = len(values), goal.shape[0]
    if count <= old:
        return values[:count]
    more, inner = count - old, goal.shape[1:]
    wide = values.astype(np.float64)
    if new == "draw":
        return np.concatenate([wide, goal.drawn()[old:].astype(np.float64)])
    if new == "copy":
        if len(of) != more or not all(0 <= index < old for index in of):
            raise ArgumentError(
                f"rows: `of` must name one of {old} entries for each of {more} new, got {of!r}"
            )
        return np.concatenate([wide, wide[list(of)]])
    if new not in ("mean", "mean_cov"):
        raise ArgumentError(f"rows: `new` {new!r}; expected one of copy, draw, mean, mean_cov")
    mean = np.add.reduce(wide, 0) / old
    added = np.broadcast_to(mean, (more, *inner))
    if new == "mean_cov" and wide.ndim > 1:
        apart = (wide - mean).reshape(old, -1)
        try:
            factor = np.linalg.cholesky(apart.T @ apart / old * 1e-9)
        except np.linalg.LinAlgError:
            return np.concatenate([wide, added])
        shape = (more, apart.shape[1])
        z = RandomNormal(0.0, 1.0)(shape, seed=goal.seed, name=f"{goal.name}.new", dtype="float64")
        added = added + (z @ factor.T).reshape(more, *inner)
    return np.concatenate([wide, added])


def classes(values: Array, goal: Goal, take: Sequence[int] = ()) -> Array:
    """A head for other classes: output i is the checkpoint's ``take[i]``, or drawn where that is -1."""
    _same_but_first("classes", values.shape, goal.shape)
    old = len(values)
    if len(take) != goal.shape[0] or not all(-1 <= index < old for index in take):
        raise ArgumentError(
            f"classes: `take` must name one of {old} outputs, or -1, for each of {goal.shape[0]}, got "
            f"{take!r}"
        )
    indexes = np.array(take, np.int64)
    made = values.astype(np.float64)[indexes]
    if (indexes < 0).any():
        made[indexes < 0] = goal.drawn()[indexes < 0].astype(np.float64)
    return made


def _same_but_first(what: str, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    if len(old) != len(new) or not old or old[1:] != new[1:]:
        raise PlanError(f"{what}: {old} and {new} differ in more than their first axis")


def select(values: Array, goal: Goal) -> Array:
    """Width: of each axis of a larger tensor evenly spaced indexes (weight selection, Xu et al. 2024).

    Multiples of ``old / new`` where that is whole, else ``round(linspace(0, old - 1, new))``.
    """
    if len(values.shape) != len(goal.shape) or any(map(int.__lt__, values.shape, goal.shape)):
        raise PlanError(f"select: {goal.shape} is not smaller than {values.shape} along each axis")
    for axis, (old, new) in enumerate(zip(values.shape, goal.shape, strict=True)):
        values = np.take(values, _spread(old, new), axis) if old != new else values
    return values


def _spread(old: int, new: int) -> Array:
    if old % max(new, 1) == 0:
        return np.arange(new) * (old // max(new, 1))
    return np.round(np.linspace(0, old - 1, new)).astype(np.int64)


def transpose(values: Array, goal: Goal) -> Array:
    """A matrix stored the other way round: transformers' ``Conv1D`` and ``nn.Linear`` of one another."""
    if len(values.shape) == len(goal.shape) < 2:
        return values
    if len(values.shape) != 2 or len(goal.shape) != 2:
        raise PlanError(f"transpose: {values.shape} to {goal.shape}: expected matrices")
    return values.T


Adapter: TypeAlias = Callable[..., Any]
ADAPTERS: dict[str, Adapter] = {
    each.__name__: each for each in (channels, interpolate, rows, classes, select, transpose)
}
# These change values of equal shape, too; the others are for shapes that differ.
ALWAYS = ("transpose", "classes")
# Where the matrix products of a library round otherwise, so may these.
DRAWING = ("mean_cov", "draw")


def would_do(old: tuple[int, ...], new: tuple[int, ...], role: str, outputs: int) -> list[str]:
    """The adapters that could lead from one canonical shape to another, likely ones first."""
    if len(old) != len(new):
        return ["draw"]
    differ = [axis for axis, sizes in enumerate(zip(old, new, strict=True)) if sizes[0] != sizes[1]]
    found = []
    if role == "position" and differ == [len(old) - 2]:
        found.append("interpolate")
    if differ == [0]:
        found += ["classes", "rows"] if role in ("head", "bias") else ["rows"]
    if differ == [outputs] and len(old) > 2:
        found.append("channels")
    if all(a >= b for a, b in zip(old, new, strict=True)):
        found.append("select")
    if len(old) == 2 and old == new[::-1]:
        found.append("transpose")
    return [*found, "draw"]
