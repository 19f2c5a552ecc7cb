"""Values reach a tensor's memory whatever its strides and dtype, and what cannot be filled is refused."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import fanin
from fanin.dtypes import KNOWN
from fanin.errors import DtypeError, OutError
from fanin.torch import _tensors
from fanin.torch._tensors import check, dtype_name, fill, windows

DTYPES = [getattr(torch, name) for name in KNOWN]
STRIDES: dict[str, Callable[[torch.dtype], Tensor]] = {
    "contiguous": lambda d: torch.zeros(6, 4, 5, 3, dtype=d),
    "channels last": lambda d: torch.zeros(6, 4, 5, 3, dtype=d).contiguous(memory_format=torch.channels_last),
    "permuted": lambda d: torch.zeros(3, 6, 5, 4, dtype=d).permute(1, 3, 2, 0),
    "every other": lambda d: torch.zeros(12, 4, 5, 6, dtype=d)[::2, :, :, 1::2],
    "part of a view": lambda d: torch.zeros(8, 7, 5, 3, dtype=d)[1:7, 2:6],
}


def normals(
    shape: tuple[int, ...], seed: int = 3
) -> Callable[[tuple[slice, ...] | None, np.ndarray], np.ndarray]:
    return lambda window, out: fanin.RandomNormal()(shape, seed=seed, axes="oi", window=window, out=out)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def fill_through_host(tensor: Tensor, write: _tensors.Write, most: int) -> None:
    _tensors._through_host(tensor.detach(), write, most)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("most", [None, 1000, 100, 30, 4, 1])
def test_a_tensor_takes_the_core_s_values_directly_and_through_host_buffers(
    dtype: torch.dtype, strides: str, most: int | None
) -> None:
    tensor = STRIDES[strides](dtype)
    expected = fanin.RandomNormal()((6, 4, 5, 3), seed=3, axes="oi", dtype=dtype_name(dtype))
    where = tensor.data_ptr()
    if most is None:
        fill(tensor, normals((6, 4, 5, 3)))
    else:
        fill_through_host(tensor, normals((6, 4, 5, 3)), most)
    assert bits(tensor) == expected.tobytes()
    assert tensor.data_ptr() == where


@pytest.mark.parametrize("strides", ["every other", "part of a view"])
def test_what_lies_between_the_elements_is_left_alone(strides: str) -> None:
    tensor = STRIDES[strides](torch.float32)
    base = tensor._base
    assert base is not None
    base.fill_(7.0)
    fill(tensor, normals((6, 4, 5, 3)))
    untouched = base.numel() - tensor.numel()
    assert int((base == 7.0).sum()) == untouched


def test_a_scalar_is_one_window() -> None:
    tensor = torch.zeros(())
    fill_through_host(tensor, lambda window, out: out.fill(2.5), 1)
    assert tensor.item() == 2.5


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (2, 3, 4), (1, 1, 9), (4, 0, 2), (0,)])
@pytest.mark.parametrize("most", [1, 2, 5, 12, 100])
def test_windows_cover_a_shape_once_in_order(shape: tuple[int, ...], most: int) -> None:
    visits = np.zeros(shape, int)
    starts = []
    for window in windows(shape, most):
        assert visits[window].size <= most
        visits[window] += 1
        starts.append([part.start for part in window])
    assert (visits == 1).all()
    assert starts == sorted(starts)


def test_host_buffers_are_bounded_unless_the_whole_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(_tensors, "_through_host", lambda tensor, write, most: asked.append(most))
    elsewhere = torch.empty(6, 4, device="meta")  # any device that is not the CPU
    monkeypatch.setattr(_tensors, "check", lambda tensor, what, allow_empty: None)
    fill(elsewhere, normals((6, 4)))
    fill(elsewhere.bfloat16(), normals((6, 4)))
    fill(elsewhere, normals((6, 4)), whole=True)
    assert asked == [(16 << 20) // 4, (16 << 20) // 2, 24]


def test_two_buffers_take_turns() -> None:
    places = []
    tensor = torch.zeros(6, 4)
    fill_through_host(tensor, lambda window, out: places.append(out.ctypes.data), 4)
    assert len(places) == 6
    assert places == places[:2] * 3
    assert len(set(places)) == 2


# --- autograd ------------------------------------------------------------------------------------


def test_a_leaf_that_requires_gradients_is_filled_and_stays_one() -> None:
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    fill(weight, lambda window, out: out.fill(1.0))
    assert weight.is_leaf
    assert weight.requires_grad
    assert weight.grad_fn is None
    assert weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("by", [fill, lambda t, write: fill_through_host(t, write, 2)])
def test_autograd_notices_the_change(by: Callable[[Tensor, _tensors.Write], None]) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    loss = (weight**2).sum()  # backward needs the weight as it was
    before = weight._version
    by(weight, lambda window, out: out.fill(5.0))
    assert weight._version > before
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_view_shares_the_count_of_changes() -> None:
    weight = torch.zeros(4, 4)
    fill(weight[1:3], lambda window, out: out.fill(5.0))
    assert weight._version == 1
    assert weight.sum(1).tolist() == [0.0, 20.0, 20.0, 0.0]


def test_inference_tensors_are_filled_inside_inference_mode_alone() -> None:
    with torch.inference_mode():
        tensor = torch.zeros(3)
        fill(tensor, lambda window, out: out.fill(2.0))
        assert tensor.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(OutError, match="was made in inference mode"):
        fill(tensor, lambda window, out: out.fill(3.0))
    assert tensor.clone().tolist() == [2.0, 2.0, 2.0]


# --- refusals ------------------------------------------------------------------------------------


class Wrapper(Tensor):
    """Holds another tensor and no memory of its own."""

    @staticmethod
    def __new__(cls) -> "Wrapper":
        return Tensor._make_wrapper_subclass(cls, (2, 2))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(func)


class Plain(Tensor):
    """Adds nothing."""


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.empty(2, 2)


def freed() -> Tensor:
    tensor = torch.zeros(2, 2)
    tensor.untyped_storage().resize_(0)
    return tensor


def shrunk() -> Tensor:
    tensor = torch.zeros(6)[1:]
    tensor.untyped_storage().resize_(20)
    return tensor


def inference() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(2)


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "array": (lambda: np.zeros(3), OutError, "must be a torch.Tensor, got ndarray"),
    "lazy": (torch.nn.UninitializedParameter, OutError, "has no shape yet"),
    "wrapper": (Wrapper, OutError, "is a Wrapper, which is no plain memory"),
    "fake": (fake, OutError, "is a FakeTensor, which is no plain memory"),
    "sparse": (lambda: torch.zeros(2, 2).to_sparse(), OutError, "is sparse or nested (torch.sparse_coo)"),
    "csc": (lambda: torch.eye(2).to_sparse_coo().coalesce(), OutError, "is sparse or nested"),
    "meta": (lambda: torch.zeros(2, device="meta"), OutError, "is on the meta device"),
    "inference": (inference, OutError, "was made in inference mode"),
    "negated": (
        lambda: torch.zeros(2, dtype=torch.complex64).conj().imag,
        OutError,
        "is a lazily negated view",
    ),
    "freed": (freed, OutError, "has shape torch.Size([2, 2]), but its memory has been freed"),
    "shrunk": (shrunk, OutError, "has shape torch.Size([5]), but its memory has been freed"),
    "expanded": (lambda: torch.zeros(3).expand(4, 3), OutError, "overlaps itself (shape torch.Size([4, 3])"),
    "overlapping": (lambda: torch.zeros(9).as_strided((4, 3), (2, 1)), OutError, "overlaps itself"),
    "empty": (lambda: torch.zeros(3, 0), OutError, "has no elements (shape (3, 0))"),
    "integer": (
        lambda: torch.zeros(2, dtype=torch.int8),
        DtypeError,
        "has dtype torch.int8; expected one of",
    ),
    "bool": (lambda: torch.zeros(2, dtype=torch.bool), DtypeError, "has dtype torch.bool"),
    "complex": (lambda: torch.zeros(2, dtype=torch.complex64), DtypeError, "has dtype torch.complex64"),
    "scale": (lambda: torch.zeros(2).to(torch.float8_e8m0fnu), DtypeError, "has dtype torch.float8_e8m0fnu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_filled_is_refused_by_name_before_anything_is_written(case: str) -> None:
    make, error, text = REFUSED[case]
    tensor, calls = make(), []
    for refuse in (
        lambda: check(tensor, "fc.weight"),
        lambda: fill(tensor, lambda *given: calls.append(given), what="fc.weight"),
    ):
        with pytest.raises(error, match="^`fc.weight` " + re.escape(text)):
            refuse()
    assert not calls


def test_a_quantized_tensor_is_refused() -> None:
    with pytest.warns(UserWarning, match="quantize_per_tensor"):  # PyTorch's, of its coming removal
        tensor = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)
    with pytest.raises(DtypeError, match=r"has dtype torch\.qint8"):
        check(tensor, "weight")


def test_a_nested_tensor_is_refused() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    with pytest.raises(OutError, match="NestedTensor, which is no plain memory"):
        check(nested, "weight")


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_a_tensor_inside_a_transform_is_refused(transform: Callable[..., Callable[..., Tensor]]) -> None:
    def inside(x: Tensor) -> Tensor:
        check(x, "weight")
        return x.sum()

    with pytest.raises(OutError, match=r"belongs to a torch\.func transform"):
        transform(inside)(torch.zeros(3))


@pytest.mark.parametrize(
    "tensor",
    [torch.nn.Parameter(torch.zeros(2)), torch.zeros(2).as_subclass(Plain), torch.zeros(2, 3).t()],
    ids=["parameter", "subclass with its own memory", "transposed"],
)
def test_plain_memory_passes(tensor: Tensor) -> None:
    check(tensor, "weight")
    fill(tensor, lambda window, out: out.fill(4.0))
    assert bool((tensor == 4.0).all())


def test_an_empty_tensor_passes_where_it_is_allowed() -> None:
    empty = torch.zeros(0, 3)
    check(empty, "weight", allow_empty=True)
    fill(empty, normals((0, 3)), allow_empty=True)


def test_every_dtype_of_fanin_has_a_torch_dtype_of_its_name() -> None:
    assert [dtype_name(dtype) for dtype in DTYPES] == list(KNOWN)
