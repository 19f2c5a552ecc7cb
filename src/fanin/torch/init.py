r"""``torch.nn.init`` with fanin's draws: the same names, arguments, laws and in-place meaning.

>>> from fanin.torch import init
>>> weight = torch.empty(256, 784)
>>> init.kaiming_normal_(weight, nonlinearity="relu") is weight
True

Each call takes one 64-bit word from ``generator`` (PyTorch's default CPU generator unless given, so that
``torch.manual_seed`` holds), whatever the size, dtype, strides and device of the tensor, and fills it from
the stream of that word. Equal states give equal values, and bfloat16 is float32 rounded. What draws nothing
(zeros, ones, constant, eye, dirac) is PyTorch's own function. docs/torch_init.md lists what differs.
"""

import inspect
import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import torch
from torch import Generator, Tensor
from torch.nn.init import (  # the private two are called by many a `reset_parameters` written by hand
    _calculate_correct_fan,  # noqa: F401
    _calculate_fan_in_and_fan_out,  # noqa: F401
    constant,
    constant_,
    dirac,
    dirac_,
    eye,
    eye_,
    ones_,
    zeros_,
)
from torch.overrides import handle_torch_function, has_torch_function_variadic

from fanin import gains
from fanin._types import Array, Window
from fanin.dialects import torch as words
from fanin.errors import ArgumentError
from fanin.initializers import Initializer
from fanin.streams import fold_seed
from fanin.torch._tensors import check, dtype_name, fill

__all__ = [
    "calculate_gain",
    "uniform_",
    "normal_",
    "trunc_normal_",
    "constant_",
    "ones_",
    "zeros_",
    "eye_",
    "dirac_",
    "xavier_uniform_",
    "xavier_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "orthogonal_",
    "sparse_",
    "uniform",
    "normal",
    "constant",
    "eye",
    "dirac",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "orthogonal",
    "sparse",
]

P = ParamSpec("P")
OWN_GAINS = (*words.SQUARED_GAINS, gains.LEAKY)
MORE_GAINS = tuple(name for name in (*gains.activations(), *gains.SYNONYMS) if name not in OWN_GAINS)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """PyTorch's gain of a nonlinearity, and `fanin.gain` of those PyTorch has none for.

    Parameters
    ----------
    nonlinearity : str
        PyTorch's: linear, conv1d .. conv_transpose3d and sigmoid 1, tanh 5/3, selu 3/4, relu, leaky_relu.
        Others, computed so that a layer keeps the second moment of its signal: gelu, silu, mish, elu, ...
    param : float, optional
        Slope of leaky_relu below zero, 0.01 by default.

    Raises
    ------
    ArgumentError
        For an unknown name, listing the known ones; for a slope that is no finite number.

    Examples
    --------
    >>> calculate_gain("tanh") == torch.nn.init.calculate_gain("tanh")
    True
    >>> round(calculate_gain("gelu"), 6)
    1.53353
    """
    if nonlinearity in MORE_GAINS:
        return gains.gain(nonlinearity, slope=param)
    if nonlinearity not in OWN_GAINS:
        known = ", ".join(sorted(OWN_GAINS + MORE_GAINS))
        raise ArgumentError(f"`nonlinearity` {nonlinearity!r}; expected one of {known}")
    return words.calculate_gain(nonlinearity, param)


# --- what every draw does ------------------------------------------------------------------------


def _overridable(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Let ``__torch_function__`` of a tensor subclass or a mode have the call, with all arguments by name."""
    signature = inspect.signature(function)

    @wraps(function)
    def public(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensor = args[0] if args else kwargs.get("tensor")
        if not has_torch_function_variadic(tensor):
            return function(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        override: Callable[..., Tensor] = handle_torch_function
        return override(public, (tensor,), **given.arguments)

    return public


def _draw(word: Initializer, tensor: Tensor, generator: Generator | None) -> Tensor:
    """Fill a tensor with a dialect's word; the generator moves only when nothing stands in the way."""
    on_meta = isinstance(tensor, Tensor) and tensor.is_meta
    if not on_meta:
        check(tensor, "tensor", allow_empty=True)
    shape = tuple(tensor.shape)
    nothing = tuple(slice(0, 0) for _ in shape)
    word(shape, seed=0, dtype=dtype_name(tensor.dtype), window=nothing)  # refuses what it cannot fill
    if on_meta:
        return tensor
    seed = _seed(generator)

    def write(window: Window | None, out: Array) -> None:
        word(shape, seed=seed, window=window, out=out)

    fill(tensor, write, allow_empty=True, whole=word.coupled)
    return tensor


def _seed(generator: Generator | None) -> int:
    """The seed of one call: 64 bits of a generator."""
    source = torch.default_generator if generator is None else generator
    if not isinstance(source, Generator):
        raise ArgumentError(f"`generator` must be a torch.Generator or None, got {generator!r}")
    bits = torch.empty((), dtype=torch.int64, device=source.device).random_(
        -(1 << 63), None, generator=source
    )
    return fold_seed((int(bits),), "torch.Generator")


def _fan_or_nothing(word: Initializer, tensor: Tensor, generator: Generator | None) -> Tensor:
    """Draw, but an empty tensor, which has no fan, is left alone with PyTorch's warning."""
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=4)
        word = words.uniform_()
    return _draw(word, tensor, generator)


# --- the names -----------------------------------------------------------------------------------


@_overridable
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    r"""Uniform draws, strictly between ``a`` and ``b``.

    .. math:: w \sim \mathcal U(a, b)

    Parameters
    ----------
    tensor : Tensor
        Any shape; filled in place.
    a, b : float
        Bounds.
    generator : Generator, optional
        Gives the seed; PyTorch's default CPU generator unless given.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ArgumentError
        When no number lies between the bounds.
    DtypeError, OutError
        When the tensor cannot hold such draws, or cannot be written.

    Examples
    --------
    >>> weight = uniform_(torch.empty(1000), -2.0, 3.0)
    >>> bool((weight > -2).all() and (weight < 3).all())
    True
    """
    return _draw(words.uniform_(a, b), tensor, generator)


@_overridable
def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    r"""Normal draws, not truncated.

    .. math:: w \sim \mathcal N(\mathrm{mean}, \mathrm{std}^2)

    Parameters
    ----------
    tensor : Tensor
        Any shape; filled in place.
    mean, std : float
        Mean and standard deviation (>= 0).
    generator : Generator, optional
        As for `uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ArgumentError
        When ``std`` is negative, or a number is not finite.
    DtypeError, OutError
        As for `uniform_`: seven standard deviations must fit the dtype.

    Examples
    --------
    >>> wide = normal_(torch.empty(4, 4), std=0.02, generator=torch.Generator().manual_seed(1))
    >>> half = normal_(torch.empty(4, 4).bfloat16(), std=0.02, generator=torch.Generator().manual_seed(1))
    >>> torch.equal(wide.bfloat16(), half)
    True
    """
    return _draw(words.normal_(mean, std), tensor, generator)


@_overridable
def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    r"""Normal draws cut to ``[a, b]``: absolute bounds, not multiples of ``std``.

    .. math:: w \sim \mathcal N(\mathrm{mean}, \mathrm{std}^2) \text{ given } a \le w \le b

    Exact for any bounds, however far from the mean, with the same number of random bits for each element.

    Parameters
    ----------
    tensor : Tensor
        Any shape; filled in place.
    mean, std : float
        Mean and standard deviation (> 0) before the cut.
    a, b : float
        Bounds.
    generator : Generator, optional
        As for `uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ArgumentError
        When ``std`` is not positive, or ``[a, b]`` is empty or holds no mass that float64 can tell.
    DtypeError, OutError
        As for `uniform_`.

    Examples
    --------
    >>> weight = trunc_normal_(torch.empty(1000), std=0.02, a=-0.04, b=0.04)
    >>> bool(weight.abs().max() <= 0.04)
    True
    """
    return _draw(words.trunc_normal_(mean, std, a, b), tensor, generator)


@_overridable
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    r"""Uniform draws that weigh the forward signal and the gradient alike.

    .. math:: w \sim \mathcal U(-l, l), \quad
              l = \mathrm{gain} \sqrt{\frac{6}{\mathrm{fan\_in} + \mathrm{fan\_out}}}

    Parameters
    ----------
    tensor : Tensor
        (out, in, ...), at least 2 axes; filled in place.
    gain : float
        A factor, such as `calculate_gain` gives.
    generator : Generator, optional
        As for `uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ShapeError
        For fewer than 2 axes.
    ArgumentError
        When ``gain`` is negative or not finite.
    DtypeError, OutError
        As for `uniform_`.

    References
    ----------
    Glorot and Bengio 2010, equation 16.

    Examples
    --------
    >>> weight = xavier_uniform_(torch.empty(300, 300))
    >>> bool(0.09 < weight.abs().max() < 0.1)
    True
    """
    return _draw(words.xavier_uniform_(gain), tensor, generator)


@_overridable
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    r"""Normal draws that weigh the forward signal and the gradient alike; not truncated.

    .. math:: w \sim \mathcal N(0, \mathrm{std}^2), \quad
              \mathrm{std} = \mathrm{gain} \sqrt{\frac{2}{\mathrm{fan\_in} + \mathrm{fan\_out}}}

    Parameters
    ----------
    tensor : Tensor
        (out, in, ...), at least 2 axes; filled in place.
    gain : float
        A factor, such as `calculate_gain` gives.
    generator : Generator, optional
        As for `uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, OutError
        As for `xavier_uniform_`.

    References
    ----------
    Glorot and Bengio 2010, equation 12.

    Examples
    --------
    >>> weight = xavier_normal_(torch.empty(100, 100))
    >>> bool(0.095 < weight.std() < 0.105)
    True
    """
    return _draw(words.xavier_normal_(gain), tensor, generator)


@_overridable
def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    r"""Uniform draws that keep the size of a signal through a rectifier.

    .. math:: w \sim \mathcal U(-l, l), \quad l = \mathrm{gain} \sqrt{\frac{3}{\mathrm{fan}}}

    Parameters
    ----------
    tensor : Tensor
        (out, in, ...), at least 2 axes; filled in place. An empty one is left alone, with a warning.
    a : float
        Slope of leaky_relu below zero; ``sqrt(5)`` makes the bound ``1 / sqrt(fan)``.
    mode : {"fan_in", "fan_out"}
        Which fan: that of the forward signal, or that of the gradient.
    nonlinearity : str
        What follows the layer, by PyTorch's names; its gain is `calculate_gain`'s.
    generator : Generator, optional
        As for `uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ShapeError
        For fewer than 2 axes.
    ArgumentError
        For an unknown mode or nonlinearity, or a slope that is no finite number.
    DtypeError, OutError
        As for `uniform_`.

    References
    ----------
    He, Zhang, Ren, Sun 2015, arXiv:1502.01852, equations 10 and 15.

    Examples
    --------
    >>> weight = kaiming_uniform_(torch.empty(100, 600))
    >>> bool(0.09 < weight.abs().max() < 0.1)
    True
    """
    return _fan_or_nothing(words.kaiming_uniform_(a, mode, nonlinearity), tensor, generator)


@_overridable
def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    r"""Normal draws that keep the size of a signal through a rectifier; not truncated.

    .. math:: w \sim \mathcal N(0, \mathrm{std}^2), \quad
              \mathrm{std} = \frac{\mathrm{gain}}{\sqrt{\mathrm{fan}}}

    Parameters
    ----------
    tensor, a, mode, nonlinearity, generator
        As for `kaiming_uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, OutError
        As for `kaiming_uniform_`.

    References
    ----------
    He, Zhang, Ren, Sun 2015, arXiv:1502.01852, equations 10 and 15.

    Examples
    --------
    >>> weight = kaiming_normal_(torch.empty(100, 200), nonlinearity="relu")
    >>> bool(0.097 < weight.std() < 0.103)
    True
    """
    return _fan_or_nothing(words.kaiming_normal_(a, mode, nonlinearity), tensor, generator)


@_overridable
def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    r"""Orthonormal rows or columns of the matrix (out, everything else), whichever are fewer, times ``gain``.

    .. math:: W W^\top = \mathrm{gain}^2 I \;(\mathrm{out} \le \mathrm{rest}), \qquad
              W^\top W = \mathrm{gain}^2 I \;(\mathrm{out} > \mathrm{rest})

    Haar-distributed, made in float64 and rounded once: bfloat16 and float16, too.

    Parameters
    ----------
    tensor : Tensor
        (out, ...), at least 2 axes; filled in place.
    gain : float
        A factor.
    generator : Generator, optional
        As for `uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ShapeError
        For fewer than 2 axes.
    ArgumentError
        When ``gain`` is not finite.
    DtypeError, OutError
        As for `uniform_`.

    References
    ----------
    Saxe, McClelland, Ganguli 2014, arXiv:1312.6120. Stewart 1980, SIAM J. Numer. Anal. 17(3).

    Examples
    --------
    >>> weight = orthogonal_(torch.empty(4, 2, 3))
    >>> bool(torch.allclose(weight.flatten(1) @ weight.flatten(1).T, torch.eye(4), atol=1e-6))
    True
    """
    return _draw(words.orthogonal_(gain), tensor, generator)


@_overridable
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    r"""Normal draws, but exactly ``ceil(sparsity * out)`` of each column of (out, in) are zero.

    .. math:: w \sim \mathcal N(0, \mathrm{std}^2) \text{ or } 0

    Which ones are zero comes from ``generator`` as well.

    Parameters
    ----------
    tensor : Tensor
        (out, in), 2 axes; filled in place.
    sparsity : float
        The share of zeros, 0 .. 1.
    std : float
        Standard deviation of the others.
    generator : Generator, optional
        As for `uniform_`.

    Returns
    -------
    Tensor
        ``tensor`` itself.

    Raises
    ------
    ShapeError
        For a tensor that does not have 2 axes.
    ArgumentError
        When ``sparsity`` is not in 0 .. 1, or ``std`` is negative.
    DtypeError, OutError
        As for `uniform_`.

    References
    ----------
    Martens 2010, Deep learning via Hessian-free optimization, section 5 (which means rows, not columns).

    Examples
    --------
    >>> (sparse_(torch.empty(4, 3), 0.75) == 0).sum(0).tolist()
    [3, 3, 3]
    """
    return _draw(words.sparse_(sparsity, std), tensor, generator)


# --- the old names -------------------------------------------------------------------------------


def _deprecated(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A function under its name without the underscore, with PyTorch's warning."""
    name = function.__name__.removesuffix("_")

    @wraps(function)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        text = f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`."
        warnings.warn(text, FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    renamed.__name__ = renamed.__qualname__ = name
    renamed.__doc__ = f"Deprecated name of `{name}_`."
    return renamed


uniform = _deprecated(uniform_)
normal = _deprecated(normal_)
xavier_uniform = _deprecated(xavier_uniform_)
xavier_normal = _deprecated(xavier_normal_)
kaiming_uniform = _deprecated(kaiming_uniform_)
kaiming_normal = _deprecated(kaiming_normal_)
orthogonal = _deprecated(orthogonal_)
sparse = _deprecated(sparse_)
