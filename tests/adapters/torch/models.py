"""Architectures to prove initialization on, tiny: transformers' by their configs, others written out here.

``MODELS`` lists (name, build, batch): ``build()`` makes the module on the current default device, ``batch()``
the keyword arguments of its forward.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

VOCABULARY, LENGTH = 48, 6


class Architecture(NamedTuple):
    """A name, a function that builds the model, one that gives its forward's keyword arguments."""

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], dict[str, Any]]


# --- batches -------------------------------------------------------------------------------------


def tokens() -> torch.Tensor:
    return torch.arange(2 * LENGTH).reshape(2, LENGTH) % (VOCABULARY - 4) + 3  # past special tokens


def text() -> dict[str, Any]:
    return {"input_ids": tokens()}


def text_pair() -> dict[str, Any]:
    return {"input_ids": tokens(), "decoder_input_ids": tokens()}


def image() -> torch.Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 32 * 32).sin().reshape(2, 3, 32, 32)


def pixels() -> dict[str, Any]:
    return {"pixel_values": image()}


def text_and_pixels() -> dict[str, Any]:
    return {"input_ids": tokens(), "pixel_values": image()}


def waveform() -> dict[str, Any]:
    return {"input_values": torch.linspace(0, 50, 2 * 800).sin().reshape(2, 800)}


def spectrogram() -> dict[str, Any]:
    features = torch.linspace(-1, 1, 2 * 8 * 16).reshape(2, 8, 16)
    return {"input_features": features, "decoder_input_ids": tokens()}


def only(make: Callable[[], torch.Tensor], argument: str = "x") -> Callable[[], dict[str, Any]]:
    return lambda: {argument: make()}


# --- transformers --------------------------------------------------------------------------------


def pretrained(kind: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    """A class of transformers by name, built from a config; nothing is downloaded."""
    return lambda: getattr(transformers, kind)(getattr(transformers, config)(**options)).eval()


SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SEQ2SEQ = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 2,
}
VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
MOE = {**GROUPED, "num_local_experts": 3, "num_experts_per_tok": 2}
DEEPSEEK = {
    **SMALL,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 12,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 6,
}
SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
CLIP_TEXT = {**SMALL, "projection_dim": 12}
WAV2VEC2 = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "conv_dim": (8, 8, 8),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 2),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
MAMBA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "state_size": 4,
    "num_hidden_layers": 2,
    "conv_kernel": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

TRANSFORMERS = [
    # decoders
    Architecture("gpt2", pretrained("GPT2LMHeadModel", "GPT2Config", **GPT), text),
    Architecture("gpt_neo", pretrained("GPTNeoForCausalLM", "GPTNeoConfig", vocab_size=VOCABULARY,
        hidden_size=16, num_layers=2, num_heads=4, max_position_embeddings=32, window_size=4,
        attention_types=[[["global", "local"], 1]], bos_token_id=1, eos_token_id=2), text),
    Architecture("gpt_neox", pretrained("GPTNeoXForCausalLM", "GPTNeoXConfig", **SMALL), text),
    Architecture("gptj", pretrained("GPTJForCausalLM", "GPTJConfig", **GPT, rotary_dim=4), text),
    Architecture("gpt_bigcode", pretrained("GPTBigCodeForCausalLM", "GPTBigCodeConfig", **GPT), text),
    Architecture("gpt_bigcode_heads", pretrained("GPTBigCodeForCausalLM", "GPTBigCodeConfig", **GPT,
        multi_query=False), text),
    Architecture("llama", pretrained("LlamaForCausalLM", "LlamaConfig", **GROUPED), text),
    Architecture("mistral", pretrained("MistralForCausalLM", "MistralConfig", **GROUPED, head_dim=4), text),
    Architecture("mixtral", pretrained("MixtralForCausalLM", "MixtralConfig", **MOE, head_dim=4), text),
    Architecture("qwen2", pretrained("Qwen2ForCausalLM", "Qwen2Config", **GROUPED), text),
    Architecture("qwen2_moe", pretrained("Qwen2MoeForCausalLM", "Qwen2MoeConfig", **GROUPED, num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=20), text),
    Architecture("qwen3", pretrained("Qwen3ForCausalLM", "Qwen3Config", **GROUPED, head_dim=4), text),
    Architecture("qwen3_moe", pretrained("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **GROUPED, head_dim=4,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12), text),
    Architecture("qwen3_next", pretrained("Qwen3NextForCausalLM", "Qwen3NextConfig", **GROUPED, head_dim=4,
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=20,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=4, linear_value_head_dim=4,
        layer_types=["linear_attention", "full_attention"]), text),
    Architecture("qwen3_5", pretrained("Qwen3_5ForCausalLM", "Qwen3_5TextConfig", **GROUPED, head_dim=4,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=4, linear_value_head_dim=4,
        layer_types=["linear_attention", "full_attention"]), text),
    Architecture("gemma", pretrained("GemmaForCausalLM", "GemmaConfig", **GROUPED, head_dim=4), text),
    Architecture("gemma2", pretrained("Gemma2ForCausalLM", "Gemma2Config", **GROUPED, head_dim=4), text),
    Architecture("gemma3", pretrained("Gemma3ForCausalLM", "Gemma3TextConfig", **GROUPED, head_dim=4), text),
    Architecture("phi3", pretrained("Phi3ForCausalLM", "Phi3Config", **GROUPED), text),
    Architecture("falcon", pretrained("FalconForCausalLM", "FalconConfig", **SMALL,
        new_decoder_architecture=True, num_kv_heads=2, bias=True), text),
    Architecture("falcon_multi_query", pretrained("FalconForCausalLM", "FalconConfig", **SMALL), text),
    Architecture("falcon_heads", pretrained("FalconForCausalLM", "FalconConfig", **SMALL, multi_query=False,
        alibi=True, bias=True), text),
    Architecture("bloom", pretrained("BloomForCausalLM", "BloomConfig", vocab_size=VOCABULARY, hidden_size=16,
        n_layer=2, n_head=4), text),
    Architecture("opt", pretrained("OPTForCausalLM", "OPTConfig", **{**SMALL, "pad_token_id": 1},
        ffn_dim=24, word_embed_proj_dim=8), text),
    Architecture("mpt", pretrained("MptForCausalLM", "MptConfig", vocab_size=VOCABULARY, d_model=16,
        n_layers=2, n_heads=4, max_seq_len=32), text),
    Architecture("deepseek_v2", pretrained("DeepseekV2ForCausalLM", "DeepseekV2Config",
        **DEEPSEEK, topk_method="group_limited_greedy"), text),
    Architecture("deepseek_v3", pretrained("DeepseekV3ForCausalLM", "DeepseekV3Config", **DEEPSEEK), text),
    Architecture("olmo2", pretrained("Olmo2ForCausalLM", "Olmo2Config", **GROUPED), text),
    Architecture("cohere", pretrained("CohereForCausalLM", "CohereConfig", **GROUPED,
        use_qk_norm=True), text),
    Architecture("llama4", pretrained("Llama4ForCausalLM", "Llama4TextConfig", **MOE, head_dim=4,
        intermediate_size_mlp=20), text),
    Architecture("gpt_oss", pretrained("GptOssForCausalLM", "GptOssConfig", **MOE, head_dim=4), text),
    Architecture("mamba", pretrained("MambaForCausalLM", "MambaConfig", **MAMBA), text),
    Architecture("mamba2", pretrained("Mamba2ForCausalLM", "Mamba2Config", **MAMBA, num_heads=4, head_dim=8,
        n_groups=2, chunk_size=4), text),
    Architecture("rwkv", pretrained("RwkvForCausalLM", "RwkvConfig", vocab_size=VOCABULARY, hidden_size=16,
        num_hidden_layers=2, context_length=32), text),
    # encoders
    Architecture("bert", pretrained("BertForMaskedLM", "BertConfig", **SMALL), text),
    Architecture("roberta", pretrained("RobertaForMaskedLM", "RobertaConfig",
        **{**SMALL, "pad_token_id": 1}), text),
    Architecture("albert", pretrained("AlbertForMaskedLM", "AlbertConfig", **SMALL, embedding_size=8), text),
    Architecture("electra", pretrained("ElectraForMaskedLM", "ElectraConfig", **SMALL,
        embedding_size=8), text),
    Architecture("distilbert", pretrained("DistilBertForMaskedLM", "DistilBertConfig", vocab_size=VOCABULARY,
        dim=16, hidden_dim=24, n_layers=2, n_heads=4, max_position_embeddings=32), text),
    Architecture("deberta_v2", pretrained("DebertaV2ForMaskedLM", "DebertaV2Config", **SMALL,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=4, conv_kernel_size=3,
        norm_rel_ebd="layer_norm", share_att_key=False), text),
    Architecture("modernbert", pretrained("ModernBertForMaskedLM", "ModernBertConfig", **SMALL,
        cls_token_id=1, sep_token_id=2, global_attn_every_n_layers=2, local_attention=4), text),
    # encoders with decoders
    Architecture("t5", pretrained("T5ForConditionalGeneration", "T5Config", vocab_size=VOCABULARY, d_model=16,
        d_kv=4, d_ff=24, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0), text_pair),
    Architecture("bart", pretrained("BartForConditionalGeneration", "BartConfig", **SEQ2SEQ), text_pair),
    Architecture("mbart", pretrained("MBartForConditionalGeneration", "MBartConfig", **SEQ2SEQ), text_pair),
    Architecture("pegasus", pretrained("PegasusForConditionalGeneration", "PegasusConfig",
        **SEQ2SEQ), text_pair),
    # images
    Architecture("vit", pretrained("ViTForImageClassification", "ViTConfig", **VISION), pixels),
    Architecture("deit", pretrained("DeiTForImageClassificationWithTeacher", "DeiTConfig", **VISION), pixels),
    Architecture("beit", pretrained("BeitForImageClassification", "BeitConfig", **VISION,
        use_mask_token=True, use_absolute_position_embeddings=True, use_relative_position_bias=True), pixels),
    Architecture("dinov2", pretrained("Dinov2ForImageClassification", "Dinov2Config", **{**VISION,
        "mlp_ratio": 2}), pixels),
    Architecture("swin", pretrained("SwinForImageClassification", "SwinConfig", **SWIN,
        use_absolute_embeddings=True), pixels),
    Architecture("convnext", pretrained("ConvNextForImageClassification", "ConvNextConfig",
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=32), pixels),
    Architecture("convnextv2", pretrained("ConvNextV2ForImageClassification", "ConvNextV2Config",
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], image_size=32), pixels),
    # images and text, sound
    Architecture("clip", pretrained("CLIPModel", "CLIPConfig", text_config=CLIP_TEXT, vision_config=VISION,
        projection_dim=12), text_and_pixels),
    Architecture("siglip", pretrained("SiglipModel", "SiglipConfig", text_config=CLIP_TEXT,
        vision_config=VISION), text_and_pixels),
    Architecture("whisper", pretrained("WhisperForConditionalGeneration", "WhisperConfig", **{**SEQ2SEQ,
        "num_mel_bins": 8, "max_source_positions": 8, "max_target_positions": 16}), spectrogram),
    Architecture("wav2vec2", pretrained("Wav2Vec2ForCTC", "Wav2Vec2Config", **WAV2VEC2), waveform),
]  # fmt: skip


# --- written out ---------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Conv2d(inputs, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(branch + self.downsample(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width // 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, stride, 1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = nn.Conv2d(inputs, width, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.relu(self.bn2(self.conv2(branch)))
        return self.relu(self.bn3(self.conv3(branch)) + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, block: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(block(8, 8), block(8, 8))
        self.layer2 = nn.Sequential(block(8, 16, 2), block(16, 16))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = self.double(3, 8)
        self.down2 = self.double(8, 16)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.smooth = nn.ConvTranspose2d(8, 8, 3, padding=1, groups=4)
        self.merge = self.double(16, 8)
        self.out = nn.Conv2d(8, 2, 1)

    @staticmethod
    def double(inputs: int, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.GroupNorm(2, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(2, width),
            nn.SiLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down1(x)
        inner = self.smooth(self.up(self.down2(self.pool(skip))))
        return self.out(self.merge(torch.cat([skip, inner], 1)))


class LstmLanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.decoder = nn.Linear(8, VOCABULARY)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.lstm(self.embedding(x))[0])


class GruTagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.gru = nn.GRU(8, 6, bidirectional=True, batch_first=True)
        self.out = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.gru(self.embedding(x))[0])


def generator() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 64),
        nn.Unflatten(1, (4, 4, 4)),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def discriminator() -> nn.Module:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(3, 8, 4, stride=2, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(8, 8, 4, stride=2, padding=1)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        spectral_norm(nn.Linear(512, 1)),
    )


class MixerBlock(nn.Module):
    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mix_tokens = nn.Sequential(nn.Linear(patches, 8), nn.GELU(), nn.Linear(8, patches))
        self.norm2 = nn.LayerNorm(width)
        self.mix_channels = nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mix_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mix_channels(self.norm2(x))


class MlpMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, stride=8)
        self.blocks = nn.Sequential(MixerBlock(16, 12), MixerBlock(16, 12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class TransformerEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.cross = nn.MultiheadAttention(16, 4, kdim=10, vdim=6, add_bias_kv=True, batch_first=True)
        self.out = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.embedding(x))
        return self.out(self.cross(x, x[..., :10], x[..., :6])[0])


class InvertedResidual(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = width * expansion
        self.conv = nn.Sequential(
            nn.Conv2d(width, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


def mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        InvertedResidual(8, 4),
        InvertedResidual(8, 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def prelu_net() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.PReLU(), nn.Linear(16, 16), nn.PReLU(16), nn.Linear(16, 3))


class BilinearNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Bilinear(12, 12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x, x)


def latent() -> torch.Tensor:
    return torch.linspace(-2, 2, 24).reshape(2, 12)


WRITTEN = [
    Architecture("resnet_basic", lambda: ResNet(BasicBlock), only(image)),
    Architecture("resnet_bottleneck", lambda: ResNet(Bottleneck), only(image)),
    Architecture("unet", UNet, only(image)),
    Architecture("lstm_language_model", LstmLanguageModel, only(tokens)),
    Architecture("gru_tagger", GruTagger, only(tokens)),
    Architecture("gan_generator", generator, only(latent, "input")),
    Architecture("gan_discriminator", discriminator, only(image, "input")),
    Architecture("mlp_mixer", MlpMixer, only(image)),
    Architecture("transformer_encoder", TransformerEncoder, only(tokens)),
    Architecture("mobilenet", mobilenet, only(image, "input")),
    Architecture("prelu_net", prelu_net, only(latent, "input")),
    Architecture("bilinear", BilinearNet, only(latent)),
]

MODELS = [*TRANSFORMERS, *WRITTEN]
