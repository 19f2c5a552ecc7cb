"""Named recipes on models made by hand: each parameter's law against the formula, and clear errors."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import fanin
from fanin import recipes
from fanin.errors import ArgumentError, PlanError, RecipeError
from fanin.fans import IO, LOOKUP, OI, Axes, Fans
from fanin.gains import gain
from fanin.model import Model, Piece, Tensor
from fanin.plan import Plan, resolve
from fanin.recipe import Recipe

D, FF, KV, VOCABULARY = 12, 40, 4, 50
DOCS = Path(__file__).parents[1] / "docs" / "recipes.md"


def tensor(name, shape, role="kernel", layer="linear", axes=OI, **facts):
    return Tensor(name, shape, "float32", (Piece(name, role, layer, axes, **facts),))


def table(name, entries=VOCABULARY, role="embedding", **facts):
    return tensor(name, (entries, D), role, "embedding", LOOKUP, **facts)


def blocks(front, count, kinds=("self_attn",)):
    """Blocks of a transformer with an MLP of two layers; ``kinds`` are its attentions."""
    for index in range(count):
        for kind in kinds:
            for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield tensor(f"{front}{index}.{kind}.{projection}.weight", (D, D), block=index)
        yield tensor(f"{front}{index}.fc1.weight", (FF, D), block=index, activation="gelu")
        yield tensor(f"{front}{index}.fc1.bias", (FF,), "bias", axes=Axes((0,), (), known=Fans(D, FF)))
        yield tensor(f"{front}{index}.fc2.weight", (D, FF), block=index)
        yield tensor(f"{front}{index}.norm.weight", (D,), "norm_scale", "layer_norm", block=index)


def decoder(count=3, **facts):
    tensors = [table("embed"), table("position", 9, "position"), *blocks("layers.", count)]
    tensors.append(tensor("head.weight", (VOCABULARY, D), "head"))
    return Model(tuple(tensors), {"n_layer": count, "d_model": D, "d_ff": FF, "d_kv": KV, **facts})


def both(encoders=2, decoders=3):
    tensors = [
        table("shared"),
        table("model.decoder.position", 9, "position"),
        *blocks("model.encoder.layers.", encoders),
        *blocks("model.decoder.layers.", decoders, ("self_attn", "encoder_attn")),
        tensor("head.weight", (VOCABULARY, D), "head"),
    ]
    facts = {"n_layer": encoders, "n_encoder_layer": encoders, "n_decoder_layer": decoders, "d_model": D}
    return Model(tuple(tensors), facts)


def residual(block, branch=2):
    """A network of 4 residual blocks in 2 stages, with norms, or with scalars in their place."""
    tensors = [tensor("conv1.weight", (8, 3, 7, 7), layer="conv2d")]
    for stage in (1, 2):
        for index in range(2):
            front = f"layer{stage}.{index}."
            for at in range(1, branch + 1):
                tensors.append(tensor(f"{front}conv{at}.weight", (8, 8, 3, 3), layer="conv2d", block=index))
                if block == "norm":
                    tensors.append(tensor(f"{front}bn{at}.weight", (8,), "norm_scale", "batch_norm"))
                else:
                    tensors.append(tensor(f"{front}bias{at}", (1,), "unknown", "Block"))
            if block == "scalar":
                tensors.append(tensor(f"{front}scale", (1,), "unknown", "Block"))
    tensors.append(tensor("layer2.0.downsample.weight", (8, 8, 1, 1), layer="conv2d", block=0))
    tensors.append(tensor("fc.weight", (10, 8)))
    return Model(tuple(tensors), {"n_block": 4, "branch_depth": branch})


def recurrent(
    kind="lstm", gates=("input_gate", "forget_gate", "cell_gate", "output_gate"), inputs=6, units=5
):
    axes = Axes.parse("(g o) i -> g : o | i", members={"g": gates})
    of_bias = Axes.parse("(g o) -> g : o |", members={"g": gates})
    fans = Axes(of_bias.out, of_bias.in_, split=of_bias.split, stack=of_bias.stack, members=of_bias.members,
                known=Fans(inputs, units))  # fmt: skip
    rows = len(gates) * units
    return Model(
        (
            tensor("weight_ih.{}", (rows, inputs), "kernel", kind, axes),
            tensor("weight_hh.{}", (rows, units), "recurrent_kernel", kind, axes),
            tensor("bias_ih.{}", (rows,), "gate_bias", kind, fans),
            tensor("bias_hh.{}", (rows,), "recurrent_bias", kind, fans),
        )
    )


def planned(recipe, model):
    return resolve(model, recipes.concrete(recipe, model.facts), 0)


def stds(plan, pattern):
    """{std} of the rows whose names match."""
    found = {row.std for row in plan.rows if re.fullmatch(pattern, row.name)}
    assert found, f"{pattern} is no row"
    return found


def assert_std(plan, pattern, std, tolerance):
    for found in stds(plan, pattern):
        assert found == pytest.approx(std, rel=tolerance, abs=0), pattern


def check(plan, expected):
    """Each pattern's std, to the last few bits; what no pattern names is constant."""
    for pattern, std in expected.items():
        assert_std(plan, pattern, std, 1e-14)
    named = re.compile("|".join(f"(?:{pattern})" for pattern in expected))
    drawn = [row.name for row in plan.rows if row.source == "draw" and not named.fullmatch(row.name)]
    assert not drawn


def glorot_std(fan_in, fan_out, gain=1.0):
    return gain * math.sqrt(2 / (fan_in + fan_out))


READS = r".*\.(q|k|v)_proj\.weight|.*\.fc1\.weight"
QK, V, OUT = r".*\.(q|k)_proj\.weight", r".*\.v_proj\.weight", r".*\.out_proj\.weight"
FC1, FC2, TABLES, HEAD = r".*fc1\.weight", r".*fc2\.weight", "embed|position", r"head\.weight"
CUT2 = 0.87962566103423978  # std of a standard normal cut at 2
CUT3 = math.sqrt(1 - 6 * math.exp(-4.5) / math.sqrt(2 * math.pi) / math.erf(3 / math.sqrt(2)))  # and at 3

# recipe, the decoder's stds by formula
DECODER = [
    ("gpt2", {READS: 0.02, f"{OUT}|{FC2}": 0.02 / math.sqrt(6), TABLES: 0.02, HEAD: 0.02}),
    ("gpt2(std=0.1)", {READS: 0.1, f"{OUT}|{FC2}": 0.1 / math.sqrt(6), TABLES: 0.1, HEAD: 0.1}),
    ("gpt2(n_layer=12)", {READS: 0.02, f"{OUT}|{FC2}": 0.02 / math.sqrt(24), TABLES: 0.02, HEAD: 0.02}),
    ("bert", {f"{READS}|{OUT}|{FC2}|{TABLES}|{HEAD}": 0.02 * CUT2}),
    ("small_init", {f"{READS}|{OUT}|{FC2}|{TABLES}|{HEAD}": math.sqrt(2 / (5 * D))}),
    (
        "wang_init",
        {f"{READS}|{TABLES}|{HEAD}": math.sqrt(2 / (5 * D)), f"{OUT}|{FC2}": 2 / (3 * math.sqrt(D))},
    ),
    (
        "deepnorm",
        {
            f"{QK}": glorot_std(D, D),
            f"{V}|{OUT}": glorot_std(D, D, 24**-0.25),
            f"{FC1}|{FC2}": glorot_std(D, FF, 24**-0.25),
            TABLES: 1 / math.sqrt(D),
            HEAD: glorot_std(D, VOCABULARY),
        },
    ),
    (
        "mup(base_width=3)",
        {f"{READS}|{OUT}|{FC2}": 0.02 / 2, TABLES: 0.02, HEAD: 0.02 / 4},
    ),
    (
        "mup(base_width=3, std=0.1, outputs=['*.fc2.weight'], inputs=['*.fc1.weight'])",
        {f"{QK}|{V}|{OUT}|{HEAD}": 0.1 / 2, f"{TABLES}|{FC1}": 0.1, FC2: 0.1 / 4},
    ),
    ("mup(base_width=12, tied=True)", {f"{READS}|{OUT}|{FC2}|{TABLES}|{HEAD}": 0.02}),
    (
        "glorot",
        {
            f"{QK}|{V}|{OUT}": glorot_std(D, D),
            f"{FC1}|{FC2}": glorot_std(D, FF),
            TABLES: 0.02,
            HEAD: glorot_std(D, VOCABULARY),
        },
    ),
    (
        "he(slope=1.0)",
        {f"{READS}|{OUT}|{HEAD}": D**-0.5, FC2: FF**-0.5, TABLES: 0.02},
    ),
    (
        "he('fan_out')",
        {
            f"{QK}|{V}|{OUT}|{FC2}": math.sqrt(2 / D),
            FC1: math.sqrt(2 / FF),
            HEAD: math.sqrt(2 / VOCABULARY),
            TABLES: 0.02,
        },
    ),
    ("lecun", {f"{READS}|{OUT}|{HEAD}": D**-0.5, FC2: FF**-0.5, TABLES: 0.02}),
    (
        "orthogonal",
        {
            f"{QK}|{V}|{OUT}": D**-0.5,
            FC1: gain("gelu") / math.sqrt(FF),
            FC2: FF**-0.5,
            HEAD: VOCABULARY**-0.5,
            TABLES: 0.02,
        },
    ),
    ("rezero(scales=['*.norm.weight'], kernel='lecun_normal')",
     {f"{READS}|{OUT}|{HEAD}": D**-0.5, FC2: FF**-0.5, TABLES: 0.02}),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "expected"), DECODER, ids=[row[0] for row in DECODER])
def test_a_decoder_has_the_formulas_stds(recipe, expected):
    check(planned(recipe, decoder()), expected)


def test_mitchell_shrinks_with_the_layers_number():
    plan = planned("mitchell", decoder())
    expected = {f"{READS}|{TABLES}|{HEAD}": D**-0.5}
    for index in range(3):
        expected[rf"layers\.{index}\.self_attn\.out_proj\.weight"] = (2 * D * (index + 1)) ** -0.5
        expected[rf"layers\.{index}\.fc2\.weight"] = (2 * FF * (index + 1)) ** -0.5
    for pattern, std in expected.items():
        assert_std(plan, pattern, std * CUT3, 1e-12)
    assert {row.initializer.upper for row in plan.rows if row.source == "draw"} == {3.0}


def test_llama_is_normal_everywhere_in_a_gated_mlp():
    front = "layers.0.mlp."
    gated = [
        tensor(f"{front}{name}.weight", shape)
        for name, shape in (("gate_proj", (FF, D)), ("up_proj", (FF, D)), ("down_proj", (D, FF)))
    ]
    check(planned("llama(std=0.05)", Model((table("embed"), *gated))), {".*": 0.05})


def test_t5_has_the_scales_of_each_projection():
    front = "encoder.block.0.layer."
    inner = 3 * KV
    model = Model(
        (
            table("shared"),
            tensor(f"{front}0.SelfAttention.q.weight", (inner, D)),
            tensor(f"{front}0.SelfAttention.k.weight", (inner, D)),
            tensor(f"{front}0.SelfAttention.o.weight", (D, inner)),
            tensor(
                f"{front}0.SelfAttention.relative_attention_bias.weight", (32, 3), "embedding", "x", LOOKUP
            ),
            tensor(f"{front}1.DenseReluDense.wo.weight", (D, FF)),
            tensor("lm_head.weight", (VOCABULARY, D), "head"),
        ),
        {"d_model": D, "d_kv": KV},
    )
    expected = {
        "shared": 1.0,
        r".*\.q\.weight": (D * KV) ** -0.5,
        r".*\.k\.weight|lm_head\.weight|.*relative_attention_bias\.weight": D**-0.5,
        r".*\.o\.weight": inner**-0.5,
        r".*\.wo\.weight": FF**-0.5,
    }
    plan = planned("t5", model)
    check(plan, expected)
    kinds = {row.initializer.name() for row in plan.rows}
    assert kinds == {"random_normal", "variance_scaling"}
    assert "truncated" not in " ".join(str(row.initializer).replace("untruncated", "") for row in plan.rows)


def test_an_encoder_beside_a_decoder_has_gains_of_its_own():
    n, m = 2, 3
    beta = 0.87 * (n**4 * m) ** (-1 / 16), (12 * m) ** -0.25
    plan = planned("deepnorm", both(n, m))
    expected = {QK: glorot_std(D, D), HEAD: glorot_std(D, VOCABULARY), "shared|.*position": D**-0.5}
    for half, gain_ in zip(("encoder", "decoder"), beta, strict=True):
        front = rf"model\.{half}\."
        expected[rf"{front}.*\.(v|out)_proj\.weight"] = glorot_std(D, D, gain_)
        expected[rf"{front}.*\.fc[12]\.weight"] = glorot_std(D, FF, gain_)
    check(plan, expected)
    plan = planned("t_fixup", both(n, m))
    expected = {QK: glorot_std(D, D), HEAD: glorot_std(D, VOCABULARY)}
    for half, gain_ in (("encoder", 0.67 * n**-0.25), ("decoder", (9 * m) ** -0.25)):
        front = rf"model\.{half}\."
        expected[rf"{front}.*\.(v|out)_proj\.weight"] = glorot_std(D, D, gain_)
        expected[rf"{front}.*\.fc[12]\.weight"] = glorot_std(D, FF, gain_)
    expected["shared"] = (9 * n) ** -0.25 / math.sqrt(D)
    expected[r"model\.decoder\.position"] = (9 * m) ** -0.25 / math.sqrt(D)
    check(plan, expected)


def test_vit_has_a_zero_head_and_patches_as_convolutions():
    model = Model(
        (
            tensor("cls_token", (1, 1, D), "position", "vit"),
            tensor("pos_embed", (1, 9, D), "position", "vit"),
            tensor("patch_embed.proj.weight", (D, 3, 4, 4), layer="conv2d"),
            tensor("patch_embed.proj.bias", (D,), "bias", "conv2d", Axes((0,), (), known=Fans(48, D))),
            *blocks("blocks.", 2),
            tensor("head.weight", (10, D)),
            tensor("head.bias", (10,), "bias"),
        )
    )
    plan = planned("vit", model)
    check(
        plan,
        {
            "cls_token": 1e-6,
            "pos_embed": 0.02,
            r"patch_embed\.proj\..*": 1 / math.sqrt(3 * 48),
            f"{READS}|{OUT}|{FC2}": 0.02,
        },
    )
    assert stds(plan, r"head\..*") == {0.0}
    assert plan["patch_embed.proj.bias"].source == "draw"


@pytest.mark.parametrize("branch", [2, 3])
def test_resnet_has_he_by_fan_out_and_a_zero_last_scale(branch):
    plan = planned("resnet", residual("norm", branch))
    he = {r"conv1\.weight": 49 * 8, r".*\.conv\d\.weight": 9 * 8, r".*downsample\.weight": 8}
    check(plan, {**{name: math.sqrt(2 / fan) for name, fan in he.items()}, r"fc\.weight": 0.01})
    for row in plan.rows:
        if row.role == "norm_scale":
            assert row.mean == (0.0 if row.name.endswith(f"bn{branch}.weight") else 1.0)
    last = planned(f"resnet({branch}, last=['layer1.1.bn1.weight'])", residual("norm", branch))
    assert [row.name for row in last.rows if row.mean == 0.0 and row.role == "norm_scale"] == [
        "layer1.1.bn1.weight"
    ]


@pytest.mark.parametrize("branch", [2, 3])
def test_fixup_scales_branches_and_ends_them_at_zero(branch):
    plan = planned("fixup", residual("scalar", branch))
    he, scale = math.sqrt(2 / 72), 4 ** (-1 / (2 * branch - 2))
    inner = "|".join(rf".*\.conv{at}\.weight" for at in range(1, branch))
    check(
        plan,
        {
            inner: he * scale,
            r"conv1\.weight": math.sqrt(2 / (49 * 8)),
            r".*downsample\.weight": math.sqrt(2 / 8),
        },
    )
    zero = rf".*\.conv{branch}\.weight|fc\.weight|.*bias\d"
    assert all(
        (row.mean == 0.0 and row.std == 0.0) == bool(re.fullmatch(zero, row.name)) for row in plan.rows
    )
    assert plan["layer1.0.scale"].mean == 1.0


def test_scalars_of_branches_start_at_zero_or_alpha():
    scalar = tensor("block.scale", (), "scale", "Block", Axes((), ()))
    model = Model((scalar, tensor("fc.weight", (8, 6))))
    plan = planned("rezero", model)
    assert (plan["block.scale"].mean, plan["block.scale"].std) == (0.0, 0.0)
    assert plan["fc.weight"].initializer == fanin.GlorotUniform()
    plan = planned("skipinit(alpha=0.25)", model)
    assert (plan["block.scale"].mean, plan["block.scale"].std) == (0.25, 0.0)
    assert plan["fc.weight"].initializer == fanin.HeNormal()


def test_retinanet_biases_scores_to_the_prior():
    head = "head.classification_head."
    bias = {"role": "bias", "layer": "conv2d"}
    model = Model(
        (
            tensor("backbone.conv.weight", (8, 3, 3, 3), layer="conv2d"),
            tensor(f"{head}conv.0.weight", (8, 8, 3, 3), layer="conv2d"),
            tensor(f"{head}conv.0.bias", (8,), **bias),
            tensor(f"{head}cls_logits.weight", (9, 8, 3, 3), layer="conv2d"),
            tensor(f"{head}cls_logits.bias", (9,), **bias),
        )
    )
    plan = planned("retinanet(prior=0.1)", model)
    assert 1 / (1 + math.exp(-plan[f"{head}cls_logits.bias"].mean)) == pytest.approx(0.1, rel=1e-14)
    check(plan, {r"head.*weight": 0.01, r"backbone.*": math.sqrt(2 / 27)})
    assert plan[f"{head}conv.0.bias"].mean == 0.0
    kept = planned("retinanet(backbone='keep')", model)
    assert [row.name for row in kept.rows if row.source == "keep"] == ["backbone.conv.weight"]
    assert planned("retinanet", model)[f"{head}cls_logits.bias"].mean == -math.log(99)


def test_siren_has_a_first_layer_of_its_own():
    tensors = [tensor(f"{at}.weight", (8, 2 if at == 0 else 8)) for at in range(3)]
    tensors += [tensor(f"{at}.bias", (8,), "bias", axes=Axes((0,), (), known=Fans(8, 8))) for at in range(3)]
    plan = planned("siren(omega=20.0)", Model(tuple(tensors)))
    hidden = math.sqrt(6 / 8) / 20
    expected = {r"0\.weight": 1 / 2, r"[12]\.weight": hidden, r"\d\.bias": 8**-0.5}
    check(plan, {name: limit / math.sqrt(3) for name, limit in expected.items()})


def test_lstm_is_orthogonal_gate_by_gate_with_an_open_forget_gate():
    plan = planned("lstm(forget=2.0)", recurrent())
    check(plan, {"weight_ih.*": glorot_std(6, 5), "weight_hh.*": 5**-0.5})
    means = {row.name: row.mean for row in plan.rows if row.role in ("gate_bias", "recurrent_bias")}
    assert {name for name, mean in means.items() if mean} == {"bias_ih.forget_gate"}
    assert means["bias_ih.forget_gate"] == 2.0
    recurrent_kernel = plan.fill("weight_hh.{}").reshape(4, 5, 5)
    for gate in recurrent_kernel:
        np.testing.assert_allclose(gate @ gate.T, np.eye(5), atol=1e-6)


GAINS = {
    "relu": gain("relu"),
    "leakyrelu": gain("leaky_relu"),
    "prelu": gain("leaky_relu", slope=0.25),
    "newgelu": gain("gelu_tanh"),
    "gelu": gain("gelu"),
    "silu": gain("silu"),
    "tanh": gain("tanh"),
    "unheard_of": 1.0,
}


@pytest.mark.parametrize(("activation", "expected"), GAINS.items())
def test_orthogonal_has_the_gain_of_the_activation_that_follows(activation, expected):
    model = Model((tensor("fc.weight", (8, 6), activation=activation),))
    assert planned("orthogonal", model)["fc.weight"].initializer == fanin.Orthogonal(expected)


# --- what frameworks do by default ---------------------------------------------------------------

# A kernel as Keras and Flax store it, and what fanin's dialect, compared with the framework, says of it.
STORED = [
    pytest.param("linear", (6, 8), IO, id="dense"),
    pytest.param("conv2d", (3, 3, 6, 8), IO, id="conv"),
    pytest.param("conv2d", (3, 3, 3, 8), Axes((-1,), (-2,), groups=2), id="grouped"),
    pytest.param("conv_transpose2d", (3, 3, 6, 8), Axes((-1,), (-2,), stride=4), id="transposed"),
]


@pytest.mark.parametrize(("layer", "shape", "axes"), STORED)
@pytest.mark.parametrize(("recipe", "word"), [("keras", "glorot_uniform"), ("flax", "default_kernel_init")])
def test_kernels_have_the_frameworks_law(layer, shape, axes, recipe, word):
    row = planned(recipe, Model((tensor("w", shape, "kernel", layer, axes),)))["w"]
    theirs = fanin.get(f"{recipe}:{word}").describe(shape)
    ours = row.initializer.describe(shape, axes)
    assert ours.std == pytest.approx(theirs.std, rel=1e-15)
    assert ours.limit == (None if theirs.limit is None else pytest.approx(theirs.limit, rel=1e-15))
    assert ours.std_before == (
        None if theirs.std_before is None else pytest.approx(theirs.std_before, rel=1e-15)
    )


@pytest.mark.parametrize("multiplier", [1, 3])
def test_keras_counts_the_channels_of_a_depthwise_kernel_as_inputs(multiplier):
    shape, axes = (3, 3, 6, multiplier), Axes.parse("* c m -> c m |", groups=6)
    row = planned("keras", Model((tensor("w", shape, "kernel", "depthwise_conv2d", axes),)))["w"]
    assert row.std == pytest.approx(fanin.get("keras:glorot_uniform").describe(shape).std, rel=1e-15)


@pytest.mark.parametrize(
    ("kind", "gates"), [("lstm", ("i", "forget_gate", "c", "o")), ("gru", ("r", "u", "n")), ("rnn", ("x",))]
)
def test_keras_takes_gates_for_one_kernel(kind, gates):
    plan = planned("keras", recurrent(kind, gates, 6, 5))
    count = len(gates)
    whole = fanin.get("keras:glorot_uniform").describe((6, count * 5))
    check(plan, {"weight_ih.*": whole.std, "weight_hh.*": (count * 5) ** -0.5})
    packed = plan.fill("weight_hh.{}").reshape(count, 5, 5)
    rows = np.concatenate(list(packed.transpose(0, 2, 1)), axis=1)  # Keras's (units, gates * units)
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-6)
    ones = {row.name for row in plan.rows if row.mean == 1.0}
    assert ones == ({"bias_ih.forget_gate"} if kind == "lstm" else set())


def others():
    return Model(
        (
            table("embedding", padding_row=None),
            tensor("slope", (8,), "slope", "prelu"),
            tensor("bias", (8,), "bias", axes=Axes((0,), (), known=Fans(6, 8))),
            tensor("norm", (8,), "norm_scale", "layer_norm"),
        )
    )


@pytest.mark.parametrize(
    ("recipe", "table", "slope"),
    [
        ("torch", "torch:normal_()", 0.25),
        ("keras", "keras:random_uniform()", 0.0),
        ("flax", "flax:default_embed_init()", 0.01),
    ],
)
def test_tables_slopes_and_norms_have_the_frameworks_start(recipe, table, slope):
    plan = planned(recipe, others())
    theirs = fanin.get(table).describe((VOCABULARY, D))
    ours = plan["embedding"].initializer.describe((VOCABULARY, D), "lookup")
    assert (ours.std, ours.limit, ours.distribution) == (theirs.std, theirs.limit, theirs.distribution)
    assert (plan["slope"].mean, plan["norm"].mean) == (slope, 1.0)
    assert plan["bias"].std == (pytest.approx(1 / math.sqrt(3 * 6)) if recipe == "torch" else 0.0)


def test_flax_closes_no_gate_and_opens_none():
    plan = planned("flax", recurrent())
    check(plan, {"weight_ih.*": 6**-0.5, "weight_hh.*": 5**-0.5})
    assert {row.mean for row in plan.rows} == {0.0}


def test_torch_draws_everything_of_a_recurrent_layer_by_its_units():
    plan = planned("torch", recurrent())
    assert_std(plan, ".*", 1 / math.sqrt(3 * 5), 1e-14)


# --- what all have in common ---------------------------------------------------------------------

EVERY = {
    "bert": decoder(),
    "deepnorm": decoder(),
    "fixup": residual("scalar"),
    "flax": recurrent(),
    "glorot": decoder(),
    "gpt2": decoder(),
    "he": decoder(),
    "keras": recurrent(),
    "lecun": decoder(),
    "lstm": recurrent(),
    "mitchell": decoder(),
    "mup(base_width=4)": decoder(),
    "orthogonal": decoder(),
    "resnet": residual("norm"),
    "rezero(scales=['*.norm.weight'])": decoder(),
    "skipinit(scales=['*.norm.weight'])": decoder(),
    "small_init": decoder(),
    "t_fixup": both(),
    "torch": recurrent(),
    "wang_init": decoder(),
}
WITH_A_TEST_OF_THEIR_OWN = {"llama", "retinanet", "siren", "t5", "vit"}


def test_every_recipe_is_tried_here():
    assert {name.partition("(")[0] for name in EVERY} | WITH_A_TEST_OF_THEIR_OWN == set(recipes.names())


@pytest.mark.parametrize("recipe", EVERY)
def test_a_plan_and_its_recipe_are_data(recipe):
    model = EVERY[recipe]
    plan = planned(recipe, model)
    assert Plan.from_json(plan.to_json()) == plan
    made = recipes.concrete(recipe, model.facts)
    again = Recipe.from_dict(made.to_dict())
    assert again == made
    assert resolve(model, again, 0) == plan


@pytest.mark.parametrize("recipe", ["bert", "deepnorm", "flax", "gpt2", "keras", "small_init", "torch"])
def test_what_a_layer_defines_itself_and_padding_stay(recipe):
    own = table("positions", 9, "embedding", own=fanin.Constant(0.5))
    model = decoder()
    padded = table("padded", padding_row=0)
    plan = planned(recipe, Model((own, padded, *model.tensors), model.facts))
    assert plan["positions"].initializer == fanin.Constant(0.5)
    assert (plan.fill("padded")[0] == 0).all()
    assert (plan.fill("padded")[1] != 0).all()


PLAIN = Model((tensor("fc.weight", (8, 6)), tensor("fc.bias", (8,), "bias")))
WRONG = [  # on a model of another kind
    ("bert", r"rule 2 \(role embedding \| position\) matches no parameter"),
    ("deepnorm(n_layer=2)", r"rule 1 \(\*\.v_proj\.weight .* matches no parameter"),
    ("fixup(n_block=2, branch_depth=2)", r"rule 1 .* matches no parameter"),
    ("gpt2(n_layer=2)", r"rule 1 .* matches no parameter"),
    ("llama", r"rule 1 \(\*\.gate_proj\.weight .* matches no parameter"),
    ("lstm", r"rule 1 \(role recurrent_kernel\) matches no parameter"),
    ("mitchell(n_layer=1, d_model=6, d_ff=8)", r"rule 1 .* matches no parameter"),
    ("mup(base_width=3, d_model=6)", r"rule 1 \(role head\) matches no parameter"),
    ("resnet(2)", r"rule 1 .* matches no parameter"),
    ("retinanet", r"rule 1 .*cls_logits.* matches no parameter"),
    ("rezero", r"rule 1 \(role scale\) matches no parameter"),
    ("skipinit", r"rule 1 \(role scale\) matches no parameter"),
    ("siren", r"rule 1 \(0\.weight .* matches no parameter"),
    ("t5(d_model=6, d_kv=2)", r"rule 1 .* matches no parameter"),
    ("t_fixup(2, 2)", r"rule 1 \(encoder\.\*.* matches no parameter"),
    ("vit", r"rule 1 \(role kernel, layer conv\*\) matches no parameter"),
    ("wang_init(n_layer=2, d_model=6)", r"rule 1 .* matches no parameter"),
]


@pytest.mark.parametrize(("recipe", "error"), WRONG, ids=[row[0] for row in WRONG])
def test_a_recipe_for_another_kind_of_model_is_an_error(recipe, error):
    with pytest.raises(RecipeError, match=error):
        planned(recipe, PLAIN)


MISSING = {
    "deepnorm": "n_layer",
    "fixup": "n_block, branch_depth",
    "gpt2": "n_layer",
    "mitchell": "n_layer, d_model, d_ff",
    "mup": "base_width, d_model",
    "resnet": "branch_depth",
    "small_init": "d_model",
    "t5": "d_model, d_kv",
    "t_fixup": "n_encoder_layer, n_decoder_layer",
    "wang_init": "n_layer, d_model",
}


@pytest.mark.parametrize("name", recipes.names())
def test_a_fact_that_is_missing_is_one_clear_error(name):
    needs = recipes.get(name).needs
    assert ", ".join(needs) == MISSING.get(name, "")
    if needs:
        with pytest.raises(RecipeError, match=f"recipe {name!r} needs {MISSING[name]}, which the model does"):
            planned(name, PLAIN)


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("fixup(4, branch_depth=4)", "`branch_depth` must be 2 or 3, got 4"),
        ("retinanet(prior=0)", "`prior` must be between 0 and 1, got 0"),
        ("retinanet(prior=1.0)", "`prior` must be between 0 and 1, got 1.0"),
        ("mup(0, 4)", "`base_width` must be an integer >= 1, got 0"),
        (
            "mup(4, 4, tied=True, outputs=['*'])",
            "`tied` says there is no output kernel, `outputs` names some",
        ),
        ("gpt2(n_layer=0)", "`n_layer` must be an integer >= 1, got 0"),
        ("small_init(d_model=-1)", "`d_model` must be an integer >= 1, got -1"),
        ("t_fixup(2.5, 3)", "`n_encoder_layer` must be an integer >= 1, got 2.5"),
        ("he(mode='fan')", "`mode` 'fan'; expected one of"),
        ("siren(omega=0)", "`omega` must be > 0"),
    ],
)
def test_an_argument_that_cannot_be_right_is_one_clear_error(expression, error):
    with pytest.raises(ArgumentError, match=error):
        planned(expression, PLAIN)


def test_a_parameter_of_no_layer_stays_an_error():
    model = Model(
        (*decoder().tensors, tensor("temperature", (), "unknown", "clip", Axes((), ()))), {"n_layer": 3}
    )
    with pytest.raises(PlanError, match=r"no rule matches temperature \(\) \(unknown, clip\)"):
        planned("gpt2", model)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_its_formula_its_source_and_stands_in_the_docs(name):
    function = recipes.RECIPES[name]
    text = function.__doc__
    assert all(part in text for part in (".. math::", "References\n", "Examples\n", ">>> "))
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{name}`"))
    assert all(f"`{fact}`" in row for fact in recipes.get(name).needs), row
