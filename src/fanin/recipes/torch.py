"""What PyTorch's layers start from."""

from fanin.initializers import AsStored, GlorotUniform, RandomNormal, VarianceScaling, Zeros
from fanin.recipe import Recipe, layer, named, role
from fanin.recipes._registry import recipe
from fanin.recipes._rest import AS_DEFINED, TORCH, optional

BACKWARD = VarianceScaling(1 / 3, "fan_out", "uniform")  # uniform in +-1 / sqrt(fan_out)
ATTENTION = ("attention", "packed_attention")
RECURRENT = ("rnn", "lstm", "gru")


@recipe
def torch() -> Recipe:
    r"""Each layer as PyTorch's own ``reset_parameters`` draws it: the same laws, from fanin's streams.

    .. math:: w, b \sim U(-m, m), \quad m = 1 / \sqrt{\mathrm{fan\_in}}

    for linear and convolution layers, kernels and biases. Transposed convolutions count fan_in in the stored
    shape, which is their fan_out; recurrent layers have ``m = 1 / sqrt(hidden)`` throughout. Attention has
    Glorot's uniform law, that of a (3d, d) kernel where its projections are packed, zero biases, and normal
    ``bias_k`` and ``bias_v``. Embeddings are normal(1), norm scales 1 and their biases 0, PReLU's slope 1/4.

    Two things differ. ``nn.Bilinear`` takes the size of its first input alone for fan_in, here it is that of
    both. ``nn.Transformer``, unlike its layers, draws all matrices again by Glorot's uniform law: that is
    the recipe `glorot`. Parameters of no PyTorch layer (positions, residual scales) start neutral.

    References
    ----------
    torch/nn/modules/linear.py, conv.py, rnn.py, activation.py, sparse.py, normalization.py (2.13).

    Examples
    --------
    >>> torch().rules[-1].init.describe((10, 100), "oi").limit
    0.1
    """
    gates = role("kernel", "recurrent_kernel", "gate_bias", "recurrent_bias")
    rules = optional(
        (role("embedding"), RandomNormal(0.0, 1.0)),
        (role("position") & layer("embedding"), RandomNormal(0.0, 1.0)),
        (role("bias") & layer(*ATTENTION), Zeros()),
        (role("position") & layer(*ATTENTION), VarianceScaling(1.0, "fan_avg", "untruncated_normal")),
        (role("kernel") & layer("packed_attention"), AsStored(GlorotUniform(), packed=3)),
        (role("kernel") & layer("attention") & named("*out_proj.weight"), TORCH),
        (role("kernel") & layer("attention"), GlorotUniform()),
        (named("*weight_hr") & layer(*RECURRENT), TORCH),
        (gates & layer(*RECURRENT), BACKWARD),
        (role("kernel", "bias") & layer("conv_transpose*"), BACKWARD),
        (role("bias"), TORCH),
    )
    return Recipe([AS_DEFINED, *rules, ("*", TORCH)])
