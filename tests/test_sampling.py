"""A window is the slice of the whole, wherever it is put: drawing, canvases and distributions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanin
from fanin import sampling
from fanin.errors import ArgumentError, OutError, ShapeError

SOURCE = sampling.name_stream(11, "w", ())
LAWS = [
    sampling.Normal(0.0, 1.0),
    sampling.Normal(0.5, 0.1),
    sampling.Uniform(-1.0, 1.0),
    sampling.Uniform(0.1, 0.3),
    sampling.TruncatedNormal(0.0, 1.0),
    sampling.TruncatedNormal(0.2, 0.7, -1.0, 3.0),
]
DTYPES = ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn"]


def made(law, shape, dtype="float32", window=None, out=None, axes="io"):
    return sampling.draw(law, sampling.canvas(shape, dtype, window, out), SOURCE, axes)


@st.composite
def windows(draw, rank_from=0, rank_to=5):
    """A shape and a rectangle of it, empty ones included."""
    rank = draw(st.integers(rank_from, rank_to))
    shape = tuple(draw(st.integers(0, 9)) for _ in range(rank))
    window = []
    for size in shape:
        start, stop = sorted((draw(st.integers(0, size)), draw(st.integers(0, size))))
        window.append(slice(start, stop))
    return shape, tuple(window)


@st.composite
def any_axes(draw, rank):
    """``io``, ``oi`` or any other assignment of roles."""
    if rank < 2 or draw(st.booleans()):
        return draw(st.sampled_from(["io", "oi"]))
    order = draw(st.permutations(range(rank)))
    n_out = draw(st.integers(1, rank - 1))
    n_in = draw(st.integers(1, rank - n_out))
    return fanin.Axes(out=tuple(order[:n_out]), in_=tuple(order[n_out : n_out + n_in]))


@given(data=st.data(), law=st.sampled_from(LAWS), dtype=st.sampled_from(DTYPES))
def test_any_window_is_the_slice_of_the_whole(data, law, dtype):
    shape, window = data.draw(windows(), label="shape and window")
    axes = data.draw(any_axes(len(shape)), label="axes")
    whole = made(law, shape, dtype, axes=axes)
    part = made(law, shape, dtype, window, axes=axes)
    assert part.flags.c_contiguous
    assert part.shape == whole[window].shape
    assert part.tobytes() == whole[window].tobytes()


@given(data=st.data(), law=st.sampled_from(LAWS))
def test_values_follow_the_canonical_index(data, law):
    """Any orientation is a rearrangement of the same vector of draws."""
    shape, _ = data.draw(windows(rank_from=1), label="shape")
    axes = data.draw(any_axes(len(shape)), label="axes")
    vector = made(law, (math.prod(shape),))
    order = fanin.fans.as_axes(axes).order(len(shape))
    canonical = vector.reshape([shape[axis] for axis in order])
    assert np.array_equal(made(law, shape, axes=axes), canonical.transpose(np.argsort(order)))


@st.composite
def layouts(draw, shape):
    """A number of bytes, and how to see an array in them: any order, gaps, direction and address."""
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64", "float16"])))
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -2])) for _ in order]
    stored, part = [], []
    for axis, step in zip(order, steps, strict=True):
        extent = shape[axis] * abs(step)
        stored.append(extent + draw(st.sampled_from([0, 0, 1, 5])))
        part.append(slice(0, extent, step) if step > 0 or extent == 0 else slice(extent - 1, None, step))
    shift, size = draw(st.integers(0, 17)), math.prod(stored) * dtype.itemsize

    def view(memory):
        array = memory[shift : shift + size].view(dtype).reshape(stored)
        return array[(*part, ...)].transpose(np.argsort(order).tolist())

    return size + 32, view


@given(data=st.data(), law=st.sampled_from(LAWS))
def test_a_buffer_of_any_strides_takes_the_values_and_nothing_around_it_changes(data, law):
    shape, window = data.draw(windows(rank_to=4), label="shape and window")
    size, view = data.draw(layouts(tuple(s.stop - s.start for s in window)), label="memory")
    axes = data.draw(any_axes(len(shape)), label="axes")
    memory = np.full(size, 0x5A, np.uint8)
    twin, out = memory.copy(), view(memory)
    view(twin)[...] = made(law, shape, out.dtype, window, axes=axes)
    assert made(law, shape, None, window, out, axes) is out
    assert np.array_equal(memory, twin)


def test_a_fortran_ordered_and_a_reversed_buffer_are_filled_in_place():
    expected = made(LAWS[0], (37, 41))
    for out in (np.empty((37, 41), np.float32, order="F"), np.empty((37, 41), np.float32)[::-1, ::-1]):
        assert made(LAWS[0], (37, 41), None, None, out) is out
        assert np.array_equal(out, expected)


def test_a_file_mapped_into_memory_is_a_buffer(tmp_path):
    out = np.memmap(tmp_path / "w.bin", np.float32, "w+", shape=(30, 40))
    assert made(LAWS[0], (30, 40), None, None, out) is out
    assert np.array_equal(
        np.fromfile(tmp_path / "w.bin", np.float32).reshape(30, 40), made(LAWS[0], (30, 40))
    )


def test_a_window_costs_its_own_size():
    """A few elements of a tensor of 2**60: nothing of the whole is made."""
    part = made(LAWS[0], (2**30, 2**30), window=(slice(2**29, 2**29 + 2), slice(5, 8)), axes="oi")
    assert np.array_equal(
        part[1], made(LAWS[0], (2**62,), window=(slice(((2**29 + 1) << 30) + 5, ((2**29 + 1) << 30) + 8),))
    )


@pytest.mark.parametrize("axes", ["io", "oi"])
def test_axes_of_size_one_do_not_matter(axes):
    vector = made(LAWS[0], (12,))
    for shape in ((1, 12), (12, 1), (1, 12, 1), (1, 1, 1, 12)):
        assert np.array_equal(made(LAWS[0], shape, axes=axes).ravel(), vector)
    assert made(LAWS[0], ()).item() == vector[0]
    assert made(LAWS[0], (1, 1, 1), axes=axes).item() == vector[0]


# --- windows and buffers that do not fit ---------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (None, (slice(0, 4), slice(0, 6))),
        ((slice(None), slice(2, None)), (slice(0, 4), slice(2, 6))),
        ((slice(None, 3), slice(0, 6, 1)), (slice(0, 3), slice(0, 6))),
        ((slice(4, 4), slice(0, 0)), (slice(4, 4), slice(0, 0))),
        ((slice(np.int64(1), np.uint8(2)), slice(0, 6)), (slice(1, 2), slice(0, 6))),
    ],
)
def test_a_window_is_made_explicit(window, expected):
    assert sampling.check_window(window, (4, 6)) == expected


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ((slice(0, 5), slice(0, 6)), r"axis 0 of `shape` \(4, 6\).*stop <= 4"),
        ((slice(0, 4), slice(5, 7)), r"axis 1 of `shape` \(4, 6\).*stop <= 6"),
        ((slice(-1, 4), slice(0, 6)), "axis 0"),
        ((slice(0, -1), slice(0, 6)), "axis 0"),
        ((slice(3, 2), slice(0, 6)), "axis 0"),
        ((slice(0, 4, 2), slice(0, 6)), "axis 0"),
        ((slice(0, 4, -1), slice(0, 6)), "axis 0"),
        ((slice(0.5, 2.5), slice(0, 6)), "axis 0"),
        ((slice("a", 2), slice(0, 6)), "axis 0"),
        ((slice(0, 4),), "has 1 slices, but `shape` .* has 2 axes"),
        ((slice(0, 4), slice(0, 6), slice(0, 1)), "has 3 slices"),
        ((), "has 0 slices"),
        ((0, 1), "must be a tuple of slices"),
        ([slice(0, 4), slice(0, 6)], "must be a tuple of slices"),
        (slice(0, 4), "must be a tuple of slices"),
        ("ab", "must be a tuple of slices"),
    ],
)
def test_a_window_outside_the_shape_is_one_clear_error(window, said):
    with pytest.raises(ShapeError, match=f"`window` .*{said}"):
        sampling.check_window(window, (4, 6))


def test_out_must_be_a_writable_array_of_the_windows_shape_and_dtype():
    frozen = np.zeros((2, 3), np.float32)
    frozen.setflags(write=False)
    wrong = [
        ([0.0] * 6, "`out` must be a NumPy array, got list"),
        (np.zeros((3, 2), np.float32), r"`out` has shape \(3, 2\), but the window has shape \(2, 3\)"),
        (np.zeros(6, np.float32), r"`out` has shape \(6,\)"),
        (np.zeros((2, 3)), "`out` has dtype float64, but `dtype` is float32"),
        (frozen, "`out` is read-only"),
        (np.broadcast_to(np.zeros(3, np.float32), (2, 3)), "`out` is read-only"),
    ]
    for out, said in wrong:
        with pytest.raises(OutError, match=said):
            sampling.canvas((2, 3), "float32", None, out)


def strided(size, shape, strides):
    """A view with any strides, in elements, of a fresh array."""
    array = np.zeros(size, np.float32)
    return np.lib.stride_tricks.as_strided(array, shape, [step * 4 for step in strides])


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((3, 4), (0, 1)),
        ((3, 4), (1, 1)),
        ((3, 4), (2, 1)),
        ((4, 4), (3, 2)),
        ((2, 2, 2), (1, 2, 3)),
        ((5,), (0,)),
    ],
)
def test_an_overlapping_out_is_refused(shape, strides):
    out = strided(100, shape, strides)
    assert sampling.overlaps_itself(out)
    with pytest.raises(OutError, match=r"`out` overlaps itself \(shape .*, strides .*\)"):
        sampling.canvas(shape, None, None, out)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((3, 4), (4, 1)),
        ((3, 4), (1, 3)),
        ((3, 2), (1, 3)),
        ((2, 3), (5, 2)),  # interleaved: the rows' addresses mix and never meet
        ((3, 1, 4), (4, 0, 1)),
        ((0, 4), (0, 0)),
        ((2, 2, 3), (1, 6, 2)),
        ((1,), (0,)),
        ((), ()),
    ],
)
def test_strides_without_overlap_are_taken(shape, strides):
    out = strided(100, shape, strides)
    assert not sampling.overlaps_itself(out)
    assert np.array_equal(made(LAWS[0], shape, None, None, out), made(LAWS[0], shape))


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    steps=st.lists(st.integers(-6, 6), min_size=3, max_size=3),
    itemsize=st.sampled_from([1, 2, 4]),
)
def test_overlap_is_whether_two_elements_share_a_byte(shape, steps, itemsize):
    strides = tuple(steps[: len(shape)])
    base = np.zeros(200, np.uint8)[100:]  # strides may lead 54 bytes back
    dtype = np.dtype(f"u{itemsize}")
    out = np.lib.stride_tricks.as_strided(base.view(dtype), shape, strides)
    touched = [
        sum(x * s for x, s in zip(place, strides, strict=True)) + byte
        for place in np.ndindex(shape)
        for byte in range(itemsize)
    ]
    assert sampling.overlaps_itself(out) == (len(set(touched)) < len(touched))


# --- distributions -------------------------------------------------------------------------------

FINITE = st.floats(-1e30, 1e30, allow_nan=False, allow_subnormal=False)


@given(
    bounds=st.tuples(FINITE, FINITE)
    .map(sorted)
    .filter(lambda b: b[1] - b[0] > max(1e-30, 1e-5 * max(map(abs, b))))
)
def test_uniform_values_lie_strictly_inside_their_bounds(bounds):
    law = sampling.Uniform(*bounds)
    for dtype in ("float32", "float64"):
        values = made(law, (4096,), dtype).astype(np.float64)
        assert bounds[0] < values.min() <= values.max() < bounds[1]


def test_uniform_bounds_are_rounded_inward_to_float32():
    """0.1 is no float32: the nearest is above it. 0.7's is below 0.7, -0.7's above: each is inside."""
    kind, (mid, half, smallest, largest) = sampling.Uniform(0.1, 0.7).recipe(wide=False)
    below, above = np.float32(0.1), np.float32(0.7)
    assert kind == "uniform"
    assert float(below) > 0.1
    assert float(above) < 0.7
    assert smallest == np.nextafter(below, np.float32(1))
    assert largest == np.nextafter(above, np.float32(0))
    assert mid == float(below) / 2 + float(above) / 2
    assert half == float(above) / 2 - float(below) / 2
    outward = np.float32(0.3)  # above 0.3, so as an upper bound its neighbour is taken
    assert float(outward) > 0.3
    _, (_, _, _, largest) = sampling.Uniform(0.0, 0.3).recipe(wide=False)
    assert largest == np.nextafter(np.nextafter(outward, np.float32(0)), np.float32(0))


def test_equal_uniform_bounds_are_a_constant():
    for value in (0.0, 0.1, -3.5):
        for dtype in ("float32", "float64"):
            values = made(sampling.Uniform(value, value), (50,), dtype)
            assert np.all(values == np.dtype(dtype).type(value))


def test_uniform_bounds_with_nothing_between_are_refused():
    with pytest.raises(
        ArgumentError, match=r"no float32 lies strictly between 1.0 and 1.0000001.*; widen the bounds"
    ):
        made(sampling.Uniform(1.0, 1.0000001), (3,))
    made(sampling.Uniform(1.0, 1.0000001), (3,), "float64")


def test_wide_bounds_do_not_overflow():
    law = sampling.Uniform(-3e38, 3e38)
    assert np.all(np.isfinite(made(law, (1000,))))
    assert law.mean == 0.0
    assert law.std == pytest.approx(6e38 / math.sqrt(12))
    double = sampling.Uniform(-1.7e308, 1.7e308)
    assert np.all(np.isfinite(made(double, (1000,), "float64")))
    assert double.std == pytest.approx(1.7e308 / math.sqrt(3))


@given(mean=FINITE, std=st.floats(0, 1e30, allow_subnormal=False))
def test_a_normal_value_is_mean_plus_std_times_z_one_rounding_each(mean, std):
    z = made(sampling.Normal(0.0, 1.0), (1000,))
    values = made(sampling.Normal(mean, std), (1000,))
    assert np.array_equal(values, np.float32(mean) + np.float32(std) * z)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_no_value_is_beyond_the_reach(law):
    values = made(law, (200_000,)).astype(np.float64)
    assert np.abs(values).max() <= law.reach
    assert str(law)


# --- integers ------------------------------------------------------------------------------------


def drawn_integers(low, high, dtype, size=50_000):
    return sampling.integers(low, high, sampling.canvas((size,), dtype, None, None), SOURCE)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, (1 << 17) - 1, "int32"),
        (0, 3, "int32"),
        (-5, 5, "int8"),
        (0, 256, "uint8"),
        (-128, 128, "int8"),
        (7, 8, "int64"),
        (0, 1 << 16, "uint16"),
        (0, (1 << 16) + 1, "uint32"),
        (-(1 << 63), 1 << 63, "int64"),
        (0, 1 << 64, "uint64"),
        (-3, 10**18, "int64"),
    ],
)
def test_integers_are_the_words_scaled_down(low, high, dtype):
    """low + floor(u (high - low)): u of 32 bits for up to 2**16 integers, of 64 bits for more."""
    size = 1 << 20 if high == (1 << 17) - 1 else 3000  # enough to meet a word whose low half decides
    found = drawn_integers(low, high, dtype, size)
    low_key = SOURCE.low
    words, lows = (
        sampling.bits(sampling.canvas((size,), "uint32", None, None), source).astype(object)
        for source in (SOURCE, sampling.Stream(low_key, low_key, low_key))
    )
    count, doubled = high - low, words * 2**32 + lows
    expected = low + (words * count // 2**32 if count <= 1 << 16 else doubled * count // 2**64)
    assert found.dtype == np.dtype(dtype)
    assert found.tolist() == expected.tolist()


@given(word=st.integers(0, 2**64 - 1), count=st.integers(1, 2**64))
def test_the_high_product_is_exact(word, count):
    high, low = (np.array([part], np.uint64) for part in (word >> 32, word & 0xFFFFFFFF))
    assert sampling._high_product(high, low, count).tolist() == [word * count >> 64]


@pytest.mark.parametrize("count", [2, 3, 10, 256])
def test_every_integer_is_as_likely(count):
    """Chi-square of f = count - 1 degrees: mean f, variance 2 f; within 6.5 deviations."""
    found = drawn_integers(-1, count - 1, "int32")
    tally = np.bincount(found + 1, minlength=count)
    expected = found.size / count
    chi_square = float(np.sum((tally - expected) ** 2 / expected))
    assert tally.size == count
    assert abs(chi_square - (count - 1)) < 6.5 * math.sqrt(2 * (count - 1))


STORED = [  # how a tensor (out, in, *field) may lie in memory
    pytest.param(lambda: np.zeros((40, 3, 5, 70), np.float32).transpose(0, 3, 1, 2), id="channels last"),
    pytest.param(lambda: np.zeros((300, 800), np.float32)[:, ::2], id="every second"),
    pytest.param(lambda: np.zeros((700, 9), np.float32)[:, :7], id="short padded rows"),
    pytest.param(lambda: np.zeros((2, 90_000), np.float32).T, id="thin transposed"),
    pytest.param(lambda: np.zeros((90_000, 2), np.float32).T, id="wide transposed"),
    pytest.param(lambda: np.zeros((3, 70_000), np.float32)[:, ::-1], id="backwards"),
    pytest.param(lambda: np.zeros((1, 1, 140_000), np.float16)[:, :, ::2], id="one long run"),
    pytest.param(lambda: np.zeros((64, 8, 40), np.float32).transpose(1, 2, 0), id="heads"),
]


@pytest.mark.parametrize("make", STORED)
@pytest.mark.parametrize("init", [fanin.RandomNormal(), fanin.RandomUniform(-1, 1), fanin.TruncatedNormal()])
def test_memory_of_any_strides_gets_the_dense_numbers(make, init):
    out = make()
    dense = init(out.shape, seed=1, name="w", axes="oi", dtype=out.dtype)
    init(out.shape, seed=1, name="w", axes="oi", out=out)
    assert (out == dense).all()
    window = tuple(slice(size // 5, size - size // 4) for size in out.shape)
    out[...] = 0
    init(out.shape, seed=1, name="w", axes="oi", window=window, out=out[window])
    assert (out[window] == dense[window]).all()
    assert np.count_nonzero(out) == np.count_nonzero(dense[window])
