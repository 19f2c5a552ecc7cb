"""Real architectures: every parameter known, its fans right, its numbers those of its name alone.

Expectations are written down from the layers' own code and configs, or are transformers' own way of taking a
tensor apart; none comes from the plan.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import models_page
import numpy as np
import pytest
import torch
import transformers
from models import GPT, MODELS, TRANSFORMERS, pretrained
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

import fanin
import fanin.torch as ft
from fanin.fans import Axes, Fans
from fanin.plan import Plan
from fanin.recipe import Recipe, Rule, role

NAMES = [architecture.name for architecture in MODELS]
BY_NAME = {architecture.name: architecture for architecture in MODELS}
BIASED = Rule(role("bias"), "lecun_normal", optional=True)  # biases are drawn, too
DRAWN = Recipe([BIASED, ("*", "lecun_normal")])
each = pytest.mark.parametrize("name", NAMES)


@cache
def looked_at(name: str) -> nn.Module:
    """A model that no test changes."""
    return BY_NAME[name].build().eval()


@cache
def plan_of(name: str) -> Plan:
    return ft.plan(looked_at(name), "he_normal", seed=0)


@cache
def initialized(name: str) -> dict[tuple[str, ...], bytes]:
    return values(copy.deepcopy(looked_at(name)))


def values(model: nn.Module, seed: int = 0) -> dict[tuple[str, ...], bytes]:
    """A model's tensors after initialization, by the canonical names of what they hold."""
    plan = ft.initialize(model, DRAWN, seed=seed)
    return {
        tuple(piece.name for piece in tensor.pieces): bytes_at(model, tensor.path) for tensor in plan.tensors
    }


def bytes_at(model: nn.Module, path: str) -> bytes:
    """A parameter's bytes, or those of the tensors that it is computed from."""
    parent, _, attribute = path.rpartition(".")
    module: Any = model.get_submodule(parent)
    computed = parametrize.is_parametrized(module, attribute)
    stored = module.parametrizations[attribute].parameters() if computed else [getattr(module, attribute)]
    return b"".join(tensor.detach().numpy().tobytes() for tensor in stored)


def tensors_in(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, dict | tuple):
        for value in output.values() if isinstance(output, dict) else output:
            yield from tensors_in(value)


# --- completeness --------------------------------------------------------------------------------


@each
def test_every_parameter_is_known_and_counted_once(name: str) -> None:
    model, plan = looked_at(name), plan_of(name)
    assert [row.name for row in plan.rows if row.role == "unknown"] == []
    elements = sum(math.prod(row.shape) for row in plan.rows)
    parametrized = [m for m in model.modules() if parametrize.is_parametrized(m)]
    computed = sum(getattr(m, what).numel() for m in parametrized for what in m.parametrizations)
    stored = sum(p.numel() for m in parametrized for p in m.parametrizations.parameters())
    assert elements == sum(parameter.numel() for parameter in model.parameters()) - stored + computed


@each
def test_initialize_sets_every_element_and_the_model_runs(name: str) -> None:
    model = BY_NAME[name].build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    ft.initialize(model, "he_normal", seed=0)
    assert [path for path, parameter in model.named_parameters() if parameter.isnan().any()] == []
    with torch.no_grad():
        outputs = [t for t in tensors_in(model(**BY_NAME[name].batch())) if t.is_floating_point()]
    assert outputs
    assert all(bool(output.isfinite().all()) for output in outputs)


@each
def test_a_padding_row_is_zero_and_the_others_are_not(name: str) -> None:
    model = copy.deepcopy(looked_at(name))
    ft.initialize(model, "he_normal", seed=0)
    for module in model.modules():
        if (
            isinstance(module, nn.Embedding)
            and module.padding_idx is not None
            and module.weight.requires_grad
        ):
            zero = ~module.weight.detach().any(dim=1)
            assert zero.nonzero().ravel().tolist() == [module.padding_idx % len(zero)]


# --- roles and fans ------------------------------------------------------------------------------

# model, parameter, role, fan_in, fan_out
EXPECTED = """
gpt2 transformer.wte.weight embedding 1 16
gpt2 transformer.wpe.weight position 1 16
gpt2 transformer.h.0.attn.q_proj.weight kernel 16 16
gpt2 transformer.h.1.attn.v_proj.bias bias 16 16
gpt2 transformer.h.0.attn.c_proj.weight kernel 16 16
gpt2 transformer.h.0.mlp.c_fc.weight kernel 16 64
gpt2 transformer.h.0.mlp.c_fc.bias bias 16 64
gpt2 transformer.h.0.mlp.c_proj.weight kernel 64 16
gpt_neo transformer.h.1.attn.attention.k_proj.weight kernel 16 16
gpt_neo transformer.wpe.weight position 1 16
gpt_neox gpt_neox.layers.1.attention.k_proj.weight kernel 16 16
gpt_neox gpt_neox.layers.1.attention.k_proj.bias bias 16 16
gpt_neox lm_head.weight head 16 48
gptj transformer.h.0.mlp.fc_in.weight kernel 16 64
gptj lm_head.bias bias 16 48
gpt_bigcode transformer.h.0.attn.q_proj.weight kernel 16 16
gpt_bigcode transformer.h.0.attn.k_proj.weight kernel 16 4
gpt_bigcode transformer.h.0.attn.v_proj.bias bias 16 4
gpt_bigcode_heads transformer.h.0.attn.v_proj.weight kernel 16 16
llama model.embed_tokens.weight embedding 1 16
llama model.layers.0.self_attn.q_proj.weight kernel 16 16
llama model.layers.0.self_attn.k_proj.weight kernel 16 8
llama model.layers.1.mlp.gate_proj.weight kernel 16 24
llama model.layers.1.mlp.down_proj.weight kernel 24 16
llama model.norm.weight norm_scale - -
mixtral model.layers.0.mlp.gate.weight kernel 16 3
mixtral model.layers.0.mlp.experts.2.gate_proj.weight kernel 16 24
mixtral model.layers.0.mlp.experts.0.up_proj.weight kernel 16 24
mixtral model.layers.1.mlp.experts.1.down_proj.weight kernel 24 16
qwen2 model.layers.0.self_attn.k_proj.bias bias 16 8
qwen2_moe model.layers.0.mlp.experts.3.down_proj.weight kernel 12 16
qwen2_moe model.layers.0.mlp.shared_expert.up_proj.weight kernel 16 20
qwen2_moe model.layers.0.mlp.shared_expert_gate.weight kernel 16 1
qwen3 model.layers.0.self_attn.q_norm.weight norm_scale - -
qwen3_next model.norm.weight norm_offset - -
qwen3_next model.layers.0.linear_attn.norm.weight norm_scale - -
qwen3_next model.layers.0.linear_attn.q_proj.weight kernel 16 8
qwen3_next model.layers.0.linear_attn.v_proj.weight kernel 16 16
qwen3_next model.layers.0.linear_attn.in_proj_a.weight kernel 16 4
qwen3_next model.layers.0.linear_attn.conv1d.weight kernel 4 4
qwen3_next model.layers.0.linear_attn.A_log dynamics - -
qwen3_next model.layers.1.self_attn.gate_proj.weight kernel 16 16
qwen3_5 model.layers.0.linear_attn.k_proj.weight kernel 16 8
gemma model.norm.weight norm_offset - -
gemma2 model.layers.0.pre_feedforward_layernorm.weight norm_offset - -
gemma3 model.layers.0.self_attn.k_norm.weight norm_offset - -
phi3 model.layers.0.self_attn.q_proj.weight kernel 16 16
phi3 model.layers.0.self_attn.v_proj.weight kernel 16 8
phi3 model.layers.0.mlp.gate_proj.weight kernel 16 24
falcon transformer.h.0.self_attention.q_proj.weight kernel 16 16
falcon transformer.h.0.self_attention.k_proj.weight kernel 16 8
falcon_multi_query transformer.h.0.self_attention.v_proj.weight kernel 16 4
falcon_heads transformer.h.0.self_attention.v_proj.bias bias 16 16
bloom transformer.h.0.self_attention.k_proj.weight kernel 16 16
bloom transformer.word_embeddings_layernorm.bias norm_bias - -
opt model.decoder.project_in.weight kernel 8 16
opt model.decoder.embed_positions.weight position 1 16
mpt transformer.blocks.0.attn.k_proj.weight kernel 16 16
deepseek_v2 model.layers.0.self_attn.kv_a_proj_with_mqa.weight kernel 16 12
deepseek_v3 model.layers.1.mlp.gate.weight kernel 16 4
deepseek_v3 model.layers.1.mlp.experts.3.up_proj.weight kernel 16 12
deepseek_v3 model.layers.0.self_attn.q_b_proj.weight kernel 8 32
olmo2 model.layers.0.post_feedforward_layernorm.weight norm_scale - -
cohere model.layers.0.self_attn.q_norm.weight norm_scale 4 4
llama4 model.layers.0.feed_forward.experts.1.gate_proj.weight kernel 16 24
llama4 model.layers.0.feed_forward.experts.1.down_proj.weight kernel 24 16
llama4 model.layers.0.feed_forward.router.weight kernel 16 3
gpt_oss model.layers.0.mlp.experts.2.up_proj.weight kernel 16 24
gpt_oss model.layers.0.mlp.experts.2.up_proj.bias bias 16 24
gpt_oss model.layers.0.mlp.experts.0.down_proj.bias bias 24 16
gpt_oss model.layers.0.mlp.router.bias bias 16 3
gpt_oss model.layers.0.self_attn.sinks position - -
mamba backbone.layers.0.mixer.in_proj.weight kernel 16 64
mamba backbone.layers.0.mixer.conv1d.weight kernel 3 3
mamba backbone.layers.0.mixer.dt_proj.weight kernel 1 32
mamba backbone.layers.0.mixer.dt_proj.bias dynamics - -
mamba backbone.layers.0.mixer.D scale - -
mamba2 backbone.layers.0.mixer.in_proj.weight kernel 16 84
mamba2 backbone.layers.0.mixer.dt_bias dynamics - -
rwkv rwkv.blocks.0.attention.time_decay dynamics - -
rwkv rwkv.blocks.0.feed_forward.value.weight kernel 64 16
bert bert.embeddings.token_type_embeddings.weight embedding 1 16
bert bert.embeddings.position_embeddings.weight position 1 16
bert bert.encoder.layer.0.attention.self.query.weight kernel 16 16
bert bert.encoder.layer.0.intermediate.dense.weight kernel 16 24
bert bert.encoder.layer.0.output.dense.bias bias 24 16
bert cls.predictions.bias bias 16 48
roberta roberta.embeddings.position_embeddings.weight position 1 16
roberta lm_head.bias bias 16 48
albert albert.encoder.embedding_hidden_mapping_in.weight kernel 8 16
albert predictions.bias bias 8 48
electra electra.embeddings_project.weight kernel 8 16
distilbert distilbert.embeddings.position_embeddings.weight position 1 16
distilbert distilbert.transformer.layer.0.ffn.lin1.weight kernel 16 24
deberta_v2 deberta.encoder.rel_embeddings.weight position 1 16
deberta_v2 deberta.encoder.conv.conv.weight kernel 48 48
modernbert model.layers.0.attn.v_proj.weight kernel 16 16
modernbert model.layers.0.mlp.up_proj.weight kernel 16 24
t5 encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight position 1 4
t5 decoder.block.1.layer.1.EncDecAttention.k.weight kernel 16 16
t5 decoder.block.0.layer.2.DenseReluDense.wi_1.weight kernel 16 24
t5 decoder.final_layer_norm.weight norm_scale - -
bart model.encoder.embed_positions.weight position 1 16
bart model.decoder.layers.0.encoder_attn.v_proj.weight kernel 16 16
mbart model.decoder.layers.0.fc2.weight kernel 24 16
pegasus model.encoder.embed_positions.weight position 1 16
vit vit.embeddings.cls_token position 1 16
vit vit.embeddings.position_embeddings position 1 16
vit vit.embeddings.patch_embeddings.projection.weight kernel 192 1024
deit deit.embeddings.distillation_token position 1 16
beit beit.layers.0.lambda_1 scale - -
beit beit.layers.0.relative_position_bias.relative_position_bias_table position 1 4
dinov2 dinov2.encoder.layer.0.layer_scale2.lambda1 scale - -
dinov2 dinov2.embeddings.mask_token position 1 16
swin swin.embeddings.position_embeddings position 1 8
convnext convnext.encoder.stages.0.layers.0.dwconv.weight kernel 49 49
convnext convnext.encoder.stages.2.layers.0.pwconv1.weight kernel 16 64
convnext convnext.encoder.stages.0.layers.0.layer_scale_parameter scale - -
convnextv2 convnextv2.encoder.stages.0.layers.0.grn.weight norm_offset 32 32
convnextv2 convnextv2.encoder.stages.0.layers.0.grn.bias norm_bias 32 32
clip logit_scale scale - -
clip vision_model.embeddings.class_embedding position - -
clip vision_model.embeddings.position_embedding.weight position 1 16
clip text_projection.weight kernel 16 12
siglip logit_bias bias - -
siglip vision_model.head.probe position 1 16
siglip vision_model.head.attention.k_proj.weight kernel 16 16
whisper model.encoder.embed_positions.weight position 1 16
whisper model.decoder.embed_positions.weight position 1 16
whisper model.encoder.conv1.weight kernel 24 48
wav2vec2 wav2vec2.masked_spec_embed position - -
wav2vec2 wav2vec2.encoder.pos_conv_embed.conv.weight kernel 32 32
wav2vec2 wav2vec2.feature_extractor.conv_layers.0.conv.weight kernel 10 80
resnet_basic conv1.weight kernel 147 392
resnet_basic layer2.0.downsample.weight kernel 8 16
resnet_basic layer1.0.bn1.weight norm_scale - -
resnet_bottleneck layer1.0.conv2.weight kernel 18 18
unet up.weight kernel 16 32
unet smooth.weight kernel 18 18
unet down1.1.bias norm_bias - -
lstm_language_model embedding.weight embedding 1 8
lstm_language_model lstm.weight_ih.forget_gate kernel 8 8
lstm_language_model lstm.1.weight_hh.cell_gate recurrent_kernel 8 8
lstm_language_model lstm.bias_ih.forget_gate gate_bias 8 8
lstm_language_model lstm.bias_hh.forget_gate recurrent_bias 8 8
gru_tagger gru.reverse.weight_ih.new_gate kernel 8 6
gan_generator 4.weight kernel 16 96
gan_discriminator 2.weight kernel 128 128
mlp_mixer blocks.1.mix_tokens.0.weight kernel 16 8
transformer_encoder encoder.layers.1.self_attn.k_proj.weight kernel 16 16
transformer_encoder cross.k_proj.weight kernel 10 16
transformer_encoder cross.v_proj.weight kernel 6 16
transformer_encoder cross.bias_k position 16 16
mobilenet 3.conv.3.weight kernel 9 9
prelu_net 3.weight slope - -
bilinear score.weight kernel 144 4
"""
LINES = [line.split() for line in EXPECTED.strip().splitlines()]


@pytest.mark.parametrize("line", LINES, ids=[f"{line[0]}:{line[1]}" for line in LINES])
def test_a_parameter_has_the_role_and_the_fans_that_its_layer_gives_it(line: list[str]) -> None:
    name, parameter, expected, fan_in, fan_out = line
    row = plan_of(name)[parameter]
    assert row.role == expected
    assert row.fans == (None if fan_in == "-" else Fans(int(fan_in), int(fan_out)))


@pytest.mark.parametrize(
    ("name", "followed"),
    [
        ("gpt2", {"c_fc": "gelu_tanh"}),
        ("gpt_neox", {"dense_h_to_4h": "gelu"}),
        ("gptj", {"fc_in": "gelu_tanh"}),
        ("bloom", {"dense_h_to_4h": "gelu_tanh"}),
        ("opt", {"fc1": "relu"}),
        ("mpt", {"up_proj": "gelu"}),
        ("mamba", {"conv1d": "silu"}),
        ("modernbert", {"gate_proj": "gelu", "dense": "gelu"}),
        ("albert", {"ffn": "gelu_tanh", "dense": "gelu_tanh"}),
        ("distilbert", {"lin1": "gelu"}),
        ("t5", {"wi_0": "gelu_tanh"}),
        ("convnext", {"pwconv1": "gelu"}),
        ("clip", {"fc1": "quick_gelu"}),
        ("wav2vec2", {"conv": "gelu", "intermediate_dense": "gelu"}),
        ("transformer_encoder", {"linear1": "relu"}),
        ("gan_discriminator", {"0": "leaky_relu", "2": "leaky_relu"}),
    ],
)
def test_the_activation_that_follows_a_layer_is_known(name: str, followed: dict[str, str]) -> None:
    rows = [row for row in plan_of(name).rows if row.activation and row.role == "kernel"]
    assert {row.name.split(".")[-2]: row.activation for row in rows} == followed


def test_the_activation_of_the_gate_is_known_fused_or_not() -> None:
    for name in ("llama", "phi3", "mixtral"):
        followed = {row.name.split(".")[-2] for row in plan_of(name).rows if row.activation == "silu"}
        assert followed == {"gate_proj"}


# --- fused projections ---------------------------------------------------------------------------

Parts = dict[str, torch.Tensor]
QKV, GATED = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")


def chunks(names: tuple[str, ...]) -> Callable[[torch.Tensor], Parts]:
    return lambda stored: dict(zip(names, stored.chunk(len(names)), strict=True))


def sizes(**parts: int) -> Callable[[torch.Tensor], Parts]:
    return lambda stored: dict(zip(parts, stored.split(list(parts.values())), strict=True))


def of_heads(heads: int, **parts: int) -> Callable[[torch.Tensor], Parts]:
    def taken(stored: torch.Tensor) -> Parts:
        view = stored.view(heads, -1, *stored.shape[1:])
        split = view.split(list(parts.values()), dim=1)
        return {name: part.flatten(0, 1) for name, part in zip(parts, split, strict=True)}

    return taken


# model, module, its fused layer, how its forward takes (outputs, ...) apart; 4 heads of 4, 2 for grouped keys
FALCON = ("transformer.h.1.self_attention", "query_key_value")
HEADS = of_heads(4, q_proj=4, k_proj=4, v_proj=4)
FUSED: list[tuple[str, str, str, Callable[[torch.Tensor], Parts]]] = [
    ("gpt2", "transformer.h.1.attn", "c_attn", chunks(QKV)),
    ("gpt_neox", "gpt_neox.layers.1.attention", "query_key_value", HEADS),
    ("gpt_bigcode", "transformer.h.1.attn", "c_attn", sizes(q_proj=16, k_proj=4, v_proj=4)),
    ("gpt_bigcode_heads", "transformer.h.1.attn", "c_attn", HEADS),
    ("bloom", "transformer.h.1.self_attention", "query_key_value", HEADS),
    ("falcon", *FALCON, of_heads(2, q_proj=8, k_proj=4, v_proj=4)),
    ("falcon_multi_query", *FALCON, sizes(q_proj=16, k_proj=4, v_proj=4)),
    ("falcon_heads", *FALCON, HEADS),
    ("mpt", "transformer.blocks.1.attn", "Wqkv", chunks(QKV)),
    ("modernbert", "model.layers.1.attn", "Wqkv", chunks(QKV)),
    ("modernbert", "model.layers.1.mlp", "Wi", chunks(GATED)),
    ("phi3", "model.layers.1.self_attn", "qkv_proj", sizes(q_proj=16, k_proj=8, v_proj=8)),
    ("phi3", "model.layers.1.mlp", "gate_up_proj", chunks(GATED)),
    (
        "qwen3_next",
        "model.layers.0.linear_attn",
        "in_proj_qkvz",
        of_heads(2, q_proj=4, k_proj=4, v_proj=8, in_proj_z=8),
    ),
    ("qwen3_next", "model.layers.0.linear_attn", "in_proj_ba", of_heads(2, in_proj_b=2, in_proj_a=2)),
    ("qwen3_next", "model.layers.1.self_attn", "q_proj", of_heads(4, q_proj=4, gate_proj=4)),
    ("qwen3_5", "model.layers.0.linear_attn", "in_proj_qkv", sizes(q_proj=8, k_proj=8, v_proj=16)),
]


@pytest.mark.parametrize(("name", "path", "child", "taken"), FUSED, ids=[f"{f[0]}.{f[2]}" for f in FUSED])
def test_fused_projections_hold_what_separate_ones_would(
    name: str, path: str, child: str, taken: Callable[[torch.Tensor], Parts]
) -> None:
    model = copy.deepcopy(looked_at(name))
    ft.initialize(model, DRAWN, seed=7)
    layer: Any = model.get_submodule(f"{path}.{child}")
    stored = layer.weight.detach().T if isinstance(layer, transformers.Conv1D) else layer.weight.detach()
    for part, weight in taken(stored).items():
        alone = fanin.LecunNormal()(tuple(weight.shape), seed=7, name=f"{path}.{part}.weight", axes="oi")
        np.testing.assert_array_equal(weight.numpy(), alone)
    if layer.bias is None:
        return
    for part, bias in taken(layer.bias.detach()).items():
        axes = Axes((0,), (), known=Fans(stored.shape[1], len(bias)))
        alone = fanin.LecunNormal()(tuple(bias.shape), seed=7, name=f"{path}.{part}.bias", axes=axes)
        np.testing.assert_array_equal(bias.numpy(), alone)


def first_then_second(stored: torch.Tensor) -> Parts:
    return chunks(GATED)(stored)


def by_turns(stored: torch.Tensor) -> Parts:
    return {"gate_proj": stored[::2], "up_proj": stored[1::2]}


@pytest.mark.parametrize(
    ("name", "path", "turned", "taken"),
    [
        ("mixtral", "model.layers.1.mlp.experts", False, first_then_second),
        ("qwen3_moe", "model.layers.1.mlp.experts", False, first_then_second),
        ("deepseek_v3", "model.layers.1.mlp.experts", False, first_then_second),
        ("llama4", "model.layers.1.feed_forward.experts", True, first_then_second),
        ("gpt_oss", "model.layers.1.mlp.experts", True, by_turns),
    ],
)
def test_stacked_experts_hold_what_separate_ones_would(
    name: str, path: str, turned: bool, taken: Callable[[torch.Tensor], Parts]
) -> None:
    model = copy.deepcopy(looked_at(name))
    ft.initialize(model, DRAWN, seed=7)
    experts: Any = model.get_submodule(path)
    for expert in range(len(experts.down_proj)):
        both, down = experts.gate_up_proj[expert].detach(), experts.down_proj[expert].detach()
        parts = taken(both.T if turned else both) | {"down_proj": down.T if turned else down}
        for part, weight in parts.items():
            full = f"{path}.{expert}.{part}.weight"
            alone = fanin.LecunNormal()(tuple(weight.shape), seed=7, name=full, axes="oi")
            np.testing.assert_array_equal(weight.numpy(), alone)


def test_the_biases_of_experts_have_the_fans_of_their_kernels() -> None:
    model = copy.deepcopy(looked_at("gpt_oss"))
    ft.initialize(model, DRAWN, seed=7)
    experts: Any = model.get_submodule("model.layers.0.mlp.experts")
    for part, bias in by_turns(experts.gate_up_proj_bias[2].detach()).items():
        name = f"model.layers.0.mlp.experts.2.{part}.bias"
        axes = Axes((0,), (), known=Fans(16, 24))
        np.testing.assert_array_equal(bias.numpy(), fanin.LecunNormal()((24,), seed=7, name=name, axes=axes))


def test_one_network_in_two_layouts_has_one_set_of_numbers() -> None:
    """Phi-3 is Llama with its projections fused."""
    fused = {r.name: (r.shape, r.fans, r.activation) for r in plan_of("phi3").rows}
    assert fused == {r.name: (r.shape, r.fans, r.activation) for r in plan_of("llama").rows}
    phi: Any = copy.deepcopy(looked_at("phi3"))
    llama: Any = copy.deepcopy(looked_at("llama"))
    for model in (phi, llama):
        ft.initialize(model, "glorot_normal", seed=3)
    for one, two in zip(phi.model.layers, llama.model.layers, strict=True):
        apart = [getattr(two.self_attn, f"{part}_proj").weight for part in "qkv"]
        assert torch.equal(one.self_attn.qkv_proj.weight, torch.cat(apart))
        apart = [two.mlp.gate_proj.weight, two.mlp.up_proj.weight]
        assert torch.equal(one.mlp.gate_up_proj.weight, torch.cat(apart))


def test_cross_attention_of_gpt2_is_fused_differently() -> None:
    model = pretrained("GPT2LMHeadModel", "GPT2Config", **GPT, add_cross_attention=True)()
    ft.initialize(model, DRAWN, seed=7)
    attention: Any = model.get_submodule("transformer.h.0.crossattention")
    for stored, parts in ((attention.q_attn, QKV[:1]), (attention.c_attn, QKV[1:])):
        for part, weight in chunks(parts)(stored.weight.detach().T).items():
            full = f"transformer.h.0.crossattention.{part}.weight"
            np.testing.assert_array_equal(weight, fanin.LecunNormal()((16, 16), seed=7, name=full, axes="oi"))


# --- starts of their own -------------------------------------------------------------------------

# Where transformers draws them, or sets what the authors did not: not those of a model just built.
OTHERS = {
    "mamba": ("dt_proj.bias",),
    "mamba2": ("dt_bias",),
    "qwen3_next": ("A_log",),
    "qwen3_5": ("A_log",),
    "siglip": ("logit_scale", "logit_bias"),
    "rwkv": ("time_first",),
}


@each
def test_a_start_of_its_own_is_that_of_a_model_just_built(name: str) -> None:
    model, plan = looked_at(name), plan_of(name)
    for row in plan.rows:
        if row.rule != "*" or row.name.endswith(OTHERS.get(name, ())):
            continue
        built = model.get_parameter(row.path).detach()
        np.testing.assert_allclose(plan.fill(row.path), built, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("sinusoidal", [False, True])
def test_positions_of_distilbert_are_what_its_config_says(sinusoidal: bool) -> None:
    config = transformers.DistilBertConfig(
        vocab_size=8, dim=16, hidden_dim=24, n_layers=1, n_heads=4, sinusoidal_pos_embds=sinusoidal
    )
    model = transformers.DistilBertForMaskedLM(config)
    path = "distilbert.embeddings.position_embeddings.weight"
    own = np.abs(ft.plan(model, "he_normal", seed=0).fill(path) - model.get_parameter(path).detach().numpy())
    assert (own.max() < 1e-4) == sinusoidal


def test_starts_that_are_not_those_of_transformers() -> None:
    siglip, rwkv = plan_of("siglip"), plan_of("rwkv")
    assert siglip.fill("logit_scale").tolist() == [np.float32(math.log(10))]
    assert siglip.fill("logit_bias").tolist() == [-10]
    first = rwkv.fill("rwkv.blocks.0.attention.time_first")[:4]
    np.testing.assert_allclose(first, np.array([0, 0.5, -0.5, 0]) + math.log(0.3), rtol=1e-6)
    decay = np.exp(plan_of("qwen3_next").fill("model.layers.0.linear_attn.A_log"))
    np.testing.assert_allclose(decay, 0.01 + 15.99 * np.array([1, 3, 5, 7]) / 8, rtol=1e-5)


@pytest.mark.parametrize("kind", ["MambaConfig", "Mamba2Config"])
def test_the_step_of_a_state_space_is_log_uniform_between_its_bounds(kind: str) -> None:
    """Its law is uniform before the softplus: within half the largest step of log-uniform after it."""
    config = getattr(transformers, kind)
    from_config = {"vocab_size": 8, "num_hidden_layers": 1, "state_size": 2}
    if kind == "MambaConfig":
        model = transformers.MambaForCausalLM(config(**from_config, hidden_size=2048))
        path = "backbone.layers.0.mixer.dt_proj.bias"
    else:
        model = transformers.Mamba2ForCausalLM(
            config(**from_config, hidden_size=2048, num_heads=4096, head_dim=1)
        )
        path = "backbone.layers.0.mixer.dt_bias"
    bias = ft.plan(model, "he_normal", seed=0).fill(path, dtype="float64")
    steps = np.sort(np.log1p(np.exp(bias)))
    assert steps[0] >= 0.001 * (1 - 1e-6)
    assert steps[-1] <= 0.1 * (1 + 1e-6)
    law = np.log(steps / 0.001) / math.log(100)
    distance = np.abs(law - (np.arange(len(law)) + 0.5) / len(law)).max()
    assert distance <= 0.05 + 1.95 / math.sqrt(len(law))  # Kolmogorov's bound, at 1e-3


# --- the order law -------------------------------------------------------------------------------


def shuffled(module: nn.Module, order: np.random.Generator) -> None:
    """Let modules be registered in another order, but those that are called in the order of their list."""
    for child in module.children():
        shuffled(child, order)
    if not isinstance(module, nn.Sequential | nn.ModuleList):
        names = list(module._modules)
        order.shuffle(names)
        module._modules = {name: module._modules[name] for name in names}
        parameters = list(module._parameters)
        order.shuffle(parameters)
        module._parameters = {name: module._parameters[name] for name in parameters}


@each
def test_the_order_in_which_layers_are_made_does_not_matter(name: str) -> None:
    model = copy.deepcopy(looked_at(name))
    shuffled(model, np.random.default_rng(1))
    assert values(model) == initialized(name)


def last_of_several(model: nn.Module) -> tuple[nn.Module, str]:
    """The last of listed layers, or of the model's own parts."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    for module in (*lists, model):
        held = [name for name, child in module._modules.items() if any(True for _ in child.parameters())]
        if len(held) > 1:
            return module, held[-1]
    raise AssertionError("the model is one layer")


ONE_LAYER = ("albert", "bilinear")  # used again and again, or alone


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ONE_LAYER])
def test_layers_keep_their_values_when_others_go(name: str) -> None:
    model = copy.deepcopy(looked_at(name))
    module, removed = last_of_several(model)
    del module._modules[removed]
    left, before = values(model), initialized(name)
    assert 0 < len(left) < len(before)
    assert left == {names: before[names] for names in left}


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


@each
@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, compiled, checkpoint_wrapper])
def test_wrappers_change_nothing(name: str, wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = copy.deepcopy(looked_at(name))
    assert values(wrap(model).eval()) == initialized(name)


@each
def test_wrappers_of_blocks_change_nothing(name: str) -> None:
    model = copy.deepcopy(looked_at(name))
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleList) and not isinstance(module, parametrize.ParametrizationList):
            for at, block in enumerate(module):
                module[at] = checkpoint_wrapper(block)
    assert values(model) == initialized(name)


CONSTANTS = (fanin.Zeros, fanin.Ones, fanin.Constant, fanin.Sinusoidal)


@pytest.mark.parametrize("name", [a.name for a in TRANSFORMERS])
def test_two_seeds_differ_in_all_that_is_drawn_and_nothing_else(name: str) -> None:
    model = copy.deepcopy(looked_at(name))
    plan = ft.plan(model, DRAWN, seed=1)
    other = values(model, seed=1)
    for tensor in plan.tensors:
        rows = [row for row, _ in plan.parts(tensor)]
        names = tuple(piece.name for piece in tensor.pieces)
        drawn = {not isinstance(row.initializer, CONSTANTS) for row in rows}
        assert len(drawn) == 1
        assert (other[names] != initialized(name)[names]) == drawn.pop()


# --- dtypes and ties -----------------------------------------------------------------------------


@each
def test_a_bfloat16_model_is_the_float32_one_rounded_once(name: str) -> None:
    wide, narrow = (copy.deepcopy(looked_at(name)) for _ in range(2))
    narrow = narrow.to(torch.bfloat16)
    plan = ft.initialize(wide, DRAWN, seed=0)
    ft.initialize(narrow, DRAWN, seed=0)
    computed = [m for m in wide.modules() if parametrize.is_parametrized(m)]
    for path, parameter in wide.named_parameters():
        if not any(parameter is p for m in computed for p in m.parametrizations.parameters()):
            assert torch.equal(parameter.to(torch.bfloat16), narrow.get_parameter(path)), path
    assert len(plan.rows) == len(ft.plan(narrow, DRAWN, seed=0).rows)


@each
def test_what_is_tied_is_in_the_plan_once_and_stays_tied(name: str) -> None:
    model = copy.deepcopy(looked_at(name))
    before: dict[int, list[str]] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        before.setdefault(id(parameter), []).append(path)
    plan = ft.initialize(model, "he_normal", seed=0)
    paths = {tensor.path: sorted([tensor.path, *tensor.ties]) for tensor in plan.tensors}
    for tied in (several for several in before.values() if len(several) > 1):
        assert sum(path in paths for path in tied) == 1
        assert sorted(tied) in paths.values()
        assert len({id(model.get_parameter(path)) for path in tied}) == 1


TIED = ["gpt2", "gemma", "bert", "t5", "bart", "whisper", "lstm_language_model"]


@pytest.mark.parametrize("name", TIED)
def test_a_tied_table_is_a_table(name: str) -> None:
    tied = [tensor for tensor in plan_of(name).tensors if tensor.ties and len(tensor.shape) == 2]
    assert [tensor.pieces[0].role for tensor in tied] == ["embedding"]


# --- plans as data -------------------------------------------------------------------------------


@each
def test_a_plan_read_back_is_the_plan(name: str) -> None:
    plan = plan_of(name)
    assert Plan.from_json(plan.to_json()).diff(plan) == []


@each
def test_a_part_of_a_tensor_is_that_part_of_the_whole(name: str) -> None:
    plan = ft.plan(looked_at(name), DRAWN, seed=0)
    for tensor in plan.tensors:
        whole = plan.fill(tensor.path)
        for start, stop in ((0, 2), (1, 3), (2, 4)):  # quarters of each axis
            window = tuple(slice(size * start // 4, -(-size * stop // 4)) for size in tensor.shape)
            np.testing.assert_array_equal(plan.fill(tensor.path, window=window), whole[window])


# --- the page ------------------------------------------------------------------------------------


def test_the_page_of_models_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "models.md"
    assert page.read_text(encoding="utf-8") == models_page.page()
