"""What Keras's layers and operations are in an audit: the kind of operation, or none of their own."""

from typing import Any

import keras
from keras import layers
from keras.src.applications.convnext import LayerScale
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_conv_transpose import BaseConvTranspose
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv
from keras.src.layers.pooling.base_adaptive_pooling import BaseAdaptivePooling
from keras.src.layers.pooling.base_global_pooling import BaseGlobalPooling
from keras.src.layers.pooling.base_pooling import BasePooling
from keras.src.utils.naming import to_snake_case

from fanin.audit.functions import kind_of
from fanin.keras._activations import activation_name

KINDS: dict[str, tuple[type, ...]] = {
    "dense": (layers.Dense, layers.EinsumDense),
    "conv": (BaseConv, BaseConvTranspose, BaseDepthwiseConv, BaseSeparableConv),
    "embedding": (layers.Embedding,),
    "recurrent": (layers.RNN, layers.Bidirectional),
    "attention": (
        layers.Attention,
        layers.AdditiveAttention,
        layers.MultiHeadAttention,
        layers.GroupQueryAttention,
    ),
    "norm": (
        layers.BatchNormalization,
        layers.LayerNormalization,
        layers.GroupNormalization,
        layers.RMSNormalization,
        layers.UnitNormalization,
        layers.Normalization,
    ),
    "softmax": (layers.Softmax,),
    "activation": (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU),
    "add": (layers.Add, layers.Subtract, layers.Average),
    "multiply": (layers.Multiply, layers.Rescaling, LayerScale),
    "matmul": (layers.Dot,),
    "concat": (layers.Concatenate,),
    "pool": (BasePooling, BaseGlobalPooling, BaseAdaptivePooling, layers.Maximum, layers.Minimum),
}
# The same values in another order or shape, or some of them: no operation. Dropout is not active.
VIEWS = (
    layers.Identity,
    layers.InputLayer,
    layers.Flatten,
    layers.Reshape,
    layers.Permute,
    layers.RepeatVector,
    layers.Masking,
    layers.ActivityRegularization,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.UpSampling1D,
    layers.UpSampling2D,
    layers.UpSampling3D,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.AlphaDropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
)
SPLIT = KINDS["dense"] + KINDS["conv"]  # their activation is an operation of its own


def layer_kind(layer: keras.Layer) -> str | None:
    """The kind of a layer that is one operation; None of one that only passes values on."""
    if isinstance(layer, layers.ReversibleEmbedding):  # an Embedding, which is also called the other way
        return "embedding"
    if isinstance(layer, VIEWS) or is_linear(layer):
        return None
    if isinstance(layer, layers.Activation) and activation_name(layer) == "softmax":
        return "softmax"
    for kind, types in KINDS.items():
        if isinstance(layer, types):
            return kind
    return layer_kind(layer.layer) if isinstance(layer, layers.Wrapper) else "other"


def is_linear(layer: keras.Layer) -> bool:
    return isinstance(layer, layers.Activation) and layer.activation is keras.activations.linear


def own_activation(layer: keras.Layer) -> Any:
    """What a layer with a kernel does to its output at last; None of a linear one."""
    activation = getattr(layer, "activation", None) if isinstance(layer, SPLIT) else None
    return None if activation is keras.activations.linear else activation


def function_name(operation: Any) -> str:
    """`keras.ops.GetItem` is ``"get_item"``."""
    return str(to_snake_case(type(operation).__name__))


def function_kind(operation: Any, signals: int, origins: int, constants: int) -> str | None:
    """See `fanin.audit.functions.kind_of`."""
    return kind_of(function_name(operation), signals, origins, constants)


def activation_of(thing: Any) -> str:
    """The activation that a layer, a function or an operation is, in this library's words."""
    if isinstance(thing, keras.Layer) or not isinstance(thing, keras.Operation):
        own = thing.activation if isinstance(thing, layers.Activation) else thing
        return activation_name(thing) or str(getattr(own, "__name__", type(own).__name__))
    name = function_name(thing)
    return "gelu_tanh" if name == "gelu" and thing.approximate else name


def units_of(layer: Any, kind: str) -> int | None:
    """The axis of a layer's features; None where it is that of its input."""
    if kind == "conv":
        return 1 if layer.data_format == "channels_first" else -1
    if isinstance(layer, layers.BatchNormalization | layers.GroupNormalization):
        return int(layer.axis)
    return -1 if kind in ("dense", "embedding", "recurrent", "attention", "matmul") else None
