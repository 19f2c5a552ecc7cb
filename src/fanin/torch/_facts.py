"""What named recipes ask about a model, from its config where it has one, and from its modules."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from torch import nn
from torch.nn.modules.conv import _ConvNd

from fanin.model import depth_facts

# fact: attributes of a transformers config that hold it; the first that is there counts
CONFIG = {
    "n_layer": ("num_hidden_layers", "n_layer", "num_layers"),
    "n_encoder_layer": ("encoder_layers", "num_layers"),
    "n_decoder_layer": ("decoder_layers", "num_decoder_layers"),
    "d_model": ("hidden_size", "d_model", "n_embd"),
    "d_ff": ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "n_inner"),
    "d_kv": ("d_kv", "head_dim"),
    "n_head": ("num_attention_heads", "n_head", "num_heads"),
    "vocab_size": ("vocab_size",),
}


SHORTCUTS = {"downsample", "shortcut"}  # beside a residual branch, not in it


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
    return _branches(found) | (_built(found) if config is None else _configured(config))


def _built(found: list[Placed]) -> dict[str, int]:
    """Facts that modules show by themselves."""
    facts = depth_facts((place.name, place.block) for place in found)
    widths = {place.module.embed_dim for place in found if isinstance(place.module, nn.MultiheadAttention)}
    if len(widths) == 1:
        facts["d_model"] = widths.pop()
    return facts


def _branches(found: list[Placed]) -> dict[str, int]:
    """``n_block`` and ``branch_depth`` of a residual network: its branches, and the convolutions in each.

    A branch is a module of two convolutions or more of which none of its children has as many.
    """
    depth: Counter[str] = Counter()
    for place in found:
        words = place.name.split(".")[:-1]
        if isinstance(place.module, _ConvNd) and not SHORTCUTS.intersection(words):
            depth.update("".join(f"{word}." for word in words[:at]) for at in range(len(words)))
    several = {name: count for name, count in depth.items() if count > 1}
    inner = [
        count
        for name, count in several.items()
        if not any(other != name and other.startswith(name) for other in several)
    ]
    if len(inner) < 2 or len(set(inner)) > 1:
        return {}
    return {"n_block": len(inner), "branch_depth": inner[0]}


def _configured(config: Any) -> dict[str, int]:
    """Facts that a config tells."""
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
    if getattr(config, "n_inner", 0) is None and "d_model" in facts:  # GPT-2's default
        facts["d_ff"] = 4 * facts["d_model"]
    return facts


def head_of(module: nn.Module) -> nn.Module | None:
    """The output layer of a transformers model."""
    get = getattr(module, "get_output_embeddings", None)
    return get() if callable(get) else None
