"""Where arrays are to be: shardings told beside a model, and processes that agree before anything is made."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding

from fanin import planning
from fanin.errors import PlanError, near
from fanin.jax._arrays import EVERYWHERE, assembled, check_sharding
from fanin.jax._tree import Node, Path, is_abstract, is_array, is_key, is_nnx, is_variable, walk
from fanin.plan import Plan

CLAIM = 2048  # bytes in which a process says what it is about to make
SHOWN = 200  # characters of a recipe


def places(shardings: Any, tied: Iterable[Sequence[Node]], leaves: Sequence[Node]) -> dict[Path, Sharding]:
    """Where each array is to be that has a place: as told, or else where its leaf says; all are checked.

    Parameters
    ----------
    shardings : NamedSharding, PartitionSpec, callable or tree, optional
        As for `initialize`.
    tied : iterable of leaves
        Those of each parameter.
    leaves : sequence of leaves
        All of the model.

    Raises
    ------
    PlanError, ArgumentError, ShapeError
        For the first array that cannot be there.
    """
    parameters = [tuple(several) for several in tied]
    inside = {leaf.path for several in parameters for leaf in several}
    rest = [(leaf,) for leaf in leaves if leaf.path not in inside and _can_move(leaf)]
    said = _said(shardings, parameters, rest, leaves)
    found: dict[Path, Sharding] = {}
    for several in (*parameters, *rest):
        first, told = several[0], [said[leaf.path] for leaf in several if said.get(leaf.path) is not None]
        if any(each != told[0] for each in told):
            names = " and ".join(repr(_path(leaf)) for leaf in several)
            raise PlanError(f"`shardings` of {names} differ, but these are one array")
        place = _checked(first, told[0], "`shardings`") if told else _own(first)
        if place is not None:
            found.update({leaf.path: place for leaf in several})
    return found


def placed(leaf: Node, array: Any, places: Mapping[Path, Sharding]) -> Any:
    """The value of a leaf at its place, if it has one and is not there."""
    place = places.get(leaf.path)
    return array if place is None or getattr(array, "sharding", None) == place else _put(array, place)


def _put(array: Any, place: Sharding) -> Any:
    """The same values elsewhere; of an array that each process has whole, each keeps its part."""
    if not getattr(array, "is_fully_addressable", True):
        return jax.device_put(array, place)
    if is_key(array):
        words = _put(jax.random.key_data(array), place)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(array))
    values = np.asarray(array)
    return assembled(values.shape, values.dtype, place, lambda window: np.asarray(values[window]))


def agree(plan: Plan, places: Mapping[Path, Sharding]) -> None:
    """Compare plans and places between the processes that share arrays: one small gather on their devices.

    Raises
    ------
    PlanError
        On every process alike.
    """
    shared = {path: place for path, place in places.items() if not place.is_fully_addressable}
    if not shared:
        return
    claim = {
        "seed": plan.seed,
        "value contract": plan.contract,
        "recipe": plan.recipe[:SHOWN],
        "plan": plan.identity(),
        "shardings": _digest("\n".join(f"{path} {place}" for path, place in shared.items())),
    }
    devices = sorted(set().union(*(place.device_set for place in shared.values())), key=attrgetter("id"))
    planning.agree("processes", _gathered(claim, devices))


# --- what is told --------------------------------------------------------------------------------


def _said(
    shardings: Any,
    parameters: Sequence[tuple[Node, ...]],
    rest: Sequence[tuple[Node, ...]],
    leaves: Sequence[Node],
) -> dict[Path, Any]:
    """What is told of arrays, by the paths of their leaves."""
    if shardings is None:
        return {}
    nodes = list(walk(shardings))
    if nodes[0].is_leaf:  # a function is no tree, but a module can be called
        firsts = [several[0] for several in (*parameters, *rest)]
        if not callable(shardings):
            return {leaf.path: shardings for leaf in firsts}
        return {leaf.path: shardings(_path(leaf), tuple(leaf.array.shape)) for leaf in firsts}
    said = {node.path: node.array if node.is_leaf else None for node in nodes if _is_end(node)}
    known = {leaf.path: _path(leaf) for leaf in leaves}
    for node in nodes:
        if node.is_leaf and node.path not in known:
            raise PlanError(
                f"`shardings` names {_path(node)!r}, which the model does not have; "
                f"{near(_path(node), known.values())}"
            )
    for several in parameters:
        if not any(leaf.path in said for leaf in several):
            raise PlanError(
                f"`shardings` has nothing for {_path(several[0])!r}; give it a sharding, or None to leave it"
            )
    return said


def _is_end(node: Node) -> bool:
    return node.is_leaf or node.value is None


def _can_move(leaf: Node) -> bool:
    """Whether it is an array that can be set; a module of nnx is changed in place."""
    return is_array(leaf.array) and (is_variable(leaf.value) or not is_nnx(leaf.module))


def _path(leaf: Node) -> str:
    return ".".join(leaf.path)


def _checked(leaf: Node, place: Any, what: str) -> Sharding | None:
    shape = tuple(leaf.array.shape)
    return check_sharding(place, shape, traced=False, what=f"{what} of {_path(leaf)!r}:")


def _own(leaf: Node) -> Sharding | None:
    """Where an array is, or an abstract one says that it is to be; None for JAX's default."""
    place: Sharding | None = getattr(leaf.array, "sharding", None)
    if not is_abstract(leaf.array):
        return place if isinstance(place, NamedSharding) or getattr(leaf.array, "committed", False) else None
    if not isinstance(place, NamedSharding):
        return place
    on_devices = not isinstance(place.mesh, AbstractMesh)
    return _checked(leaf, place if on_devices else place.spec, "the sharding")


# --- what processes say --------------------------------------------------------------------------


def _gathered(claim: Mapping[str, Any], devices: Sequence[jax.Device]) -> list[dict[str, Any]]:
    """What the process of each device says."""
    row = np.frombuffer(json.dumps(claim).encode().ljust(CLAIM), np.uint8)[None]
    mesh = Mesh(np.array(devices), ("devices",))
    rows = NamedSharding(mesh, PartitionSpec("devices"))  # type: ignore[no-untyped-call]
    everywhere = NamedSharding(mesh, EVERYWHERE)
    mine = jax.make_array_from_callback((len(devices), CLAIM), rows, lambda _: row, np.uint8)
    with jax.set_mesh(mesh):
        everyone = jax.jit(lambda each: each, out_shardings=everywhere)(mine)
    return [json.loads(each.tobytes()) for each in np.asarray(everyone)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
