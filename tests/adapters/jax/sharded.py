"""Tensors on eight devices, in a process of their own: prints as JSON what came out, for the tests."""

import json
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import fanin.jax as fj
from fanin import FaninError
from fanin.jax import _arrays

P = PartitionSpec
KEY, SHAPE = jax.random.key(3), (16, 24)
INITIALIZERS = {
    "he_normal": fj.he_normal(),
    "uniform": fj.uniform(dtype="bfloat16"),
    "orthogonal": fj.orthogonal(),
    "sparse": fj.sparse(0.5),
    "constant": fj.constant(0.1),
    "columns": fj.constant(np.arange(24.0)),
}
SPECS = (P(), P("x"), P(None, "y"), P("x", "y"), P("y", "x"), P(("y", "x")), P(None, ("x", "y")))


@cache
def meshes() -> dict[str, Mesh]:
    """Made in the process that has eight devices, not where pytest looks at this file."""
    kinds = {
        "auto": ((4, 2), (AxisType.Auto, AxisType.Auto)),
        "explicit": ((2, 4), (AxisType.Explicit, AxisType.Explicit)),
        "mixed": ((8, 1), (AxisType.Explicit, AxisType.Auto)),
    }
    return {name: jax.make_mesh(sizes, ("x", "y"), types) for name, (sizes, types) in kinds.items()}


def values(array: jax.Array, sharding: NamedSharding | None = None) -> str:
    """The bytes in hexadecimal, if the array lies as it should."""
    if sharding is not None and not array.sharding.is_equivalent_to(sharding, array.ndim):
        return f"lies as {array.sharding}, not as {sharding}"
    return np.asarray(array).tobytes().hex()


def tensors() -> dict[str, str]:
    """{"initializer, mesh, spec, how": bytes}."""
    found = {}
    for mesh_name, mesh in meshes().items():
        for spec in SPECS:
            sharding = NamedSharding(mesh, spec)
            for name in INITIALIZERS if spec == P("x", "y") else ("he_normal",):
                label = f"{name}, {mesh_name}, {spec}"
                call = partial(INITIALIZERS[name], shape=SHAPE, out_sharding=sharding)
                found[f"{label}, at once"] = values(call(KEY), sharding)
                found[f"{label}, jit"] = values(jax.jit(call)(KEY), sharding)
                found[f"{label}, constant key"] = values(jax.jit(partial(call, KEY))(), sharding)
        init = INITIALIZERS["he_normal"]
        whole = jax.jit(partial(init, shape=SHAPE))
        with jax.set_mesh(mesh):
            found[f"he_normal, {mesh_name}, whole under set_mesh, jit"] = values(whole(KEY))
            found[f"he_normal, {mesh_name}, whole under set_mesh, at once"] = values(init(KEY, SHAPE))
            here = NamedSharding(mesh, P("x", "y"))
            of_spec = partial(init, shape=SHAPE, out_sharding=P("x", "y"))
            found[f"he_normal, {mesh_name}, set_mesh, jit"] = values(jax.jit(of_spec)(KEY), here)
            found[f"he_normal, {mesh_name}, set_mesh, at once"] = values(of_spec(KEY), here)
        spread = jax.device_put(KEY, NamedSharding(mesh, P()))
        found[f"he_normal, {mesh_name}, key on all devices"] = values(whole(spread))
        keys = jax.random.split(KEY, 3)
        sharding = NamedSharding(mesh, P("x", "y"))
        batch = jax.vmap(partial(init, shape=SHAPE, out_sharding=sharding))(keys)
        for k in range(3):
            found[f"batch {k}, {mesh_name}"] = values(batch[k])
    return found


def windows() -> dict[str, list[list[int]]]:
    """The sizes of all windows that are drawn."""
    drawn: list[list[int]] = []
    aligned = _arrays.aligned

    def recorded(sizes: Any, dtype: Any) -> Any:
        drawn.append(list(sizes))
        return aligned(sizes, dtype)

    _arrays.aligned = recorded
    init, mesh = INITIALIZERS["he_normal"], meshes()["auto"]
    found = {}
    for label, spec in (("both", P("x", "y")), ("rows", P("x"))):
        call = partial(init, shape=SHAPE, out_sharding=NamedSharding(mesh, spec))
        for how, function in (("at once", call), ("jit", jax.jit(call))):
            drawn.clear()
            function(KEY).block_until_ready()
            found[f"{label}, {how}"] = list(drawn)
    return found


def refusals() -> dict[str, str]:
    """{what: error}."""
    cases = {
        "uneven": ((10, 24), P("x")),
        "uneven by two axes": ((12, 24), P(("x", "y"))),
        "rank": (SHAPE, P(None, None, "x")),
        "unconstrained": (SHAPE, P(P.UNCONSTRAINED)),
    }
    found = {}
    for label, (shape, spec) in cases.items():
        sharding = NamedSharding(meshes()["auto"], spec)
        call = partial(INITIALIZERS["he_normal"], shape=shape, out_sharding=sharding)
        for how, function in (("at once", call), ("jit", jax.jit(call))):
            try:
                function(KEY)
            except FaninError as error:
                found[f"{label}, {how}"] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    assert jax.device_count() == 8
    print(json.dumps({"tensors": tensors(), "windows": windows(), "refusals": refusals()}))
