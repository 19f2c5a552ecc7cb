"""Modules and trees level by level: nodes with the keys that lead to them and their names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from fanin.jax._layers import LAYERS, nearest, word

Path: TypeAlias = tuple[str, ...]

MODULES = {"nnx": "flax.nnx.module.Module", "linen": "flax.linen.module.Module"}
VARIABLE, PARAM = "flax.nnx.variablelib.Variable", "flax.nnx.variablelib.Param"
BOX = "flax.core.meta.AxisMetadata"  # holds one leaf of linen's and how it is partitioned

# What a layer calls those in it, in canonical words; "" is no part of a name.
RECURRENT: dict[str, Mapping[str, str]] = {
    "nnx.RNN": {"cell": ""},
    "linen.RNN": {"cell": ""},
    "nnx.Bidirectional": {"forward_rnn": "", "backward_rnn": "reverse"},
    "linen.Bidirectional": {"forward_rnn": "", "backward_rnn": "reverse"},
}
CHILDREN: dict[str, Mapping[str, str]] = {
    **RECURRENT,
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


def is_a(kind: Any, name: str) -> bool:
    """Whether a class is or derives from one of this name, such as ``flax.nnx.module.Module``."""
    return name in _ancestry(kind)


@cache  # asked of every leaf, several times
def _ancestry(kind: Any) -> frozenset[str]:
    return frozenset(f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__)


def is_nnx(model: Any) -> bool:
    return is_a(type(model), MODULES["nnx"])


def is_variable(value: Any) -> bool:
    return is_a(type(value), VARIABLE)


def is_parameter(value: Any) -> bool:
    """A ``Param`` of nnx, or an array that is no random key."""
    return is_a(type(value), PARAM) if is_variable(value) else is_array(value) and not is_key(value)


def is_array(value: Any) -> bool:
    """Concrete or abstract."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def is_abstract(array: Any) -> bool:
    return isinstance(array, jax.ShapeDtypeStruct)


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
    root = Node(tree, tree, start, ("",) * len(start))
    yield from _walk(root, layers, frozenset())


def _walk(node: Node, layers: Mapping[Path, Any], above: frozenset[int]) -> Iterator[Node]:
    """``node.module`` is what holds it."""
    held = None if is_variable(node.value) else _held(node.value)
    if held is None:
        yield replace(node, is_leaf=True)
        return
    if is_a(type(node.value), BOX):
        for _, child in held:
            yield from _walk(replace(node, value=child), layers, above)
        return
    node = replace(node, module=layers.get(node.path, node.value))
    yield node
    words = nearest(CHILDREN, type(node.module)) or {}
    above |= {id(node.value)}  # a module that holds one of those above it would have no end
    blocks = _blocks(node, held, layers) if node.block is None else {}
    for key, child in held:
        if id(child) not in above:
            path, names = (*node.path, key), (*node.names, words.get(key, key))
            yield from _walk(
                Node(child, node.module, path, names, blocks.get(key, node.block)), layers, above
            )


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
    modules = {key: layers.get((*node.path, key), child) for key, child in held if _is_deep(child)}
    deep = {key: module for key, module in modules.items() if not _is_layer(type(module))}
    if layers:
        numbered = {key: found for key in deep if (found := NUMBERED.fullmatch(key))}
        family = {key: (found[1], type(deep[key])) for key, found in numbered.items()}
        size = Counter(family.values())
        return {key: int(found[2]) for key, found in numbered.items() if size[family[key]] > 1}
    listed = type(node.value) in (list, tuple) or word(type(node.value)) == "nnx.List"
    alike = len({type(child) for child in deep.values()}) == 1 and len(deep) > 1
    return {key: at for at, key in enumerate(deep)} if listed and alike else {}


def _is_layer(kind: type) -> bool:
    """Whether it is one layer, however many modules Flax makes it of."""
    return nearest(LAYERS, kind) is not None or nearest(RECURRENT, kind) is not None


def _is_deep(value: Any) -> bool:
    """Whether it holds containers."""
    held = None if is_variable(value) else _held(value)
    return held is not None and any(not is_variable(child) and _held(child) for _, child in held)
