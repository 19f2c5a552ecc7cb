"""The laws of the catalogue for initializers that need shapes or arguments of their own: one row for each."""

import copy
import dataclasses
import json
import pickle
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanin
from fanin import Axes
from fanin.errors import OutError, SeedError, ShapeError

NAME = "layers.0.attn.q_proj.weight"
GROUPED = Axes(out=(0,), in_=(1,), groups=3)


@dataclass(frozen=True)
class Row:
    """An initializer with a shape in (out, in, field...) order."""

    init: fanin.Initializer
    shape: tuple[int, ...]
    axes: Axes | str = "oi"
    drawn: bool = True
    stored: bool = False  # it means the stored orientation: (in, out) is another tensor

    def __str__(self):
        return f"{self.init} {self.shape}"


def fixed(init, shape, axes="oi"):
    return Row(init, shape, axes, drawn=False)


TABLE = [
    fixed(fanin.Dirac(), (5, 4, 3)),
    fixed(fanin.Dirac(2), (6, 4, 4, 3)),
    fixed(fanin.Dirac(), (9, 2, 5), GROUPED),
    fixed(fanin.Bilinear(), (3, 4, 4, 5)),
    fixed(fanin.Bilinear(), (6, 1, 3, 3), GROUPED),
    fixed(fanin.HadamardIdentity(), (11, 5)),
    fixed(fanin.HadamardIdentity(), (4, 6, 3)),
    Row(fanin.DeltaOrthogonal(1.5), (7, 4, 3, 2)),
    Row(fanin.DeltaOrthogonal(), (9, 2, 3), GROUPED),
    Row(fanin.DeltaOrthogonal(), (600, 20, 1), "oi"),  # several row blocks
    Row(fanin.DeltaOrthogonal(), (2, 5, 3, 4), Axes(out=(3, 0), in_=(2,))),
    Row(fanin.ConvolutionOrthogonal1D(), (7, 4, 3)),
    Row(fanin.ConvolutionOrthogonal1D(), (2, 5, 3, 4), Axes(out=(3, 0), in_=(2,))),
    Row(fanin.ConvolutionOrthogonal2D(0.5), (5, 5, 3, 2)),
    Row(fanin.ConvolutionOrthogonal2D(), (9, 2, 2, 3), GROUPED),
    Row(fanin.ConvolutionOrthogonal3D(), (4, 3, 2, 1, 2)),
    Row(fanin.Sparse(0.3), (6, 9)),
    Row(fanin.Sparse(0.55, 2.0), (5, 3, 3, 2)),
    Row(fanin.Sparse(0.4), (3, 5, 4, 2), Axes(out=(2, 0), in_=(1,))),
    Row(fanin.Sinusoidal(), (9, 6), drawn=False, stored=True),
    Row(fanin.Sinusoidal(50.0, halves=True, closed=True), (9, 6), drawn=False, stored=True),
    Row(fanin.Siren(), (8, 6)),
    Row(fanin.Siren(20.0, first=True), (8, 6)),
    Row(fanin.Mimetic("query", 3), (12, 10)),
    Row(fanin.Mimetic("key", 3, 0.5, 0.1, "pair"), (12, 10)),
    Row(fanin.Mimetic("query", 3, pair="p"), (10, 3, 4), "d n h -> n h | d"),
    Row(fanin.Mimetic("value"), (7, 10)),
    Row(fanin.Mimetic("out"), (10, 7)),
    Row(fanin.ICNR("he_normal", 2), (12, 3, 3, 2)),
    Row(fanin.ICNR("orthogonal", 3, "depth_to_space"), (12, 5, 2)),
    Row(fanin.LooksLinear(), (8, 6)),
    Row(fanin.LooksLinear("he_uniform", "in"), (5, 6, 3)),
    Row(fanin.LooksLinear("he_uniform", "out"), (6, 5)),
    Row(fanin.Scaled("glorot_normal", -0.3), (7, 5, 2)),
    Row(fanin.Scaled("orthogonal", 3), (7, 5)),
    Row(fanin.ScaledUnits("glorot_normal", [1, -0.3, 2, 0.5]), (4, 5, 2)),
    Row(fanin.ScaledUnits("orthogonal", [1, 0.3, 2, 3, 0.5, 1.5]), (3, 5, 2), Axes(out=(2, 0), in_=(1,))),
    Row(fanin.Blocks("he_normal", 3), (12, 5, 2)),
    Row(fanin.Blocks("orthogonal", 2, "in"), (5, 8)),
    Row(fanin.Blocks("random_normal", 2, 1), (5, 8), stored=True),
    Row(fanin.WithRow("random_normal", 2, 0.5), (6, 5), stored=True),
    Row(fanin.WithRow("lecun_normal", -1), (6, 5), "lookup", stored=True),
    Row(fanin.Tile("he_normal", (2, 3)), (6, 9), stored=True),
    Row(fanin.Tile("random_normal", 2), (8,), stored=True),
    Row(fanin.Masked("he_normal", [True, False, True]), (6, 3), stored=True),
    Row(fanin.Masked("random_uniform", [[True], [False]]), (4, 2, 3), stored=True),
    Row(fanin.AsStored("glorot_uniform", 4), (9, 2, 3), GROUPED),
    Row(fanin.Scaled(fanin.Blocks(fanin.LooksLinear("orthogonal"), 2), 0.7), (12, 6)),
]
each_row = pytest.mark.parametrize("row", TABLE, ids=str)
each_drawn = pytest.mark.parametrize("row", [row for row in TABLE if row.drawn], ids=str)
DTYPES = ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2fnuz"]


def make(row, **given):
    usual = {"seed": 1, "name": NAME} if row.drawn else {}
    return row.init(row.shape, **{**usual, "axes": row.axes, **given})


def test_every_initializer_has_a_row_here_or_is_the_tutorials(tutorial):
    assert {row.init.name() for row in TABLE} == set(fanin.names()) - set(tutorial)


@st.composite
def windows(draw):
    row = draw(st.sampled_from(TABLE))
    ends = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in row.shape]
    return row, tuple(slice(*pair) for pair in ends), draw(st.sampled_from(DTYPES))


@given(case=windows())
def test_any_window_is_the_slice_of_the_whole(case):
    row, window, dtype = case
    whole, part = make(row, dtype=dtype), make(row, dtype=dtype, window=window)
    assert part.dtype == whole.dtype
    assert part.shape == whole[window].shape
    assert part.tobytes() == whole[window].tobytes()


@each_row
def test_each_element_and_each_line_alone_is_that_of_the_whole(row):
    """Every axis cut at every place, and the corners one by one."""
    whole = make(row)
    for axis, size in enumerate(row.shape):
        for at in range(0, size, max(1, size // 7)):
            window = [slice(0, n) for n in row.shape]
            window[axis] = slice(at, at + 1)
            assert make(row, window=tuple(window)).tobytes() == whole[tuple(window)].tobytes()
    for corner in np.ndindex((2,) * whole.ndim):
        at = tuple((size - 1) * end for size, end in zip(row.shape, corner, strict=True))
        window = tuple(slice(a, a + 1) for a in at)
        assert make(row, window=window).tobytes() == whole[at].tobytes()


@each_row
@pytest.mark.parametrize("strides", ["reversed", "transposed", "gaps"])
def test_a_given_buffer_of_any_strides_is_filled_in_place(row, strides):
    whole = make(row)
    if strides == "reversed":
        out = np.zeros(row.shape, np.float32)[(slice(None, None, -1),) * len(row.shape)]
    elif strides == "transposed":
        out = np.zeros(row.shape[::-1], np.float32).T
    else:
        out = np.zeros(tuple(2 * n for n in row.shape), np.float32)[(slice(None, None, 2),) * len(row.shape)]
    assert make(row, out=out) is out
    assert np.array_equal(out, whole)


@each_row
@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_a_narrow_tensor_is_the_float32_rounded_once(row, dtype):
    assert make(row, dtype=dtype).tobytes() == make(row).astype(np.dtype(dtype)).tobytes()


@each_row
def test_float64_refines_float32(row):
    wide, single = make(row, dtype="float64"), make(row).astype(np.float64)
    np.testing.assert_allclose(wide, single, rtol=1e-5, atol=2e-6 * np.abs(single).max())
    assert np.array_equal(wide == 0, single == 0)


ORIENTED = [row for row in TABLE if not row.stored and row.axes == "oi"]


@pytest.mark.parametrize("row", ORIENTED, ids=str)
def test_io_is_oi_turned(row):
    """The same seed and name give the same function, however the weight is stored."""
    rank = len(row.shape)
    stored = make(dataclasses.replace(row, shape=(*row.shape[2:], row.shape[1], row.shape[0]), axes="io"))
    there = stored.transpose(rank - 1, rank - 2, *range(rank - 2))
    assert np.array_equal(there, make(row))


def test_orientation_is_tested_for_most_rows():
    assert len(ORIENTED) >= 24


@pytest.mark.parametrize("row", ORIENTED, ids=str)
def test_members_of_a_stack_are_the_separate_tensors(row):
    """Three experts of one shape, stored along a first axis."""
    axes = Axes(out=(1,), in_=(2,), stack=(0,))
    names = ["layers.{}.attn.q_proj.weight", *(f"layers.{e}.attn.q_proj.weight" for e in range(3))]
    named = [{"name": name} if row.drawn else {} for name in names]
    stacked = make(dataclasses.replace(row, shape=(3, *row.shape), axes=axes), **named[0])
    for expert in range(3):
        assert np.array_equal(stacked[expert], make(row, **named[1 + expert]))


@each_row
def test_an_initializer_is_stored_and_comes_back_equal(row):
    stored = row.init.to_dict()
    assert stored["name"] == row.init.name()
    plain = json.loads(json.dumps(stored, allow_nan=False))
    assert plain == stored
    through_json = fanin.from_dict(plain)
    for again in (through_json, copy.deepcopy(row.init), pickle.loads(pickle.dumps(row.init))):
        assert type(again) is type(row.init)
        assert again == row.init
        assert hash(again) == hash(row.init)
        assert again.coupled == row.init.coupled
        assert make(dataclasses.replace(row, init=again)).tobytes() == make(row).tobytes()
    assert through_json.to_dict() == stored


@pytest.mark.parametrize("row", [row for row in TABLE if "array" not in str(row)], ids=str)
def test_text_is_the_expression_that_makes_it(row):
    assert fanin.get(str(row.init)) == row.init


@each_row
def test_an_initializer_is_frozen_and_documented(row):
    for field in (*row.init.__dataclass_fields__, "formula"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(row.init, field, 1.0)
    doc = type(row.init).__doc__
    assert doc.count(".. math::") == 1
    assert ">>> " in doc
    assert row.init.formula


@each_row
def test_describe_says_what_the_tensor_is(row):
    said = row.init.describe(row.shape, row.axes)
    assert said.shape == row.shape
    assert said.initializer == str(row.init)
    assert said.distribution in str(said)
    values = make(row, dtype="float64")
    if said.limit is not None:
        assert np.abs(values - said.mean).max() < said.limit


MANY = [
    Row(fanin.DeltaOrthogonal(), (48, 32, 3, 3)),
    Row(fanin.ConvolutionOrthogonal2D(2.0), (48, 32, 3, 3)),
    Row(fanin.Sparse(0.75, 0.5), (200, 300)),
    Row(fanin.Siren(), (200, 300)),
    Row(fanin.ICNR("he_normal", 2), (400, 100, 3, 3)),
    Row(fanin.LooksLinear("he_normal"), (400, 300)),
    Row(fanin.Scaled("random_normal(1.0, 2.0)", -0.5), (200, 300)),
    Row(fanin.Blocks("glorot_uniform", 3), (300, 300)),
    Row(fanin.WithRow("random_normal(1.0, 2.0)", 0, 3.0), (20, 3000)),
    Row(fanin.Tile("he_normal", (2, 2)), (400, 400)),
    Row(fanin.Masked("random_normal(1.0, 2.0)", [True, False]), (40000, 2)),
    Row(fanin.AsStored("he_normal"), (200, 300)),
]


@pytest.mark.parametrize("row", MANY, ids=str)
def test_the_numbers_that_describe_gives_are_the_samples(row):
    """Copies (at most 4 of each draw) leave n / 4 of n: six deviations of mean and second moment."""
    said = row.init.describe(row.shape, row.axes)
    values = make(row, dtype="float64")
    n = values.size / 4
    assert abs(values.mean() - said.mean) < 6 * said.std / np.sqrt(n)
    apart = (values - said.mean) ** 2
    assert abs(apart.mean() - said.std**2) < 6 * apart.std() / np.sqrt(n)


@each_drawn
def test_a_draw_needs_a_seed_and_depends_on_seed_and_name(row):
    with pytest.raises(SeedError, match="`seed` is required"):
        make(row, seed=None)
    names = (NAME, NAME.replace("0", "1"))
    values = {make(row, seed=seed, name=name).tobytes() for seed in (1, 2) for name in names}
    own_name = isinstance(row.init, fanin.Mimetic) and row.init.pair is not None
    assert len(values) == (2 if own_name else 4)
    assert make(row).tobytes() in values


@pytest.mark.parametrize("row", [row for row in TABLE if not isinstance(row.init, fanin.Mimetic)], ids=str)
def test_an_unnamed_tensor_is_named_by_its_own_shape(row):
    """Layers of one inner shape and different outer shapes do not share numbers."""
    unnamed = make(row, name=None)
    base = "unnamed:" + "x".join(map(str, row.shape))
    assert np.array_equal(unnamed, make(row, name=base))


@each_row
def test_empty_windows_work_and_errors_come_before_writing(row):
    empty = make(row, window=tuple(slice(0, 0) for _ in row.shape))
    assert empty.shape == (0,) * len(row.shape)
    out = np.full(row.shape, 7.0, np.float32)
    with pytest.raises(OutError, match=re.escape("but the window has shape")):
        make(row, out=out[:1], window=tuple(slice(0, n) for n in row.shape))
    if row.drawn:
        with pytest.raises(SeedError, match="`seed`"):
            make(row, seed=-1, out=out)
    with pytest.raises(ShapeError, match="`window`"):
        make(row, out=out, window=(slice(0, 1),) * (len(row.shape) + 1))
    assert (out == 7).all()


EMPTY = [
    (fanin.Dirac(2), (0, 3, 3)),
    (fanin.Bilinear(), (4, 0, 3)),
    (fanin.HadamardIdentity(), (0, 0)),
    (fanin.HadamardIdentity(), (4, 0)),
    (fanin.DeltaOrthogonal(), (4, 0, 3)),
    (fanin.DeltaOrthogonal(), (4, 3, 0)),
    (fanin.ConvolutionOrthogonal2D(), (4, 0, 3, 3)),
    (fanin.ConvolutionOrthogonal2D(), (4, 3, 3, 0)),
    (fanin.Sparse(0.5), (0, 4)),
    (fanin.Sparse(0.5), (4, 0)),
    (fanin.Siren(), (0, 3)),
    (fanin.Mimetic("query"), (0, 3)),
    (fanin.Mimetic("out"), (0, 0)),
    (fanin.ICNR("he_normal", 2), (0, 3, 3)),
    (fanin.LooksLinear("he_normal"), (0, 2)),
    (fanin.Scaled("he_normal", 2), (0, 3)),
    (fanin.Blocks("he_normal", 2), (0, 3)),
    (fanin.WithRow("he_normal", 0), (4, 0)),
    (fanin.Tile("he_normal", (2, 2)), (0, 2)),
    (fanin.Masked("he_normal", [[True]]), (0, 3)),
    (fanin.AsStored("glorot_uniform"), (0, 3)),
]


@pytest.mark.parametrize(("init", "shape"), EMPTY)
def test_empty_tensors_are_tensors(init, shape):
    assert init(shape, seed=0, name=NAME, axes="oi").shape == shape
    assert init.describe(shape, "oi").shape == shape


@each_row
def test_calls_leave_no_state(row):
    first = make(row)
    for other in reversed(TABLE):
        make(other)
    assert make(row).tobytes() == first.tobytes()


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_an_initializer_knows_whether_it_draws(row):
    assert row.init.drawn == row.drawn
    name = "layers.0.attn.q_proj.weight"
    one, two = (row.init(row.shape, seed=seed, name=name, axes=row.axes) for seed in (0, 1))
    assert (one.tobytes() != two.tobytes()) == row.drawn
