"""What a module is: roles, fans and names of every layer's parameters, wherever and however it is kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import fanin.torch as ft
from fanin.errors import PlanError
from fanin.fans import OI
from fanin.recipe import Recipe, role
from fanin.torch._walk import Described, describe


def pieces(module: nn.Module) -> dict[str, Any]:
    return {piece.name: piece for tensor in describe(module).model.tensors for piece in tensor.pieces}


def roles(module: nn.Module) -> dict[str, str]:
    return {name: piece.role for name, piece in pieces(module).items()}


def paths(described: Described) -> list[tuple[str, ...]]:
    return [(tensor.path, *tensor.ties) for tensor in described.model.tensors]


# --- layers --------------------------------------------------------------------------------------

# module; name, role, fan in, fan out of its parameters, none where the layer has no fans
LAYERS: list[tuple[nn.Module, list[tuple[Any, ...]]]] = [
    (nn.Linear(3, 4), [("weight", "kernel", 3, 4), ("bias", "bias", 3, 4)]),
    (nn.Linear(3, 4, bias=False), [("weight", "kernel", 3, 4)]),
    (nn.Bilinear(2, 3, 4), [("weight", "kernel", 6, 4), ("bias", "bias", 6, 4)]),
    (nn.Conv1d(4, 6, 5), [("weight", "kernel", 20, 30), ("bias", "bias", 20, 30)]),
    (nn.Conv2d(4, 6, 3, groups=2), [("weight", "kernel", 18, 27), ("bias", "bias", 18, 27)]),
    (nn.Conv3d(2, 2, (1, 2, 3), bias=False), [("weight", "kernel", 12, 12)]),
    (nn.Conv2d(4, 8, 3, groups=4, bias=False), [("weight", "kernel", 9, 18)]),  # depthwise
    # each output sees a stride's share of the kernel, by in / groups channels
    (nn.ConvTranspose1d(4, 6, 4, stride=2, bias=False), [("weight", "kernel", 8, 24)]),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, bias=False), [("weight", "kernel", 4.5, 27)]),
    (nn.Embedding(9, 4), [("weight", "embedding", 1, 4)]),
    (nn.EmbeddingBag(9, 4), [("weight", "embedding", 1, 4)]),
    (nn.BatchNorm2d(4), [("weight", "norm_scale"), ("bias", "norm_bias")]),
    (nn.SyncBatchNorm(4), [("weight", "norm_scale"), ("bias", "norm_bias")]),
    (nn.InstanceNorm1d(4, affine=True), [("weight", "norm_scale"), ("bias", "norm_bias")]),
    (nn.LayerNorm(4), [("weight", "norm_scale"), ("bias", "norm_bias")]),
    (nn.LayerNorm(4, bias=False), [("weight", "norm_scale")]),
    (nn.LayerNorm(4, elementwise_affine=False), []),
    (nn.GroupNorm(2, 4), [("weight", "norm_scale"), ("bias", "norm_bias")]),
    (nn.RMSNorm(4), [("weight", "norm_scale")]),
    (nn.PReLU(3), [("weight", "slope")]),
    (
        nn.RNN(3, 4),
        [
            ("weight_ih", "kernel", 3, 4),
            ("weight_hh", "recurrent_kernel", 4, 4),
            ("bias_ih", "gate_bias", 3, 4),
            ("bias_hh", "recurrent_bias", 3, 4),
        ],
    ),
    (
        nn.GRUCell(3, 4),
        [
            (f"{what}.{gate}_gate", role, fan_in, 4)
            for what, role, fan_in in (
                ("weight_ih", "kernel", 3),
                ("weight_hh", "recurrent_kernel", 4),
                ("bias_ih", "gate_bias", 3),
                ("bias_hh", "recurrent_bias", 3),
            )
            for gate in ("reset", "update", "new")
        ],
    ),
    (
        nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, bias=False),
        [
            row
            for front, inputs in (("", 3), ("reverse.", 3), ("1.", 4), ("1.reverse.", 4))
            for row in (
                *(
                    (f"{front}weight_ih.{g}_gate", "kernel", inputs, 4)
                    for g in ("input", "forget", "cell", "output")
                ),
                *(
                    (f"{front}weight_hh.{g}_gate", "recurrent_kernel", 2, 4)
                    for g in ("input", "forget", "cell", "output")
                ),
                (f"{front}weight_hr", "kernel", 4, 2),
            )
        ],
    ),
    (
        nn.MultiheadAttention(4, 2, bias=False),
        [(f"{what}_proj.weight", "kernel", 4, 4) for what in ("q", "k", "v", "out")],
    ),
    (
        nn.MultiheadAttention(4, 2, kdim=3, vdim=5, bias=False),
        [
            ("q_proj.weight", "kernel", 4, 4),
            ("k_proj.weight", "kernel", 3, 4),
            ("v_proj.weight", "kernel", 5, 4),
            ("out_proj.weight", "kernel", 4, 4),
        ],
    ),
]


@pytest.mark.parametrize(("module", "expected"), LAYERS, ids=[str(m).split("\n")[0] for m, _ in LAYERS])
def test_a_layer_s_parameters_have_their_roles_and_fans(
    module: nn.Module, expected: list[tuple[Any, ...]]
) -> None:
    found = []
    for row in ft.plan(module, "he_normal", seed=0).rows:
        fans = () if row.fans is None else (row.fans.fan_in, row.fans.fan_out)
        found.append((row.name, row.role, *fans))
    assert found == expected


def test_a_subclass_is_what_its_nearest_known_class_is() -> None:
    class Mine(nn.Linear):
        pass

    class Own(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(2, 2, 1)
            self.temperature = nn.Parameter(torch.ones(()))

    assert roles(Mine(2, 2)) == {"weight": "kernel", "bias": "bias"}
    assert roles(Own()) == {"weight": "kernel", "bias": "bias", "temperature": "unknown"}


def test_the_last_word_of_a_listed_class_counts() -> None:
    class Odd(nn.Linear):
        pass

    class Odder(Odd):
        pass

    @ft.layer(Odd)
    def odd(module: Odd) -> dict[str, ft.Piece]:
        return {"weight": ft.Piece("weight", "head", "odd", OI)}

    assert roles(Odder(2, 2, bias=False)) == {"weight": "head"}
    assert roles(nn.Linear(2, 2, bias=False)) == {"weight": "kernel"}


@pytest.mark.parametrize("wrap", [weight_norm, spectral_norm])
def test_a_parametrized_layer_is_described_by_its_value_and_not_touched(wrap: Any) -> None:
    layer = wrap(nn.Conv2d(4, 6, 3))
    before = {name: (t.clone(), t._version) for name, t in layer.state_dict(keep_vars=True).items()}
    found = pieces(layer)
    assert {name: piece.role for name, piece in found.items()} == {"weight": "kernel", "bias": "bias"}
    assert found["weight"].axes.fans((6, 4, 3, 3)).fan_in == 36
    after = layer.state_dict(keep_vars=True)
    assert all(torch.equal(after[name], t) and after[name]._version == v for name, (t, v) in before.items())


def test_parametrized_gates_and_projections_keep_their_names() -> None:
    lstm = weight_norm(nn.LSTM(3, 4, bias=False), "weight_hh_l0")
    assert "weight_hh.forget_gate" in ft.plan(lstm, "he_normal", seed=0)._rows
    attention = weight_norm(nn.MultiheadAttention(4, 2), "in_proj_weight")
    assert "q_proj.weight" in ft.plan(attention, "he_normal", seed=0)._rows


# --- what a layer does not have ------------------------------------------------------------------


def test_nothing_is_no_parameter() -> None:
    layer = nn.Linear(2, 2)
    layer.register_parameter("extra", None)
    layer.register_module("child", None)
    layer.register_buffer("table", None)
    assert roles(layer) == {"weight": "kernel", "bias": "bias"}


@pytest.mark.parametrize("what", ["nothing", "a tensor"])
@pytest.mark.parametrize(
    ("build", "fan_in"),
    [
        (lambda: nn.Linear(3, 4), 3),
        (lambda: nn.Bilinear(2, 3, 4), 6),
        (lambda: nn.Conv2d(4, 6, 3, groups=2), 18),
        (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), 4.5),
    ],
    ids=["linear", "bilinear", "conv", "conv_transpose"],
)
def test_a_weight_that_is_no_parameter_is_left_alone(
    build: Callable[[], nn.Module], fan_in: float, what: str
) -> None:
    layer = build()
    weight = None if what == "nothing" else layer.weight.detach()
    before = None if weight is None else weight.clone()
    del layer.weight
    layer.weight = weight
    plan = ft.initialize(layer, "he_normal", seed=0)
    assert [(row.name, row.role, row.fans.fan_in) for row in plan.rows] == [("bias", "bias", fan_in)]
    assert layer.weight is weight
    assert weight is None or torch.equal(weight, before)
    assert (layer.bias == 0).all()


def test_parameters_of_lists_and_dictionaries_need_a_rule() -> None:
    model = nn.Module()
    model.list = nn.ParameterList([torch.zeros(2, 3), torch.zeros(4)])
    model.dict = nn.ParameterDict({"scale": torch.zeros(3)})
    assert roles(model) == {"list.0": "unknown", "list.1": "unknown", "dict.scale": "unknown"}
    with pytest.raises(PlanError, match=r"no rule matches list\.0 \(2, 3\) \(unknown, ParameterList\)"):
        ft.plan(model, "he_normal", seed=0)
    ft.initialize(model, Recipe([("list.*", "ones"), ("*", "he_normal"), ("dict.scale", "ones")]), seed=0)
    assert all((parameter == 1).all() for parameter in model.parameters())


# --- where modules stand -------------------------------------------------------------------------


def test_children_of_dictionaries_have_their_keys_in_their_names() -> None:
    model = nn.ModuleDict({"left": nn.Linear(2, 2, bias=False), "right": nn.ModuleList([nn.PReLU()])})
    assert roles(model) == {"left.weight": "kernel", "right.0.weight": "slope"}


@pytest.mark.parametrize("wrap", [lambda layer: layer, weight_norm], ids=["plain", "parametrized"])
def test_a_module_at_two_places_is_set_once(wrap: Any) -> None:
    shared = wrap(nn.Linear(4, 4, bias=False))
    model = nn.ModuleDict({"b": shared, "a": nn.Sequential(shared)})
    assert paths(describe(model)) == [("a.0.weight", "b.weight")]
    plan = ft.initialize(model, "he_normal", seed=0)
    torch.testing.assert_close(model["b"].weight.detach(), torch.from_numpy(plan.fill("a.0.weight")))


def test_a_module_that_holds_a_module_above_it_has_an_end() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(2, 2, bias=False)})
    model["layer"].parent = model
    model["itself"] = model
    assert paths(describe(model)) == [("layer.weight",)]


def test_modules_may_be_nested_as_deeply_as_pytorch_can_follow() -> None:
    model: nn.Module = nn.Linear(2, 2, bias=False)
    for _ in range(400):
        model = nn.Sequential(model)
    assert paths(describe(model)) == [("0." * 400 + "weight",)]


# --- blocks and activations ----------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2, 4, bias=False), nn.Linear(4, 2, bias=False)


def blocks(module: nn.Module) -> dict[str, int | None]:
    return {name: piece.block for name, piece in pieces(module).items() if name.endswith("down.weight")}


def test_blocks_are_numbered_in_order_whatever_they_are_called() -> None:
    named = nn.Sequential()
    for name in ("first", "second", "third"):
        named.add_module(name, Block())
    assert list(blocks(nn.ModuleDict({"stem": Block(), "body": named})).values()) == [None, 0, 1, 2]
    listed = nn.ModuleList(checkpoint_wrapper(Block()) if at % 2 else Block() for at in range(4))
    assert list(blocks(listed).values()) == [0, 1, 2, 3]
    assert describe(listed).model.facts["n_layer"] == 4


def test_blocks_within_blocks_have_the_number_of_the_outer_ones() -> None:
    outer = nn.ModuleList(nn.Sequential(Block(), Block()) for _ in range(3))
    assert list(blocks(outer).values()) == [0, 0, 1, 1, 2, 2]


def test_a_list_of_layers_or_of_unlike_modules_is_no_list_of_blocks() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert {piece.block for piece in pieces(layers).values()} == {None}
    unlike = nn.ModuleList([Block(), nn.Sequential(Block())])
    assert {piece.block for piece in pieces(unlike).values()} == {None}


def test_an_activation_is_found_through_wrappers_and_norms() -> None:
    model = nn.Sequential(
        checkpoint_wrapper(nn.Linear(2, 2)),
        nn.LayerNorm(2),
        checkpoint_wrapper(nn.ReLU()),
        weight_norm(nn.Linear(2, 2, bias=False)),
        nn.Tanh(),
        nn.Linear(2, 2),
    )
    found = {name: piece.activation for name, piece in pieces(model).items()}
    assert found["0.weight"] == found["0.bias"] == "relu"
    assert found["3.weight"] == "tanh"
    assert found["5.weight"] is None


# --- names ---------------------------------------------------------------------------------------


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(PlanError, match=r"`model` must be a torch\.nn\.Module, got dict"):
        ft.plan({}, "he_normal", seed=0)  # type: ignore[arg-type]


def test_two_parameters_of_one_canonical_name_are_refused() -> None:
    class Odd(nn.RNN):
        """Has a parameter of its own where the name of another's gate is."""

    model = Odd(2, 2, bias=False)
    model.weight_ih = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(PlanError, match="two of the plan have the parameter 'weight_ih'"):
        ft.plan(model, Recipe([("*", "ones"), (role("unknown"), "ones")]), seed=0)
