"""The kernels of well-known models whose outputs are added to a residual stream."""

WRITES = (
    "*.attn.c_proj.weight",  # GPT-2
    "*.mlp.c_proj.weight",
    "*.o_proj.weight",  # Llama and its descendants
    "*.down_proj.weight",
    "*.out_proj.weight",  # torch.nn.MultiheadAttention, BART, CLIP, Whisper
    "*.linear2.weight",  # torch.nn.TransformerEncoderLayer
    "*.fc2.weight",
    "*.attention.output.dense.weight",  # BERT, ViT
    "*.output.dense.weight",
    "*.SelfAttention.o.weight",  # T5
    "*.EncDecAttention.o.weight",
    "*.DenseReluDense.wo.weight",
    "*.attn.proj.weight",  # timm
)
