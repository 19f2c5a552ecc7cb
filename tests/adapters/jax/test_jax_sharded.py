"""Models on many devices and in several processes hold the numbers of one, and each process makes its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sharded_models import DEEP, INPUTS, SEED, net, separate, shape, tree, values

import fanin
import fanin.jax as fj
from fanin.errors import ArgumentError, PlanError, ShapeError

SCRIPT = Path(__file__).with_name("sharded_models.py")
WORLD = 4
P = PartitionSpec


# --- eight devices -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eight(python: Callable[..., str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(python(SCRIPT, XLA_FLAGS=devices(8)))
    return found


def devices(count: int) -> str:
    return f"--xla_force_host_platform_device_count={count}"


def test_every_sharding_of_every_kind_of_model_has_the_same_numbers_and_lies_as_told(eight: Any) -> None:
    assert eight["wrong"] == []
    assert eight["count"] == 3 * 2 * 5  # kinds, meshes, ways to tell


def test_what_eight_devices_cannot_hold_is_refused_before_anything_is_made(eight: Any) -> None:
    assert eight["refusals"] == {
        "uneven": "ShapeError: `shardings` of 'w': P('x',) must cut each axis into equal parts, but 4 does "
        "not divide 10, axis 0 of `shape` (10, 4)",
        "uneven leaf": "ShapeError: the sharding of 'w': P('x',) must cut each axis into equal parts, but 4 "
        "does not divide 10, axis 0 of `shape` (10, 4)",
        "no such axis": "ArgumentError: `shardings` of 'w': P('z',): Resource axis: z of P('z',) is not "
        "found in mesh: ('x', 'y').",
        "made": [],
    }


def test_what_is_kept_goes_to_its_place(eight: Any) -> None:
    assert eight["moves"] == [True, True, True]


def test_an_abstract_mesh_is_the_one_that_is_set(eight: Any) -> None:
    same, error = eight["mesh of eval_shape"]
    assert same
    assert error.startswith("the sharding of 'w': P('x', 'y') needs a mesh: enter jax.set_mesh(mesh)")


# --- several processes ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2], ids=["1 device each", "2 devices each"])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """What each of four processes found."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    source = str(Path(fanin.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "XLA_FLAGS": devices(request.param)}
    command = [sys.executable, "-W", "error", str(SCRIPT), str(port), str(WORLD)]
    running = [
        subprocess.Popen(
            [*command, str(rank)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(WORLD)
    ]
    try:
        outputs = [process.communicate(timeout=150) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * WORLD, outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]  # gloo prints too


def gathered(ranks: list[dict[str, Any]], run: str, shapes: dict[str, Any]) -> dict[str, str]:
    """The bytes of whole arrays, put together from all shards; every element is in one."""
    found = {}
    for name, like in shapes.items():
        dtype = np.dtype(like.dtype)
        whole, seen = np.empty(like.shape, dtype), np.zeros(like.shape, bool)
        for rank in ranks:
            for index, text in rank[run]["shards"][name]:
                part = tuple(slice(*bounds) for bounds in index)
                sizes = [stop - start for start, stop in index]
                whole[part] = np.frombuffer(bytes.fromhex(text), dtype).reshape(sizes)
                seen[part] = True
        assert seen.all(), name
        found[name] = whole.tobytes().hex()
    return found


def of(model: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if hasattr(leaf, "shape")}


def test_the_shards_of_all_processes_are_the_bytes_of_one(ranks: Any) -> None:
    expected = values("tree")
    for run in ("tree 0", "tree 1"):
        assert gathered(ranks, run, of(tree())) == expected
    shapes = {
        k: v for k, v in of(nnx.state(net())).items() if not jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
    }
    known = values("nnx")
    assert gathered(ranks, "nnx", shapes) == {name: known[name] for name in shapes}
    variables = jax.eval_shape(lambda: DEEP.init(jax.random.key(0), jnp.zeros(INPUTS[0].shape)))
    assert gathered(ranks, "linen", of(variables)) == values("linen")
    alone = fj.initialize({"w": shape(16, 8)}, "he_normal", seed=SEED)
    assert gathered(ranks, "set_mesh", alone)["w"] == np.asarray(alone["w"]).tobytes().hex()


def test_each_process_makes_the_windows_that_it_holds_and_each_once(ranks: Any) -> None:
    for run in ("tree 0", "tree 1"):
        for rank in ranks:
            held = {
                (name.replace("']['", ".").strip("[']"), str(tuple(slice(*bounds) for bounds in index)))
                for name, shards in rank[run]["shards"].items()
                for index, _ in shards
            }
            drawn = [tuple(each.split(" ", 1)) for each in rank[run]["drawn"]]
            assert len(drawn) == len(set(drawn))
            assert set(drawn) == held
        cut = {index for rank in ranks for index in (str(rank[run]["shards"]["['layers']['w']"][0][0]),)}
        assert len(cut) == WORLD  # a process has a quarter of it


def test_a_sharded_stack_is_its_layers(ranks: Any) -> None:
    layers = fj.initialize(separate(), "he_normal", seed=SEED)["layers"]
    stacked = b"".join(np.asarray(layer["w"]).tobytes() for layer in layers).hex()
    for run in ("tree 0", "tree 1"):  # cut along the stack, and inside
        assert gathered(ranks, run, of(tree()))["['layers']['w']"] == stacked


def test_processes_that_disagree_are_told_alike_before_anything_is_made(ranks: Any) -> None:
    for rank in ranks:
        assert rank["made before"] == []
        told = rank["disagreed"]
        assert told == ranks[0]["disagreed"]
        assert told["seed"].startswith(
            "PlanError: processes differ in the seed: 0, 1, 2, 3; give all processes"
        )
        assert told["recipe"].startswith("PlanError: processes differ in the recipe: he_normal, zeros; ")
        assert told["shardings"].startswith("PlanError: processes differ in the shardings: ")


def test_each_process_verifies_its_own_shards(ranks: Any) -> None:
    drawn = ["embed.embedding", "head.kernel", "layers.w"]
    for rank in ranks:
        for run in ("tree 0", "tree 1"):
            assert rank[run]["verified"] == []
            assert sorted(rank[run]["other"]) == drawn


# --- what does not fit ---------------------------------------------------------------------------


def on_one(*spec: Any) -> NamedSharding:
    return NamedSharding(jax.make_mesh((1,), ("x",), (AxisType.Auto,)), P(*spec))


@pytest.mark.parametrize(
    ("shardings", "error", "text"),
    [
        ({"a": {"w": None}}, PlanError, r"`shardings` has nothing for 'a.b'; give it a sharding, or None"),
        ({"a": {"w": None, "b": None}, "c": on_one()}, PlanError, "names 'c', which the model does not have"),
        ({"a": on_one()}, PlanError, "names 'a', which the model does not have; did you mean a.w, a.b"),
        (
            lambda path, sizes: on_one(None, "x"),
            ShapeError,
            r"`shardings` of 'a.b': P\(None, 'x'\) has 2 axes",
        ),
        (3, ArgumentError, "`shardings` of 'a.w': must be a NamedSharding or PartitionSpec, got 3"),
        ({"a": {"w": "x", "b": None}}, ArgumentError, "`shardings` of 'a.w': must be a NamedSharding"),
        (P("x"), ArgumentError, r"`shardings` of 'a.w': P\('x',\) needs a mesh: enter jax.set_mesh\(mesh\)"),
        (on_one(P.UNCONSTRAINED), ArgumentError, "`shardings` of 'a.w': .* must say how every axis is cut"),
    ],
)
def test_shardings_that_do_not_fit_are_one_error(
    shardings: Any, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(fanin.plan.Plan, "fill", lambda self, path, **how: asked.append(path))
    with pytest.raises(error, match=text):
        fj.initialize({"a": {"w": shape(6, 4), "b": shape(4)}}, "he_normal", seed=0, shardings=shardings)
    assert asked == []


# --- verify --------------------------------------------------------------------------------------


def test_a_model_its_state_and_what_a_file_gives_back_are_verified_by_the_paths_of_the_plan() -> None:
    plan = fj.plan(net(), "he_normal", seed=1)
    model = fj.initialize(net(), plan)
    pure = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert [fj.verify(each, plan) for each in (model, nnx.state(model), pure)] == [[], [], []]
    model.fc.kernel[...] = model.fc.kernel[...].at[3, 5].set(2).at[6, 1].set(3)
    model.fc.bias[...] = jnp.ones(16)
    before = np.asarray(fj.initialize(net(), plan).fc.kernel[...])[3, 5]
    found = {str(mismatch) for mismatch in fj.verify(model, plan)}
    assert found == {f"fc.kernel[3, 5]: 2.0, planned {before}", "fc.bias[0]: 1.0, planned 0.0"}


def test_every_copy_of_a_shard_is_compared(eight: Any) -> None:
    assert eight["a replica"] == ["w[7, 2]: 0.0, planned 1.0"]


def test_a_sign_of_zero_is_a_difference() -> None:
    params = {"w": shape(4, 4), "b": shape(4)}
    plan = fj.plan(params, "zeros", seed=0)
    made = fj.initialize(params, plan)
    assert fj.verify(made, plan) == []
    made["b"] = -made["b"]
    assert [mismatch.path for mismatch in fj.verify(made, plan)] == ["b"]


def test_other_collections_of_linen_are_no_parameters() -> None:
    variables = fj.initialize(DEEP, "he_normal", seed=0, inputs=INPUTS)
    plan = fj.plan(DEEP, "he_normal", seed=0, inputs=INPUTS)
    assert set(variables) == {"params", "batch_stats"}
    assert fj.verify(variables, plan) == []
    with pytest.raises(PlanError, match=r"a linen module \(Deep\) holds no values; pass its variables"):
        fj.verify(DEEP, plan)


def test_what_is_kept_is_not_compared_and_what_is_abstract_has_no_values(tmp_path: Path) -> None:
    params = {"w": jnp.ones((4, 4)), "b": jnp.ones(4)}
    plan = fj.plan(params, fanin.Recipe([("b", "keep"), ("*", "he_normal")]), seed=0)
    plan.save(tmp_path / "plan.json")
    made = fj.initialize(params, plan) | {"b": jnp.full(4, 7.0)}
    assert fj.verify(made, tmp_path / "plan.json") == []
    found = fj.verify(made | {"w": shape(4, 4)}, plan)
    assert [str(mismatch) for mismatch in found] == ["w: has no values: it is abstract"]


def test_ties_that_came_apart_are_both_compared() -> None:
    class Tied(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.head = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
            self.copy = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
            self.copy.kernel = self.head.kernel

    plan = fj.plan(nnx.eval_shape(lambda: Tied(nnx.Rngs(0))), "he_normal", seed=0)
    model = fj.initialize(Tied(nnx.Rngs(0)), plan)
    assert fj.verify(model, plan) == fj.verify(nnx.state(model), plan) == []
    kernel = model.head.kernel[...]
    apart = {"head": {"kernel": kernel}, "copy": {"kernel": kernel.at[1, 1].set(0)}}
    assert [mismatch.index for mismatch in fj.verify(apart, plan)] == [(1, 1)]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"w": jnp.ones((4, 4))}, "'b' is not in the model; make the plan for this model"),
        ({"w": jnp.ones((4, 4)), "b": jnp.ones(4), "c": jnp.ones(3)}, "'c' is not in the plan"),
        (
            {"w": jnp.ones((4, 3)), "b": jnp.ones(4)},
            r"'w': the plan is for float32 \(4, 4\), the model has float32 ",
        ),
        (
            {"w": jnp.ones((4, 4)), "b": jnp.ones(4, jnp.bfloat16)},
            r"float32 \(4,\), the model has bfloat16 \(4,\)",
        ),
    ],
)
def test_a_plan_for_another_model_is_an_error(params: Any, text: str) -> None:
    plan = fj.plan({"w": shape(4, 4), "b": shape(4)}, "he_normal", seed=0)
    with pytest.raises(PlanError, match=text):
        fj.verify(params, plan)
