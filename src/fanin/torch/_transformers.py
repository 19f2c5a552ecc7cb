"""Layers of Hugging Face's transformers, by the names of their classes; the package is never imported."""

import math
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn

from fanin.fans import IO, LOOKUP, OI, Axes
from fanin.initializers import Constant, Initializer, RandomUniform, Sinusoidal
from fanin.model import PROJECTIONS, Piece, beside
from fanin.torch import _fused
from fanin.torch._fused import GATED, equal
from fanin.torch._layers import Layer, Pieces, affine, norm
from fanin.torch._wrappers import descendants, unwrapped

PACKAGE = "transformers."


def conv1d(module: Any) -> Pieces:
    """A linear layer that stores (in, out)."""
    return affine("linear", IO, module.weight.shape, module.bias)


def router(module: Any) -> Pieces:
    """A linear layer that chooses experts."""
    return affine("router", OI, module.weight.shape, getattr(module, "bias", None))


def head_bias(module: Any) -> Pieces:
    """The bias of an output layer, whose kernel is the table of the inputs."""
    if module._parameters.get("bias") is None:
        return {}
    layer: Any = unwrapped(module.decoder if hasattr(module, "decoder") else module.dense)
    return {"bias": Piece("bias", "bias", "linear", beside(OI.fans((len(module.bias), layer.in_features))))}


# --- positions and tokens ------------------------------------------------------------------------

TABLES = ("position_embeddings", "position_embedding")
TOKENS = ("cls_token", "mask_token", "distillation_token", "register_tokens", "class_embedding", *TABLES)


def tokens(*names: str) -> Layer:
    """Parameters of a module itself that are put into a sequence or added to it."""

    def pieces(module: nn.Module) -> Pieces:
        present = {name: module._parameters.get(name) for name in names}
        return {
            name: Piece(name, "position", "embedding", _entries(parameter))
            for name, parameter in present.items()
            if parameter is not None
        }

    return pieces


def _entries(parameter: torch.Tensor) -> Axes:
    """A table whose last axis holds the features."""
    last = parameter.dim() - 1
    return Axes(tuple(range(last)), (last,), lookup=True)


def table(module: nn.Embedding, name: str = "weight", own: Initializer | None = None) -> dict[str, Piece]:
    """A lookup table of positions."""
    return {
        name: Piece(
            name,
            "position",
            "embedding",
            LOOKUP,
            padding_row=module.padding_idx if own is None else None,
            own=own,
        )
    }


def positions(*children: str, own: Initializer | None = None) -> Layer:
    """Lookup tables of positions that a module holds."""

    def pieces(module: nn.Module) -> Pieces:
        held = {child: getattr(module, child, None) for child in children}
        return {
            name: piece
            for child, layer in held.items()
            if isinstance(layer, nn.Embedding)
            for name, piece in table(layer, f"{child}.weight", own).items()
        }

    return pieces


def embeddings(module: nn.Module) -> Pieces:
    return {**tokens(*TOKENS)(module), **positions(*TABLES)(module)}


def distilbert(module: Any) -> Pieces:
    own = Sinusoidal() if module.config.sinusoidal_pos_embds else None
    held: Any = unwrapped(module.embeddings)
    return table(held.position_embeddings, "embeddings.position_embeddings.weight", own)


def sinusoidal(module: nn.Embedding) -> Pieces:
    return table(module, own=Sinusoidal(halves=True))


# --- numbers that a layer starts at --------------------------------------------------------------


def started(**values: tuple[str, object]) -> dict[str, Piece]:
    """Parameters with a role and a start of their own: a number, an array or an initializer."""
    return {
        name: Piece(
            name, role, "state_space" if role == "dynamics" else "scale", OI,
            own=value if isinstance(value, Initializer) else Constant(value),
        )
        for name, (role, value) in values.items()
    }  # fmt: skip


def layer_scales(kind: str, names: tuple[str, ...], setting: str) -> Layer:
    """A model's layers that scale their branches; its config has the start."""

    def pieces(model: nn.Module) -> Pieces:
        start = Constant(getattr(model.config, setting))
        return {
            path + name: Piece(path + name, "scale", "layer_scale", OI, own=start)
            for path, module in descendants(model)
            if type(module).__name__ == kind
            for name in names
            if module._parameters.get(name) is not None
        }

    return pieces


def clip(module: Any) -> Pieces:
    return started(logit_scale=("scale", module.config.logit_scale_init_value))


def siglip(module: Any) -> Pieces:
    """Zhai et al. 2023, arXiv:2303.15343, section 3.2: log 10 and -10, so that few pairs match at first."""
    return started(logit_scale=("scale", math.log(10)), logit_bias=("bias", -10.0))


def whisper_encoder(module: nn.Module) -> Pieces:
    return positions("embed_positions", own=Sinusoidal(halves=True, closed=True))(module)


def step_bias(settings: Any) -> RandomUniform:
    """Before its softplus, a time step between the settings' bounds: log-uniform up to half the step itself.

    Gu and Dao 2023, arXiv:2312.00752, section 3.6.
    """
    bounds = max(settings.time_step_min, settings.time_step_floor), settings.time_step_max
    return RandomUniform(*(math.log(math.expm1(step)) for step in bounds))


def mamba(module: Any) -> Pieces:
    decay = np.log(np.arange(1, module.ssm_state_size + 1))
    return {
        **started(A_log=("dynamics", decay), D=("scale", 1.0)),
        **started(**{"dt_proj.bias": ("dynamics", step_bias(module.config))}),
    }


def mamba2(module: Any) -> Pieces:
    decay = np.log(np.arange(1, module.num_heads + 1))
    return started(A_log=("dynamics", decay), D=("scale", 1.0), dt_bias=("dynamics", step_bias(module)))


def delta_net(projections: Layer) -> Layer:
    """Decays evenly in 0.01 .. 16: the uniform draw's own quantiles, which every head has alike."""

    def pieces(module: Any) -> Pieces:
        heads = module.num_v_heads
        decay = np.log(0.01 + 15.99 * (np.arange(heads) + 0.5) / heads)
        return {**projections(module), **started(A_log=("dynamics", decay), dt_bias=("dynamics", 1.0))}

    return pieces


def rwkv_attention(module: Any) -> Pieces:
    """Peng et al. 2023, arXiv:2305.13048, appendix E."""
    layers, size = module.config.num_hidden_layers, module.attention_hidden_size
    depth = module.layer_id / max(1, layers - 1)
    mix, rest = _time_mix(module), 1 - module.layer_id / layers
    channel = np.arange(size)
    decay = -5 + 8 * (channel / max(1, size - 1)) ** (0.7 + 1.3 * depth)
    return started(
        time_decay=("dynamics", decay),
        time_first=("dynamics", math.log(0.3) + ((channel + 1) % 3 - 1) / 2),
        time_mix_key=("dynamics", mix**rest),
        time_mix_value=("dynamics", mix**rest + 0.3 * depth),
        time_mix_receptance=("dynamics", mix ** (rest / 2)),
    )


def rwkv_feed_forward(module: Any) -> Pieces:
    mix = _time_mix(module) ** (1 - module.layer_id / module.config.num_hidden_layers)
    return started(time_mix_key=("dynamics", mix), time_mix_receptance=("dynamics", mix))


def _time_mix(module: Any) -> Any:
    width = module.config.hidden_size
    return (np.arange(width) / width)[None, None]


# --- the table -----------------------------------------------------------------------------------

LAYERS: dict[str, Layer] = {
    "Conv1D": conv1d,
    # fused projections
    "GPT2Attention": _fused.gpt2_attention,
    "GPTBigCodeAttention": _fused.gpt_bigcode_attention,
    "GPTNeoXAttention": _fused.gpt_neox_attention,
    "BloomAttention": _fused.bloom_attention,
    "FalconAttention": _fused.falcon_attention,
    "MptAttention": equal("Wqkv", PROJECTIONS),
    "ModernBertAttention": equal("Wqkv", PROJECTIONS),
    "ModernBertMLP": equal("Wi", GATED, held="act"),
    "Phi3Attention": _fused.phi3_attention,
    "Phi3MLP": equal("gate_up_proj", GATED, held="activation_fn"),
    "Qwen3NextAttention": _fused.gated_attention,
    "Qwen3NextGatedDeltaNet": delta_net(_fused.grouped_delta_net),
    "Qwen3_5Attention": _fused.gated_attention,
    "Qwen3_5GatedDeltaNet": delta_net(_fused.delta_net),
    "Qwen3_5MoeAttention": _fused.gated_attention,
    "Qwen3_5MoeGatedDeltaNet": delta_net(_fused.delta_net),
    "Llama4TextExperts": _fused.llama4_experts,
    "Llama4Router": router,
    # positions
    "GPT2Model": positions("wpe"),
    "GPTNeoModel": positions("wpe"),
    "GPTBigCodeModel": positions("wpe"),
    "DistilBertModel": distilbert,
    "WhisperPositionalEmbedding": table,
    "WhisperEncoder": whisper_encoder,
    "PegasusSinusoidalPositionalEmbedding": sinusoidal,
    "MarianSinusoidalPositionalEmbedding": sinusoidal,
    "RoFormerSinusoidalPositionalEmbedding": sinusoidal,
    "DebertaV2Encoder": positions("rel_embeddings"),
    "T5Attention": positions("relative_attention_bias"),
    "GptOssAttention": tokens("sinks"),
    "SiglipMultiheadAttentionPoolingHead": tokens("probe"),
    "Wav2Vec2Model": tokens("masked_spec_embed"),
    # starts
    "CLIPModel": clip,
    "SiglipModel": siglip,
    "BeitPreTrainedModel": layer_scales("BeitLayer", ("lambda_1", "lambda_2"), "layer_scale_init_value"),
    "Dinov2PreTrainedModel": layer_scales("Dinov2LayerScale", ("lambda1",), "layerscale_value"),
    "ConvNextPreTrainedModel": layer_scales(
        "ConvNextLayer", ("layer_scale_parameter",), "layer_scale_init_value"
    ),
    "ConvNextV2GRN": norm("response_norm", offset=True),
    "MambaMixer": mamba,
    "FalconMambaMixer": mamba,
    "Mamba2Mixer": mamba2,
    "RwkvSelfAttention": rwkv_attention,
    "RwkvFeedForward": rwkv_feed_forward,
    "T5LayerNorm": norm("rms_norm"),
    # norms that store the difference of their scale from one
    "NemotronLayerNorm1P": norm("layer_norm", offset=True),
    "VideoPrismLayerNorm": norm("layer_norm", offset=True),
    **dict.fromkeys(
        (
            "GemmaRMSNorm",
            "Gemma2RMSNorm",
            "Gemma3RMSNorm",
            "MiniMaxM3VLRMSNorm",
            "MuseGlimmerTextCenteredRMSNorm",
            "MuseSparkTextCenteredRMSNorm",
            "MuseSparkTextInputScaledRMSNorm",
            "Qwen3_5RMSNorm",
            "Qwen3_5MoeRMSNorm",
            "Qwen3NextRMSNorm",
            "Qwen4ExpTextRMSNorm",
            "RecurrentGemmaRMSNorm",
            "Step3p7RMSNorm",
            "T5GemmaRMSNorm",
            "T5Gemma2RMSNorm",
            "VaultGemmaRMSNorm",
        ),
        norm("rms_norm", offset=True),
    ),
}
# Families: transformers has a class of each in every model, by one pattern of names.
FAMILIES: dict[str, Layer] = {
    "*RMSNorm": norm("rms_norm"),
    "*RMSNormGated": norm("rms_norm"),
    "*LayerNorm": norm("layer_norm"),
    "*Experts": _fused.experts,
    "*TopKRouter": router,
    "*TopkRouter": router,
    "*LMHead": head_bias,
    "*LMPredictionHead": head_bias,
    "*Embeddings": embeddings,
    "*LearnedPositionalEmbedding": table,
    "*RelativePositionBias": tokens("relative_position_bias_table"),
}


def transformers_layer(kind: type) -> Layer | None:
    """What a class of transformers says of its parameters; None for other classes and unknown ones."""
    if not kind.__module__.startswith(PACKAGE):
        return None
    name = kind.__name__
    return LAYERS.get(name) or next((FAMILIES[p] for p in FAMILIES if fnmatchcase(name, p)), None)
