"""What a trace of a JAX model says, and that the model does not notice."""

import math
from itertools import pairwise
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import fanin.jax as fj
from fanin.audit import Layer, Trace, measure, of_chain
from fanin.errors import TraceError
from fanin.fans import IO
from fanin.jax._audit_operations import Recognized, recognize
from fanin.jax._audit_steps import flat
from fanin.model import Piece, Tensor

BATCH, WIDTH, CLASSES = 16, 12, 5


def draws(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def classes(output: Any, batch: Any) -> Any:
    labels = jnp.arange(len(output)) % output.shape[-1]
    return -jnp.take_along_axis(jax.nn.log_softmax(output), labels[:, None], 1).mean()


def steps(trace: Trace) -> list[tuple[str, str, tuple[int, ...]]]:
    """What can be read off a page: names, kinds, edges."""
    return [(step.name, step.kind, step.inputs) for step in trace.operations]


def kinds(trace: Trace | Recognized) -> list[str]:
    return [step.activation or step.kind for step in trace.operations]


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-5)


class Perceptron(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(WIDTH, 24, rngs=rngs)
        self.norm = nnx.BatchNorm(24, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(24, CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.head(self.drop(nnx.relu(self.norm(self.first(x)))))


# --- numbers -------------------------------------------------------------------------------------


def test_a_chain_has_the_numbers_of_plain_arithmetic() -> None:
    """NumPy in float64 goes forward and back through the same ReLU layers; only rounding differs."""
    sizes = [WIDTH, 24, 24, CLASSES]
    shapes = [{"weight": jnp.zeros((a, b)), "bias": jnp.zeros(b)} for a, b in pairwise(sizes)]
    params = fj.initialize({"layers": shapes}, "torch", seed=0)
    cotangent, x = draws(BATCH, CLASSES), draws(BATCH, WIDTH)

    def model(params: Any, x: Any) -> Any:
        *hidden, head = params["layers"]
        for layer in hidden:
            x = jax.nn.relu(x @ layer["weight"] + layer["bias"])
        return x @ head["weight"] + head["bias"]

    trace = fj.trace(model, x, lambda output, batch: (output * cotangent).sum(), params=params)
    weights = [(np.asarray(each["weight"]), np.asarray(each["bias"])) for each in params["layers"]]
    inputs, outputs = [x], []
    for weight, bias in weights:
        outputs.append(inputs[-1] @ weight + bias)
        inputs.append(np.maximum(outputs[-1], 0))
    gradients = [cotangent]
    for (weight, _), output in zip(weights[:0:-1], outputs[-2::-1], strict=True):
        gradients.insert(0, gradients[0] @ weight.T * (output > 0))
    chain = of_chain(
        [
            Layer(f"layers.{at}.weight", weight, bias, inputs[at], outputs[at], gradients[at])
            for at, (weight, bias) in enumerate(weights)
        ],
        "relu",
    )
    assert len(trace.operations) == len(chain.operations) == 5
    for ours, plain in zip(trace.operations, chain.operations, strict=True):
        assert (ours.kind, ours.inputs, ours.parameters) == (plain.kind, plain.inputs, plain.parameters)
        assert (ours.activation, ours.saturated) == (plain.activation, plain.saturated)
        assert ours.linear == plain.linear
        assert [ours.after.rms, ours.after.cosine] == [near(plain.after.rms), near(plain.after.cosine or 0)]
        if plain.loss_gradient:
            assert ours.loss_gradient
            assert ours.loss_gradient.rms == near(plain.loss_gradient.rms)
    assert {each.name for each in trace.weights} == {each.name for each in chain.weights}
    for each in trace.weights:
        plain_gradient = chain[each.name].gradient
        assert each.digest == chain[each.name].digest
        assert each.gradient
        assert plain_gradient
        assert each.gradient.rms == near(plain_gradient.rms)


def test_random_gradients_are_those_of_the_whole_function() -> None:
    """Through two branches, a sum and a normalization: as JAX's own derivative of what follows."""
    shapes = {"a": {"kernel": jnp.zeros((WIDTH, WIDTH))}, "b": {"kernel": jnp.zeros((WIDTH, WIDTH))}}
    params = fj.initialize(shapes, "he_normal", seed=0)
    x = jnp.asarray(draws(BATCH, WIDTH))

    def upper(params: Any, x: Any) -> Any:
        x = x + jnp.tanh(x @ params["b"]["kernel"])
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)

    trace = fj.trace(lambda params, x: upper(params, x @ params["a"]["kernel"]), x, params=params, seed=3)
    assert steps(trace) == [
        ("a", "dense", (-1,)),
        ("b", "dense", (0,)),
        (":tanh", "activation", (1,)),
        (":add", "add", (0, 2)),
        (":norm", "norm", (3,)),
    ]
    rows = np.random.default_rng(3).standard_normal((2, BATCH, WIDTH), np.float32)
    _, pull = jax.vjp(upper, params, x @ params["a"]["kernel"])
    (first, below), (_, below_second) = (pull(jnp.asarray(row)) for row in rows)
    found, gradient = trace.operations[0].backward, trace["b.kernel"].gradient
    assert found
    assert gradient
    assert found.rms == near(rms([below, below_second]))
    assert gradient.rms == near(rms(first["b"]["kernel"]))


def test_a_loop_over_stacked_layers_is_the_layers_one_by_one() -> None:
    """The same numbers, and the gradients of the stack put together."""
    depth = 3
    flat = {str(at): {"kernel": jnp.zeros((WIDTH, WIDTH)), "bias": jnp.zeros(WIDTH)} for at in range(depth)}
    apart = fj.initialize({"layers": flat}, "he_normal", seed=0)
    together = {
        "layers": {
            leaf: jnp.stack([apart["layers"][str(at)][leaf] for at in range(depth)])
            for leaf in ("kernel", "bias")
        }
    }

    def layer(x: Any, own: Any) -> tuple[Any, None]:
        return x + jax.nn.silu(x @ own["kernel"] + own["bias"]), None

    def unrolled(params: Any, x: Any) -> Any:
        for at in range(depth):
            x, _ = layer(x, params["layers"][str(at)])
        return x

    axes = {
        "*.kernel": fj.Axes.parse("l i o -> l : o | i"),
        "*.bias": ("bias", fj.Axes.parse("l o -> l : o |")),
    }
    x = draws(BATCH, WIDTH)
    plain = fj.trace(unrolled, x, params=apart)
    looped = fj.trace(
        lambda params, x: jax.lax.scan(layer, x, params["layers"])[0], x, params=together, axes=axes
    )
    assert kinds(plain) == kinds(looped) == ["dense", "silu", "add"] * depth
    for one, other in zip(plain.operations, looped.operations, strict=True):
        assert (one.inputs, one.after.rms) == (other.inputs, near(other.after.rms))
        assert one.backward
        assert other.backward
        assert one.backward.rms == near(other.backward.rms)
    assert sorted(each.digest for each in plain.weights) == sorted(each.digest for each in looped.weights)
    by_values = [
        {each.digest: each.gradient.rms for each in trace.weights if each.gradient and each.values.rms}
        for trace in (plain, looped)
    ]
    assert len(by_values[0]) == depth
    assert by_values[0] == {digest: near(size) for digest, size in by_values[1].items()}
    names = {name for step in looped.operations for name in step.parameters}
    assert names == {each.name for each in looped.weights}


def test_gates_are_what_goes_into_them_at_the_first_step() -> None:
    cell = nnx.OptimizedLSTMCell(WIDTH, 7, rngs=nnx.Rngs(0))
    x = draws(4, 6, WIDTH)
    trace = fj.trace(nnx.RNN(cell), x)
    assert kinds(trace) == ["recurrent"]
    inside = np.split(x[:, 0] @ np.asarray(cell.dense_i.kernel) + np.asarray(cell.dense_h.bias), 4, axis=1)
    gates = trace.operations[0].gates
    assert list(gates) == ["input_gate", "forget_gate", "cell_gate", "output_gate"]
    assert [gate.rms for gate in gates.values()] == [near(rms(values)) for values in inside]


def test_gates_of_a_loop_from_the_end_are_those_of_the_last_step() -> None:
    params = {name: jnp.asarray(draws(WIDTH, WIDTH)) * at for at, name in enumerate("rzn", 1)}

    def cell(state: Any, params: Any, x: Any) -> Any:
        reset, update = jax.nn.sigmoid(x @ params["r"]), jax.nn.sigmoid(x @ params["z"])
        return update * state + (1 - update) * jnp.tanh(x @ params["n"] + reset * state)

    def model(params: Any, x: Any) -> Any:
        state = jnp.zeros((4, WIDTH))
        return jax.lax.scan(lambda state, x: (cell(state, params, x), None), state, x, reverse=True)[0]

    x = draws(3, 4, WIDTH)
    gates = fj.trace(model, x, params=params, axes={"*": "io"}).operations[0].gates
    expected = {"reset_gate": "r", "update_gate": "z", "new_gate": "n"}
    assert {gate: found.rms for gate, found in gates.items()} == {
        gate: near(rms(x[-1] @ params[name])) for gate, name in expected.items()
    }


def test_attention_shows_its_parts_and_its_peaks() -> None:
    attention = nnx.MultiHeadAttention(2, WIDTH, decode=False, dropout_rate=0.3, rngs=nnx.Rngs(0))
    x = draws(3, 4, WIDTH)
    trace = fj.trace(attention, x)
    scaled = ["other", "matmul", "softmax", "matmul"]
    assert kinds(trace) == ["dense", "dense", "dense", *scaled, "dense"]
    assert [step.name for step in trace.operations[:3]] == ["q_proj", "k_proj", "v_proj"]
    query, key = (
        np.einsum("btd,dhk->bhtk", x, getattr(attention, word).kernel[...]) for word in ("query", "key")
    )
    scores = np.einsum("bhqk,bhtk->bhqt", query, key) / math.sqrt(WIDTH // 2)
    assert trace.operations[5].saturated == measure.saturated("softmax", scores)


def test_the_jacobian_is_that_of_one_example() -> None:
    params = {"w": jnp.diag(jnp.arange(1.0, WIDTH + 1))}
    trace = fj.trace(lambda params, x: x @ params["w"], draws(3, WIDTH), params=params, isometry=True)
    assert trace.singular_values == pytest.approx(tuple(range(WIDTH, 0, -1)))


@pytest.mark.parametrize("optimizer", ["adam 0.01", optax.adam(0.01)])
def test_the_first_step_is_that_of_the_optimizer(optimizer: Any) -> None:
    params = fj.initialize({"w": jnp.zeros((WIDTH, CLASSES))}, "he_normal", seed=0)
    trace = fj.trace(
        lambda params, x: x @ params["w"], draws(8, WIDTH), classes, params=params, optimizer=optimizer
    )
    assert trace["w"].update == pytest.approx(0.01 / rms(params["w"]), rel=1e-3)


# --- what is one operation -----------------------------------------------------------------------


def written_gelu(x: Any) -> Any:
    return 0.5 * x * (1 + jnp.tanh(0.79788456 * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (jax.nn.relu, ["relu"]),
        (lambda x: jnp.maximum(x, 0), ["relu"]),
        (jax.nn.gelu, ["gelu"]),
        (lambda x: jax.nn.gelu(x, approximate=False), ["gelu"]),
        (written_gelu, ["gelu"]),
        (jax.nn.silu, ["silu"]),
        (lambda x: x * jax.nn.sigmoid(x), ["silu"]),
        (jax.nn.selu, ["selu"]),
        (jax.nn.leaky_relu, ["leaky_relu"]),
        (jax.nn.softplus, ["softplus"]),
        (lambda x: jnp.sin(30 * x), ["sin"]),
        (jax.jit(jnp.tanh), ["tanh"]),
        (jax.checkpoint(jnp.tanh), ["tanh"]),
        (jax.nn.softmax, ["softmax"]),
        (lambda x: jnp.exp(x - x.max()) / jnp.exp(x - x.max()).sum(), ["softmax"]),
        (jax.nn.standardize, ["norm"]),
        (lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True), ["norm"]),
        (lambda x: x.reshape(BATCH, 2, -1).mean(1), ["pool"]),
        (lambda x: jnp.tanh(x).mean(0, keepdims=True), ["tanh", "pool"]),
        (lambda x: x[:, :6] * jax.nn.sigmoid(x[:, 6:]), ["sigmoid", "multiply"]),
        (lambda x: x[:, :6] @ x[:, 6:].T, ["matmul"]),
        (lambda x: jnp.concatenate([x, jnp.tanh(x)], -1), ["tanh", "concat"]),
        (lambda x: jnp.where(x > 3, 0.0, x / 2 + 1).clip(-2, 2), ["other"]),
        (lambda x: x.T.reshape(BATCH, -1).astype("bfloat16")[:4], []),
    ],
)
def test_functions_are_known_however_they_are_written(function: Any, expected: list[str]) -> None:
    """Nothing is run: this is read from the traced function."""
    kernel = Tensor("w", (WIDTH, WIDTH), "float32", (Piece("w", "kernel", "tree", IO),))
    traced = jax.make_jaxpr(lambda w, x: function(x @ w))(draws(WIDTH, WIDTH), draws(BATCH, WIDTH))
    program = flat(traced, lambda at: at == 0)
    found = recognize(program, [kernel], program.results[0])
    assert kinds(found) == ["dense", *expected]
    assert found.output == len(found.operations) - 1


def test_each_use_of_a_table_is_an_operation_with_its_name() -> None:
    class Words(nnx.Module):
        def __init__(self) -> None:
            self.table = nnx.Embed(9, WIDTH, rngs=nnx.Rngs(0))

        def __call__(self, words: Any) -> Any:
            return self.table.attend(self.table(words))

    trace = fj.trace(Words(), np.arange(9).reshape(3, 3))
    assert steps(trace) == [("table", "embedding", ()), ("table#2", "dense", (0,))]
    assert trace.batch == ()


def test_parameters_made_of_parameters_are_no_signals() -> None:
    """A kernel that is normalized, or a product of two, is used by one operation."""
    axes = {"*": "io", "gain": ("scale", "io")}
    params = {"a": jnp.asarray(draws(WIDTH, 3)), "b": jnp.asarray(draws(3, WIDTH)), "gain": jnp.ones(WIDTH)}

    def model(params: Any, x: Any) -> Any:
        kernel = params["a"] @ params["b"]
        return x @ (kernel / jnp.linalg.norm(kernel, axis=0) * params["gain"])

    trace = fj.trace(model, draws(BATCH, WIDTH), classes, params=params, axes=axes)
    assert [(step.kind, step.parameters) for step in trace.operations] == [("dense", ("a", "b", "gain"))]
    gradients = jax.grad(lambda params: classes(model(params, draws(BATCH, WIDTH)), None))(params)
    for name, gradient in gradients.items():
        found = trace[name].gradient
        assert found
        assert found.rms == near(rms(gradient))


# --- the models of each package ------------------------------------------------------------------


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(6, (3, 3))(x)))
        x = nn.Dropout(0.5, deterministic=not train)(nn.max_pool(x, (2, 2), (2, 2)))
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


NET = [
    ("Conv_0", "conv", (-1,)),
    ("BatchNorm_0", "norm", (0,)),
    (":relu", "activation", (1,)),
    (":pool", "pool", (2,)),
    (":pool#2", "pool", (3,)),
    ("head", "dense", (4,)),
]


@pytest.mark.parametrize("train", [False, True])
def test_linen_runs_as_it_trains_but_without_dropout(train: bool) -> None:
    images = draws(4, 8, 8, 3)
    variables = Net().init(jax.random.key(0), images)
    before = jax.tree.map(np.asarray, variables)
    trace = fj.trace(Net(), {"x": images, "train": train}, params=variables)
    assert steps(trace) == NET
    assert trace.operations[1].after.std == pytest.approx(
        1, abs=1e-4
    )  # of the batch, not mean 0 and variance 1
    assert abs(trace.operations[1].after.mean) < 1e-5
    assert trace.operations[1].layer == "BatchNorm"
    jax.tree.map(np.testing.assert_array_equal, before, variables)


def test_nnx_is_left_as_it_was() -> None:
    model = Perceptron()
    graph, before = nnx.split(model)
    before = jax.tree.map(
        lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.array(leaf), before
    )
    kept = [type(module) for _, module in nnx.iter_modules(model)]
    report = fj.audit(model, draws(BATCH, WIDTH), classes, optimizer=optax.sgd(0.1))
    assert [step.name for step in report.trace.operations] == ["first", "norm", ":relu", "head"]
    assert report.trace.operations[1].after.std == pytest.approx(1, abs=1e-3)
    after_graph, after = nnx.split(model)
    assert after_graph == graph
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert kept == [type(module) for _, module in nnx.iter_modules(model)]
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert jnp.array_equal(old, new)


def test_equinox_takes_one_example_at_a_time() -> None:
    keys = jax.random.split(jax.random.key(0), 2)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 6, 3, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Dropout(0.5),
            eqx.nn.GroupNorm(2, 6),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(216, CLASSES, key=keys[1]),
        ]
    )
    trace = fj.trace(model, draws(4, 3, 8, 8))
    assert kinds(trace) == ["conv", "relu", "norm", "dense"]
    assert [step.after.units for step in trace.operations] == [6, 6, 6, CLASSES]
    assert trace.operations[0].parameters == ("0.weight", "0.bias")


def test_layers_of_nnx_in_a_scan_have_their_numbers() -> None:
    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.norm, self.fc = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return x + nnx.relu(self.fc(self.norm(x)))

    class Deep(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.blocks = nnx.vmap(Block, in_axes=0)(rngs.split(2))
            self.head = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            run = nnx.scan(lambda block, x: block(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            return self.head(run(self.blocks, x))

    trace = fj.trace(Deep(), draws(BATCH, WIDTH))
    block = [("norm", "norm"), ("fc", "dense")]
    names = [f"blocks.{at}.{leaf}" for at in range(2) for leaf, _ in block]
    assert [step.name for step in trace.operations if step.parameters] == [*names, "head"]
    assert [step.name for step in trace.operations if not step.parameters] == [
        f"blocks.{at}:{word}" for at in range(2) for word in ("relu", "add")
    ]
    assert {name for step in trace.operations for name in step.parameters} == {
        each.name for each in trace.weights
    }


# --- what cannot be traced -----------------------------------------------------------------------


def identity(params: Any, x: Any) -> Any:
    return x @ params["w"]


W = {"w": jnp.eye(WIDTH)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fj.trace(identity, draws(3, 5), params=W),
            r"the model raised TypeError: .*\(5,\).*\(12,\).*float32\[3, 5\]",
        ),
        (lambda: fj.trace(identity, draws(3, WIDTH)), "`params` are missing"),
        (lambda: fj.trace(Net(), draws(1, 8, 8, 3)), "`params` of Net are missing"),
        (lambda: fj.trace(Perceptron(), draws(3, WIDTH), params=W), "leave them out"),
        (lambda: fj.trace(3, draws(3, WIDTH)), "`model` is a int"),
        (lambda: fj.trace(identity, "text", params=W), "`batch` .str. holds no array"),
        (lambda: fj.trace(identity, draws(3, WIDTH), params={}), "holds no parameters"),
        (lambda: fj.trace(lambda params, x: x, draws(3, WIDTH), params=W), "depends on no parameter"),
        (lambda: fj.trace(lambda params, x: 1, draws(3, WIDTH), params=W), "no floating point array"),
        (lambda: fj.trace(nnx.eval_shape(Perceptron), draws(3, WIDTH)), "abstract and has no values"),
        (
            lambda: fj.trace(identity, draws(3, WIDTH), lambda output, batch: batch["y"], params=W),
            "`loss` raised .*loss.output, batch.",
        ),
        (
            lambda: fj.trace(identity, draws(3, WIDTH), params={"w": np.eye(WIDTH)}),
            "'w': `dtype` float64 needs 64-bit types",
        ),
        (
            lambda: fj.trace(
                lambda params, x: jax.lax.while_loop(lambda x: x.sum() < 0, jnp.tanh, x @ params["w"]),
                draws(3, WIDTH),
                params=W,
            ),
            "backward raised ValueError: Reverse-mode",
        ),
        (lambda: fj.trace(identity, draws(3, WIDTH), optimizer=3, params=W), "`optimizer` must be"),
        (
            lambda: fj.trace(identity, draws(3, WIDTH), lambda output, batch: output, params=W),
            "`loss` raised TypeError: Gradient only defined for scalar",
        ),
    ],
)
def test_what_cannot_be_traced_is_one_clear_error(call: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        call()
