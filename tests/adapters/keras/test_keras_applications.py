"""Every family of keras.applications: complete plans, fans of each layer, a forward that is finite.

Fans are computed here from the layers' own settings and shapes.
"""

import gc
import math
from functools import cache
from types import ModuleType

import keras
import numpy as np
import pytest
from keras import applications, layers

import fanin.keras as fk

# Keras reads variables by np.array(variable), which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# the smallest of each family, and the smallest images that it takes
FAMILIES = {
    "convnext": (applications.ConvNeXtTiny, 32),
    "densenet": (applications.DenseNet121, 32),
    "efficientnet": (applications.EfficientNetB0, 32),
    "efficientnet_v2": (applications.EfficientNetV2B0, 32),
    "inception_resnet_v2": (applications.InceptionResNetV2, 75),
    "inception_v3": (applications.InceptionV3, 75),
    "mobilenet": (applications.MobileNet, 32),
    "mobilenet_v2": (applications.MobileNetV2, 32),
    "mobilenet_v3": (applications.MobileNetV3Small, 32),
    "nasnet": (applications.NASNetMobile, 32),
    "resnet": (applications.ResNet50, 32),
    "resnet_v2": (applications.ResNet50V2, 32),
    "vgg16": (applications.VGG16, 32),
    "vgg19": (applications.VGG19, 32),
    "xception": (applications.Xception, 71),
}
# modules that say the same again, or hold no architecture
OTHERS = {"imagenet_utils", "resnet50", "mobilenet_v3"} - set(FAMILIES)


def build(name):
    make, size = FAMILIES[name]
    return make(weights=None, input_shape=(size, size, 3), classes=10, include_top=True)


@cache
def planned(name):
    model = build(name)
    return model, fk.initialize(model, "he_normal", seed=0)


each = pytest.mark.parametrize("name", FAMILIES)


def leaves(layer):
    """The layers in a layer that hold no others."""
    inner = layer._flatten_layers(include_self=False, recursive=False)
    return [leaf for part in inner for leaf in leaves(part)] if inner else [layer]


def expected_fans(layer):
    """{a kernel: (fan_in, fan_out)} by what the layer computes."""
    if isinstance(layer, layers.SeparableConv2D):
        field = math.prod(layer.kernel_size)
        _, _, wide, out = layer.pointwise_kernel.shape
        return {
            layer.depthwise_kernel.path: (field, field * layer.depth_multiplier),
            layer.pointwise_kernel.path: (wide, out),
        }
    if isinstance(layer, layers.DepthwiseConv2D):
        field = math.prod(layer.kernel_size)
        return {layer.kernel.path: (field, field * layer.depth_multiplier)}
    if isinstance(layer, layers.Conv2D):
        field, inputs = math.prod(layer.kernel_size), layer.kernel.shape[-2]
        return {layer.kernel.path: (field * inputs, field * layer.filters // layer.groups)}
    if isinstance(layer, layers.Dense):
        return {layer.kernel.path: tuple(layer.kernel.shape)}
    return {}


def test_no_family_is_missing():
    modules = {name for name, what in vars(applications).items() if isinstance(what, ModuleType)}
    assert modules - OTHERS == set(FAMILIES)


@each
def test_every_parameter_is_known(name):
    model, plan = planned(name)
    assert sorted(tensor.path for tensor in plan.tensors) == sorted(v.path for v in model.trainable_variables)
    assert {row.role for row in plan.rows} <= {"kernel", "bias", "norm_scale", "norm_bias", "scale"}
    assert sum(math.prod(row.shape) for row in plan.rows) == sum(
        math.prod(variable.shape) for variable in model.trainable_variables
    )


@each
def test_fans_are_those_of_the_layers(name):
    model, plan = planned(name)
    expected = {path: fans for leaf in leaves(model) for path, fans in expected_fans(leaf).items()}
    found = {row.path: tuple(row.fans) for row in plan.rows if row.role == "kernel"}
    assert found == expected


@each
def test_kernels_have_the_variance_that_was_planned(name):
    model, plan = planned(name)
    kept = {variable.path: variable for variable in model.trainable_variables}
    kernels = [row for row in plan.rows if row.role == "kernel"]
    for row in kernels:
        values = keras.ops.convert_to_numpy(kept[row.path])
        assert row.std == pytest.approx(math.sqrt(2 / row.fans.fan_in))
        # a normal sample's std is normal with std 1 / sqrt(2 n); 6 of these over some hundred kernels
        assert values.std() == pytest.approx(row.std, rel=6 / math.sqrt(2 * values.size))
    assert kernels


@each
def test_the_output_is_finite(name):
    model, _ = planned(name)
    size = FAMILIES[name][1]
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    output = model.predict(images, verbose=0)
    assert output.shape == (2, 10)
    assert np.isfinite(output).all()
    assert output.sum(1) == pytest.approx(1, abs=1e-5)


def test_a_family_built_again_has_the_same_names():
    """Keras counts the layers of the process; fanin those of the model."""
    _, plan = planned("inception_v3")
    again = fk.plan(build("inception_v3"), "he_normal", seed=0)
    assert [row.name for row in again.rows] == [row.name for row in plan.rows]
    assert [row.path for row in again.rows] != [row.path for row in plan.rows]


@pytest.fixture(scope="module", autouse=True)
def released():
    """The models of this file go when it is done."""
    yield
    planned.cache_clear()
    gc.collect()
