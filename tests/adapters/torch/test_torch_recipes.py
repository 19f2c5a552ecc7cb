"""Named recipes on real modules: PyTorch's own laws, transformers' own scales, the facts that plans show."""

import math
import re
from dataclasses import replace

import models
import numpy as np
import pytest
import torch
import transformers
from torch import nn

import fanin
import fanin.torch as ft
from fanin.errors import RecipeError

SAMPLES = 20_000
D, FF = 48, 80


# --- PyTorch's layers ----------------------------------------------------------------------------

RECURRENT = {"proj_size": 3, "num_layers": 2, "bidirectional": True}
LAYERS = [
    nn.Linear(30, 40),
    nn.Conv1d(6, 8, 5),
    nn.Conv2d(12, 8, 3, groups=4),
    nn.Conv3d(4, 6, 3),
    nn.ConvTranspose1d(6, 9, 5, stride=3),
    nn.ConvTranspose2d(6, 10, 3, stride=2, groups=2),
    nn.ConvTranspose3d(4, 6, 3),
    nn.Embedding(40, 20),
    nn.Embedding(40, 20, padding_idx=3),
    nn.EmbeddingBag(40, 20),
    nn.RNN(7, 9),
    nn.LSTM(7, 9, **RECURRENT),
    nn.GRU(7, 9, num_layers=2),
    nn.RNNCell(7, 9),
    nn.LSTMCell(7, 9),
    nn.GRUCell(7, 9),
    nn.MultiheadAttention(24, 4, add_bias_kv=True),
    nn.MultiheadAttention(24, 4, kdim=10, vdim=14),
    nn.MultiheadAttention(24, 4, vdim=24, kdim=24, bias=False),
    nn.TransformerEncoderLayer(16, 2, 40),
    nn.TransformerDecoderLayer(16, 2, 40),
    nn.BatchNorm2d(12),
    nn.InstanceNorm1d(12, affine=True),
    nn.LayerNorm(12),
    nn.GroupNorm(3, 12),
    nn.RMSNorm(12),
    nn.PReLU(5),
]


def reset(module):
    """Draw a module again by PyTorch's own means: layers first, then the attentions they are in."""
    for child in reversed(list(module.modules())):
        again = getattr(child, "_reset_parameters", None) or getattr(child, "reset_parameters", None)
        if again is not None:
            again()


def theirs(module, repeats):
    """{parameter: the values of as many draws}."""
    values = {path: [] for path, _ in module.named_parameters()}
    for _ in range(repeats):
        reset(module)
        for path, parameter in module.named_parameters():
            values[path].append(parameter.detach().numpy().ravel().copy())
    return {path: np.concatenate(drawn) for path, drawn in values.items()}


def ours(plan, path, repeats):
    return np.concatenate([replace(plan, seed=seed).fill(path).ravel() for seed in range(repeats)])


def distance(a, b):
    """Kolmogorov and Smirnov's: between the distribution functions of two samples."""
    a, b, both = np.sort(a), np.sort(b), np.concatenate([a, b])
    return np.abs(
        np.searchsorted(a, both, "right") / a.size - np.searchsorted(b, both, "right") / b.size
    ).max()


def is_drawn(plan, tensor):
    return any(row.source == "draw" for row, _ in plan.parts(tensor))


@pytest.mark.parametrize("module", LAYERS, ids=lambda module: type(module).__name__)
def test_the_recipe_torch_has_the_law_of_reset_parameters(module):
    torch.manual_seed(0)
    plan = ft.plan(module, "torch", seed=0)
    sizes = {tensor.path: math.prod(tensor.shape) for tensor in plan.tensors if is_drawn(plan, tensor)}
    drawn = theirs(module, math.ceil(SAMPLES / min(sizes.values(), default=SAMPLES)))
    for tensor in plan.tensors:
        repeats = math.ceil(SAMPLES / sizes.get(tensor.path, SAMPLES))
        mine, other = ours(plan, tensor.path, repeats), drawn[tensor.path]
        other = other[: mine.size]
        if np.ptp(other) == 0:
            assert (mine == other[0]).all(), tensor.path
            continue
        n = mine.size
        # P(distance > c sqrt(2 / n)) < 2 exp(-2 c^2); six deviations of the second moment
        assert distance(mine, other) < 3.5 * math.sqrt(2 / n), tensor.path
        spread = math.hypot((mine**2).std(), (other**2).std())
        assert abs((mine**2).mean() - (other**2).mean()) < 6 * spread / math.sqrt(n), tensor.path
        (std,) = {row.std for row, _ in plan.parts(tensor)}
        assert abs((other**2).mean() - std**2) < 6 * (other**2).std() / math.sqrt(n), tensor.path


def test_bounds_of_kernels_are_pytorchs():
    for module in LAYERS[:7]:
        row = ft.plan(module, "torch", seed=0)["weight"]
        inputs, _ = nn.init._calculate_fan_in_and_fan_out(module.weight)
        limit = row.initializer.describe(row.shape, row.axes).limit
        assert limit == pytest.approx(1 / math.sqrt(inputs), rel=1e-14)


def test_the_recipe_torch_counts_both_inputs_of_a_bilinear_layer():
    """The one layer whose law differs: PyTorch's bound is 1 / sqrt(in1)."""
    plan = ft.plan(nn.Bilinear(4, 9, 5), "torch", seed=0)
    for row in plan.rows:
        assert row.std == pytest.approx(1 / math.sqrt(3 * 36))


# --- transformers --------------------------------------------------------------------------------

SMALL = {"hidden_size": D, "intermediate_size": FF, "num_hidden_layers": 2, "num_attention_heads": 4}
T5 = {"d_model": D, "d_ff": FF, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4, "d_kv": 8}


def pretrained(kind, config, **options):
    return getattr(transformers, kind)(getattr(transformers, config)(**options))


def gpt2():
    return pretrained("GPT2LMHeadModel", "GPT2Config", n_embd=D, n_layer=3, n_head=4, vocab_size=90)


def llama():
    return pretrained("LlamaForCausalLM", "LlamaConfig", **SMALL, vocab_size=90, num_key_value_heads=2)


def t5(**options):
    return pretrained("T5ForConditionalGeneration", "T5Config", **T5, vocab_size=90, **options)


def bart():
    return pretrained(
        "BartForConditionalGeneration", "BartConfig", d_model=D, encoder_ffn_dim=FF, decoder_ffn_dim=FF,
        encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4,
        vocab_size=90,
    )  # fmt: skip


THEIR_OWN = [("gpt2", gpt2), ("llama", llama), ("t5", t5), ("t5", lambda: t5(feed_forward_proj="gated-gelu"))]


@pytest.mark.parametrize(("recipe", "build"), THEIR_OWN)
def test_recipes_have_the_scales_of_transformers_own_initialization(recipe, build):
    torch.manual_seed(0)
    module = build()
    plan = ft.plan(module, recipe, seed=0)
    for tensor in plan.tensors:
        values = module.get_parameter(tensor.path).detach().numpy()
        ((mean, std),) = {(row.mean, row.std) for row, _ in plan.parts(tensor)}
        if std == 0:
            assert (values == mean).all(), tensor.path
        else:  # the second moment of n normal numbers
            assert abs((values**2).mean() / std**2 - 1) < 6 * math.sqrt(2 / values.size), tensor.path


def stds(plan, pattern):
    found = {row.std for row in plan.rows if re.fullmatch(pattern, row.name)}
    assert found, f"{pattern} is no row"
    return found


def assert_stds(plan, expected):
    for pattern, std in expected.items():
        for found in stds(plan, pattern):
            assert found == pytest.approx(std, rel=1e-13), pattern


def glorot(fan_in, fan_out, gain):
    return gain * math.sqrt(2 / (fan_in + fan_out))


def test_packed_projections_of_gpt2_are_three():
    plan = ft.plan(gpt2(), "deepnorm", seed=0)
    assert plan.recipe == "deepnorm(n_layer=3)"
    front, beta = r"transformer\.h\.\d\.", 24**-0.25
    expected = {
        rf"{front}attn\.[qk]_proj\.weight": glorot(D, D, 1),
        rf"{front}attn\.(v_proj|c_proj)\.weight": glorot(D, D, beta),
        rf"{front}mlp\.c_(fc|proj)\.weight": glorot(D, 4 * D, beta),
        r"transformer\.wte\.weight": D**-0.5,
    }
    assert_stds(plan, expected)
    plan = ft.plan(gpt2(), "mitchell", seed=0)
    assert plan.recipe == f"mitchell(n_layer=3, d_model={D}, d_ff={4 * D})"
    ratio = plan["transformer.h.2.mlp.c_proj.weight"].std / plan["transformer.h.0.mlp.c_proj.weight"].std
    assert ratio == pytest.approx(1 / math.sqrt(3))


def test_an_encoder_and_a_decoder_have_their_own_gains():
    for model, recipe in (
        (bart(), "deepnorm"),
        (nn.Transformer(D, 4, 2, 3, FF, batch_first=True), "deepnorm"),
    ):
        plan = ft.plan(model, recipe, seed=0)
        for half, beta in (("encoder", 0.87 * (2**4 * 3) ** (-1 / 16)), ("decoder", 36**-0.25)):
            front = rf"(model\.)?{half}\.layers\.\d\."
            assert_stds(
                plan,
                {
                    rf"{front}.*attn\.[qk]_proj\.weight": glorot(D, D, 1),
                    rf"{front}.*attn\.(v|out)_proj\.weight": glorot(D, D, beta),
                    rf"{front}(fc|linear)[12]\.weight": glorot(D, FF, beta),
                },
            )
    plan = ft.plan(bart(), "t_fixup", seed=0)
    assert_stds(
        plan,
        {
            r"model\.encoder\.layers\.\d\.fc1\.weight": glorot(D, FF, 0.67 * 2**-0.25),
            r"model\.decoder\.layers\.\d\.encoder_attn\.v_proj\.weight": glorot(D, D, 27**-0.25),
        },
    )


def test_bert_is_cut_and_vit_has_a_zero_head():
    model = pretrained("BertForMaskedLM", "BertConfig", **SMALL, vocab_size=90)
    plan = ft.plan(model, "bert", seed=0)
    drawn = [row for row in plan.rows if row.source == "draw" and "word_embeddings" not in row.name]
    assert {row.initializer for row in drawn} == {fanin.TruncatedNormal(0.0, 0.02)}
    assert len(drawn) == 2 + 12 + 1  # positions and types, two blocks of six, the transform
    assert not plan.fill("bert.embeddings.word_embeddings.weight")[0].any()  # padding
    model = pretrained(
        "ViTForImageClassification", "ViTConfig", **SMALL, image_size=16, patch_size=8, num_labels=5
    )
    plan = ft.plan(model, "vit", seed=0)
    assert_stds(
        plan,
        {
            r"vit\.layers\..*(_proj|fc[12])\.weight|.*position_embeddings": 0.02,
            r".*cls_token": 1e-6,
            r".*patch_embeddings.*": 1 / math.sqrt(3 * 192),
            r"classifier\..*": 0.0,
        },
    )


def test_the_widths_of_a_transformer_of_pytorch_are_seen():
    layer = nn.TransformerEncoderLayer(D, 4, FF, batch_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    plan = ft.plan(model, "wang_init", seed=0)
    assert plan.recipe == f"wang_init(n_layer=3, d_model={D})"
    assert_stds(
        plan,
        {
            r".*(out_proj|linear2)\.weight": 2 / (3 * math.sqrt(D)),
            r".*([qkv]_proj|linear1)\.weight": math.sqrt(2 / (5 * D)),
        },
    )
    for recipe in ("small_init", f"mitchell(d_ff={FF})", "gpt2", "mup(base_width=12, tied=True)"):
        assert ft.plan(model, recipe, seed=0).rows


def test_mup_starts_the_function_of_the_base_width_by_layer():
    plan = ft.plan(llama(), "mup(base_width=12)", seed=0)
    expected = {r".*layers.*proj\.weight": 0.01, r".*embed_tokens\.weight": 0.02, r"lm_head\.weight": 0.005}
    assert_stds(plan, expected)
    with pytest.raises(RecipeError, match=r"rule 1 \(role head\) matches no parameter"):
        ft.plan(gpt2(), "mup(base_width=12)", seed=0)  # its output layer is the embedding
    assert ft.plan(gpt2(), "mup(base_width=12, tied=True)", seed=0)


WRITERS = (
    *(
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "gpt_bigcode",
        "llama",
        "mixtral",
        "falcon",
        "bloom",
        "opt",
        "mpt",
    ),
    *(
        "bert",
        "roberta",
        "distilbert",
        "electra",
        "modernbert",
        "deberta_v2",
        "t5",
        "bart",
        "pegasus",
        "rwkv",
    ),
    *("vit", "dinov2", "swin", "clip", "whisper", "wav2vec2", "transformer_encoder"),
)


@pytest.mark.parametrize("name", WRITERS)
def test_what_joins_the_residual_stream_is_known(name):
    """In every block an attention's last kernel, and an MLP's."""
    (build,) = (model.build for model in models.MODELS if model.name == name)
    plan = ft.plan(build(), "gpt2", seed=0)
    found = {}
    for row in plan.rows:
        if row.block is not None:
            kinds = found.setdefault(row.name.partition(f".{row.block}.")[0] + f".{row.block}", set())
            if row.rule.endswith(".weight"):
                kinds.add("attention" if re.search("attn|attention", row.name, re.IGNORECASE) else "mlp")
    assert len(found) >= 2
    for block, kinds in found.items():
        assert kinds == {"attention", "mlp"}, block


# --- convolutional and others --------------------------------------------------------------------


class Fixup(nn.Module):
    """A residual block without normalization."""

    def __init__(self, width):
        super().__init__()
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x + self.scale * self.conv2(nn.functional.relu(self.conv1(x + self.bias1)) + self.bias2)


@pytest.mark.parametrize(("block", "depth"), [(models.BasicBlock, 2), (models.Bottleneck, 3)])
def test_a_residual_network_starts_every_block_as_the_identity(block, depth):
    model = models.ResNet(block)
    plan = ft.initialize(model, "resnet", seed=0)
    assert plan.recipe == f"resnet(branch_depth={depth})"
    assert plan.facts["n_block"] == 4
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0)).relu()
    model.eval()
    assert torch.equal(model.layer1(x), x)
    for row in plan.rows:
        if row.layer == "conv2d":
            assert row.std == pytest.approx(math.sqrt(2 / row.fans.fan_out), rel=1e-14)


def test_fixup_counts_branches_and_starts_as_the_identity():
    stages = [nn.Sequential(*(Fixup(8) for _ in range(count))) for count in (3, 1)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    plan = ft.initialize(model, "fixup", seed=0)
    assert plan.recipe == "fixup(n_block=4, branch_depth=2)"
    assert_stds(
        plan,
        {
            r"\d\.\d\.conv1\.weight": math.sqrt(2 / 72) / 2,
            r"0\.weight": math.sqrt(2 / 72),
            r".*conv2\.weight|5\.weight|.*bias\d?": 0.0,
        },
    )
    x = torch.ones(1, 3, 5, 5)
    assert torch.equal(model[1](model[0](x)), model[0](x))
    assert not model(x).any()


def test_branch_scalars_are_named_or_found_by_role():
    with pytest.raises(RecipeError, match=r"rule 1 \(role scale\) matches no parameter"):
        ft.plan(Fixup(8), "rezero", seed=0)
    recipe = fanin.Recipe([("bias*", "zeros")], base="skipinit(scales=['scale'])")
    model = Fixup(8)
    ft.initialize(model, recipe, seed=0)
    x = torch.ones(1, 8, 4, 4)
    assert torch.equal(model(x), x)


def test_siren_keeps_its_signal_through_depth():
    layers = [nn.Linear(2 if at == 0 else 256, 256) for at in range(5)]
    model = nn.Sequential(*layers)
    ft.initialize(model, "siren", seed=0)
    x = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        for layer in layers:
            x = torch.sin(30 * layer(x))
    # arcsine distributed in every layer: variance 1/2 (theorem 1.8); units of one network vary by 1/sqrt(256)
    assert abs(x.var() - 0.5) < 6 * 0.5 / math.sqrt(256)


def test_lstm_of_a_language_model():
    (build,) = (model.build for model in models.MODELS if model.name == "lstm_language_model")
    plan = ft.plan(build(), "lstm", seed=0)
    kinds = {row.role: row.initializer for row in plan.rows if row.layer == "lstm" and row.source == "draw"}
    assert kinds == {"kernel": fanin.GlorotUniform(), "recurrent_kernel": fanin.Orthogonal()}
    ones = {row.name.rpartition(".")[2] for row in plan.rows if row.mean == 1.0 and row.role == "gate_bias"}
    assert ones == {"forget_gate"}


def test_retinanet_scores_start_at_the_prior():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
            self.cls_logits = nn.Conv2d(8, 6, 3, padding=1)

        def forward(self, x):
            return self.cls_logits(self.conv(x))

    model = nn.ModuleDict({"backbone": nn.Conv2d(3, 8, 3), "classification_head": Head()})
    backbone = model["backbone"].weight.clone()
    ft.initialize(model, "retinanet(prior=0.02, backbone='keep')", seed=0)
    assert torch.equal(model["backbone"].weight, backbone)
    scores = model["classification_head"](torch.zeros(1, 8, 4, 4)).sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.02))


def test_orthogonal_sees_the_activation_that_follows():
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 4))
    plan = ft.plan(model, "orthogonal", seed=0)
    gains = [plan[f"{at}.weight"].initializer.gain for at in (0, 2, 4)]
    assert gains == [fanin.gain("tanh"), fanin.gain("leaky_relu"), 1.0]


@pytest.mark.parametrize("recipe", ["torch", "keras", "flax", "glorot", "he", "lecun", "orthogonal"])
def test_recipes_for_every_layer_plan_every_model(recipe):
    modules = [*LAYERS, nn.Bilinear(3, 4, 5), gpt2(), llama(), t5(), models.ResNet(models.Bottleneck)]
    for module in modules:
        plan = ft.plan(module, recipe, seed=0)
        assert all(row.source != "keep" for row in plan.rows)
