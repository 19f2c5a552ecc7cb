"""What the functions of array libraries are in an audit: the kind of operation, or none of their own.

Names are those of NumPy, PyTorch and Keras, in small letters: a word means the same in all of them.
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _each(kind: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


# Of these the operands decide: a product with a parameter is dense.
PRODUCTS = _names(
    "matmul rmatmul mm bmm mv dot inner vdot addmm addmv addbmm baddbmm einsum tensordot grouped_mm"
)
SUMS = _names("add sub rsub radd iadd isub subtract index_add scatter_add addcmul lerp")
FACTORS = _names("mul div rmul rdiv imul idiv truediv rtruediv true_divide multiply divide divide_no_nan")
ACTIVATIONS = _names(
    "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus softsign tanh sigmoid erf "
    "sin cos logsigmoid hardtanh hardswish hardsigmoid hardshrink softshrink tanhshrink threshold "
    "log_sigmoid hard_tanh hard_silu hard_sigmoid hard_shrink soft_shrink tanh_shrink sparse_plus squareplus "
    "sparse_sigmoid"
)
KINDS = {
    **_each("dense", "linear bilinear"),
    **_each("conv", "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc"),
    **_each("conv", "conv depthwise_conv separable_conv conv_transpose"),
    **_each("embedding", "embedding embedding_bag"),
    **_each("recurrent", "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    **_each("attention", "scaled_dot_product_attention multi_head_attention_forward dot_product_attention"),
    **_each("norm", "batch_norm instance_norm layer_norm group_norm rms_norm normalize local_response_norm"),
    **_each("softmax", "softmax log_softmax softmin gumbel_softmax sparsemax"),
    **_each("multiply", "glu"),
    **_each("concat", "cat concat concatenate append stack hstack vstack dstack"),
    **_each("pool", "mean nanmean max min amax amin median adaptive_avg_pool1d adaptive_avg_pool2d"),
    **_each("pool", "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d adaptive_avg_pool3d"),
    **_each("pool", "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d"),
    **_each("pool", "fractional_max_pool2d fractional_max_pool3d"),
    **_each("pool", "max_pool average_pool adaptive_max_pool adaptive_average_pool"),
    **dict.fromkeys(ACTIVATIONS, "activation"),
}
# The same values in another order, shape or dtype, some of them, or with a mask: no operation.
VIEWS = _names(
    "get getitem setitem view view_as reshape reshape_as flatten unflatten ravel permute transpose t "
    "swapaxes swapdims moveaxis movedim squeeze unsqueeze expand expand_as repeat repeat_interleave tile "
    "roll flip neg broadcast_to broadcast_tensors contiguous clone detach to type type_as float half "
    "bfloat16 double cpu cuda chunk split split_with_sizes tensor_split unbind narrow select index_select "
    "gather take take_along_dim diagonal diag diag_embed block_diag tril triu masked_fill masked_select "
    "masked_scatter index_copy index_put scatter copy pad unfold fold pixel_shuffle pixel_unshuffle "
    "channel_shuffle as_strided rot90 fliplr flipud negative positive nan_to_num resolve_conj resolve_neg "
    "conj real imag view_as_real view_as_complex sort topk meshgrid atleast_1d atleast_2d atleast_3d "
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout "
    "native_dropout requires_grad "
    "get_item slice slice_update scatter_update expand_dims cast saturate_cast convert_to_tensor "
    "stop_gradient take_along_axis unstack array_split hsplit vsplit dsplit rearrange top_k diagflat "
    "depth_to_space space_to_depth pad_images crop_images extract_patches conjugate identity"
)
LOOKUPS = _names("getitem get_item index_select gather take")  # of a table that is a parameter


def kind_of(name: str, signals: int, origins: int, constants: int) -> str | None:
    """The kind of a function; None for one that only passes values on.

    Parameters
    ----------
    name : str
        The function's own.
    signals, origins, constants : int
        How many of its arguments are signals or parameters, where these come from, and how many are numbers
        to scale them by.
    """
    if name in VIEWS or (name == "where" and signals < 2):
        return None
    if KINDS.get(name) == "concat" and origins < 2:  # parts of one signal in another order, an empty cache
        return None
    if name in SUMS:
        return "add" if signals > 1 else None
    if name in FACTORS:
        return "multiply" if signals > 1 or constants else None
    return KINDS.get(name, "matmul" if name in PRODUCTS else "other")
