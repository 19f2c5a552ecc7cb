"""Modules and trees level by level: nodes with the keys that lead to them and their names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from fanin.jax._layers import nearest, word

Path: TypeAlias = tuple[str, ...]

MODULES = {"nnx": "flax.nnx.module.Module", "linen": "flax.linen.module.Module"}
VARIABLE, PARAM = "flax.nnx.variablelib.Variable", "flax.nnx.variablelib.Param"
BOX = "flax.core.meta.AxisMetadata"  # holds one leaf of linen's and how it is partitioned

# What a layer calls those in it, in canonical words; "" is no part of a name.
DIRECTIONS = {"forward_rnn": "", "backward_rnn": "reverse"}
CHILDREN: dict[str, Mapping[str, str]] = {
    "nnx.RNN": {"cell": ""},
    "linen.RNN": {"cell": ""},
    "nnx.Bidirectional": DIRECTIONS,
    "linen.Bidirectional": DIRECTIONS,
    "nnx.MultiHeadAttention": {"out": "out_proj"},
    "linen.MultiHeadDotProductAttention": {"out": "out_proj"},
    "equinox.MultiheadAttention": {"output_proj": "out_proj"},
    "nnx.Sequential": {"layers": ""},
    "equinox.Sequential": {"layers": ""},
    "nnx.WeightNorm": {"layer_instance": ""},
    "nnx.SpectralNorm": {"layer_instance": ""},
    "equinox.WeightNorm": {"layer": ""},
    "equinox.SpectralNorm": {"layer": ""},
    "nnx.LoRA": {"base_module": ""},
}
NUMBERED = re.compile(r"(.*?)_?(\d+)")  # how linen calls the modules of a list, and those without a name


@dataclass(frozen=True)
class Node:
    """A module, a container or a leaf where it stands.

    ``path`` are the keys that lead to it, ``names`` what each of them is in canonical words. ``module`` is
    what it is, or of a leaf what holds it; of linen's containers the module that they belong to.
    """

    value: Any
    module: Any
    path: Path = ()
    names: Path = ()
    block: int | None = None
    is_leaf: bool = False

    @property
    def array(self) -> Any:
        """What a leaf holds, concrete or abstract."""
        return self.value.get_value() if is_variable(self.value) else self.value

    @property
    def name(self) -> str:
        """The keys in canonical words."""
        return ".".join(filter(None, self.names))


def is_a(kind: type, name: str) -> bool:
    """Whether a class is or derives from one of this name, such as ``flax.nnx.module.Module``."""
    return any(f"{each.__module__}.{each.__qualname__}" == name for each in kind.__mro__)


def is_nnx(model: Any) -> bool:
    return is_a(type(model), MODULES["nnx"])


def is_variable(value: Any) -> bool:
    return is_a(type(value), VARIABLE)


def is_parameter(leaf: Node) -> bool:
    """A ``Param`` of nnx, or an array that is no random key."""
    if is_variable(leaf.value):
        return is_a(type(leaf.value), PARAM)
    return not is_nnx(leaf.module) and is_array(leaf.value) and not is_key(leaf.value)


def is_array(value: Any) -> bool:
    """Concrete or abstract."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def is_key(value: Any) -> bool:
    return bool(jnp.issubdtype(value.dtype, jax.dtypes.prng_key))


def walk(tree: Any, layers: Mapping[Path, Any] | None = None, start: Path = ()) -> Iterator[Node]:
    """Every container and every leaf, in the order of the tree, parents first.

    Parameters
    ----------
    tree : tree or flax.nnx.Module
        Variables of nnx are leaves.
    layers : mapping of path to module, optional
        What linen's containers belong to.
    start : tuple of str
        Keys that lead to the tree, no part of its names.
    """
    layers = layers or {}
    root = Node(tree, layers.get(start, tree), start, ("",) * len(start))
    yield from _walk(root, layers, frozenset())


def _walk(node: Node, layers: Mapping[Path, Any], above: frozenset[int]) -> Iterator[Node]:
    held = None if is_variable(node.value) else _held(node.value)
    if held is None:
        yield Node(node.value, node.module, node.path, node.names, node.block, is_leaf=True)
        return
    if is_a(type(node.value), BOX):
        for _, child in held:
            yield from _walk(Node(child, node.module, node.path, node.names, node.block), layers, above)
        return
    yield node
    words = nearest(CHILDREN, type(node.module)) or {}
    above |= {id(node.value)}  # a module that holds one of those above it would have no end
    blocks = _blocks(node, held, layers) if node.block is None else {}
    for key, child in held:
        if id(child) in above:
            continue
        path, block = (*node.path, key), blocks.get(key, node.block)
        inner = _held(child) is not None and not is_variable(child) and not is_a(type(child), BOX)
        module = layers.get(path, child) if inner else node.module
        yield from _walk(Node(child, module, path, (*node.names, words.get(key, key)), block), layers, above)


def _held(value: Any) -> list[tuple[str, Any]] | None:
    """What a module or container holds, by its keys; None of a leaf."""
    found = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda each: each is not value)[0]
    if len(found) == 1 and not found[0][0]:
        if not is_nnx(value):
            return None
        kept = sorted(vars(value).items())  # one that is no tree by itself
        return [(key, each) for key, each in kept if not key.startswith("_pytree__")]
    return [(jax.tree_util.keystr(path, simple=True, separator="."), each) for path, each in found]


def _blocks(node: Node, held: list[tuple[str, Any]], layers: Mapping[Path, Any]) -> dict[str, int]:
    """The numbers of children that are equal modules with modules in them: the blocks of a deep network."""
    deep = {key: child for key, child in held if _is_deep(child)}
    if layers:
        kinds = {key: type(layers.get((*node.path, key))) for key in deep}
        numbered = {key: found for key in deep if (found := NUMBERED.fullmatch(key))}
        families = Counter((found[1], kinds[key]) for key, found in numbered.items())
        return {
            key: int(found[2])
            for key, found in numbered.items()
            if families[found[1], kinds[key]] > 1 and kinds[key] is not type(None)
        }
    listed = type(node.value) in (list, tuple) or word(type(node.value)) == "nnx.List"
    alike = len({type(child) for child in deep.values()}) == 1 and len(deep) > 1
    return {key: at for at, key in enumerate(deep)} if listed and alike else {}


def _is_deep(value: Any) -> bool:
    """Whether it holds containers."""
    held = None if is_variable(value) else _held(value)
    return held is not None and any(not is_variable(child) and _held(child) for _, child in held)
