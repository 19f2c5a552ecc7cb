"""Trees of arrays and Equinox modules: paths are names, classes tell layers, other leaves their own words."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.typing import NDArray

import fanin
import fanin.jax as fj
from fanin.errors import DtypeError, PlanError, ShapeError
from fanin.recipe import Recipe

HE = fanin.HeNormal()
KEY = jax.random.key(0)


class Layer(NamedTuple):
    kernel: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclass
class Head:
    w: Any
    b: Any


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def tree() -> Any:
    return {
        "embed": {"embedding": shape(11, 6)},
        "layers": [Layer(shape(6, 8), shape(8)), Layer(shape(8, 6), shape(6))],
        "norm": {"scale": shape(6), "offset": shape(6)},
        "head": (Head(shape(6, 3, dtype=jnp.bfloat16), shape(3)), None, "text", 0.5),
    }


def concrete(abstract: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.full(leaf.shape, 7, leaf.dtype) if hasattr(leaf, "shape") else leaf, abstract
    )


def bits(found: Any) -> list[Any]:
    return [np.asarray(leaf).tobytes() if hasattr(leaf, "shape") else leaf for leaf in jax.tree.leaves(found)]


# --- plain trees ---------------------------------------------------------------------------------


def test_names_are_paths_and_leaves_say_what_they_are() -> None:
    plan = fj.plan(tree(), "he_normal", seed=0)
    found = {row.name: (row.role, row.fans) for row in plan.rows}
    assert found == {
        "embed.embedding": ("embedding", (1, 6)),
        "layers.0.kernel": ("kernel", (6, 8)),
        "layers.0.bias": ("bias", (6, 8)),
        "layers.1.kernel": ("kernel", (8, 6)),
        "layers.1.bias": ("bias", (8, 6)),
        "norm.scale": ("norm_scale", None),
        "norm.offset": ("norm_bias", None),
        "head.0.w": ("kernel", (6, 3)),
        "head.0.b": ("bias", (6, 3)),
    }


@pytest.mark.parametrize("make", [tree, lambda: concrete(tree())], ids=["abstract", "concrete"])
def test_a_new_tree_of_the_same_structure_holds_the_values_of_the_names(make: Callable[[], Any]) -> None:
    given = make()
    before = bits(given) if given["norm"]["scale"].__class__ is not jax.ShapeDtypeStruct else None
    made = fj.initialize(given, HE, seed=4)
    assert jax.tree.structure(made) == jax.tree.structure(given)
    expected = {
        "layers.1.kernel": (made["layers"][1].kernel, HE((8, 6), seed=4, name="layers.1.kernel")),
        "head.0.w": (made["head"][0].w, HE((6, 3), seed=4, name="head.0.w", dtype="bfloat16")),
        "norm.scale": (made["norm"]["scale"], np.ones(6, np.float32)),
    }
    for what, (got, values) in expected.items():
        assert isinstance(got, jax.Array), what
        assert np.asarray(got).tobytes() == values.tobytes(), what
    assert made["head"][1:] == (None, "text", 0.5)
    if before is not None:
        assert bits(given) == before
        assert bits(fj.initialize(made, HE, seed=4)) == bits(made)


def test_order_and_neighbours_change_no_number() -> None:
    large = {"a": {"w": shape(30, 30)}, **tree(), "z": {"w": shape(5, 5)}}
    small, other = fj.initialize(tree(), HE, seed=1), fj.initialize(large, HE, seed=1)
    assert bits(small["layers"]) == bits(other["layers"])


def test_a_kernel_whose_axes_a_tree_does_not_tell_asks_for_them() -> None:
    params = {"conv": {"w": shape(3, 3, 4, 8), "b": shape(8)}, "dense": {"w": shape(4, 2)}}
    with pytest.raises(PlanError, match=r"'conv.w' of shape \(3, 3, 4, 8\).*axes=\{'conv.w': 'io'\}"):
        fj.plan(params, HE, seed=0)
    plan = fj.plan(params, HE, seed=0, axes={"conv.*w": "io"})
    assert plan["conv.w"].fans == (36, 72)
    assert plan["dense.w"].fans == (4, 2)
    grouped = fanin.Axes((-1,), (-2,), groups=2)
    assert fj.plan(params, HE, seed=0, axes={"conv.w": ("head", grouped)})["conv.w"].fans == (36, 36)
    assert fj.plan(params, HE, seed=0, axes={"conv.w": ("head", grouped)})["conv.w"].role == "head"


def test_axes_must_fit_and_name_something() -> None:
    params = {"w": shape(4, 2)}
    with pytest.raises(PlanError, match="`axes` 'v' names no parameter; known names: w"):
        fj.plan(params, HE, seed=0, axes={"v": "io"})
    with pytest.raises(ShapeError, match="do not fit a tensor of rank 2"):
        fj.plan(params, HE, seed=0, axes={"w": fanin.Axes((2,), (0,))})
    with pytest.raises(PlanError, match=r"`axes` must map globs of names .*, got 'io'"):
        fj.plan(params, HE, seed=0, axes="io")
    with pytest.raises(PlanError, match="no role 'kernal'"):
        fj.plan(params, HE, seed=0, axes={"w": ("kernal", "io")})


def test_stacked_layers_and_packed_projections_are_told_by_their_axes() -> None:
    params = {
        "layers": {"mlp": {"w": shape(2, 4, 6), "b": shape(2, 6)}, "scale": shape(2, 4)},
        "attn": {"w": shape(4, 12)},
    }
    packed = fanin.Axes.parse("i (s o) -> s : o | i", members={"s": ("q_proj", "k_proj", "v_proj")})
    axes = {
        "layers.mlp.w": "l i o -> l : o | i",
        "layers.mlp.b": ("bias", "l o -> l : o |"),
        "layers.scale": ("norm_scale", "l o -> l : o |"),
        "attn.w": packed,
    }
    made = fj.initialize(params, HE, seed=3, axes=axes)
    for at in range(2):
        values = HE((4, 6), seed=3, name=f"layers.{at}.mlp.w")
        assert (np.asarray(made["layers"]["mlp"]["w"])[at] == values).all()
    plan = fj.plan(params, HE, seed=3, axes=axes)
    assert plan["layers.1.scale"].role == "norm_scale"
    assert plan["layers.1.mlp.b"].block == 1
    assert plan["attn.k_proj.w"].shape == (4, 4)
    assert plan.facts == {"n_layer": 2}


def test_a_rule_may_keep_what_a_concrete_tree_has() -> None:
    given = concrete(tree())
    recipe = Recipe([("head.*", "keep"), ("*", HE)])
    made = fj.initialize(given, recipe, seed=0)
    assert bits(made["head"]) == bits(given["head"])
    with pytest.raises(PlanError, match=r"'head.0.w' is abstract and has no value to keep"):
        fj.initialize(tree(), recipe, seed=0)


def test_of_packed_projections_one_may_be_kept() -> None:
    packed = fanin.Axes.parse("i (s o) -> s : o | i", members={"s": ("q", "k")})
    given = {"w": jnp.full((3, 8), 7.0)}
    made = fj.initialize(given, Recipe([("q.w", "keep"), ("*", HE)]), seed=0, axes={"w": packed})
    assert (made["w"][:, :4] == 7).all()
    assert (made["w"][:, 4:] == HE((3, 4), seed=0, name="k.w")).all()
    assert (given["w"] == 7).all()


def test_random_keys_are_no_parameters() -> None:
    made = fj.initialize({"w": shape(3, 2), "rng": jax.random.key(5)}, HE, seed=0)
    assert (jax.random.key_data(made["rng"]) == jax.random.key_data(jax.random.key(5))).all()
    abstract = {"w": shape(3, 2), "rng": jax.eval_shape(jax.random.key, 0)}
    with pytest.raises(PlanError, match=r"'rng' \(ShapeDtypeStruct\) is abstract and no parameter"):
        fj.initialize(abstract, HE, seed=0)


def test_a_state_of_nnx_is_a_tree_too() -> None:
    abstract = nnx.state(nnx.eval_shape(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0))), nnx.Param)
    made = fj.initialize(abstract, HE, seed=0)
    assert jax.tree.structure(made) == jax.tree.structure(abstract)
    assert (made["kernel"][...] == HE((3, 2), seed=0, name="kernel")).all()
    assert isinstance(abstract["kernel"].get_value(), jax.ShapeDtypeStruct)


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "integers": (
        {"w": shape(2, 2, dtype=jnp.int32)},
        DtypeError,
        "'w' has dtype int32.*take it out of the tree",
    ),
    "complex": ({"w": shape(2, 2, dtype=jnp.complex64)}, DtypeError, "'w' has dtype complex64"),
    "more bits than JAX has": (
        {"w": np.zeros((2, 2))},
        DtypeError,
        "'w': `dtype` float64 needs 64-bit types",
    ),
    "empty": ({"w": shape(2, 0)}, PlanError, r"'w' has no elements \(shape \(2, 0\)\)"),
    "nothing": ({"text": "a"}, PlanError, r"`model` \(dict\) holds no parameters"),
    "unknown": ({"pos": shape(5, 2)}, PlanError, r"no rule matches pos \(5, 2\) \(unknown, dict\)"),
    "a vector that is no kernel": ({"weight": shape(5)}, PlanError, r"no rule matches weight \(5,\)"),
    "one name twice": ({"a.w": shape(2, 2), "a": {"w": shape(2, 2)}}, PlanError, "'a.w'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_set_is_said(name: str) -> None:
    given, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        fj.initialize(given, HE, seed=0)


def test_traced_leaves_are_refused() -> None:
    with pytest.raises(PlanError, match="'w' is being traced; initialize outside jit, vmap and grad"):
        jax.vmap(lambda w: fj.initialize({"w": w}, HE, seed=0))(jnp.ones((2, 3, 4)))


def test_a_plan_is_for_its_tree_alone() -> None:
    plan = fj.plan(tree(), HE, seed=0)
    smaller = {key: value for key, value in tree().items() if key != "norm"}
    with pytest.raises(PlanError, match=r"is not in the model; make the plan for this model"):
        fj.initialize(smaller, plan)
    with pytest.raises(PlanError, match="`seed` 1: the plan has its own, 0"):
        fj.initialize(tree(), plan, seed=1)
    assert bits(fj.initialize(tree(), plan)) == bits(fj.initialize(tree(), HE, seed=0))


# --- Equinox -------------------------------------------------------------------------------------

GATES = ("input_gate", "forget_gate", "cell_gate", "output_gate")
EQUINOX: dict[str, tuple[Callable[[], Any], dict[str, tuple[float, float] | None]]] = {
    "linear": (lambda: eqx.nn.Linear(3, 5, key=KEY), {"weight": (3, 5), "bias": (3, 5)}),
    "scalar": (lambda: eqx.nn.Linear(3, "scalar", key=KEY), {"weight": (3, 1), "bias": (3, 1)}),
    "conv": (lambda: eqx.nn.Conv2d(4, 8, 3, groups=2, key=KEY), {"weight": (18, 36), "bias": (18, 36)}),
    "transposed conv": (
        lambda: eqx.nn.ConvTranspose1d(4, 6, 4, stride=2, groups=2, key=KEY),
        {"weight": (4, 12), "bias": (4, 12)},
    ),
    "embedding": (lambda: eqx.nn.Embedding(9, 4, key=KEY), {"weight": (1, 4)}),
    "layer norm": (lambda: eqx.nn.LayerNorm(4), {"weight": None, "bias": None}),
    "group norm": (lambda: eqx.nn.GroupNorm(2, 4), {"weight": None, "bias": None}),
    "rms norm": (lambda: eqx.nn.RMSNorm(4, use_bias=False), {"weight": None}),
    "prelu": (eqx.nn.PReLU, {"weight": None}),
    "lstm": (
        lambda: eqx.nn.LSTMCell(3, 5, key=KEY),
        {
            f"{part}.{g}": (5 if part == "weight_hh" else 3, 5)
            for part in ("weight_ih", "weight_hh", "bias_ih")
            for g in GATES
        },
    ),
    "attention": (
        lambda: eqx.nn.MultiheadAttention(2, 6, key_size=4, use_query_bias=True, key=KEY),
        {
            "q_proj.weight": (6, 6),
            "q_proj.bias": (6, 6),
            "k_proj.weight": (4, 6),
            "v_proj.weight": (6, 6),
            "out_proj.weight": (6, 6),
        },
    ),
    "sequential": (
        lambda: eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), eqx.nn.Lambda(jax.nn.relu)]),
        {"0.weight": (3, 4), "0.bias": (3, 4)},
    ),
    "mlp": (
        lambda: eqx.nn.MLP(3, 2, 4, 1, key=KEY),
        {
            "layers.0.weight": (3, 4),
            "layers.0.bias": (3, 4),
            "layers.1.weight": (4, 2),
            "layers.1.bias": (4, 2),
        },
    ),
}


@pytest.mark.parametrize("name", EQUINOX)
def test_layers_of_equinox_are_known_by_their_class(name: str) -> None:
    build, fans = EQUINOX[name]
    abstract = eqx.filter_eval_shape(build)
    plan = fj.plan(abstract, HE, seed=0)
    assert {row.name: row.fans if row.fans is None else tuple(row.fans) for row in plan.rows} == fans
    made, given = fj.initialize(abstract, HE, seed=0), jax.tree.leaves(abstract)
    assert type(made) is type(abstract)
    for old, new in zip(given, jax.tree.leaves(made), strict=True):
        assert new is old or (isinstance(new, jax.Array) and new.shape == old.shape)


def canonical(outputs: int, inputs: int, name: str) -> NDArray[Any]:
    return HE((outputs, inputs), seed=2, name=name, axes="oi")


def test_cells_of_equinox_and_flax_are_one_function() -> None:
    x, h, c = jnp.linspace(-1, 1, 3), jnp.linspace(0, 1, 5), jnp.linspace(1, 0, 5)
    ours = fj.initialize(eqx.filter_eval_shape(lambda: eqx.nn.LSTMCell(3, 5, key=KEY)), HE, seed=2)
    theirs = fj.initialize(nnx.eval_shape(lambda: nnx.LSTMCell(3, 5, rngs=nnx.Rngs(0))), HE, seed=2)
    assert (ours.weight_ih[5:10] == canonical(5, 3, "weight_ih.forget_gate")).all()
    assert jnp.abs(ours(x, (h, c))[0] - theirs((c, h), x)[1]).max() < 1e-6
    gru = fj.initialize(eqx.filter_eval_shape(lambda: eqx.nn.GRUCell(3, 5, key=KEY)), HE, seed=2)
    other = fj.initialize(nnx.eval_shape(lambda: nnx.GRUCell(3, 5, rngs=nnx.Rngs(0))), HE, seed=2)
    assert jnp.abs(gru(x, h) - other(h, x)[1]).max() < 1e-6
    attention = eqx.filter_eval_shape(lambda: eqx.nn.MultiheadAttention(2, 6, key=KEY))
    flax = nnx.eval_shape(
        lambda: nnx.MultiHeadAttention(2, 6, use_bias=False, decode=False, rngs=nnx.Rngs(0))
    )
    words = jnp.linspace(-1, 1, 24).reshape(4, 6)
    one = fj.initialize(attention, HE, seed=2)(words, words, words)
    assert jnp.abs(one - fj.initialize(flax, HE, seed=2)(words)).max() < 1e-5


def test_a_transposed_convolution_of_equinox_is_that_of_flax() -> None:
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 9)), jnp.float32)
    ours = eqx.filter_eval_shape(lambda: eqx.nn.ConvTranspose1d(3, 5, 4, stride=2, key=KEY))
    theirs = nnx.eval_shape(lambda: nnx.ConvTranspose(3, 5, (4,), 2, padding="VALID", rngs=nnx.Rngs(0)))
    one, two = fj.initialize(ours, HE, seed=2)(x), fj.initialize(theirs, HE, seed=2)(x.T)
    assert one.shape == two.T.shape
    assert jnp.abs(one - two.T).max() < 1e-5
    assert jnp.abs(one).max() > 0.1


class Stack(eqx.Module):
    embed: eqx.nn.Embedding
    blocks: eqx.nn.MLP
    activation: Callable[[jax.Array], jax.Array]

    def __init__(self, n: int) -> None:
        self.embed = eqx.nn.Embedding(5, 3, key=KEY)
        self.blocks = eqx.filter_vmap(lambda key: eqx.nn.MLP(3, 3, 4, 1, key=key))(jax.random.split(KEY, n))
        self.activation = jnp.tanh


def test_layers_stacked_by_filter_vmap_have_names_of_their_own() -> None:
    made = fj.initialize(eqx.filter_eval_shape(Stack, 3), HE, seed=2)
    for at in range(3):
        values = canonical(4, 3, f"blocks.{at}.layers.0.weight")
        assert (made.blocks.layers[0].weight[at] == values).all()
    assert made.activation is jnp.tanh


def test_activations_of_equinox_are_known() -> None:
    steps = [eqx.nn.Linear(3, 3, key=KEY), eqx.nn.Dropout(0.1), eqx.nn.Lambda(jax.nn.gelu)]
    model = eqx.nn.Sequential([*steps, eqx.nn.MLP(3, 3, 3, 1, activation=jnp.tanh, key=KEY)])
    plan = fj.plan(model, HE, seed=0)
    found = {row.name: row.activation for row in plan.rows if row.role == "kernel"}
    assert found == {"0.weight": "gelu", "3.layers.0.weight": "tanh", "3.layers.1.weight": None}


# --- where they lie ------------------------------------------------------------------------------


def test_a_leaf_becomes_an_array_where_its_sharding_says_and_stays_there() -> None:
    mesh = jax.make_mesh((1,), ("x",), (AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("x"))
    abstract = {"w": jax.ShapeDtypeStruct((4, 2), jnp.float32, sharding=place)}
    made = fj.initialize(abstract, HE, seed=0)
    assert made["w"].sharding == place
    assert fj.initialize(made, HE, seed=1)["w"].sharding == place
    assert (made["w"] == HE((4, 2), seed=0, name="w")).all()


EIGHT = """
import json
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import fanin.jax as fj
from fanin.plan import Plan
mesh = jax.make_mesh((4, 2), ("x", "y"), (AxisType.Auto,) * 2)
asked = []
fill = Plan.fill
Plan.fill = lambda self, path, **how: (asked.append(str(how["window"])), fill(self, path, **how))[1]
shape = (8, 6, 4)
found = {}
for spec in (P(), P("x"), P(None, "y"), P("x", "y"), P("y", None, "x"), P(("x", "y"))):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    asked.clear()
    made = fj.initialize({"w": leaf}, "he_normal", seed=3, axes={"w": "l i o -> l : o | i"})["w"]
    assert made.sharding == leaf.sharding
    assert len(asked) == len(set(asked)) == len({str(s.index) for s in made.addressable_shards}), asked
    found[str(spec)] = np.asarray(made).tobytes().hex()
print(json.dumps(found))
"""


def test_each_shard_of_a_stack_is_a_window_of_the_whole_and_made_once(python: Callable[..., str]) -> None:
    flags = "--xla_force_host_platform_device_count=8"
    found = json.loads(python(EIGHT, XLA_FLAGS=flags))
    whole = fj.initialize({"w": shape(8, 6, 4)}, HE, seed=3, axes={"w": "l i o -> l : o | i"})["w"]
    assert len(found) == 6
    assert set(found.values()) == {np.asarray(whole).tobytes().hex()}
