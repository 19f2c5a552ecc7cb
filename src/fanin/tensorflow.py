"""The tutorial's initializers for TensorFlow 2: TensorFlow 1's names and arguments, fanin's numbers.

>>> import tensorflow as tf
>>> import fanin.tensorflow as ff
>>> w = tf.Variable(ff.truncated_normal_initializer(0.0, 0.1, seed=1)([784, 256]))
>>> b = tf.Variable(ff.constant_initializer(0.1)([256]))

Each is at once an initializer of ``tf.compat.v1``, of TensorFlow 2 and of Keras. Weights are (..., in, out).
A part of a partitioned variable is the exact slice of the whole. With a seed every call gives the core's
numbers of that seed; without one a seed is drawn by a TensorFlow operation, which ``tf.random.set_seed``
governs like any other.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fanin import initializers as core
from fanin._types import Array, Dtype, Shape, Window
from fanin.dialects import tf1
from fanin.dialects._seeded import PartitionInfo, Seeded, _partition
from fanin.dtypes import as_dtype, held, is_numeric
from fanin.errors import DtypeError, ShapeError
from fanin.fans import check_shape
from fanin.keras._classes import documented, subclass
from fanin.memory import aligned
from fanin.sampling import check_window

PACKAGE = "fanin.tensorflow"
ARGUMENTS = """dtype : tf.DType, dtype or str
    Of the tensor, unless the call names another."""
SEED = """seed : int, optional
    Any integer. None draws a seed at each call, by ``tf.random.set_seed`` where it was called.
"""
CALLED = """

Notes
-----
Called with ``shape`` and ``dtype``, and for a part of a variable with ``partition_info`` (TensorFlow 1) or
``partition_shape`` and ``partition_offset`` (TensorFlow 2), it returns a ``tf.Tensor``."""


@dataclass(frozen=True)
class _Part:
    """TensorFlow 2's partition arguments as TensorFlow 1 has them."""

    full_shape: Shape
    var_offset: Shape


class Initializer(keras.initializers.Initializer):  # type: ignore[misc]
    """Base of all initializers here."""

    _seeded: Seeded
    _draws: bool
    _given: dict[str, Any]

    def __call__(
        self,
        shape: Any,
        dtype: Any = None,
        partition_info: PartitionInfo | None = None,
        *,
        partition_shape: Any = None,
        partition_offset: Any = None,
    ) -> tf.Tensor:
        """The tensor of a shape, or the exact slice of it that is asked for.

        Parameters
        ----------
        shape : sequence of int, tf.TensorShape or constant tensor
            (..., in, out); with ``partition_info`` the shape of the part, with ``partition_shape`` that of
            the whole.
        dtype : tf.DType, dtype or str, optional
            Instead of the constructor's.
        partition_info : object with ``full_shape`` and ``var_offset``, optional
            As ``tf.compat.v1.get_variable`` passes with a partitioner.
        partition_shape, partition_offset : sequence of int, optional
            The part's shape and where it begins, as ``tf.distribute`` passes for a sharded variable.

        Returns
        -------
        tf.Tensor
            In a graph its values are made when it runs, and are no part of the graph's definition.

        Raises
        ------
        ShapeError, DtypeError
            Also in a graph, before an operation is made.
        """
        part, info = _shape(shape), partition_info
        if partition_shape is not None or partition_offset is not None:
            if info is not None or partition_shape is None or partition_offset is None:
                raise ShapeError(
                    "a part is named by `partition_shape` and `partition_offset` together, "
                    "or by `partition_info` alone"
                )
            info = _Part(part, _shape(partition_offset, "partition_offset"))
            part = _shape(partition_shape, "partition_shape")
        full, window = (part, None) if info is None else _partition(part, info, None)
        kind = as_dtype(self._seeded.dtype if dtype is None else _dtype(dtype))
        if "value" in self._given:  # of any size, but it is here already
            held(self._given["value"], kind, "`value`")
        return _tensor(self._seeded, self._draws, full, check_window(window, full), kind)

    def get_config(self) -> dict[str, Any]:
        """Plain data that ``from_config`` turns back into an equal initializer."""
        return dict(self._given)


def _shape(shape: Any, what: str = "shape") -> tuple[int, ...]:
    """A shape that is known now, from anything TensorFlow takes for one."""
    if tf.is_tensor(shape):
        value = tf.get_static_value(shape)
        if value is None:
            raise ShapeError(f"`{what}` is a tensor whose value is known only when the graph runs: {shape}")
        shape = value.tolist()
    if isinstance(shape, tf.TensorShape) and shape.rank is None:
        raise ShapeError(f"`{what}` is unknown; expected a shape of known sizes")
    return check_shape(shape)


def _dtype(dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype from TensorFlow's or any other."""
    if isinstance(dtype, tf.DType) and not dtype.is_numpy_compatible:
        raise DtypeError(f"`dtype` {dtype.name} is not numeric")
    found = as_dtype(dtype)
    if not is_numeric(found):
        raise DtypeError(f"`dtype` {getattr(dtype, 'name', found)} is not numeric")
    return found


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def _tensor(
    seeded: Seeded, draws: bool, full: tuple[int, ...], window: Window, dtype: np.dtype[Any]
) -> tf.Tensor:
    """The values of a window, made now or when the graph runs."""
    sizes = tuple(part.stop - part.start for part in window)

    def values(seed: Any = seeded.seed) -> Array:
        out = aligned(sizes, dtype)
        known = int(seed) % 2**64 if draws else None
        return seeded.initializer(full, seed=known, window=window, out=out)

    unseeded = draws and seeded.seed is None
    if tf.executing_eagerly():
        return _adopted(values(_drawn_seed()) if unseeded else values())
    nothing = tuple(slice(0, 0) for _ in full)
    seeded.initializer(full, seed=0, dtype=dtype, window=nothing)  # refuse now, not when the graph runs
    inputs = [_drawn_seed()] if unseeded else []
    result = tf.numpy_function(values, inputs, tf.as_dtype(dtype), stateful=False)
    result.set_shape(sizes)
    return result


def _drawn_seed() -> tf.Tensor:
    """64 bits from TensorFlow's own generator, whose rules of global and operation seeds are kept so."""
    return tf.random.uniform([], tf.int64.min, tf.int64.max, tf.int64)


def _adopted(values: Array) -> tf.Tensor:
    """An array as a tensor, without a copy where DLPack can pass it: bfloat16 goes as its bits."""
    if values.dtype.name == "bfloat16":
        return tf.bitcast(_adopted(values.view(np.uint16)), tf.bfloat16)
    if values.dtype.isbuiltin == 1 and values.dtype.kind in "iuf":
        return tf.identity(tf.experimental.dlpack.from_dlpack(values.__dlpack__()))  # on the scope's device
    return tf.convert_to_tensor(values)


def _word(
    name: str, word: Callable[..., Seeded], arguments: str = "", shape: tuple[int, ...] = (64, 32)
) -> type[Initializer]:
    """The class of a word; an example calls it with ``arguments`` and ``shape``."""
    parameters = list(inspect.signature(word).parameters.values())
    draws = any(parameter.name == "seed" for parameter in parameters)

    def init(self: Initializer, given: dict[str, Any]) -> None:
        seeded = word(
            **{key: _dtype(value) if isinstance(value, tf.DType) else value for key, value in given.items()}
        )
        self._seeded, self._draws = replace(seeded, dtype=_dtype(seeded.dtype)), draws
        given["dtype"] = tf.as_dtype(self._seeded.dtype)
        if draws:
            given["seed"] = seeded.seed
        self.__dict__.update(given)
        self._given = {key: _plain(value) for key, value in given.items()}

    source = word.__doc__ or ""
    if "Parameters\n" not in source:
        source = inspect.cleandoc(type(word().initializer).__doc__ or "")
    arguments = ", ".join(filter(None, [arguments, "seed=1" if draws else ""]))
    example = f">>> {name}({arguments})({list(shape)}).shape\nTensorShape({list(shape)})"
    own = "" if source is word.__doc__ else (SEED if draws else "") + ARGUMENTS
    doc = documented(inspect.cleandoc(source).partition("\n\n>>>")[0] + CALLED, own, example)
    return subclass(Initializer, name, parameters, init, doc, package=PACKAGE)


def _plain(value: Any) -> Any:
    """An argument as plain data."""
    if isinstance(value, tf.DType):
        return value.name
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _isometry(of: Callable[[float], core.Initializer]) -> Callable[..., Seeded]:
    """The word of an orthogonal convolution, with the arguments that ``tf.contrib.framework`` gave it."""

    def word(gain: float = 1.0, seed: int | None = None, dtype: Dtype = tf1.float32) -> Seeded:
        return Seeded(of(gain), seed, dtype)

    return word


Zeros = zeros_initializer = _word("Zeros", tf1.zeros_initializer)
Ones = ones_initializer = _word("Ones", tf1.ones_initializer)
Constant = constant_initializer = _word("Constant", tf1.constant_initializer, "0.1")
Identity = identity_initializer = _word("Identity", tf1.identity_initializer)
RandomNormal = random_normal_initializer = _word("RandomNormal", tf1.random_normal_initializer)
TruncatedNormal = truncated_normal_initializer = _word("TruncatedNormal", tf1.truncated_normal_initializer)
RandomUniform = random_uniform_initializer = _word("RandomUniform", tf1.random_uniform_initializer)
UniformUnitScaling = uniform_unit_scaling_initializer = _word(
    "UniformUnitScaling", tf1.uniform_unit_scaling_initializer, "1.43"
)
VarianceScaling = variance_scaling_initializer = _word(
    "VarianceScaling", tf1.variance_scaling_initializer, "2.0, 'fan_in', 'normal'"
)
Orthogonal = orthogonal_initializer = _word("Orthogonal", tf1.orthogonal_initializer)
GlorotUniform = glorot_uniform_initializer = _word("GlorotUniform", tf1.glorot_uniform_initializer)
GlorotNormal = glorot_normal_initializer = _word("GlorotNormal", tf1.glorot_normal_initializer)
HeNormal = he_normal_initializer = he_normal = _word("HeNormal", tf1.he_normal)
HeUniform = he_uniform_initializer = he_uniform = _word("HeUniform", tf1.he_uniform)
LecunNormal = lecun_normal_initializer = lecun_normal = _word("LecunNormal", tf1.lecun_normal)
LecunUniform = lecun_uniform_initializer = lecun_uniform = _word("LecunUniform", tf1.lecun_uniform)
ConvolutionDeltaOrthogonal = convolutional_delta_orthogonal = _word(
    "ConvolutionDeltaOrthogonal", _isometry(core.DeltaOrthogonal), shape=(3, 3, 4, 8)
)
ConvolutionOrthogonal1D = convolutional_orthogonal_1d = _word(
    "ConvolutionOrthogonal1D", _isometry(core.ConvolutionOrthogonal1D), shape=(3, 4, 8)
)
ConvolutionOrthogonal2D = convolutional_orthogonal_2d = _word(
    "ConvolutionOrthogonal2D", _isometry(core.ConvolutionOrthogonal2D), shape=(3, 3, 4, 8)
)
ConvolutionOrthogonal3D = convolutional_orthogonal_3d = _word(
    "ConvolutionOrthogonal3D", _isometry(core.ConvolutionOrthogonal3D), shape=(3, 3, 3, 4, 8)
)
# The tutorial's other spellings; the odd one is its own.
truncatedNormal = TruncatedNormal  # noqa: N816
XavierUniform, XavierNormal = GlorotUniform, GlorotNormal
