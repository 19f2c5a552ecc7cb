"""Which activation follows a layer, where a sequence of layers says it."""

from collections.abc import Iterable, Iterator
from typing import Any

from fanin.jax._layers import word
from fanin.jax._tree import Node, Path

# What may stand between a layer and its activation.
BETWEEN = ("BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm", "InstanceNorm", "Dropout", "Identity")


def followers(nodes: Iterable[Node]) -> dict[Path, str]:
    """{path of a layer: name of the activation that follows it}, such as ``"relu"``."""
    containers = [node for node in nodes if not node.is_leaf]
    return {
        (*node.path, "layers", str(at)): name
        for node in containers
        for at, after in _steps(node.module)
        if (name := _first_activation(after)) is not None
    }


def _steps(module: Any) -> Iterator[tuple[int, list[Any]]]:
    """The number of each layer of a sequence, and what comes after it."""
    kind = word(type(module))
    if kind in ("nnx.Sequential", "equinox.Sequential"):
        layers = list(module.layers)
        yield from ((at, layers[at + 1 :]) for at in range(len(layers)))
    elif kind == "equinox.MLP":
        yield from ((at, [module.activation]) for at in range(len(module.layers) - 1))


def _first_activation(steps: Iterable[Any]) -> str | None:
    later = (step for step in steps if type(step).__name__ not in BETWEEN)
    return activation_name(next(later, None))


def activation_name(step: Any) -> str | None:
    """``jax.nn.gelu``, alone or in an ``equinox.nn.Lambda``, is ``"gelu"``, a layer PReLU ``"prelu"``."""
    kind = word(type(step)) or ""
    if kind.endswith(".PReLU"):
        return "prelu"
    function = step.fn if kind == "equinox.Lambda" else step
    known = callable(function) and str(getattr(function, "__module__", "")).startswith("jax")
    return getattr(function, "__name__", None) if known else None
