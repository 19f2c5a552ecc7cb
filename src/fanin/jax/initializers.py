"""Initializers in JAX's protocol ``(key, shape, dtype, out_sharding)``: see ``docs/jax.md``.

>>> import jax
>>> import fanin.jax as fj
>>> fj.he_normal()(jax.random.key(0), (784, 256)).shape
(784, 256)

The names of ``jax.nn.initializers`` have its arguments and defaults and mean what they mean there (their laws
are those of `fanin.dialects.jax`); all others are the core's catalogue. Each is a function whose result, an
`Initializer`, makes tensors; ``zeros`` and ``ones`` make them themselves.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import jax
import numpy as np

from fanin import initializers as core
from fanin._types import Shape
from fanin.dialects import InDialect
from fanin.dialects import jax as words
from fanin.errors import ArgumentError
from fanin.fans import AxesLike
from fanin.initializers import Description
from fanin.jax._arrays import OutSharding, check_dtype, make

P = ParamSpec("P")


@dataclass(frozen=True)
class Initializer:
    """What every function here returns: ``(key, shape, dtype, out_sharding) -> jax.Array``.

    Equal ones are equal and hash alike, so that compiled functions are not compiled twice.

    Parameters
    ----------
    core : fanin.Initializer
        What fills the tensor.
    axes : "io", "oi" or fanin.Axes
        Which axes are inputs and outputs; JAX's own words count theirs as they say.
    dtype : dtype, optional
        Used where a call names none; JAX's default float if None.
    """

    core: core.Initializer
    axes: AxesLike = "io"
    dtype: Any = None

    def __post_init__(self) -> None:
        if self.dtype is not None:
            check_dtype(self.dtype)

    def __call__(
        self, key: Any, shape: Shape, dtype: Any = None, out_sharding: OutSharding = None
    ) -> jax.Array:
        """The tensor of a key: a pure function of it, whatever the devices, shards and compilation.

        Outside compiled functions the host fills memory that JAX takes over, or each shard's window. Inside
        (``jit``, ``scan``, ``eval_shape``) it is one ``jax.pure_callback`` to the host, or with
        ``out_sharding`` one for each shard, in a ``jax.shard_map``; ``eval_shape`` draws nothing. Under
        ``vmap`` each of a batch of keys makes its own tensor, one after the other. The values are constants:
        differentiating with respect to ``key`` is not possible.

        Parameters
        ----------
        key : jax.Array
            A key, typed or raw; the seed is `fold_key` of it. Ignored where nothing is drawn.
        shape : sequence of int
            (..., in, out) unless the axes say otherwise.
        dtype : dtype, optional
            Any float up to 64 bits, bfloat16 and float8 included: float32 rounded once. Integers where
            nothing is drawn.
        out_sharding : NamedSharding or PartitionSpec, optional
            How the result lies on a mesh (that of ``jax.set_mesh`` for a PartitionSpec): equal parts. Without
            it the result is on the default device.

        Raises
        ------
        SeedError
            When ``key`` is not exactly one key.
        ShapeError, DtypeError, ArgumentError
            Before anything is drawn, inside compiled functions while they are traced.

        Examples
        --------
        >>> import jax
        >>> init = lecun_normal()
        >>> key = jax.random.key(0)
        >>> w = init(key, (4, 2), "bfloat16")
        >>> bool((w == jax.jit(lambda key: init(key, (4, 2), "bfloat16"))(key)).all())
        True
        """
        return make(self.core, key, shape, self.dtype if dtype is None else dtype, self.axes, out_sharding)

    def describe(self, shape: Shape) -> Description:
        """What will be drawn for a shape: see `fanin.Initializer.describe`.

        Examples
        --------
        >>> round(he_normal().describe((200, 10)).std, 6)
        0.1
        """
        return self.core.describe(shape, self.axes)


# --- how functions are made of words and classes -------------------------------------------------

MEANINGS = {
    "value": "number or array_like\n    The value, or an array that broadcasts to the shape.",
    "scale": "float\n    The factor: an upper bound, a variance's, or a matrix's, as the first line says.",
    "stddev": "float\n    Standard deviation, before truncation where there is one.",
    "lower": "float\n    Lower bound in units of ``stddev``.",
    "upper": "float\n    Upper bound in units of ``stddev``.",
    "mode": '{"fan_in", "fan_out", "fan_avg", "fan_geo_avg"}\n    What n is.',
    "distribution": '{"normal", "truncated_normal", "uniform"}\n    ``normal`` is not truncated.',
    "in_axis": "int or sequence of int\n    Inputs.",
    "out_axis": "int or sequence of int\n    Outputs.",
    "batch_axis": "int or sequence of int\n    Axes of separate tensors, which no fan counts.",
    "column_axis": "int\n    The axis against all others.",
    "axes": '"io", "oi" or fanin.Axes\n    Which axes are inputs and outputs.',
    "dtype": "dtype, optional\n    Used where a call names none; JAX's default float if None.",
}


def _listed(title: str, names: list[str]) -> str:
    return f"{title}\n{'-' * len(title)}\n" + "\n".join(f"{name} : {MEANINGS[name]}" for name in names)


def _documented(
    made: Callable[P, Initializer], head: str, name: str, args: tuple[Any, ...], shape: tuple[int, ...]
) -> Callable[P, Initializer]:
    """Name and docstring, with an example that runs."""
    made.__name__ = made.__qualname__ = name
    made.__module__ = __name__
    call = f"{name}({', '.join(map(repr, args))})(jax.random.key(0), {shape}).shape"
    made.__doc__ = (
        f"{head.strip()}\n\nReturns\n-------\nInitializer\n    ``(key, shape, dtype, out_sharding)``: "
        f"see `Initializer`.\n\nExamples\n--------\n>>> import jax\n>>> {call}\n{shape}\n"
    )
    return made


def _jax(
    word: Callable[P, InDialect], *args: Any, shape: tuple[int, ...] = (784, 256)
) -> Callable[P, Initializer]:
    """A function of ``jax.nn.initializers``: the dialect's word, its result in JAX's protocol."""

    @wraps(word)
    def made(*args: P.args, **kwargs: P.kwargs) -> Initializer:
        found = word(*map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
        return Initializer(found, dtype=found.meaning.dtype)

    signature = inspect.signature(word)
    made.__signature__ = signature.replace(return_annotation=Initializer)  # type: ignore[attr-defined]
    said = str(inspect.getdoc(word)).partition(">>>")[0].strip()
    parameters = _listed("Parameters", list(signature.parameters))
    sources = [f"``jax.nn.initializers.{word.__name__}``", word(*args).meaning.core.reference]  # type: ignore[call-arg]
    head = f"{said}\n\n{parameters}\n\nReferences\n----------\n{'; '.join(filter(None, sources))}."
    return _documented(made, head, word.__name__, args, shape)


def _core(
    cls: type[core.Initializer], *args: Any, shape: tuple[int, ...] = (784, 256)
) -> Callable[..., Initializer]:
    """A class of the catalogue as a function, with ``axes`` and ``dtype`` of its tensors."""

    def made(*args: Any, axes: AxesLike = "io", dtype: Any = None, **kwargs: Any) -> Initializer:
        plain = {name: _plain(value) for name, value in kwargs.items()}
        return Initializer(cls(*map(_plain, args), **plain), axes, dtype)

    own = inspect.signature(made).parameters
    fields = [*inspect.signature(cls).parameters.values(), own["axes"], own["dtype"]]
    made.__signature__ = inspect.Signature(fields, return_annotation=Initializer)  # type: ignore[attr-defined]
    said = re.split(r"\nExamples\n-+\n", str(inspect.getdoc(cls)))[0].strip()
    return _documented(
        made, f"{said}\n\n{_listed('Other Parameters', ['axes', 'dtype'])}", cls.name(), args, shape
    )


def _plain(value: Any) -> Any:
    """An argument in the core's types: our initializer as the core's, JAX's array as NumPy's."""
    if isinstance(value, jax.core.Tracer):
        raise ArgumentError(f"arguments of an initializer must be known while tracing, got {value}")
    if isinstance(value, jax.Array):
        return value.item() if value.ndim == 0 else np.asarray(value)
    return value.core if isinstance(value, Initializer) else value


# --- jax.nn.initializers -------------------------------------------------------------------------

_ZEROS, _ONES = Initializer(words.zeros()), Initializer(words.ones())


def zeros(key: Any, shape: Shape, dtype: Any = None, out_sharding: OutSharding = None) -> jax.Array:
    """All zeros; itself an initializer, with the arguments and errors of `Initializer`. ``key`` is ignored.

    Examples
    --------
    >>> zeros(None, (3,)).tolist()
    [0.0, 0.0, 0.0]
    """
    return _ZEROS(key, shape, dtype, out_sharding)


def ones(key: Any, shape: Shape, dtype: Any = None, out_sharding: OutSharding = None) -> jax.Array:
    """All ones; itself an initializer, with the arguments and errors of `Initializer`. ``key`` is ignored.

    Examples
    --------
    >>> ones(None, (3,), "int32").tolist()
    [1, 1, 1]
    """
    return _ONES(key, shape, dtype, out_sharding)


constant = _jax(words.constant, -7.0)
uniform = _jax(words.uniform)
normal = _jax(words.normal, 0.02)
truncated_normal = _jax(words.truncated_normal, 0.02)
variance_scaling = _jax(words.variance_scaling, 2.0, "fan_in", "truncated_normal")
glorot_uniform = xavier_uniform = _jax(words.glorot_uniform)
glorot_normal = xavier_normal = _jax(words.glorot_normal)
lecun_uniform = _jax(words.lecun_uniform)
lecun_normal = _jax(words.lecun_normal)
he_uniform = kaiming_uniform = _jax(words.he_uniform)
he_normal = kaiming_normal = _jax(words.he_normal)
orthogonal = _jax(words.orthogonal, shape=(64, 32))
delta_orthogonal = _jax(words.delta_orthogonal, shape=(3, 3, 16, 32))

# --- the rest of the catalogue -------------------------------------------------------------------

identity = _core(core.Identity, shape=(4, 4))
random_normal = _core(core.RandomNormal, 0.0, 0.02)
random_uniform = _core(core.RandomUniform, -0.05, 0.05)
uniform_unit_scaling = _core(core.UniformUnitScaling, 1.43)
convolution_orthogonal_1d = _core(core.ConvolutionOrthogonal1D, shape=(3, 4, 8))
convolution_orthogonal_2d = _core(core.ConvolutionOrthogonal2D, shape=(3, 3, 4, 8))
convolution_orthogonal_3d = _core(core.ConvolutionOrthogonal3D, shape=(2, 2, 2, 4, 8))
dirac = _core(core.Dirac, shape=(3, 3, 8, 8))
bilinear = _core(core.Bilinear, shape=(4, 4, 8, 8))
hadamard_identity = _core(core.HadamardIdentity, shape=(8, 16))
sparse = _core(core.Sparse, 0.9)
siren = _core(core.Siren, 30.0)
sinusoidal = _core(core.Sinusoidal)
mimetic = _core(core.Mimetic, "query", 4, 0.7, 0.7, "attn", shape=(64, 64))
icnr = _core(core.ICNR, "he_normal", 2, shape=(3, 3, 16, 8))
looks_linear = _core(core.LooksLinear, shape=(64, 32))
scaled = _core(core.Scaled, "he_normal", 0.5)
scaled_units = _core(core.ScaledUnits, "he_normal", (0.5, 2.0), shape=(64, 2))
blocks = _core(core.Blocks, "glorot_uniform", 3, shape=(64, 192))
with_row = _core(core.WithRow, "random_normal(0.0, 0.02)", 0)
tile = _core(core.Tile, "he_normal", (2, 1))
as_stored = _core(core.AsStored, "glorot_uniform", 4, shape=(64, 32))
masked = _core(core.Masked, "he_normal", [[True, False]], shape=(64, 2))

# functions made by functions are not found by doctest on its own
__test__ = {
    name: value for name, value in list(vars().items()) if name[0] != "_" and inspect.isfunction(value)
}
