"""A plan reaches a model's memory whole or not at all: in place, through parametrizations, wrappers, ties."""

import copy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel

import fanin
import fanin.torch as ft
from fanin.errors import DtypeError, FaninError, OutError, PlanError
from fanin.plan import Plan
from fanin.recipe import Recipe


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def snapshot(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """Of every tensor that can be looked at: which it is, its bytes, and how often it was written."""
    found = {}
    for name, tensor in tensors(model).items():
        plain = not (nn.parameter.is_lazy(tensor) or tensor.is_meta or tensor.is_sparse)
        found[name] = (id(tensor), *((bits(tensor), tensor._version) if plain else ()))
    return found


def values(model: nn.Module) -> dict[str, bytes]:
    return {name: bits(tensor) for name, tensor in tensors(model).items()}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 4))


def with_parameter(tensor: Tensor, **options: Any) -> nn.Module:
    """A network whose last layer has this bias."""
    model = network()
    model[4].bias = nn.Parameter(tensor, **options)
    return model


def quietly(build: Callable[[], nn.Module]) -> nn.Module:
    """What PyTorch has deprecated, and still makes; its warnings are for others to see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_warn_always(True)  # else those said once are said here
        try:
            return build()
        finally:
            torch.set_warn_always(False)


def with_layer(layer: nn.Module) -> nn.Module:
    return network().append(layer)


# --- all or nothing ------------------------------------------------------------------------------


class NoWayBack(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / 2


class Refusing(NoWayBack):
    def right_inverse(self, x: Tensor) -> Tensor:
        if (x <= 0).any():
            raise ZeroDivisionError("only positive ones")
        return x.log()


def parametrized(step: nn.Module) -> nn.Module:
    layer = nn.Linear(4, 4)
    nn.init.ones_(layer.weight)
    return with_layer(parametrize.register_parametrization(layer, "weight", step))


def transposed_tie() -> nn.Module:
    model = network()
    model[4].weight = nn.Parameter(model[4].weight.detach())
    model.append(nn.Linear(4, 4))
    model[5].weight = nn.Parameter(model[4].weight.detach().T)
    return model


def meta_layer(layer: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        made = layer()
    return with_layer(made)


class Table(nn.Module):
    def __init__(self, made_of: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(made_of))


NORMAL, KEEP_LAST = "he_normal", Recipe([("5.weight", "keep"), ("*", "he_normal")])
REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, type[FaninError], str]] = {
    "an integer parameter": (
        lambda: with_parameter(torch.zeros(4, dtype=torch.int64), requires_grad=False),
        NORMAL,
        DtypeError,
        r"'4\.bias' has dtype torch\.int64",
    ),
    "a quantized layer": (
        lambda: quietly(lambda: with_layer(torch.ao.nn.quantized.Linear(4, 4))),
        NORMAL,
        PlanError,
        "'5': Linear is quantized",
    ),
    "a quantized recurrent layer": (
        lambda: quietly(lambda: with_layer(torch.ao.nn.quantized.dynamic.LSTM(4, 4))),
        NORMAL,
        PlanError,
        "'5': LSTM is quantized",
    ),
    "a quantized table": (
        lambda: quietly(lambda: with_layer(torch.ao.nn.quantized.Embedding(4, 4))),
        NORMAL,
        PlanError,
        "'5': Embedding is quantized",
    ),
    "an empty parameter": (
        lambda: with_parameter(torch.zeros(0)),
        NORMAL,
        OutError,
        "`4.bias` has no elements",
    ),
    "an expanded parameter": (
        lambda: with_parameter(torch.zeros(1).expand(4)),
        NORMAL,
        OutError,
        r"`4\.bias` overlaps itself",
    ),
    "a lazy layer": (
        lambda: with_layer(nn.LazyLinear(3)),
        NORMAL,
        PlanError,
        r"'5\.weight' has no shape before the model's first forward",
    ),
    "a sparse parameter": (
        lambda: with_parameter(torch.zeros(4).to_sparse(), requires_grad=False),
        NORMAL,
        OutError,
        r"`4\.bias` is sparse",
    ),
    "a name that is not there": (
        network,
        Recipe([("5.weight", "ones"), ("*", NORMAL)]),
        FaninError,
        "matches no",
    ),
    "a parameter that no rule sets": (
        network,
        Recipe([("*.weight", "ones")]),
        PlanError,
        r"no rule .*0\.bias",
    ),
    "values too wide for float16": (
        lambda: network().half(),
        Recipe([("4.weight", "random_normal(0, 1e6)"), ("*", NORMAL)]),
        PlanError,
        r"'4\.weight': .*float16",
    ),
    "a kept parameter on the meta device": (
        lambda: meta_layer(lambda: nn.Linear(4, 4)),
        KEEP_LAST,
        PlanError,
        r"'5\.weight' is on the meta device and has no value to keep",
    ),
    "a buffer that is lost": (
        lambda: meta_layer(lambda: Table(4)),
        NORMAL,
        PlanError,
        r"'5\.table' of Table \(it does not keep its argument 'made_of'\)",
    ),
    "the old weight_norm": (
        lambda: quietly(lambda: with_layer(nn.utils.weight_norm(nn.Linear(4, 4)))),
        NORMAL,
        PlanError,
        r"'5' has the old torch\.nn\.utils\.weight_norm.*use torch\.nn\.utils\.parametrizations\.weight_norm",
    ),
    "the old spectral_norm": (
        lambda: quietly(lambda: with_layer(nn.utils.spectral_norm(nn.Linear(4, 4)))),
        NORMAL,
        PlanError,
        r"'5' has the old torch\.nn\.utils\.spectral_norm.*use .*parametrizations\.spectral_norm",
    ),
    "a parametrization without a right_inverse": (
        lambda: parametrized(NoWayBack()),
        NORMAL,
        PlanError,
        r"'5\.weight' is parametrized by NoWayBack, which has no right_inverse",
    ),
    "a parametrization that raises": (
        lambda: parametrized(Refusing()),
        NORMAL,
        PlanError,
        r"'5\.weight': its parametrization refuses the value: only positive ones",
    ),
    "a normal matrix for orthogonal": (
        lambda: with_layer(orthogonal(nn.Linear(4, 4))),
        NORMAL,
        PlanError,
        r"'5\.weight' is parametrized by _Orthogonal, which cannot hold he_normal\(\)",
    ),
    "zeros for weight_norm, which divides by them": (
        lambda: with_layer(weight_norm(nn.Linear(4, 4))),
        Recipe([("5.weight", "zeros"), ("*", NORMAL)]),
        PlanError,
        r"'5\.weight' is parametrized by _WeightNorm, which cannot hold zeros\(\)",
    ),
    "a row of zeros for weight_norm": (
        lambda: with_layer(weight_norm(nn.Embedding(4, 4, padding_idx=1))),
        NORMAL,
        PlanError,
        r"'5\.weight' is parametrized by _WeightNorm, which cannot hold with_row",
    ),
    "a transposed tie": (
        transposed_tie,
        NORMAL,
        PlanError,
        r"'4\.weight' and '5\.weight' lie in the same memory.*\('5\.weight', 'keep'\)",
    ),
    "a compiled module": (
        lambda: quietly(lambda: torch.jit.script(network())),
        NORMAL,
        PlanError,
        r"'model' is compiled by torch\.jit",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_changed_by_what_is_refused(case: str) -> None:
    build, recipe, error, text = REFUSED[case]
    model = build()
    before, state = snapshot(model), torch.get_rng_state()
    with pytest.raises(error, match=text):
        ft.initialize(model, recipe, seed=0, device="cpu")
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_modules_that_only_wait_to_be_quantized_are_set() -> None:
    model = nn.Sequential(nn.Linear(4, 4), torch.ao.nn.quantized.FloatFunctional())
    assert len(ft.initialize(model, NORMAL, seed=0).rows) == 2


def other_plans() -> Iterator[tuple[str, nn.Module, str]]:
    yield "one parameter less", network()[:4], r"'4\.\w+' is not in the plan"
    yield "one parameter more", network().append(nn.Linear(4, 4)), r"'5\.\w+' is not in the model"
    yield (
        "other shapes",
        network()[:4].append(nn.Linear(4, 3)),
        r"'4\.weight': the plan is for float32 \(3, 4\)",
    )
    yield "other dtypes", network().double(), "the plan is for float64"
    yield "other layers", network()[:4].append(nn.Bilinear(4, 1, 4)), r"'4\.weight': the plan is for"


@pytest.mark.parametrize(("model", "text"), [c[1:] for c in other_plans()], ids=[c[0] for c in other_plans()])
def test_another_model_s_plan_is_refused(model: nn.Module, text: str) -> None:
    mine, plan = network(), ft.plan(model, NORMAL, seed=0)
    before = snapshot(mine)
    with pytest.raises(PlanError, match=text):
        ft.initialize(mine, plan)
    assert snapshot(mine) == before


# --- in place ------------------------------------------------------------------------------------


def test_a_second_time_changes_no_byte() -> None:
    model = network()
    first = ft.initialize(model, NORMAL, seed=7)
    once = values(model)
    assert ft.initialize(model, NORMAL, seed=7).diff(first) == []
    assert values(model) == once
    ft.initialize(model, NORMAL, seed=8)
    assert values(model) != once


def test_a_plan_and_its_file_and_its_recipe_make_the_same_model(tmp_path: Path) -> None:
    models = [network() for _ in range(3)]
    plan = ft.initialize(models[0], NORMAL, seed=7)
    plan.save(tmp_path / "plan.json")
    ft.initialize(models[1], plan)
    ft.initialize(models[2], str(tmp_path / "plan.json"))
    assert values(models[0]) == values(models[1]) == values(models[2])
    with pytest.raises(PlanError, match="`seed` 8: the plan has its own, 7"):
        ft.initialize(models[0], plan, seed=8)


class Labelled(nn.Parameter):
    """A parameter of somebody's own."""


def test_parameters_stay_the_objects_they_are() -> None:
    model = network()
    model[0].weight = Labelled(model[0].weight.detach())
    model[0].weight.label = "first"
    model[3].weight.requires_grad_(False)
    before = [(id(p), p.data_ptr(), p.requires_grad, type(p)) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ft.initialize(model, NORMAL, seed=0)
    assert [(id(p), p.data_ptr(), p.requires_grad, type(p)) for p in model.parameters()] == before
    assert model[0].weight.label == "first"
    start = model[0].weight.detach().clone()
    model(torch.ones(3, 6)).sum().backward()
    optimizer.step()
    assert torch.equal(model[0].weight.detach(), start - model[0].weight.grad)


def test_autograd_notices_that_a_saved_weight_was_set() -> None:
    model = nn.Linear(3, 3)
    loss = model(torch.ones(1, 3, requires_grad=True)).sum()
    ft.initialize(model, NORMAL, seed=0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_is_kept_keeps_its_bytes_and_its_version() -> None:
    model = network()
    before = snapshot(model)
    ft.initialize(model, Recipe([("3.*", "keep"), ("*", NORMAL)]), seed=0)
    after = snapshot(model)
    assert [name for name in after if after[name] == before[name]] == [
        "3.weight",
        "3.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]


def test_a_part_of_a_tensor_can_be_kept() -> None:
    model = nn.MultiheadAttention(4, 2)
    before = model.in_proj_weight.detach().clone()
    ft.initialize(model, Recipe([("k_proj.weight", "keep"), ("*", NORMAL)]), seed=0)
    changed = (model.in_proj_weight != before).reshape(3, -1).any(1)
    assert changed.tolist() == [True, False, True]


# --- parametrizations ----------------------------------------------------------------------------


def planned(model: nn.Module, path: str, plan: Plan) -> Tensor:
    return torch.from_numpy(plan.fill(path)).to(next(model.parameters()).dtype)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6)], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("wrap", "recipe"), [(weight_norm, NORMAL), (orthogonal, "orthogonal"), (spectral_norm, NORMAL)]
)
def test_a_parametrized_weight_is_the_plan_s(
    wrap: Callable[..., nn.Module], recipe: str, training: bool, shape: tuple[int, int]
) -> None:
    layer = wrap(nn.Linear(*shape)).train(training)
    parameters = [id(parameter) for parameter in layer.parameters()]
    before = snapshot(layer)
    plan = ft.plan(layer, recipe, seed=4)
    assert snapshot(layer) == before
    ft.initialize(layer, plan)
    wanted = planned(layer, "weight", plan)
    if wrap is spectral_norm:  # the largest singular value, to what 15 power iterations leave of the others
        assert torch.equal(layer.parametrizations.weight.original.detach(), wanted)
        wanted = wanted / torch.linalg.matrix_norm(wanted, 2)
        torch.testing.assert_close(layer.weight.detach(), wanted, rtol=0.02, atol=0)
    else:
        torch.testing.assert_close(layer.weight.detach(), wanted, rtol=0, atol=1e-6)
    assert [id(parameter) for parameter in layer.parameters()] == parameters
    once = values(layer.eval())
    layer.train(training)
    torch.manual_seed(training)  # of no consequence
    copied = copy.deepcopy(layer)
    ft.initialize(copied, plan)
    assert values(copied) == once or wrap is spectral_norm


def test_spectral_norm_follows_the_new_weight_and_not_the_chance_of_the_old_one() -> None:
    layers = []
    for chance in range(2):
        torch.manual_seed(chance)
        layers.append(spectral_norm(nn.Conv2d(3, 8, 3)))
        ft.initialize(layers[-1], NORMAL, seed=0)
    assert values(layers[0]) == values(layers[1])


def test_checking_does_not_move_the_vectors_of_spectral_norm() -> None:
    model = nn.Sequential(spectral_norm(nn.Linear(4, 4)), orthogonal(nn.Linear(4, 4))).train()
    before = snapshot(model)
    with pytest.raises(PlanError, match=r"'1\.weight' is parametrized by _Orthogonal"):
        ft.initialize(model, NORMAL, seed=0)
    assert snapshot(model) == before


def test_what_a_parametrized_tensor_keeps_is_its_value() -> None:
    layer = weight_norm(nn.LSTMCell(3, 2), "weight_hh")
    before = layer.weight_hh.detach().clone()
    recipe = Recipe([("weight_hh.forget_gate", "keep"), ("*", NORMAL)])
    plan = ft.initialize(layer, recipe, seed=0)
    assert plan["weight_hh.forget_gate"].initializer is None
    torch.testing.assert_close(layer.weight_hh[2:4].detach(), before[2:4])
    assert not torch.allclose(layer.weight_hh[:2].detach(), before[:2])


def test_a_parametrized_buffer_is_a_buffer() -> None:
    model = nn.BatchNorm1d(3)
    parametrize.register_parametrization(model, "running_mean", Doubling())
    before = bits(model.parametrizations.running_mean.original)
    assert [row.name for row in ft.initialize(model, NORMAL, seed=0).rows] == ["weight", "bias"]
    assert bits(model.parametrizations.running_mean.original) == before


def test_one_tensor_behind_two_parametrizations_is_not_set_twice() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(4, 4)), weight_norm(nn.Linear(4, 4)))
    model[1].parametrizations.weight.original1 = model[0].parametrizations.weight.original1
    before = snapshot(model)
    with pytest.raises(PlanError, match=r"'0\.weight' and '1\.weight' lie in the same memory"):
        ft.initialize(model, NORMAL, seed=0)
    assert snapshot(model) == before


# --- wrappers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one."""
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "compile": lambda model: quietly(lambda: torch.compile(model)),
    "checkpoint_wrapper": checkpoint_wrapper,
    "AveragedModel": AveragedModel,
    "several": lambda model: quietly(
        lambda: torch.compile(nn.DataParallel(checkpoint_wrapper(AveragedModel(model))))
    ),
    "inside": lambda model: nn.Sequential(*(checkpoint_wrapper(layer) for layer in model)),
}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_leave_no_trace_in_names_and_values(wrapper: str) -> None:
    bare, wrapped = network(), WRAPPERS[wrapper](network())
    plan, same = ft.initialize(bare, NORMAL, seed=0), ft.initialize(wrapped, NORMAL, seed=0)
    assert [row.name for row in same.rows] == [name for name, _ in bare.named_parameters()]
    assert plan.diff(same) == []
    mine, its = bare.parameters(), wrapped.parameters()
    assert [bits(parameter) for parameter in mine] == [bits(parameter) for parameter in its]
    again = network()
    ft.initialize(again, same)  # a plan made for the wrapped model
    assert values(again) == values(bare)


@pytest.mark.usefixtures("alone")
def test_parameters_flattened_into_one_are_refused_and_those_that_only_view_it_are_set() -> None:
    sharded = {
        whole: FullyShardedDataParallel(
            network(),
            use_orig_params=not whole,
            device_id=torch.device("cpu"),
            sharding_strategy=ShardingStrategy.NO_SHARD,
        )
        for whole in (True, False)
    }
    before = snapshot(sharded[True])
    with pytest.raises(PlanError, match="'_flat_param' holds several parameters, flattened by FullySharded"):
        ft.initialize(sharded[True], Recipe([("*", "he_normal"), ("_flat_param", "ones")]), seed=0)
    assert snapshot(sharded[True]) == before
    bare = network()
    ft.initialize(bare, NORMAL, seed=0)
    ft.initialize(sharded[False], NORMAL, seed=0)
    assert list(map(bits, bare.parameters())) == list(map(bits, sharded[False].parameters()))


# --- ties ----------------------------------------------------------------------------------------


def test_a_head_tied_to_a_table_has_the_table_s_name_and_start() -> None:
    model = nn.ModuleDict({"a_head": nn.Linear(4, 9, bias=False), "table": nn.Embedding(9, 4)})
    model["a_head"].weight = model["table"].weight
    plan = ft.initialize(model, NORMAL, seed=0)
    assert [(row.name, row.role) for row in plan.rows] == [("table.weight", "embedding")]
    assert plan.tensors[0].ties == ("a_head.weight",)
    alone = nn.ModuleDict({"table": nn.Embedding(9, 4)})
    ft.initialize(alone, NORMAL, seed=0)
    assert bits(alone["table"].weight) == bits(model["a_head"].weight)


@pytest.mark.parametrize("order", [("b", "a", "c"), ("c", "b", "a")])
def test_tied_layers_have_the_smallest_name_whatever_the_order(order: tuple[str, ...]) -> None:
    layers = {name: nn.Linear(4, 4, bias=False) for name in order}
    for layer in layers.values():
        layer.weight = layers["a"].weight
    plan = ft.initialize(nn.ModuleDict(layers), NORMAL, seed=0)
    assert [row.name for row in plan.rows] == ["a.weight"]
    expected = fanin.HeNormal()((4, 4), seed=0, name="a.weight", axes="oi")
    assert layers["c"].weight.detach().numpy().tobytes() == expected.tobytes()


def test_two_parameters_that_view_the_same_memory_are_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    assert len(ft.initialize(model, NORMAL, seed=0).rows) == 1
    assert bits(model[0].weight) == bits(model[1].weight)


def test_parts_of_one_memory_that_do_not_meet_are_no_tie() -> None:
    memory = torch.zeros(4, 6)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False))
    model[0].weight, model[1].weight = nn.Parameter(memory[:, :3]), nn.Parameter(memory[:, 3:])
    plan = ft.initialize(model, NORMAL, seed=0)
    assert np.array_equal(memory.numpy(), np.hstack([plan.fill("0.weight"), plan.fill("1.weight")]))


def test_one_side_of_a_transposed_tie_can_be_kept() -> None:
    model = transposed_tie()
    plan = ft.initialize(model, Recipe([("5.weight", "keep"), ("*", NORMAL)]), seed=0)
    assert torch.equal(model[5].weight, model[4].weight.T)
    assert model[4].weight.detach().numpy().tobytes() == plan.fill("4.weight").tobytes()


# --- memory --------------------------------------------------------------------------------------

MEMORY = """
import resource, sys, torch
from torch import nn
import fanin.torch as ft

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

size, device = 5120, sys.argv[1]  # 4 layers of 100 MiB
with torch.device(device):
    model = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(4)))
with torch.device(device):
    small = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))
ft.initialize(small, "he_normal", seed=0, device="cpu")  # what is loaded on first use
before = peak()
ft.initialize(model, "he_normal", seed=0, device="cpu")
print(peak() - before, sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_of_400_megabytes_needs_no_more_memory_than_its_own(device: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, device], check=True, capture_output=True, text=True, timeout=300
    )
    grown, own = map(int, done.stdout.split())
    assert own == 400 << 20
    assert grown - (own if device == "meta" else 0) < 64 << 20
