"""The tensors of a checkpoint as a model: roles and axes guessed from names and shapes."""

import re
from collections.abc import Iterable, Mapping

from fanin.dtypes import KNOWN
from fanin.fans import IO, LOOKUP, OI, Axes
from fanin.model import Model, Piece, Tensor, beside

TABLE = re.compile(r"embed|wte\b|word_emb|tok_emb|\bshared\b")
POSITION = re.compile(r"wpe\b|posit|pos_emb|cls_token|mask_token")
NORM = re.compile(r"norm|\bln|_ln|\bbn|\bgn\b")
HEAD = re.compile(r"(^|\.)(lm_head|classifier|score|head|predictions)\.")
INPUTS_FIRST = re.compile(r"kernel|\bc_(attn|proj|fc)\.weight$")  # Keras, Flax; GPT-2's own layer
RECURRENT = re.compile(r"weight_hh|recurrent_kernel")
STATE = re.compile(r"running_(mean|var)$|moving_(mean|variance)$|num_batches_tracked$|inv_freq$")
DYNAMICS = re.compile(r"(A_log|dt_bias|\bD)$")
SCALES = ("weight", "scale", "gamma", "g")
BIASES = ("bias", "beta", "b")


def guessed(tensors: Iterable[tuple[str, tuple[int, ...], str]]) -> Model:
    """A model of tensors (name, shape, dtype) that no layer explains; statistics and integers are left out.

    Examples
    --------
    >>> model = guessed([("h.3.fc.weight", (8, 4), "float32"), ("h.3.fc.bias", (8,), "float32")])
    >>> [(t.path, t.pieces[0].role, t.pieces[0].block) for t in model.tensors]
    [('h.3.fc.weight', 'kernel', 3), ('h.3.fc.bias', 'bias', 3)]
    """
    kept = {
        name: (shape, dtype) for name, shape, dtype in tensors if dtype in KNOWN and not STATE.search(name)
    }
    shapes = {name: shape for name, (shape, _) in kept.items()}
    return Model(
        tuple(Tensor(name, shape, dtype, (_piece(name, shapes),)) for name, (shape, dtype) in kept.items())
    )


def _piece(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Piece:
    shape = shapes[name]
    front, _, leaf = name.rpartition(".")
    found = re.search(r"(?:^|\.)(?:\w*?_)?(\d+)\.", name)
    block = int(found[1]) if found and len(found[1]) < 6 else None
    if DYNAMICS.search(name):
        return Piece(name, "dynamics", "unknown", Axes((0,), ()), block=block)
    if POSITION.search(name):
        return Piece(name, "position", "unknown", LOOKUP if len(shape) == 2 else Axes((0,), ()), block=block)
    if len(shape) > 1:
        return _matrix(name, shape, block)
    if leaf.startswith(BIASES) and leaf.split("_")[0] in BIASES:
        kernel = _kernel_beside(front, leaf, shapes)
        if kernel is None:
            return Piece(
                name, "norm_bias" if NORM.search(front) else "bias", "unknown", Axes((0,), ()), block=block
            )
        fans = _axes(kernel).fans(shapes[kernel])
        return Piece(name, "bias", _kind(shapes[kernel]), beside(fans, len(shape)), block=block)
    role = "norm_scale" if leaf in SCALES and (NORM.search(front) or len(shape) == 1) else "unknown"
    return Piece(name, role, "unknown", Axes((0,), ()), block=block)


def _matrix(name: str, shape: tuple[int, ...], block: int | None) -> Piece:
    if len(shape) == 2 and TABLE.search(name) and not HEAD.search(name):
        return Piece(name, "embedding", "embedding", LOOKUP, block=block)
    role = "recurrent_kernel" if RECURRENT.search(name) else "head" if HEAD.search(name) else "kernel"
    return Piece(name, role, _kind(shape), _axes(name), block=block)


def _kind(shape: tuple[int, ...]) -> str:
    return "linear" if len(shape) == 2 else f"conv{len(shape) - 2}d"


def _axes(name: str) -> Axes:
    return IO if INPUTS_FIRST.search(name) else OI


def _kernel_beside(front: str, leaf: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The kernel of the same layer: a bias has its fans."""
    for word in ("weight", "kernel", "w"):
        name = ".".join(filter(None, (front, re.sub(r"^(bias|beta|b)", word, leaf))))
        if len(shapes.get(name, ())) > 1:
            return name
    return None
