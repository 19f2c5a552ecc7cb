"""What a trace of a Keras model says, and that the model does not notice; the same on every backend."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import fanin.keras as fk
from fanin.audit import Layer, Trace, measure, of_chain
from fanin.errors import TraceError

# Keras reads tensors by np.array(tensor), which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EXAMPLES, WIDTH, CLASSES = 16, 12, 5


def draws(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def values_of(thing: Any) -> np.ndarray[Any, Any]:
    return np.array(ops.convert_to_numpy(thing.value if isinstance(thing, keras.Variable) else thing))


def steps(trace: Trace) -> list[tuple[str, str, tuple[int, ...]]]:
    """What can be read off a page: names, kinds, edges."""
    return [(step.name, step.kind, step.inputs) for step in trace.operations]


def near(value: float, rel: float = 1e-4) -> Any:
    return pytest.approx(value, rel=rel)


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


def perceptron(seed: int = 0) -> keras.Model:
    hidden = [layers.Dense(24, "relu", name=f"h{at}") for at in range(2)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, layers.Dense(CLASSES, name="head")])
    fk.initialize(model, "torch", seed=seed)
    return model


def built(model: keras.Model, *batch: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    model(*batch)
    return model


# --- numbers -------------------------------------------------------------------------------------


def test_a_chain_has_the_numbers_of_plain_arithmetic() -> None:
    """NumPy in float64 goes forward and back through the same ReLU layers; only rounding differs."""
    model, x, cotangent = perceptron(), draws(EXAMPLES, WIDTH), draws(EXAMPLES, CLASSES)
    trace = fk.trace(model, x, lambda output, batch: ops.sum(ops.multiply(output, cotangent)))
    weights = [[values_of(each).astype(np.float64) for each in layer.weights] for layer in model.layers]
    inputs, outputs = [x.astype(np.float64)], []
    for weight, bias in weights:
        outputs.append(inputs[-1] @ weight + bias)
        inputs.append(np.maximum(outputs[-1], 0))
    gradients = [cotangent.astype(np.float64)]
    for (weight, _), output in zip(weights[:0:-1], outputs[-2::-1], strict=True):
        gradients.insert(0, gradients[0] @ weight.T * (output > 0))
    names = [f"{layer.name}.weight" for layer in model.layers]
    rows = zip(names, weights, inputs, outputs, gradients, strict=False)
    chain = of_chain([Layer(name, w, b, i, o, g) for name, (w, b), i, o, g in rows], "relu")
    assert len(trace.operations) == len(chain.operations) == 5
    for ours, plain in zip(trace.operations, chain.operations, strict=True):
        assert (ours.kind, ours.inputs, ours.parameters) == (plain.kind, plain.inputs, plain.parameters)
        assert (ours.activation, ours.saturated, ours.linear) == (
            plain.activation,
            plain.saturated,
            plain.linear,
        )
        assert [ours.after.rms, ours.after.cosine] == [near(plain.after.rms), near(plain.after.cosine or 0)]
        if plain.loss_gradient:
            assert ours.loss_gradient
            assert ours.loss_gradient.rms == near(plain.loss_gradient.rms)
    for each in trace.weights:
        expected = chain[each.name].gradient
        assert each.gradient
        assert expected
        assert each.gradient.rms == near(expected.rms)


def test_random_gradients_go_back_through_branches_and_sums() -> None:
    """Beside finite differences of the output with two fixed cotangents, by a bias that is added there."""

    class Branch(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layers.Dense(WIDTH), layers.Dense(WIDTH, "tanh")

        def call(self, x: Any) -> Any:
            x = self.first(x)
            return x + self.second(x)

    x = draws(1, WIDTH)
    model = built(Branch(), x)
    trace = fk.trace(model, x, seed=3)
    assert steps(trace) == [
        ("first", "dense", (-1,)),
        ("second", "dense", (0,)),
        ("second:tanh", "activation", (1,)),
        (":add", "add", (0, 2)),
    ]
    cotangents = [np.random.default_rng([3, at]).standard_normal((1, WIDTH), np.float32) for at in range(2)]
    first, second = (values_of(each.kernel).astype(np.float64) for each in model.layers)
    slope = 1 - np.tanh(x @ first @ second) ** 2
    expected = [given + (given * slope) @ second.T for given in cotangents]
    found = trace.operations[0].backward
    assert found
    assert found.rms == near(rms(expected))
    kernel = trace["first.weight"].gradient
    assert kernel
    assert kernel.rms == near(rms(x.T @ expected[0]))


def test_gates_are_those_of_the_first_step() -> None:
    made = [layers.LSTM(6, return_sequences=True, name="lstm"), layers.GRU(4, name="gru")]
    model = keras.Sequential([keras.Input((3, WIDTH)), *made])
    fk.initialize(model, "glorot_normal", seed=0)
    gru = made[1].cell
    gru.bias.assign(draws(2, 12))
    x = draws(EXAMPLES, 3, WIDTH)
    trace = fk.trace(model, x)
    assert steps(trace) == [("lstm", "recurrent", (-1,)), ("gru", "recurrent", (0,))]
    first = x[:, 0] @ values_of(made[0].cell.kernel) + values_of(made[0].cell.bias)
    expected = dict(zip(("input", "forget", "cell", "output"), np.split(first, 4, -1), strict=True))
    for gate, values in expected.items():
        assert trace.operations[0].gates[f"{gate}_gate"].rms == near(rms(values))
    inside = values_of(made[0](x))[:, 0] @ values_of(gru.kernel)
    bias_in, bias_state = values_of(gru.bias)
    update, reset, new = np.split(inside + bias_in, 3, -1)
    parts = np.split(bias_state, 3)
    assert trace.operations[1].gates["update_gate"].rms == near(rms(update + parts[0]))
    opened = 1 / (1 + np.exp(-(reset + parts[1])))
    assert trace.operations[1].gates["new_gate"].rms == near(rms(new + opened * parts[2]))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_shows_its_parts_and_its_scores(dropout: float) -> None:
    """With dropout Keras computes the scores and their softmax one after the other."""
    x = draws(2, 6, WIDTH)

    class Attends(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layers.MultiHeadAttention(2, 4, dropout=dropout)

        def call(self, x: Any) -> Any:
            return self.attention(x, x, use_causal_mask=True)

    model = built(Attends(), x)
    for layer in (model.attention._query_dense, model.attention._key_dense):
        layer.kernel.assign(20 * values_of(layer.kernel))
    trace = fk.trace(model, x)
    names = [step.name for step in trace.operations]
    assert names[:3] == [f"attention.{word}_proj" for word in "qkv"]
    assert names[-1] == "attention.out_proj"
    query, key = (
        np.einsum("btd,dhk->bhtk", x, values_of(layer.kernel))
        for layer in (model.attention._query_dense, model.attention._key_dense)
    )
    scores = np.einsum("bhqk,bhtk->bhqt", query, key) / 2
    scores = np.where(np.tri(6, dtype=bool), scores, -np.inf)
    [softmax] = [step for step in trace.operations if step.kind in ("softmax", "attention")]
    expected = measure.saturated("softmax", scores if dropout else scores[0])
    assert expected
    assert softmax.saturated == pytest.approx(expected)


def test_the_jacobian_is_that_of_one_example() -> None:
    model = keras.Sequential([keras.Input((WIDTH,)), layers.Dense(WIDTH, use_bias=False)])
    model.layers[0].kernel.assign(np.diag(np.arange(1.0, WIDTH + 1)))
    trace = fk.trace(model, draws(3, WIDTH), isometry=True)
    assert trace.singular_values == pytest.approx(tuple(range(WIDTH, 0, -1)))


@pytest.mark.parametrize("text", [True, False])
def test_the_first_step_is_that_of_the_optimizer(text: bool) -> None:
    optimizer = "adam 0.01" if text else keras.optimizers.Adam(0.01)
    model = keras.Sequential([keras.Input((WIDTH,)), layers.Dense(CLASSES, name="head")])
    trace = fk.trace(model, (draws(8, WIDTH), draws(8, CLASSES)), "mse", optimizer=optimizer)
    assert trace["head.weight"].update == near(0.01 / rms(values_of(model.layers[0].kernel)), 1e-3)
    assert trace.optimizer == "adam 0.01"


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", None])
def test_a_softmax_at_the_end_is_an_operation_and_its_blind_guess_is_even(loss: str | None) -> None:
    model = keras.Sequential([keras.Input((WIDTH,)), layers.Dense(CLASSES, "softmax", name="head")])
    x, y = draws(EXAMPLES, WIDTH), np.arange(EXAMPLES) % CLASSES
    trace = fk.trace(model, x) if loss is None else fk.trace(model, (x, y), loss)
    assert steps(trace) == [("head", "dense", (-1,)), ("head:softmax", "softmax", (0,))]
    assert (trace.blind_loss, trace.loss is None) == (loss and near(math.log(CLASSES)), loss is None)


# --- what is one operation -----------------------------------------------------------------------


def test_a_convolution_with_batch_norm_takes_the_moments_of_the_batch() -> None:
    made = [
        layers.Conv2D(6, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.Activation("relu", name="act"),
        layers.Dropout(0.5),
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(),
        layers.Dense(CLASSES, name="head"),
    ]
    trace = fk.trace(keras.Sequential([keras.Input((6, 6, 3)), *made]), draws(EXAMPLES, 6, 6, 3))
    kinds = ["conv", "norm", "activation", "pool", "dense"]
    assert [step.kind for step in trace.operations] == kinds
    assert [step.inputs for step in trace.operations] == [(at - 1,) for at in range(5)]
    assert [step.after.units for step in trace.operations] == [6, 6, 6, 6, CLASSES]
    assert trace.operations[1].after.std == pytest.approx(1, abs=0.01)
    assert abs(trace.operations[1].after.mean) < 1e-5


def test_nothing_is_dropped_and_a_layer_used_twice_keeps_its_activation() -> None:
    shared, x = layers.Dense(WIDTH, "relu", name="fc"), draws(EXAMPLES, WIDTH)
    inputs = keras.Input((WIDTH,))
    traces = [
        fk.trace(keras.Model(inputs, shared(layers.Dropout(rate, seed=1)(shared(inputs)))), x)
        for rate in (0.0, 0.9)
    ]
    names = ["fc", "fc:relu", "fc#2", "fc:relu#2"]
    assert [step.name for step in traces[0].operations] == names
    assert traces[0] == traces[1]


class Own(layers.Layer):
    """A layer of the user's, with a parameter in its code."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(WIDTH)

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(WIDTH,), initializer="ones", name="scale")
        self.w = self.add_weight(shape=(WIDTH, 7), name="w")
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return ops.matmul(ops.gelu(self.scale * self.inner(x)), self.w)[:, 1:]


def test_functions_in_layers_of_ones_own_are_operations() -> None:
    inputs = keras.Input((WIDTH,))
    model = keras.Model(inputs, layers.Dense(2, name="head")(Own(name="own")(inputs)))
    trace = fk.trace(model, draws(EXAMPLES, WIDTH))
    assert steps(trace) == [
        ("own.inner", "dense", (-1,)),
        ("own:multiply", "multiply", (0,)),
        ("own:gelu", "activation", (1,)),
        ("own:matmul", "dense", (2,)),
        ("head", "dense", (3,)),
    ]
    assert [trace.operations[at].parameters for at in (1, 3)] == [("own.scale",), ("own.w",)]
    gradients = [trace[name].gradient for name in ("own.scale", "own.w", "own.inner.weight")]
    assert all(gradient and gradient.rms > 0 for gradient in gradients)


class Tied(keras.Model):
    """A table that is its own head, a table of positions, words that are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.table = layers.Embedding(9, WIDTH, mask_zero=True)
        self.lstm = layers.LSTM(WIDTH, return_sequences=True)
        self.positions = self.add_weight(shape=(8, WIDTH), initializer="random_normal", name="positions")

    def call(self, words: Any) -> Any:
        x = self.lstm(self.table(words)) + self.positions[: ops.shape(words)[1]]
        return ops.matmul(x, ops.transpose(self.table.embeddings))


def test_each_use_of_a_table_is_an_operation_with_its_parameters() -> None:
    words = np.array([[1, 2, 0], [3, 8, 8]])
    trace = fk.trace(built(Tied(), words), words)
    assert steps(trace) == [
        ("table", "embedding", ()),
        ("lstm", "recurrent", (0,)),
        (":add", "add", (1,)),
        (":matmul", "dense", (2,)),
    ]
    assert [trace.operations[at].parameters for at in (0, 2, 3)] == [
        ("table.weight",),
        ("positions",),
        ("table.weight",),
    ]
    assert trace.batch == ()


class Asks(keras.Model):
    """Its code asks for values, so that it cannot be called on symbols; the layers in it can."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.own, self.head = layers.Dense(WIDTH), Own(), layers.Dense(2)

    def call(self, x: Any) -> Any:
        x = self.first(x)
        if float(ops.max(ops.stop_gradient(x))) > -math.inf:
            x = self.own(x)
        return self.head(x) * 2.0


def test_a_model_that_asks_for_values_shows_the_layers_in_it() -> None:
    x = draws(EXAMPLES, WIDTH)
    model = Asks()
    model.first.build((None, WIDTH))
    model.own.build((None, WIDTH))
    model.head.build((None, 6))
    trace = fk.trace(model, x)
    inside = [f"own{word}" for word in (".inner", ":multiply", ":gelu", ":matmul")]
    assert [step.name for step in trace.operations] == ["first", *inside, "head", ":call"]
    assert [step.inputs for step in trace.operations] == [(at - 1,) for at in range(7)]
    assert trace.operations[-1].kind == "other"
    assert [step.layer for step in trace.operations[-2:]] == ["Dense", "Asks"]
    assert trace.outputs == (6,)


def test_wrapped_and_nested_layers_have_the_names_of_plans() -> None:
    inner = keras.Sequential([keras.Input((4, 6)), layers.Dense(6, name="fc")], name="inner")
    inputs = keras.Input((4, 3))
    x = layers.TimeDistributed(layers.Dense(6, "tanh"), name="each")(inputs)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(inner(x))
    model = keras.Model(inputs, layers.Concatenate(name="beside")([x, inner(x)]))
    trace = fk.trace(model, draws(2, 4, 3))
    assert steps(trace) == [
        ("each", "dense", (-1,)),
        ("inner.fc", "dense", (0,)),
        ("both", "recurrent", (1,)),
        ("inner.fc#2", "dense", (2,)),
        ("beside", "concat", (2, 3)),
    ]
    used = {name for step in trace.operations for name in step.parameters}
    assert used == {each.name for each in trace.weights}


# --- batches and losses --------------------------------------------------------------------------


def two_inputs() -> keras.Model:
    inputs = {"a": keras.Input((WIDTH,), name="a"), "b": keras.Input((WIDTH,), name="b")}
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Add(name="add")(list(inputs.values()))))


class Two(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.head = layers.Dense(2)

    def call(self, a: Any, b: Any) -> Any:
        return {"features": a, "logits": self.head(a + b)}


@pytest.mark.parametrize("form", [dict, tuple])
def test_batches_are_what_the_model_takes(form: type) -> None:
    a, b = draws(4, WIDTH), draws(4, WIDTH) + 1
    given = {"a": a, "b": b} if form is dict else (a, b)
    plain = keras.Input((WIDTH,)), keras.Input((WIDTH,))
    functional = keras.Model(plain, layers.Dense(2, name="head")(layers.Add(name="add")(plain)))
    for model in (two_inputs() if form is dict else functional, built(Two(), a, b)):
        trace = fk.trace(model, given)
        assert [step.kind for step in trace.operations] == ["add", "dense"]
        assert trace.operations[0].before
        assert trace.operations[0].before.rms == near(rms(a))
        assert [each.rms for each in trace.batch] == [near(rms(a)), near(rms(b))]
        assert trace.outputs == (1,)


LOSSES = [
    "mse",
    keras.losses.MeanSquaredError(),
    keras.losses.mean_squared_error,
    lambda output, batch: ops.mean((output - batch[1]) ** 2),
]


@pytest.mark.parametrize("loss", LOSSES, ids=["name", "object", "function", "of output and batch"])
def test_losses_of_keras_get_the_targets(loss: Any) -> None:
    x, y = draws(EXAMPLES, WIDTH), draws(EXAMPLES, CLASSES)
    model = perceptron()
    if getattr(loss, "__name__", "") == "<lambda>":
        inner, model = model, built(Pair(model), x, y)
        expected = values_of(inner(x))
    else:
        expected = values_of(model(x))
    trace = fk.trace(model, (x, y), loss)
    assert trace.loss == near(float(np.mean((expected - y) ** 2)))
    assert trace.blind_loss == near(float(np.mean(y**2)))


class Pair(keras.Model):
    def __init__(self, inner: keras.Model) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any, y: Any) -> Any:
        return self.inner(x)


# --- the model does not notice -------------------------------------------------------------------


def attributes(model: keras.Model) -> list[dict[str, Any]]:
    return [
        {name: list(value) if isinstance(value, list) else value for name, value in vars(layer).items()}
        for layer in model._flatten_layers()
    ]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one is other or type(one) is type(other)


@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_left_as_it_was(broken: bool) -> None:
    """Values, moving statistics, seeds, nodes of the graph, attributes: after an error, too."""
    inputs = keras.Input((WIDTH,))
    x = layers.BatchNormalization()(layers.Dense(8, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(CLASSES)(layers.Dropout(0.5, seed=3)(x)))
    model.layers[1].trainable = False
    before = [values_of(each) for each in model.variables]
    kept = attributes(model)
    nodes = [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers]
    name = layers.Dense(1).name

    def loss(output: Any, batch: Any) -> Any:
        if broken:
            raise RuntimeError("no")
        return ops.mean(output)

    if broken:
        with pytest.raises(TraceError, match="`loss` raised RuntimeError: no"):
            fk.audit(model, draws(EXAMPLES, WIDTH), loss)
    else:
        fk.audit(model, draws(EXAMPLES, WIDTH), loss, optimizer=keras.optimizers.SGD(0.1))
    for each, values in zip(model.variables, before, strict=True):
        assert values_of(each).tobytes() == values.tobytes()
    assert nodes == [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers]
    for was, now in zip(kept, attributes(model), strict=True):
        assert was.keys() == now.keys()
        assert all(same(was[key], now[key]) for key in was)
    assert model.layers[1].activation is keras.activations.relu
    assert not model.layers[1].trainable
    assert int(layers.Dense(1).name.split("_")[-1]) == int((name + "_0").split("_")[1]) + 1


def test_two_traces_are_equal() -> None:
    model, x = perceptron(), draws(EXAMPLES, WIDTH)
    assert fk.trace(model, x) == fk.trace(model, x)
    assert Trace.from_json(fk.trace(model, x).to_json()) == fk.trace(model, x)


# --- what cannot be traced -----------------------------------------------------------------------


def constant() -> keras.Model:
    class Constant(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.unused = layers.Dense(2)
            self.unused.build((None, WIDTH))

        def call(self, x: Any) -> Any:
            return x

    return Constant()


X = draws(EXAMPLES, WIDTH)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fk.trace(perceptron(), draws(3, 7)), r"forward raised in .*float32\[3, 7\]"),
        (lambda: fk.trace(3, X), "`model` must be a keras.Layer"),
        (lambda: fk.trace(layers.Dense(3), X), "is not built"),
        (lambda: fk.trace(keras.Sequential([keras.Input((WIDTH,)), layers.ReLU()]), X), "no parameters"),
        (lambda: fk.trace(perceptron(), "text"), "`batch` must hold tensors"),
        (lambda: fk.trace(perceptron(), (X, X)), "holds 2 inputs, the model takes 1"),
        (lambda: fk.trace(perceptron(), X, "mse"), r"`batch` must be \(x, y\)"),
        (lambda: fk.trace(perceptron(), (X, X), "nonsense"), "no loss of Keras"),
        (lambda: fk.trace(perceptron(), X, 3), "`loss` must be a function"),
        (lambda: fk.trace(perceptron(), X, lambda output, batch: output), "must return one number"),
        (lambda: fk.trace(perceptron(), X, optimizer=3), "`optimizer` must be a keras"),
        (lambda: fk.trace(constant(), X), "depends on no parameter"),
        (
            lambda: fk.trace(
                keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 2)]),
                np.arange(4)[None],
                isometry=True,
            ),
            "no floating point array",
        ),
    ],
)
def test_what_cannot_be_traced_is_one_clear_error(call: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        call()
