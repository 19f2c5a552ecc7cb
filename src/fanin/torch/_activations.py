"""Which activation follows a layer, as far as the modules themselves say."""

from collections.abc import Iterable, Iterator

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from fanin.torch._wrappers import unwrapped

# What may stand between a layer and its activation.
BETWEEN = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.dropout._DropoutNd,
    nn.Identity,
    nn.Flatten,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
)
# In a module with an activation of its own, the layers whose outputs it takes.
FIRST = (
    "linear1",
    "fc1",
    "fc_in",
    "lin1",
    "c_fc",
    "ffn",
    "pwconv1",
    "conv",
    "conv1d",
    "gate_proj",
    "up_proj",
    "wi",
    "wi_0",
    "dense_h_to_4h",
    "intermediate_dense",
    "dense",
)
GATED = ("gate_proj", "wi_0")  # where there is one of these, the other factor has no activation
HELD = (
    "activation",
    "act",
    "act_fn",
    "activation_fn",
    "activation_function",
    "intermediate_act_fn",
    "transform_act_fn",
    "gelu_impl",
    "nonlinearity",
)
# Classes whose name in lower case is not the name of the function, in this library's words.
NAMES = {
    "leakyrelu": "leaky_relu",
    "newgelu": "gelu_tanh",
    "gelutanh": "gelu_tanh",
    "fastgelu": "gelu_tanh",
    "accurategelu": "gelu_tanh",
    "bloomgelu": "gelu_tanh",
    "clippedgelu": "gelu",
    "quickgelu": "quick_gelu",
    "relusquared": "relu_squared",
}
KNOWN = ("torch.nn.modules.activation", "transformers.activations", "transformers.models.bloom.")


def followers(modules: Iterable[nn.Module]) -> dict[int, str]:
    """{identity of a layer: name of the activation that follows it}, such as ``"relu"``."""
    return {key: name for module in modules for key, name in (*_in_order(module), *_by_name(module))}


def _in_order(module: nn.Module) -> Iterator[tuple[int, str]]:
    """Layers of a Sequential are followed by the next module that is not in between."""
    if not isinstance(module, nn.Sequential):
        return
    layers = [unwrapped(layer) for layer in module]
    for at, layer in enumerate(layers):
        rest = (later for later in layers[at + 1 :] if not isinstance(later, BETWEEN))
        name = activation_name(next(rest, None))
        if name and (any(True for _ in layer.parameters(recurse=False)) or is_parametrized(layer)):
            yield id(layer), name


def _by_name(module: nn.Module) -> Iterator[tuple[int, str]]:
    """The first layers of a module that keeps its activation under a well-known name."""
    name = next((found for held in HELD if (found := activation_name(getattr(module, held, None)))), None)
    if name is None:
        return
    present = [child for child in FIRST if isinstance(getattr(module, child, None), nn.Module)]
    gated = [child for child in present if child in GATED]
    for child in gated or present:
        yield id(unwrapped(getattr(module, child))), name


def activation_name(thing: object) -> str | None:
    """``nn.GELU()``, ``torch.nn.functional.gelu`` and transformers' ``GELUActivation()`` are ``"gelu"``."""
    if isinstance(thing, nn.GELU):
        return "gelu" if thing.approximate == "none" else "gelu_tanh"
    if isinstance(thing, nn.Module):
        kind = type(thing)
        name = kind.__name__.lower().removesuffix("activation")
        return NAMES.get(name, name) if kind.__module__.startswith(KNOWN) else None
    if callable(thing) and getattr(thing, "__module__", "").startswith(("torch", "None")):
        return getattr(thing, "__name__", None)
    return None
