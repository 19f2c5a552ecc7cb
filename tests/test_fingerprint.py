"""Which initialization is this: every law is found again, by shape, dtype and dialect, and no other is."""

import math

import numpy as np
import pytest

import fanin
from fanin import dialects
from fanin.audit import measure
from fanin.audit.fingerprint import SHAPES, describe, fingerprint, kurtosis, words
from fanin.fans import IO, LOOKUP, OI, Axes
from fanin.model import Model, Piece, Tensor, beside

SHAPE = (512, 640)  # (out, in)


def weigh(values, role="kernel", layer="linear", axes=OI, name="w", **more):
    """The numbers of one tensor."""
    values = np.asarray(values)
    piece = Piece(name, role, layer, axes, **more)
    model = Model((Tensor(name, values.shape, str(values.dtype), (piece,)),))
    [found] = measure.weights(model, {name: values}.get)
    return found


def drawn(expression, shape=SHAPE, axes="oi", seed=1, dtype="float32"):
    return fanin.get(expression)(shape, seed=seed, name="w", axes=axes, dtype=dtype)


@pytest.mark.parametrize("name", ["uniform", "truncated", "normal"])
def test_the_moments_of_a_law_are_those_of_its_density(name):
    law = SHAPES[name]
    x = np.linspace(-9, 9, 2_000_001)
    density = {
        "uniform": np.abs(x) <= 1,
        "truncated": np.exp(-x * x / 2) * (np.abs(x) <= 2),
        "normal": np.exp(-x * x / 2),
    }[name]
    p = density / density.sum()
    m = {k: float((p * x**k).sum()) for k in (2, 4, 6, 8)}
    a, b, c = m[4] / m[2] ** 2, m[6] / m[2] ** 3, m[8] / m[2] ** 4
    # The delta method for m4 / m2**2 of n draws of a symmetric law.
    variance = c - a * a - 4 * a * (b - a) + 4 * a * a * (a - 1)
    assert kurtosis(law) == pytest.approx((a, variance), rel=1e-3)


WORDS = [
    (1 / 3, "fan_in", "uniform", "torch default of linear: uniform, sigma_w^2 = 1/3 by fan_in"),
    (1.0, "fan_avg", "uniform", "keras default of linear: uniform, sigma_w^2 = 1 by fan_avg"),
    (
        1.0,
        "fan_in",
        "normal",
        "flax default of linear: normal, cut at 2 standard deviations, sigma_w^2 = 1 by",
    ),
    (2.0, "fan_in", "normal", "He: normal, cut at 2 standard deviations, sigma_w^2 = 2 by fan_in"),
    (2.0, "fan_in", "untruncated_normal", "He: normal, sigma_w^2 = 2 by fan_in"),
    (2.0, "fan_in", "uniform", "He: uniform, sigma_w^2 = 2 by fan_in"),
    (2.0, "fan_out", "untruncated_normal", "He by fan_out: normal, sigma_w^2 = 2 by fan_out"),
    (1.0, "fan_avg", "untruncated_normal", "Glorot: normal, sigma_w^2 = 1 by fan_avg"),
    (0.7737413035499232, "fan_in", "normal", "Haiku default: normal, cut at 2 standard deviations"),
]


@pytest.mark.parametrize(("scale", "mode", "law", "expected"), WORDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_named_law_is_called_by_its_name(scale, mode, law, expected, seed):
    values = fanin.VarianceScaling(scale, mode, law)(SHAPE, seed=seed, name="w", axes="oi")
    assert words(weigh(values)).startswith(expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("variance_scaling(0.3333333333333333, 'fan_in', 'uniform')", 1 / 3),  # torch
        ("lecun_normal", 1.0),  # Flax, and what Keras's equals for square layers
        ("variance_scaling(0.7737413035499232, 'fan_in', 'normal')", 0.7737),  # Haiku
        ("he_normal", 2.0),
    ],
)
def test_sigma_w_squared_is_measured_to_two_percent(expression, expected):  # A18
    found = weigh(drawn(expression))
    assert found.weight_variance == pytest.approx(expected, rel=0.02)
    assert fingerprint(found).best.std ** 2 * 640 == pytest.approx(expected, rel=1e-3)


def _words_of_dialects():
    """Every word of every dialect that needs no argument and takes a matrix."""
    for dialect in dialects.NAMES:
        for word in dialects.names(dialect):
            try:
                made = fanin.get(f"{dialect}:{word}")
                made.describe((6, 4))
            except fanin.FaninError:
                continue
            yield f"{dialect}:{word}"


@pytest.mark.parametrize("word", [*_words_of_dialects()])
def test_every_word_of_every_dialect_is_found_again(word):
    made = fanin.get(word)
    torch = word.startswith("torch")
    shape = SHAPE if torch else SHAPE[::-1]
    values = made(shape, seed=5, name="w")
    found = fingerprint(weigh(values, axes=OI if torch else IO))
    assert found.fits
    said = made.describe(shape)
    if said.std is not None and found.family in SHAPES:
        assert found.best.std == pytest.approx(said.std, rel=0.01)
    law = found.best.initializer.describe(shape, "oi" if torch else "io")
    assert law.distribution.split()[0] == said.distribution.split()[0]


def test_the_dialects_have_words_to_find():
    assert len(list(_words_of_dialects())) > 50


def test_one_seed_in_many_is_not_refused():
    """Five standard errors: 1000 tensors of 8 to 4000 values are all found, whatever their law."""
    laws = ["he_normal", "glorot_uniform", "variance_scaling(2.0, 'fan_in', 'untruncated_normal')"]
    for expression in laws:
        made = str(fanin.get(expression))
        for seed in range(330):
            shape = [(4, 2), (8, 8), (20, 30), (50, 80)][seed % 4]
            found = fingerprint(weigh(drawn(expression, shape, seed=seed)))
            assert made in [str(fit.initializer) for fit in found.fits], (expression, seed, shape)


def test_another_law_is_refused_when_there_are_values_enough():
    for expression in ("he_normal", "he_uniform", "variance_scaling(2.0, 'fan_in', 'untruncated_normal')"):
        fits = {str(fit.initializer) for fit in fingerprint(weigh(drawn(expression))).fits}
        assert fits == {str(fanin.get(expression))}


@pytest.mark.parametrize(("limit", "found"), [(0.0505, False), (0.0495, False), (0.05, True)])
def test_the_limit_of_a_uniform_law_is_told_by_its_largest_value(limit, found):
    """The widths of 4000 values differ by 1 %, of which five standard errors are 3.5."""
    fits = fingerprint(weigh(drawn(f"random_uniform({-limit}, {limit})", (50, 80)))).fits
    assert ("random_uniform(minval=-0.05, maxval=0.05)" in [str(fit.initializer) for fit in fits]) == found


def test_two_values_and_an_outlier_are_no_normal_law():
    signs = np.where(np.arange(4000) % 3 == 0, -1.0, 1.0).astype(np.float32) * np.tile([1, -1], 2000)
    signs[7] = 3.5
    assert fingerprint(weigh(signs.reshape(50, 80).astype(np.float32))).family == "other"


def test_a_square_layer_does_not_tell_its_fans():
    said = words(weigh(drawn("he_normal", (256, 256))))
    assert "fan_in is fan_out, so it may be" in said
    assert "fan_in is fan_out" not in words(weigh(drawn("he_normal", (256, 255))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_narrow_dtype_is_no_other_law(dtype):
    found = weigh(drawn("he_uniform", dtype=dtype))
    assert words(found).startswith("He: uniform, sigma_w^2 = 2 by fan_in")


def test_the_transposed_shape_and_a_missing_field_are_told():
    right = drawn("he_normal", (64, 32, 3, 3))
    assert fingerprint(weigh(right)).flag == ""
    turned = drawn("he_normal", (64, 32, 3, 3), axes="io")  # read as (..., in, out)
    assert fingerprint(weigh(turned)).flag == "transposed"
    fieldless = fanin.RandomNormal(0.0, math.sqrt(2 / 32))((64, 32, 3, 3), seed=1, name="w")
    assert fingerprint(weigh(fieldless)).flag == "fieldless"
    flat = drawn("he_normal", axes="io")
    assert fingerprint(weigh(flat)).flag == "fan_out"


def test_cut_without_making_up_for_it_is_told():
    values = fanin.TruncatedNormal(0.0, 1 / math.sqrt(640))(SHAPE, seed=0, name="w")
    assert fingerprint(weigh(values)).flag == "uncorrected"


def test_packed_kernels_have_fans_of_all():
    values = fanin.get("as_stored(glorot_uniform, packed=3)")((96, 64), seed=0, name="w", axes="oi")
    assert fingerprint(weigh(values)).flag == "packed"
    own = fingerprint(weigh(values, layer="packed_attention"))  # what such a layer starts from is not odd
    assert own.flag == ""
    assert own.best.words.startswith("torch default of packed_attention")


@pytest.mark.parametrize("gain", [1.0, math.sqrt(2.0), 0.37])
@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (96, 64), (16, 8, 3, 3)])
def test_orthogonal_matrices_and_their_gain(gain, shape):
    found = fingerprint(weigh(fanin.Orthogonal(gain)(shape, seed=0, name="w", axes="oi")))
    assert found.family == "orthogonal"
    assert found.best.initializer.gain == pytest.approx(gain, rel=1e-4)


def test_a_gate_of_an_orthogonal_matrix():
    packed = fanin.Orthogonal()((4 * 64, 64), seed=0, name="w", axes="oi")
    found = fingerprint(weigh(packed[:64], "recurrent_kernel", "lstm", name="weight_hh.input_gate"))
    assert found.fits[0].words == "one of 4 gates of an orthogonal matrix"
    assert str(found.fits[0].initializer) == "orthogonal(gain=0.5)"


@pytest.mark.parametrize(
    ("expression", "shape", "family"),
    [
        ("identity", (8, 8), "identity"),
        ("identity(0.5)", (8, 12), "identity"),
        ("dirac", (8, 8, 3), "identity"),
        ("zeros", (8, 8), "constant"),
        ("constant(0.25)", (8, 8), "constant"),
        ("delta_orthogonal", (8, 8, 3, 3), "orthogonal"),
        ("sparse(0.9)", (64, 64), "sparse"),
    ],
)
def test_laws_without_randomness_and_others(expression, shape, family):
    found = fingerprint(weigh(drawn(expression, shape)))
    assert found.family == family
    if family != "sparse":
        assert str(found.best.initializer) == str(fanin.get(expression))


def test_a_padding_row_does_not_hide_the_law():
    table = drawn("random_normal(0.0, 0.02)", (50, 64), axes="lookup")
    table[3] = 0
    assert words(weigh(table, "embedding", "embedding", LOOKUP)) == "fixed: normal, std 0.02"


def test_gpt2s_residual_scale_needs_the_number_of_blocks():
    found = weigh(fanin.RandomNormal(0.0, 0.02 / math.sqrt(24))((256, 1024), seed=0, name="w"))
    assert words(found, 12).startswith("GPT-2's, into the residual stream")
    assert words(found).endswith("fits no name")
    assert words(found, 11).endswith("fits no name")


def test_one_value_may_be_from_a_frameworks_default():
    bias = weigh(np.array([0.05], np.float32), "bias", axes=beside(OI.fans((1, 100)), 1))
    found = fingerprint(bias, framework="torch")
    assert [fit.family for fit in found.fits] == ["uniform", "constant"]
    far = weigh(np.array([0.2], np.float32), "bias", axes=beside(OI.fans((1, 100)), 1))
    assert [fit.family for fit in fingerprint(far, framework="torch").fits] == ["constant"]


def test_what_is_broken_or_empty_is_said():
    broken = drawn("he_normal")
    broken[2, 3] = np.inf
    assert words(weigh(broken)) == "not finite"
    assert fingerprint(weigh(np.zeros((0, 4), np.float32))).fits == ()


def test_unknown_axes_leave_laws_of_fixed_width():
    found = weigh(drawn("random_normal(0.0, 0.02)", (4000,)), "unknown", "unknown", Axes((0,), ()))
    assert describe(fingerprint(found), found) == "fixed: normal, std 0.02"
