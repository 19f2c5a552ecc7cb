"""A seed and a name own their bits: the identity of the value contract, written again from its definition."""

import hashlib
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanin
from fanin import sampling, streams
from fanin.errors import ArgumentError, SeedError

SEEDS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32, 2**63, 2**64 - 1]))
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def key_of(seed, name, substream=""):
    """Key and counter words of a stream, from DESIGN's sentence: BLAKE2b-128 of length-prefixed fields."""
    message = b""
    for field in (b"fanin/1", seed.to_bytes(8, "little"), unicodedata.normalize("NFC", name).encode("utf-8")):
        message += len(field).to_bytes(8, "little") + field
    message += len(substream).to_bytes(8, "little") + substream.encode()
    digest = hashlib.blake2b(message, digest_size=16).digest()
    return tuple(int.from_bytes(digest[at : at + 4], "little") for at in range(0, 16, 4))


def raw(shape, seed, name, window=None, axes="io"):
    """The words of a window."""
    where = sampling.canvas(shape, "uint32", window, None)
    return sampling.bits(where, sampling.name_stream(seed, name, where.shape), axes)


def test_the_contract_is_the_unfrozen_one():
    assert fanin.CONTRACT == "fanin/1"


@given(seed=SEEDS, name=NAMES)
def test_a_stream_is_the_blake2b_of_its_seed_and_name(seed, name):
    found = sampling.name_stream(seed, name, (3,))
    assert found.key == key_of(seed, name)
    assert found.low == key_of(seed, name, "lo")
    assert found.mask == key_of(seed, name, "mask")


@given(seed=SEEDS, name=NAMES, first=st.integers(0, 2**62))
def test_element_i_is_word_i_mod_4_of_block_i_over_4(plain_words, seed, name, first):
    words = raw((2**63 - 1,), seed, name, (slice(first, first + 9),))
    assert words.tolist() == plain_words(key_of(seed, name), range(first, first + 9))


@given(name=NAMES, axes=st.sampled_from(["io", "oi"]))
def test_the_index_counts_outputs_first_then_inputs_then_the_receptive_field(plain_words, name, axes):
    shape = (2, 3, 5, 7) if axes == "io" else (7, 5, 2, 3)
    words = raw(shape, 1, name, axes=axes)
    canonical = words.transpose(3, 2, 0, 1) if axes == "io" else words
    assert canonical.ravel().tolist() == plain_words(key_of(1, name), range(210))


@given(data=st.data(), seed=SEEDS)
def test_names_are_equal_when_their_normal_forms_are(data, seed):
    name = data.draw(NAMES)
    spelled = unicodedata.normalize(data.draw(st.sampled_from(["NFC", "NFD"])), name)
    assert sampling.name_stream(seed, name, ()) == sampling.name_stream(seed, spelled, ())


def test_compatibility_forms_stay_different():
    """NFC joins spellings of one character; NFKC would join different ones."""
    for one, other in (("\ufb01", "fi"), ("x\u00b2", "x2"), ("W", "w"), ("a", "a "), ("", "\0")):
        assert sampling.name_stream(0, one, ()) != sampling.name_stream(0, other, ())


@given(a=st.tuples(SEEDS, NAMES), b=st.tuples(SEEDS, NAMES))
def test_different_seeds_or_names_have_different_streams(a, b):
    same = (a[0], unicodedata.normalize("NFC", a[1])) == (b[0], unicodedata.normalize("NFC", b[1]))
    assert (sampling.name_stream(*a, ()) == sampling.name_stream(*b, ())) == same


def test_a_draw_without_a_name_has_the_name_of_its_shape():
    init = fanin.RandomNormal()
    unnamed = init((784, 256), seed=3)
    assert np.array_equal(unnamed, init((784, 256), seed=3, name="unnamed:784x256"))
    assert np.array_equal(init((), seed=3), init((), seed=3, name="unnamed:"))
    assert not np.array_equal(unnamed[:1, :200], init((784, 200), seed=3)[:1])


def test_the_initializer_and_the_shape_are_not_hashed():
    """HeNormal and GlorotNormal of one name are the same z; a longer tensor begins with a shorter one."""
    he = fanin.HeNormal()((64, 64), seed=0, name="w")
    glorot = fanin.GlorotNormal()((64, 64), seed=0, name="w")
    np.testing.assert_allclose(he, glorot * np.sqrt(2), rtol=3e-7)
    vector = fanin.RandomNormal()((64 * 64,), seed=0, name="w")
    matrix = fanin.RandomNormal()((64, 64), seed=0, name="w", axes="oi")
    assert np.array_equal(vector, matrix.ravel())


def test_seeds_may_be_any_integer_type():
    expected = fanin.RandomNormal()((5,), seed=7, name="w")
    for seed in (np.int8(7), np.uint64(7), np.array(7)):
        assert np.array_equal(fanin.RandomNormal()((5,), seed=seed, name="w"), expected)


@pytest.mark.parametrize(
    "seed", [-1, 2**64, 10**30, 1.0, "1", True, None, 1j, (1,), np.float32(1), np.array([1, 2])]
)
def test_a_seed_is_an_integer_of_64_bits(seed):
    with pytest.raises(SeedError, match="`seed`") as caught:
        streams.check_seed(seed)
    assert isinstance(caught.value, ValueError)
    if seed is not None:
        assert repr(seed) in str(caught.value)


@pytest.mark.parametrize("name", [b"w", 3, ("w",), 1.5, True])
def test_a_name_is_text(name):
    with pytest.raises(ArgumentError, match="`name` must be a str") as caught:
        streams.check_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb"])
def test_a_name_with_a_lone_surrogate_is_refused(name):
    with pytest.raises(ArgumentError, match=r"`name` .* has a lone surrogate"):
        streams.check_name(name)


# --- folding -------------------------------------------------------------------------------------


@given(seed=SEEDS)
def test_folding_leaves_a_seed_as_it_is(seed):
    assert fanin.fold_seed(seed) == seed


@given(
    state=st.one_of(
        st.integers(max_value=-1),
        st.integers(min_value=2**64),
        st.binary(max_size=40),
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    )
)
def test_anything_else_folds_to_the_blake2b_of_its_words_and_kind(state):
    if isinstance(state, int):
        data = state.to_bytes(state.bit_length() // 8 + 1, "little", signed=True)
    elif isinstance(state, tuple):
        data = b"".join(word.to_bytes(8, "little") for word in state)
    else:
        data = state
    message = b"".join(len(part).to_bytes(8, "little") + part for part in (b"fanin/1", b"some kind", data))
    expected = int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")
    folded = fanin.fold_seed(state, "some kind")
    assert folded == expected
    assert folded != fanin.fold_seed(state, "another kind")


@given(state=st.integers())
def test_a_folded_seed_is_a_seed(state):
    assert streams.check_seed(fanin.fold_seed(state)) == fanin.fold_seed(state)


def test_fresh_seeds_are_seeds_and_differ():
    seeds = {fanin.fresh_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert all(streams.check_seed(seed) == seed for seed in seeds)
    assert max(seeds) > 2**63 > min(seeds)


# --- the generator -------------------------------------------------------------------------------


@given(words=st.tuples(*[st.integers(0, 2**32 - 1)] * 6))
def test_the_generator_is_philox(plain_philox, words):
    assert fanin.philox4x32(words[:4], words[4:]) == plain_philox(words[:4], words[4:])


@pytest.mark.parametrize(
    ("counter", "key", "named"),
    [
        ((0, 0, 0), (0, 0), "counter"),
        ((0, 0, 0, 2**32), (0, 0), "counter"),
        ((0, 0, 0, -1), (0, 0), "counter"),
        ((0, 0, 0, 0), (0,), "key"),
        ((0, 0, 0, 0), (0, 2**32), "key"),
        ((0, 0.5, 0, 0), (0, 0), "counter"),
        (3, (0, 0), "counter"),
    ],
)
def test_the_generator_takes_four_and_two_words_of_32_bits(counter, key, named):
    with pytest.raises(ArgumentError, match=f"`{named}` must be"):
        fanin.philox4x32(counter, key)
