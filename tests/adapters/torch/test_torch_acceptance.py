"""Starts that keep a function, and the last of what ports of LSUV break: see ``tests/test_acceptance.py``."""

import copy
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from torch import nn

import fanin.torch as ft
from fanin import HeNormal, Identity, Recipe, Scaled, Tile, recipes

WIDTH, BLOCKS, RANK = 32, 4, 4
LIMIT = 1e-5


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(*hidden):
    sizes = (WIDTH, *hidden)
    layers = [each for n, m in pairwise(sizes) for each in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


class Block(nn.Module):
    def __init__(self, scalar):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.alpha = nn.Parameter(torch.ones(())) if scalar else 1.0

    def forward(self, x):
        return x + self.alpha * self.conv2(torch.relu(self.conv1(x)))


class Residual(nn.Module):
    """Blocks of two convolutions, with ReZero's scalar or without."""

    def __init__(self, scalar):
        super().__init__()
        self.blocks = nn.Sequential(nn.Unflatten(1, (4, 4, 4)), *(Block(scalar) for _ in range(BLOCKS)))
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.streamed(x))

    def streamed(self, x):
        """The stream after all branches: while they put out zero, the input."""
        return self.blocks(x).flatten(1)


class LoRA(nn.Module):
    """Hu et al. 2022, arXiv:2106.09685: a branch of low rank beside a frozen layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a, self.lora_b = (
            nn.Linear(n, m, bias=False) for n, m in ((base.in_features, RANK), (RANK, base.out_features))
        )

    def forward(self, x):
        return self.base(x) + 2.0 * self.lora_b(self.lora_a(x))


def rezero():
    model = Residual(scalar=True)
    ft.initialize(model, recipes.rezero(kernel="he_normal", scales=["*.alpha"]), seed=0)
    return model, model.streamed, nn.Identity()


def fixup():
    model = Residual(scalar=False)
    ft.initialize(model, recipes.fixup(n_block=BLOCKS, branch_depth=2), seed=0)
    return model, model.streamed, nn.Identity()


def lora():
    model = mlp(WIDTH, WIDTH)
    ft.initialize(model, "he_normal", seed=0)
    before = copy.deepcopy(model)
    model[2] = LoRA(model[2])
    held = model[2].base
    ft.initialize(model[2], Recipe([("lora_b.weight", "zeros"), ("*", HeNormal())]), seed=1)
    held.load_state_dict(before[2].state_dict())
    return model, model, before


def deeper():
    """Chen et al. 2016, arXiv:1511.05641: a layer more that is the identity."""
    small, model = mlp(WIDTH), mlp(WIDTH, WIDTH)
    ft.initialize(small, "he_normal", seed=0)
    ft.initialize(model, Recipe([("2.weight", Identity()), ("*", HeNormal())]), seed=0)
    model[4].load_state_dict(small[2].state_dict())
    return model, model, small


def wider():
    """The same: units twice, what they send on halved; a little noise, so that copies come apart."""
    small, model = mlp(WIDTH), mlp(2 * WIDTH)
    ft.initialize(small, "he_normal", seed=0)
    twice = Recipe(
        [
            ("0.weight", Tile(HeNormal(), (2, 1))),
            ("2.weight", Scaled(Tile(HeNormal(), (1, 2)), 0.5)),
            ("*", "zeros"),
        ]
    )
    ft.initialize(model, twice, seed=0)
    with torch.no_grad():
        model[0].weight += 1e-7 * normal(*model[0].weight.shape)
    return model, model, small


@pytest.mark.parametrize("start", [rezero, fixup, lora, deeper, wider])
def test_a20_a_start_keeps_its_function(start):
    """Branches put out zero, Net2Net's layers what the smaller network did; the audit does not fail them."""
    model, function, before = start()
    x = normal(64, 64 if start in (rezero, fixup) else WIDTH)
    labels = torch.arange(64) % 10
    with torch.no_grad():
        expected = before(x)
        assert (function(x) - expected).abs().max() < LIMIT
    assert expected.std() > 0.1
    report = ft.audit(model, x, lambda output, batch: nn.functional.cross_entropy(output, labels))
    assert [str(each) for each in report.findings if each.level == "fail"] == []


# --- what ports of LSUV break, but for what test_torch_calibrate.py shows ------------------------


def tanh(depth, seed):
    model = nn.Sequential(
        *(each for _ in range(depth) for each in (nn.Linear(16, 16), nn.Tanh())), nn.Linear(16, 4)
    )
    ft.initialize(model, "lecun_normal", seed=seed)
    return model


def test_a13_two_calibrations_at_once_do_not_know_of_each_other():
    """Ports keep their state in one global dict."""
    batch = normal(64, 16)

    def factors(seed):
        return {name: each.item() for name, each in ft.calibrate(tanh(12, seed), batch).factors.items()}

    alone = [factors(seed) for seed in range(4)]
    assert len({each["0.weight"] for each in alone}) == 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(factors, range(4))) == alone


def test_a13_means_are_set_where_the_deviation_is_already_right():
    """Ports look at the mean only when the deviation is off."""
    model, batch = tanh(3, 0), normal(256, 16)
    ft.calibrate(model, batch, "weight_norm")
    with torch.no_grad():
        model[2].bias += 0.5
    result = ft.calibrate(model, batch, "weight_norm")
    assert result.factors["2.weight"] == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        assert model[:3](batch).mean(0).abs().max() < LIMIT
