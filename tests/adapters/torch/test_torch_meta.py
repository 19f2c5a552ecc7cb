"""A model made on the meta device becomes the one made on the CPU: weights, buffers, ties, outputs."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from models import MODELS, Architecture
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

import fanin.torch as ft
from fanin.dtypes import KNOWN
from fanin.errors import OutError, PlanError
from fanin.fans import Axes
from fanin.initializers import Zeros
from fanin.recipe import Recipe, Rule, role
from fanin.sampling import Canvas

RECIPE = Recipe([("*", "lecun_normal"), Rule(role("unknown"), "random_normal(0, 0.02)", optional=True)])


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def stored(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Every parameter and buffer: dtype, shape, bytes, whether it is trained."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: (t.dtype, t.shape, bits(t), t.requires_grad) for name, t in tensors.items()}


def tensors_in(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else ()
    return [tensor for value in values for tensor in tensors_in(value)]


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


# --- whole models --------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", MODELS, ids=[each.name for each in MODELS])
def test_a_model_from_the_meta_device_is_the_one_from_the_cpu(architecture: Architecture) -> None:
    here, there = architecture.build().eval(), on_meta(architecture.build).eval()
    assert any(tensor.is_meta for tensor in there.parameters())
    ft.initialize(here, RECIPE, seed=3)
    ft.initialize(there, RECIPE, seed=3, device="cpu")
    assert stored(there) == stored(here)
    assert list(there.state_dict()) == list(here.state_dict())
    with torch.no_grad():
        one, two = tensors_in(here(**architecture.batch())), tensors_in(there(**architecture.batch()))
    assert one
    for mine, its in zip(one, two, strict=True):
        assert torch.equal(mine, its)


def built(name: str) -> nn.Module:
    return next(each.build for each in MODELS if each.name == name)()


def test_a_model_that_was_moved_to_the_meta_device_is_no_other() -> None:
    here, there = built("swin"), built("swin").to("meta")
    ft.initialize(here, RECIPE, seed=0)
    ft.initialize(there, RECIPE, seed=0, device="cpu")
    assert stored(there) == stored(here)


def test_the_dtype_of_the_meta_buffer_decides() -> None:
    here = built("llama").to(torch.bfloat16)
    there = on_meta(lambda: built("llama")).to(torch.bfloat16)
    ft.initialize(here, RECIPE, seed=0)
    ft.initialize(there, RECIPE, seed=0, device="cpu")
    assert {buffer.dtype for buffer in there.buffers()} == {torch.bfloat16}
    assert stored(there) == stored(here)


def test_the_process_is_left_as_it_was() -> None:
    there = on_meta(lambda: nn.Sequential(nn.Linear(4, 4), Kept(3, 4), weight_norm(nn.Linear(4, 4))))
    state = torch.get_rng_state()
    ft.initialize(there, RECIPE, seed=0, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert not nn.Linear(2, 2).weight.is_meta


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9)], ids=str)
@pytest.mark.parametrize("parametrize", [weight_norm, spectral_norm])
def test_parametrized_layers_come_from_the_meta_device(
    parametrize: Callable[[nn.Module], nn.Module], shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    here, there = parametrize(nn.Linear(*shape)), on_meta(lambda: parametrize(nn.Linear(*shape)))
    ft.initialize(here, "orthogonal", seed=0)
    torch.manual_seed(1)
    ft.initialize(there, "orthogonal", seed=0, device="cpu")
    assert stored(there) == stored(here)
    assert bits(there.eval().weight) == bits(here.eval().weight)


def test_a_parametrization_that_the_meta_device_broke_is_refused() -> None:
    model = on_meta(lambda: orthogonal(nn.Linear(9, 4)))
    with pytest.raises(PlanError, match="'weight': its parametrization has no value"):
        ft.initialize(model, "orthogonal", seed=0, device="cpu")


def test_what_is_real_already_is_set_in_place() -> None:
    model = nn.Sequential(nn.Linear(5, 4), on_meta(lambda: nn.Linear(4, 3)))
    real = model[0].weight
    ft.initialize(model, "he_normal", seed=0, device="cpu")
    same = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    ft.initialize(same, "he_normal", seed=0)
    assert model[0].weight is real
    assert stored(model) == stored(same)


# --- parameters ----------------------------------------------------------------------------------


class Labelled(nn.Parameter):
    """A parameter of somebody's own."""


def test_class_attributes_and_requires_grad_of_parameters_are_kept() -> None:
    model = on_meta(lambda: nn.Linear(4, 3))
    model.weight = Labelled(model.weight.detach())
    model.weight.label = "first"
    model.bias.requires_grad_(False)
    ft.initialize(model, "he_normal", seed=0, device="cpu")
    assert type(model.weight) is Labelled
    assert model.weight.label == "first"
    assert model.weight.is_leaf
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False]


@pytest.mark.parametrize("dtype", KNOWN)
def test_every_dtype_comes_from_the_meta_device(dtype: str) -> None:
    here = nn.Linear(40, 30).to(getattr(torch, dtype))
    there = on_meta(lambda: nn.Linear(40, 30)).to(getattr(torch, dtype))
    ft.initialize(here, "he_normal", seed=0)
    ft.initialize(there, "he_normal", seed=0, device="cpu")
    assert stored(there) == stored(here)


def test_the_layout_of_memory_is_kept() -> None:
    model = on_meta(lambda: nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last))
    ft.initialize(model, "he_normal", seed=0, device="cpu")
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    same = nn.Conv2d(3, 8, 3)
    ft.initialize(same, "he_normal", seed=0)
    assert stored(model) == stored(same)


def test_ties_hold_after_the_meta_device() -> None:
    model = on_meta(lambda: nn.ModuleDict({"head": nn.Linear(4, 6, bias=False), "table": nn.Embedding(6, 4)}))
    model["head"].weight = model["table"].weight
    plan = ft.initialize(model, "he_normal", seed=0, device="cpu")
    assert [row.name for row in plan.rows] == ["table.weight"]
    assert model["head"].weight is model["table"].weight
    assert not model["head"].weight.is_meta


def test_two_parameters_of_one_memory_are_a_tie_on_the_meta_device_too() -> None:
    model = on_meta(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    ft.initialize(model, "he_normal", seed=0, device="cpu")
    assert model[1].weight.data_ptr() == model[0].weight.data_ptr()


# --- buffers -------------------------------------------------------------------------------------


class Kept(nn.Module):
    """Keeps what it was made from."""

    made: ClassVar[list[bool]] = []  # whether each was made without memory for its weight

    def __init__(self, length: int, width: int, base: float = 10.0) -> None:
        super().__init__()
        self.length, self.width, self.base = length, width, base
        self.weight = nn.Parameter(torch.empty(width))
        self.made.append(self.weight.is_meta)
        positions = torch.arange(length)[:, None] / base ** torch.arange(width)
        self.register_buffer("table", positions.sin(), persistent=False)
        self.register_buffer("used", torch.zeros(length, dtype=torch.int64))
        self.register_buffer("absent", None)

    def forward(self, x: Tensor) -> Tensor:
        return x


class Forgetful(nn.Module):
    def __init__(self, length: int, base: float = 2.0) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("table", base ** torch.arange(length))


class Doubled(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = 2 * length
        self.register_buffer("table", torch.arange(2 * length))


class Random(nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("table", torch.randn(length))


UNKNOWN = [Rule("*weight", "ones", optional=True)]


def test_a_module_that_keeps_its_arguments_is_made_again_without_memory_for_its_weights() -> None:
    here, there = Kept(5, 3, base=7.0), on_meta(lambda: Kept(5, 3, base=7.0))
    Kept.made.clear()
    ft.initialize(there, Recipe(UNKNOWN), seed=0, device="cpu")
    assert Kept.made == [True, True]
    ft.initialize(here, Recipe(UNKNOWN), seed=0)
    assert stored(there) == stored(here)
    assert there.state_dict().keys() == here.state_dict().keys()
    assert there.absent is None


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: Forgetful(4), "does not keep its argument 'base'"),
        (lambda: Doubled(4), "made again, its 'length' is 16 instead of 8"),
        (lambda: Random(4), "'table' of Random; give"),
    ],
    ids=["a forgotten argument", "a changed argument", "a random table"],
)
def test_a_buffer_that_nothing_tells_is_refused_not_guessed(build: Callable[[], nn.Module], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        ft.initialize(on_meta(build), "he_normal", seed=0, device="cpu")


def test_the_error_names_all_lost_buffers_and_nothing_is_changed() -> None:
    model = nn.Sequential(
        nn.Linear(3, 3), on_meta(lambda: nn.Sequential(Random(2), nn.Linear(3, 3), Random(3)))
    )
    before, version = bits(model[0].weight), model[0].weight._version
    with pytest.raises(PlanError, match=r"'1\.0\.table' of Random, '1\.2\.table' of Random"):
        ft.initialize(model, "he_normal", seed=0, device="cpu")
    assert bits(model[0].weight) == before
    assert model[0].weight._version == version
    assert model[1][1].weight.is_meta


def test_a_function_of_the_user_s_goes_first_and_the_rest_is_rebuilt() -> None:
    model = on_meta(lambda: nn.ModuleDict({"a": Random(4), "b": Kept(5, 3), "c": nn.BatchNorm1d(2)}))
    mine = torch.arange(4, dtype=torch.float64)
    asked = []

    def buffers(name: str, module: nn.Module, lost: Tensor) -> Tensor | None:
        asked.append((name, type(module), lost.is_meta, tuple(lost.shape)))
        return mine if name == "a.table" else None

    recipe = Recipe([*UNKNOWN, ("*", "zeros")])
    ft.initialize(model, recipe, seed=0, device="cpu", buffers=buffers)
    assert asked[:2] == [("a.table", Random, True, (4,)), ("b.table", Kept, True, (5, 3))]
    assert model["a"].table.dtype == torch.float32
    assert model["a"].table.tolist() == [0, 1, 2, 3]
    assert torch.equal(model["b"].table, Kept(5, 3).table)
    assert (model["c"].running_var == 1).all()


def test_what_the_user_s_function_gives_is_not_made_again() -> None:
    model = on_meta(lambda: Kept(5, 3))
    Kept.made.clear()
    recipe = Recipe(UNKNOWN)
    ft.initialize(
        model, recipe, seed=0, device="cpu", buffers=lambda *lost: torch.ones_like(lost[2], device="cpu")
    )
    assert Kept.made == []
    assert (model.table == 1).all()


@pytest.mark.parametrize("value", [torch.zeros(5), torch.zeros(4, dtype=torch.int64), [0.0] * 4], ids=str)
def test_what_the_user_s_function_gives_must_fit(value: Any) -> None:
    with pytest.raises(PlanError, match=r"`buffers` gives 'table'.*expected values of torch\.float32 \(4,\)"):
        ft.initialize(
            on_meta(lambda: Random(4)), "he_normal", seed=0, device="cpu", buffers=lambda *lost: value
        )


def test_a_buffer_given_to_a_model_is_not_the_giver_s() -> None:
    model, mine = on_meta(lambda: Random(4)), torch.zeros(4)
    ft.initialize(model, "he_normal", seed=0, device="cpu", buffers=lambda *lost: mine)
    model.table += 1
    assert mine.sum() == 0


def test_shared_buffers_stay_shared() -> None:
    model = on_meta(lambda: nn.Sequential(Kept(4, 2), Kept(4, 2)))
    model[1].table = model[0].table
    ft.initialize(model, Recipe(UNKNOWN), seed=0, device="cpu")
    assert model[1].table is model[0].table
    assert model[1].used is not model[0].used


def test_buffers_that_have_values_keep_them() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), on_meta(lambda: nn.BatchNorm1d(3)))
    model[0].running_mean += 5
    ft.initialize(model, "he_normal", seed=0, device="cpu")
    assert model[0].running_mean.tolist() == [5, 5, 5]
    assert model[1].running_mean.tolist() == [0, 0, 0]
    assert model[1].num_batches_tracked.dtype == torch.int64


def test_a_wrapper_s_own_buffer_is_rebuilt() -> None:
    model = on_meta(lambda: AveragedModel(nn.Linear(3, 2)))
    ft.initialize(model, "he_normal", seed=0, device="cpu")
    assert model.n_averaged == 0
    model.update_parameters(nn.Linear(3, 2))


# --- refusals ------------------------------------------------------------------------------------


def test_a_device_must_be_said() -> None:
    with pytest.raises(PlanError, match=r"'weight' is on the meta device; say where .* device='cpu'"):
        ft.initialize(on_meta(lambda: nn.Linear(3, 2)), "he_normal", seed=0)
    with pytest.raises(PlanError, match=r"'running_mean' is on the meta device; say where"):
        ft.initialize(on_meta(lambda: nn.BatchNorm1d(2, affine=False)), "he_normal", seed=0)


def test_nothing_can_be_kept_on_the_meta_device() -> None:
    model = on_meta(lambda: nn.Linear(3, 2))
    with pytest.raises(PlanError, match="'bias' is on the meta device and has no value to keep"):
        ft.initialize(model, Recipe([("bias", "keep"), ("*", "he_normal")]), seed=0, device="cpu")
    assert model.weight.is_meta


def test_new_memory_that_an_initializer_leaves_as_it_is_does_not_pass() -> None:
    class Careless(Zeros):
        """Leaves out what lies beyond the first row."""

        def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
            where.out[:1] = 0

    model = on_meta(lambda: nn.Linear(3, 2))
    with pytest.raises(PlanError, match="'weight' was not set completely"):
        ft.initialize(model, Recipe([("weight", Careless()), ("*", "zeros")]), seed=0, device="cpu")
    assert model.weight.is_meta


def test_an_empty_parameter_is_refused_on_the_meta_device_too() -> None:
    model = on_meta(nn.Module)
    model.weight = nn.Parameter(torch.empty(0, 3, device="meta"))
    with pytest.raises(OutError, match="`weight` has no elements"):
        ft.initialize(model, Recipe([("weight", "ones")]), seed=0, device="cpu")
    assert model.weight.is_meta
