"""Real architectures into changed ones: outputs that must be equal are, and each tensor is accounted for.

What is expected comes from the models themselves (their outputs, transformers' loading), not from the plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import models
import pytest
import torch
from models import (
    CLIP_TEXT,
    GPT,
    GROUPED,
    MOE,
    SEQ2SEQ,
    SMALL,
    SWIN,
    VISION,
    VOCABULARY,
    WAV2VEC2,
    image,
    pretrained,
    spectrogram,
    text,
    text_and_pixels,
    text_pair,
    waveform,
)
from torch import nn
from transformers import PreTrainedModel

import fanin.torch as ft
from fanin.plan import Plan

Pairs = list[tuple[torch.Tensor, torch.Tensor]]
WORDS = {"vocab_size": VOCABULARY + 5}
MEAN, DRAW = ("rows", {"new": "mean"}), ("rows", {"new": "draw"})


@dataclass(frozen=True)
class Case:
    """What a model becomes, and what both must compute alike.

    ``equal`` are bit for bit; ``near`` up to the order in which a product of another size is summed.
    ``fresh`` is the front of what the file lacks, ``unused`` that of what is used for nothing.
    """

    name: str
    old: Callable[[], nn.Module]
    new: Callable[[], nn.Module]
    equal: Callable[[Any, Any], Pairs]
    adapt: dict[str, Any] = field(default_factory=dict)
    rename: dict[str, str] = field(default_factory=dict)
    near: Callable[[Any, Any], Pairs] = lambda old, new: []
    fresh: str | tuple[str, ...] = "nothing"
    unused: str = "nothing"
    copied: range = range(0)  # blocks that are other blocks of the file


def base(model: PreTrainedModel, **batch: Any) -> torch.Tensor:
    """The features below the head."""
    return model.base_model(**batch).last_hidden_state


def features(**batch: Any) -> Callable[[Any, Any], Pairs]:
    return lambda old, new: [(base(old, **batch), base(new, **batch))]


def encoded(old: Any, new: Any) -> Pairs:
    """The features of an encoder before a decoder."""
    ids = text()["input_ids"]
    return [(old.encoder(ids).last_hidden_state, new.encoder(ids).last_hidden_state)]


def words(**batch: Any) -> Callable[[Any, Any], Pairs]:
    """Logits of the words that both know."""
    return lambda old, new: [(old(**batch).logits, new(**batch).logits[..., :VOCABULARY])]


def larger(old: Any, new: Any) -> Pairs:
    """transformers' own interpolation of positions, for an image of another size."""
    pixels = torch.linspace(-1, 1, 2 * 3 * 48 * 48).cos().reshape(2, 3, 48, 48)
    return [(base(old, pixel_values=pixels, interpolate_pos_encoding=True), base(new, pixel_values=pixels))]


def doubled(old: Any, new: Any) -> Pairs:
    """An image given twice, to a model of twice the channels."""
    return [(old(image())[:, [4, 2]], new(torch.cat([image(), image()], 1))[:, :2])]


def modes(old: Any, new: Any) -> Pairs:
    """What a model of text and images says of images, and of text."""
    batch = text_and_pixels()
    one, two = old(**batch), new(**batch)
    return [(one.image_embeds, two.image_embeds), (one.text_embeds, two.text_embeds)]


def copied(old: Any, new: Any) -> Pairs:
    """Each new layer's weights are those of the layer it began as."""
    layers = new.model.layers
    return [
        (mine, theirs)
        for at, layer in enumerate(layers)
        for mine, theirs in zip(old.model.layers[at // 2].parameters(), layer.parameters(), strict=True)
    ]


def selected(old: Any, new: Any) -> Pairs:
    """Every other unit of a model of twice the width."""
    return [
        (
            theirs[
                tuple(slice(None, None, 1 + (a != b)) for a, b in zip(theirs.shape, mine.shape, strict=True))
            ],
            mine,
        )
        for theirs, mine in zip(old.parameters(), new.parameters(), strict=True)
    ]


def wide(width: int) -> Callable[[], nn.Module]:
    options = SMALL | {"hidden_size": width, "intermediate_size": 2 * width}
    return pretrained("ElectraForPreTraining", "ElectraConfig", **options, embedding_size=width)


QWEN = GROUPED | {"num_experts": 4, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
WHISPER = SEQ2SEQ | {"num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16}
CLIP = {"vision_config": VISION, "projection_dim": 12}
# Names that transformers' files have had before, of what its modules call otherwise.
EXPERTS = {
    "*.block_sparse_moe.gate.weight": "*.mlp.gate.weight",
    "*.block_sparse_moe.experts.*.w1.weight": "*.mlp.experts.*.gate_proj.weight",
    "*.block_sparse_moe.experts.*.w2.weight": "*.mlp.experts.*.down_proj.weight",
    "*.block_sparse_moe.experts.*.w3.weight": "*.mlp.experts.*.up_proj.weight",
}

PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
VIT = {
    **{
        f"*.encoder.layer.*.attention.attention.{a}.*": f"*.layers.*.attention.{b}.*"
        for a, b in PROJECTIONS.items()
    },
    "*.encoder.layer.*.attention.output.dense.*": "*.layers.*.attention.o_proj.*",
    "*.encoder.layer.*.intermediate.dense.*": "*.layers.*.mlp.fc1.*",
    "*.encoder.layer.*.output.dense.*": "*.layers.*.mlp.fc2.*",
    "vit.encoder.layer": "vit.layers",
}
SWIN_NAMES = {
    **{f"*.attention.self.{a}.*": f"*.attention.{b}.*" for a, b in PROJECTIONS.items()},
    "*.self.relative_position_bias_table": "*.relative_position_bias.relative_position_bias_table",
    "*.attention.output.dense.*": "*.attention.o_proj.*",
    "*.intermediate.dense.*": "*.mlp.fc1.*",
    "*.output.dense.*": "*.mlp.fc2.*",
}

CASES = [
    Case(
        "bert",
        pretrained("BertForMaskedLM", "BertConfig", **SMALL),
        pretrained("BertForTokenClassification", "BertConfig", **SMALL | WORDS, num_labels=5),
        features(**text()),
        {"*word_embeddings*": MEAN},
        fresh="classifier.",
        unused="cls.",
    ),
    Case(
        "gpt2",
        pretrained("GPT2LMHeadModel", "GPT2Config", **GPT),
        pretrained("GPT2LMHeadModel", "GPT2Config", **GPT | WORDS),
        features(**text()),
        {"*wte*": MEAN},
        near=words(**text()),
    ),
    Case(
        "llama",
        pretrained("LlamaForCausalLM", "LlamaConfig", **GROUPED),
        pretrained("LlamaForCausalLM", "LlamaConfig", **GROUPED | WORDS),
        features(**text()),
        {"*embed_tokens*": MEAN, "lm_head.*": DRAW},
        near=words(**text()),
    ),
    Case(
        "llama, deeper",
        pretrained("LlamaForCausalLM", "LlamaConfig", **GROUPED),
        pretrained("LlamaForCausalLM", "LlamaConfig", **GROUPED | {"num_hidden_layers": 4}),
        copied,
        {"model.layers.*": "stack"},
        copied=range(1, 4),
    ),
    Case(
        "electra, narrower",
        wide(32),
        wide(16),
        selected,
        {"*": "select"},
    ),
    Case(
        "mixtral",
        pretrained("MixtralForCausalLM", "MixtralConfig", **MOE, head_dim=4),
        pretrained("MixtralForSequenceClassification", "MixtralConfig", **MOE, head_dim=4, num_labels=3),
        features(**text()),
        rename=EXPERTS,
        fresh="score.",
        unused="lm_head.",
    ),
    Case(
        "qwen2 with experts",
        pretrained("Qwen2MoeForCausalLM", "Qwen2MoeConfig", **QWEN),
        pretrained("Qwen2MoeForCausalLM", "Qwen2MoeConfig", **QWEN | WORDS),
        features(**text()),
        {"*embed_tokens*": MEAN, "lm_head.*": MEAN},
        near=words(**text()),
    ),
    Case(
        "t5",
        pretrained("T5ForConditionalGeneration", "T5Config", vocab_size=VOCABULARY, **T5),
        pretrained("T5ForConditionalGeneration", "T5Config", **T5 | WORDS),
        encoded,
        {"shared*": MEAN},
        near=words(**text_pair()),
    ),
    Case(
        "vit",
        pretrained("ViTForImageClassification", "ViTConfig", **VISION),
        pretrained("ViTForImageClassification", "ViTConfig", **VISION | {"image_size": 48}, num_labels=7),
        lambda old, new: [(old.vit.embeddings.cls_token, new.vit.embeddings.cls_token)],
        {"*position_embeddings": ("interpolate", {"antialias": False}), "classifier.*": "draw"},
        VIT,
        near=larger,
        fresh="classifier.",
        unused="classifier.",
    ),
    Case(
        "swin",
        pretrained("SwinForImageClassification", "SwinConfig", **SWIN),
        pretrained("SwinForImageClassification", "SwinConfig", **SWIN, num_labels=7),
        features(pixel_values=image()),
        {"classifier.*": DRAW},
        SWIN_NAMES,
    ),
    Case(
        "clip",
        pretrained("CLIPModel", "CLIPConfig", **CLIP, text_config=CLIP_TEXT),
        pretrained("CLIPModel", "CLIPConfig", **CLIP, text_config=CLIP_TEXT | WORDS),
        modes,
        {"*token_embedding*": MEAN},
    ),
    Case(
        "whisper",
        pretrained("WhisperForConditionalGeneration", "WhisperConfig", **WHISPER),
        pretrained("WhisperForConditionalGeneration", "WhisperConfig", **WHISPER | WORDS),
        features(**spectrogram()),
        {"*decoder.embed_tokens*": MEAN},
        near=words(**spectrogram()),
    ),
    Case(
        "deberta",
        pretrained("DebertaV2ForMaskedLM", "DebertaV2Config", **SMALL),
        pretrained("DebertaV2ForSequenceClassification", "DebertaV2Config", **SMALL, num_labels=3),
        features(**text()),
        fresh=("pooler.", "classifier."),
        unused="cls.",
    ),
    Case(
        "resnet",
        lambda: models.ResNet(models.BasicBlock),
        lambda: changed_resnet(6, 12),
        lambda old, new: list(zip(old.layer2.buffers(), new.layer2.buffers(), strict=True)),
        {"conv1.*": "channels", "fc.*": ("classes", {"take": [4, 2, *[-1] * 10]})},
        near=doubled,
    ),
]  # fmt: skip


def changed_resnet(channels: int, classes: int) -> nn.Module:
    model = models.ResNet(models.BasicBlock)
    model.conv1 = nn.Conv2d(channels, 8, 7, 2, 3, bias=False)
    model.fc = nn.Linear(16, classes)
    return model


def spoiled(build: Callable[[], nn.Module]) -> nn.Module:
    """A model in which nothing has a value."""
    model = build().eval()
    with torch.no_grad():
        for tensor in model.state_dict(keep_vars=True).values():
            tensor.fill_(float("nan") if tensor.is_floating_point() else -7)
    return model


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_changed_model_computes_what_the_old_one_did(tmp_path, case):
    torch.manual_seed(0)
    old, new = case.old().eval(), spoiled(case.new)
    with torch.no_grad():  # layers begin alike, and some of them at zero
        for tensor in old.state_dict(keep_vars=True).values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.1)
    if isinstance(old, PreTrainedModel):
        old.save_pretrained(tmp_path)
    else:
        torch.save(old.state_dict(), tmp_path / "old.pt")

    plan = ft.transfer(new, tmp_path, "he_normal", seed=0, adapt=case.adapt, rename=case.rename)

    state = new.state_dict()
    assert {path for tensor in plan.tensors for path in (tensor.path, *tensor.ties)} == {*state}
    assert [name for name, value in state.items() if value.isnan().any() or (value == -7).any()] == []
    drawn = {row.path for row in plan.rows if row.source in ("draw", "constant", "keep")}
    assert all(path.startswith(case.fresh) for path in drawn)
    assert all(key.startswith(case.unused) for key in plan.unexpected)
    assert ft.verify(new, plan) == []
    again = Plan.from_json(plan.to_json())
    assert again.diff(plan) == []
    assert ft.verify(new, again) == []
    with torch.no_grad():
        for mine, theirs in case.equal(old, new):
            assert torch.equal(mine, theirs)
        for mine, theirs in case.near(old, new):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    if isinstance(new, PreTrainedModel):
        theirs, said = type(new).from_pretrained(
            tmp_path, config=new.config, ignore_mismatched_sizes=True, output_loading_info=True
        )
        ties = {tensor.path: {tensor.path, *tensor.ties} for tensor in plan.tensors}
        rows = (row for row in plan.rows if row.source != "taken" or row.block in case.copied)
        changed = {name for row in rows for name in ties[row.path]}
        left = {*said["missing_keys"], *(name for name, *_ in said["mismatched_keys"])}
        assert left <= changed
        for name in state.keys() - changed - left:
            assert torch.equal(state[name], theirs.state_dict()[name])


def test_a_weight_that_is_computed_keeps_what_it_is_computed_from(tmp_path):
    build = partial(pretrained, "Wav2Vec2ForCTC", "Wav2Vec2Config")
    old, new = build(**WAV2VEC2)().eval(), spoiled(build(**WAV2VEC2 | {"vocab_size": 30}))
    old.save_pretrained(tmp_path)
    plan = ft.transfer(new, tmp_path, adapt={"lm_head.*": ("classes", {"take": range(10, 40)})})
    assert plan.unexpected == ()
    assert ft.verify(new, plan) == []
    assert ft.verify(new, Plan.from_json(plan.to_json())) == []
    with torch.no_grad():
        assert torch.equal(base(new, **waveform()), base(old, **waveform()))
        torch.testing.assert_close(new(**waveform()).logits, old(**waveform()).logits[..., 10:40])
