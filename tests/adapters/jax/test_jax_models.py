"""Whole Flax modules: every parameter once, in its layer's axes, with the numbers of its canonical name."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.typing import NDArray

import fanin
import fanin.jax as fj
from fanin.errors import DtypeError, PlanError, RecipeError
from fanin.recipe import Recipe

Array = NDArray[Any]
HE = fanin.HeNormal()
GATES = ("input_gate", "forget_gate", "cell_gate", "output_gate")
GRU_GATES = ("reset_gate", "update_gate", "new_gate")


def rngs() -> nnx.Rngs:
    return nnx.Rngs(0)


def state(module: nnx.Module) -> dict[str, Array]:
    """All variables of a module by their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(nnx.state(module))[0]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return {name.removesuffix(".value"): raw(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}


def abstract(build: Callable[[], Any]) -> Any:
    return nnx.eval_shape(build)


def concrete(build: Callable[[], Any]) -> Any:
    """A module of arrays, without the draws of Flax and their compilation."""
    model = abstract(build)
    for _, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.Variable):
            like = variable.get_value()
            typed = jnp.issubdtype(like.dtype, jax.dtypes.prng_key)
            variable.set_value(jax.random.key(3) if typed else jnp.full(like.shape, 0.5, like.dtype))
    return model


def raw(leaf: Any) -> Array:
    typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if typed else leaf)


def same(one: dict[str, Array], two: dict[str, Array]) -> None:
    assert one.keys() == two.keys()
    for path, value in one.items():
        assert value.dtype == two[path].dtype, path
        assert value.tobytes() == two[path].tobytes(), path


def started(layer: Any, shape: tuple[int, ...], recipe: Any = "he_normal", **given: Any) -> dict[str, Any]:
    """The parameters of a linen layer."""
    x = jnp.ones(shape)
    found: dict[str, Any] = fj.initialize(layer, recipe, seed=7, inputs=(x,), **given)["params"]
    return found


# --- fans of every layer -------------------------------------------------------------------------

LAYERS: dict[str, tuple[Callable[[], nnx.Module], dict[str, tuple[float, float] | None]]] = {
    "linear": (lambda: nnx.Linear(3, 5, rngs=rngs()), {"weight": (3, 5), "bias": (3, 5)}),
    "no bias": (lambda: nnx.Linear(3, 5, use_bias=False, rngs=rngs()), {"weight": (3, 5)}),
    "general": (
        lambda: nnx.LinearGeneral((2, 3), (4, 5), axis=(-2, -1), rngs=rngs()),
        {"weight": (6, 20), "bias": (6, 20)},
    ),
    "general with a batch": (
        lambda: nnx.LinearGeneral(3, 4, batch_axis={0: 2}, rngs=rngs()),
        {"0.weight": (3, 4), "1.weight": (3, 4), "0.bias": (3, 4), "1.bias": (3, 4)},
    ),
    "einsum": (
        lambda: nnx.Einsum("btd,dnh->btnh", (6, 2, 4), (2, 4), rngs=rngs()),
        {"weight": (6, 8), "bias": (6, 8)},
    ),
    "einsum of experts": (
        lambda: nnx.Einsum("ebd,edf->ebf", (2, 6, 4), rngs=rngs()),
        {"0.weight": (6, 4), "1.weight": (6, 4)},
    ),
    "conv": (lambda: nnx.Conv(4, 8, (3, 3), rngs=rngs()), {"weight": (36, 72), "bias": (36, 72)}),
    "grouped conv": (
        lambda: nnx.Conv(4, 8, (3,), feature_group_count=2, rngs=rngs()),
        {"weight": (6, 12), "bias": (6, 12)},
    ),
    "depthwise conv": (
        lambda: nnx.Conv(4, 8, (3, 3), feature_group_count=4, rngs=rngs()),
        {"weight": (9, 18), "bias": (9, 18)},
    ),
    "transposed conv": (
        lambda: nnx.ConvTranspose(4, 8, (4, 4), strides=(2, 2), rngs=rngs()),
        {"weight": (4 * 16 / 4, 8 * 16), "bias": (16, 128)},
    ),
    "transposed conv, one stride": (
        lambda: nnx.ConvTranspose(4, 8, (4, 4), strides=2, transpose_kernel=True, rngs=rngs()),
        {"weight": (16, 128), "bias": (16, 128)},
    ),
    "embedding": (lambda: nnx.Embed(9, 4, rngs=rngs()), {"weight": (1, 4)}),
    "batch norm": (lambda: nnx.BatchNorm(4, rngs=rngs()), {"weight": None, "bias": None}),
    "layer norm": (lambda: nnx.LayerNorm(4, rngs=rngs()), {"weight": None, "bias": None}),
    "group norm": (lambda: nnx.GroupNorm(4, 2, rngs=rngs()), {"weight": None, "bias": None}),
    "rms norm": (lambda: nnx.RMSNorm(4, rngs=rngs()), {"weight": None}),
    "instance norm": (lambda: nnx.InstanceNorm(4, rngs=rngs()), {"weight": None, "bias": None}),
    "prelu": (nnx.PReLU, {"weight": None}),
    "attention": (
        lambda: nnx.MultiHeadAttention(2, 6, qkv_features=8, out_features=10, in_kv_features=4, rngs=rngs()),
        {
            "q_proj.weight": (6, 8),
            "q_proj.bias": (6, 8),
            "k_proj.weight": (4, 8),
            "k_proj.bias": (4, 8),
            "v_proj.weight": (4, 8),
            "v_proj.bias": (4, 8),
            "out_proj.weight": (8, 10),
            "out_proj.bias": (8, 10),
        },
    ),
    "lstm": (
        lambda: nnx.LSTMCell(3, 5, rngs=rngs()),
        {
            **{f"weight_ih.{gate}": (3, 5) for gate in GATES},
            **{f"weight_hh.{gate}": (5, 5) for gate in GATES},
            **{f"bias_ih.{gate}": (3, 5) for gate in GATES},
        },
    ),
    "packed lstm": (
        lambda: nnx.OptimizedLSTMCell(3, 5, rngs=rngs()),
        {
            **{f"weight_ih.{gate}": (3, 5) for gate in GATES},
            **{f"weight_hh.{gate}": (5, 5) for gate in GATES},
            **{f"bias_ih.{gate}": (3, 5) for gate in GATES},
        },
    ),
    "gru": (
        lambda: nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs())),
        {
            **{f"weight_ih.{gate}": (3, 5) for gate in GRU_GATES},
            **{f"weight_hh.{gate}": (5, 5) for gate in GRU_GATES},
            **{f"bias_ih.{gate}": (3, 5) for gate in GRU_GATES},
        },
    ),
    "simple, both directions": (
        lambda: nnx.Bidirectional(
            nnx.RNN(nnx.SimpleCell(3, 5, rngs=rngs())), nnx.RNN(nnx.SimpleCell(3, 5, rngs=rngs()))
        ),
        {
            f"{front}{name}": fans
            for front in ("", "reverse.")
            for name, fans in (("weight_ih", (3, 5)), ("weight_hh", (5, 5)), ("bias_ih", (3, 5)))
        },
    ),
    "lora": (
        lambda: nnx.LoRALinear(3, 5, lora_rank=2, rngs=rngs()),
        {"weight": (3, 5), "bias": (3, 5), "lora.lora_a": (3, 2), "lora.lora_b": (2, 5)},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_parameter_of_a_layer_has_the_fans_of_what_it_does(name: str) -> None:
    build, fans = LAYERS[name]
    found = fj.plan(abstract(build), "he_normal", seed=0)
    assert {row.name: row.fans if row.fans is None else tuple(row.fans) for row in found.rows} == fans
    assert not [row.name for row in found.rows if row.role == "unknown"]


@pytest.mark.parametrize("name", LAYERS)
def test_an_abstract_layer_becomes_the_concrete_one_and_a_second_time_changes_nothing(name: str) -> None:
    build, _ = LAYERS[name]
    made = fj.initialize(abstract(build), "he_normal", seed=3)
    model = fj.initialize(concrete(build), "he_normal", seed=3)
    first = state(model)
    parameters = [".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(nnx.state(made)))
    same({p: first[p] for p in parameters}, {p: v for p, v in state(made).items() if p in parameters})
    same(first, state(fj.initialize(model, "he_normal", seed=3)))


# linen's layers: the layer, the shape of its input, and its fans
LINEN: dict[str, tuple[Any, tuple[int, ...], dict[str, tuple[float, float] | None]]] = {
    "dense": (nn.Dense(5), (2, 3), {"weight": (3, 5), "bias": (3, 5)}),
    "general": (
        nn.DenseGeneral((4, 5), axis=(-2, -1)),
        (7, 2, 3),
        {"weight": (6, 20), "bias": (6, 20)},
    ),
    "general with a batch": (
        nn.DenseGeneral(4, batch_dims=(0,)),
        (2, 7, 3),
        {"0.weight": (3, 4), "1.weight": (3, 4), "0.bias": (3, 4), "1.bias": (3, 4)},
    ),
    "einsum": (
        nn.Einsum((6, 2, 4), "btd,dnh->btnh"),
        (1, 3, 6),
        {"weight": (6, 8), "bias": (6, 8)},
    ),
    "conv": (nn.Conv(8, (3,), feature_group_count=2), (1, 9, 4), {"weight": (6, 12), "bias": (6, 12)}),
    "local conv": (nn.ConvLocal(5, (3,)), (1, 9, 4), {"weight": (12, 15), "bias": (12, 15)}),
    "transposed conv": (
        nn.ConvTranspose(8, (4, 4), (2, 2)),
        (1, 6, 6, 4),
        {"weight": (16, 128), "bias": (16, 128)},
    ),
    "batch norm": (nn.BatchNorm(use_running_average=True), (2, 4), {"weight": None, "bias": None}),
    "layer norm": (nn.LayerNorm(), (2, 4), {"weight": None, "bias": None}),
    "group norm": (nn.GroupNorm(2), (2, 4), {"weight": None, "bias": None}),
    "rms norm": (nn.RMSNorm(), (2, 4), {"weight": None}),
    "instance norm": (nn.InstanceNorm(), (2, 3, 4), {"weight": None, "bias": None}),
    "prelu": (nn.PReLU(), (2, 4), {"weight": None}),
    "attention": (
        nn.MultiHeadDotProductAttention(2, qkv_features=8, out_features=10, normalize_qk=True),
        (1, 3, 6),
        {
            **{f"{p}_proj.{leaf}": (6, 8) for p in "qkv" for leaf in ("weight", "bias")},
            "out_proj.weight": (8, 10),
            "out_proj.bias": (8, 10),
            "query_ln.weight": None,
            "key_ln.weight": None,
        },
    ),
}


@pytest.mark.parametrize("name", LINEN)
def test_a_layer_of_linen_has_the_fans_of_what_it_does(name: str) -> None:
    layer, shape, fans = LINEN[name]
    found = fj.plan(layer, "he_normal", seed=0, inputs=(jax.ShapeDtypeStruct(shape, jnp.float32),))
    assert {row.name: row.fans if row.fans is None else tuple(row.fans) for row in found.rows} == fans
    made = fj.initialize(layer, found, inputs=(jnp.ones(shape),))
    assert jax.tree.structure(made) == jax.tree.structure(layer.init(jax.random.key(0), jnp.ones(shape)))
    assert jnp.isfinite(layer.apply(made, jnp.ones(shape))).all()


def test_embeddings_of_linen_are_tables() -> None:
    found = fj.plan(nn.Embed(9, 4), "he_normal", seed=0, inputs=(jnp.zeros(2, jnp.int32),))
    assert found["weight"].fans == (1, 4)


RECURRENT = {
    "lstm": (nn.LSTMCell(5), 12),
    "packed lstm": (nn.OptimizedLSTMCell(5), 12),
    "gru": (nn.GRUCell(5), 10),
    "minimal": (nn.MGUCell(5), 7),
    "simple": (nn.SimpleCell(5), 3),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_cells_of_linen_name_every_gate(name: str) -> None:
    cell, count = RECURRENT[name]
    found = fj.plan(nn.RNN(cell), "he_normal", seed=0, inputs=(jnp.ones((1, 4, 3)),))
    assert len(found.rows) == count
    for row in found.rows:
        words = row.name.split(".")
        part = next(word for word in words if word.startswith(("weight", "bias")))
        assert row.fans == ((5, 5) if part == "weight_hh" else (3, 5)), row.name
        expected = {"weight_ih": "kernel", "weight_hh": "recurrent_kernel", "bias_ih": "gate_bias"}
        assert row.role == expected.get(part, "recurrent_bias")
    forget = [row for row in found.rows if row.name.endswith("bias_ih.forget_gate")]
    assert [str(row.initializer) for row in forget] == (["ones()"] if name not in ("gru", "simple") else [])


def test_a_convolutional_lstm_keeps_the_order_of_its_gates_and_its_own_forget_offset() -> None:
    cell = nn.ConvLSTMCell(4, (3,))
    found = started(nn.RNN(cell), (2, 5, 6, 3))
    cell_name = next(iter(found))
    kernel = np.asarray(found[cell_name]["ih"]["kernel"])
    assert (kernel[..., 8:12] == HE((3, 3, 4), seed=7, name="weight_ih.forget_gate")).all()
    assert not np.asarray(found[cell_name]["ih"]["bias"]).any()


# --- values --------------------------------------------------------------------------------------


def test_values_are_those_of_the_canonical_names() -> None:
    class Net(nnx.Module):
        def __init__(self) -> None:
            self.embed = nnx.Embed(11, 6, rngs=rngs())
            self.conv = nnx.Conv(6, 8, (3, 3), feature_group_count=2, rngs=rngs())
            self.attn = nnx.MultiHeadAttention(2, 8, rngs=rngs())
            self.fc = nnx.Linear(8, 5, rngs=rngs(), param_dtype=jnp.bfloat16)

    net = fj.initialize(abstract(Net), HE, seed=9)
    expected = {
        "conv": HE((3, 3, 3, 8), seed=9, name="conv.weight", axes=fanin.Axes((-1,), (-2,), groups=2)),
        "q": HE((8, 8), seed=9, name="attn.q_proj.weight", axes="oi").T.reshape(8, 2, 4),
        "k": HE((8, 8), seed=9, name="attn.k_proj.weight", axes="oi").T.reshape(8, 2, 4),
        "v": HE((8, 8), seed=9, name="attn.v_proj.weight", axes="oi").T.reshape(8, 2, 4),
        "out": HE((8, 8), seed=9, name="attn.out_proj.weight", axes="oi").T.reshape(2, 4, 8),
        "fc": HE((8, 5), seed=9, name="fc.weight", dtype="bfloat16"),
        "embed": fanin.RandomNormal(0.0, 0.02)((11, 6), seed=9, name="embed.weight", axes="lookup"),
    }
    got = {
        "conv": net.conv.kernel[...],
        "q": net.attn.query.kernel[...],
        "k": net.attn.key.kernel[...],
        "v": net.attn.value.kernel[...],
        "out": net.attn.out.kernel[...],
        "fc": net.fc.kernel[...],
        "embed": net.embed.embedding[...],
    }
    for what, values in expected.items():
        assert np.asarray(got[what]).tobytes() == np.ascontiguousarray(values).tobytes(), what
    assert (np.asarray(net.attn.query.bias[...]) == 0).all()


def adjoint(x: Array, kernel: Array, stride: int) -> Array:
    """A transposed convolution without padding, as its definition: ``y[s i + k] += w[o, c, k] x[i, c]``."""
    outputs, _, *field = kernel.shape
    size = [(n - 1) * stride + k for n, k in zip(x.shape[:-1], field, strict=True)]
    y = np.zeros((*size, outputs))
    for i in np.ndindex(x.shape[:-1]):
        for k in np.ndindex(*field):
            place = tuple(stride * a + b for a, b in zip(i, k, strict=True))
            y[place] += kernel[(slice(None), slice(None), *k)] @ x[i]
    return y


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_a_transposed_convolution_is_the_adjoint_of_its_canonical_kernel(transpose_kernel: bool) -> None:
    axes = fanin.Axes(out=(0,), in_=(1,), stride=4)
    kernel = HE((5, 3, 4, 3), seed=7, name="weight", axes=axes).astype(np.float64)
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    wanted = adjoint(x, kernel, 2)
    options = {"padding": "VALID", "transpose_kernel": transpose_kernel}
    layer = fj.initialize(
        abstract(lambda: nnx.ConvTranspose(3, 5, (4, 3), 2, **options, rngs=rngs())), HE, seed=7
    )
    linen = nn.ConvTranspose(5, (4, 3), (2, 2), **options)
    variables = fj.initialize(linen, HE, seed=7, inputs=(jnp.asarray(x[None]),))
    # each output sums at most 2 * 2 taps of 3 inputs, each product rounded to float32
    bound = 12 * 2**-23 * np.abs(kernel).max() * np.abs(x).max()
    for got in (layer(jnp.asarray(x[None])), linen.apply(variables, jnp.asarray(x[None]))):
        assert got.shape[1:] == wanted.shape
        assert np.abs(np.asarray(got[0]) - wanted).max() < bound


def test_cells_that_pack_their_gates_and_cells_that_do_not_are_one_function() -> None:
    one, two, gru = (
        fj.initialize(abstract(lambda cell=cell: cell(3, 5, rngs=rngs())), "glorot_uniform", seed=1)
        for cell in (nnx.LSTMCell, nnx.OptimizedLSTMCell, nnx.GRUCell)
    )
    x, carry = jnp.linspace(-1, 1, 6).reshape(2, 3), (jnp.ones((2, 5)), jnp.full((2, 5), 0.5))
    outputs = [one(carry, x)[1], two(carry, x)[1]]
    for layer in (nn.LSTMCell(5), nn.OptimizedLSTMCell(5)):
        variables = fj.initialize(layer, "glorot_uniform", seed=1, inputs=(carry, x))
        outputs.append(layer.apply(variables, carry, x)[1])
    for other in outputs[1:]:
        assert jnp.abs(outputs[0] - other).max() < 1e-6
    variables = fj.initialize(nn.GRUCell(5), "glorot_uniform", seed=1, inputs=(carry[0], x))
    assert jnp.abs(gru(carry[0], x)[1] - nn.GRUCell(5).apply(variables, carry[0], x)[1]).max() < 1e-6
    assert jnp.abs(outputs[0]).max() > 0.05


def test_the_forget_gate_starts_open() -> None:
    packed = fj.initialize(abstract(lambda: nnx.OptimizedLSTMCell(3, 5, rngs=rngs())), "he_normal", seed=1)
    assert np.asarray(packed.dense_h.bias[...]).tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10


class Encoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(13, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False)
        self.up = nnx.Linear(8, 16, rngs=rngs)
        self.rnn = nnx.RNN(nnx.LSTMCell(16, 4, rngs=rngs))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.norm(self.embed(tokens))
        return self.rnn(self.up(x + self.attn(x)))


class LinenEncoder(nn.Module):
    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.LayerNorm()(nn.Embed(13, 8)(tokens))
        x = nn.Dense(16)(x + nn.MultiHeadDotProductAttention(2)(x))
        return nn.RNN(nn.LSTMCell(4))(x)


ALIAS = {
    "Embed_0": "embed",
    "LayerNorm_0": "norm",
    "MultiHeadDotProductAttention_0": "attn",
    "Dense_0": "up",
    "LSTMCell_0": "rnn",
}


def test_nnx_and_linen_are_one_network_under_one_set_of_names() -> None:
    tokens = jnp.arange(10).reshape(2, 5)
    encoder = fj.initialize(abstract(lambda: Encoder(rngs())), "glorot_normal", seed=5)
    recipe = Recipe([("*", "glorot_normal")], alias=ALIAS)
    variables = fj.initialize(LinenEncoder(), recipe, seed=5, inputs=(tokens,))
    params = variables["params"]
    assert (params["Dense_0"]["kernel"] == encoder.up.kernel[...]).all()
    assert (params["LSTMCell_0"]["hf"]["kernel"] == encoder.rnn.cell.hf.kernel[...]).all()
    ours, theirs = encoder(tokens), LinenEncoder().apply(variables, tokens)
    assert jnp.isfinite(ours).all()
    assert jnp.abs(ours - theirs).max() < 1e-6
    assert ours.std() > 1e-3


def test_other_layers_elsewhere_change_no_number() -> None:
    class Larger(Encoder):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.before = nnx.Conv(3, 4, (5, 5), rngs=rngs)
            super().__init__(rngs)
            self.z = nnx.Linear(4, 4, rngs=rngs)

    small = state(fj.initialize(abstract(lambda: Encoder(rngs())), "he_uniform", seed=2))
    large = state(fj.initialize(abstract(lambda: Larger(rngs())), "he_uniform", seed=2))
    kernels = [path for path in small if path.endswith("kernel")]
    assert len(kernels) > 8
    same({path: small[path] for path in kernels}, {path: large[path] for path in kernels})


def test_a_plan_in_a_file_is_applied_and_is_for_its_model_alone(tmp_path: Path) -> None:
    def build() -> Encoder:
        return Encoder(rngs())

    plan = fj.plan(abstract(build), "he_normal", seed=4)
    plan.save(tmp_path / "plan.json")
    direct = state(fj.initialize(concrete(build), "he_normal", seed=4))
    same(direct, state(fj.initialize(concrete(build), tmp_path / "plan.json")))
    assert plan.diff(fj.plan(concrete(build), "he_normal", seed=4)) == []
    other = concrete(lambda: nnx.Linear(3, 5, rngs=rngs()))
    before = state(other)
    with pytest.raises(PlanError, match="make the plan for this model"):
        fj.initialize(other, plan)
    same(before, state(other))


# --- ties, blocks, stacks ------------------------------------------------------------------------


def test_a_variable_at_two_places_is_one_parameter_with_the_name_of_the_table() -> None:
    class Tied(nnx.Module):
        def __init__(self) -> None:
            self.decoder = nnx.Embed(7, 4, rngs=rngs())
            self.a = self.decoder.embedding
            self.table = self.decoder

    model = fj.initialize(concrete(Tied), "he_normal", seed=0)
    plan = fj.plan(model, "he_normal", seed=0)
    assert [row.name for row in plan.rows] == ["decoder.weight"]
    assert plan.tensors[0].ties == ("table.embedding", "a") or plan.tensors[0].ties == (
        "a",
        "table.embedding",
    )
    assert model.a is model.decoder.embedding


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.RMSNorm(6, rngs=rngs)
        self.conv = nnx.ConvTranspose(6, 6, (3,), rngs=rngs)
        self.cell = nnx.OptimizedLSTMCell(6, 6, rngs=rngs)


class Unrolled(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(5, 6, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(3)])


def stacked_model(axis: int) -> type[nnx.Module]:
    class Stacked(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.embed = nnx.Embed(5, 6, rngs=rngs)
            make = nnx.vmap(Block, in_axes=0, out_axes=axis, axis_size=3)
            self.blocks = nnx.split_rngs(splits=3)(make)(rngs)

    return Stacked


@pytest.mark.parametrize("axis", [0, 1])
def test_stacked_layers_hold_the_numbers_of_those_in_a_list(axis: int) -> None:
    apart = fj.initialize(abstract(lambda: Unrolled(rngs())), "he_normal", seed=6)
    together = fj.initialize(abstract(lambda: stacked_model(axis)(rngs())), "he_normal", seed=6)
    plans = [fj.plan(model, "he_normal", seed=6) for model in (apart, together)]
    assert {r.name: (r.fans, r.block, r.role) for r in plans[0].rows} == {
        r.name: (r.fans, r.block, r.role) for r in plans[1].rows
    }
    assert [plan.facts for plan in plans] == [{"n_layer": 3}] * 2
    unrolled, stacked = state(apart), state(together)
    for path, value in stacked.items():
        if path.startswith("blocks."):
            rest = path.removeprefix("blocks.")
            lists = [unrolled[f"blocks.{at}.{rest}"] for at in range(3)]
            assert np.stack(lists, axis=axis).tobytes() == value.tobytes(), path


def test_blocks_are_counted_for_the_recipes_that_ask() -> None:
    class Part(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.attn = nnx.MultiHeadAttention(2, 8, rngs=rngs)
            self.down_proj = nnx.Linear(8, 8, rngs=rngs)

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.blocks = nnx.List([Part(rngs()) for _ in range(8)])
            self.cells = nnx.List([nnx.LSTMCell(3, 3, rngs=rngs()) for _ in range(9)])  # are no blocks

    plan = fj.plan(abstract(Model), "gpt2", seed=0)
    assert plan.facts == {"n_layer": 8}
    assert plan["blocks.7.down_proj.weight"].block == 7
    assert plan["blocks.7.down_proj.weight"].std == 0.02 / 4
    assert plan["blocks.0.attn.out_proj.weight"].std == 0.02 / 4
    assert plan["blocks.0.attn.q_proj.weight"].std == 0.02


def test_activations_in_a_sequence_are_known() -> None:
    def build() -> nnx.Module:
        layers = [nnx.Linear(4, 4, rngs=rngs()) for _ in range(5)]
        norm = nnx.LayerNorm(4, rngs=rngs())
        return nnx.Sequential(
            layers[0], norm, nnx.relu, layers[1], nnx.silu, layers[2], nnx.PReLU(), layers[3], layers[4]
        )

    plan = fj.plan(abstract(build), "orthogonal", seed=0)
    found = {row.name: row.activation for row in plan.rows if row.role == "kernel"}
    assert found == {
        "0.weight": "relu",
        "3.weight": "silu",
        "5.weight": "prelu",
        "7.weight": None,
        "8.weight": None,
    }


def test_an_ensemble_of_models_has_the_number_of_the_model_in_front() -> None:
    class Pair(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.a, self.b = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    pair = abstract(lambda: nnx.vmap(Pair, in_axes=0, out_axes=0)(nnx.Rngs(0).split(2)))
    plan = fj.plan(pair, "he_normal", seed=0)
    assert plan["0.a.weight"].fans == (3, 4)
    assert plan["1.b.bias"].shape == (2,)
    assert plan.facts == {}

    class Blocks(nnx.Module):  # nothing but a stack is no ensemble
        def __init__(self) -> None:
            self.blocks = nnx.vmap(Pair, in_axes=0, out_axes=0)(nnx.Rngs(0).split(2))

    plan = fj.plan(abstract(Blocks), "he_normal", seed=0)
    assert plan["blocks.1.a.weight"].block == 1
    assert plan.facts == {"n_layer": 2}


def test_a_module_that_knows_its_parent_has_an_end() -> None:
    class Child(nnx.Module):
        def __init__(self, parent: nnx.Module) -> None:
            self.parent, self.fc = parent, nnx.Linear(2, 3, rngs=rngs())

    class Parent(nnx.Module):
        def __init__(self) -> None:
            self.child = Child(self)

    model = fj.initialize(Parent(), HE, seed=0)
    assert [row.name for row in fj.plan(model, HE, seed=0).rows] == ["child.fc.weight", "child.fc.bias"]
    assert (model.child.fc.kernel[...] == HE((2, 3), seed=0, name="child.fc.weight")).all()


def test_stacked_heads_are_no_blocks() -> None:
    class Heads(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            split, options = {"params": True}, {"in_axes": None, "axis_size": 4}
            heads = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs=split, **options)
            return heads(5, name="heads")(nn.Dense(3)(x))

    plan = fj.plan(Heads(), "he_normal", seed=0, inputs=(jnp.ones((2, 6)),))
    assert plan["heads.3.weight"].fans == (3, 5)
    assert plan.facts == {}


def test_modules_that_are_no_trees_and_lists_of_linen_have_the_names_of_their_places() -> None:
    class Opaque(nnx.Module, pytree=False):
        def __init__(self) -> None:
            self.fc, self.size, self.act = nnx.Linear(2, 3, rngs=rngs()), 3, nnx.relu

    model = fj.initialize(Opaque(), HE, seed=0)
    assert (model.fc.kernel[...] == HE((2, 3), seed=0, name="fc.weight")).all()

    class Tagger(nn.Module):
        def setup(self) -> None:
            self.embed = nn.Embed(7, 6)
            self.rnn = nn.Bidirectional(nn.RNN(nn.LSTMCell(6)), nn.RNN(nn.OptimizedLSTMCell(6)))
            self.layers = [nn.Dense(6) for _ in range(2)]

        def __call__(self, tokens: jax.Array) -> jax.Array:
            x = self.rnn(self.embed(tokens))
            for layer in self.layers:
                x = layer(x)
            return self.embed.attend(x)

    tokens = jnp.zeros((2, 3), jnp.int32)
    plan = fj.plan(Tagger(), HE, seed=0, inputs=tokens)
    names = [row.name for row in plan.rows]
    assert names[0] == "embed.weight"
    assert {"rnn.weight_hh.cell_gate", "rnn.reverse.weight_hh.cell_gate", "layers_1.bias"} < set(names)
    assert jnp.isfinite(Tagger().apply(fj.initialize(Tagger(), plan, inputs=tokens), tokens)).all()


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, _: None = None) -> tuple[jax.Array, None]:
        return x + nn.Dense(6)(nn.relu(nn.Dense(9)(nn.LayerNorm()(x)))), None


class Deep(nn.Module):
    axis: int = 0
    scanned: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.scanned:
            split = {"params": True}
            scan = nn.scan(Residual, variable_axes={"params": self.axis}, split_rngs=split, length=3)
            return scan(name="blocks")(nn.Dense(6)(x), None)[0]
        x = nn.Dense(6)(x)
        for at in range(3):
            x, _ = nn.remat(Residual)(name=f"blocks_{at}")(x)
        return x


@pytest.mark.parametrize("axis", [0, 1])
def test_scanned_layers_of_linen_hold_the_numbers_of_those_apart(axis: int) -> None:
    x = jnp.ones((2, 5))
    alias = {f"blocks_{at}": f"blocks.{at}" for at in range(3)}
    apart = started(Deep(scanned=False), x.shape, Recipe([("*", "he_normal")], alias=alias))
    together = started(Deep(axis), x.shape)
    for path, value in jax.tree_util.tree_flatten_with_path(together["blocks"])[0]:
        keys = [key.key for key in path]
        lists = [apart[f"blocks_{at}"][keys[0]][keys[1]] for at in range(3)]
        assert (jnp.stack(lists, axis=axis) == value).all()
    for scanned in (True, False):
        plan = fj.plan(Deep(axis, scanned), "he_normal", seed=0, inputs=(x,))
        assert plan.facts == {"n_layer": 3}
    assert jnp.isfinite(Deep(axis).apply({"params": together}, x)).all()


# --- what is no parameter ------------------------------------------------------------------------


class Noisy(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.drop(self.norm(self.fc(x)))


def test_statistics_and_random_streams_of_a_concrete_module_stay() -> None:
    model = Noisy(nnx.Rngs(5))
    model(jnp.arange(12.0).reshape(3, 4))
    before = state(model)
    fj.initialize(model, "he_normal", seed=0)
    after = state(model)
    kept = [path for path in before if not path.endswith(("kernel", "bias", "scale"))]
    assert len(kept) == 4
    same({path: before[path] for path in kept}, {path: after[path] for path in kept})
    assert before["norm.mean"].any()
    assert before["fc.kernel"].tobytes() != after["fc.kernel"].tobytes()


def test_an_abstract_module_gets_statistics_and_streams_of_its_seed() -> None:
    one, again, two = (fj.initialize(abstract(lambda: Noisy(rngs())), "he_normal", seed=s) for s in (0, 0, 1))
    assert one.norm.mean[...].tolist() == [0.0] * 4
    assert one.norm.var[...].tolist() == [1.0] * 4
    assert one.drop.rngs.count[...] == 0
    same(state(one), state(again))
    key = "drop.rngs.key"
    assert state(one)[key].tobytes() != state(two)[key].tobytes()
    assert jnp.isfinite(one(jnp.ones((3, 4)))).all()


def test_what_nothing_tells_of_an_abstract_module_is_refused() -> None:
    class Cached(nnx.Module):
        def __init__(self) -> None:
            self.fc = nnx.Linear(2, 2, rngs=rngs())
            self.seen = nnx.Cache(jnp.zeros(3))

    model = abstract(Cached)
    with pytest.raises(PlanError, match=r"'seen' \(Cache\) is abstract and no parameter"):
        fj.initialize(model, "he_normal", seed=0)
    assert isinstance(model.fc.kernel.get_value(), jax.ShapeDtypeStruct)


def test_other_collections_of_linen_start_as_the_module_starts_them() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
            return nn.SpectralNorm(nn.Dense(3))(
                nn.Dropout(0.5, deterministic=not train)(x), update_stats=train
            )

    x = jnp.ones((2, 5))
    made = fj.initialize(Net(), "he_normal", seed=0, inputs={"x": x, "train": False})
    assert jax.tree.structure(made) == jax.tree.structure(Net().init(jax.random.key(0), x, False))
    assert made["batch_stats"]["BatchNorm_0"]["var"].tolist() == [1.0] * 4
    again = fj.initialize(
        Net(), "he_normal", seed=0, inputs={"x": jax.ShapeDtypeStruct(x.shape, x.dtype), "train": False}
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), made, again))
    assert jnp.isfinite(Net().apply(made, x, False)).all()


def test_partitioned_parameters_of_linen_stay_in_their_boxes() -> None:
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
    made = started(nn.Dense(4, kernel_init=init), (2, 3))
    assert made["kernel"].names == ("in", "out")
    assert (made["kernel"].value == HE((3, 4), seed=7, name="weight")).all()


# --- errors --------------------------------------------------------------------------------------


class Custom(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.mix = nnx.Param(jnp.ones((3, 4)))
        self.fc = nnx.Linear(3, 4, rngs=rngs)


def with_param(value: Any) -> nnx.Module:
    model = concrete(lambda: Custom(rngs()))
    model.mix.set_value(value)
    return model


REFUSED: dict[str, tuple[Callable[[], Any], Any, type[Exception], str]] = {
    "unknown": (
        lambda: concrete(lambda: Custom(rngs())),
        "he_normal",
        PlanError,
        r"no rule matches mix \(3, 4\)",
    ),
    "integers": (
        lambda: with_param(jnp.ones((3, 4), jnp.int32)),
        "he_normal",
        DtypeError,
        "'mix' has dtype int32",
    ),
    "empty": (
        lambda: with_param(jnp.ones((0, 4))),
        "he_normal",
        PlanError,
        r"'mix' has no elements \(shape \(0, 4",
    ),
    "no parameters": (lambda: nnx.Dropout(0.1), "he_normal", PlanError, r"`model` \(Dropout\) holds no"),
    "a rule too many": (
        lambda: concrete(lambda: Custom(rngs())),
        Recipe([("fx.*", "zeros"), ("*", "he_normal")]),
        RecipeError,
        "matches no parameter",
    ),
    "kept": (
        lambda: abstract(lambda: Custom(rngs())),
        Recipe([("mix", "keep"), ("*", "he_normal")]),
        PlanError,
        "'mix' is abstract and has no value to keep",
    ),
    "another model's inputs": (lambda: nn.Dense(3), "he_normal", PlanError, "`inputs` of Dense are missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_set_is_said_before_anything_is(name: str) -> None:
    build, recipe, error, message = REFUSED[name]
    model = build()
    before = [(type(leaf), raw(leaf).tobytes()) for leaf in arrays(model)]
    with pytest.raises(error, match=message):
        fj.initialize(model, recipe, seed=0)
    assert [(type(leaf), raw(leaf).tobytes()) for leaf in arrays(model)] == before


def arrays(model: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array)]


def test_initializing_inside_compiled_functions_is_refused() -> None:
    model = nnx.Linear(3, 4, rngs=rngs())

    @nnx.jit
    def traced(model: nnx.Module) -> None:
        fj.initialize(model, "he_normal", seed=0)

    with pytest.raises(PlanError, match="is being traced; initialize outside jit"):
        traced(model)
    abstract = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    with pytest.raises(PlanError, match="initialize outside jit"):
        jax.jit(lambda: fj.initialize(abstract, "he_normal", seed=0))()


def test_inputs_are_for_linen() -> None:
    with pytest.raises(PlanError, match="`inputs` are for linen modules; a Linear shows its shapes"):
        fj.plan(nnx.Linear(3, 4, rngs=rngs()), "he_normal", seed=0, inputs=(1,))


def test_a_kind_of_layer_of_one_s_own_is_described_once() -> None:
    class Mix(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jnp.zeros((4, 3)))

    @fj.layer(Mix)
    def mix(module: Mix, shapes: dict[str, tuple[int, ...]]) -> dict[str, fj.Piece]:
        return {"w": fj.Piece("weight", "kernel", "mix", fj.Axes((0,), (1,)))}

    class Finer(Mix):
        pass

    model = fj.initialize(Finer(), "he_normal", seed=0)
    assert (model.w[...] == HE((4, 3), seed=0, name="weight", axes="oi")).all()


def test_a_layer_that_speaks_of_what_is_not_there_is_told_so() -> None:
    class Odd(nnx.Module):
        def __init__(self) -> None:
            self.w = nnx.Param(jnp.zeros((4, 3)))

    fj.layer(Odd)(lambda module, shapes: {"v": fj.Piece("weight", "kernel", "odd", fj.Axes((0,), (1,)))})
    with pytest.raises(PlanError, match="'' holds no 'v', of which its layer speaks; known names: w"):
        fj.plan(Odd(), "he_normal", seed=0)


def test_a_frozen_kernel_stays_and_its_bias_has_its_fans() -> None:
    class Frozen(nnx.Variable):
        pass

    layer = concrete(lambda: nnx.LoRALinear(3, 5, lora_rank=2, rngs=rngs()))
    layer.kernel = Frozen(jnp.full((3, 5), 7.0))
    plan = fj.plan(layer, HE, seed=0)
    assert [row.name for row in plan.rows] == ["bias", "lora.lora_a", "lora.lora_b"]
    assert plan["bias"].fans == (3, 5)
    fj.initialize(layer, plan)
    assert (layer.kernel[...] == 7).all()
    assert (layer.lora.lora_b[...] == 0).all()
    assert (layer.lora.lora_a[...] == HE((3, 2), seed=0, name="lora.lora_a")).all()


def test_leaves_of_unknown_layers_can_be_told_by_their_axes() -> None:
    model = fj.initialize(abstract(lambda: Custom(rngs())), HE, seed=0, axes={"mix": "oi"})
    assert (model.mix[...] == HE((3, 4), seed=0, name="mix", axes="oi")).all()
    with pytest.raises(PlanError, match="`axes` 'mox' names no parameter; did you mean mix"):
        fj.plan(model, HE, seed=0, axes={"mox": "oi"})


# --- the rest ------------------------------------------------------------------------------------


def test_importing_fanin_jax_imports_neither_flax_nor_equinox(python: Callable[..., str]) -> None:
    program = "import sys, fanin.jax{}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    assert {"flax", "equinox"}.isdisjoint(python(program.format("")).split())
    # with warnings as errors Flax itself does not import everywhere; a package of that name is enough
    assert "equinox" in python(program.format(", equinox")).split()


def test_values_have_the_law_of_their_fans() -> None:
    model = abstract(lambda: nnx.Conv(64, 128, (3, 3), feature_group_count=4, rngs=rngs()))
    layer = fj.initialize(model, HE, seed=0)
    values = np.asarray(layer.kernel[...])
    std = math.sqrt(2 / (9 * 16))
    assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * values.size)
