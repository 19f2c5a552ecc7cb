"""Sharded models, in processes of their own: prints as JSON what came out, for the tests.

Without arguments on the devices of one process; ``sharded_models.py PORT WORLD RANK`` is one of several.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import fanin.jax as fj
from fanin import FaninError, Recipe
from fanin.plan import Plan

P = PartitionSpec
SEED = 3
KEEP = Recipe([("*", "keep")])
AXES = {"layers.w": "l i o -> l : o | i", "layers.b": ("bias", "l o -> l : o |")}


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def tree() -> Any:
    return {
        "embed": {"embedding": shape(16, 8)},
        "layers": {"w": shape(8, 8, 16), "b": shape(8, 16)},
        "head": {"kernel": shape(16, 8, dtype=jnp.bfloat16), "text": "kept", "nothing": None},
    }


def separate() -> Any:
    """The same network, its layers not stacked."""
    return {**tree(), "layers": [{"w": shape(8, 16), "b": shape(16)} for _ in range(8)]}


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(8, 16, rngs=rngs)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any = None) -> Any:
        return nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x)), None


class Deep(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        scan = nn.scan(
            Block, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=8
        )
        return scan(name="layers")(x, None)[0]


DEEP = Deep()
INPUTS = (shape(2, 8),)


def net() -> Net:
    abstract: Net = nnx.eval_shape(lambda: Net(nnx.Rngs(0)))
    return abstract


def made(kind: str, shardings: Any = None) -> dict[str, Any]:
    """A model's arrays after `initialize`, and its plan's verdict."""
    if kind == "tree":
        model = fj.initialize(tree(), "he_normal", seed=SEED, axes=AXES, shardings=shardings)
        plan = fj.plan(tree(), "he_normal", seed=SEED, axes=AXES)
    elif kind == "nnx":
        model = fj.initialize(net(), "he_normal", seed=SEED, shardings=shardings)
        plan = fj.plan(net(), "he_normal", seed=SEED)
    else:
        model = fj.initialize(DEEP, "he_normal", seed=SEED, inputs=INPUTS, shardings=shardings)
        plan = fj.plan(DEEP, "he_normal", seed=SEED, inputs=INPUTS)
    assert fj.verify(model, plan) == []
    arrays = nnx.state(model) if kind == "nnx" else model
    found = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)}
    return {name: leaf for name, leaf in found.items() if isinstance(leaf, jax.Array)}


def words(array: Any) -> Any:
    return jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array


def values(kind: str) -> dict[str, str]:
    """The bytes of a model that is not sharded, in hexadecimal."""
    return {name: np.asarray(words(array)).tobytes().hex() for name, array in made(kind).items()}


def cut(mesh: Mesh, number: int) -> Callable[[str, tuple[int, ...]], NamedSharding]:
    """0 along both axes of a mesh; 1 from the second axis on, along one: the other has copies."""

    def place(path: str, sizes: tuple[int, ...]) -> NamedSharding:
        axes: list[Any] = [None] * len(sizes)
        for k, name in enumerate(mesh.axis_names[: 2 - number]):
            fitting = [
                at for at, size in enumerate(sizes) if size % mesh.shape[name] == 0 and axes[at] is None
            ]
            if fitting:
                axes[fitting[(number + k) % len(fitting)]] = name
        return NamedSharding(mesh, P(*axes))

    return place


def trees(kind: str, place: Callable[[str, tuple[int, ...]], NamedSharding]) -> Any:
    """The same places as a tree with the structure of the model."""
    of: Any = {"tree": tree, "nnx": lambda: nnx.state(net()), "linen": partial(jax.eval_shape, started)}[
        kind
    ]()
    return jax.tree.map(lambda leaf: place("", leaf.shape) if hasattr(leaf, "shape") else leaf, of)


def started() -> Any:
    return DEEP.init(jax.random.key(0), jnp.zeros((2, 8)))


def shards(arrays: dict[str, Any]) -> dict[str, list[Any]]:
    """What this process holds: {name: [[index, bytes]]}."""
    return {
        name: [
            [
                [[*part.indices(size)[:2]] for part, size in zip(one.index, array.shape, strict=True)],
                _hex(one),
            ]
            for one in words(array).addressable_shards
        ]
        for name, array in arrays.items()
        if not jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    }


def _hex(shard: Any) -> str:
    return np.asarray(shard.data).tobytes().hex()


def recorded() -> list[str]:
    """Every window of a plan that is made from now on."""
    asked: list[str] = []
    fill = Plan.fill

    def listening(self: Plan, path: str, **how: Any) -> Any:
        asked.append(f"{path} {how['window']}")
        return fill(self, path, **how)

    Plan.fill = listening  # type: ignore[method-assign]
    return asked


# --- one process, eight devices ------------------------------------------------------------------


def always(place: NamedSharding) -> Callable[..., NamedSharding]:
    return lambda *_: place


def one_process() -> dict[str, Any]:
    meshes = [
        jax.make_mesh((4, 2), ("x", "y"), (AxisType.Auto,) * 2),
        jax.make_mesh((2, 4), ("x", "y"), (AxisType.Explicit,) * 2),
    ]
    found: dict[str, Any] = {"wrong": [], "count": 0}
    for kind in ("tree", "nnx", "linen"):
        whole = values(kind)
        for mesh in meshes:
            everywhere = NamedSharding(mesh, P())
            cuts = [cut(mesh, number) for number in range(2)]
            told: list[tuple[Any, Callable[..., NamedSharding]]] = [(everywhere, always(everywhere))]
            told += [(place, place) for place in cuts] + [(trees(kind, place), place) for place in cuts]
            for number, (shardings, place) in enumerate(told):
                found["count"] += 1
                for name, array in made(kind, shardings).items():
                    same = np.asarray(words(array)).tobytes().hex() == whole[name]
                    there = array.sharding.is_equivalent_to(place("", array.shape), array.ndim)
                    if not (same and there):
                        found["wrong"].append(f"{kind} {number} {name}: {same}, {array.sharding}")
    found["refusals"] = refusals(meshes[0])
    found["a replica"] = a_replica(meshes[0])
    return found | {"moves": moves(meshes[0]), "mesh of eval_shape": of_eval_shape(meshes[1])}


def refusals(mesh: Mesh) -> dict[str, Any]:
    asked, found = recorded(), {}
    place = NamedSharding(mesh, P("x"))
    placed = jax.ShapeDtypeStruct((10, 4), jnp.float32, sharding=place)
    for what, leaf, told in (
        ("uneven", shape(10, 4), place),
        ("uneven leaf", placed, None),
        ("no such axis", shape(10, 4), P("z")),
    ):
        try:
            with jax.set_mesh(mesh):
                fj.initialize(
                    {"a": {"w": shape(4, 4)}, "w": leaf}, "he_normal", seed=0, shardings=_of_w(told)
                )
        except FaninError as error:
            found[what] = f"{type(error).__name__}: {error}"
    return found | {"made": list(asked)}


def _of_w(place: Any) -> Callable[[str, tuple[int, ...]], Any]:
    return lambda path, _: place if path == "w" else None


def moves(mesh: Mesh) -> list[bool]:
    """What is kept goes to its place too; None leaves it."""
    kept = {"a": {"w": jnp.arange(16.0).reshape(8, 2), "b": jnp.arange(2.0)}}
    place = NamedSharding(mesh, P("x"))
    found = fj.initialize(kept, KEEP, seed=0, shardings={"a": {"w": place, "b": None}})["a"]
    return [
        found["w"].sharding == place,
        bool((found["w"] == kept["a"]["w"]).all()),
        found["b"] is kept["a"]["b"],
    ]


def a_replica(mesh: Mesh) -> list[str]:
    """What `verify` says of an array one of whose copies has lost an element."""
    plan = fj.plan({"w": shape(8, 4)}, "ones", seed=0)
    array = fj.initialize({"w": shape(8, 4)}, plan, shardings=NamedSharding(mesh, P("x")))["w"]
    parts = [shard.data for shard in array.addressable_shards]
    parts[-1] = jax.device_put(parts[-1].at[1, 2].set(0), parts[-1].device)
    broken = jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)
    return [str(mismatch) for mismatch in fj.verify({"w": broken}, plan)]


def of_eval_shape(mesh: Mesh) -> list[Any]:
    """What `jax.eval_shape` says under `jax.set_mesh` has no devices: the mesh that is set has them."""
    with jax.set_mesh(mesh):
        abstract = jax.eval_shape(lambda: {"w": jnp.zeros((8, 4), out_sharding=P("x", "y"))})
        found = fj.initialize(abstract, "he_normal", seed=0)["w"]
        told = fj.initialize({"w": shape(8, 4)}, "he_normal", seed=0, shardings=P("x", "y"))["w"]
    try:
        fj.initialize(abstract, "he_normal", seed=0)
    except FaninError as error:
        return [found.sharding == told.sharding == NamedSharding(mesh, P("x", "y")), str(error)]
    return ["no error"]


# --- several processes ---------------------------------------------------------------------------


def several(port: str, world: int, rank: int) -> dict[str, Any]:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", world, rank)
    mesh = jax.make_mesh((world, jax.local_device_count()), ("x", "y"), (AxisType.Auto,) * 2)
    asked = recorded()
    disagreed = {}
    for what, recipe, seed, number in (
        ("seed", "he_normal", rank, 0),
        ("recipe", ("he_normal", "zeros")[rank % 2], 0, 0),
        ("shardings", "he_normal", 0, rank % 2),
    ):
        try:
            fj.initialize(tree(), recipe, seed=seed, axes=AXES, shardings=cut(mesh, number))
        except FaninError as error:
            disagreed[what] = f"{type(error).__name__}: {error}"
    found: dict[str, Any] = {"disagreed": disagreed, "made before": list(asked)}
    for number in range(2):
        asked.clear()
        params = fj.initialize(tree(), "he_normal", seed=SEED, axes=AXES, shardings=cut(mesh, number))
        drawn = list(asked)
        held = {
            jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        }
        held = {name: leaf for name, leaf in held.items() if isinstance(leaf, jax.Array)}
        found[f"tree {number}"] = {"shards": shards(held), "drawn": drawn}
        plan = fj.plan(tree(), "he_normal", seed=SEED, axes=AXES)
        found[f"tree {number}"]["verified"] = [str(mismatch) for mismatch in fj.verify(params, plan)]
        other = fj.plan(tree(), "he_normal", seed=SEED + 1, axes=AXES)
        found[f"tree {number}"]["other"] = [mismatch.path for mismatch in fj.verify(params, other)]
    for kind in ("nnx", "linen"):
        found[kind] = {"shards": shards(made(kind, trees(kind, cut(mesh, 0))))}
    with jax.set_mesh(jax.make_mesh((world * jax.local_device_count(),), ("z",), (AxisType.Explicit,))):
        spread = fj.initialize({"w": shape(16, 8)}, "he_normal", seed=SEED, shardings=P("z"))
    found["set_mesh"] = {"shards": shards({"w": spread["w"]})}
    jax.distributed.shutdown()
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(several(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    else:
        print(json.dumps(one_process()))
