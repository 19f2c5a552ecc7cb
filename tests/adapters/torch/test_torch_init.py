"""`fanin.torch.init` has the names, arguments, laws and effects of `torch.nn.init`, and draws of its own."""

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import init as theirs
from torch.overrides import TorchFunctionMode

import fanin
from fanin.dialects import torch as words
from fanin.errors import ArgumentError, DtypeError, OutError, ShapeError
from fanin.torch import init as ours

ROOT = Path(__file__).resolve().parents[3]
NOT_DRAWN = ("constant_", "ones_", "zeros_", "eye_", "dirac_")
FILLS = [name for name in theirs.__all__ if name.endswith("_")]
DRAWN = [name for name in FILLS if name not in NOT_DRAWN]
OLD = [name for name in theirs.__all__ if f"{name}_" in FILLS]
NEEDS = {"constant_": (0.5,), "sparse_": (0.5,)}  # arguments without a default


def call(module: Any, name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    result = getattr(module, name)(tensor, *(args or NEEDS.get(f"{name.rstrip('_')}_", ())), **kwargs)
    assert result is tensor
    return tensor


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


# --- names and arguments -------------------------------------------------------------------------


def test_the_public_names_are_pytorch_s() -> None:
    assert ours.__all__ == theirs.__all__
    assert set(FILLS) | set(OLD) | {"calculate_gain"} == set(theirs.__all__)


@pytest.mark.parametrize("name", [*FILLS, "calculate_gain"])
def test_a_signature_is_pytorch_s(name: str) -> None:
    assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))


@pytest.mark.parametrize("name", NOT_DRAWN)
def test_what_draws_nothing_is_pytorch_s_own_and_fanin_s_words_agree(name: str) -> None:
    assert getattr(ours, name) is getattr(theirs, name)
    shape = (4, 4, 3) if name == "dirac_" else (4, 6)
    values = call(ours, name, torch.empty(shape)).numpy()
    assert (values == getattr(words, name)(*NEEDS.get(name, ()))(shape)).all()


@pytest.mark.parametrize("name", OLD)
def test_an_old_name_warns_as_pytorch_s_does_and_does_the_same(name: str) -> None:
    shape = (4, 4, 3) if name == "dirac" else (4, 4)
    texts, values = [], []
    for module in (theirs, ours):
        with pytest.warns(FutureWarning, match=f"`nn.init.{name}` is now deprecated") as seen:
            values.append(call(module, name, torch.empty(shape)))
        assert [Path(warning.filename) for warning in seen] == [Path(__file__)]
        texts.append(str(seen[0].message))
    assert texts[0] == texts[1]
    assert getattr(ours, name).__name__ == name
    torch.manual_seed(5)
    new = call(ours, f"{name}_", torch.empty(shape))
    torch.manual_seed(5)
    with pytest.warns(FutureWarning, match="deprecated"):
        assert torch.equal(call(ours, name, torch.empty(shape)), new)


@pytest.mark.parametrize("name", [name for name in OLD if f"{name}_" in DRAWN])
def test_an_old_name_shows_its_arguments(name: str) -> None:
    assert parameters(getattr(ours, name)) == parameters(getattr(theirs, f"{name}_"))


# --- gains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("param", [None, 0, 0.01, 0.2, 10, -1.5])
@pytest.mark.parametrize("name", ours.OWN_GAINS)
def test_a_gain_of_pytorch_s_is_pytorch_s(name: str, param: float | None) -> None:
    assert ours.calculate_gain(name, param) == theirs.calculate_gain(name, param)


def test_every_other_activation_has_fanin_s_gain() -> None:
    assert {"gelu", "silu", "swish", "mish", "elu", "identity"} < set(ours.MORE_GAINS)
    for name in ours.MORE_GAINS:
        assert ours.calculate_gain(name) == fanin.gain(name, "forward")
        with pytest.raises(ValueError, match="Unsupported nonlinearity"):
            theirs.calculate_gain(name)


@pytest.mark.parametrize("slope", [True, [1], {"a": "b"}, "0.1", float("nan")])
def test_a_slope_is_a_finite_number(slope: Any) -> None:
    with pytest.raises(ValueError, match="`param` must be"):
        ours.calculate_gain("leaky_relu", slope)


@pytest.mark.parametrize("name", ["reluu", "", None, ["relu"]])
def test_an_unknown_nonlinearity_is_answered_with_the_known_ones(name: Any) -> None:
    with pytest.raises(ArgumentError, match=r"expected one of conv1d, .*gelu, .*tanh"):
        ours.calculate_gain(name)


# --- laws ----------------------------------------------------------------------------------------

SIDE = 512
LAWS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("uniform_", {}, (SIDE, SIDE)),
    ("uniform_", {"a": -3.0, "b": 0.5}, (SIDE * SIDE,)),
    ("normal_", {}, (SIDE, SIDE)),
    ("normal_", {"mean": 2.0, "std": 0.1}, (64, 64, 64)),
    ("trunc_normal_", {}, (SIDE, SIDE)),
    ("trunc_normal_", {"std": 0.02}, (SIDE, SIDE)),
    ("trunc_normal_", {"mean": 1.0, "std": 2.0, "a": 0.5, "b": 3.0}, (SIDE, SIDE)),
    ("trunc_normal_", {"a": 1.5, "b": 1.75, "mean": 1.0, "std": 0.5}, (SIDE, SIDE)),
    ("xavier_uniform_", {}, (SIDE, SIDE)),
    ("xavier_uniform_", {"gain": 1.7}, (64, 256, 4, 4)),
    ("xavier_normal_", {}, (256, 1024)),
    ("xavier_normal_", {"gain": 0.3}, (1024, 32, 8)),
    ("kaiming_uniform_", {}, (256, 1024)),
    ("kaiming_uniform_", {"a": 5**0.5}, (256, 64, 4, 4)),
    ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "relu"}, (256, 64, 4, 4)),
    ("kaiming_normal_", {}, (256, 1024)),
    ("kaiming_normal_", {"a": 0.2, "mode": "FAN_OUT"}, (256, 1024)),
    ("kaiming_normal_", {"nonlinearity": "tanh"}, (64, 4096)),
]


def distance(a: Tensor, b: Tensor) -> float:
    """Kolmogorov and Smirnov's: the largest difference of two empirical distribution functions."""
    first, second = np.sort(a.numpy().ravel()), np.sort(b.numpy().ravel())
    places = np.concatenate([first, second])
    below = [np.searchsorted(sample, places, side="right") / sample.size for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def farthest(n: int, m: int) -> float:
    """Two samples of one law are farther apart once in 10^8: 2 exp(-2 d^2 n m / (n + m))."""
    return math.sqrt(math.log(2e8) / 2 * (1 / n + 1 / m))


@pytest.mark.parametrize(("name", "kwargs", "shape"), LAWS, ids=[f"{n}{k}" for n, k, _ in LAWS])
def test_draws_have_pytorch_s_law(name: str, kwargs: dict[str, Any], shape: tuple[int, ...]) -> None:
    a = call(theirs, name, torch.empty(shape), generator=seeded(1), **kwargs)
    b = call(ours, name, torch.empty(shape), generator=seeded(1), **kwargs)
    assert distance(a, b) < farthest(a.numel(), b.numel())


def test_the_distance_tells_laws_apart() -> None:
    # F differs by up to 0.24 (s - 1) between std 1 and s
    a, b = (ours.normal_(torch.empty(SIDE, SIDE), std=std, generator=seeded(3)) for std in (1.0, 1.05))
    assert distance(a, b) > farthest(a.numel(), b.numel())


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 1, 2)])
def test_an_orthogonal_matrix_is_distributed_as_pytorch_s(shape: tuple[int, ...]) -> None:
    corners = []
    for module in (theirs, ours):
        generator, drawn = seeded(2), torch.empty(1500, *shape)
        for tensor in drawn:
            module.orthogonal_(tensor, generator=generator)
        corners.append(drawn.flatten(1)[:, [0, -1]])
    for place in (0, 1):
        a, b = (both[:, place] for both in corners)
        assert distance(a, b) < farthest(len(a), len(b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (20, 5, 2, 2), (1, 7), (7, 1)])
def test_an_orthogonal_matrix_is_orthogonal_in_every_dtype(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = ours.orthogonal_(torch.empty(shape, dtype=dtype), gain=1.5, generator=seeded())
    matrix = tensor.double().flatten(1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    # each of the n products of a sum of squares 1.5^2 errs by at most eps of itself
    bound = 1.5**2 * 2 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-13
    assert (small - 1.5**2 * torch.eye(len(small))).abs().max() < bound


def test_sparse_zeroes_a_share_of_each_column_and_leaves_the_law() -> None:
    rows, columns, sparsity = 40, 4000, 0.3
    a, b = (
        module.sparse_(torch.empty(rows, columns), sparsity, std=0.1, generator=seeded(4))
        for module in (theirs, ours)
    )
    zeros = math.ceil(sparsity * rows)
    assert ((a == 0).sum(0) == zeros).all()
    assert ((b == 0).sum(0) == zeros).all()
    assert distance(a[a != 0], b[b != 0]) < farthest(int((a != 0).sum()), int((b != 0).sum()))
    share = zeros / rows
    expected, spread = columns * share, math.sqrt(columns * share * (1 - share))
    assert ((b == 0).sum(1) - expected).abs().max() < 6 * spread


# --- the generator -------------------------------------------------------------------------------

SHAPES = [(4, 4), (1, 7), (300, 200), (0, 3)]


@pytest.mark.parametrize("name", DRAWN)
def test_one_state_is_one_tensor_and_the_next_call_another(name: str) -> None:
    torch.manual_seed(11)
    first, second = call(ours, name, torch.empty(8, 8)), call(ours, name, torch.empty(8, 8))
    torch.manual_seed(11)
    again = call(ours, name, torch.empty(8, 8))
    given = call(ours, name, torch.empty(8, 8), generator=seeded(11))
    assert torch.equal(first, again)
    assert torch.equal(first, given)
    assert not torch.equal(first, second)


def test_a_generator_that_is_given_leaves_the_default_one_alone() -> None:
    before = torch.get_rng_state()
    for name in DRAWN:
        call(ours, name, torch.empty(4, 4), generator=seeded())
    assert torch.equal(before, torch.get_rng_state())


def test_every_call_moves_the_generator_by_one_word_whatever_it_fills() -> None:
    reference = seeded(6)
    torch.empty((), dtype=torch.int64).random_(-(1 << 63), None, generator=reference)
    for name in DRAWN:
        for shape in SHAPES:
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                generator, tensor = seeded(6), torch.empty(shape, dtype=dtype)
                if tensor.numel() == 0 and name.startswith("kaiming"):
                    with pytest.warns(UserWarning, match="no-op"):
                        call(ours, name, tensor, generator=generator)
                else:
                    call(ours, name, tensor, generator=generator)
                assert torch.equal(generator.get_state(), reference.get_state()), (name, shape, dtype)


@pytest.mark.parametrize("name", DRAWN)
def test_values_are_the_dialect_s_from_the_seed_of_that_word(name: str) -> None:
    word = torch.empty((), dtype=torch.int64).random_(-(1 << 63), None, generator=seeded(8))
    seed = fanin.fold_seed((int(word),), "torch.Generator")
    expected = getattr(words, name)(*NEEDS.get(name, ()))((6, 10), seed=seed)
    assert call(ours, name, torch.empty(6, 10), generator=seeded(8)).numpy().tobytes() == expected.tobytes()


def test_words_use_all_64_bits() -> None:
    generator = seeded(9)
    drawn = [ours._seed(generator) for _ in range(400)]
    assert len(set(drawn)) == 400
    for bit in range(64):
        ones = sum(seed >> bit & 1 for seed in drawn)
        assert abs(ones - 200) < 6 * math.sqrt(400) / 2


# --- dtypes and strides --------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str
)
def test_a_narrow_dtype_is_float32_rounded_once(name: str, dtype: torch.dtype) -> None:
    wide = call(ours, name, torch.empty(30, 20), generator=seeded(2))
    narrow = call(ours, name, torch.empty(30, 20).to(dtype), generator=seeded(2))
    assert torch.equal(narrow.float(), wide.to(dtype).float())


STRIDES: dict[str, Callable[[], Tensor]] = {
    "transposed": lambda: torch.empty(20, 30).t(),
    "every other": lambda: torch.empty(60, 40)[::2, ::2],
    "a column block": lambda: torch.empty(30, 50)[:, 7:27],
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("strides", STRIDES)
def test_strides_do_not_change_values(name: str, strides: str) -> None:
    plain = call(ours, name, torch.empty(30, 20), generator=seeded(2))
    strided = call(ours, name, STRIDES[strides](), generator=seeded(2))
    assert not strided.is_contiguous()
    assert torch.equal(plain, strided)


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "sparse_"])
def test_channels_last_is_kept_and_holds_the_same_values(name: str) -> None:
    plain = torch.empty(8, 6, 3, 3)
    last = torch.empty(8, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    for tensor in (plain, last):
        call(ours, name, tensor, generator=seeded(2))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


# --- in place ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_a_leaf_that_requires_gradients_is_filled_outside_autograd(name: str) -> None:
    weight = torch.nn.Parameter(torch.full((4, 4), 7.0))
    version = weight._version
    call(ours, name, weight)
    assert weight.is_leaf
    assert weight.requires_grad
    assert weight._version > version
    assert not (weight == 7.0).any()


def test_autograd_notices() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 3))
    loss = (weight**2).sum()
    ours.normal_(weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_an_empty_tensor_is_left_alone_and_kaiming_warns(name: str, shape: tuple[int, ...]) -> None:
    for module in (theirs, ours):
        if name.startswith("kaiming"):
            with pytest.warns(UserWarning, match="^Initializing zero-element tensors is a no-op$") as seen:
                call(module, name, torch.empty(shape))
            assert [Path(warning.filename) for warning in seen] == [Path(__file__)]
        else:
            call(module, name, torch.empty(shape))


@pytest.mark.parametrize("name", ["kaiming_uniform_", "kaiming_normal_"])
def test_an_empty_vector_has_no_fan_to_complain_of(name: str) -> None:
    for module in (theirs, ours):
        with pytest.warns(UserWarning, match="no-op"):
            call(module, name, torch.empty(0))


@pytest.mark.parametrize("name", DRAWN)
def test_a_meta_tensor_is_returned_and_nothing_is_drawn(name: str) -> None:
    for module in (theirs, ours):
        generator = seeded()
        call(module, name, torch.empty(4, 4, device="meta"), generator=generator)
        assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("name", ["xavier_uniform_", "kaiming_normal_", "orthogonal_", "sparse_"])
def test_a_meta_tensor_is_checked_all_the_same(name: str) -> None:
    for module in (theirs, ours):
        with pytest.raises(ValueError, match=r"[Dd]imension|ax[ie]s"):
            call(module, name, torch.empty(4, device="meta"))


def test_a_default_device_says_nothing_about_the_generator() -> None:
    with torch.device("meta"):
        assert ours.uniform_(torch.empty(3)).is_meta
        values = ours.uniform_(torch.empty(3, device="cpu"))
    assert ((values > 0) & (values < 1)).all()


# --- overrides -----------------------------------------------------------------------------------


class Watched(Tensor):
    """Notes what reaches it."""

    calls: ClassVar[list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.calls.append((func.__name__, args, kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})


class Refusing(Tensor):
    """Has another opinion of everything."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func, kwargs


def watched(shape: tuple[int, ...] = (3, 3)) -> Tensor:
    tensor = torch.zeros(shape).as_subclass(Watched)
    Watched.calls = []
    return tensor


@pytest.mark.parametrize("name", ["uniform_", "normal_", "kaiming_uniform_"])
def test_a_subclass_gets_the_call_that_pytorch_gives_it(name: str) -> None:
    seen = []
    for module in (theirs, ours):
        tensor = watched()
        call(module, name, tensor)
        word, args, kwargs = Watched.calls[0]
        assert kwargs.pop("tensor") is tensor
        seen.append((word, args, kwargs))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", DRAWN)
def test_a_subclass_gets_every_call_once_by_name_and_is_filled_by_default(name: str) -> None:
    tensor = watched()
    call(ours, name, tensor)
    assert [word for word, _, _ in Watched.calls] == [name]
    assert list(Watched.calls[0][2]) == list(inspect.signature(getattr(ours, name)).parameters)
    assert type(tensor) is Watched
    assert bool((tensor.as_subclass(Tensor) != 0).any())


@pytest.mark.parametrize("name", DRAWN)
def test_a_subclass_s_answer_is_the_answer(name: str) -> None:
    tensor = torch.zeros(3, 3).as_subclass(Refusing)
    function, kwargs = getattr(ours, name)(tensor=tensor, **({"sparsity": 0.5} if name == "sparse_" else {}))
    assert function is getattr(ours, name)
    assert kwargs["generator"] is None
    assert (tensor.as_subclass(Tensor) == 0).all()


def test_a_mode_sees_the_call_that_pytorch_shows_it() -> None:
    class Mode(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    for module in (theirs, ours):
        tensor, mode = torch.zeros(3), Mode()
        with mode:
            module.normal_(tensor)
        assert mode.names == ["normal_"]
        assert (tensor != 0).all()


def test_an_uninitialized_parameter_is_refused_as_pytorch_refuses_it() -> None:
    for module in (theirs, ours):
        with pytest.raises(ValueError, match="uninitialized parameter"):
            module.uniform_(torch.nn.UninitializedParameter())


# --- refusals ------------------------------------------------------------------------------------


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.empty(2, 2)


REFUSED: dict[str, tuple[Callable[..., object], Any, type[Exception], str]] = {
    "integers": (
        ours.uniform_,
        torch.zeros(2, dtype=torch.int32),
        DtypeError,
        "`tensor` has dtype torch.int32",
    ),
    "bool": (ours.normal_, torch.zeros(2, dtype=torch.bool), DtypeError, "`tensor` has dtype torch.bool"),
    "complex": (ours.normal_, torch.zeros(2, dtype=torch.complex64), DtypeError, "torch.complex64; expected"),
    "expanded": (ours.normal_, torch.zeros(3).expand(3, 3), OutError, "`tensor` overlaps itself"),
    "sparse layout": (ours.normal_, torch.eye(2).to_sparse(), OutError, "`tensor` is sparse or nested"),
    "fake": (ours.normal_, fake(), OutError, "`tensor` is a FakeTensor"),
    "array": (ours.normal_, np.zeros((3, 3)), OutError, "`tensor` must be a torch.Tensor, got ndarray"),
    "vector 1": (ours.xavier_uniform_, torch.zeros(3), ShapeError, "(3,) has no axis 1"),
    "vector 2": (ours.xavier_normal_, torch.zeros(3), ShapeError, "(3,) has no axis 1"),
    "vector 3": (ours.kaiming_uniform_, torch.zeros(3), ShapeError, "(3,) has no axis 1"),
    "scalar": (ours.kaiming_normal_, torch.zeros(()), ShapeError, "() has no axis 1"),
    "vector 4": (ours.orthogonal_, torch.zeros(3), ShapeError, "orthogonal needs at least 2 axes"),
    "cube": (lambda t: ours.sparse_(t, 0.5), torch.zeros(2, 2, 2), ShapeError, "torch:sparse_ needs 2 axes"),
    "sparsity": (
        lambda t: ours.sparse_(t, 1.5),
        torch.zeros(2, 2),
        ArgumentError,
        "`sparsity` must be in 0 .. 1",
    ),
    "mode": (
        lambda t: ours.kaiming_normal_(t, mode="fan_avg"),
        torch.zeros(2, 2),
        ArgumentError,
        "`mode` 'fan_avg'; expected one of fan_in, fan_out",
    ),
    "nonlinearity": (
        lambda t: ours.kaiming_uniform_(t, nonlinearity="gelu"),
        torch.zeros(2, 2),
        ArgumentError,
        "`nonlinearity` 'gelu'; expected one of conv1d",
    ),
    "gain": (lambda t: ours.xavier_normal_(t, -1.0), torch.zeros(2, 2), ArgumentError, "`gain` must be >= 0"),
    "std": (lambda t: ours.normal_(t, 0.0, -1.0), torch.zeros(2), ArgumentError, "must be >= 0, got -1.0"),
    "bounds": (lambda t: ours.uniform_(t, 2.0, 1.0), torch.zeros(2), ArgumentError, "must not be above"),
    "no spread": (
        lambda t: ours.trunc_normal_(t, std=0.0),
        torch.zeros(2),
        ArgumentError,
        "`std` must be > 0",
    ),
    "nothing": (
        lambda t: ours.trunc_normal_(t, a=2.0, b=1.0),
        torch.zeros(2),
        ArgumentError,
        "must be below",
    ),
    "range": (
        lambda t: ours.normal_(t, std=1e5),
        torch.zeros(2, dtype=torch.float16),
        DtypeError,
        "beyond float16's largest value",
    ),
    "generator": (
        lambda t: ours.uniform_(t, generator=7),  # type: ignore[arg-type]
        torch.zeros(2),
        ArgumentError,
        "`generator` must be a torch.Generator or None, got 7",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_call_changes_neither_tensor_nor_generator(case: str) -> None:
    function, tensor, error, text = REFUSED[case]
    state = torch.get_rng_state()
    version = getattr(tensor, "_version", None)
    with pytest.raises(error, match=re.escape(text)) as caught:
        function(tensor)
    assert isinstance(caught.value, ValueError)
    assert getattr(tensor, "_version", None) == version
    assert torch.equal(state, torch.get_rng_state())


# --- the page ------------------------------------------------------------------------------------


def test_the_examples_of_the_page_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "torch_init.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "docs/torch_init.md", "exec"), {})
