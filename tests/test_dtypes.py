"""float32 is canonical; narrower floats are its single rounding, float64 has its own law."""

import contextlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanin
from fanin import dtypes
from fanin.errors import DtypeError

NARROW = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
}
DRAWN = [
    fanin.RandomNormal(),
    fanin.RandomNormal(0.3, 0.02),
    fanin.RandomUniform(-0.05, 0.05),
    fanin.TruncatedNormal(0.0, 0.5),
    fanin.TruncatedNormal(0.0, 1.0, -1.0, 3.0),
    fanin.HeNormal(),
]
each_narrow = pytest.mark.parametrize("dtype", NARROW)


@each_narrow
@pytest.mark.parametrize("init", DRAWN, ids=str)
@pytest.mark.parametrize("axes", ["io", "oi"])
def test_a_narrow_float_is_the_float32_rounded_once(dtype, init, axes, same_bits):
    whole = init((123, 67), seed=5, name="w", axes=axes)
    same_bits(init((123, 67), seed=5, name="w", axes=axes, dtype=dtype), whole.astype(NARROW[dtype]))


@each_narrow
@given(exponent=st.integers(-30, 1), sign=st.sampled_from([-1.0, 1.0]))
def test_a_narrow_float_is_rounded_once_at_any_scale(dtype, exponent, sign):
    """Through its subnormals too, where float16 and float8 lose bits one by one."""
    init = fanin.RandomNormal(sign * 2.0**exponent, 2.0**exponent)
    whole = init((500,), seed=1, name="w")
    narrow = init((500,), seed=1, name="w", dtype=dtype)
    assert narrow.dtype == NARROW[dtype]
    assert narrow.tobytes() == whole.astype(NARROW[dtype]).tobytes()


def test_an_eight_bit_tensor_larger_than_its_scratch_is_rounded_element_by_element(same_bits):
    shape = (3, 5, 70_001)
    whole = fanin.RandomNormal()(shape, seed=5, name="w", axes="oi")
    narrow = fanin.RandomNormal()(shape, seed=5, name="w", axes="oi", dtype="float8_e5m2")
    same_bits(narrow, whole.astype(ml_dtypes.float8_e5m2))
    turned = fanin.RandomNormal()(shape[::-1], seed=5, name="w", dtype="float8_e5m2")
    same_bits(turned, fanin.RandomNormal()(shape[::-1], seed=5, name="w").astype(ml_dtypes.float8_e5m2))


@pytest.mark.parametrize(
    "init", [fanin.RandomNormal(), fanin.TruncatedNormal(), fanin.RandomUniform(-1, 1)], ids=str
)
def test_a_double_refines_the_float_of_the_same_element(init):
    """|z64 - z32| <= 2e-6 max(1, |z|) plus the cell's width, which is below 1e-5 within 5 sigma."""
    whole = init((100_000,), seed=3, name="w")
    double = init((100_000,), seed=3, name="w", dtype="float64")
    assert double.dtype == np.float64
    assert np.max(np.abs(double - whole) / np.maximum(1, np.abs(double))) < 1e-5
    assert len(np.unique(double)) == double.size
    assert not np.array_equal(double.astype(np.float32), whole)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("float32", np.float32),
        (np.float32, np.float32),
        (np.dtype("float64"), np.float64),
        ("f2", np.float16),
        (float, np.float64),
        (int, np.int64),
        (bool, np.bool_),
        ("bfloat16", ml_dtypes.bfloat16),
        (ml_dtypes.bfloat16, ml_dtypes.bfloat16),
        (np.dtype(ml_dtypes.float8_e4m3fn), ml_dtypes.float8_e4m3fn),
        ("float8_e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
        ("=f4", np.float32),
    ],
)
def test_a_dtype_has_many_names(given, expected):
    assert dtypes.as_dtype(given) == np.dtype(expected)


def test_a_dtype_with_a_numpy_twin_is_taken_for_it():
    """Such as TensorFlow's."""

    class Foreign:
        as_numpy_dtype = ml_dtypes.bfloat16

    assert dtypes.as_dtype(Foreign()) == np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    "given", ["float31", "bfloat17", "", "float8", "nonsense", 3, object(), ("f4",), "(2", "f4\0", "(-1,)f4"]
)
def test_an_unknown_dtype_is_one_clear_error(given):
    with pytest.raises(DtypeError, match=r"`dtype` .* is unknown") as caught:
        dtypes.as_dtype(given)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_an_unknown_dtype_lists_the_near_ones():
    with pytest.raises(DtypeError, match=r"`dtype` 'bfloat61' is unknown; did you mean .*bfloat16"):
        dtypes.as_dtype("bfloat61")
    with pytest.raises(DtypeError, match="expected one of float16, float32, float64, bfloat16"):
        dtypes.as_dtype(3)


@given(text=st.text(max_size=8))
def test_no_text_breaks_the_search_for_a_dtype(text):
    """It is a dtype or one clear error, whatever NumPy raises."""
    with contextlib.suppress(DtypeError):
        assert isinstance(dtypes.as_dtype(text), np.dtype)


def test_swapped_bytes_are_refused():
    swapped = np.dtype("f4").newbyteorder("S")
    with pytest.raises(DtypeError, match="has swapped bytes; pass float32"):
        dtypes.as_dtype(swapped)
    with pytest.raises(DtypeError, match="has swapped bytes"):
        fanin.RandomNormal()((3,), seed=0, out=np.zeros(3, swapped))


@pytest.mark.parametrize(
    "dtype", ["int8", "uint64", "bool", "longdouble", "U3", "O", "M8[s]", "V4", [("a", "f4")]]
)
@pytest.mark.parametrize("init", [*DRAWN, fanin.Orthogonal()], ids=str)
def test_a_random_draw_is_floating(dtype, init):
    with pytest.raises(
        DtypeError, match="cannot hold a random draw; expected one of float16, float32"
    ) as caught:
        init((4, 4), seed=0, dtype=dtype)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_complex_draw_is_refused_for_now(dtype):
    with pytest.raises(DtypeError, match=f"`dtype` {dtype} is complex, which is not supported yet"):
        fanin.RandomNormal()((3,), seed=0, dtype=dtype)


@pytest.mark.parametrize("dtype", [*NARROW, "float32", "float64"])
def test_the_largest_value_is_the_dtypes(dtype):
    assert dtypes.largest(np.dtype(NARROW.get(dtype, dtype))) == float(
        ml_dtypes.finfo(NARROW.get(dtype, dtype)).max
    )


LIMITS = [
    (fanin.RandomNormal(0.0, 1.0), 7.0),
    (fanin.RandomNormal(-3.0, 1.0), 10.0),
    (fanin.RandomUniform(-1.0, 0.25), 1.0),
    (fanin.TruncatedNormal(0.0, 1.0), 2.0),
    (fanin.TruncatedNormal(1.0, 1.0, -1.0, 3.0), 4.0),
    (fanin.Orthogonal(1.0), 1.0),
]


@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
@pytest.mark.parametrize(("init", "reach"), LIMITS, ids=str)
def test_values_beyond_the_dtype_are_an_error_and_nothing_saturates(dtype, init, reach):
    """Seven sigma, a bound or a gain may touch the largest value; a little more is refused."""
    numpy_dtype = np.dtype(NARROW.get(dtype, dtype))
    factor = dtypes.largest(numpy_dtype) / reach

    def scaled(by):
        fields = {
            key: value * by if key not in ("name", "lower", "upper") else value
            for key, value in init.to_dict().items()
        }
        return fanin.from_dict(fields)

    values = scaled(factor * 0.999999)((40, 40), seed=0, name="w", dtype=dtype)
    assert np.all(np.isfinite(values.astype(np.float64)))
    out = np.full((40, 40), 3, numpy_dtype)
    with pytest.raises(
        DtypeError, match=rf"beyond {dtype}'s largest value .*; use a wider dtype or a smaller scale"
    ):
        scaled(factor * 1.000001)((40, 40), seed=0, name="w", out=out)
    assert np.all(out == numpy_dtype.type(3))


@pytest.mark.parametrize(("lower", "upper"), [(8.0, None), (None, -8.0), (6.9, None)])
def test_a_far_tail_has_no_values_beyond_the_dtype_either(lower, upper):
    """A cut beyond 7 sigma still has a tail: it fits the dtype, or is refused."""
    for stddev in (4000.0, 5000.0, 6500.0, 7500.0, 8000.0):
        init = fanin.TruncatedNormal(0.0, stddev, lower, upper)
        with contextlib.suppress(DtypeError):
            assert np.all(np.isfinite(init((200_000,), seed=0, name="w", dtype="float16"))), stddev


def test_bounds_may_be_reached_by_rounding_and_passed_by_half_a_unit():
    """U(-1.003, 1.003): float16 has 1.0029296875 and 1.00390625 there; float32 stays strictly inside."""
    init = fanin.RandomUniform(-1.003, 1.003)
    whole = init((100_000,), seed=0, name="w")
    assert np.abs(whole).max() < 1.003
    narrow = init((100_000,), seed=0, name="w", dtype="float8_e4m3fn").astype(np.float64)
    assert np.abs(narrow).max() == 1.0
    coarse = fanin.RandomUniform(-1.2, 1.2)((100_000,), seed=0, name="w", dtype="float8_e4m3fn")
    assert np.abs(coarse.astype(np.float64)).max() == 1.25


@pytest.mark.parametrize("dtype", [*NARROW, "float32", "float64", "int8", "bool"])
def test_what_is_finite_is_told_for_every_pattern_of_bits(dtype):
    kind = dtypes.as_dtype(dtype)
    if kind.itemsize < 4:
        values = np.arange(1 << 8 * kind.itemsize, dtype=f"u{kind.itemsize}").view(kind)
    else:
        rare = [0.0, -0.0, np.nan, np.inf, -np.inf, np.finfo(kind).max, np.finfo(kind).tiny, -1.5]
        values = np.array(rare, kind)
    told = [dtypes.is_finite(np.full(9, value, kind)) for value in values]
    real = kind.kind == "f" or "float" in kind.name
    with np.errstate(invalid="ignore"):
        expected = np.isfinite(values.astype(np.float64)) if real else np.ones(len(values), bool)
    np.testing.assert_array_equal(told, expected)
    last = np.zeros(dtypes.CACHED + 2, kind)
    assert dtypes.is_finite(last)
    if real:
        last[-1] = np.nan
        assert not dtypes.is_finite(last)
