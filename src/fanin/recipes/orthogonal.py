"""Orthogonal kernels, with the gain of the activation that follows."""

from fanin.gains import gain
from fanin.initializers import Orthogonal
from fanin.recipe import Recipe, activation, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import optional

SLOPE = 0.25  # of PReLU, at its start
# gain: what PyTorch, Keras and transformers call the activation; ``*gelu*`` are its approximations
FOLLOWED = {
    "relu": ("relu", "relu6"),
    "leaky_relu": ("leaky_relu", "leakyrelu"),
    "tanh": ("tanh",),
    "sigmoid": ("sigmoid",),
    "selu": ("selu",),
    "elu": ("elu",),
    "gelu": ("gelu",),
    "gelu_tanh": ("*gelu*",),
    "silu": ("silu", "swish"),
    "mish": ("mish",),
    "softplus": ("softplus",),
    "softsign": ("softsign",),
    "hardtanh": ("hardtanh", "hard_tanh"),
    "relu_squared": ("relu_squared", "relusquared", "relu2"),
}


@recipe
def orthogonal() -> Recipe:
    r"""Orthogonal kernels times the gain of the activation that follows, 1 where none is known.

    .. math:: W W^\top = g^2 I \text{ or } W^\top W = g^2 I, \qquad
              g = 1 / \sqrt{\mathbb E\,\varphi(z)^2}, \quad z \sim \mathcal N(0, 1)

    Recurrent kernels and output layers have gain 1. A leaky ReLU is taken to have slope 0.01, a PReLU 1/4.
    ``("*", "orthogonal(1.5)")`` is the initializer of that name, with one gain for all.

    References
    ----------
    Saxe, McClelland, Ganguli 2014, arXiv:1312.6120, section 3; `fanin.gain`.

    Examples
    --------
    >>> print(orthogonal().rules[0])
    role kernel, activation relu | relu6
    """
    gains = [(names, gain(name)) for name, names in FOLLOWED.items()]
    gains.append((("prelu",), gain("leaky_relu", slope=SLOPE)))
    rules = [(role("kernel") & activation(*names), Orthogonal(factor)) for names, factor in gains]
    return Recipe([*optional(*rules), ("*", Orthogonal())])
