"""What Flax's layers start from."""

from fanin.initializers import AsStored, Constant, LecunNormal, Orthogonal, VarianceScaling, Zeros
from fanin.recipe import Recipe, layer, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import AS_DEFINED, optional

TABLE = VarianceScaling(1.0, "fan_out", "untruncated_normal")  # the fan_out of a table are its features
SLOPE = 0.01


@recipe
def flax() -> Recipe:
    r"""Each layer as Flax draws it by default: LeCun's normal law, cut at two standard deviations.

    .. math:: \operatorname{Var} w = 1 / \mathrm{fan\_in}

    Transposed convolutions count fan_in without their stride. Recurrent kernels are orthogonal, gate by
    gate, biases 0, those of forget gates, too; embeddings are normal with variance ``1 / features``, norm
    scales 1, PReLU's slope 0.01.

    ``OptimizedLSTMCell`` of `flax.nnx` packs its gates and draws their recurrent kernels as one orthogonal
    matrix; here they are those of ``LSTMCell``.

    References
    ----------
    flax/linen/linear.py, recurrent.py, attention.py, activation.py (0.12).

    Examples
    --------
    >>> print(flax().rules[-1].init)
    lecun_normal()
    """
    rules = optional(
        (role("recurrent_kernel"), Orthogonal()),
        (role("kernel") & layer("conv_transpose*"), AsStored(LecunNormal())),
        (role("embedding"), TABLE),
        (role("position") & layer("embedding"), TABLE),
        (role("gate_bias"), Zeros()),
        (role("slope"), Constant(SLOPE)),
    )
    return Recipe([AS_DEFINED, *rules, ("*", LecunNormal())])
