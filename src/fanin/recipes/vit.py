"""Vision transformers."""

from fanin.initializers import RandomNormal, Zeros
from fanin.recipe import Recipe, layer, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import TORCH, optional, rest

TOKENS = ("*cls_token", "*class_token", "*reg_token", "*register_tokens", "*dist_token")
HEADS = ("head.*", "*.head.*", "heads.*", "*.heads.*", "classifier.*", "*.classifier.*")


@recipe
def vit(std: float = 0.02) -> Recipe:
    r"""Normal with std 0.02, class tokens near zero, patches as PyTorch's convolutions, a zero head.

    .. math:: w \sim \mathcal N(0, 0.02^2), \quad
              w_{\mathrm{patch}} \sim U(-1 / \sqrt{\mathrm{fan\_in}}, 1 / \sqrt{\mathrm{fan\_in}}), \quad
              w_{\mathrm{head}} = 0

    Biases are 0 but for that of the patches, position embeddings have std 0.02, class and register tokens
    1e-6. timm's ``trunc_normal_`` has absolute bounds of 2, a hundred std away, and cuts nothing. timm zeroes
    the head in its ``jax`` mode, as the paper does; in its default mode the head has std 0.02, too.

    Parameters
    ----------
    std : float
        Of linear layers and positions.

    References
    ----------
    timm, models/vision_transformer.py, ``init_weights``, ``init_weights_vit_timm`` and ``_jax``.
    Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2 (zero head).

    Examples
    --------
    >>> print(vit().rules[0])
    role kernel, layer conv*
    """
    normal = RandomNormal(0.0, std)
    return Recipe(
        [
            (role("kernel") & layer("conv*"), TORCH),
            *optional(
                (role("bias") & layer("conv*"), TORCH),
                (role("head"), Zeros()),
                (role("kernel") & named(*HEADS), Zeros()),
                (named(*TOKENS), RandomNormal(0.0, 1e-6)),
            ),
            (role("position"), normal),
            *rest(normal, normal),
        ]
    )
