"""Glorot, He, LeCun: kernels by their fans."""

from fanin._types import Mode
from fanin.initializers import VarianceScaling
from fanin.recipe import Recipe
from fanin.recipes._registry import recipe


@recipe
def glorot(distribution: str = "uniform") -> Recipe:
    r"""Kernels with variance ``2 / (fan_in + fan_out)``: for linear, tanh and softsign layers.

    .. math:: \operatorname{Var} w = \frac{2}{\mathrm{fan\_in} + \mathrm{fan\_out}}

    Everything else as with any initializer used as a recipe: biases 0, norm scales 1, tables normal(0.02).

    Parameters
    ----------
    distribution : {"uniform", "normal", "untruncated_normal"}
        As for `fanin.VarianceScaling`: ``"normal"`` is cut at two standard deviations.

    References
    ----------
    Glorot and Bengio 2010, equations 12 and 16.

    Examples
    --------
    >>> print(glorot())
    *  variance_scaling(scale=1.0, mode='fan_avg', distribution='uniform')
    """
    return Recipe([("*", VarianceScaling(1.0, "fan_avg", distribution))])


@recipe
def he(mode: Mode = "fan_in", distribution: str = "normal", slope: float = 0.0) -> Recipe:
    r"""Kernels with variance ``2 / fan_in``: for layers that a ReLU follows.

    .. math:: \operatorname{Var} w = \frac{2}{(1 + a^2)\, \mathrm{fan}}

    Everything else as for `glorot`.

    Parameters
    ----------
    mode : {"fan_in", "fan_out"}
        Whether the signal or the gradient keeps its size.
    distribution : {"normal", "uniform", "untruncated_normal"}
        As for `glorot`.
    slope : float
        a, the slope of the activation below zero.

    References
    ----------
    He, Zhang, Ren, Sun 2015, arXiv:1502.01852, equations 10, 14 and 15.

    Examples
    --------
    >>> print(he("fan_out", slope=1.0))
    *  variance_scaling(scale=1.0, mode='fan_out', distribution='normal')
    """
    return Recipe([("*", VarianceScaling(2.0 / (1.0 + slope * slope), mode, distribution))])


@recipe
def lecun(distribution: str = "normal") -> Recipe:
    r"""Kernels with variance ``1 / fan_in``: for linear, SELU and normalized layers.

    .. math:: \operatorname{Var} w = 1 / \mathrm{fan\_in}

    Everything else as for `glorot`.

    Parameters
    ----------
    distribution : {"normal", "uniform", "untruncated_normal"}
        As for `glorot`.

    References
    ----------
    LeCun, Bottou, Orr, Müller 1998, Efficient BackProp, equation 16. Klambauer et al. 2017,
    arXiv:1706.02515 (SELU).

    Examples
    --------
    >>> print(lecun())
    *  variance_scaling(scale=1.0, mode='fan_in', distribution='normal')
    """
    return Recipe([("*", VarianceScaling(1.0, "fan_in", distribution))])
