"""Calibration of PyTorch models: what every public version of it breaks, and what it promises."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import fanin
import fanin.torch as ft
from fanin.errors import ArgumentError, CalibrationError, FaninError, UnknownNameError

LIMIT = 1e-4  # of a variance that is to be 1, in float32


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(activation=nn.ReLU, depth=20, width=64, inputs=64, outputs=10):
    layers = [
        each for at in range(depth) for each in (nn.Linear(width if at else inputs, width), activation())
    ]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def convolutions(activation):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), activation(), nn.Conv2d(8, 8, 3, stride=2), activation(), nn.Flatten(),
        nn.Linear(72, 32), activation(), nn.Linear(32, 10),
    )  # fmt: skip


class Block(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x):
        return self.second(torch.relu(self.first(torch.relu(x)))) + self.shortcut(x)


def resnet():
    blocks = [Block(8, 8), Block(8, 16), Block(16, 16), Block(16, 16)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up, self.merge = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = torch.relu(self.down(x))
        below = torch.relu(self.inner(skip))
        return self.head(torch.relu(self.merge(torch.cat([skip, torch.relu(self.up(below))], 1))))


class Stacked(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.LSTM(size, 32, batch_first=True) for size in (16, 32))
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.two(self.one(x)[0])[0][:, -1])


def gpt2():
    config = GPT2Config(n_layer=3, n_embd=48, n_head=4, vocab_size=96, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config)


IDS = {"input_ids": torch.arange(64).reshape(4, 16) * 7 % 96}
MODELS = {
    "tanh": (lambda: mlp(nn.Tanh), normal(128, 64), "lecun_normal"),
    "relu": (lambda: mlp(nn.ReLU), normal(128, 64), "lecun_normal"),
    "gelu": (lambda: mlp(nn.GELU, 50), normal(128, 64), "lecun_normal"),
    "convolutions": (lambda: convolutions(nn.GELU), normal(32, 3, 8, 8), "he_normal"),
    "resnet": (resnet, normal(16, 3, 10, 10), "he_normal"),
    "unet": (UNet, normal(8, 3, 8, 8), "glorot_uniform"),
    "lstm": (Stacked, 0.1 * normal(64, 6, 16), "glorot_uniform"),
    "gpt2": (gpt2, IDS, "gpt2"),
}


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# --- LSUV ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_one_rescale_of_each_layer_is_exact(name):
    """Ports loop until within a tenth: of the variance in the paper, of the deviation in code."""
    build, batch, recipe = MODELS[name]
    model = build()
    plan = ft.initialize(model, recipe, seed=0)
    result = ft.calibrate(model, batch, plan=plan)
    for scale in result.scales:
        assert abs((scale.after / scale.target) ** 2 - 1) < LIMIT, scale.layer
    assert any(abs(scale.before / scale.target - 1) > 0.1 for scale in result.scales)
    again = build()
    ft.initialize(again, result.plan)
    assert same(state(again), state(model))
    added = len(result.plan.to_json()) - len(plan.to_json())
    assert added < 120 * len(result.factors)
    result.undo()
    assert ft.verify(model, plan) == []


def test_a_few_runs_calibrate_any_number_of_layers():
    """A port's loop has no bound, and others' run the model up to ten times for each layer."""
    runs = []
    model = mlp(depth=30)
    model.register_forward_hook(lambda *_: runs.append(1))
    ft.calibrate(model, normal(64, 64))
    assert len(runs) == 4  # the trace, before, calibration, after


def test_biases_are_solved_for():
    model = mlp(nn.Tanh, 4)
    for layer in model[::2]:
        nn.init.uniform_(layer.bias, -1.0, 1.0, generator=torch.Generator().manual_seed(1))
    result = ft.calibrate(model, normal(256, 64))
    assert all(abs(after**2 - 1) < LIMIT for after in result.after.values())
    with torch.no_grad():
        model[0].bias.mul_(10)
    with pytest.raises(
        CalibrationError, match=r"'0': its bias alone has a standard deviation of .*smaller biases"
    ):
        ft.calibrate(model, normal(256, 64))


def test_another_batch_is_as_good_within_a_tenth():
    model = mlp(nn.Tanh, 20)
    ft.initialize(model, "orthogonal", seed=0)
    ft.calibrate(model, normal(256, 64))
    other = ft.trace(model, normal(256, 64, seed=1))
    dense = [step.after.std for step in other.operations if step.kind == "dense"][:-1]
    assert all(abs(std**2 - 1) < 0.1 for std in dense)


def test_execution_order_counts_and_not_registration():
    """Ports visit layers as they were registered."""

    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.second, self.first = nn.Linear(8, 3), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))

    result = ft.calibrate(Reversed(), normal(64, 8))
    assert [scale.layer for scale in result.scales] == ["first", "second"]
    assert all(abs(after**2 - 1) < LIMIT for after in result.after.values())


def test_a_layer_used_twice_is_scaled_once():
    """Ports scale a tied kernel again at each of its uses."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(torch.tanh(self.layer(torch.tanh(self.layer(x)))))

    model = Twice()
    result = ft.calibrate(model, normal(64, 8))
    assert result.left_out["layer#2"] == "its kernel is calibrated in layer"
    assert abs(result.after["layer"] ** 2 - 1) < LIMIT
    tied = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    tied[2].weight = tied[0].weight
    result = ft.calibrate(tied, normal(64, 8))
    assert tied[2].weight is tied[0].weight
    assert result.left_out["2"] == "its kernel is calibrated in 0"
    assert list(result.factors) == ["0.weight"]


def test_nothing_is_skipped_silently():
    """Ports calibrate convolutions and linear layers, and do not say what they leave out."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    model = nn.Sequential(
        nn.Embedding(10, 16), nn.LSTM(16, 16, num_layers=2, batch_first=True), First(), layer
    )
    result = ft.calibrate(model, torch.arange(40).reshape(4, 10) % 10)
    said = {name.split(".")[0] for name in [*result.after, *result.left_out]}
    assert said == {"0", "1", "3"}
    assert "table" in result.left_out["0"]
    assert "attention in one operation" in result.left_out["3.self_attn"]
    assert "only those before the first gates" in result.left_out["1"]


class First(nn.Module):
    def forward(self, pair):
        return pair[0]


def test_a_dead_layer_is_refused_by_name_and_nothing_is_changed():
    """Ports multiply the weights of a layer that puts out nothing by up to 1e8."""
    model = mlp(depth=3)
    with torch.no_grad():
        model[2].bias.fill_(-1e3)
    before = state(model)
    with pytest.raises(CalibrationError, match=r"^'4' is dead: its input is zero"):
        ft.calibrate(model, normal(64, 64), per_channel=True)
    assert same(state(model), before)
    model = mlp(depth=3)
    with torch.no_grad():
        model[2].weight[5] = 0
        model[2].bias.zero_()
    with pytest.raises(CalibrationError, match=r"^'2' is dead in 1 of 64 units \(5\)"):
        ft.calibrate(model, normal(64, 64), per_channel=True)
    with torch.no_grad():
        model[2].weight.zero_()
    before = state(model)
    with pytest.raises(CalibrationError, match=r"^'2' is dead: its kernel is zero"):
        ft.calibrate(model, normal(64, 64))
    assert same(state(model), before)
    with pytest.raises(CalibrationError, match=r"^'0' is dead: it puts out the same for all examples"):
        ft.calibrate(mlp(depth=3), torch.ones(16, 64))


def test_nan_is_refused():
    """A port's loop ends at nan, which is not above its tolerance, and leaves nan in the weights."""
    model = mlp(depth=3)
    with torch.no_grad():
        model[4].weight[0, 0] = math.nan
    before = state(model)["0.weight"]
    with pytest.raises(CalibrationError, match=r"^'4': 16 of its 1024 outputs are nan or infinite"):
        ft.calibrate(model, normal(16, 64))
    with pytest.raises(CalibrationError, match=r"^'4': 512 of its 32768 outputs are nan or infinite"):
        ft.calibrate(model, normal(16, 64), "analytic")
    assert torch.equal(model[0].weight, before)


def test_mode_buffers_gradients_and_generators_are_as_before():
    """Ports leave a model in evaluation mode."""
    model = nn.Sequential(
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)
    )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    torch.manual_seed(3)
    random.seed(3)
    states = torch.get_rng_state(), random.getstate()
    before = state(model)
    result = ft.calibrate(model, normal(64, 8))
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert not model[0].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model._forward_hooks
    changed = [name for name, value in state(model).items() if not torch.equal(value, before[name])]
    assert changed == ["4.weight"]
    assert "normalization takes its size away" in result.left_out["0"]


def test_a_model_where_nothing_would_change_is_refused():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(CalibrationError, match=r"nothing to calibrate: 0: a normalization takes"):
        ft.calibrate(model, normal(64, 8))


def test_prelu_is_no_layer():
    """A port took PReLU's slopes for a kernel."""
    result = ft.calibrate(mlp(nn.PReLU, 3), normal(64, 64))
    assert list(result.after) == ["0", "2", "4"]


def test_the_head_is_left_out_and_the_loss_starts_near_a_blind_guess():
    """Ports give logits variance 1, which lifts the loss above a blind guess's."""
    model, batch = mlp(nn.Tanh, 5), normal(256, 64)
    ft.initialize(model, "lecun_normal", seed=0)
    result = ft.calibrate(model, batch)
    assert "the head" in result.left_out["10"]
    labels = torch.arange(256) % 10
    loss = nn.functional.cross_entropy(model(batch), labels).item()
    assert "10" in ft.calibrate(model, batch, head=True).after
    assert loss < nn.functional.cross_entropy(model(batch), labels).item()


def test_a_residual_stream_grows_by_one_target_in_all():
    """Ports give every branch variance 1, and the stream's grows with depth."""
    model, batch = resnet(), normal(16, 3, 10, 10)
    ft.initialize(model, "he_normal", seed=0)
    result = ft.calibrate(model, batch)
    ends = {scale.layer: scale.target for scale in result.scales if scale.target != 1}
    assert ends == {f"{k}.second": 1 / math.sqrt(4) for k in (1, 2, 3, 4)}
    sums = [step.after.std for step in ft.trace(model, batch).operations if step.kind == "add"]
    assert sums[-1] ** 2 < 2.5  # all branches at 1: about 4


def test_a_branch_that_starts_at_zero_stays_so():
    model, batch = resnet(), normal(16, 3, 10, 10)
    ft.initialize(model, "he_normal", seed=0)
    for block in model[1:5]:
        nn.init.zeros_(block.second.weight)
    result = ft.calibrate(model, batch)
    assert all(not block.second.weight.any() for block in model[1:5])
    assert result.left_out["1.second"] == "the end of a residual branch that starts at zero"


def test_targets_per_layer_and_per_channel():
    model = mlp(depth=3)
    result = ft.calibrate(model, normal(256, 64), target={"*": 2.0, "4": 0.5}, per_channel=True)
    assert [scale.target for scale in result.scales] == [2.0, 2.0, 0.5]
    with torch.no_grad():
        first = model[0](normal(256, 64))
    assert torch.allclose(first.std(0, correction=0), torch.tensor(2.0), rtol=1e-4)
    assert result.factors["0.weight"].shape == (64,)


# --- other methods -------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [lambda: mlp(nn.Tanh, 3), lambda: convolutions(nn.ReLU)])
@pytest.mark.parametrize(("method", "mean"), [("weight_norm", 0.0), ("krahenbuhl_within", 0.1)])
def test_every_channel_gets_its_mean_and_variance(build, method, mean):
    model = build()
    batch = normal(256, 64) if isinstance(model[0], nn.Linear) else normal(64, 3, 8, 8)
    recipe = fanin.Recipe([(fanin.recipe.role("kernel", "head"), "random_normal(0.0, 1.0)"), ("*", "zeros")])
    plan = ft.initialize(model, recipe, seed=0)
    result = ft.calibrate(model, batch, method, plan=plan)
    seen = []
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, output: seen.append(output.detach()))
    model(batch)
    assert len(seen) == len(result.scales) == 4
    for output in seen:
        table = output.transpose(0, 1).flatten(1).double()
        assert (table.mean(1) - mean).abs().max() < 1e-5
        assert (table.var(1, correction=0) - 1).abs().max() < 1e-3
    assert ft.verify(model, result.plan) == []


@pytest.mark.parametrize("weights", ["pca", "kmeans"])
def test_directions_of_patches_whatever_strides_padding_and_groups(weights):
    model = nn.Sequential(
        nn.Conv2d(4, 9, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(9, 12, 2, groups=3), nn.Flatten(),
        nn.Linear(108, 6),
    )  # fmt: skip
    batch = normal(64, 4, 8, 8)
    plan = ft.initialize(model, "random_normal(0.0, 1.0)", seed=0)
    result = ft.calibrate(model, batch, "krahenbuhl_within", weights=weights, plan=plan)
    assert result.plan is None
    assert result.replaced == ("0.weight", "2.weight", "4.weight")
    patches = nn.functional.unfold(batch, 3, stride=2, padding=1).transpose(1, 2).flatten(0, 1).double()
    kernel = model[0].weight.detach().flatten(1).double()
    y = patches @ kernel.T + model[0].bias.detach()
    assert (y.mean(0) - 0.1).abs().max() < 1e-5
    assert (y.var(0, correction=0) - 1).abs().max() < 1e-3
    if weights == "pca":
        assert (torch.corrcoef(y.T) - torch.eye(9)).abs().max() < 1e-3
        second = model[:3](batch).detach().double().transpose(0, 1).flatten(1).reshape(3, 4, -1)
        assert all((torch.corrcoef(group) - torch.eye(4)).abs().max() < 1e-3 for group in second)
    before = state(model)
    result.undo()
    assert ft.verify(model, plan) == []
    ft.calibrate(model, batch, "krahenbuhl_within", weights=weights)
    assert same(state(model), before)


def test_without_biases_weight_norm_scales_alone():
    model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 2))
    result = ft.calibrate(model, normal(64, 8) + 1, "weight_norm")
    assert abs(result.after["0"] - 1) < 1e-3
    assert list(result.constants) == ["2.bias"]


def test_between_layers_gradients_get_one_relative_size():
    model = mlp(nn.ReLU, 7)
    ft.initialize(model, "he_normal", seed=0)
    with torch.no_grad():
        model[2].weight.mul_(5)
        model[6].weight.mul_(0.1)
    batch = normal(256, 64)
    before = model(batch).detach()
    result = ft.calibrate(model, batch, "krahenbuhl_between")
    sizes = np.array(list(result.after.values()))
    assert len(sizes) == 8
    assert np.abs(np.log(sizes / np.exp(np.log(sizes).mean()))).max() < 0.01 * abs(np.log(sizes).mean())
    after = model(batch).detach()
    scale = (after * before).sum() / (before * before).sum()
    assert torch.allclose(after, scale * before, rtol=1e-3, atol=1e-5 * after.abs().max().item())
    with pytest.raises(CalibrationError, match="is for plain chains"):
        ft.calibrate(resnet(), normal(16, 3, 10, 10), "krahenbuhl_between")


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU])
def test_moments_alone_come_near(activation):
    model = mlp(activation, 6, width=512)
    plan = ft.initialize(model, "glorot_normal", seed=0)
    result = ft.calibrate(model, None, "analytic", plan=plan)
    assert all(abs(after - 1) < 0.1 for after in result.after.values())
    assert ft.verify(model, result.plan) == []


@pytest.mark.parametrize("name", ["gelu", "convolutions", "resnet", "unet"])
def test_a_sample_alone_comes_near_what_a_batch_shows(name):
    build, batch, recipe = MODELS[name]
    model = build()
    ft.initialize(model, recipe, seed=0)
    result = ft.calibrate(model, batch, "analytic")
    assert all(abs(math.log10(scale.after / scale.target)) < 0.1 for scale in result.scales)


@pytest.mark.parametrize("stride", [1, 2])
def test_moments_count_padding_and_depthwise_channels(stride):
    model = nn.Sequential(
        nn.Conv2d(64, 128, 5, padding=2, stride=stride), nn.ReLU(),
        nn.Conv2d(128, 512, 3, padding=1, groups=128), nn.Flatten(), nn.Linear(512 * (8 // stride) ** 2, 3),
    )  # fmt: skip
    ft.initialize(model, "he_normal", seed=0)
    result = ft.calibrate(model, normal(16, 64, 8, 8), "analytic")
    assert all(abs(after - 1) < 0.05 for after in result.after.values())


def encoder(norm_first):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


def test_residual_branches_are_scaled_as_their_structure_asks():
    model = gpt2()
    plan = ft.initialize(model, "random_normal(0.0, 0.02)", seed=0)
    result = ft.calibrate(model, IDS, "residual_scaling", plan=plan)
    ends = [f"transformer.h.{k}.{end}.c_proj" for k in range(3) for end in ("attn", "mlp")]
    assert {scale.layer: scale.after / scale.before for scale in result.scales} == pytest.approx(
        dict.fromkeys(ends, 1 / math.sqrt(6)), rel=1e-6
    )
    assert all("(GPT-2)" in scale.why and scale.why in str(result) for scale in result.scales)
    assert ft.verify(model, result.plan) == []
    with pytest.raises(CalibrationError, match="scaled already"):
        ft.calibrate(model, IDS, "residual_scaling")
    model = resnet()
    ft.initialize(model, "he_normal", seed=0)
    result = ft.calibrate(model, normal(2, 3, 10, 10), "residual_scaling")
    assert result.after["2.second"] == 0
    assert result.after["2.first"] == pytest.approx(result.before["2.first"] / 2)  # 4 ** (-1 / 2)
    with pytest.raises(CalibrationError, match="starts at zero"):
        ft.calibrate(model, normal(2, 3, 10, 10), "residual_scaling")
    result = ft.calibrate(encoder(norm_first=True), normal(2, 5, 16), "residual_scaling")
    assert len(result.scales) == 6
    assert "layers.0.self_attn.out_proj.weight" in result.factors
    with pytest.raises(CalibrationError, match="post-LN"):
        ft.calibrate(encoder(norm_first=False), normal(2, 5, 16), "residual_scaling")
    with pytest.raises(CalibrationError, match="nothing to scale: no residual branches"):
        ft.calibrate(mlp(depth=2), None, "residual_scaling")


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
def test_every_jacobian_keeps_the_gradients_size(activation):
    model = mlp(activation, 8)
    ft.initialize(model, "lecun_normal", seed=0)
    result = ft.calibrate(model, normal(256, 64), "jacobian")
    assert len(result.after) == 7
    assert all(abs(chi - 1) <= 0.02 for chi in result.after.values())
    assert any(abs(chi - 1) > 0.1 for chi in result.before.values())


def test_a_head_of_zeros_starts_at_a_blind_guess():
    model, labels = mlp(depth=2), torch.arange(100) % 10
    result = ft.calibrate(model, normal(100, 64), "head", scale=0)
    loss = nn.functional.cross_entropy(model(normal(100, 64)) - model[-1].bias, labels)
    assert loss.item() == pytest.approx(math.log(10), abs=1e-6)
    shares = [1, 1, 1, 1, 1, 1, 1, 1, 1, 91]
    result = ft.calibrate(model, normal(100, 64), "head", scale=0, prior=shares)
    assert torch.allclose(model(normal(4, 64)).softmax(-1)[0], torch.tensor(shares) / 100.0)
    assert result.scales[0].parameters == ("4.weight", "4.bias")


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["lsuv", "weight_norm", "krahenbuhl_between", "analytic", "jacobian", "head"]
)
def test_undo_gives_the_old_bytes_back(method):
    model = mlp(depth=4)
    before = state(model)
    result = ft.calibrate(model, normal(128, 64), method)
    assert result.plan is None
    assert not same(state(model), before)
    result.undo()
    assert same(state(model), before)


def test_bad_calls_are_refused_before_anything_is_run():
    model, batch = mlp(depth=2), normal(16, 64)
    before = state(model)
    for call, kind, said in [
        (lambda: ft.calibrate(model, batch, "lsu"), UnknownNameError, "no method 'lsu'; did you mean lsuv"),
        (lambda: ft.calibrate(model, batch, targets=1), ArgumentError, "lsuv takes no `targets`"),
        (
            lambda: ft.calibrate(model, batch, target=0.0),
            ArgumentError,
            "`target` of .* must be a number > 0",
        ),
        (lambda: ft.calibrate(model, None), ArgumentError, "lsuv looks at a batch"),
        (
            lambda: ft.calibrate(model, batch, "head", prior=[1, 2]),
            ArgumentError,
            "`prior` must be 10 numbers",
        ),
        (
            lambda: ft.calibrate(model, batch, "head", scale=-1),
            ArgumentError,
            "`scale` must be a number >= 0",
        ),
        (lambda: ft.calibrate(resnet(), None, "analytic"), CalibrationError, "begins with Conv2d"),
        (lambda: ft.calibrate(model, normal(16, 3)), FaninError, "forward raised in '0'"),
    ]:
        with pytest.raises(kind, match=said):
            call()
    assert same(state(model), before)


def test_a_plan_of_other_values_is_refused():
    model = mlp(depth=2)
    plan = ft.initialize(model, "he_normal", seed=0)
    with torch.no_grad():
        model[2].weight[0, 0] = 3.0
    before = state(model)
    with pytest.raises(CalibrationError, match=r"`plan` has other values than '2.weight'"):
        ft.calibrate(model, normal(64, 64), plan=plan)
    assert same(state(model), before)


def test_narrow_dtypes_and_parametrizations_are_calibrated():
    model = mlp(depth=3).to(torch.bfloat16)
    plan = ft.initialize(model, "lecun_normal", seed=0)
    result = ft.calibrate(model, normal(256, 64).bfloat16(), plan=plan)
    assert all(abs(after - 1) < 0.02 for after in result.after.values())
    assert ft.verify(model, result.plan) == []
    model = mlp(depth=3)
    nn.utils.parametrizations.weight_norm(model[2])
    result = ft.calibrate(model, normal(256, 64))
    assert all(abs(after**2 - 1) < 1e-3 for after in result.after.values())
