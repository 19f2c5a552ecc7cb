"""Networks with sine activations."""

from collections.abc import Sequence

from fanin.initializers import Siren
from fanin.recipe import Recipe, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import TORCH, optional

FIRST = ("0.weight", "0.linear.weight", "net.0.weight", "*net.0.linear.weight", "layers.0.*weight")


@recipe
def siren(omega: float = 30.0, first: Sequence[str] = FIRST) -> Recipe:
    r"""Uniform, so that pre-activations of ``sin(omega (W x + b))`` are standard normal in every layer.

    .. math:: w_{\mathrm{first}} \sim U(-1 / n, 1 / n), \quad
              w \sim U(-\sqrt{6 / n} / \omega, \sqrt{6 / n} / \omega), \quad
              b \sim U(-1 / \sqrt n, 1 / \sqrt n), \quad n = \mathrm{fan\_in}

    The factor omega is the model's. Biases are as in the authors' code: PyTorch's.

    Parameters
    ----------
    omega : float
        The frequency in the activations, > 0.
    first : sequence of str
        Globs of the first layer's kernel, whose inputs are coordinates in [-1, 1].

    References
    ----------
    Sitzmann, Martel, Bergman, Lindell, Wetzstein 2020, arXiv:2006.09661, section 3.2 and supplement 1.5.

    Examples
    --------
    >>> print(siren().rules[0].init)
    siren(omega=30.0, first=True)
    """
    return Recipe(
        [
            (role("kernel") & named(*first), Siren(omega, first=True)),
            *optional((role("bias"), TORCH)),
            ("*", Siren(omega)),
        ]
    )
