"""The one place where values reach a PyTorch tensor: what it must be, and how NumPy comes by its memory."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import increment_version
from torch.nn.parameter import is_lazy

from fanin._types import Array, Window
from fanin.dtypes import EXTENDED, KNOWN, as_dtype
from fanin.errors import DtypeError, OutError
from fanin.layout import windows
from fanin.sampling import overlaps_itself

HOST_BYTES = 1 << 24  # of one of two buffers on the way to another device
BITS = {1: torch.uint8, 2: torch.uint16}  # what NumPy takes where it has no such float

Write: TypeAlias = Callable[[Window | None, Array], object]


def dtype_name(dtype: torch.dtype) -> str:
    """What fanin calls a dtype.

    >>> dtype_name(torch.bfloat16), dtype_name(torch.float8_e4m3fn), dtype_name(torch.int64)
    ('bfloat16', 'float8_e4m3fn', 'int64')
    """
    return str(dtype).removeprefix("torch.")


# --- what can be filled --------------------------------------------------------------------------


def _has_own_dispatch(tensor: Tensor) -> bool:
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _is_frozen(tensor: Tensor) -> bool:
    return tensor.is_inference() and not torch.is_inference_mode_enabled()


def _lacks_storage(tensor: Tensor) -> bool:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (tensor.storage_offset() + last + 1) * tensor.itemsize
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() < needed


def _overlaps_itself(tensor: Tensor) -> bool:
    element = np.empty(1, f"V{tensor.itemsize}")  # never read: only shape and strides matter
    strides = [stride * tensor.itemsize for stride in tensor.stride()]
    return overlaps_itself(np.lib.stride_tricks.as_strided(element, tuple(tensor.shape), strides))


# In this order: each may ask what those before it have made sure of.
OBSTACLES: tuple[tuple[Callable[[Tensor], bool], str], ...] = (
    (is_lazy, "has no shape yet; run its module once, then initialize it"),
    (
        _has_own_dispatch,
        "is a {t.__class__.__name__}, which is no plain memory; pass the tensor that holds its values",
    ),
    (is_functorch_wrapped_tensor, "belongs to a torch.func transform; initialize it before the transform"),
    (
        lambda t: t.layout is not torch.strided or t.is_nested,
        "is sparse or nested ({t.layout}); pass a strided tensor",
    ),
    (lambda t: t.is_meta, "is on the meta device and holds no values; give it memory with `to_empty` first"),
    (
        _is_frozen,
        "was made in inference mode, where alone it can be changed; pass `tensor.clone()` or go back there",
    ),
    (lambda t: t.is_neg(), "is a lazily negated view; pass `tensor.resolve_neg()`"),
    (_lacks_storage, "has shape {t.shape}, but its memory has been freed; gather or materialize it first"),
    (
        _overlaps_itself,
        "overlaps itself (shape {t.shape}, an expanded view?); pass `tensor.contiguous()`",
    ),
)


def check(tensor: Any, what: str, *, allow_empty: bool = False) -> None:
    """Refuse a tensor that `fill` cannot fill; nothing is written.

    Parameters
    ----------
    tensor : torch.Tensor
        Any strides, any device, float32, float64, float16, bfloat16 or a float8 type.
    what : str
        What the error calls it.
    allow_empty : bool
        Whether it may have no elements. A partitioned parameter (ZeRO) has none, and must not pass for
        an initialized one.

    Raises
    ------
    OutError
        For what holds no memory of its own that can be written: meta, fake, lazy, freed, sparse, nested,
        wrapped and overlapping tensors, those of inference mode outside it, and empty ones.
    DtypeError
        For integers, bool, complex and quantized types.

    Examples
    --------
    >>> check(torch.empty(2, 3), "fc.weight")
    >>> check(torch.empty(2, 3, device="meta"), "fc.weight")
    Traceback (most recent call last):
    fanin.errors.OutError: `fc.weight` is on the meta device and holds no values; give it memory with
    `to_empty` first
    """
    if not isinstance(tensor, Tensor):
        raise OutError(f"`{what}` must be a torch.Tensor, got {type(tensor).__name__}")
    for stands_in_the_way, why in OBSTACLES:
        if stands_in_the_way(tensor):
            raise OutError(f"`{what}` {why.format(t=tensor)}")
    if dtype_name(tensor.dtype) not in KNOWN:
        raise DtypeError(f"`{what}` has dtype {tensor.dtype}; expected one of {', '.join(KNOWN)}")
    if tensor.numel() == 0 and not allow_empty:
        raise OutError(
            f"`{what}` has no elements (shape {tuple(tensor.shape)}); if it is partitioned, gather it first"
        )


# --- filling it ----------------------------------------------------------------------------------


def fill(
    tensor: Tensor,
    write: Write,
    *,
    what: str = "tensor",
    allow_empty: bool = False,
    whole: bool = False,
) -> None:
    """Let a function write a tensor's values, in place: outside autograd, which is told of the change.

    Parameters
    ----------
    tensor : torch.Tensor
        As for `check`; leaves that require gradients, too.
    write : callable
        ``write(window, out)`` writes the values of a window (a tuple of slices, or None for all) into a
        NumPy array of its shape. In CPU memory ``out`` is the tensor itself, whatever its strides; for
        another device it is a host buffer of at most 16 MiB, and is copied while the next is written.
    what : str
        What errors call the tensor.
    allow_empty : bool
        Whether it may have no elements.
    whole : bool
        Never ask for windows: for values that cost as much in parts as all together.

    Raises
    ------
    OutError, DtypeError
        As `check`, before ``write`` is called.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.empty(2, 2, dtype=torch.bfloat16))
    >>> fill(weight, lambda window, out: out.fill(0.5))
    >>> weight.tolist(), weight._version
    ([[0.5, 0.5], [0.5, 0.5]], 1)
    """
    check(tensor, what, allow_empty=allow_empty)
    values = tensor.detach()
    if values.device.type == "cpu":
        increment_version(tensor)  # first: one too many costs nothing, one too few is a wrong gradient
        write(None, as_array(values))
    else:
        _through_host(values, write, values.numel() if whole else HOST_BYTES // values.itemsize)


def as_array(tensor: Tensor) -> Array:
    """A NumPy view of CPU memory."""
    name = dtype_name(tensor.dtype)
    if name not in EXTENDED:
        return tensor.numpy()
    return tensor.view(BITS[tensor.itemsize]).numpy().view(as_dtype(name))


def _through_host(tensor: Tensor, write: Write, most: int) -> None:
    """Write windows of at most ``most`` elements into two host buffers by turns, and copy each from there.

    Copies from pinned memory only queue, on the tensor's current stream and so after what already uses it;
    a buffer is written again when its own copy is done.
    """
    pinned = tensor.device.type == "cuda"
    stream: Any = torch.cuda.current_stream(tensor.device) if pinned else None
    room = min(most, tensor.numel())
    buffers = [torch.empty(room, dtype=tensor.dtype, device="cpu", pin_memory=pinned) for _ in range(2)]
    copied: dict[int, Any] = {}  # the event after the last copy from each buffer
    for turn, window in enumerate(windows(tuple(tensor.shape), most)):
        part, mine = tensor[window], turn % 2
        if mine in copied:
            copied[mine].synchronize()
        buffer = buffers[mine][: part.numel()].view(part.shape)
        write(window, as_array(buffer))
        part.copy_(buffer, non_blocking=pinned)
        if pinned:
            copied[mine] = stream.record_event()


def as_bytes(tensor: Tensor) -> Tensor:
    """A tensor's bytes in row-major order."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
