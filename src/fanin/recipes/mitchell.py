"""OLMo."""

import math

from fanin.initializers import TruncatedNormal
from fanin.recipe import Recipe, block, named
from fanin.recipes._registry import recipe
from fanin.recipes._residual import ATTENTION_WRITES, MLP_WRITES
from fanin.recipes._rest import rest

CUT = 3.0


@recipe
def mitchell(n_layer: int, d_model: int, d_ff: int) -> Recipe:
    r"""Normal with std ``1 / sqrt(d)``; what joins the residual stream shrinks with the layer's number.

    .. math:: \operatorname{std} = \frac{1}{\sqrt d}, \qquad
              \operatorname{std}_{o, l} = \frac{1}{\sqrt{2 d (l + 1)}}, \qquad
              \operatorname{std}_{\mathrm{down}, l} = \frac{1}{\sqrt{2 d_{ff} (l + 1)}}

    for block l, counted from 0; all cut at three std, embeddings and output layer as well. Std is that before
    the cut.

    Parameters
    ----------
    n_layer : int
        The number of blocks.
    d_model : int
        d, the width.
    d_ff : int
        The inputs of an MLP's last layer.

    References
    ----------
    allenai/OLMo, olmo/model.py, ``InitFnType.mitchell``. Groeneveld et al. 2024, arXiv:2402.00838.

    Examples
    --------
    >>> print(mitchell(n_layer=2, d_model=8, d_ff=32).rules[0].init)
    truncated_normal(mean=0.0, stddev=0.25, lower=-3.0, upper=3.0)
    """
    writes = ((ATTENTION_WRITES, d_model), (MLP_WRITES, d_ff))
    rules = [
        (named(*names) & block(index), _normal(2 * width * (index + 1)))
        for index in range(n_layer)
        for names, width in writes
    ]
    return Recipe([*rules, *rest(_normal(d_model), _normal(d_model))])


def _normal(inverse_variance: int) -> TruncatedNormal:
    return TruncatedNormal(0.0, 1.0 / math.sqrt(inverse_variance), -CUT, CUT)
