"""Residual branches that a learned scalar lets in, starting at zero."""

from collections.abc import Sequence

from fanin.initializers import Constant, Zeros
from fanin.recipe import Match, Recipe, named, role
from fanin.recipes._registry import recipe


@recipe
def rezero(kernel: str = "glorot_uniform", scales: Sequence[str] | None = None) -> Recipe:
    r"""The scalar that multiplies each residual branch is 0, so that every block starts as the identity.

    .. math:: x_{l + 1} = x_l + \alpha_l F(x_l), \qquad \alpha_l = 0

    For models that have such scalars: initialization does not add them, nor remove the norms they replace.

    Parameters
    ----------
    kernel : str
        The initializer of everything else, used as a recipe.
    scales : sequence of str, optional
        Globs of the scalars; by default every parameter with the role ``scale``.

    References
    ----------
    Bachlechner et al. 2021, ReZero is all you need, arXiv:2003.04887, section 3.

    Examples
    --------
    >>> print(rezero(scales=["*.resweight"]))
    *.resweight  zeros()
    *            glorot_uniform()
    """
    return Recipe([(_scalars(scales), Zeros()), ("*", kernel)])


@recipe
def skipinit(alpha: float = 0.0, kernel: str = "he_normal", scales: Sequence[str] | None = None) -> Recipe:
    r"""As `rezero`, for convolutional networks without batch normalization: branches times alpha, He's law.

    .. math:: x_{l + 1} = x_l + \alpha_l F(x_l), \qquad \alpha_l = \alpha

    Parameters
    ----------
    alpha : float
        0, or ``1 / sqrt(number of branches)``.
    kernel, scales
        As for `rezero`.

    References
    ----------
    De and Smith 2020, Batch normalization biases residual blocks towards the identity function in deep
    networks, arXiv:2002.10444, section 4.

    Examples
    --------
    >>> print(skipinit(0.25, scales=["*.skip_gain"]))
    *.skip_gain  constant(value=0.25)
    *            he_normal()
    """
    return Recipe([(_scalars(scales), Constant(alpha)), ("*", kernel)])


def _scalars(scales: Sequence[str] | None) -> Match:
    return role("scale") if scales is None else named(*scales)
