"""Llama."""

from fanin.initializers import RandomNormal
from fanin.recipe import Recipe, named
from fanin.recipes._registry import recipe
from fanin.recipes._rest import rest

GATED = ("*.gate_proj.weight", "*.up_proj.weight", "*.down_proj.weight")


@recipe
def llama(std: float = 0.02) -> Recipe:
    r"""Normal with std 0.02 everywhere, residual or not, in models with gated MLPs.

    .. math:: w \sim \mathcal N(0, 0.02^2)

    The papers do not say how Llama is initialized; this is what transformers does for it, Mistral, Qwen and
    Gemma. `gpt2` also scales what joins the residual stream, `mitchell` does so by depth.

    Parameters
    ----------
    std : float
        Of kernels and embeddings: ``initializer_range``.

    References
    ----------
    transformers/modeling_utils.py, ``_init_weights``; models/llama/configuration_llama.py.

    Examples
    --------
    >>> print(llama().rules[0].init)
    random_normal(mean=0.0, stddev=0.02)
    """
    normal = RandomNormal(0.0, std)
    return Recipe([(named(*GATED), normal), *rest(normal, normal)])
