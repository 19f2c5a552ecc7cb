"""Maximal update parametrization."""

import math
from collections.abc import Sequence

from fanin.errors import ArgumentError
from fanin.initializers import RandomNormal
from fanin.recipe import Match, Recipe, RuleLike, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import rest


@recipe
def mup(
    base_width: int,
    d_model: int,
    std: float = 0.02,
    tied: bool = False,
    outputs: Sequence[str] | None = None,
    inputs: Sequence[str] = (),
) -> Recipe:
    r"""Normal with the std of a base model, scaled by width for what each kernel joins.

    .. math:: \operatorname{std}_{\mathrm{input}} = \sigma, \quad
              \operatorname{std}_{\mathrm{hidden}} = \sigma / \sqrt m, \quad
              \operatorname{std}_{\mathrm{output}} = \sigma / m, \qquad m = d / d_{\mathrm{base}}

    Embeddings and positions are inputs, the output layer is output, all other kernels are hidden. At the base
    width nothing changes.

    The half of the method that initialization can do. The other is the optimizer's and the model's: with
    Adam the learning rates of hidden and output kernels are divided by m (with SGD those of inputs and
    biases multiplied, that of outputs divided), attention scores divide by d_head instead of its root, and
    an output layer tied to the embedding multiplies logits by 1 / m.

    Parameters
    ----------
    base_width : int
        The width at which hyperparameters were tuned.
    d_model : int
        d, the width.
    std : float
        sigma, at the base width.
    tied : bool
        Whether the output layer is the embedding: then it is an input here.
    outputs : sequence of str, optional
        Globs of output kernels; by default those with the role ``head``.
    inputs : sequence of str
        Globs of kernels that read data, such as patches or pixels.

    References
    ----------
    Yang et al. 2022, Tensor Programs V, arXiv:2203.03466, table 3. microsoft/mup has table 8, where the
    forward pass scales: same function, other std.

    Examples
    --------
    >>> [str(rule.init) for rule in mup(base_width=64, d_model=256).rules if rule.match.role]
    ['random_normal(mean=0.0, stddev=0.005)', 'random_normal(mean=0.0, stddev=0.02)']
    """
    if tied and outputs is not None:
        raise ArgumentError("`tied` says there is no output kernel, `outputs` names some; give one of them")
    wider = d_model / base_width
    constant = RandomNormal(0.0, std)
    head: Match = role("head") if outputs is None else named(*outputs)
    rules: list[RuleLike] = [] if tied else [(head, RandomNormal(0.0, std / wider))]
    rules += [(named(*inputs), constant)] if inputs else []
    return Recipe([*rules, *rest(RandomNormal(0.0, std / math.sqrt(wider)), constant)])
