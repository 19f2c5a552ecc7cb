"""Combinators: what they add to an inner initializer, and what they leave alone."""

import json
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanin
from fanin import Axes
from fanin.errors import (
    ArgumentError,
    DtypeError,
    ExpressionError,
    OutError,
    SeedError,
    ShapeError,
    UnknownNameError,
)

NORMAL, HE = fanin.RandomNormal(), fanin.HeNormal()


def draw(init, shape, **given):
    return init(shape, **{"seed": 1, "name": "w", **given})


# --- Scaled --------------------------------------------------------------------------------------


def test_a_scaled_draw_is_the_float32_product():
    """One rounding of the exact product of two float32 numbers."""
    factor = 1 / math.sqrt(24)
    inner, scaled = (draw(init, (40, 30)).ravel() for init in (HE, fanin.Scaled(HE, factor)))
    single = Fraction(float(np.float32(factor)))
    for x, y in zip(inner[:300].tolist(), scaled[:300].tolist(), strict=True):
        exact = single * Fraction(x)
        below, above = (Fraction(float(np.nextafter(np.float32(y), np.float32(s * np.inf)))) for s in (-1, 1))
        assert abs(exact - Fraction(y)) <= min(abs(exact - below), abs(exact - above))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("inner", ["random_normal", "orthogonal", "scaled(he_normal, 3.3)"])
def test_a_scaled_narrow_tensor_is_rounded_once_after_the_product(inner, dtype):
    init = fanin.Scaled(inner, 0.3)
    single = draw(init, (64, 48))
    assert draw(init, (64, 48), dtype=dtype).tobytes() == single.astype(np.dtype(dtype)).tobytes()
    twice = draw(fanin.get(inner), (64, 48), dtype=dtype).astype(np.float32) * np.float32(0.3)
    assert twice.astype(np.dtype(dtype)).tobytes() != single.astype(np.dtype(dtype)).tobytes()


def test_a_scaled_float64_is_a_float64_product():
    inner = draw(NORMAL, (30, 30), dtype="float64")
    assert np.array_equal(draw(fanin.Scaled(NORMAL, 0.1), (30, 30), dtype="float64"), inner * 0.1)


def test_scaled_tells_its_numbers():
    said = fanin.Scaled(fanin.RandomUniform(-1.0, 3.0), -0.5).describe((10, 10))
    assert (said.mean, said.limit, said.std) == (-0.5, 1.0, pytest.approx(1 / math.sqrt(3)))
    said = fanin.Scaled(HE, 0.5).describe((100, 10))
    assert said.std == HE.describe((100, 10)).std / 2
    assert said.std_before == HE.describe((100, 10)).std_before / 2
    assert said.fans == fanin.Fans(100, 10)
    assert "0.5 times: normal" in said.distribution
    assert fanin.Scaled("dirac", 2).describe((3, 4, 4)).std is None


def test_scaled_works_on_stacks_and_padding():
    axes = Axes.parse("(s o) i -> s : o | i", members={"s": ("q", "k")})
    stored = draw(fanin.Scaled(HE, 0.5), (8, 6), name="{}_proj.weight", axes=axes)
    alone = draw(HE, (4, 6), name="k_proj.weight", axes="oi")
    assert np.array_equal(stored[4:], alone / 2)
    padded = draw(fanin.Scaled(HE, 0.5), (10, 4), axes=Axes(out=(0,), in_=(1,), logical=(7, 4)))
    assert not padded[7:].any()
    assert padded[:7].all()


def test_nothing_saturates():
    with pytest.raises(DtypeError, match=r"scaled\(.*\) reaches .* beyond float16's largest value 65504"):
        draw(fanin.Scaled(NORMAL, 1e6), (20, 20), dtype="float16")
    with pytest.raises(DtypeError, match="beyond float8_e4m3fn's largest value 448"):
        draw(fanin.Scaled("ones", 500), (2, 2), dtype="float8_e4m3fn")
    with pytest.raises(DtypeError, match="reaches inf, beyond float32's largest value"):
        draw(fanin.Scaled("constant(1e30)", 1e30), (2, 2))
    with pytest.raises(DtypeError, match="`factor` reaches 1e\\+300, beyond float32's largest value"):
        draw(fanin.Scaled("zeros", 1e300), (2, 2))
    assert draw(fanin.Scaled("ones", 1e300), (2, 2), dtype="float64").max() == 1e300
    with pytest.raises(DtypeError, match="`dtype` int32 cannot hold a random draw"):
        draw(fanin.Scaled("ones", 2), (2, 2), dtype="int32")


def test_an_error_leaves_the_buffer_alone():
    out = np.full((2, 2), 7.0, np.float16)
    with pytest.raises(DtypeError, match="beyond float16"):
        fanin.Scaled("ones", 1e6)((2, 2), out=out)
    assert (out == 7).all()


# --- ScaledUnits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["oi", "io"])
def test_each_unit_has_its_factor_in_every_window(axes):
    shape, factors = ((3, 4, 5), [1.0, -2.0, 0.5]) if axes == "oi" else ((5, 4, 3), [1.0, -2.0, 0.5])
    whole = draw(fanin.ScaledUnits(HE, factors), shape, axes=axes)
    plain = draw(HE, shape, axes=axes)
    along = np.array(factors, np.float32)
    expected = plain * (along[:, None, None] if axes == "oi" else along)
    assert whole.tobytes() == expected.tobytes()
    window = (slice(1, 3), slice(2, 4), slice(0, 2))
    assert np.array_equal(
        draw(fanin.ScaledUnits(HE, factors), shape, axes=axes, window=window), whole[window]
    )


def test_units_of_other_number_are_refused():
    with pytest.raises(ShapeError, match="2 factors for 3 output units"):
        draw(fanin.ScaledUnits(HE, [1.0, 2.0]), (3, 4), axes="oi")
    with pytest.raises(ArgumentError, match="`factors` must be a list of numbers"):
        fanin.ScaledUnits(HE, 2.0)
    said = fanin.ScaledUnits(fanin.RandomNormal(0.0, 2.0), [1.0, 3.0]).describe((8, 2))
    assert said.std == pytest.approx(2 * math.sqrt(5))


# --- Blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "axes", "where"),
    [("out", "io", 1), ("out", "oi", 0), ("in", "io", 0), ("in", "oi", 1), (1, "oi", 1), (-2, "io", 0)],
)
def test_each_block_is_the_inner_tensor_of_its_own_name(axis, axes, where):
    w = draw(fanin.Blocks("glorot_uniform", 3, axis), (12, 18), axes=axes)
    for i, block in enumerate(np.split(w, 3, axis=where)):
        alone = draw(fanin.GlorotUniform(), block.shape, name=f"w[{i}]", axes=axes)
        assert np.array_equal(block, alone)
    assert len({block.tobytes() for block in np.split(w, 3, axis=where)}) == 3


def test_the_fans_are_those_of_one_block():
    said = fanin.Blocks("glorot_uniform", 3).describe((64, 192))
    assert said.fans == fanin.Fans(64, 64)
    assert said.limit == fanin.GlorotUniform().describe((64, 64)).limit
    assert said.shape == (64, 192)


def test_gates_of_a_recurrent_kernel_are_orthogonal_each():
    w = draw(fanin.Blocks("orthogonal", 4), (16, 64))
    for block in np.split(w, 4, axis=1):
        np.testing.assert_allclose(block.T @ block, np.eye(16), atol=1e-6)


def test_blocks_without_a_name_are_named_by_the_whole_shape():
    w = fanin.Blocks(NORMAL, 2)((4, 6), seed=1)
    assert np.array_equal(w[:, 3:], draw(NORMAL, (4, 3), name="unnamed:4x6[1]"))


def test_blocks_of_blocks():
    w = draw(fanin.Blocks(fanin.Blocks(NORMAL, 2, "in"), 3), (4, 6))
    assert np.array_equal(w[2:, 2:4], draw(NORMAL, (2, 2), name="w[1][1]"))


# --- WithRow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 3, -1, -7])
def test_one_row_is_constant_and_the_others_are_as_without(index):
    w = draw(fanin.WithRow(NORMAL, index, 0.25), (7, 5), axes="lookup")
    expected = draw(NORMAL, (7, 5), axes="lookup")
    expected[index] = 0.25
    assert np.array_equal(w, expected)


def test_a_row_of_a_padded_table_is_counted_without_the_padding():
    axes = Axes(out=(0,), in_=(1,), lookup=True, logical=(7, 5))
    w = draw(fanin.WithRow(NORMAL, -1, 0.25), (10, 5), axes=axes)
    assert (w[6] == 0.25).all()
    assert not w[7:].any()
    with pytest.raises(ShapeError, match=r"`index` \(=8\) is not one of the 7 rows of `shape` \(7, 5\)"):
        draw(fanin.WithRow(NORMAL, 8), (10, 5), axes=axes)


def test_with_row_tells_its_numbers():
    said = fanin.WithRow(fanin.RandomNormal(1.0, 2.0), 0, 5.0).describe((4, 3))
    assert said.mean == pytest.approx(0.75 * 1 + 0.25 * 5)
    assert said.std == pytest.approx(math.sqrt(0.75 * (4 + 1) + 0.25 * 25 - 4))
    assert "5 in row 0, elsewhere: normal" in said.distribution
    assert fanin.WithRow("zeros", 0)((3,)).tolist() == [0, 0, 0]


# --- Tile ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reps", [(1, 1), (3, 1), (1, 2), (2, 3), (6, 6)])
def test_a_tile_is_numpys(reps):
    shape = (12, 18)
    part = tuple(size // n for size, n in zip(shape, reps, strict=True))
    assert np.array_equal(draw(fanin.Tile(HE, reps), shape), np.tile(draw(HE, part), reps))


def test_a_tile_has_the_fans_of_its_part():
    said = fanin.Tile(HE, (4, 1)).describe((400, 10))
    assert said.fans == fanin.Fans(100, 10)
    assert said.std == HE.describe((100, 10)).std


def test_net2net_keeps_the_function():
    """Copied units whose outgoing weights are divided by the number of copies."""
    x = np.random.default_rng(0).normal(size=(9, 6))
    first, second = (draw(HE, shape, name=n, dtype="float64") for shape, n in (((6, 8), "a"), ((8, 3), "b")))
    small = np.maximum(x @ first, 0) @ second
    wide = draw(fanin.Tile(HE, (1, 3)), (6, 24), name="a", dtype="float64")
    down = draw(fanin.Scaled(fanin.Tile(HE, (3, 1)), 1 / 3), (24, 3), name="b", dtype="float64")
    np.testing.assert_allclose(np.maximum(x @ wide, 0) @ down, small, atol=1e-13)


# --- Masked --------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["io", "oi"])
def test_a_mask_is_as_the_tensor_is_stored(axes):
    mask = np.random.default_rng(0).random((8, 6)) < 0.5
    w = draw(fanin.Masked(HE, mask), (8, 6), axes=axes)
    assert np.array_equal(w, np.where(mask, draw(HE, (8, 6), axes=axes), 0))


def test_a_mask_broadcasts():
    w = draw(fanin.Masked(NORMAL, [[1], [0], [1]]), (2, 3, 4))
    assert not w[:, 1].any()
    assert w[:, ::2].all()
    assert draw(fanin.Masked("ones", True), (2,)).tolist() == [1, 1]


def test_a_mask_is_kept_and_compared_by_value():
    given = np.array([True, False])
    init = fanin.Masked(NORMAL, given)
    given[:] = False
    assert init.mask.tolist() == [True, False]
    with pytest.raises(ValueError, match="read-only"):
        init.mask[0] = False
    assert init == fanin.Masked(NORMAL, [1, 0]) != fanin.Masked(NORMAL, [0, 1])
    assert hash(init) == hash(fanin.Masked(NORMAL, [1, 0]))
    assert init != fanin.Masked(NORMAL, [[1, 0]])
    assert init != fanin.Masked(HE, [1, 0])
    assert init != NORMAL


def test_masked_tells_its_numbers():
    said = fanin.Masked(fanin.RandomNormal(2.0, 1.0), [1, 0, 0, 0]).describe((3, 4))
    assert said.mean == 0.5
    assert said.std == pytest.approx(math.sqrt(0.25 * 5 - 0.25))
    assert "0 in 9 of 12 elements, in the others: normal" in said.distribution


# --- all of them ---------------------------------------------------------------------------------

NESTED = [
    fanin.Scaled("he_normal", 0.5),
    fanin.Blocks("orthogonal", 2),
    fanin.WithRow("random_normal(0.0, 0.02)", 1, 0.5),
    fanin.Tile("glorot_uniform", (2, 1)),
    fanin.Masked("lecun_normal", [True, False, True, True]),
    fanin.ICNR("he_uniform", 2),
    fanin.LooksLinear("orthogonal(gain=2.0)", "in"),
    fanin.Scaled(fanin.Blocks(fanin.Tile(fanin.Scaled("ones", 2), (1, 2)), 2), 0.25),
    fanin.ScaledUnits("orthogonal", [0.5, 2.0, 1.0, -1.5]),
]


@pytest.mark.parametrize("init", NESTED, ids=str)
def test_they_are_stored_whole_and_come_back_equal(init):
    stored = init.to_dict()
    inner = stored["inner"]
    assert inner == init.inner.to_dict()
    again = fanin.from_dict(json.loads(json.dumps(stored)))
    assert again == init
    assert hash(again) == hash(init)
    assert type(init)(**{k: v for k, v in stored.items() if k != "name"}) == init


@pytest.mark.parametrize("init", NESTED, ids=str)
def test_what_couples_inside_couples_outside(init):
    assert init.coupled == ("orthogonal" in str(init))


EXPRESSIONS = [
    ("scaled(he_normal, 0.5)", NESTED[0]),
    ("Scaled(HeNormal(), factor=0.5)", NESTED[0]),
    ("scaled('he_normal', 0.5)", NESTED[0]),
    ("blocks(orthogonal, 2)", NESTED[1]),
    ("with_row(random_normal(0.0, 0.02), 1, value=0.5)", NESTED[2]),
    ("tile(inner=glorot_uniform, reps=(2, 1))", NESTED[3]),
    ("masked(lecun_normal, [True, False, True, True])", NESTED[4]),
    ("looks_linear(orthogonal(gain=2.0), 'in')", NESTED[6]),
    ("scaled(blocks(tile(scaled(ones, 2), (1, 2)), 2), 0.25)", NESTED[7]),
    ("scaled_units(orthogonal, [0.5, 2, 1, -1.5])", NESTED[8]),
]


@pytest.mark.parametrize(("expression", "expected"), EXPRESSIONS)
def test_an_expression_holds_expressions(expression, expected):
    assert fanin.get(expression) == expected


@pytest.mark.parametrize("init", [i for i in NESTED if not isinstance(i, fanin.Masked)], ids=str)
def test_text_is_an_expression(init):
    assert fanin.get(str(init)) == init


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("scaled(he_norml, 0.5)", "cannot read .* no initializer 'he_norml'; did you mean he_normal"),
        ("scaled(__import__('os'), 0.5)", "cannot read .* no initializer '__import__'"),
        ("scaled(he_normal)", "scaled takes inner, factor"),
        ("scaled(random_normal(std=1), 0.5)", "random_normal takes mean, stddev"),
        ("scaled(he_normal.name, 0.5)", "cannot read"),
        ("scaled(lambda: 0, 0.5)", "cannot read"),
        ("scaled([he_normal], 0.5)", "cannot read"),
        ("scaled(0.5, 0.5)", "expected a name, an expression or an initializer, got 0.5"),
    ],
)
def test_a_wrong_inner_expression_says_so(expression, said):
    with pytest.raises(ExpressionError, match=said):
        fanin.get(expression)


def test_a_wrong_argument_of_an_inner_expression_is_that_arguments_error():
    with pytest.raises(ArgumentError, match="`stddev` must be >= 0, got -1"):
        fanin.get("scaled(blocks(random_normal(0, -1), 2), 0.5)")
    with pytest.raises(UnknownNameError, match="no initializer 'he_norml'"):
        fanin.Scaled("he_norml", 0.5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fanin.Scaled(HE, math.nan), "`factor` must be finite"),
        (lambda: fanin.Scaled(HE, "2"), "`factor` must be a finite number, got '2'"),
        (lambda: fanin.Blocks(HE, 0), "`n` must be an integer >= 1, got 0"),
        (lambda: fanin.Blocks(HE, 2, "rows"), "`axis` must be an axis number, 'in' or 'out', got 'rows'"),
        (lambda: fanin.Blocks(HE, 2, True), "`axis` must be an axis number"),
        (lambda: fanin.Blocks(HE, 2, None), "`axis` must be an axis number"),
        (lambda: fanin.WithRow(HE, 0.0), "`index` must be an integer, got 0.0"),
        (lambda: fanin.WithRow(HE, True), "`index` must be an integer, got True"),
        (lambda: fanin.WithRow(HE, 0, math.inf), "`value` must be finite"),
        (lambda: fanin.Tile(HE, (2, 0)), "`reps` must be an integer >= 1, got 0"),
        (lambda: fanin.Tile(HE, 1.5), "`reps` must be an integer >= 1, got 1.5"),
        (lambda: fanin.Masked(HE, [0.5, 1]), "`mask` must hold truth values, or integers 0 and 1"),
        (lambda: fanin.Masked(HE, [2, 1]), "`mask` must hold truth values"),
        (lambda: fanin.Masked(HE, "1"), "`mask` must hold truth values"),
        (lambda: fanin.Masked(HE, [[1], [1, 0]]), "`mask` must be a full array"),
    ],
)
def test_a_wrong_argument_is_named_when_the_object_is_made(make, said):
    with pytest.raises(ArgumentError, match=said):
        make()


@pytest.mark.parametrize(
    ("init", "shape", "said"),
    [
        (fanin.Blocks(HE, 3), (4, 8), r"blocks: 3 must divide 8, axis 1 of `shape` \(4, 8\)"),
        (fanin.Blocks(HE, 2, 2), (4, 8), r"blocks: `axis` \(=2\) is not one of the 2 axes of `shape`"),
        (fanin.Blocks(HE, 2), (8,), r"blocks needs exactly one output axis, got 0 in `shape` \(8,\)"),
        (fanin.WithRow(HE, 4), (4, 8), r"`index` \(=4\) is not one of the 4 rows of `shape` \(4, 8\)"),
        (fanin.WithRow(HE, -5), (4, 8), r"`index` \(=-5\) is not one of the 4 rows"),
        (fanin.WithRow("ones", 0), (), "is not one of the 0 rows"),
        (fanin.Tile(HE, (3, 1)), (4, 8), r"tile: 3 must divide 4, axis 0 of `shape` \(4, 8\)"),
        (fanin.Tile(HE, 2), (4, 8), r"`reps` \(2,\) has 1 entries, but `shape` \(4, 8\) has 2 axes"),
        (fanin.Masked(HE, [1, 0]), (4, 8), r"`mask` of shape \(2,\) does not fit `shape` \(4, 8\)"),
    ],
)
def test_a_shape_that_does_not_fit_says_why(init, shape, said):
    with pytest.raises(ShapeError, match=said):
        draw(init, shape)
    with pytest.raises(ShapeError, match=said):
        init.describe(shape)


@pytest.mark.parametrize("init", NESTED, ids=str)
def test_the_inner_errors_pass_through_before_anything_is_written(init):
    shape = (3, 3, 8, 4)[-2 if isinstance(init, fanin.Tile) else 0 :]
    drawn = "ones" not in str(init)
    if drawn:
        with pytest.raises(SeedError, match="`seed` is required"):
            init(shape, name="w")
    with pytest.raises(OutError, match=r"`out` has shape \(2, 2\)"):
        draw(init, shape, out=np.empty((2, 2), np.float32))
    with pytest.raises(ShapeError, match="`window` has 1 slices"):
        draw(init, shape, window=(slice(0, 1),))


def test_what_needs_no_arithmetic_works_in_every_dtype():
    for dtype in ("int8", "bool", "complex64", "float8_e5m2"):
        for init in (
            fanin.Blocks("identity", 2),
            fanin.WithRow("ones", 0),
            fanin.Tile("identity", (2, 2)),
            fanin.Masked("ones", [1, 0]),
        ):
            w = init((4, 2), dtype=dtype)
            assert w.dtype.name == dtype
            assert np.array_equal(w.astype(np.complex64), init((4, 2)))
    with pytest.raises(DtypeError, match=r"`value` 0\.5 does not fit `dtype` int8"):
        fanin.WithRow("ones", 0, 0.5)((4, 2), dtype="int8")


@given(factor=st.floats(-1e6, 1e6), seed=st.integers(0, 99))
def test_scaling_by_powers_of_two_composes_and_bfloat16_follows(factor, seed):
    once = fanin.Scaled(NORMAL, factor)
    there = fanin.Scaled(fanin.Scaled(once, 4.0), 0.25)
    single = once((20,), seed=seed, name="w")
    assert there((20,), seed=seed, name="w").tobytes() == single.tobytes()
    narrow = there((20,), seed=seed, name="w", dtype="bfloat16")
    assert narrow.tobytes() == single.astype(ml_dtypes.bfloat16).tobytes()
