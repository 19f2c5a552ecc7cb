"""BERT."""

from fanin.initializers import TruncatedNormal
from fanin.recipe import Recipe, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import AS_DEFINED


@recipe
def bert(std: float = 0.02) -> Recipe:
    r"""Truncated normal with std 0.02 before the cut at two: kernels, embeddings, positions.

    .. math:: w \sim \mathcal N(0, 0.02^2) \text{ given } |w| \le 0.04

    Biases are 0, norm scales 1. The original draws so; transformers does not cut.

    Parameters
    ----------
    std : float
        Before the cut: ``initializer_range``.

    References
    ----------
    google-research/bert, modeling.py, ``create_initializer``. Devlin et al. 2019, arXiv:1810.04805.

    Examples
    --------
    >>> print(bert().rules[1].init)
    truncated_normal(mean=0.0, stddev=0.02, lower=-2.0, upper=2.0)
    """
    cut = TruncatedNormal(0.0, std)
    return Recipe([AS_DEFINED, (role("embedding", "position"), cut), ("*", cut)])
