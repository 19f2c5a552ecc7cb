"""Detectors with a focal loss."""

from decimal import Decimal

from fanin.errors import ArgumentError
from fanin.initializers import Constant, RandomNormal, Zeros
from fanin.recipe import Recipe, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import optional

SCORES = ("*cls_logits.bias", "*cls_score.bias", "*retina_cls.bias")
HEADS = (
    "*classification_head.*",  # torchvision
    "*regression_head.*",
    "*cls_subnet.*",  # detectron2
    "*bbox_subnet.*",
    "*head.cls_score.*",
    "*head.bbox_pred.*",
    "*bbox_head.*",  # mmdetection
)


@recipe
def retinanet(prior: float = 0.01, backbone: str = "he_normal") -> Recipe:
    r"""Normal(0.01) heads, with a score bias for which every anchor is foreground with a small probability.

    .. math:: b = -\log \frac{1 - \pi}{\pi}, \qquad w_{\mathrm{head}} \sim \mathcal N(0, 0.01^2)

    Without it the many background anchors make the first losses huge.

    Parameters
    ----------
    prior : float
        pi, between 0 and 1.
    backbone : str
        What is not in the heads gets: an initializer used as a recipe, or ``"keep"`` where it is pretrained.

    Raises
    ------
    ArgumentError
        When the prior is no probability between 0 and 1.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár 2017, Focal loss for dense object detection, arXiv:1708.02002, section
    4.1, initialization.

    Examples
    --------
    >>> round(retinanet().rules[0].init.value, 4)
    -4.5951
    """
    if not 0.0 < prior < 1.0:
        raise ArgumentError(f"`prior` must be between 0 and 1, got {prior!r}")
    odds = (1 - Decimal(prior)) / Decimal(prior)
    return Recipe(
        [
            (named(*SCORES), Constant(-float(odds.ln()))),  # a decimal's logarithm is the same everywhere
            (role("kernel", "head") & named(*HEADS), RandomNormal(0.0, 0.01)),
            *optional((role("bias") & named(*HEADS), Zeros())),
            ("*", backbone),
        ]
    )
