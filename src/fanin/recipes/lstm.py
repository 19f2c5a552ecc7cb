"""Recurrent networks."""

from fanin.initializers import Constant, GlorotUniform, Orthogonal
from fanin.recipe import Recipe, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import optional


@recipe
def lstm(forget: float = 1.0) -> Recipe:
    r"""Orthogonal recurrent kernels, Glorot's uniform law for inputs, forget gates that start open.

    .. math:: U_g U_g^\top = I, \qquad
              W_g \sim U\!\left(-\sqrt{\tfrac{6}{n + h}}, \sqrt{\tfrac{6}{n + h}}\right), \qquad
              b_{\mathrm{forget}} = 1

    gate by gate: n inputs and h units are the fans, however gates are packed. Other biases are 0; of two
    biases one has the 1.

    Parameters
    ----------
    forget : float
        The bias of forget gates.

    References
    ----------
    Jozefowicz, Zaremba, Sutskever 2015, An empirical exploration of recurrent network architectures, section
    2.1 (forget bias). Saxe, McClelland, Ganguli 2014, arXiv:1312.6120. Keras, layers/rnn/lstm.py.

    Examples
    --------
    >>> print(lstm().rules[0])
    role recurrent_kernel
    """
    return Recipe(
        [
            (role("recurrent_kernel"), Orthogonal()),
            *optional((role("gate_bias") & named("*forget_gate*"), Constant(forget))),
            ("*", GlorotUniform()),
        ]
    )
