"""What PyTorch's functions and modules are in an audit, beyond what a function's name says.

Names are functions' own, without the underscores of dunders and of in-place versions: ``relu_`` is ``relu``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from fanin.torch._activations import activation_name

# Their features are axis 1, not the last.
CHANNELS_FIRST = frozenset(("batch_norm", "instance_norm", "group_norm", "local_response_norm"))
FEATURES_LAST = frozenset(("dense", "embedding", "recurrent", "attention", "matmul"))


def plain_name(function: Any) -> str:
    """``Tensor.relu_`` and ``F.relu`` are ``"relu"``."""
    return getattr(function, "__name__", "").strip("_")


def activation_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The activation a function is, in this library's words."""
    if name == "gelu" and kwargs.get("approximate") == "tanh":
        return "gelu_tanh"
    if name == "hardtanh":
        bounds = *args[1:3], *(kwargs[key] for key in ("min_val", "max_val") if key in kwargs)
        return {(): name, (-1.0, 1.0): name, (0.0, 6.0): "relu6"}.get(bounds, f"{name}{bounds}")
    return name


# --- modules -------------------------------------------------------------------------------------

NORM = re.compile(r"norm(\dd|wrapped)?$", re.IGNORECASE)


def whole(module: nn.Module) -> str | None:
    """The kind of a module that is one operation, whatever functions it is made of; None of others."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return "recurrent"
    if isinstance(module, nn.MultiheadAttention):
        return "attention"
    if not is_childless(module) or is_torchs(module):
        return None
    if activation_name(module) is not None:
        return "activation"
    return "norm" if NORM.search(type(module).__name__) else None


def is_childless(module: nn.Module) -> bool:
    return all(name == "parametrizations" for name, _ in module.named_children())


def is_torchs(module: nn.Module) -> bool:
    return type_before_parametrizations(module).__module__.startswith("torch.nn.")
