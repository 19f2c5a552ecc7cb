"""Distributions, and drawing any window of a tensor from one.

``draw`` is the only way random numbers reach an array: it checks every argument, finds where each element of
the window lies in the canonical order, and lets the kernel fill, in threads.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np

from fanin import _kernel, normal, threads
from fanin._types import Array, Dtype, Key, Shape
from fanin.dtypes import as_dtype, check_drawable, check_range
from fanin.errors import ArgumentError, OutError, ShapeError
from fanin.fans import AxesLike, as_axes, check_shape
from fanin.streams import Stream, check_name, check_seed, stream, unnamed

SIGMAS = 7.0  # a normal draw reaches 6.8 sigma in float32 and 9.5 in float64, once in 2**33 and 2**65
PIECE = 1 << 17  # elements from which another thread pays
SCRATCH = (
    1 << 16
)  # elements held at once on the way to a dtype or strides that the kernel does not write well
RUN = 512  # dense elements in a row from which it does
TILE = 64  # elements of a dense axis from which it turns tiles


class Distribution(Protocol):
    """What one element is drawn from."""

    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    @property
    def reach(self) -> float:
        """The largest magnitude to be expected."""

    def recipe(self, wide: bool) -> tuple[str, tuple[float, ...]]:
        """The kernel's kind and parameters, in float64 if ``wide``, else in float32."""


def finite(what: str, value: Any) -> float:
    """A finite real number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ArgumentError(f"`{what}` must be a finite number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ArgumentError(f"`{what}` must be finite, got {value!r}")
    return number


def not_negative(what: str, value: Any) -> float:
    number = finite(what, value)
    if number < 0:
        raise ArgumentError(f"`{what}` must be >= 0, got {value!r}")
    return number


@dataclass(frozen=True)
class Uniform:
    """U(low, high), strictly inside."""

    low: float
    high: float

    @property
    def mean(self) -> float:
        return self.low / 2 + self.high / 2

    @property
    def std(self) -> float:
        return (self.high / 2 - self.low / 2) / math.sqrt(3.0)

    @property
    def reach(self) -> float:
        return max(abs(self.low), abs(self.high))

    def recipe(self, wide: bool) -> tuple[str, tuple[float, ...]]:
        low, high = (self.low, self.high) if wide else (_inward(self.low, 1), _inward(self.high, -1))
        if self.low == self.high:
            only = self.low + 0.0  # one zero, not two
            return ("uniform64" if wide else "uniform"), (only, 0.0, only, only)
        real = np.float64 if wide else np.float32
        smallest = np.nextafter(real(low), real(np.inf))
        biggest = np.nextafter(real(high), real(-np.inf))
        if smallest > biggest:
            raise ArgumentError(
                f"no {real.__name__} lies strictly between {self.low!r} and {self.high!r}; widen the bounds"
            )
        mid, half = low / 2 + high / 2, high / 2 - low / 2
        return ("uniform64" if wide else "uniform"), (mid, half, float(smallest), float(biggest))

    def __str__(self) -> str:
        return f"uniform on ({self.low:.6g}, {self.high:.6g})"


def _inward(bound: float, direction: int) -> float:
    """The float32 nearest to a bound that is not outside it; ``direction`` points inward."""
    near = np.float32(bound)
    outside = float(near) < bound if direction > 0 else float(near) > bound
    return float(np.nextafter(near, np.float32(direction * np.inf)) if outside else near)


@dataclass(frozen=True)
class Normal:
    """N(mean, std**2)."""

    mean: float
    std: float

    @property
    def reach(self) -> float:
        return abs(self.mean) + SIGMAS * self.std

    def recipe(self, wide: bool) -> tuple[str, tuple[float, ...]]:
        return ("normal64" if wide else "normal"), (self.mean, self.std)

    def __str__(self) -> str:
        return f"normal with mean {self.mean:.6g} and std {self.std:.6g}, not truncated"


@dataclass(frozen=True)
class TruncatedNormal:
    """N(loc, scale**2) cut to ``[loc + lower * scale, loc + upper * scale]``."""

    loc: float
    scale: float
    lower: float = -2.0
    upper: float = 2.0

    @property
    def mean(self) -> float:
        return self.loc + self.scale * normal.truncated_moments(self.lower, self.upper)[0]

    @property
    def std(self) -> float:
        """After truncation."""
        return self.scale * normal.truncated_moments(self.lower, self.upper)[1]

    @property
    def reach(self) -> float:
        # P(Z > z | Z > a) <= exp((a*a - z*z) / 2): a tail cut at a reaches less than sqrt(a*a + SIGMAS**2)
        lowest = max(self.lower, -math.hypot(SIGMAS, max(0.0, -self.upper)))
        highest = min(self.upper, math.hypot(SIGMAS, max(0.0, self.lower)))
        return max(abs(self.loc + end * self.scale) for end in (lowest, highest))

    def recipe(self, wide: bool) -> tuple[str, tuple[float, ...]]:
        if (self.lower, self.upper) == (-2.0, 2.0) and not wide:
            return "truncated", (self.loc, self.scale)
        below, mass, above = normal.masses(self.lower, self.upper)
        bounds = (self.lower, self.upper)
        return ("quantile64" if wide else "quantile"), (
            *(self.loc, self.scale, below, mass, above),
            *bounds,
        )

    def __str__(self) -> str:
        return (
            f"normal with mean {self.loc:.6g} and std {self.scale:.6g}, truncated to "
            f"[{self.lower:g}, {self.upper:g}] std: std {self.std:.6g} after truncation"
        )


# --- where values go -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Canvas:
    """A checked request: the part of a tensor to make, and the array that takes it."""

    shape: tuple[int, ...]
    window: tuple[slice, ...]
    out: Array


def check_window(window: Any, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A window as one slice of explicit bounds per axis; `ShapeError` if it is not inside ``shape``."""
    if window is None:
        return tuple(slice(0, size) for size in shape)
    if not isinstance(window, tuple) or not all(isinstance(part, slice) for part in window):
        raise ShapeError(f"`window` must be a tuple of slices, got {window!r}")
    if len(window) != len(shape):
        raise ShapeError(f"`window` has {len(window)} slices, but `shape` {shape} has {len(shape)} axes")
    checked = []
    for axis, (part, size) in enumerate(zip(window, shape, strict=True)):
        start = 0 if part.start is None else part.start
        stop = size if part.stop is None else part.stop
        whole = hasattr(start, "__index__") and hasattr(stop, "__index__") and part.step in (None, 1)
        if not whole or not 0 <= start <= stop <= size:
            raise ShapeError(
                f"`window` {part} does not fit axis {axis} of `shape` {shape}; "
                f"expected slice(start, stop) with 0 <= start <= stop <= {size}"
            )
        checked.append(slice(int(start), int(stop)))
    return tuple(checked)


def canvas(shape: Shape, dtype: Dtype | None, window: Any, out: Any) -> Canvas:
    """Check shape, dtype, window and buffer together; a new C-ordered array if ``out`` is None."""
    full = check_shape(shape)
    part = check_window(window, full)
    sizes = tuple(s.stop - s.start for s in part)
    if out is None:
        return Canvas(full, part, np.empty(sizes, as_dtype("float32" if dtype is None else dtype)))
    if not isinstance(out, np.ndarray):
        raise OutError(f"`out` must be a NumPy array, got {type(out).__name__}")
    if dtype is not None and out.dtype != as_dtype(dtype):
        raise OutError(f"`out` has dtype {out.dtype}, but `dtype` is {as_dtype(dtype)}")
    as_dtype(out.dtype)
    if out.shape != sizes:
        raise OutError(f"`out` has shape {out.shape}, but the window has shape {sizes}")
    if not out.flags.writeable:
        raise OutError("`out` is read-only; pass an array that can be written")
    if overlaps_itself(out):
        raise OutError(f"`out` overlaps itself (shape {out.shape}, strides {out.strides})")
    return Canvas(full, part, out)


def overlaps_itself(array: Array) -> bool:
    """Whether two elements share memory: false at once for nested strides, else by counting addresses."""
    extent = array.itemsize
    moves = [(abs(t), n) for t, n in zip(array.strides, array.shape, strict=True) if n > 1]
    if array.size == 0:
        return False
    for step, size in sorted(moves):
        if step < extent:
            break
        extent = step * (size - 1) + extent
    else:
        return False
    addresses = np.zeros((), np.int64)
    for step, size in moves:
        addresses = np.add.outer(addresses, np.arange(size) * step)
    return bool(np.diff(np.sort(addresses, axis=None)).min(initial=array.itemsize) < array.itemsize)


# --- drawing -------------------------------------------------------------------------------------


def name_stream(seed: Any, name: Any, shape: tuple[int, ...]) -> Stream:
    """The stream of a seed and a name, or of the shape when there is no name."""
    return stream(check_seed(seed), unnamed(shape) if name is None else check_name(name))


def draw(
    distribution: Distribution,
    where: Canvas,
    source: Stream,
    axes: AxesLike = "io",
) -> Array:
    """Fill a canvas with draws: element by element a pure function of the stream and the canonical index."""
    dtype = where.out.dtype
    check_drawable(dtype)
    check_range(dtype, distribution.reach, str(distribution))
    kind, params = distribution.recipe(wide=dtype == np.float64)
    strides = as_axes(axes).index_strides(where.shape)
    fill_canvas(where, kind, params, source.key, source.low, strides)
    return where.out


def bits(where: Canvas, source: Stream, axes: AxesLike = "io") -> Array:
    """The raw 32-bit words of a window, into a uint32 canvas."""
    strides = as_axes(axes).index_strides(where.shape)
    fill_canvas(where, "bits", (), source.key, source.low, strides)
    return where.out


def integers(low: int, high: int, where: Canvas, source: Stream, axes: AxesLike = "io") -> Array:
    """Uniform integers in [low, high), into a canvas of an integer dtype.

    ``low + floor(u (high - low))`` with the element's 32-bit word as u, or its 64-bit word where there are
    more than 2**16 integers, so that no integer is favoured by more than one part in 2**16.
    """
    count = high - low
    words = bits(Canvas(where.shape, where.window, np.empty(where.out.shape, np.uint32)), source, axes)
    if count <= 1 << 16:
        steps = words.astype(np.uint64) * np.uint64(count) >> np.uint64(32)
    else:
        lows = Stream(source.low, source.low, source.mask)
        below = bits(Canvas(where.shape, where.window, np.empty(where.out.shape, np.uint32)), lows, axes)
        steps = _high_product(words.astype(np.uint64), below.astype(np.uint64), count)
    base = np.array(low % 2**64, np.uint64)
    where.out[...] = (steps + base).astype(where.out.dtype)  # modulo 2**64: wraps to the right value
    return where.out


def _high_product(high: Array, low: Array, count: int) -> Array:
    """floor((high * 2**32 + low) * count / 2**64) for 32-bit halves and count <= 2**64."""
    if count == 1 << 64:
        return high << np.uint64(32) | low
    c_high, c_low = np.uint64(count >> 32), np.uint64(count & 0xFFFFFFFF)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    first = low * c_low >> half
    second = high * c_low + first
    third = low * c_high + (second & mask)
    product: Array = high * c_high + (second >> half) + (third >> half)
    return product


def fill_canvas(
    where: Canvas,
    kind: str,
    params: tuple[float, ...],
    key: Key,
    low: Key,
    strides: tuple[int, ...],
) -> None:
    """Let the kernel fill a canvas, its dimensions in canonical order and split between the threads."""
    out = where.out
    if out.size == 0:
        return
    start = sum(part.start * step for part, step in zip(where.window, strides, strict=True))
    order = sorted(
        (axis for axis in range(out.ndim) if out.shape[axis] > 1), key=lambda axis: -abs(strides[axis])
    )
    keep = tuple(slice(None) if axis in order else 0 for axis in range(out.ndim))
    view = out[keep]  # axes of size 1 dropped; a view, whose axes are those of sorted(order)
    view = view.transpose([sorted(order).index(axis) for axis in order])
    steps = tuple(strides[axis] for axis in order)
    if not order:
        view, steps = out.reshape(1), (1,)
    fill = partial(_fill_part, partial(_fill_directly, kind, params, key, low))
    threads.run_all(
        partial(fill, part, start + shift * steps[axis], steps) for part, axis, shift in pieces(view)
    )


def pieces(view: Array) -> Iterator[tuple[Array, int, int]]:
    """Parts of a view, several per thread: (part, axis, where it starts).

    Along the outermost axis that is long enough, so that what is dense within a part stays so; else along the
    longest.
    """
    workers = threads.threads()
    enough = [axis for axis, size in enumerate(view.shape) if size >= 64 * workers]
    axis = enough[0] if enough else int(np.argmax(view.shape))
    size = view.shape[axis]
    count = max(1, min(4 * workers, view.size // PIECE, size)) if workers > 1 else 1
    length = size if count == 1 else -(-size // (64 * count)) * 64  # cache lines and blocks stay whole
    for at in range(0, size, length):
        yield view[(slice(None),) * axis + (slice(at, at + length),)], axis, at


Fill: TypeAlias = Callable[[Array, int, tuple[int, ...]], None]  # (array, first index, index strides)


def _fill_part(fill: Fill, part: Array, start: int, steps: tuple[int, ...]) -> None:
    """Fill memory of any strides and dtype: directly, or through dense blocks where that is faster."""
    narrow = part.dtype.name.startswith("float8")  # made in float32, rounded once
    if not narrow and _suits_kernel(part, steps):
        fill(part, start, steps)
        return
    for place, index, inner in _blocks(part, start, steps):
        scratch = np.empty(place.shape, np.float32 if narrow else part.dtype)
        fill(scratch, index, inner)
        place[...] = scratch.astype(part.dtype) if narrow else scratch


def _fill_directly(
    kind: str,
    params: tuple[float, ...],
    key: Key,
    low: Key,
    part: Array,
    start: int,
    steps: tuple[int, ...],
) -> None:
    name, out = "same", part
    if part.dtype.name in ("float16", "bfloat16"):
        name, out = part.dtype.name, part.view(np.uint16)
    _kernel.fill(out, kind, name, key, low, start, steps, params)


def _suits_kernel(part: Array, steps: tuple[int, ...]) -> bool:
    """Whether the kernel writes these strides faster than a dense block that is copied there.

    It does where long runs are dense, and where it can turn tiles: along a dense axis that moves the index by
    whole blocks.
    """
    run = part.itemsize
    for size, stride in zip(reversed(part.shape), reversed(part.strides), strict=True):
        if stride != run:
            break
        run *= size
    turns = any(
        stride == part.itemsize and size >= TILE and step % 4 == 0
        for size, stride, step in zip(part.shape, part.strides, steps, strict=True)
    )
    return turns or run >= min(RUN * part.itemsize, part.nbytes)


def _blocks(part: Array, start: int, steps: tuple[int, ...]) -> Iterator[tuple[Array, int, tuple[int, ...]]]:
    """Blocks of at most `SCRATCH` elements in canonical order: (block, first index, index strides)."""
    row = part.size // part.shape[0]
    rows = max(1, SCRATCH // row)
    for at in range(0, part.shape[0], rows):
        block, index = part[at : at + rows], start + at * steps[0]
        if row > SCRATCH:
            yield from _blocks(block[0], index, steps[1:])
        else:
            yield block, index, steps
