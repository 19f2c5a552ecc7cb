"""What Keras's layers start from."""

import math

from fanin.initializers import AsStored, GlorotUniform, Orthogonal, RandomUniform, Zeros
from fanin.recipe import Recipe, layer, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import AS_DEFINED, optional

GATES = {"lstm": 4, "gru": 3}
TABLE = RandomUniform(-0.05, 0.05)


@recipe
def keras() -> Recipe:
    r"""Each layer as Keras 3 draws it by default: Glorot's uniform law, with Keras's way of counting fans.

    .. math:: w \sim U(-m, m), \quad m = \sqrt{6 / (\mathrm{fan\_in} + \mathrm{fan\_out})}

    Keras counts fans in the stored shape: strides and groups do not show in it, the channels of a depthwise
    kernel are its inputs, the gates of a recurrent layer are one kernel with ``fan_out = 4 units``. Biases
    are 0, those of LSTM forget gates 1, embeddings uniform(-0.05, 0.05), norm scales 1, PReLU's slope 0.

    One thing differs. Keras draws the recurrent kernels of all g gates as one matrix with orthonormal rows.
    Here each gate is orthogonal times ``1 / sqrt(g)``: side by side they have orthonormal rows, too, and
    every element the same variance.

    References
    ----------
    keras/src/layers: core/dense.py, core/embedding.py, convolutional/base_conv.py, rnn/lstm.py, rnn/gru.py,
    attention/multi_head_attention.py, activations/prelu.py; keras/src/initializers/random_initializers.py,
    ``compute_fans`` (3.15).

    Examples
    --------
    >>> print(keras().rules[-1].init)
    glorot_uniform()
    """
    gates = [
        rule
        for kind, count in GATES.items()
        for rule in (
            (role("kernel") & layer(kind), AsStored(GlorotUniform(), packed=count)),
            (role("recurrent_kernel") & layer(kind), Orthogonal(1.0 / math.sqrt(count))),
        )
    ]
    rules = optional(
        *gates,
        (role("recurrent_kernel"), Orthogonal()),
        (role("kernel") & layer("*conv*"), AsStored(GlorotUniform())),
        (role("embedding"), TABLE),
        (role("position") & layer("embedding"), TABLE),
        (role("slope"), Zeros()),
    )
    return Recipe([AS_DEFINED, *rules, ("*", GlorotUniform())])
