"""GPT-2."""

import math
from collections.abc import Sequence

from fanin.initializers import RandomNormal
from fanin.recipe import Recipe, named
from fanin.recipes._registry import recipe
from fanin.recipes._residual import WRITES
from fanin.recipes._rest import rest


@recipe
def gpt2(n_layer: int, std: float = 0.02, residual: Sequence[str] = WRITES) -> Recipe:
    r"""Normal with std 0.02 everywhere, and ``0.02 / sqrt(2 n_layer)`` where a branch joins the residual.

    .. math:: \operatorname{std} = \frac{0.02}{\sqrt{2 L}}

    Each of L blocks adds twice to the residual stream, by its attention and by its MLP.

    Parameters
    ----------
    n_layer : int
        L, the number of blocks.
    std : float
        Of everything else, embeddings and positions included.
    residual : sequence of str
        Globs of the kernels whose outputs are added to the residual stream.

    References
    ----------
    Radford et al. 2019, Language models are unsupervised multitask learners, section 2.3.

    Examples
    --------
    >>> print(gpt2(n_layer=8).rules[0].init)
    random_normal(mean=0.0, stddev=0.005)
    """
    normal = RandomNormal(0.0, std)
    return Recipe(
        [(named(*residual), RandomNormal(0.0, std / math.sqrt(2 * n_layer))), *rest(normal, normal)]
    )
