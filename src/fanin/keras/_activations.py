"""Which activation follows a layer, as far as layers and the graph of a model say."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import keras
from keras import layers

# What may stand between a layer and its activation.
BETWEEN = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.Identity,
    layers.Flatten,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
)
LAYERS = {
    layers.LeakyReLU: "leaky_relu",
    layers.PReLU: "prelu",
    layers.ELU: "elu",
    layers.Softmax: "softmax",
}


def activation_name(thing: Any) -> str | None:
    """``keras.activations.relu`` and ``keras.layers.ReLU()`` are ``"relu"``; a linear one is None."""
    if isinstance(thing, layers.Activation):
        return activation_name(thing.activation)
    if isinstance(thing, layers.ReLU):
        return "leaky_relu" if thing.negative_slope else "relu" if thing.max_value is None else "relu6"
    if isinstance(thing, keras.Layer):
        return next((name for kind, name in LAYERS.items() if isinstance(thing, kind)), None)
    if getattr(thing, "__module__", "").startswith("keras.") and thing is not keras.activations.linear:
        return getattr(thing, "__name__", None)
    return None


def followers(model: keras.Layer) -> dict[int, str]:
    """{identity of a layer of a Sequential or functional model: the activation that follows it}."""
    if isinstance(model, keras.Sequential):
        listed = model.layers
        after = {id(one): other for one, other in pairwise(listed)}
    elif isinstance(model, keras.Function):
        listed = model.layers
        inside = {id(operation) for operation in model.operations}
        after = {id(layer): _consumer(layer, inside) for layer in listed}
    else:
        return {}
    names = {id(layer): activation_name(_first(layer, after)) for layer in listed}
    return {key: name for key, name in names.items() if name}


def _first(layer: Any, after: Mapping[int, Any]) -> Any:
    """What follows a layer, past all that may stand between."""
    layer = after.get(id(layer))
    while isinstance(layer, BETWEEN):
        layer = after.get(id(layer))
    return layer


def _consumer(layer: Any, inside: set[int]) -> Any:
    """The one operation of a model that takes a layer's output; None where there are several."""
    consumers = {id(node.operation): node.operation for node in layer._outbound_nodes}
    taking = [operation for key, operation in consumers.items() if key in inside]
    return taking[0] if len(taking) == 1 else None
