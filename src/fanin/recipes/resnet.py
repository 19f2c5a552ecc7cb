"""Residual convolutional networks."""

from collections.abc import Sequence

from fanin.initializers import RandomNormal, VarianceScaling, Zeros
from fanin.recipe import Recipe, layer, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import optional


@recipe
def resnet(branch_depth: int, last: Sequence[str] | None = None) -> Recipe:
    r"""He's normal law by fan_out, and residual branches that start at zero by the scale of their last norm.

    .. math:: w \sim \mathcal N(0, 2 / \mathrm{fan\_out}), \qquad \gamma_{\mathrm{last}} = 0

    Every block starts as the identity. Other norm scales are 1, the output layer is normal(0.01), biases are
    0. fan_out is that of one group: torchvision counts all outputs of a grouped convolution.

    Parameters
    ----------
    branch_depth : int
        Convolutions in a branch: 2 in a basic block, 3 in a bottleneck. The last norm has that number.
    last : sequence of str, optional
        Globs of the scales of last norms; by default those of torchvision, timm and transformers.

    References
    ----------
    Goyal et al. 2017, arXiv:1706.02677, section 5.1. He, Zhang, Ren, Sun 2015, arXiv:1502.01852, equation
    14. torchvision/models/resnet.py, ``zero_init_residual``.

    Examples
    --------
    >>> print(resnet(branch_depth=3).rules[0])
    *.bn3.weight | *.norm3.weight | *.layer.2.normalization.weight, role norm_scale
    """
    usual = (
        f"*.bn{branch_depth}.weight",
        f"*.norm{branch_depth}.weight",
        f"*.layer.{branch_depth - 1}.normalization.weight",
    )
    return Recipe(
        [
            (role("norm_scale") & named(*(usual if last is None else last)), Zeros()),
            *optional((role("kernel", "head") & layer("linear"), RandomNormal(0.0, 0.01))),
            ("*", VarianceScaling(2.0, "fan_out", "untruncated_normal")),
        ]
    )
