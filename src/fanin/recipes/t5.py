"""T5."""

import math

from fanin.initializers import RandomNormal, VarianceScaling
from fanin.recipe import Recipe, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._residual import QUERIES
from fanin.recipes._rest import rest


@recipe
def t5(d_model: int, d_kv: int) -> Recipe:
    r"""Normal with std ``1 / sqrt(fan_in)``, that of queries over ``sqrt(d_kv)``: T5 does not scale scores.

    .. math:: \operatorname{std}_q = \frac{1}{\sqrt{d\,d_{kv}}}, \quad
              \operatorname{std}_{k,v} = \frac{1}{\sqrt d}, \quad
              \operatorname{std}_o = \frac{1}{\sqrt{h\,d_{kv}}}, \quad
              \operatorname{std}_{wi} = \frac{1}{\sqrt d}, \quad
              \operatorname{std}_{wo} = \frac{1}{\sqrt{d_{ff}}}

    Relative position biases have std ``1 / sqrt(d)``, embeddings 1. An output layer of its own has
    ``1 / sqrt(d)``, so that logits start with size 1; transformers gives it 1 and logits of size ``sqrt(d)``.

    Parameters
    ----------
    d_model : int
        d, the width.
    d_kv : int
        The size of a head.

    References
    ----------
    Raffel et al. 2020, arXiv:1910.10683, with the scales of Mesh TensorFlow: transformers,
    models/t5/modeling_t5.py, ``_init_weights``.

    Examples
    --------
    >>> t5(d_model=512, d_kv=64).rules[0].init.describe((512, 512), "oi").std == (512 * 64) ** -0.5
    True
    """
    relative = role("embedding", "position") & named("*relative_attention_bias*")
    return Recipe(
        [
            (named(*QUERIES), VarianceScaling(1.0 / d_kv, "fan_in", "untruncated_normal")),
            (relative, RandomNormal(0.0, 1.0 / math.sqrt(d_model))),
            *rest(VarianceScaling(1.0, "fan_in", "untruncated_normal"), RandomNormal(0.0, 1.0)),
        ]
    )
