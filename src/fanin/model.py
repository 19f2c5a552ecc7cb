"""What an adapter tells about a model: its stored tensors, the parameters in them, and what each is for.

No framework is needed to hold these facts, so everything decided from them is decided here once for all.
"""

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fanin import layout
from fanin.dtypes import as_dtype
from fanin.errors import PlanError, near
from fanin.fans import Axes, Fans, check_shape
from fanin.initializers import Initializer

ROLES = {
    "kernel": "weights that inputs are multiplied by",
    "recurrent_kernel": "weights that a recurrent state is multiplied by",
    "head": "the kernel of the output layer",
    "embedding": "a table whose entries are looked up",
    "position": "learned vectors added to or put into a sequence: positions, class and mask tokens",
    "bias": "what is added to an output",
    "gate_bias": "the bias of a recurrent gate",
    "recurrent_bias": "a second bias of the same gate",
    "norm_scale": "what a normalized value is multiplied by",
    "norm_offset": "such a scale, stored as its difference from one",
    "norm_bias": "what is added to a normalized value",
    "slope": "the slope of an activation below zero",
    "scale": "what a residual branch is multiplied by",
    "dynamics": "how a state moves in time: step, decay, mixing; its layer defines the start",
    "unknown": "a parameter of no layer that is known; a rule must name it",
    "buffer": "what a layer keeps besides its parameters: running statistics, counters",
}
BUFFER = "buffer"

# What the members of packed and of separate layers are called, in the order in which PyTorch packs them.
GATES = {
    "RNN": (),
    "LSTM": ("input_gate", "forget_gate", "cell_gate", "output_gate"),
    "GRU": ("reset_gate", "update_gate", "new_gate"),
}
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def beside(fans: Fans, rank: int = 1) -> Axes:
    """The axes of a bias, all outputs, with the fans of its layer's kernel."""
    return Axes(tuple(range(rank)), (), known=fans)


@dataclass(frozen=True)
class Piece:
    """A rectangle of a stored tensor that holds one parameter, or a stack of equal ones.

    Parameters
    ----------
    name : str
        Canonical name; one ``{}`` for each stack axis of ``axes``.
    role : str
        What it is for: a key of `ROLES`.
    layer : str
        Kind of its layer, such as ``"linear"`` or ``"conv2d"``.
    axes : Axes
        Of the rectangle.
    window : tuple of (start, stop), optional
        Where it lies; None is the whole tensor.
    split : tuple of (axis, sizes)
        Stored axes made of several, as in `Axes`: the window is a rectangle of the shape so split. Heads that
        hold their query, key and value one after another are such.
    activation : str, optional
        The activation that follows its layer.
    block : int, optional
        Its place in the model's sequence of equal blocks.
    padding_row : int, optional
        The entry of a table that stays zero.
    own : Initializer, optional
        How its layer defines its start, where no recipe has a say (a sinusoidal table).
    """

    name: str
    role: str
    layer: str
    axes: Axes
    window: tuple[tuple[int, int], ...] | None = None
    split: tuple[tuple[int, tuple[int, ...]], ...] = ()
    activation: str | None = None
    block: int | None = None
    padding_row: int | None = None
    own: Initializer | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise PlanError(f"{self.name!r}: no role {self.role!r}; expected one of {', '.join(ROLES)}")

    @property
    def is_all(self) -> bool:
        """Whether it is the whole tensor, with its axes as they are stored."""
        return self.window is None and not self.split

    def slices(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Its rectangle of a stored shape, after `split`."""
        sizes = self.whole.atoms(shape) if self.split else shape
        return tuple(slice(*part) for part in self.window or ((0, size) for size in sizes))

    @property
    def whole(self) -> Axes:
        """The stored tensor as `window` sees it."""
        return Axes((), (), split=self.split)

    def _inside(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(part.stop - part.start for part in self.slices(shape))

    def count(self, shape: tuple[int, ...]) -> int:
        """How many parameters are in it, for the shape of the whole stored tensor."""
        return math.prod(layout.stack_sizes(self.axes, self._inside(shape)))

    def members(self, shape: tuple[int, ...]) -> Iterator["Member"]:
        """The parameters in it, for the shape of the whole stored tensor."""
        inside = self._inside(shape)
        if self.axes.plain:
            yield Member(self.name, inside, self.axes)
            return
        sizes = layout.stack_sizes(self.axes, inside)
        one, axes = layout.member_shape(self.axes, inside), layout.member_axes(self.axes, inside)
        for at in itertools.product(*map(range, sizes)):
            yield Member(str(layout.member_name(self.axes, inside, self.name, at)), one, axes)


class Member(NamedTuple):
    """One parameter: its canonical name, its shape in the stored order of axes, and these axes' roles."""

    name: str
    shape: tuple[int, ...]
    axes: Axes


@dataclass(frozen=True)
class Tensor:
    """A tensor as a framework stores it, and the parameters in it.

    Parameters
    ----------
    path : str
        Where the framework keeps it.
    shape : tuple of int
        As stored.
    dtype : str
        fanin's name of its dtype.
    pieces : tuple of Piece
        Rectangles that make it up, each element in exactly one.
    ties : tuple of str
        Other paths that hold the same memory.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[Piece, ...]
    ties: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_shape(self.shape)
        as_dtype(self.dtype)
        if len(self.pieces) == 1 and self.pieces[0].is_all:
            return
        if len({piece.split for piece in self.pieces}) > 1:
            raise PlanError(f"{self.path!r}: its pieces split its shape {self.shape} in different ways")
        windows = [piece.slices(self.shape) for piece in self.pieces]
        for piece, window in zip(self.pieces, windows, strict=True):
            sizes = piece.whole.atoms(self.shape)
            fits = len(window) == len(sizes) and all(
                0 <= part.start <= part.stop <= size for part, size in zip(window, sizes, strict=True)
            )
            if not fits:
                raise PlanError(f"{self.path!r}: window {piece.window} is not inside shape {self.shape}")
        elements = [math.prod(part.stop - part.start for part in window) for window in windows]
        apart = all(
            any(a.stop <= b.start or b.stop <= a.start for a, b in zip(one, two, strict=True))
            for one, two in itertools.combinations(windows, 2)
        )
        if sum(elements) != math.prod(self.shape) or not (apart or len(windows) < 2):
            raise PlanError(f"{self.path!r}: its pieces do not make up its shape {self.shape} exactly once")


@dataclass(frozen=True)
class Model:
    """The tensors of a model in the order in which it has them, and facts that named recipes ask for."""

    tensors: tuple[Tensor, ...]
    facts: dict[str, int] = field(default_factory=dict)

    def unpadded(self, shapes: Mapping[str, tuple[int, ...]]) -> "Model":
        """The same model, some of whose parameters are smaller than they are stored: {name: its shape}.

        Raises
        ------
        PlanError
            When there is no such parameter, it is packed with others, or does not have that shape inside.
        """
        left = dict(shapes)
        tensors = tuple(_unpadded(tensor, left.pop(tensor.pieces[0].name, None)) for tensor in self.tensors)
        for name in left:
            known = [tensor.pieces[0].name for tensor in self.tensors if len(tensor.pieces) == 1]
            raise PlanError(
                f"`unpadded` names no parameter with a tensor of its own: {name!r}; {near(name, known)}"
            )
        return replace(self, tensors=tensors)


def _unpadded(tensor: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    piece = tensor.pieces[0]
    if shape is None or shape == piece.axes.logical:
        return tensor
    if len(tensor.pieces) > 1 or not (piece.is_all and piece.axes.plain):
        raise PlanError(f"`unpadded`: {piece.name!r} is stored as a part of {tensor.path!r}")
    if len(shape) != len(tensor.shape) or not all(map(operator.le, shape, tensor.shape)):
        raise PlanError(
            f"`unpadded`: {shape} does not lie inside {piece.name!r}, whose shape is {tensor.shape}"
        )
    return replace(tensor, pieces=(replace(piece, axes=replace(piece.axes, logical=shape)),))


def depth_facts(named: Iterable[tuple[str, int | None]]) -> dict[str, int]:
    """``n_layer``, and ``n_encoder_layer`` and ``n_decoder_layer`` of a model of two halves.

    Parameters
    ----------
    named : iterable of (name, block)
        Parameters or layers by their canonical names, and the blocks they are in.

    Examples
    --------
    >>> depth_facts([("embed.weight", None), ("layers.0.fc.weight", 0), ("layers.1.fc.weight", 1)])
    {'n_layer': 2}
    """
    inside = [(name.split("."), block) for name, block in named if block is not None]
    facts = {"n_layer": max(block for _, block in inside) + 1} if inside else {}
    halves = {
        f"n_{half}_layer": max((block + 1 for words, block in inside if half in words), default=0)
        for half in ("encoder", "decoder")
    }
    return facts | halves if all(halves.values()) else facts
