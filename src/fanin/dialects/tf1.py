"""TensorFlow 1's initializers: its names, long and short, its arguments and defaults; NumPy alone.

>>> from fanin.dialects import tf1 as tf
>>> w = tf.random_normal_initializer(0.0, 1.0, seed=1)([784, 256])
>>> w.shape, w.dtype
((784, 256), dtype('float32'))

Every name is a function that returns a `Seeded` initializer. Weights have the layout (..., in, out). Any
Python int is a seed; ``seed=None`` draws a fresh one at every call. Names and defaults are those of
TensorFlow 1.15; "normal" in variance scaling is truncated and corrected, as since its version 1.9.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fanin import initializers as core
from fanin._types import Dtype
from fanin.dialects._seeded import Seeded
from fanin.dialects._words import Counted, Dialect
from fanin.dtypes import as_dtype
from fanin.errors import ArgumentError, DtypeError, ShapeError
from fanin.fans import Axes, Fans
from fanin.initializers import Description, Initializer
from fanin.sampling import Canvas, integers, name_stream

# dtypes by TensorFlow's names, so that ``dtype=tf.float32`` reads as in the tutorial
bfloat16, float16, half, float32, float64 = "bfloat16", "float16", "float16", "float32", "float64"
int8, int16, int32, int64 = "int8", "int16", "int32", "int64"
uint8, uint16, uint32, uint64 = "uint8", "uint16", "uint32", "uint64"
bool = "bool"


@dataclass(frozen=True, eq=False)
class _RepeatLast(Initializer):
    """TensorFlow 1's constant: values in row-major order, the last one repeated to the end."""

    values: np.ndarray[Any, np.dtype[Any]]
    verify_shape: Any = False
    drawn = False
    formula = "w = value, its last element repeated"

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        self._fitted(where.shape)._fill(where, seed, name, axes)

    def _fitted(self, shape: tuple[int, ...]) -> core.Constant:
        if self.verify_shape and self.values.shape != shape:
            raise ShapeError(
                f"`value` has shape {self.values.shape}, but `shape` is {shape} (verify_shape=True)"
            )
        if self.values.size == 1:
            return core.Constant(self.values.ravel()[0].item())
        size = int(np.prod(shape, dtype=object))
        if self.values.size > size:
            raise ShapeError(f"`value` has {self.values.size} elements, too many for `shape` {shape}")
        flat = self.values.ravel()
        filled = np.concatenate([flat, np.repeat(flat[-1:], size - flat.size)])
        return core.Constant(filled.reshape(shape))

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        return self._fitted(shape)._describe(shape, axes, fans)


@dataclass(frozen=True)
class _RandomInteger(Initializer):
    """Uniform integers in [minval, maxval)."""

    minval: int
    maxval: int
    formula = "w ~ uniform on the integers minval .. maxval - 1"

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        integers(self.minval, self.maxval, where, name_stream(seed, name, where.shape), axes)

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        count = self.maxval - self.minval
        mean, std = (self.minval + self.maxval - 1) / 2, ((count * count - 1) / 12) ** 0.5
        text = f"uniform on the integers {self.minval} .. {self.maxval - 1}"
        return Description("random_uniform", shape, self.formula, text, mean, std, fans=fans)


def zeros_initializer(dtype: Dtype = float32) -> Seeded:
    """All zeros, of any numeric dtype or bool.

    >>> zeros_initializer()([3]).tolist()
    [0.0, 0.0, 0.0]
    """
    return Seeded(core.Zeros(), dtype=dtype)


def ones_initializer(dtype: Dtype = float32) -> Seeded:
    """All ones, of any numeric dtype or bool.

    >>> ones_initializer(dtype="int32")([2]).tolist()
    [1, 1]
    """
    return Seeded(core.Ones(), dtype=dtype)


def constant_initializer(value: Any = 0, dtype: Dtype = float32, verify_shape: Any = False) -> Seeded:
    """A number, or a list of values in row-major order; too few values repeat the last one.

    Parameters
    ----------
    value : number, list, tuple or ndarray
        Too many values for a shape are an error when it is called.
    dtype : dtype
        Of the result.
    verify_shape : bool
        If true, ``value`` must have exactly the shape.

    >>> constant_initializer([1, 2, 3])([2, 3]).tolist()
    [[1.0, 2.0, 3.0], [3.0, 3.0, 3.0]]
    """
    if isinstance(value, int | float | complex):
        return Seeded(core.Constant(value), dtype=dtype)
    if not isinstance(value, list | tuple | np.ndarray | np.generic):
        raise DtypeError(f"`value` must be a number, list, tuple or array, got {value!r}")
    checked = core.Constant(np.atleast_1d(np.asarray(value))).value
    if checked.size == 0:
        raise ArgumentError("`value` is empty; expected at least one number")
    return Seeded(_RepeatLast(checked, verify_shape), dtype=dtype)


def random_normal_initializer(
    mean: float = 0.0, stddev: float = 1.0, seed: int | None = None, dtype: Dtype = float32
) -> Seeded:
    """Normal draws; ``stddev`` defaults to 1.

    >>> round(float(random_normal_initializer(stddev=0.1, seed=1)([200, 200]).std()), 2)
    0.1
    """
    return Seeded(core.RandomNormal(mean, stddev), seed, dtype)


def truncated_normal_initializer(
    mean: float = 0.0, stddev: float = 1.0, seed: int | None = None, dtype: Dtype = float32
) -> Seeded:
    """Normal draws cut at two ``stddev``, which is the standard deviation before the cut.

    >>> (abs(truncated_normal_initializer(0.0, 0.1, seed=1)([100, 100])) <= 0.2).all().item()
    True
    """
    return Seeded(core.TruncatedNormal(mean, stddev), seed, dtype)


def random_uniform_initializer(
    minval: float = 0, maxval: float | None = None, seed: int | None = None, dtype: Dtype = float32
) -> Seeded:
    """Uniform draws: [0, 1) by default; integers in [minval, maxval) for an integer dtype.

    >>> sorted(set(random_uniform_initializer(0, 3, seed=1, dtype="int32")([100]).tolist()))
    [0, 1, 2]
    """
    kind = as_dtype(dtype)
    if kind.kind not in "iu":
        return Seeded(core.RandomUniform(minval, 1.0 if maxval is None else maxval), seed, dtype)
    if maxval is None:
        raise ArgumentError(f"`maxval` must be given for the integer dtype {kind}")
    low, high = _whole("minval", minval), _whole("maxval", maxval)
    if not low < high:
        raise ArgumentError(
            f"`minval` (={low}) must be below `maxval` (={high}) for the integer dtype {kind}"
        )
    limits = np.iinfo(kind)
    if low < limits.min or high - 1 > limits.max:
        raise DtypeError(f"[{low}, {high}) does not fit `dtype` {kind} ({limits.min} .. {limits.max})")
    return Seeded(_RandomInteger(low, high), seed, dtype)


def _whole(what: str, value: Any) -> int:
    if not hasattr(value, "__index__"):
        raise ArgumentError(f"`{what}` must be an integer for an integer dtype, got {value!r}")
    return int(value.__index__())


def uniform_unit_scaling_initializer(
    factor: float = 1.0, seed: int | None = None, dtype: Dtype = float32
) -> Seeded:
    """Uniform draws in +-sqrt(3 / input_size) * factor; factor 1.43 for ReLU, 1.15 for tanh.

    >>> uniform_unit_scaling_initializer(1.0).describe([300, 10]).limit
    0.1
    """
    return Seeded(core.UniformUnitScaling(factor), seed, dtype)


def variance_scaling_initializer(
    scale: float = 1.0,
    mode: Any = "fan_in",
    distribution: str = "normal",
    seed: int | None = None,
    dtype: Dtype = float32,
) -> Seeded:
    """Draws of variance ``scale / n``; "normal" is truncated.

    >>> round(variance_scaling_initializer(2.0, "fan_in", "normal").describe([800, 10]).std, 6)
    0.05
    """
    initializer = core.VarianceScaling(scale, mode, distribution)
    if initializer.scale == 0:
        raise ArgumentError(f"`scale` must be > 0, got {scale!r}")
    return Seeded(initializer, seed, dtype)


def orthogonal_initializer(gain: float = 1.0, seed: Any = None, dtype: Any = float32) -> Seeded:
    """An orthogonal matrix times ``gain``; both (gain, seed, dtype) and (gain, dtype, seed) are understood.

    >>> q = orthogonal_initializer(1.0, seed=1)([8, 8])
    >>> np.allclose(q @ q.T, np.eye(8), atol=1e-6)
    True
    >>> np.array_equal(orthogonal_initializer(1.0, float32, 1)([8, 8]), q)
    True
    """
    if seed is not None and not hasattr(seed, "__index__"):  # the tutorial's order
        seed, dtype = (None if dtype is float32 else dtype), seed
    return Seeded(core.Orthogonal(gain), seed, dtype)


def identity_initializer(gain: float = 1.0, dtype: Dtype = float32) -> Seeded:
    """The identity matrix times ``gain``; exactly two axes.

    >>> identity_initializer()([2, 2]).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return Seeded(core.Identity(gain), dtype=dtype)


def glorot_uniform_initializer(seed: int | None = None, dtype: Dtype = float32) -> Seeded:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)).

    >>> glorot_uniform_initializer().describe([300, 300]).limit
    0.1
    """
    return Seeded(core.GlorotUniform(), seed, dtype)


def glorot_normal_initializer(seed: int | None = None, dtype: Dtype = float32) -> Seeded:
    """Truncated normal with variance 2 / (fan_in + fan_out).

    >>> round(glorot_normal_initializer().describe([100, 100]).std, 6)
    0.1
    """
    return Seeded(core.GlorotNormal(), seed, dtype)


def he_normal(seed: int | None = None, dtype: Dtype = float32) -> Seeded:
    """Truncated normal with variance 2 / fan_in.

    >>> round(he_normal().describe([200, 10]).std, 6)
    0.1
    """
    return Seeded(core.HeNormal(), seed, dtype)


def he_uniform(seed: int | None = None, dtype: Dtype = float32) -> Seeded:
    """Uniform in +-sqrt(6 / fan_in).

    >>> he_uniform().describe([600, 10]).limit
    0.1
    """
    return Seeded(core.HeUniform(), seed, dtype)


def lecun_normal(seed: int | None = None, dtype: Dtype = float32) -> Seeded:
    """Truncated normal with variance 1 / fan_in.

    >>> round(lecun_normal().describe([100, 10]).std, 6)
    0.1
    """
    return Seeded(core.LecunNormal(), seed, dtype)


def lecun_uniform(seed: int | None = None, dtype: Dtype = float32) -> Seeded:
    """Uniform in +-sqrt(3 / fan_in).

    >>> lecun_uniform().describe([300, 10]).limit
    0.1
    """
    return Seeded(core.LecunUniform(), seed, dtype)


# The tutorial's short names; the odd spelling is its own.
Zeros, Ones, Constant, Identity = (
    zeros_initializer,
    ones_initializer,
    constant_initializer,
    identity_initializer,
)
RandomNormal, RandomUniform = random_normal_initializer, random_uniform_initializer
TruncatedNormal = truncatedNormal = truncated_normal_initializer  # noqa: N816
UniformUnitScaling, VarianceScaling = uniform_unit_scaling_initializer, variance_scaling_initializer
Orthogonal = orthogonal_initializer
GlorotUniform = XavierUniform = glorot_uniform_initializer
GlorotNormal = XavierNormal = glorot_normal_initializer
HeNormal = he_normal_initializer = he_normal
HeUniform = he_uniform_initializer = he_uniform
LecunNormal = lecun_normal_initializer = lecun_normal
LecunUniform = lecun_uniform_initializer = lecun_uniform

DIALECT = Dialect(
    "tf1",
    "TensorFlow 1, ",
    Counted(out=(-1,), in_=(-2,), vectors=True),
    {
        name: f"{name}_initializer"
        for name in (
            "zeros",
            "ones",
            "constant",
            "identity",
            "random_normal",
            "truncated_normal",
            "random_uniform",
            "uniform_unit_scaling",
            "variance_scaling",
            "orthogonal",
            "glorot_uniform",
            "glorot_normal",
        )
    },
)
DIALECT.words = {
    function.__name__: function
    for function in (
        zeros_initializer,
        ones_initializer,
        constant_initializer,
        identity_initializer,
        random_normal_initializer,
        truncated_normal_initializer,
        random_uniform_initializer,
        uniform_unit_scaling_initializer,
        variance_scaling_initializer,
        orthogonal_initializer,
        glorot_uniform_initializer,
        glorot_normal_initializer,
        he_normal,
        he_uniform,
        lecun_normal,
        lecun_uniform,
    )
}
