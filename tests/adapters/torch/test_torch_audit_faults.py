"""Faults planted in PyTorch models, and models without: the audit says which, where, and nothing else.

``python benchmarks/audit_faults.py`` judges all of them over many seeds.
"""

import math

import audit_cases
import models
import pytest
import torch
import transformers
from audit_cases import Fault, Healthy
from torch import nn

import fanin
import fanin.torch as ft

VOCABULARY, LENGTH, CLASSES = 96, 24, 10


# --- batches and losses --------------------------------------------------------------------------


def features(seed, width=64, examples=64):
    return torch.randn(examples, width, generator=torch.Generator().manual_seed(seed))


def images(seed, size=32, examples=8):
    return torch.randn(examples, 3, size, size, generator=torch.Generator().manual_seed(seed))


def tokens(seed, examples=8):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (examples, LENGTH), generator=draws)


def classes(output, batch):
    return nn.functional.cross_entropy(output, torch.arange(len(output)) % output.shape[-1])


def text(seed):
    ids = tokens(seed)
    return {"input_ids": ids, "labels": ids}


def padded(seed):
    """Rows that begin with padding, whose embedding is zero, and stays zero in Llama."""
    ids = tokens(seed)
    ids[::2, :5] = SPECIAL["pad_token_id"]
    return {"input_ids": ids, "labels": ids}


# --- models --------------------------------------------------------------------------------------


def perceptron(depth=6, width=64, activation=nn.ReLU, recipe="he_normal", seed=0):
    layers = (nn.Sequential(nn.Linear(width, width), activation()) for _ in range(depth))
    model = nn.Sequential(*layers, nn.Linear(width, CLASSES))
    if recipe is not None:
        ft.initialize(model, recipe, seed=seed)
    return model


def on_features(model, seed, **options):
    return {"model": model, "batch": features(seed, model[0][0].in_features), "loss": classes, **options}


def convolutions(seed):
    model = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(inputs, 32, 3, padding=1), nn.ReLU()) for inputs in (3, 32, 32, 32)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )
    ft.initialize(model, "he_normal", seed=seed)
    return model


def gpt2(seed, n_layer=4):
    torch.manual_seed(seed)
    config = {"vocab_size": VOCABULARY, "n_embd": 64, "n_head": 4, "n_positions": LENGTH, "n_layer": n_layer}
    special = {"bos_token_id": 1, "eos_token_id": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**config, **special))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 32)
        self.lstm = nn.LSTM(32, 48, batch_first=True)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, x):
        return self.head(self.lstm(self.embedding(x))[0][:, -1])


def lstm(seed):
    model = Lstm()
    ft.initialize(model, "lstm", seed=seed)
    return model


class Branches(nn.Module):
    """A residual stream without norms; each branch is two layers."""

    def __init__(self, depth, scale=None):
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(64, 64) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(64, 64) for _ in range(depth))
        self.scales = None if scale is None else nn.Parameter(torch.full((depth,), scale))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x):
        for at, (inner, outer) in enumerate(zip(self.inner, self.outer, strict=True)):
            branch = outer(torch.relu(inner(x)))
            x = x + (branch if self.scales is None else self.scales[at] * branch)
        return self.head(x)


def branches(seed, depth=12, scale=None):
    torch.manual_seed(seed)
    model = Branches(depth, scale)
    for layer in (*model.inner, *model.outer, model.head):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


# --- faults --------------------------------------------------------------------------------------


def planted(build, plant, batch=features, loss=classes, **options):
    """A maker: build a model, do something to it without gradients, give it a batch."""

    def make(seed):
        model = build(seed)
        with torch.no_grad():
            plant(model)
        return {"model": model, "batch": batch(seed), "loss": loss, **options}

    return make


def he(seed, **options):
    return perceptron(seed=seed, **options)


def scaled(model):
    model[3][0].weight *= 20


def bottles(seed):
    """64 -> 512 -> 64, four times."""
    torch.manual_seed(seed)
    layers = [nn.Linear(*sizes) for sizes in ((64, 512), (512, 64)) * 4]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    pairs = [nn.Sequential(layer, nn.ReLU()) for layer in layers]
    return nn.Sequential(*pairs, nn.Linear(64, CLASSES))


def by_fan_out(model):
    nn.init.kaiming_normal_(model[4][0].weight, mode="fan_out")


def bfloat16(model):
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())


def unset(model):
    bits = torch.randint(-(2**31), 2**31 - 1, model[2][0].weight.shape)
    model[2][0].weight.copy_(bits.to(torch.int32).view(torch.float32).nan_to_num(0.0))


def broken_row(model):
    model.transformer.h[1].mlp.c_fc.weight[:, 5] = math.nan


def saturated_gate(model):
    width = model.lstm.hidden_size
    model.lstm.bias_ih_l0[:width] = 20.0  # the input gate stays open for good


def sharp_queries(model):
    model.transformer.h[2].attn.c_attn.weight[:, :64] *= 400


def twins(model):
    model[1][0].weight[32:] = model[1][0].weight[:32]
    model[1][0].bias[32:] = model[1][0].bias[:32]
    model[2][0].weight[:, 32:] = model[2][0].weight[:, :32]


FAULTS = [
    Fault("scaled layer", planted(he, scaled), "scaled-layer", "3.0.weight"),
    Fault(
        "scaled layer of GPT-2",
        planted(gpt2, lambda model: model.transformer.h[2].mlp.c_fc.weight.mul_(30), text, None),
        "scaled-layer",
        "transformer.h.2.mlp.c_fc.weight",
    ),
    Fault("dead bias", planted(convolutions, lambda model: model[1][0].bias.fill_(-9), images),
        "dead-bias", "1.0"),
    Fault("fan of the wrong side", planted(bottles, by_fan_out), "wrong-fan", "4.0.weight"),
    Fault("zero inner layer", planted(he, lambda model: model[2][0].weight.zero_()),
        "zero-layer", "2.0.weight"),
    Fault(
        "no gain for the activation",
        planted(lambda seed: he(seed, depth=30, recipe="lecun_normal"), lambda model: None),
        "wrong-gain",
        "0.0.weight",
    ),
    Fault("saturated gate", planted(lstm, saturated_gate, tokens), "saturated-gate", "lstm"),
    Fault(
        "cloned layer",
        planted(he, lambda model: model[4][0].weight.copy_(model[2][0].weight)),
        "repeated-tensor",
        "4.0.weight",
    ),
    Fault("twins", planted(he, twins), "symmetry", "1.0.weight"),
    Fault(
        "constant start",
        planted(he, lambda model: [nn.init.constant_(each, 0.02) for each in model.parameters()]),
        "symmetry",
        "0.0.weight",
    ),
    Fault(
        "branches that are not scaled",
        planted(lambda seed: branches(seed, 64), lambda model: None),
        "residual-scale",
        "outer",
    ),
    Fault("values of bfloat16", planted(he, bfloat16), "coarse-values", "0.0.weight"),
    Fault("nan row", planted(gpt2, broken_row, text, None), "not-finite", "transformer.h.1.mlp.c_fc.weight"),
    Fault("unset memory", planted(he, unset), "unset-memory", "2.0.weight"),
    Fault(
        "tanh with eight times its weights",
        planted(
            lambda seed: he(seed, activation=nn.Tanh, recipe="glorot_normal"),
            lambda model: [layer[0].weight.mul_(8) for layer in model[:-1]],
        ),
        "wrong-gain",
        "0.0.weight",
    ),
    Fault(
        "inputs in 0 .. 255",
        planted(
            lambda seed: he(seed, activation=nn.Tanh, recipe="glorot_normal"),
            lambda model: None,
            lambda seed: 255 * features(seed).sigmoid(),
        ),
        "saturated-units",
        "0.1",
    ),
    Fault("one sign", planted(he, lambda model: model[3][0].weight.abs_()), "balance", "3.0.weight"),
    Fault("sharp attention", planted(gpt2, sharp_queries, text, None),
        "scaled-layer", "transformer.h.2.attn"),
    Fault("sigmoids", planted(lambda seed: he(seed, depth=10, activation=nn.Sigmoid), lambda model: None),
        "backward-scale", "9.0"),
    Fault("rate", planted(he, lambda model: None, optimizer="adam 1"), "first-update", "0.0.weight"),
]  # fmt: skip


# --- healthy models ------------------------------------------------------------------------------


def architecture(name, batch):
    [found] = [each for each in models.MODELS if each.name == name]

    def make(seed):
        torch.manual_seed(seed)
        return {"model": found.build(), "batch": batch(seed)}

    return make


def pretrained(kind, config, batch, **options):
    def make(seed):
        torch.manual_seed(seed)
        return {
            "model": getattr(transformers, kind)(getattr(transformers, config)(**options)),
            "batch": batch(seed),
        }

    return make


TEXT = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4}
TEXT |= {"intermediate_size": 256, "max_position_embeddings": LENGTH + 2}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def critical_tanh(seed):
    """Schoenholz et al. 2017: at q* = 1/16, sigma_w^2 = 1.11538 and sigma_b^2 = 0.00024."""
    model = perceptron(100, activation=nn.Tanh, recipe=fanin.Orthogonal(gain=math.sqrt(1.11538)), seed=seed)
    with torch.no_grad():
        for layer in model[:-1]:
            layer[0].bias.normal_(std=math.sqrt(0.00024))
    return on_features(model, seed)


def small_head(seed):
    model = perceptron(seed=seed)
    nn.init.zeros_(model[-1].weight)
    return on_features(model, seed)


def rezero(seed):
    return {"model": branches(seed, scale=0.0), "batch": features(seed), "loss": classes}


def fixup(seed):
    model = branches(seed)
    with torch.no_grad():
        for inner, outer in zip(model.inner, model.outer, strict=True):
            inner.weight /= math.sqrt(12)
            outer.weight.zero_()
        model.head.weight.zero_()
    return {"model": model, "batch": features(seed), "loss": classes}


def started_by_torch(seed):
    torch.manual_seed(seed)
    return on_features(perceptron(3, recipe=None), seed)


HEALTHY = [
    Healthy("GPT-2", lambda seed: {"model": gpt2(seed), "batch": text(seed)}),
    Healthy("BERT", pretrained("BertForMaskedLM", "BertConfig", text, **TEXT)),
    Healthy("Llama", pretrained("LlamaForCausalLM", "LlamaConfig", text, **TEXT, **SPECIAL)),
    Healthy("Llama, padded", pretrained("LlamaForCausalLM", "LlamaConfig", padded, **TEXT, **SPECIAL)),
    Healthy("ViT", pretrained("ViTForImageClassification", "ViTConfig", lambda seed: {
        "pixel_values": images(seed)}, image_size=32, patch_size=8, hidden_size=64, intermediate_size=128,
        num_hidden_layers=4, num_attention_heads=4)),
    Healthy("ResNet with batch norm", architecture("resnet_basic", images)),
    Healthy("U-Net", architecture("unet", images)),
    Healthy("MobileNet", architecture("mobilenet", images)),
    Healthy("100 orthogonal tanh at the edge", critical_tanh),
    Healthy("He, 30 ReLU", lambda seed: on_features(perceptron(30, 256, seed=seed), seed)),
    Healthy("PyTorch's own, 3 layers", started_by_torch),
    Healthy("LSTM", lambda seed: {"model": lstm(seed), "batch": tokens(seed), "loss": classes}),
    Healthy("zero head", small_head),
    Healthy("ReZero", rezero),
    Healthy("Fixup", fixup),
]  # fmt: skip


@pytest.mark.parametrize("case", [*FAULTS, *HEALTHY], ids=lambda case: case.name)
def test_the_audit_is_right(case):
    verdict = audit_cases.judge(case, ft.audit)
    assert verdict.right, verdict
