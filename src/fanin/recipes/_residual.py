"""The kernels in the blocks of well-known models, by name."""

from collections.abc import Iterable

ATTENTION_WRITES = (  # kernels whose outputs an attention adds to the residual stream
    "*.attn.c_proj.weight",  # GPT-2
    "*.o_proj.weight",  # Llama and its descendants, ViT
    "*.out_proj.weight",  # torch.nn.MultiheadAttention, BART, CLIP, Whisper
    "*.attention.output.dense.weight",  # BERT
    "*.attention.dense.weight",  # GPT-NeoX, ALBERT
    "*.self_attention.dense.weight",  # BLOOM, Falcon
    "*.self_attn.dense.weight",  # Phi
    "*.attention.out_lin.weight",  # DistilBERT
    "*.attn_out.weight",  # OLMo
    "*.SelfAttention.o.weight",  # T5
    "*.EncDecAttention.o.weight",
    "*.attn.proj.weight",  # timm
    "*.attn.Wo.weight",  # ModernBERT
    "*.attention.output.weight",  # RWKV
)
MLP_WRITES = (  # and those of an MLP
    "*.mlp.c_proj.weight",
    "*.down_proj.weight",
    "*.linear2.weight",  # torch.nn.TransformerEncoderLayer
    "*.fc2.weight",
    "*.[0-9].output.dense.weight",  # BERT
    "*.[0-9][0-9].output.dense.weight",
    "*.dense_4h_to_h.weight",
    "*.ffn_output.weight",
    "*.ffn.lin2.weight",
    "*.fc_out.weight",  # GPT-J
    "*.blocks.*.ff_out.weight",
    "*.DenseReluDense.wo.weight",  # T5
    "*.mlp.Wo.weight",
    "*.output_dense.weight",  # Wav2Vec2
    "*.feed_forward.value.weight",
)
WRITES = ATTENTION_WRITES + MLP_WRITES
QUERIES = (
    "*.q_proj.weight",
    "*.query.weight",
    "*.query_proj.weight",
    "*.q_lin.weight",
    "*Attention.q.weight",
)
VALUES = ("*.v_proj.weight", "*.value.weight", "*.value_proj.weight", "*.v_lin.weight", "*Attention.v.weight")
MLP_READS = (
    "*.c_fc.weight",
    "*.gate_proj.weight",
    "*.up_proj.weight",
    "*.linear1.weight",
    "*.fc1.weight",
    "*.intermediate.dense.weight",
    "*.dense_h_to_4h.weight",
    "*.ffn.weight",  # ALBERT
    "*.ffn.lin1.weight",
    "*.fc_in.weight",
    "*.wi.weight",
    "*.wi_[01].weight",
    "*.mlp.Wi.weight",
    "*.intermediate_dense.weight",
)


def inside(part: str, patterns: Iterable[str]) -> tuple[str, ...]:
    """Globs (which start with ``*.``) for what lies in a part of a model: its encoder, its decoder.

    >>> inside("encoder", ["*.fc1.weight"])
    ('encoder.*.fc1.weight', '*.encoder.*.fc1.weight')
    """
    return tuple(f"{front}{part}.*{pattern[1:]}" for pattern in patterns for front in ("", "*."))
