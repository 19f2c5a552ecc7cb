"""fanin.jax: the core's numbers in JAX's protocol, the same at once, compiled, batched and in shards."""

import hashlib
import inspect
import json
import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import fanin
import fanin.jax as fj
from fanin import ArgumentError, DtypeError, SeedError, ShapeError
from fanin.jax import _arrays
from fanin.memory import ALIGNMENT, aligned

KEY = jax.random.key(7)
THEIRS = [name for name in dir(jax.nn.initializers) if name[0] != "_"]
FLOATS = (
    "float16",
    "bfloat16",
    "float32",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
)

# a function's result, the core's initializer, the shape
SAME: list[tuple[Any, fanin.Initializer, tuple[int, ...]]] = [
    (fj.zeros, fanin.Zeros(), (3, 4)),
    (fj.ones, fanin.Ones(), (3, 4)),
    (fj.constant(0.1), fanin.Constant(0.1), (3, 4)),
    (fj.constant(jnp.arange(4.0)), fanin.Constant(np.arange(4.0)), (3, 4)),
    (fj.uniform(3.0), fanin.RandomUniform(0.0, 3.0), (30, 5)),
    (fj.uniform(jnp.float32(3.0)), fanin.RandomUniform(0.0, 3.0), (30, 5)),
    (fj.normal(0.5), fanin.RandomNormal(0.0, 0.5), (30, 5)),
    (fj.truncated_normal(0.5, lower=-1.0, upper=3.0), fanin.TruncatedNormal(0.0, 0.5, -1.0, 3.0), (30, 5)),
    (
        fj.variance_scaling(0.5, "fan_out", "normal"),
        fanin.VarianceScaling(0.5, "fan_out", "untruncated_normal"),
        (3, 8, 5),
    ),
    (fj.glorot_uniform(), fanin.GlorotUniform(), (3, 8, 5)),
    (fj.glorot_normal(), fanin.GlorotNormal(), (3, 8, 5)),
    (fj.lecun_uniform(), fanin.LecunUniform(), (3, 8, 5)),
    (fj.lecun_normal(), fanin.LecunNormal(), (3, 8, 5)),
    (fj.he_uniform(), fanin.HeUniform(), (3, 8, 5)),
    (fj.he_normal(), fanin.HeNormal(), (3, 8, 5)),
    (fj.orthogonal(2.0), fanin.Orthogonal(2.0), (9, 5)),
    (fj.delta_orthogonal(2.0), fanin.DeltaOrthogonal(2.0), (3, 4, 8)),
    (fj.identity(2.0), fanin.Identity(2.0), (4, 5)),
    (fj.random_normal(1.0, 0.5), fanin.RandomNormal(1.0, 0.5), (30, 5)),
    (fj.random_uniform(-2.0, 3.0), fanin.RandomUniform(-2.0, 3.0), (30, 5)),
    (fj.uniform_unit_scaling(1.43), fanin.UniformUnitScaling(1.43), (30, 5)),
    (fj.convolution_orthogonal_1d(), fanin.ConvolutionOrthogonal1D(), (3, 4, 8)),
    (fj.convolution_orthogonal_2d(), fanin.ConvolutionOrthogonal2D(), (3, 2, 4, 8)),
    (fj.convolution_orthogonal_3d(), fanin.ConvolutionOrthogonal3D(), (2, 2, 2, 4, 8)),
    (fj.dirac(), fanin.Dirac(), (3, 4, 4)),
    (fj.bilinear(), fanin.Bilinear(), (4, 4, 3, 3)),
    (fj.hadamard_identity(), fanin.HadamardIdentity(), (4, 8)),
    (fj.sparse(0.5, stddev=2.0), fanin.Sparse(0.5, 2.0), (12, 5)),
    (fj.siren(first=True), fanin.Siren(first=True), (2, 50)),
    (fj.sinusoidal(), fanin.Sinusoidal(), (6, 4)),
    (fj.mimetic("value", pair="a"), fanin.get("mimetic('value', pair='a')"), (8, 8)),
    (fj.icnr("he_normal", 2), fanin.ICNR("he_normal", 2), (3, 3, 2, 8)),
    (fj.looks_linear(), fanin.LooksLinear(), (6, 8)),
    (fj.scaled(fj.normal(0.5), 0.5), fanin.Scaled("random_normal(0.0, 0.5)", 0.5), (30, 5)),
    (fj.scaled_units("he_normal", [1, 2]), fanin.ScaledUnits("he_normal", [1.0, 2.0]), (30, 2)),
    (fj.blocks("he_normal", n=5), fanin.Blocks("he_normal", 5), (30, 5)),
    (fj.with_row("he_normal", 1), fanin.WithRow("he_normal", 1), (30, 5)),
    (fj.tile("he_normal", (2, 1)), fanin.Tile("he_normal", (2, 1)), (30, 5)),
    (fj.as_stored("glorot_uniform", 4), fanin.AsStored("glorot_uniform", 4), (30, 5)),
    (fj.masked("he_normal", [1, 0, 1, 1, 0]), fanin.Masked("he_normal", [1, 0, 1, 1, 0]), (30, 5)),
]
IDS = [getattr(init, "__name__", None) or str(init.core) for init, _, _ in SAME]


# --- names and signatures ------------------------------------------------------------------------


@pytest.mark.parametrize("name", THEIRS)
def test_jax_has_the_same_signature(name: str) -> None:
    ours, theirs = (getattr(place, name) for place in (fj, jax.nn.initializers))
    if name == "Initializer":  # theirs is the protocol of what is called
        ours, theirs = ours.__call__, theirs.__call__
    seen = [
        [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]
        for function in (ours, theirs)
    ]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", fanin.names(synonyms=True))
def test_the_whole_catalogue_is_here(name: str) -> None:
    assert callable(getattr(fj, name))
    assert inspect.getdoc(getattr(fj, name))


def test_functions_of_the_catalogue_take_its_arguments_and_axes_and_dtype() -> None:
    assert list(inspect.signature(fj.sparse).parameters) == ["sparsity", "stddev", "axes", "dtype"]
    assert inspect.signature(fj.siren).parameters["omega"].default == 30.0
    with pytest.raises(TypeError, match="positional"):
        fj.siren(30.0, False, "oi")


def test_what_is_made_is_what_jax_calls_an_initializer() -> None:
    assert isinstance(fj.he_normal(), jax.nn.initializers.Initializer)
    assert fj.xavier_uniform is fj.glorot_uniform
    assert fj.kaiming_normal is fj.he_normal


def test_initializers_are_values() -> None:
    init = fj.he_normal(in_axis=0)
    assert init == fj.he_normal(0)
    assert hash(init) == hash(fj.he_normal(0))
    assert init != fj.he_normal(1)
    again = pickle.loads(pickle.dumps(init))
    np.testing.assert_array_equal(again(KEY, (3, 4)), init(KEY, (3, 4)))


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("init", "core", "shape"), SAME, ids=IDS)
def test_values_are_the_core_s_at_once_and_compiled(
    init: Callable[..., jax.Array], core: fanin.Initializer, shape: tuple[int, ...], same_bits: Any
) -> None:
    expected = core(shape, seed=fj.fold_key(KEY))
    compiled = jax.jit(lambda key: init(key, shape))
    same_bits(np.asarray(init(KEY, shape)), expected)
    same_bits(np.asarray(compiled(KEY)), expected)
    assert init(KEY, shape).devices() == {jax.devices()[0]}


def test_every_function_is_compared_with_the_core() -> None:
    compared = {type(core).name() for _, core, _ in SAME}
    assert compared >= set(fanin.names())


@pytest.mark.parametrize("dtype", FLOATS)
def test_narrow_floats_are_the_core_s(dtype: str, same_bits: Any) -> None:
    init, expected = fj.normal(0.5), fanin.RandomNormal(0.0, 0.5)((9, 7), seed=fj.fold_key(KEY), dtype=dtype)
    same_bits(np.asarray(init(KEY, (9, 7), dtype)), expected)
    same_bits(np.asarray(jax.jit(lambda key: init(key, (9, 7), jnp.dtype(dtype)))(KEY)), expected)
    same_bits(np.asarray(fj.normal(0.5, dtype)(KEY, (9, 7))), expected)


def test_axes_say_where_numbers_go() -> None:
    init, core = fj.sparse(0.5, axes="oi"), fanin.Sparse(0.5)
    expected = core((6, 4), seed=fj.fold_key(KEY), axes="oi")
    np.testing.assert_array_equal(init(KEY, (6, 4)), expected)
    assert (np.asarray(init(KEY, (6, 4))) == 0).sum(1).tolist() == [2] * 6


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,)])
def test_every_shape_will_do(shape: tuple[int, ...]) -> None:
    for made in (fj.normal()(KEY, shape), jax.jit(lambda key: fj.normal()(key, shape))(KEY)):
        np.testing.assert_array_equal(made, fanin.RandomNormal(0, 0.01)(shape, seed=fj.fold_key(KEY)))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "bool", "complex64", "int4"])
def test_constants_take_every_numeric_dtype(dtype: str) -> None:
    for made in (fj.ones(None, (3,), dtype), jax.jit(lambda: fj.ones(None, (3,), dtype))()):
        assert made.dtype == jnp.dtype(dtype)
        assert np.asarray(made).astype(complex).tolist() == [1, 1, 1]


def test_the_default_dtype_is_jax_s() -> None:
    assert fj.normal()(KEY, (2,)).dtype == jnp.float32
    assert fj.zeros(KEY, (2,), float).dtype == jnp.float32
    with jax.enable_x64(True):
        made = fj.normal()(KEY, (9,))
        expected = fanin.RandomNormal(0, 0.01)((9,), seed=fj.fold_key(KEY), dtype="float64")
        np.testing.assert_array_equal(made, expected, strict=True)
        compiled = jax.jit(lambda key: fj.normal()(key, (9,)))(KEY)
        np.testing.assert_array_equal(compiled, expected, strict=True)
        assert fj.normal()(KEY, (2,), "float32").dtype == jnp.float32


# --- laws ----------------------------------------------------------------------------------------

SIDE = 512
LAWS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("uniform", (3.0,), {}, (SIDE, SIDE)),
    ("uniform", (-3.0,), {}, (SIDE, SIDE)),
    ("normal", (2.0,), {}, (SIDE, SIDE)),
    ("truncated_normal", (2.0,), {"lower": -1.0, "upper": 2.5}, (SIDE, SIDE)),
    ("variance_scaling", (3.0, "fan_geo_avg", "normal"), {"in_axis": (0, 1), "out_axis": 2}, (8, 16, 32, 64)),
    ("variance_scaling", (3.0, "fan_avg", "truncated_normal"), {"batch_axis": 0}, (8, 16, 32, 64)),
    ("variance_scaling", (1.0, "fan_in", "normal"), {"out_axis": 0}, (SIDE, SIDE)),  # Flax's embeddings
    *(
        (f"{who}_{law}", (), {"in_axis": 1, "out_axis": (0, 3), "batch_axis": (2,)}, (8, 16, 32, 64))
        for who in ("glorot", "lecun", "he")
        for law in ("uniform", "normal")
    ),
    ("orthogonal", (2.0,), {"column_axis": 0}, (SIDE, 16, 32)),
    ("delta_orthogonal", (2.0,), {}, (1, SIDE, SIDE)),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAWS)
def test_laws_are_jax_s(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    ours, theirs = (
        np.sort(np.asarray(getattr(place, name)(*args, **kwargs)(KEY, shape)).ravel().astype(float))
        for place in (fj, jax.nn.initializers)
    )
    n = math.prod(shape)
    # a std of n draws errs by std sqrt((kurtosis - 1) / 4n), at most std / sqrt(2n), and there are two
    assert abs(ours.std() / theirs.std() - 1) < 5 / math.sqrt(n)
    assert abs(ours.mean() - theirs.mean()) < 5 * theirs.std() * math.sqrt(2 / n)
    # Kolmogorov-Smirnov: P(D > c sqrt(2 / n)) < 2 exp(-2 c^2), 4e-6 for c = 2.6
    both = np.concatenate([ours, theirs])
    distance = np.abs(np.searchsorted(ours, both, side="right") - np.searchsorted(theirs, both, side="right"))
    assert distance.max() / n < 2.6 * math.sqrt(2 / n)


def test_orthogonal_has_orthonormal_columns_along_its_column_axis() -> None:
    w = np.asarray(fj.orthogonal(2.0, column_axis=0)(KEY, (3, 4, 5))).reshape(3, 20)
    np.testing.assert_allclose(w @ w.T, 4 * np.eye(3), atol=1e-5)


# --- keys ----------------------------------------------------------------------------------------


def test_the_seed_of_a_key_is_the_hash_of_its_words_and_kind() -> None:
    fields = (
        fanin.CONTRACT.encode(),
        b"jax:threefry2x32",
        (0).to_bytes(8, "little") + (7).to_bytes(8, "little"),
    )
    data = b"".join(len(field).to_bytes(8, "little") + field for field in fields)
    expected = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    assert fj.fold_key(jax.random.key(7)) == expected


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_typed_and_raw_keys_of_the_same_words_are_the_same(implementation: str) -> None:
    init = fj.normal()
    with jax.default_prng_impl(implementation):
        typed, raw = jax.random.key(5), jax.random.PRNGKey(5)
        expected = init(typed, (4,))
        np.testing.assert_array_equal(init(raw, (4,)), expected)
        np.testing.assert_array_equal(init(np.asarray(raw), (4,)), expected)
        np.testing.assert_array_equal(jax.jit(lambda key: init(key, (4,)))(raw), expected)


def test_other_keys_make_other_numbers() -> None:
    keys = [*jax.random.split(KEY, 4), jax.random.key(7, impl="rbg"), jax.random.key(7, impl="unsafe_rbg")]
    seeds = {fj.fold_key(key) for key in (*keys, KEY)}
    assert len(seeds) == 7
    assert len({np.asarray(fj.normal()(key, (4,))).tobytes() for key in keys}) == 6


@pytest.mark.parametrize("key", [0, None, 1.5, "key", np.zeros(2), np.zeros(3, np.uint32)])
def test_what_is_no_key_is_refused(key: Any) -> None:
    with pytest.raises(SeedError, match="`key` must be a JAX key such as"):
        fj.normal()(key, (2,))


def test_several_keys_are_refused() -> None:
    with pytest.raises(SeedError, match=r"must be one key, got an array of shape \(3,\); jax.vmap"):
        fj.normal()(jax.random.split(KEY, 3), (2,))
    with pytest.raises(SeedError, match=r"must be one key, got an array of shape \(3,\)"):
        fj.fold_key(jax.random.key_data(jax.random.split(KEY, 3)))


# --- traced --------------------------------------------------------------------------------------


def test_a_constant_key_is_drawn_when_the_function_runs() -> None:
    expected = fj.he_normal()(KEY, (5, 3))
    lowered = jax.jit(lambda: fj.he_normal()(KEY, (5, 3))).lower()
    assert "callback" in lowered.as_text()
    np.testing.assert_array_equal(lowered.compile()(), expected)


def test_zeros_need_no_callback() -> None:
    lowered = jax.jit(lambda key: fj.zeros(key, (5, 3)) + fj.constant(2)(key, (5, 3))).lower(KEY)
    assert "callback" not in lowered.as_text()


def test_eval_shape_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(_arrays, "aligned", forbidden)
    huge = (1 << 20, 1 << 20)
    for call in (lambda key: fj.he_normal()(key, huge), lambda _: fj.he_normal()(KEY, huge)):
        made = jax.eval_shape(call, KEY)
        assert (made.shape, made.dtype) == (huge, jnp.float32)
    with pytest.raises(AssertionError, match="drawn"):
        fj.he_normal()(KEY, (2, 2))


def test_scan_and_cond_make_the_same() -> None:
    keys, init = jax.random.split(KEY, 3), fj.lecun_normal()
    expected = np.stack([init(key, (4, 2)) for key in keys])
    _, made = jax.lax.scan(lambda carry, key: (carry, init(key, (4, 2))), 0, keys)
    np.testing.assert_array_equal(made, expected)
    chosen = jax.lax.cond(True, lambda key: init(key, (4, 2)), lambda _: jnp.zeros((4, 2)), keys[0])
    np.testing.assert_array_equal(chosen, expected[0])


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("init", [fj.he_normal(), fj.orthogonal(), fj.constant(np.arange(2.0))])
def test_vmap_makes_each_key_its_own_tensor(wrap: Any, init: Any) -> None:
    keys = jax.random.split(KEY, (2, 3))
    made = wrap(jax.vmap(jax.vmap(lambda key: init(key, (4, 2)))))(keys)
    for at in np.ndindex(2, 3):
        np.testing.assert_array_equal(made[at], init(keys[at], (4, 2)))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_under_vmap_one_key_is_one_tensor(wrap: Any) -> None:
    init = fj.he_normal()
    made = wrap(jax.vmap(lambda x: x + init(KEY, (4, 2))))(jnp.zeros(3))
    for row in made:
        np.testing.assert_array_equal(row, init(KEY, (4, 2)))


def test_values_are_constants_of_a_gradient() -> None:
    init = fj.he_normal()
    total = lambda x: (x * init(KEY, (4, 2))).sum()  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.grad(total))(2.0), init(KEY, (4, 2)).sum(), rtol=1e-5)


def test_memory_is_taken_over_without_a_copy() -> None:
    values = aligned((1000, 7), np.dtype(np.float32))
    assert values.ctypes.data % ALIGNMENT == 0
    assert (values.shape, values.flags.c_contiguous) == ((1000, 7), True)
    assert jax.device_put(values).unsafe_buffer_pointer() == values.ctypes.data


# --- refusals ------------------------------------------------------------------------------------

BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (fj.normal(), {"dtype": "int32"}, DtypeError, "int32 cannot hold a random draw"),
    (fj.normal(), {"dtype": "complex64"}, DtypeError, "complex64 is complex"),
    (fj.normal(), {"dtype": "float8_e8m0fnu"}, DtypeError, "cannot hold a random draw"),
    (fj.normal(), {"dtype": "float64"}, DtypeError, 'float64 needs 64-bit types: .*"jax_enable_x64", True'),
    (fj.zeros, {"dtype": "int64"}, DtypeError, "int64 needs 64-bit types"),
    (fj.normal(1e5), {"dtype": "float16"}, DtypeError, "beyond float16's largest value"),
    (fj.constant(0.5), {"dtype": "int32"}, DtypeError, "`value` 0.5 does not fit `dtype` int32"),
    (fj.constant(np.zeros(5)), {}, ShapeError, r"of shape \(5,\) does not fit"),
    (fj.normal(), {"shape": (-1, 2)}, ShapeError, "must hold integers >= 0"),
    (fj.he_normal(), {"shape": (5,)}, ShapeError, r"\(5,\) has no axis -2"),
    (fj.orthogonal(), {"shape": (5,)}, ShapeError, "at least 2 axes"),
    (fj.delta_orthogonal(), {"shape": (3, 8, 4)}, ShapeError, "at least as many outputs as inputs"),
    (fj.normal(), {"out_sharding": PartitionSpec("x")}, ArgumentError, "needs a mesh: enter jax.set_mesh"),
    (fj.normal(), {"out_sharding": "x"}, ArgumentError, "must be a NamedSharding or PartitionSpec, got 'x'"),
]


@pytest.mark.parametrize("trace", [False, True], ids=["at once", "while tracing"])
@pytest.mark.parametrize(("init", "kwargs", "error", "text"), BAD)
def test_bad_arguments_are_named(
    init: Any, kwargs: dict[str, Any], error: type[Exception], text: str, trace: bool
) -> None:
    call = partial(init, **{"shape": (4, 2), **kwargs})
    with pytest.raises(error, match=text):
        jax.eval_shape(call, KEY) if trace else call(KEY)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: fj.normal(-math.inf), "`stddev` must be finite"),
        (lambda: fj.normal(dtype="float33"), "float33"),
        (lambda: fj.normal(dtype="float64"), "float64 needs 64-bit types"),
        (lambda: fj.siren(dtype="float64"), "float64 needs 64-bit types"),
        (lambda: fj.variance_scaling(1.0, "fan", "normal"), "`mode` 'fan'; expected one of"),
        (lambda: fj.sparse(1.5), "`sparsity` must be in 0 .. 1"),
    ],
)
def test_bad_arguments_are_named_when_it_is_made(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(fanin.FaninError, match=text):
        make()


def test_what_is_only_known_later_is_refused() -> None:
    with pytest.raises(ArgumentError, match="must be known while tracing"):
        jax.jit(lambda std: fj.normal(std)(KEY, (2,)))(1.0)
    with pytest.raises(ShapeError, match="`shape` must hold integers"):
        jax.jit(lambda n: fj.normal()(KEY, (n,)))(3)


def test_an_abstract_mesh_holds_nothing() -> None:
    mesh = jax.sharding.AbstractMesh((1,), ("x",))
    with pytest.raises(ArgumentError, match="needs a mesh of devices outside jit"):
        fj.normal()(KEY, (2,), None, NamedSharding(mesh, PartitionSpec("x")))


# --- Flax ----------------------------------------------------------------------------------------


class Network(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(8, (3, 3), kernel_init=fj.delta_orthogonal())(x)
        return nn.Dense(5, kernel_init=fj.he_normal(), bias_init=fj.zeros, param_dtype=jnp.bfloat16)(x)


def test_linen_layers_take_them() -> None:
    x, network = jnp.ones((1, 6, 6, 4)), Network()
    made, compiled = network.init(KEY, x), jax.jit(network.init)(KEY, x)
    jax.tree.map(np.testing.assert_array_equal, made, compiled)
    abstract = jax.eval_shape(network.init, KEY, x)
    assert jax.tree.map(lambda w: (w.shape, w.dtype), made) == jax.tree.map(
        lambda w: (w.shape, w.dtype), abstract
    )
    kernel = np.asarray(made["params"]["Dense_0"]["kernel"]).astype(float)
    limit = fanin.HeNormal().describe((8, 5)).std_before * 2
    assert 0 < np.abs(kernel).max() <= limit * (1 + 2**-8)  # bfloat16 rounds to 8 bits
    assert not made["params"]["Dense_0"]["bias"].any()
    assert network.apply(made, x).shape == (1, 6, 6, 5)


def test_nnx_layers_take_them() -> None:
    def make() -> nnx.Linear:
        return nnx.Linear(8, 5, kernel_init=fj.he_normal(), bias_init=fj.ones, rngs=nnx.Rngs(0))

    expected = fj.he_normal()(nnx.Rngs(0).params(), (8, 5))
    for made in (make(), nnx.jit(make)()):
        np.testing.assert_array_equal(made.kernel[...], expected)
        np.testing.assert_array_equal(made.bias[...], np.ones(5, np.float32))
    assert nnx.eval_shape(make).kernel.shape == (8, 5)


def test_nnx_stacks_of_layers_have_their_own_numbers() -> None:
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs: nnx.Rngs) -> nnx.Linear:
        return nnx.Linear(8, 5, kernel_init=fj.he_normal(), rngs=rngs)

    kernels = np.asarray(make(nnx.Rngs(0)).kernel[...])
    assert kernels.shape == (3, 8, 5)
    assert len(np.unique(kernels)) > 3 * 8 * 5 - 3


# --- the page ------------------------------------------------------------------------------------


def test_the_page_s_examples_run() -> None:
    page = Path(__file__).parents[3] / "docs" / "jax.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) == 4
    exec("\n".join(blocks), {})


# --- eight devices -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eight(python: Callable[..., str]) -> dict[str, Any]:
    """What ``sharded.py`` found."""
    flags = "--xla_force_host_platform_device_count=8"
    found: dict[str, Any] = json.loads(python(Path(__file__).with_name("sharded.py"), XLA_FLAGS=flags))
    return found


def test_shards_are_windows_of_the_whole(eight: dict[str, Any]) -> None:
    shape, key = (16, 24), jax.random.key(3)
    expected = {
        "he_normal": fj.he_normal()(key, shape),
        "uniform": fj.uniform()(key, shape, "bfloat16"),
        "orthogonal": fj.orthogonal()(key, shape),
        "sparse": fj.sparse(0.5)(key, shape),
        "constant": jnp.full(shape, 0.1),
        "columns": jnp.tile(jnp.arange(24.0), (16, 1)),
        **{f"batch {k}": fj.he_normal()(each, shape) for k, each in enumerate(jax.random.split(key, 3))},
    }
    wrong = {
        label: bytes_[:100]
        for label, bytes_ in eight["tensors"].items()
        if bytes_ != np.asarray(expected[label.partition(",")[0]]).tobytes().hex()
    }
    assert wrong == {}
    # 3 meshes: 7 ways to cut and 5 other initializers, each 3 times; 5 times under a mesh, 3 keys
    assert len(eight["tensors"]) == 3 * (3 * (7 + 5) + 5 + 3)


def test_each_shard_draws_its_own_window(eight: dict[str, Any]) -> None:
    assert eight["windows"] == {
        "both, at once": [[4, 12]] * 8,
        "both, jit": [[4, 12]] * 8,
        "rows, at once": [[4, 24]] * 4,  # made once, stored twice
        "rows, jit": [[4, 24]] * 8,
    }


def test_shards_that_do_not_fit_are_refused(eight: dict[str, Any]) -> None:
    texts = {
        "uneven": "ShapeError: `out_sharding` P('x',) must cut each axis into equal parts, but 4 does not "
        "divide 10, axis 0 of `shape` (10, 24)",
        "uneven by two axes": "ShapeError: `out_sharding` P(('x', 'y'),) must cut each axis into equal "
        "parts, but 8 does not divide 12, axis 0 of `shape` (12, 24)",
        "rank": "ShapeError: `out_sharding` P(None, None, 'x') has 3 axes, but `shape` (16, 24) has 2",
        "unconstrained": "ArgumentError: `out_sharding` P(UNCONSTRAINED,) must say how every axis is cut",
    }
    assert eight["refusals"] == {
        f"{label}, {how}": text for label, text in texts.items() for how in ("at once", "jit")
    }
