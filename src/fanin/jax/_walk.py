"""From a module or a tree to a `fanin.model.Model`: what each parameter is, names, stacks, ties."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import jax
import numpy as np

from fanin import layout
from fanin.dtypes import KNOWN
from fanin.errors import DtypeError, PlanError, near
from fanin.fans import IO, Axes, AxesLike, as_axes, positive
from fanin.jax._activations import followers
from fanin.jax._arrays import check_dtype
from fanin.jax._layers import LAYERS, nearest
from fanin.jax._linen import PARAMS, Traced
from fanin.jax._stacks import OWN, stacked, stacks, without
from fanin.jax._tree import Node, Path, is_array, is_nnx, is_parameter, is_variable, walk
from fanin.jax._words import is_ambiguous, spoken
from fanin.model import Model, Piece, Tensor

AxesOf: TypeAlias = Mapping[str, "AxesLike | tuple[str, AxesLike]"]


@dataclass(frozen=True)
class Described:
    """The facts of a model, its tree, the leaves in their order, and those that hold each stored tensor."""

    model: Model
    tree: Any
    leaves: tuple[Node, ...]
    slots: Mapping[str, tuple[Node, ...]]


@dataclass(frozen=True)
class Told:
    """What is known of a leaf: its piece, how deep its layer stands, and which axes stack such layers."""

    piece: Piece
    depth: int
    at: tuple[int, ...] = ()


def describe(tree: Any, axes: AxesOf | None, traced: Traced | None = None) -> Described:
    """Every parameter of a model once, and what is known of it. Nothing is touched.

    Parameters
    ----------
    tree : flax.nnx.Module or tree of arrays
        Concrete or abstract; of a linen module its parameters, as they were traced.
    axes : mapping, optional
        {glob of canonical names: axes, or (role, axes)}.
    traced : Traced, optional
        The linen modules that the parameters belong to.

    Raises
    ------
    PlanError, DtypeError
        When there is no parameter, or one cannot be set, or a glob of ``axes`` names none.
    """
    start = () if traced is None else (PARAMS,)
    nodes = list(walk(tree, None if traced is None else traced.layers, start))
    in_place = is_nnx(tree)  # then only variables can be set
    leaves = {
        node.path: node
        for node in nodes
        if node.is_leaf and is_parameter(node.value) and (is_variable(node.value) or not in_place)
    }
    if not leaves:
        raise PlanError(f"`model` ({type(tree).__name__}) holds no parameters")
    for leaf in leaves.values():
        _check(leaf)
    told = _told(nodes, leaves, axes or {}, traced, by_words=traced is None and not in_place)
    numbers = _numbered(leaves, told, len(start))
    pieces = {path: tuple(_pieces(leaves[path], told[path], numbers[path], len(start))) for path in told}
    tensors, slots = [], {}
    for several in _tied([leaves[path] for path in pieces], pieces):
        path, *ties = (".".join(leaf.path) for leaf in several)
        array, parts = several[0].array, pieces[several[0].path]
        tensors.append(Tensor(path, tuple(array.shape), np.dtype(array.dtype).name, parts, tuple(ties)))
        slots[path] = tuple(several)
    blocks = [piece.block for tensor in tensors for piece in tensor.pieces if piece.block is not None]
    facts = {"n_layer": max(blocks) + 1} if blocks else {}
    return Described(Model(tuple(tensors), facts), tree, tuple(n for n in nodes if n.is_leaf), slots)


# --- what cannot be set ---------------------------------------------------------------------------


def _check(leaf: Node) -> None:
    """Refuse what cannot be set."""
    array = leaf.array
    if not is_array(array):
        raise PlanError(f"{leaf.name!r} holds a {type(array).__name__}; expected an array")
    if isinstance(array, jax.core.Tracer):
        raise PlanError(f"{leaf.name!r} is being traced; initialize outside jit, vmap and grad")
    if np.dtype(array.dtype).name not in KNOWN:
        raise DtypeError(
            f"{leaf.name!r} has dtype {array.dtype}, which holds no weights that can be drawn; take it out "
            f"of the tree; expected one of {', '.join(KNOWN)}"
        )
    try:
        check_dtype(array.dtype)
    except DtypeError as error:
        raise DtypeError(f"{leaf.name!r}: {error}") from error
    if 0 in array.shape:
        raise PlanError(f"{leaf.name!r} has no elements (shape {tuple(array.shape)})")


# --- what they are -------------------------------------------------------------------------------


def _one(leaf: Node, traced: Traced | None) -> tuple[int, ...]:
    """The shape of a leaf of one layer, where equal layers are stored together."""
    shape = tuple(leaf.array.shape)
    if traced is not None:
        return traced.shapes.get(leaf.path, shape)
    own = nearest(OWN, type(leaf.module))
    return tuple(own(leaf.module).get(leaf.path[-1], shape)) if own and leaf.path else shape


def _told(
    nodes: Sequence[Node],
    leaves: Mapping[Path, Node],
    axes: AxesOf,
    traced: Traced | None,
    *,
    by_words: bool,
) -> dict[Path, Told]:
    """What is known of each leaf, in the order of the layers: from the user, its layer, or its own word."""
    called = {path: at for at, path in enumerate(traced.layers if traced else ())}
    in_order = sorted(nodes, key=lambda node: called.get(node.path, len(called)))
    pairs = [(tuple(leaf.array.shape), _one(leaf, traced)) for leaf in leaves.values()]
    told = _said(in_order, leaves, dict(zip(leaves, stacks(pairs), strict=True)), by_words=by_words)
    told.update(dict(_given(axes, leaves, told)))
    unknown = [leaf for path, leaf in leaves.items() if path not in told]
    return told | {leaf.path: _unknown(leaf, by_words=by_words) for leaf in unknown}


def _said(
    nodes: Sequence[Node], leaves: Mapping[Path, Node], at: Mapping[Path, tuple[int, ...]], *, by_words: bool
) -> dict[Path, Told]:
    """What layers say of their leaves; what one further up says goes first.

    A layer sees the shapes of all its arrays, those that are no parameters (a frozen kernel) too.
    """
    below: dict[Path, list[Node]] = defaultdict(list)
    for node in nodes:
        if node.is_leaf and is_array(node.array):
            for depth in range(len(node.path)):
                below[node.path[:depth]].append(node)
    told: dict[Path, Told] = {}
    after = followers(nodes)
    for node in nodes:
        says = None if node.is_leaf else nearest(LAYERS, type(node.module))
        if node.is_leaf or (says is None and not by_words):
            continue
        depth = len(node.path)
        paths = {".".join(leaf.path[depth:]): leaf for leaf in below[node.path]}
        shapes = {k: without(tuple(leaf.array.shape), at.get(leaf.path, ())) for k, leaf in paths.items()}
        if not any(leaf.path in leaves for leaf in paths.values()):
            continue
        for key, piece in (says or spoken)(node.module, shapes).items():
            if key not in paths:
                raise PlanError(
                    f"{node.name!r} holds no {key!r}, of which its layer speaks; {near(key, paths)}"
                )
            leaf = paths[key]
            if leaf.path in leaves:
                placed = replace(piece, block=leaf.block, activation=after.get(node.path))
                told.setdefault(leaf.path, Told(placed, depth, at[leaf.path]))
    return told


def _given(
    axes: AxesOf, leaves: Mapping[Path, Node], told: Mapping[Path, Told]
) -> Iterator[tuple[Path, Told]]:
    """What the user says: {glob: axes or (role, axes)}."""
    if not isinstance(axes, Mapping):
        raise PlanError(f"`axes` must map globs of names to axes or (role, axes), got {axes!r}")
    names = {path: _name(leaf, told.get(path)) for path, leaf in leaves.items()}
    for pattern, said in axes.items():
        role, of = said if isinstance(said, tuple) else (None, said)
        fitting = [path for path, name in names.items() if fnmatchcase(name, pattern)]
        if not fitting:
            raise PlanError(f"`axes` {pattern!r} names no parameter; {near(pattern, names.values())}")
        for path in fitting:
            yield path, _as_given(leaves[path], told.get(path), role, as_axes(of))


def _as_given(leaf: Node, known: Told | None, role: str | None, axes: Axes) -> Told:
    shape = tuple(leaf.array.shape)
    axes.order(len(axes.atoms(shape)))  # fits, or says why not
    piece = known.piece if known else _unknown(leaf, by_words=False).piece
    depth = known.depth if known else len(leaf.path) - 1
    role = role or ("kernel" if piece.role == "unknown" else piece.role)
    at: tuple[int, ...] = ()
    name = piece.name
    if axes.stack and not axes.split and not any(axes.members):  # layers, not projections
        at, axes = positive(axes.stack, len(shape)), layout.member_axes(axes, shape)
    elif axes.stack:
        *front, last = name.split(".")
        name = ".".join([*front, *("{}",) * len(axes.stack), last])
    return Told(replace(piece, name=name, role=role, axes=axes, block=leaf.block), depth, at)


def _unknown(leaf: Node, *, by_words: bool) -> Told:
    """A parameter of no layer that is known: a rule must name it."""
    shape = tuple(leaf.array.shape)
    word = leaf.path[-1] if leaf.path else ""
    if by_words and is_ambiguous(word, shape):
        raise PlanError(
            f"{leaf.name!r} of shape {shape}: a tree does not say which axes are inputs and outputs; pass "
            f"axes={{{leaf.name!r}: 'io'}} for (..., in, out), 'oi' for (out, in, ...), or a pattern"
        )
    axes = IO if len(shape) > 1 else Axes((0,), ())
    piece = Piece(word, "unknown", type(leaf.module).__name__, axes, block=leaf.block)
    return Told(piece, max(0, len(leaf.path) - 1))


# --- names ---------------------------------------------------------------------------------------


def _name(leaf: Node, known: Told | None) -> str:
    """The canonical name, without the numbers of a stack."""
    return (
        leaf.name if known is None else ".".join(filter(None, (*leaf.names[: known.depth], known.piece.name)))
    )


def _numbered(
    leaves: Mapping[Path, Node], told: Mapping[Path, Told], root: int
) -> dict[Path, tuple[int, ...]]:
    """How deep in its name each number of a leaf's stack stands: after the outermost module stacked alike.

    That is one below the model, unless several of its parts are stacked together.
    """
    sizes = {path: tuple(leaves[path].array.shape[axis] for axis in told[path].at) for path in told}
    alike: dict[Path, set[tuple[int, ...]]] = defaultdict(set)
    parts: dict[Path, set[str]] = defaultdict(set)
    for path, stack in sizes.items():
        if told[path].piece.role == "unknown":
            continue
        for depth in range(len(path)):
            alike[path[:depth]].add(stack)
            parts[path[:depth]].add(path[depth])
    found = {}
    for path, stack in sizes.items():
        deepest = told[path].depth
        first = root if len(parts[path[:root]]) > 1 else root + 1
        found[path] = tuple(
            next(
                (
                    depth
                    for depth in range(min(first, deepest), deepest)
                    if all(other[: level + 1] == stack[: level + 1] for other in alike[path[:depth]])
                ),
                deepest,
            )
            for level in range(len(stack))
        )
    return found


def _pieces(leaf: Node, told: Told, numbered: tuple[int, ...], root: int) -> Iterator[Piece]:
    """The parts of a stored tensor with their names.

    Stacked modules that hold layers are the blocks of a deep network; stacked layers and models are not.
    """
    words = itertools.chain.from_iterable(
        [*("{}" for number in numbered if number == depth), *leaf.names[depth : min(depth + 1, told.depth)]]
        for depth in range(told.depth + 1)
    )
    named = replace(told.piece, name=".".join(filter(None, (*words, told.piece.name))))
    blocks = leaf.block is None and any(root < number < told.depth for number in numbered[:1])
    yield from stacked(named, tuple(leaf.array.shape), told.at, blocks=blocks)


def _tied(leaves: Sequence[Node], pieces: Mapping[Path, tuple[Piece, ...]]) -> Iterator[list[Node]]:
    """Leaves that are one variable: a table goes first, then the smallest name."""
    same: dict[Any, list[Node]] = {}
    for leaf in leaves:
        same.setdefault(id(leaf.value) if is_variable(leaf.value) else leaf.path, []).append(leaf)
    for several in same.values():
        firsts = {leaf.path: pieces[leaf.path][0] for leaf in several}
        yield sorted(
            several, key=lambda leaf: (firsts[leaf.path].role != "embedding", firsts[leaf.path].name)
        )
