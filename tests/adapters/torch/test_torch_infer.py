"""PyTorch models as published, and the recipe that their values show."""

import pytest
import torch
from inferred import recovered
from torch import nn


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=4),
        nn.ConvTranspose2d(16, 8, 3, stride=2),
        nn.Flatten(),
        nn.Linear(512, 128),
        nn.PReLU(),
        nn.Linear(128, 1),
    )


def encoder():
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    return nn.TransformerEncoder(layer, 3)


MODELS = {
    "convolutions": convolutions,
    "encoder": encoder,
    "lstm": lambda: nn.Sequential(nn.LSTM(32, 48, 2, bidirectional=True)),
    "gru": lambda: nn.Sequential(nn.GRU(32, 48)),
    "embedding": lambda: nn.Sequential(nn.Embedding(100, 16, padding_idx=3), nn.Linear(16, 4)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_torch_defaults_are_recovered(name, seed, tmp_path):
    torch.manual_seed(seed)
    found = recovered(MODELS[name](), "torch", tmp_path)
    assert len(found.recipe.rules) <= 9
    assert "torch default" in found.text


def test_gpt2_has_seven_rules(tmp_path):
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=12, n_embd=64, n_head=4, vocab_size=500, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    found = recovered(transformers.GPT2LMHeadModel(config), "torch", tmp_path)
    assert len(found.recipe.rules) == 7
    assert "# GPT-2's, into the residual stream: normal, std 0.004082\n# 24 tensors, std 0.0040" in found.text
    residual = next(rule for rule in found.recipe.rules if rule.match.name)
    assert residual.match.name == ("transformer.h.*.attn.c_proj.weight", "transformer.h.*.mlp.c_proj.weight")
    assert residual.init.stddev == pytest.approx(0.02 / 24**0.5)


def test_one_layer_that_was_scaled_is_named(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))
    with torch.no_grad():
        model[3].weight *= 5
    found = recovered(model, "torch", tmp_path)
    assert found.recipe.rules[0].match.name == ("3.weight",)
