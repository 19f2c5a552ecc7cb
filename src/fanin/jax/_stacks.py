"""Equal layers stored together: ``nnx.vmap``, ``nn.scan``, ``filter_vmap`` give each leaf an axis more."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from fanin.fans import Axes, positive
from fanin.jax._layers import Shapes, sizes
from fanin.model import Piece


def _vectors(features: int) -> Shapes:
    return {"scale": (features,), "bias": (features,)}


def _channels(features: int | str) -> int:
    return 1 if features == "scalar" else int(features)


def _equinox_conv(m: Any) -> Shapes:
    return {
        "weight": (m.out_channels, m.in_channels // m.groups, *m.kernel_size),
        "bias": (m.out_channels, *(1,) * m.num_spatial_dims),
    }


def _equinox_cell(m: Any, gates: int) -> Shapes:
    width = gates * m.hidden_size
    return {"weight_ih": (width, m.input_size), "weight_hh": (width, m.hidden_size), "bias": (width,)}


# The shapes of one layer's leaves as its own settings say; a stack of such layers has axes more.
OWN: Mapping[str, Callable[[Any], Shapes]] = {
    "nnx.Linear": lambda m: {"kernel": (m.in_features, m.out_features), "bias": (m.out_features,)},
    "nnx.LinearGeneral": lambda m: {
        "kernel": (*m.batch_axis.values(), *sizes(m.in_features), *sizes(m.out_features)),
        "bias": (*m.batch_axis.values(), *sizes(m.out_features)),
    },
    "nnx.Einsum": lambda m: {"kernel": tuple(m.kernel_shape), "bias": sizes(m.bias_shape)},
    "nnx.Conv": lambda m: {"kernel": m.kernel_shape, "bias": (m.out_features,)},
    "nnx.ConvTranspose": lambda m: {"kernel": m.kernel_shape, "bias": (m.out_features,)},
    "nnx.Embed": lambda m: {"embedding": (m.num_embeddings, m.features)},
    "nnx.BatchNorm": lambda m: _vectors(m.num_features),
    "nnx.InstanceNorm": lambda m: _vectors(m.num_features),
    "nnx.LayerNorm": lambda m: _vectors(m.num_features),
    "nnx.RMSNorm": lambda m: _vectors(m.num_features),
    "nnx.GroupNorm": lambda m: _vectors(m.num_groups * m.group_size),
    "nnx.PReLU": lambda m: {"negative_slope": ()},
    "equinox.Linear": lambda m: {
        "weight": (_channels(m.out_features), _channels(m.in_features)),
        "bias": (_channels(m.out_features),),
    },
    "equinox.Conv": _equinox_conv,
    "equinox.ConvTranspose": _equinox_conv,
    "equinox.Embedding": lambda m: {"weight": (m.num_embeddings, m.embedding_size)},
    "equinox.LayerNorm": lambda m: {"weight": m.shape, "bias": m.shape},
    "equinox.RMSNorm": lambda m: {"weight": m.shape, "bias": m.shape},
    "equinox.GroupNorm": lambda m: {"weight": (m.channels,), "bias": (m.channels,)},
    "equinox.LSTMCell": lambda m: _equinox_cell(m, 4),
    "equinox.GRUCell": lambda m: {**_equinox_cell(m, 3), "bias_n": (m.hidden_size,)},
}


def stacks(shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> Iterator[tuple[int, ...]]:
    """Which axes of each shape stack tensors of another: of several ways the one that fits most shapes.

    Parameters
    ----------
    shapes : iterable of (stored shape, shape of one)

    Examples
    --------
    >>> list(stacks([((3, 3, 8), (3, 8)), ((8, 3), (8,)), ((5, 2), (5, 2))]))
    [(1,), (1,), ()]
    """
    ways = [
        [
            at
            for at in itertools.combinations(range(len(shape)), len(shape) - len(one))
            if without(shape, at) == one
        ]
        if len(shape) > len(one)
        else []
        for shape, one in shapes
    ]
    fitting = Counter(itertools.chain.from_iterable(ways))
    for several in ways:
        yield max(several, key=lambda at: fitting[at], default=())


def without(shape: tuple[int, ...], at: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without some of its axes."""
    return tuple(size for axis, size in enumerate(shape) if axis not in at)


def stacked(piece: Piece, shape: tuple[int, ...], at: tuple[int, ...], *, blocks: bool) -> Iterator[Piece]:
    """Each layer's part of a stored tensor: ``piece`` is that of one, ``{}`` in its name its number."""
    if not at:
        yield piece
        return
    axes = _with_stack(piece.axes, shape, at)
    inner = piece.axes.members or ((),) * len(piece.axes.stack)
    for index in itertools.product(*(range(shape[axis]) for axis in at)):
        window = [(0, size) for size in shape]
        for axis, k in zip(at, index, strict=True):
            window[axis] = (k, k + 1)
        yield replace(
            piece,
            axes=replace(axes, members=(*((str(k),) for k in index), *inner)),
            window=tuple(window),
            block=index[0] if blocks else piece.block,
        )


def _with_stack(axes: Axes, shape: tuple[int, ...], at: tuple[int, ...]) -> Axes:
    """The axes of one tensor, where those of the stack stand among them."""
    made_of = iter(axes.atoms_of_axis(without(shape, at)))
    atoms = [None if axis in at else next(made_of) for axis in range(len(shape))]
    kept = [axis for axis in range(len(shape)) if axis not in at]
    moved: list[int] = []  # where each atom of one tensor stands among all
    stack: list[int] = []
    for atom in atoms:
        place = len(moved) + len(stack)
        if atom is None:
            stack.append(place)
        else:
            moved += range(place, place + len(atom))
    out, in_, own = (
        tuple(moved[axis] for axis in positive(role, len(moved)) if axis < len(moved))
        for role in (axes.out, axes.in_, axes.stack)
    )
    split = tuple((kept[axis], parts) for axis, parts in axes.split)
    return replace(axes, out=out, in_=in_, stack=(*stack, *own), members=(), split=split)
