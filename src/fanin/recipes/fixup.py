"""Residual convolutional networks without normalization."""

import math

from fanin.errors import ArgumentError
from fanin.initializers import Ones, VarianceScaling, Zeros
from fanin.recipe import Recipe, layer, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import optional

DEPTHS = (2, 3)


@recipe
def fixup(n_block: int, branch_depth: int) -> Recipe:
    r"""He's normal law by fan_out, scaled down in residual branches; zero at their end and in the head.

    .. math:: \operatorname{std} = L^{-1 / (2 m - 2)} \sqrt{2 / \mathrm{fan\_out}}, \qquad
              w_{\mathrm{last}} = w_{\mathrm{head}} = 0

    For networks built for it: without normalization, with a learned scalar bias before each convolution and
    activation (0 here) and a scalar multiplier for each branch (1). Initialization alone does not add them.

    Parameters
    ----------
    n_block : int
        L, the number of residual branches.
    branch_depth : int
        m, the convolutions in a branch: 2 or 3.

    Raises
    ------
    ArgumentError
        For another depth.

    References
    ----------
    Zhang, Dauphin, Ma 2019, arXiv:1901.09321, section 3.3 (with fan_out as in the authors' code,
    hongyi-zhang/Fixup, fixup_resnet_imagenet.py).

    Examples
    --------
    >>> fixup(n_block=16, branch_depth=3).rules[1].init.scale  # 2 / sqrt(L)
    0.5
    """
    if branch_depth not in DEPTHS:
        raise ArgumentError(f"`branch_depth` must be 2 or 3, got {branch_depth!r}")
    depth = n_block if branch_depth == 2 else math.sqrt(n_block)  # L ** (1 / (m - 1))
    return Recipe(
        [
            (role("kernel") & named(*_convolutions(branch_depth)), Zeros()),
            (
                role("kernel") & named(*(p for at in range(1, branch_depth) for p in _convolutions(at))),
                _he(2.0 / depth),
            ),
            *optional(
                (role("kernel", "head") & layer("linear"), Zeros()),
                (role("unknown") & named("bias*", "*.bias*"), Zeros()),
                (role("unknown") & named("scale", "*.scale"), Ones()),
            ),
            ("*", _he(2.0)),
        ]
    )


def _he(scale: float) -> VarianceScaling:
    return VarianceScaling(scale, "fan_out", "untruncated_normal")


def _convolutions(number: int) -> tuple[str, ...]:
    """One convolution of each block: blocks are numbered, and the network's first layer is in none."""
    return (f"*[0-9].conv{number}.weight", f"*.layer.{number - 1}.convolution.weight")
