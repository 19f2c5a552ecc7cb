"""Trees without layers: what the leaves of a container are, by their own words, as far as these say it."""

from typing import Any

from fanin.fans import IO, LOOKUP, Axes
from fanin.jax._layers import Pieces, Shapes
from fanin.model import Piece, beside

KERNELS = ("kernel", "weight", "w")
VECTORS = {
    "bias": "bias",
    "b": "bias",
    "scale": "norm_scale",
    "gamma": "norm_scale",
    "offset": "norm_bias",
    "beta": "norm_bias",
}
TABLES = ("embedding", "embeddings")
KIND = "tree"  # what a rule may call their layer


def spoken(module: Any, shapes: Shapes) -> Pieces:
    """Kernels (in, out), biases with their fans, norm scales and tables; nothing of rank 3 or more.

    >>> found = spoken({}, {"w": (3, 4), "b": (4,), "conv.kernel": (3, 3, 4, 4), "gain": (4,)})
    >>> {leaf: (piece.role, piece.axes.known) for leaf, piece in found.items()}
    {'w': ('kernel', None), 'b': ('bias', Fans(fan_in=3, fan_out=4))}
    """
    found = {}
    kernels = [leaf for leaf in shapes if leaf in KERNELS and len(shapes[leaf]) == 2]
    for leaf in kernels:
        found[leaf] = Piece(leaf, "kernel", KIND, IO)
    for leaf, shape in shapes.items():
        if leaf in TABLES and len(shape) == 2:
            found[leaf] = Piece(leaf, "embedding", KIND, LOOKUP)
        elif leaf in VECTORS and len(shape) < 2:
            role = VECTORS[leaf]
            beside_one = role == "bias" and len(kernels) == 1
            axes = beside(IO.fans(shapes[kernels[0]])) if beside_one else Axes((0,), ())
            found[leaf] = Piece(leaf, role, KIND, axes)
    return found


def is_ambiguous(leaf: str, shape: tuple[int, ...]) -> bool:
    """Whether a word promises a kernel whose axes a tree cannot tell."""
    return leaf in KERNELS and len(shape) > 2
