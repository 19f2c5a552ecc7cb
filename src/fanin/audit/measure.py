"""From arrays to the numbers of a `Trace`: the only place where a signal or a weight is measured."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fanin import layout
from fanin._types import Array
from fanin.audit.trace import Signal, Spread, Weights
from fanin.dtypes import as_dtype
from fanin.fans import Axes
from fanin.model import Member, Model, Piece, Tensor
from fanin.sampling import Canvas

Read = Callable[[str], Array | None]

BLOCK = 1 << 13  # elements taken at a time: their float64 copies stay in the cache
SAMPLE = 1 << 16  # elements in a histogram
ROWS = 64  # rows whose cosines are taken
FEATURES = 1 << 14  # of each row
ROUNDING = {1: 0.25, 2: 0.03, 4: 1e-5}  # of a gradient's sums, by the bytes of its dtype
FEW = 8  # rows that are named
AHEAD = 4  # elements of a row that nearly always tell it from all others


def spread(values: Array) -> Spread:
    """Moments and magnitudes of an array of any shape and floating dtype.

    Two passes in float64: the second is about the mean, so that the standard deviation has no cancellation,
    and a constant has none at all.

    Examples
    --------
    >>> import numpy as np
    >>> found = spread(np.array([3.0, -4.0, 0.0, np.inf]))
    >>> found.n, round(found.rms, 4), found.zeros, found.broken
    (4, 2.8868, 0.25, 1)
    """
    return _moments(values).spread


def together(parts: Sequence[Spread]) -> Spread:
    """The spread of several arrays as of one, from their own.

    Examples
    --------
    >>> import numpy as np
    >>> found = together([spread(np.array([1.0, 2.0])), spread(np.array([6.0]))])
    >>> found.n, found.mean, round(found.std, 6), found.magnitudes
    (3, 3.0, 2.160247, {0: 1, 1: 1, 2: 1})
    """
    if len(parts) == 1:
        return parts[0]
    finite = [part.n - part.broken for part in parts]
    whole = sum(part.n for part in parts)
    shares = [count / max(sum(finite), 1) for count in finite]
    mean = math.fsum(share * part.mean for share, part in zip(shares, parts, strict=True))
    std = math.hypot(
        *(
            math.sqrt(share) * math.hypot(part.std, part.mean - mean)
            for share, part in zip(shares, parts, strict=True)
        )
    )
    counts = Counter[int]()
    for part in parts:
        counts.update(part.magnitudes)
    return Spread(
        n=whole,
        mean=mean,
        std=std,
        rms=math.hypot(mean, std),
        largest=max(part.largest for part in parts),
        zeros=sum(part.zeros * part.n for part in parts) / max(whole, 1),
        broken=sum(part.broken for part in parts),
        magnitudes=dict(sorted(counts.items())),
    )


class _Moments(NamedTuple):
    """A spread, the share above zero, and the kurtosis."""

    spread: Spread
    positive: float
    kurtosis: float


def _moments(values: Array) -> _Moments:
    flat = _flat(values)
    low, high, total = math.inf, -math.inf, 0.0
    zeros = positive = finite = 0
    for block in _finite(flat):
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        total += float(block.mean()) * (block.size / flat.size)  # no sum of many large numbers
        finite += block.size
        zeros += block.size - int(np.count_nonzero(block))
        positive += int(np.count_nonzero(block > 0))
    if not finite:
        nothing = Spread(n=flat.size, mean=0.0, std=0.0, rms=0.0, largest=0.0, zeros=0.0, broken=flat.size)
        return _Moments(nothing, 0.0, 0.0)
    mean = low if low == high else total * (flat.size / finite)
    largest = max(abs(low), abs(high))
    away = max(high - mean, mean - low)
    second = fourth = 0.0
    if 0 < away < math.inf:  # scaled by the largest distance, so that no square leaves float64
        for block in _finite(flat):
            square = np.square((block - mean) / away)
            second += float(square.sum())
            fourth += float(square @ square)
    std = away * math.sqrt(second / finite) if second else 0.0
    found = Spread(
        n=flat.size,
        mean=mean,
        std=std,
        rms=math.hypot(mean, std),
        largest=largest,
        zeros=zeros / flat.size,
        broken=flat.size - finite,
        magnitudes=_magnitudes(flat),
    )
    return _Moments(found, positive / flat.size, finite * fourth / second**2 if second else 0.0)


def _flat(values: Array) -> Array:
    """Its elements without a copy where its memory allows, in whatever order they lie."""
    return np.asarray(values).ravel(order="K")


def _finite(flat: Array) -> Iterator[NDArray[np.float64]]:
    """The finite elements in float64, a block at a time; no block is empty."""
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK].astype(np.float64)
        if not np.isfinite(block).all():
            block = block[np.isfinite(block)]
        if block.size:
            yield block


def _sample(flat: Array) -> NDArray[np.float64]:
    """Some elements that are finite and not zero: every so many, an odd number that few axes divide."""
    sample = flat[:: max(1, flat.size // SAMPLE) | 1].astype(np.float64)
    kept: NDArray[np.float64] = sample[np.isfinite(sample) & (sample != 0)]
    return kept


def _magnitudes(flat: Array) -> dict[int, int]:
    exponents, counts = np.unique(np.frexp(_sample(flat))[1], return_counts=True)
    return {int(k) - 1: int(count) for k, count in zip(exponents, counts, strict=True)}


def axis_of(units: int, rank: int) -> int:
    """The axis of features; the last where an array has no such axis."""
    return units if -rank <= units < rank else -1


def silent(values: Array, units: int = -1) -> Array | None:
    """Positions at which every unit is exactly zero, such as padding before anything has reached it.

    No signal passes there, and a norm at zero multiplies gradients by ``1 / sqrt(epsilon)``: what comes back
    says nothing of the network. None where there are no such positions, or no others.

    Examples
    --------
    >>> silent(np.array([[0.0, 0.0], [0.0, 1.0]])).tolist()
    [[True], [False]]
    """
    if values.ndim < 2 or values.size == 0:
        return None
    found: Array = np.logical_not(values.any(axis=axis_of(units, values.ndim), keepdims=True))
    return found if found.any() and not found.all() else None


def signal(values: Array, units: int = -1) -> Signal:
    """Measure what passed one place.

    Parameters
    ----------
    values : ndarray
        Axis 0 is the batch.
    units : int
        The axis of features or channels, the last if there is no such axis. Of an array of up to three axes
        every other position is a row; of images (four and more) every example is.

    Examples
    --------
    >>> import numpy as np
    >>> found = signal(np.array([[1.0, 0.0, 2.0], [1.0, 0.0, -2.0]]))
    >>> found.units, round(found.dead, 2), round(found.constant, 2)
    (3, 0.33, 0.67)
    >>> round(found.cosine, 2), round(found.rank, 2)
    (-0.6, 1.47)
    """
    values = np.asarray(values)
    facts = vars(spread(values))
    if values.ndim == 0 or values.size == 0:
        return Signal(**facts, shape=values.shape)
    last = np.moveaxis(values, axis_of(units, values.ndim), -1) if values.ndim > 1 else values[:, None]
    table = last.reshape(-1, last.shape[-1])
    low, high = _extremes(table)
    with np.errstate(invalid="ignore", over="ignore"):
        means = table.mean(axis=0, dtype=np.float64)
    examples = table if values.ndim <= 3 else last.reshape(len(values), -1)
    cosine, rank, rows = _directions(examples)
    return Signal(
        **facts,
        shape=values.shape,
        units=table.shape[1],
        dead=float(np.mean((low == 0) & (high == 0))),
        constant=float(np.mean(low == high)) if len(table) > 1 else 0.0,
        offset=float(np.hypot.reduce(means)) / math.sqrt(means.size),
        cosine=cosine,
        rank=rank,
        rows=rows,
    )


def _extremes(table: Array) -> tuple[Array, Array]:
    with np.errstate(invalid="ignore"):
        return table.min(axis=0), table.max(axis=0)


def _directions(examples: Array) -> tuple[float | None, float | None, int]:
    """Mean cosine between two rows of a sample, their effective rank, and how many they are."""
    spaced = np.linspace(0, len(examples) - 1, min(ROWS, len(examples))).round().astype(int)
    step = max(1, examples.shape[1] // FEATURES)
    sample = examples[spaced, ::step].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.abs(sample).max(axis=1, initial=0.0)
        sample = sample[np.isfinite(lengths) & (lengths > 0)]
        sample = sample / np.abs(sample).max(axis=1, keepdims=True, initial=0.0)
    rows = len(sample)
    if rows < 2:
        return None, None, rows
    gram = sample @ sample.T
    cosines = gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    eigenvalues = np.linalg.eigvalsh(cosines).clip(0)
    mean = (cosines.sum() - rows) / (rows * (rows - 1))
    return float(mean), float(eigenvalues.sum() ** 2 / np.sum(eigenvalues**2)), rows


# --- activations ---------------------------------------------------------------------------------

# Between which inputs the slope is above a twentieth of its largest, for functions that flatten on both
# sides.
STEEP = {
    "tanh": (-2.1783, 2.1783),
    "sigmoid": (-4.3570, 4.3570),
    "softsign": (-3.4721, 3.4721),
    "erf": (-1.7309, 1.7309),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (-3.0, 3.0),
    "hard_sigmoid": (-3.0, 3.0),
    "relu6": (-math.inf, 6.0),
}
STRAIGHT = ("relu", "relu6", "leaky_relu", "prelu")  # above zero these are straight
MASKED = 1e4  # an entry this far below the largest was masked: a softmax of float32 is zero from 104 on
PEAK = 0.95  # a softmax whose largest value is above this has a slope below a fifth of its largest


def saturated(activation: str, before: Array) -> float | None:
    """The share of inputs where an activation is flat; None of one that does not flatten on both sides.

    Of ``"softmax"``, along the last axis: the share of rows in which one entry takes nearly all. Entries that
    a mask takes away do not count, nor rows where it leaves but one.

    >>> import numpy as np
    >>> saturated("tanh", np.array([0.0, 3.0, -9.0, 1.0]))
    0.5
    >>> saturated("softmax", np.array([[0.0, 9.0, 1.0], [0.0, 0.5, -np.inf], [0.0, -np.inf, -np.inf]]))
    0.5
    """
    if activation == "softmax":
        return _peaked(before)
    if activation not in STEEP:
        return None
    low, high = STEEP[activation]
    flat = _flat(before)
    return float(np.mean((flat < low) | (flat > high))) if flat.size else 0.0


def _peaked(scores: Array) -> float | None:
    if scores.ndim < 1 or scores.size == 0:
        return None
    rows = scores.reshape(-1, scores.shape[-1])
    rows = rows[:: max(1, rows.size // (16 * SAMPLE))].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        shares = np.exp(rows - rows.max(axis=1, keepdims=True))
        peaks = 1.0 / shares.sum(axis=1)
    open_ = (rows > rows.max(axis=1, keepdims=True) - MASKED).sum(axis=1) > 1
    return float(np.mean(peaks[open_] > PEAK)) if open_.any() else 0.0


def linear(activation: str, before: Array, units: int = -1) -> float | None:
    """The share of units that only ever see the straight positive part of a rectifier; None of others.

    >>> import numpy as np
    >>> linear("relu", np.array([[1.0, -1.0], [2.0, 3.0]]))
    0.5
    """
    if activation not in STRAIGHT or before.ndim < 2 or before.size == 0:
        return None
    table = np.moveaxis(np.asarray(before), units, -1)
    low, _ = _extremes(table.reshape(-1, table.shape[-1]))
    return float(np.mean(low > 0))


# --- weights -------------------------------------------------------------------------------------


def weights(
    model: Model,
    read: Read,
    gradients: Sequence[Read] = (),
    step: Callable[[str, Array, Array], Array] | None = None,
    changes: Read | None = None,
) -> Iterator[Weights]:
    """Measure every parameter of a model, one at a time.

    Parameters
    ----------
    model : Model
        What its tensors are.
    read : callable
        ``read(path)`` gives the values of a stored tensor.
    gradients : sequence of callable
        ``gradients[0](path)`` gives the gradient now, the others those after a step; None where there is
        none.
    step : callable, optional
        ``step(role, values, gradient)`` is what the optimizer adds at its first step.
    changes : callable, optional
        ``changes(path)`` is what it adds, where a framework's own optimizer told; None where it adds nothing.
    """
    for tensor in model.tensors:
        values = read(tensor.path)
        if values is None:
            continue
        beside = [gradient(tensor.path) for gradient in gradients]
        for piece in tensor.pieces:
            columns = [_members(values, tensor, piece)]
            columns += [_members(each, tensor, piece) for each in beside if each is not None]
            change = None if changes is None else changes(tensor.path)
            moved = {} if change is None else _members(change, tensor, piece)
            for member in piece.members(tensor.shape):
                taken = [column[member.name] for column in columns]
                added = moved.get(member.name)
                if step is not None and len(taken) > 1:
                    added = step(piece.role, *taken[:2])
                yield _weights(tensor, piece, member, taken, added)


def _members(values: Array, tensor: Tensor, piece: Piece) -> Mapping[str, Array]:
    whole = Canvas(values.shape, tuple(slice(0, size) for size in values.shape), np.asarray(values))
    found: dict[str, Array] = {}
    for unfolded in layout.unfolded(whole, piece.whole):
        inside = unfolded.out[piece.slices(tensor.shape)]
        found.update(layout.members(inside, piece.axes, piece.name))
    return found


def _weights(
    tensor: Tensor,
    piece: Piece,
    member: Member,
    taken: Sequence[Array],
    added: Array | None,
) -> Weights:
    values, gradients = taken[0], taken[1:]
    rows = unit_rows(values, member)
    fans = member.axes.fans(member.shape) if member.shape and _has_fans(member.axes) else None
    facts, positive, kurtosis = _moments(values)
    same = _classes(rows)
    return Weights(
        name=member.name,
        path=tensor.path,
        role=piece.role,
        layer=piece.layer,
        shape=member.shape,
        dtype=tensor.dtype,
        values=facts,
        positive=positive,
        kurtosis=kurtosis,
        bits=_bits(values),
        units=len(rows),
        distinct=int(same.max(initial=-1)) + 1,
        digest=hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest(),
        fan_in=None if fans is None else float(fans.fan_in),
        fan_out=None if fans is None else float(fans.fan_out),
        activation=piece.activation,
        block=piece.block,
        tied=_tied(same, [unit_rows(each, member) for each in gradients]) if gradients else None,
        orthogonal=_orthogonal(rows),
        gradient=spread(gradients[0]) if gradients else None,
        update=None if added is None or facts.rms == 0 else spread(added).rms / facts.rms,
        axes=member.axes,
        broken=_broken_units(rows) if facts.broken else (),
    )


def _broken_units(rows: Array) -> tuple[int, ...]:
    return tuple(np.flatnonzero(~np.isfinite(rows).all(axis=1))[:FEW].tolist())


def _has_fans(axes: Axes) -> bool:
    return axes.known is not None or bool(axes.out or axes.in_)


def unit_rows(values: Array, member: Member) -> Array:
    """A parameter's canonical elements, one row for each output unit, or entry of a table."""
    rank = len(member.shape)
    order = member.axes.order(rank)
    outputs = 1 if member.axes.lookup else len(member.axes.out)
    count = math.prod(member.shape[axis] for axis in order[:outputs]) if rank else 1
    return values.reshape(count, -1) if values.size else values.reshape(count, 0)


def _classes(rows: Array) -> NDArray[np.int64]:
    """A number for each row, 0, 1, ...: equal rows have equal ones. -0 and 0 are one value."""
    found = _numbered(rows[:, :AHEAD])
    again = np.bincount(found)[found] > 1
    if again.any() and rows.shape[1] > AHEAD:
        found[again] = len(rows) + _numbered(rows[again])
        _, found = np.unique(found, return_inverse=True)
    return found


def _numbered(rows: Array) -> NDArray[np.int64]:
    if not rows.size:
        return np.zeros(len(rows), np.int64)
    plain = np.ascontiguousarray(rows + np.zeros((), rows.dtype))
    _, found = np.unique(plain.view([("", np.void, plain.itemsize * plain.shape[1])]), return_inverse=True)
    return found.ravel().astype(np.int64)


def _tied(same: NDArray[np.int64], gradients: Sequence[Array]) -> int:
    """How many units repeat another: in their values and in their gradients, now and after a step.

    Gradients are equal within the rounding of the sums that made them: which sum is done in which order
    differs from unit to unit. Units that get no gradient are left out, unless the whole tensor is one value
    that gets none: it never moves.
    """
    shared = np.bincount(same)[same] > 1
    moved = np.any([np.any(gradient != 0, axis=1) for gradient in gradients], axis=0)
    if not moved.any():
        return len(same) - 1 if len(same) > 1 and not same.any() else 0
    kept = shared & moved
    if not kept.any():
        return 0
    columns = [gradient[kept].astype(np.float64) for gradient in gradients]
    rounding = max(ROUNDING.get(gradient.itemsize, ROUNDING[4]) for gradient in gradients)
    sizes = [float(np.abs(column).max()) or 1.0 for column in columns]
    joined = np.concatenate([column / size for column, size in zip(columns, sizes, strict=True)], axis=1)
    # Rows that are near each other are neighbours in the order of their projection on any direction.
    direction = np.cos(np.arange(1.0, joined.shape[1] + 1))
    order = np.lexsort((joined @ direction, same[kept]))
    near = np.abs(np.diff(joined[order], axis=0)).max(axis=1, initial=0.0) <= rounding
    return int(np.sum(near & (np.diff(same[kept][order]) == 0)))


def _bits(values: Array) -> int:
    """How many bits the longest significand has, of a sample; 0 where all are zero or not finite."""
    sample = _sample(_flat(values))
    if not sample.size:
        return 0
    significands = np.abs(np.frexp(sample)[0] * 2.0**53).astype(np.uint64)
    together = int(np.bitwise_or.reduce(significands))
    return 53 - ((together & -together).bit_length() - 1)


def _orthogonal(rows: Array) -> float | None:
    matrix = rows if rows.shape[0] <= rows.shape[1] else rows.T
    spaced = np.linspace(0, len(matrix) - 1, min(ROWS, len(matrix))).round().astype(int)
    sample = matrix[spaced].astype(np.float64)
    largest = float(np.abs(sample).max(initial=0.0))
    if len(sample) < 2 or not 0 < largest < math.inf:
        return None
    gram = (sample / largest) @ (sample / largest).T
    size = float(np.trace(gram)) / len(gram)
    return float(np.abs(gram - size * np.eye(len(gram))).max() / size)


def stored(values: Array, dtype: str) -> Array:
    """Values in their stored dtype, where an adapter had to widen them."""
    return values.astype(as_dtype(dtype))
