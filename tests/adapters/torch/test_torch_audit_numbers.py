"""Published and derived numbers, met by the audit of a PyTorch model."""

import math

import pytest
import torch
from torch import nn

import fanin.torch as ft


@pytest.fixture(autouse=True)
def one_start():
    torch.manual_seed(0)


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def classes(output, batch):
    return nn.functional.cross_entropy(output, torch.arange(len(output)) % output.shape[-1])


def said(report):
    """What is wrong, without what is only worth knowing."""
    return [finding for finding in report.findings if finding.level != "info"]


class Times(nn.Module):
    """A step whose gradient is that of the input."""

    def forward(self, x):
        return x * 1.0


def test_scales_of_a_perceptron_are_those_of_unit_scalings_guide():
    """Graphcore unit-scaling, user guide: d -> 4 d -> d with GELU, d = 1024, 256 examples."""
    d = 1024
    model = nn.Sequential(Times(), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
    trace = ft.trace(model, draws(256, d))
    after = [step.after.std for step in trace.operations]
    backward = [step.backward.rms for step in trace.operations]
    assert after == pytest.approx([1, 0.5776, 0.3227, 0.1980], rel=0.02)
    assert backward == pytest.approx([0.2046, 0.1771, 0.2887, 1], rel=0.02)
    assert [trace[f"{at}.weight"].values.rms for at in (1, 3)] == pytest.approx([0.01804, 0.00902], rel=0.02)


def test_selu_with_pytorchs_gain_has_its_fixed_point():
    """pytorch#50664: 100 layers with gain 3/4 keep a standard deviation near 0.2, and gradients too."""
    depth, width = 100, 512
    layers = [(nn.Linear(width, width, bias=False), nn.SELU()) for _ in range(depth)]
    for linear, _ in layers:
        nn.init.kaiming_normal_(linear.weight, nonlinearity="selu")
    model = nn.Sequential(*(each for layer in layers for each in layer))
    trace = ft.trace(model, draws(64, width))
    stds = [step.after.std for step in trace.operations if step.kind == "activation"]
    assert stds[-20:] == pytest.approx([0.1996] * 20, abs=0.02)
    gradients = [step.backward.rms for step in trace.operations if step.kind == "dense"]
    low, high = 10, 90  # past the start; the log of r has a variance of 5 / width for each layer
    chi = (gradients[low] / gradients[high]) ** (2 / (high - low))
    assert chi == pytest.approx(1.0037, abs=4 * math.sqrt(5 / width / (high - low)))


@pytest.mark.parametrize(("factor", "tolerance"), [(0.0, 1e-6), (0.01, 0.01)])
def test_a_small_head_starts_at_a_blind_guess(factor, tolerance):
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    ft.initialize(model, "he_normal", seed=0)
    with torch.no_grad():
        model[2].weight.mul_(factor)
        model[2].bias.mul_(factor)
    report = ft.audit(model, draws(256, 64), classes)
    assert report.trace.loss == pytest.approx(math.log(10), rel=tolerance)
    assert said(report) == []


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(512, 700), nn.Conv2d(64, 96, 3), nn.Conv1d(256, 128, 3), nn.Linear(2048, 64)],
    ids=lambda layer: type(layer).__name__,
)
def test_pytorchs_layers_start_with_a_third(layer):
    shape = {"Linear": (2, 512), "Conv2d": (2, 64, 4, 4), "Conv1d": (2, 256, 4)}[type(layer).__name__]
    batch = draws(2, layer.in_features) if isinstance(layer, nn.Linear) else draws(*shape)
    assert ft.trace(layer, batch)["weight"].weight_variance == pytest.approx(1 / 3, rel=0.02)


# --- starts that are meant to be zero ------------------------------------------------------------


class Branches(nn.Module):
    """Residual branches, each multiplied by a number of its own."""

    def __init__(self, depth, scale):
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
        self.scales = nn.Parameter(torch.full((depth,), scale))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        for inner, outer, scale in zip(self.inner, self.outer, self.scales, strict=True):
            x = x + scale * outer(torch.relu(inner(x)))
        return self.head(x)


def rezero():
    model = Branches(8, 0.0)
    for layer in model.inner:
        nn.init.kaiming_normal_(layer.weight)
    return model


def fixup():
    """Zhang et al. 2019: the last layer of each branch and the head are zero, others He over sqrt(depth)."""
    model = Branches(8, 1.0)
    for inner, outer in zip(model.inner, model.outer, strict=True):
        nn.init.normal_(inner.weight, std=math.sqrt(2 / 32 / 8))
        nn.init.zeros_(outer.weight)
    for layer in (model.head, *model.inner, *model.outer):
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(model.head.weight)
    return model


class Lora(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(32, 32).requires_grad_(False)
        self.a, self.b = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        return self.frozen(x) + 2.0 * self.b(self.a(x))


def lora():
    return nn.Sequential(Lora(), nn.ReLU(), Lora(), nn.ReLU(), nn.Linear(32, 10))


def deeper():
    """Chen et al. 2016: a layer more that is the identity."""
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    ft.initialize(model, "he_normal", seed=0)
    nn.init.eye_(model[2].weight)
    return model


def wider():
    """Chen et al. 2016: units copied, what they send on halved, with a little noise against ties."""
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    ft.initialize(model, "he_normal", seed=0)
    with torch.no_grad():
        noise = torch.randn(32, 32) * 1e-3
        model[0].weight[32:] = model[0].weight[:32] + noise
        model[2].weight[:, 32:] = model[2].weight[:, :32]
        model[2].weight *= 0.5
    return model


@pytest.mark.parametrize("make", [rezero, fixup, lora, deeper, wider])
@pytest.mark.parametrize("loss", [classes, None])
def test_starts_that_keep_a_function_are_not_failed(make, loss):
    assert said(ft.audit(make(), draws(64, 32), loss)) == []


# --- symmetry ------------------------------------------------------------------------------------


def test_a_constant_start_has_one_unit_and_fails():
    model = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.05)
    report = ft.audit(model, draws(64, 32), classes)
    assert [report.trace[f"{at}.weight"].effective_width for at in (0, 2)] == [1, 1]
    first = report.findings[0]
    assert (first.code, first.level, first.at[0]) == ("symmetry", "fail", "0.weight")
    # Nothing parts them: a hundred steps later they are one unit still.
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        classes(model(draws(64, 32)), None).backward()
        optimizer.step()
    assert [ft.trace(model, draws(64, 32), classes)[f"{at}.weight"].effective_width for at in (0, 2)] == [
        1,
        1,
    ]


def test_a_duplicated_unit_is_one_less():
    model = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 10))
    with torch.no_grad():
        model[0].weight[7], model[0].bias[7] = model[0].weight[2], model[0].bias[2]
        model[2].weight[:, 7] = model[2].weight[:, 2]
    report = ft.audit(model, draws(64, 32), classes)
    assert report.trace["0.weight"].effective_width == 15
    assert any(finding.code == "symmetry" and "0.weight" in finding.at for finding in said(report))


# --- cause first ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "decades"),
    [("he_normal", 0.0), ("lecun_normal", math.log10(0.5) / 2), ("glorot_normal", -0.1505)],
)
def test_thirty_relu_layers_drift_as_theory_says(recipe, decades):
    model = nn.Sequential(*(nn.Sequential(nn.Linear(128, 128), nn.ReLU()) for _ in range(30)))
    ft.initialize(model, recipe, seed=0)
    report = ft.audit(model, draws(64, 128))
    sizes = [step.after.rms for step in report.trace.operations if step.kind == "dense"]
    drift = math.log10(sizes[-1] / sizes[0]) / 29
    assert drift == pytest.approx(decades, abs=4 * math.sqrt(5 / 128 / 29) / math.log(100))
    assert report.ok == (recipe == "he_normal")
