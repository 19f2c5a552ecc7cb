"""What named recipes ask about a model, from its config where it has one, else from its modules."""

from collections.abc import Iterable
from typing import Any, Protocol

from torch import nn

# fact: attributes of a transformers config that hold it; the first that is there counts
CONFIG = {
    "n_layer": ("num_hidden_layers", "n_layer", "num_layers"),
    "n_encoder_layer": ("encoder_layers", "num_layers"),
    "n_decoder_layer": ("decoder_layers", "num_decoder_layers"),
    "d_model": ("hidden_size", "d_model", "n_embd"),
    "d_ff": ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim"),
    "n_head": ("num_attention_heads", "n_head", "num_heads"),
    "vocab_size": ("vocab_size",),
}


class Placed(Protocol):
    """A module where it stands."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def name(self) -> str: ...
    @property
    def block(self) -> int | None: ...


def config_of(module: nn.Module) -> Any:
    """A transformers config, that of the text model where there are several; None without one."""
    config = getattr(module, "config", None)
    if config is None or not callable(getattr(config, "to_dict", None)):
        return None
    return config.get_text_config() if callable(getattr(config, "get_text_config", None)) else config


def facts_of(module: nn.Module, places: Iterable[Placed]) -> dict[str, int]:
    """``n_layer``, ``d_model``, ... where the model shows them."""
    found = list(places)
    config = config_of(found[0].module)
    if config is None:
        blocks = [place.block for place in found if place.block is not None]
        return {"n_layer": max(blocks) + 1} if blocks else {}
    facts = {}
    for fact, attributes in CONFIG.items():
        if fact in ("n_encoder_layer", "n_decoder_layer") and not getattr(
            config, "is_encoder_decoder", False
        ):
            continue
        values = (getattr(config, attribute, None) for attribute in attributes)
        value = next((v for v in values if isinstance(v, int) and not isinstance(v, bool)), None)
        if value is not None:
            facts[fact] = value
    return facts


def head_of(module: nn.Module) -> nn.Module | None:
    """The output layer of a transformers model."""
    get = getattr(module, "get_output_embeddings", None)
    return get() if callable(get) else None
