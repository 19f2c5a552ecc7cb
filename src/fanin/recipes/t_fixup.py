"""Transformers without layer normalization."""

import math

from fanin.initializers import VarianceScaling
from fanin.recipe import Recipe, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._residual import MLP_READS, VALUES, WRITES, inside
from fanin.recipes._rest import AS_DEFINED, optional

SCALED = VALUES + MLP_READS + WRITES


@recipe
def t_fixup(n_encoder_layer: int, n_decoder_layer: int) -> Recipe:
    r"""Glorot's uniform law, scaled down in the branches of an encoder and a decoder, and small embeddings.

    .. math:: \operatorname{std} = s \sqrt{\frac{2}{\mathrm{fan\_in} + \mathrm{fan\_out}}}, \qquad
              s_{\mathrm{enc}} = 0.67\, N^{-1/4}, \quad s_{\mathrm{dec}} = (9 M)^{-1/4}

    for values, attention outputs and MLPs; queries, keys and the output layer have ``s = 1``. Embeddings are
    normal with std ``s / sqrt(d)``: (9 N)^(-1/4) in the encoder and where it is shared, (9 M)^(-1/4) in the
    decoder.

    For transformers built for it: without layer normalization; that also makes warm-up unnecessary. The
    authors' code leaves queries and keys smaller by sqrt(2), as their packed kernel was.

    Parameters
    ----------
    n_encoder_layer, n_decoder_layer : int
        N and M.

    References
    ----------
    Huang, Perez, Ba, Volkovs 2020, Improving transformer optimization through better initialization, section
    3.4. layer6ai-labs/T-Fixup, fairseq/modules/transformer_layer.py, ``fixup_initialization``.

    Examples
    --------
    >>> t_fixup(n_encoder_layer=6, n_decoder_layer=4).rules[1].init.scale * 6  # (9 * 4) ** (-1/4), squared
    1.0
    """
    table = role("embedding", "position")
    encoder, decoder = (
        VarianceScaling(1.0 / math.sqrt(9 * n), "fan_out", "untruncated_normal")
        for n in (n_encoder_layer, n_decoder_layer)
    )
    return Recipe(
        [
            (named(*inside("encoder", SCALED)), _glorot(0.67 * 0.67 / math.sqrt(n_encoder_layer))),
            (named(*inside("decoder", SCALED)), _glorot(1.0 / math.sqrt(9 * n_decoder_layer))),
            AS_DEFINED,
            *optional((table & named("decoder.*", "*.decoder.*"), decoder), (table, encoder)),
            ("*", _glorot(1.0)),
        ]
    )


def _glorot(squared_gain: float) -> VarianceScaling:
    return VarianceScaling(squared_gain, "fan_avg", "uniform")
