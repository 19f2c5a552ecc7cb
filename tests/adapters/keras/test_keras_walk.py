"""What fanin finds in a Keras model: names, roles, fans, blocks, activations; and what it refuses.

Fans are written down by hand, from what each layer computes.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

import fanin.keras as fk
from fanin.errors import DtypeError, PlanError, RecipeError
from fanin.fans import Fans
from fanin.keras._layers import LAYERS
from fanin.keras._names import HELD
from fanin.keras._walk import describe
from fanin.recipe import Recipe, role

# Keras reads variables by np.array(variable), which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# numbers do not matter here
ALL = Recipe([(role("*"), "ones")])


def built(layer, *shapes):
    """A layer, called once on inputs of these shapes; nothing is computed."""
    layer(*(keras.KerasTensor((2, *shape)) for shape in shapes))
    return layer


def fans(layer, *shapes):
    plan = fk.plan(built(layer, *shapes), ALL, seed=0)
    return {row.name: (row.role, row.fans and tuple(row.fans)) for row in plan.rows}


# --- layers --------------------------------------------------------------------------------------

KERNELS = {
    "dense": (lambda: layers.Dense(5), (3,), (3, 5)),
    "einsum": (lambda: layers.EinsumDense("abc,cde->abde", (7, 4, 6), bias_axes="de"), (7, 3), (3, 24)),
    "einsum in": (lambda: layers.EinsumDense("abcd,cde->abe", (7, 5), bias_axes="e"), (7, 4, 6), (24, 5)),
    "einsum dots": (lambda: layers.EinsumDense("...x,xy->...y", 5, bias_axes="y"), (7, 3), (3, 5)),
    "conv1d": (lambda: layers.Conv1D(6, 5), (9, 4), (20, 30)),
    "conv2d": (lambda: layers.Conv2D(6, (3, 2)), (9, 9, 4), (24, 36)),
    "conv3d": (lambda: layers.Conv3D(6, 2), (5, 5, 5, 4), (32, 48)),
    "grouped": (lambda: layers.Conv2D(6, 3, groups=2), (9, 9, 4), (18, 27)),
    "depthwise 1d": (lambda: layers.DepthwiseConv1D(5, depth_multiplier=2), (9, 4), (5, 10)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 4), (9, 18)),
    "transposed 1d": (lambda: layers.Conv1DTranspose(6, 4, strides=2), (9, 4), (8, 24)),
    "transposed": (lambda: layers.Conv2DTranspose(6, 4, strides=2), (9, 9, 3), (12, 96)),
    "transposed 3d": (lambda: layers.Conv3DTranspose(6, 2), (4, 4, 4, 3), (24, 48)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_fans_are_those_of_what_a_layer_computes(name):
    make, shape, expected = KERNELS[name]
    assert fans(make(), shape) == {"weight": ("kernel", expected), "bias": ("bias", expected)}


@pytest.mark.parametrize("make", [layers.SeparableConv1D, layers.SeparableConv2D])
def test_a_separable_convolution_is_two(make):
    n_dim = 1 if make is layers.SeparableConv1D else 2
    found = fans(make(6, 3, depth_multiplier=2), (9,) * n_dim + (4,))
    field = 3**n_dim
    assert found == {
        "depthwise.weight": ("kernel", (field, 2 * field)),
        "pointwise.weight": ("kernel", (8, 6)),
        "pointwise.bias": ("bias", (8, 6)),
    }


def test_letters_shared_by_all_operands_of_an_einsum_are_stacks():
    layer = layers.EinsumDense("bhd,hde->bhe", (4, 6), bias_axes="he")
    found = fans(layer, (4, 3))
    assert found == {f"{h}.weight": ("kernel", (3, 6)) for h in range(4)} | {
        f"{h}.bias": ("bias", (3, 6)) for h in range(4)
    }


def test_a_bias_may_span_axes_of_size_one():
    layer = layers.EinsumDense("ab,bcd->acd", (4, 6), bias_axes="c")
    assert tuple(built(layer, (3,)).bias.shape) == (4, 1)
    assert fans(layer, (3,)) == {"weight": ("kernel", (3, 24)), "bias": ("bias", (3, 24))}


NORMS = {
    "batch": (layers.BatchNormalization, {}, {"weight": "norm_scale", "bias": "norm_bias"}),
    "batch, no scale": (layers.BatchNormalization, {"scale": False}, {"bias": "norm_bias"}),
    "layer": (layers.LayerNormalization, {}, {"weight": "norm_scale", "bias": "norm_bias"}),
    "layer, two axes": (
        layers.LayerNormalization,
        {"axis": (-2, -1)},
        {"weight": "norm_scale", "bias": "norm_bias"},
    ),
    "layer, no shift": (layers.LayerNormalization, {"center": False}, {"weight": "norm_scale"}),
    "group": (layers.GroupNormalization, {"groups": 2}, {"weight": "norm_scale", "bias": "norm_bias"}),
    "rms": (layers.RMSNormalization, {}, {"weight": "norm_scale"}),
    "unit": (layers.UnitNormalization, {}, {}),
    "slope": (layers.PReLU, {}, {"weight": "slope"}),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_scale_and_shift(name):
    make, options, roles = NORMS[name]
    found = describe(built(make(**options), (5, 4))).model.tensors
    assert {tensor.pieces[0].name: tensor.pieces[0].role for tensor in found} == roles


def test_a_table_is_looked_up():
    assert fans(layers.Embedding(20, 8), (3,)) == {"weight": ("embedding", (1, 8))}
    untied = fans(layers.ReversibleEmbedding(20, 8, tie_weights=False), (3,))
    assert untied == {"weight": ("embedding", (1, 8)), "reverse.weight": ("head", (8, 20))}


@pytest.mark.parametrize("grouped", [False, True])
def test_attention_has_four_projections(grouped):
    if grouped:
        layer = layers.GroupQueryAttention(5, 4, 2)
    else:
        layer = layers.MultiHeadAttention(4, 5, value_dim=7)
    layer.build((None, 6, 12), (None, 6, 12))
    keys, values = (10, 10) if grouped else (20, 28)
    mixed = 20 if grouped else 28
    pairs = {
        "q_proj": (12, 20),
        "k_proj": (12, keys),
        "v_proj": (12, values),
        "out_proj": (mixed, 12),
    }
    plan = fk.plan(layer, ALL, seed=0)
    assert {row.name: (row.role, tuple(row.fans)) for row in plan.rows} == {
        f"{member}.{what}": (role, pair)
        for member, pair in pairs.items()
        for what, role in (("weight", "kernel"), ("bias", "bias"))
    }


def test_scales_of_scores_start_as_their_layer_defines():
    layer = layers.Attention(use_scale=True, score_mode="concat")
    layer([keras.KerasTensor((2, 3, 4))] * 2)
    plan = fk.plan(layer, "he_normal", seed=0)
    assert {row.name: str(row.initializer) for row in plan.rows} == {
        "scale": "ones()",
        "concat_score_weight": "ones()",
    }
    additive = layers.AdditiveAttention()
    additive([keras.KerasTensor((2, 3, 4))] * 2)
    assert fk.plan(additive, "he_normal", seed=0)["weight"].fans == Fans(4, 1)


RECURRENT = {
    "lstm": (layers.LSTM, (3, 6), ("input_gate", "forget_gate", "cell_gate", "output_gate")),
    "gru": (layers.GRU, (3, 6), ("update_gate", "reset_gate", "new_gate")),
    "conv_lstm": (
        lambda units: layers.ConvLSTM2D(units, 3),
        (3, 8, 8, 6),
        ("input_gate", "forget_gate", "cell_gate", "output_gate"),
    ),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_each_gate_is_one_parameter(name):
    make, shape, gates = RECURRENT[name]
    field = 9 if name == "conv_lstm" else 1
    pair, own = (6 * field, 5 * field), (5 * field, 5 * field)
    expected = {f"weight_ih.{gate}": ("kernel", pair) for gate in gates}
    expected |= {f"weight_hh.{gate}": ("recurrent_kernel", own) for gate in gates}
    expected |= {f"bias_ih.{gate}": ("gate_bias", pair) for gate in gates}
    if name == "gru":
        expected |= {f"bias_hh.{gate}": ("recurrent_bias", pair) for gate in gates}
    assert fans(make(5), shape) == expected


def test_a_plain_recurrent_layer_has_no_gates():
    assert fans(layers.SimpleRNN(5), (3, 6)) == {
        "weight_ih": ("kernel", (6, 5)),
        "weight_hh": ("recurrent_kernel", (5, 5)),
        "bias_ih": ("gate_bias", (6, 5)),
    }


def test_a_gru_that_resets_before_has_one_bias():
    names = fans(layers.GRU(5, reset_after=False), (3, 6))
    assert sum(name.startswith("bias_") for name in names) == 3
    assert not any(name.startswith("bias_hh") for name in names)


# --- names ---------------------------------------------------------------------------------------


def test_directions_cells_and_wrappers_are_storage():
    lstm = layers.RNN([layers.LSTMCell(4), layers.LSTMCell(4)])
    names = fans(layers.Bidirectional(lstm), (3, 6))
    fronts = {
        name.partition("weight_ih.")[0] for name in names if ".cell_gate" in name and "weight_ih" in name
    }
    assert fronts == {"", "1.", "reverse.", "reverse.1."}
    inner = layers.SpectralNormalization(layers.Dense(3))
    assert set(fans(layers.TimeDistributed(inner), (5, 4))) == {"weight", "bias"}


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 6)),
            layers.TimeDistributed(layers.Dense(6)),
            layers.TimeDistributed(layers.Dense(6, name="inner")),
            layers.Bidirectional(layers.GRU(4, return_sequences=True)),
            layers.Bidirectional(layers.GRU(4), name="last"),
            layers.Dense(3),
            layers.Dense(3, name="head"),
        ]
    )


def test_an_automatic_name_is_the_class_and_the_number_in_this_model():
    first, second = (fk.plan(sequential(), ALL, seed=0) for _ in range(2))
    names = [row.name for row in first.rows]
    assert names == [row.name for row in second.rows]
    assert [tensor.path for tensor in first.tensors] != [tensor.path for tensor in second.tensors]
    fronts = dict.fromkeys(name.partition("weight")[0].partition("bias")[0] for name in names)
    assert list(fronts) == [
        "dense.",
        "inner.",
        "gru.",
        "gru.reverse.",
        "last.",
        "last.reverse.",
        "dense.1.",
        "head.",
    ]


def test_layers_are_counted_in_the_order_in_which_they_were_made():
    late, early = layers.Dense(4), layers.Dense(4)
    late, early = early, late
    x = keras.Input((4,))
    model = keras.Model(x, late(early(x)))
    plan = fk.plan(model, ALL, seed=0)
    assert plan["dense.weight"].path == early.kernel.path
    assert plan["dense.1.weight"].path == late.kernel.path
    swapped = keras.Model(x, early(late(x)))  # the other way round: each keeps its name
    assert fk.plan(swapped, ALL, seed=0)["dense.weight"].path == early.kernel.path


def test_a_clone_has_the_same_names():
    model = sequential()
    names = [row.name for row in fk.plan(model, ALL, seed=0).rows]
    assert [row.name for row in fk.plan(keras.models.clone_model(model), ALL, seed=0).rows] == names


class Block(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4)
        self._norms = {"first": layers.LayerNormalization(), "second": layers.LayerNormalization()}
        self.mlp = keras.Sequential(
            [layers.Dense(2 * width, "gelu", name="up"), layers.Dense(width, name="down")]
        )

    def call(self, x):
        y = self._norms["first"](x)
        x = x + self.attention(y, y)
        return x + self.mlp(self._norms["second"](x))


class Encoder(keras.Model):
    def __init__(self, depth=3, width=8):
        super().__init__()
        self.embedding = layers.Embedding(20, width)
        self.blocks = [Block(width) for _ in range(depth)]
        self.dropout = layers.Dropout(0.1)
        self.start = self.add_weight(shape=(1, width), name="anything")

    def call(self, x):
        x = self.embedding(x) + self.start
        for block in self.blocks:
            x = block(x)
        return self.dropout(x) @ keras.ops.transpose(self.embedding.embeddings)


def tokens():
    return keras.KerasTensor((2, 6), "int32")


@pytest.fixture(scope="module")
def encoder():
    model = Encoder()
    model(tokens())
    return model


def test_a_subclassed_model_is_named_by_its_attributes(encoder):
    plan = fk.plan(encoder, Recipe([("start", "zeros"), ("*", "he_normal")]), seed=0)
    names = [row.name for row in plan.rows]
    inside = [
        *(
            f"attention.{m}.{w}"
            for m in ("q_proj", "k_proj", "v_proj", "out_proj")
            for w in ("weight", "bias")
        ),
        *(f"_norms.{n}.{w}" for n in ("first", "second") for w in ("weight", "bias")),
        *(f"mlp.{n}.{w}" for n in ("up", "down") for w in ("weight", "bias")),
    ]
    assert names == [
        "start",
        "embedding.weight",
        *(f"blocks.{k}.{name}" for k in range(3) for name in inside),
    ]
    assert len(plan.tensors) == len(encoder.trainable_variables)
    assert plan["blocks.2.mlp.up.bias"].block == 2
    assert plan["blocks.1.mlp.up.weight"].activation == "gelu"
    assert plan["blocks.1.mlp.down.weight"].activation is None
    assert plan.facts == {"n_layer": 3, "d_model": 8}


def test_a_named_recipe_finds_its_facts(encoder):
    plan = fk.plan(encoder, Recipe([("start", "zeros")], base="gpt2"), seed=0)
    out = plan["blocks.0.attention.out_proj.weight"]
    assert out.std == pytest.approx(0.02 / np.sqrt(6))  # two branches in each of three blocks


class Halves(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = [Block(8) for _ in range(2)]
        self.decoder = [Block(8) for _ in range(3)]

    def call(self, x):
        for block in (*self.encoder, *self.decoder):
            x = block(x)
        return x


def test_two_halves_are_counted_apart():
    plan = fk.plan(built(Halves(), (5, 8)), "he_normal", seed=0)
    assert plan.facts == {"n_layer": 3, "n_encoder_layer": 2, "n_decoder_layer": 3, "d_model": 8}


def test_blocks_of_a_functional_model_are_counted():
    x = keras.Input((5, 8))
    y = layers.Dense(8, name="stem")(x)
    for _ in range(4):
        y = Block(8)(y)
    plan = fk.plan(keras.Model(x, y), "he_normal", seed=0)
    assert plan.facts["n_layer"] == 4
    assert plan["block.3.mlp.up.weight"].block == 3
    assert plan["stem.weight"].block is None


def test_models_nest():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4)], name="inner")
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(inner(x)))
    names = {row.name for row in fk.plan(model, ALL, seed=0).rows}
    fronts = {name.rpartition(".")[0] for name in names}
    assert fronts == {"inner.dense", "inner.dense.1", "dense"}


def test_a_layer_used_twice_is_one():
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,))
    branch = keras.Model(x, shared(x), name="a_branch")
    model = keras.Model(x, shared(branch(x)))
    [weight, bias] = fk.plan(model, ALL, seed=0).tensors
    assert (weight.pieces[0].name, weight.ties) == ("a_branch.shared.weight", ("shared.weight",))
    assert bias.pieces[0].name == "a_branch.shared.bias"


def test_a_tie_takes_the_name_of_the_embedding():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.words = layers.Embedding(20, 4)

        def build(self, shape):
            self.words.build(shape)
            self.attached = self.words.embeddings

        def call(self, x):
            return self.words(x) @ keras.ops.transpose(self.attached)

    model = Tied()
    model(tokens())
    [tensor] = fk.plan(model, ALL, seed=0).tensors
    assert (tensor.pieces[0].name, tensor.pieces[0].role) == ("words.weight", "embedding")
    assert tensor.ties == ("attached",)


def test_a_layer_that_an_attribute_held_before_is_still_one():
    """Keras goes on tracking it, and lists its weights."""

    class Replaced(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(3)
            self.head.build((None, 4))
            self.head = layers.Dense(5)

        def call(self, x):
            return self.head(x)

    model = built(Replaced(), (4,))
    assert len(model.trainable_variables) == 4
    names = {tensor.pieces[0].name: tensor.shape for tensor in fk.plan(model, ALL, seed=0).tensors}
    assert names == {"head.weight": (4, 5), "head.bias": (5,), "dense.weight": (4, 3), "dense.bias": (3,)}


def test_paths_that_keras_uses_twice_are_told_apart():
    class Same(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = layers.Dense(3, name="d"), layers.Dense(3, name="d")

        def call(self, x):
            return self.two(self.one(x))

    model = built(Same(), (3,))
    assert len({variable.path for variable in model.variables}) < len(model.variables)
    plan = fk.plan(model, ALL, seed=0)
    assert len({tensor.path for tensor in plan.tensors}) == 4
    assert {row.name for row in plan.rows} == {f"{a}.{b}" for a in ("one", "two") for b in ("weight", "bias")}


# --- activations ---------------------------------------------------------------------------------


def test_activations_that_follow_are_found():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, name="own", activation="silu")(x)
    y = layers.Conv2D(4, 3, name="after_norm")(y)
    y = layers.Activation("relu")(layers.BatchNormalization(name="norm")(y))
    z = layers.Conv2D(4, 1, name="two_ways")(y)
    y = layers.ReLU()(z) + layers.LeakyReLU()(z)
    y = layers.Conv2D(4, 1, name="six")(y)
    y = layers.Conv2D(4, 1, name="none")(layers.ReLU(6.0)(y))
    plan = fk.plan(keras.Model(x, y), "he_normal", seed=0)
    found = {
        row.name.removesuffix(".weight"): row.activation for row in plan.rows if row.name.endswith("weight")
    }
    assert found == {
        "own": "silu",
        "after_norm": "relu",
        "norm": "relu",
        "two_ways": None,
        "six": "relu6",
        "none": None,
    }
    listed = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.Dropout(0.1), layers.ELU(), layers.Dense(2)]
    )
    plan = fk.plan(listed, "he_normal", seed=0)
    assert [row.activation for row in plan.rows] == ["elu", "elu", None, None]


# --- a user's own layers -------------------------------------------------------------------------


class Gate(layers.Layer):
    def build(self, shape):
        self.inner = layers.Dense(3)
        self.inner.build(shape)
        self.weights_of_mine = [self.add_weight(shape=(3, shape[-1])), self.add_weight(shape=(3,))]
        self.missing = None
        self.count = self.add_weight(shape=(), trainable=False, dtype="int32", initializer="zeros")

    def call(self, x):
        return self.inner(x) * keras.ops.sum(self.weights_of_mine[0], 1) + self.weights_of_mine[1]


def test_what_is_not_known_must_be_named():
    with pytest.raises(PlanError, match=r"no rule matches weights_of_mine\.0 \(3, 4\) \(unknown, Gate\)"):
        fk.plan(built(Gate(), (4,)), "he_normal", seed=0)
    plan = fk.plan(built(Gate(), (4,)), Recipe([("weights_of_mine.*", "ones"), ("*", "he_normal")]), seed=0)
    assert [row.name for row in plan.rows] == [
        "weights_of_mine.0",
        "weights_of_mine.1",
        "inner.weight",
        "inner.bias",
    ]


def test_a_layer_can_be_described():
    class Described(Gate):
        def build(self, shape):
            super().build(shape)
            self.matrix, self.shift = self.weights_of_mine

    @fk.layer(Described)
    def described(layer):
        return {
            "matrix": fk.Piece("weight", "kernel", "gate", fk.Axes.parse("o i -> o | i")),
            "shift": fk.Piece("bias", "bias", "gate", fk.Axes((0,), ())),
            "missing": fk.Piece("missing", "bias", "gate", fk.Axes((0,), ())),
            "inner.kernel": fk.Piece("proj.weight", "kernel", "gate", fk.Axes.parse("i o -> o | i")),
        }

    plan = fk.plan(built(Described(), (4,)), "he_normal", seed=0)
    assert [row.name for row in plan.rows] == ["weight", "bias", "proj.weight", "inner.bias"]
    assert plan["weight"].fans == Fans(4, 3)

    @fk.layer(Described)
    def wrong(layer):
        return {"matrx": fk.Piece("weight", "kernel", "gate", fk.Axes.parse("o i -> o | i"))}

    with pytest.raises(PlanError, match="'model': a Described has no variable 'matrx'"):
        fk.plan(built(Described(), (4,)), "he_normal", seed=0)


def test_low_rank_kernels_are_told_apart():
    layer = built(layers.Dense(6), (8,))
    layer.enable_lora(2)
    plan = fk.plan(layer, "he_normal", seed=0)
    assert {row.name: row.shape for row in plan.rows} == {
        "weight": (8, 6),
        "bias": (6,),
        "lora_a": (8, 2),
        "lora_b": (2, 6),
    }
    assert str(plan["lora_b"].initializer) == "zeros()"


def test_state_is_no_parameter():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Normalization(mean=1.0, variance=2.0),
            layers.RandomFlip(),
            layers.SpectralNormalization(layers.Conv2D(4, 3, name="conv")),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    names = [row.name for row in fk.plan(model, "he_normal", seed=0).rows]
    assert names == ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]


def test_frozen_weights_are_parameters():
    model = sequential()
    names = [row.name for row in fk.plan(model, ALL, seed=0).rows]
    model.trainable = False
    assert [row.name for row in fk.plan(model, ALL, seed=0).rows] == names


# what these keep is state, or belongs to another framework
STATE = (
    *(layers.FlaxLayer, layers.JaxLayer, layers.TFSMLayer, layers.TorchModuleWrapper),
    layers.Normalization,
    layers.STFTSpectrogram,
    layers.SpectralNormalization,
    *(layers.Hashing, layers.IntegerLookup, layers.StringLookup, layers.TextVectorization),
)


def own_weights(kind):
    """Whether a class of Keras makes weights in code of its own or of what it derives from."""
    above = (each for each in kind.__mro__ if issubclass(each, layers.Layer) and each is not layers.Layer)
    return any("self.add_weight(" in inspect.getsource(each) for each in above)


def test_every_layer_of_keras_that_has_weights_is_known():
    classes = [kind for kind in vars(layers).values() if isinstance(kind, type)]
    kinds = [kind for kind in classes if issubclass(kind, layers.Layer)]
    elsewhere = (layers.RNN, *STATE)  # the weights of a recurrent layer are its cell's
    weighty = [kind for kind in kinds if own_weights(kind) and not issubclass(kind, elsewhere)]
    assert {layers.Dense, layers.Conv2DTranspose, layers.GRUCell, layers.AdditiveAttention} <= {*weighty}
    for kind in weighty:
        assert any(each in LAYERS for each in kind.__mro__), kind
    recurrent = [kind for kind in kinds if issubclass(kind, layers.RNN | layers.StackedRNNCells)]
    for kind in recurrent:
        assert any(each in HELD for each in kind.__mro__), kind


# --- refusals ------------------------------------------------------------------------------------


def test_what_is_not_built_is_refused_by_name():
    with pytest.raises(PlanError, match=r"'model' \(Dense\) is not built and has no weights yet; call"):
        fk.plan(layers.Dense(3), "he_normal", seed=0)
    with pytest.raises(PlanError, match=r"'embedding' \(Embedding\) is not built"):
        fk.plan(Encoder(), "he_normal", seed=0)
    model = Encoder()
    model.embedding.build((None,))
    with pytest.raises(PlanError, match=r"'blocks\.0\.attention' \(MultiHeadAttention\) is not built"):
        fk.plan(model, "he_normal", seed=0)


def test_quantized_layers_are_refused_by_name():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="a"), layers.Dense(8, name="b")])
    model.get_layer("b").quantize("int8")
    with pytest.raises(PlanError, match=r"'b' \(Dense\) is quantized \(int8\); initialize before"):
        fk.plan(model, "he_normal", seed=0)


def test_what_is_no_layer_is_refused():
    with pytest.raises(PlanError, match=r"`model` must be a keras\.Layer or keras\.Model, got str"):
        fk.plan("model", "he_normal", seed=0)


def test_dtypes_that_cannot_be_drawn_are_refused():
    class Counting(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(3,), dtype="complex64", initializer="zeros")

        def call(self, x):
            return x

    with pytest.raises(DtypeError, match="'count' has dtype complex64, which holds no weights"):
        fk.plan(built(Counting(), (3,)), ALL, seed=0)


def test_a_set_gives_no_names():
    class Unordered(layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = {layers.Dense(3)}

        def call(self, x):
            return sum(part(x) for part in self.parts)

    with pytest.raises(PlanError, match="'parts' is a set, whose members have no order"):
        fk.plan(built(Unordered(), (3,)), ALL, seed=0)


def test_two_parameters_of_one_name_are_refused():
    inner = layers.TimeDistributed(layers.Dense(3, name="same"), name="time_distributed")
    model = keras.Sequential([keras.Input((5, 3)), inner, layers.Dense(3, name="same")])
    with pytest.raises(PlanError, match=r"the parameter 'same\.weight'"):
        fk.plan(model, ALL, seed=0)


def test_a_rule_for_nothing_is_refused():
    with pytest.raises(RecipeError, match=r"rule 1 \(haed\.\*\) matches no parameter"):
        fk.plan(sequential(), Recipe([("haed.*", "zeros"), ("*", "he_normal")]), seed=0)
