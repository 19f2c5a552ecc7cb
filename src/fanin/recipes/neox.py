"""GPT-NeoX's small initialization, and Wang's for what joins the residual stream."""

import math
from collections.abc import Sequence

from fanin.initializers import RandomNormal
from fanin.recipe import Recipe, named
from fanin.recipes._registry import recipe
from fanin.recipes._residual import WRITES
from fanin.recipes._rest import rest


@recipe
def small_init(d_model: int) -> Recipe:
    r"""Normal with std ``sqrt(2 / (5 d))`` everywhere: what Glorot gives the (d, 4 d) kernels of an MLP.

    .. math:: \operatorname{std} = \sqrt{\frac{2}{5 d}}

    Parameters
    ----------
    d_model : int
        d, the width.

    References
    ----------
    Nguyen and Salazar 2019, arXiv:1910.05895, section 2.2. EleutherAI/gpt-neox,
    megatron/model/init_functions.py.

    Examples
    --------
    >>> print(small_init(d_model=40).rules[-1].init)
    random_normal(mean=0.0, stddev=0.1)
    """
    small = _small(d_model)
    return Recipe(rest(small, small))


@recipe
def wang_init(n_layer: int, d_model: int, residual: Sequence[str] = WRITES) -> Recipe:
    r"""Normal with std ``2 / (L sqrt(d))`` where a branch joins the residual stream, `small_init` elsewhere.

    .. math:: \operatorname{std} = \frac{2}{L \sqrt d}

    The pair is GPT-NeoX-20B's.

    Parameters
    ----------
    n_layer : int
        L, the number of blocks.
    d_model : int
        d, the width.
    residual : sequence of str
        Globs of the kernels whose outputs are added to the residual stream.

    References
    ----------
    Black et al. 2022, GPT-NeoX-20B, arXiv:2204.06745, section 2.1; Wang and Komatsuzaki 2021, GPT-J.
    EleutherAI/gpt-neox, megatron/model/init_functions.py.

    Examples
    --------
    >>> print(wang_init(n_layer=4, d_model=100).rules[0].init)
    random_normal(mean=0.0, stddev=0.05)
    """
    small = _small(d_model)
    return Recipe(
        [(named(*residual), RandomNormal(0.0, 2.0 / (n_layer * math.sqrt(d_model)))), *rest(small, small)]
    )


def _small(d_model: int) -> RandomNormal:
    return RandomNormal(0.0, math.sqrt(2.0 / (5.0 * d_model)))
