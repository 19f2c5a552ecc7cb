"""Layers of Hugging Face's transformers, by the names of their classes; the package is never imported."""

from typing import Any

from fanin.fans import IO
from fanin.torch._layers import PROJECTIONS, Layer, Pieces, affine, norm, packed

PACKAGE = "transformers."


def conv1d(module: Any) -> Pieces:
    """A linear layer that stores (in, out)."""
    return affine("linear", IO, module.weight.shape, module.bias)


def gpt2_attention(module: Any) -> Pieces:
    width = module.embed_dim
    if module.is_cross_attention:
        return {}
    return packed(
        "c_attn.weight", "c_attn.bias", PROJECTIONS, (width, width), "attention", "i (s o) -> s : o | i"
    )


LAYERS: dict[str, Layer] = {
    "Conv1D": conv1d,
    "GPT2Attention": gpt2_attention,
    "LlamaRMSNorm": norm("rms_norm"),
}


def transformers_layer(kind: type) -> Layer | None:
    """What a class of transformers says of its parameters; None for other classes and unknown ones."""
    return LAYERS.get(kind.__name__) if kind.__module__.startswith(PACKAGE) else None
