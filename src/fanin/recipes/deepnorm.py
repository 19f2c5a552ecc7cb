"""Transformers of a thousand layers."""

import math

from fanin.initializers import VarianceScaling
from fanin.recipe import Recipe, RuleLike, named
from fanin.recipes._registry import recipe
from fanin.recipes._residual import MLP_READS, VALUES, WRITES, inside
from fanin.recipes._rest import rest

SCALED = VALUES + MLP_READS + WRITES
TABLE = VarianceScaling(1.0, "fan_out", "untruncated_normal")  # 1 / sqrt(d): the fan_out of a table


@recipe
def deepnorm(n_layer: int, n_encoder_layer: int | None = None, n_decoder_layer: int | None = None) -> Recipe:
    r"""Glorot's normal law, times beta for values, attention outputs and MLPs.

    .. math:: \operatorname{std} = \beta \sqrt{\frac{2}{\mathrm{fan\_in} + \mathrm{fan\_out}}}, \qquad
              \beta = (8 L)^{-1/4}

    for an encoder or a decoder of L layers. With an encoder of N and a decoder of M layers
    ``beta = 0.87 (N^4 M)^(-1/16)`` in the encoder and ``(12 M)^(-1/4)`` in the decoder. Queries, keys and the
    rest have ``beta = 1``, embeddings std ``1 / sqrt(d)``.

    Half of the method: the model must also compute ``layer_norm(alpha x + f(x))`` after every branch, with
    ``alpha = (2 L)^(1/4)``, in an encoder beside a decoder ``0.81 (N^4 M)^(1/16)``, in that decoder
    ``(3 M)^(1/4)``.

    Parameters
    ----------
    n_layer : int
        L, the number of layers, where there is an encoder or a decoder alone.
    n_encoder_layer, n_decoder_layer : int, optional
        N and M, where there are both.

    References
    ----------
    Wang et al. 2022, arXiv:2203.00555, figure 2. microsoft/torchscale, architecture/encoder.py, decoder.py.

    Examples
    --------
    >>> deepnorm(n_layer=2).rules[0].init.scale  # beta ** 2
    0.25
    """
    if n_encoder_layer is None or n_decoder_layer is None:
        rules: list[RuleLike] = [(named(*SCALED), _glorot(1.0 / math.sqrt(8 * n_layer)))]
    else:
        root = math.sqrt(math.sqrt(math.sqrt(n_encoder_layer**4 * n_decoder_layer)))  # its square: of beta
        rules = [
            (named(*inside("encoder", SCALED)), _glorot(0.87 * 0.87 / root)),
            (named(*inside("decoder", SCALED)), _glorot(1.0 / math.sqrt(12 * n_decoder_layer))),
        ]
    return Recipe([*rules, *rest(_glorot(1.0), TABLE)])


def _glorot(squared_gain: float) -> VarianceScaling:
    return VarianceScaling(squared_gain, "fan_avg", "untruncated_normal")
