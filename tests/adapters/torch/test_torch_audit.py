"""What a trace of a PyTorch model says, and that the model does not notice."""

import copy
import math
import random
from dataclasses import replace

import models
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

import fanin.torch as ft
from fanin.audit import measure
from fanin.audit.trace import Trace
from fanin.errors import ArgumentError, TraceError
from fanin.recipe import Recipe, named

BATCH, WIDTH = 16, 12


@pytest.fixture
def batch():
    return torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def one_start():
    torch.manual_seed(0)


def classes(output, batch):
    return functional.cross_entropy(output, torch.arange(len(output)) % output.shape[-1])


def steps(trace):
    """What can be read off a page: names, kinds, edges."""
    return [(step.name, step.kind, step.inputs) for step in trace.operations]


def rms(tensor):
    return float(tensor.detach().double().square().mean().sqrt())


def near(value):
    return pytest.approx(value, rel=1e-5)


def perceptron():
    return nn.Sequential(nn.Linear(WIDTH, 24), nn.ReLU(inplace=True), nn.Linear(24, 10))


# --- numbers -------------------------------------------------------------------------------------


def test_every_step_is_measured_as_it_is_made(batch):
    """The in-place ReLU writes over the first layer's output; both are what they were."""
    model = perceptron()
    trace = ft.trace(model, batch)
    first = model[0](batch)
    second = functional.relu(first)
    assert steps(trace) == [("0", "dense", (-1,)), ("1", "activation", (0,)), ("2", "dense", (1,))]
    assert [step.after.rms for step in trace.operations] == [
        near(rms(x)) for x in (first, second, model(batch))
    ]
    assert trace.operations[0].before == trace.batch[0] == measure.signal(batch.numpy())
    assert [step.parameters for step in trace.operations] == [
        ("0.weight", "0.bias"),
        (),
        ("2.weight", "2.bias"),
    ]
    assert trace.operations[1].linear == float((first > 0).all(0).float().mean())
    assert trace.outputs == (2,)
    assert trace.trunks == ((0, 1, 2),)


def test_gradients_are_those_of_two_standard_normal_ones_of_the_output(batch):
    model = perceptron()
    trace = ft.trace(model, batch, seed=3)
    squares = np.zeros(3)
    for at in range(2):
        first = model[0](batch)
        second = functional.relu(first)
        last = model[2](second)
        cotangent = torch.from_numpy(
            np.random.default_rng([3, at]).standard_normal(tuple(last.shape), np.float32)
        )
        found = torch.autograd.grad(last, [first, second, last], cotangent)
        squares += [rms(gradient) ** 2 / 2 for gradient in found]
    assert [step.backward.rms for step in trace.operations] == [near(x) for x in np.sqrt(squares)]
    assert [step.backward.n for step in trace.operations] == [2 * BATCH * n for n in (24, 24, 10)]


def test_a_loss_gives_its_value_its_gradients_and_that_of_a_blind_guess(batch):
    model = perceptron()
    trace = ft.trace(model, batch, classes)
    loss = classes(model(batch), batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert trace.loss == near(float(loss.detach()))
    assert trace.blind_loss == near(math.log(10))
    assert [weights.gradient.rms for weights in trace.weights] == [near(rms(x)) for x in gradients]
    assert all(step.loss_gradient is not None for step in trace.operations)


def test_a_trace_is_json(batch):
    trace = ft.trace(perceptron(), batch, classes, optimizer="adam 0.001", isometry=True)
    assert Trace.from_json(trace.to_json()) == trace


def test_the_same_seed_gives_the_same_trace(batch):
    model = nn.Sequential(perceptron(), nn.Dropout(0.5), nn.RReLU())
    assert ft.trace(model, batch, seed=1) == ft.trace(model, batch, seed=1)


class NoNorm(nn.Module):
    """Where a norm was, or may be."""

    def forward(self, x):
        return x


def test_what_changes_nothing_is_no_step_and_dropout_is_inactive(batch):
    model = nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.Dropout(0.9), NoNorm(), nn.Flatten(), nn.Linear(WIDTH, 3)
    )
    trace = ft.trace(model.train(), batch)
    assert steps(trace) == [("0", "dense", (-1,)), ("4", "dense", (0,))]
    assert trace.operations[1].after.rms == near(rms(model.eval()(batch)))


@pytest.mark.parametrize("loss", [None, classes])
def test_every_step_has_both_gradients_tables_too(batch, loss):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.linear = nn.Embedding(5, 8), nn.Linear(WIDTH, 8)

        def forward(self, x, kinds):
            return self.linear(x) + self.table(kinds)

    trace = ft.trace(Mixed(), (batch, torch.arange(BATCH) % 5), loss)
    assert [step.name for step in trace.operations] == ["linear", "table", ":add"]
    assert [step.backward.n for step in trace.operations] == [2 * BATCH * 8] * 3


def test_batch_norm_takes_the_moments_of_the_batch(images):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    trace = ft.trace(model, images * 100)
    assert trace.operations[1].after.rms == pytest.approx(1, rel=1e-3)
    assert [step.after.units for step in trace.operations] == [8, 8]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("mul", lambda x, w: x * 3.0),
        ("add", lambda x, w: x + w),
        ("matmul", lambda x, w: torch.matmul(x, x.T)),
        ("softmax", lambda x, w: x.softmax(-1)),
        ("tanh", lambda x, w: torch.tanh(x)),
        ("gelu", lambda x, w: functional.gelu(x, approximate="tanh")),
        ("cat", lambda x, w: torch.cat([x, functional.relu(x)])),
        ("mean", lambda x, w: x.mean(0)),
        ("layer_norm", lambda x, w: functional.layer_norm(x, (WIDTH,))),
        ("einsum", lambda x, w: torch.einsum("bi,i->b", x, w)),
    ],
)
def test_functions_are_steps_with_the_name_of_their_module(batch, name, function):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)
            self.scale = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x):
            return function(self.linear(x), self.scale)

    trace = ft.trace(nn.Sequential(Block()), batch)
    last = trace.operations[-1]
    assert last.name == f"0:{name}"
    assert last.after.rms == near(rms(function(trace_input(trace, batch), torch.ones(WIDTH))))
    assert ("0.scale" in last.parameters) == (name in ("add", "einsum"))
    assert last.kind == {
        "mul": "multiply",
        "tanh": "activation",
        "gelu": "activation",
        "cat": "concat",
        "mean": "pool",
        "layer_norm": "norm",
        "einsum": "dense",
    }.get(name, name)
    assert last.activation == {"tanh": "tanh", "gelu": "gelu_tanh"}.get(name)


def trace_input(trace, batch):
    """What the block's linear layer, the first module made after the seed, gave."""
    torch.manual_seed(0)
    return nn.Linear(WIDTH, WIDTH)(batch)


def test_views_casts_slices_and_masks_are_no_steps(batch):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            x = self.linear(x).reshape(4, 4, WIDTH).transpose(1, 2).double().float()[:2]
            mask = (x > 0).float()
            x = x.masked_fill(x > 9, -math.inf) * mask + torch.arange(4)
            first, second = x.chunk(2, -1)
            return first + second

    found = steps(ft.trace(Views(), batch))
    assert found == [("linear", "dense", (-1,)), (":add", "add", (0,))]


# --- how models are written ----------------------------------------------------------------------


class Residual(nn.Module):
    """Sums in place, an activation in place, a shared norm, a branch without a module of its own."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, x):
        for _ in range(2):
            shortcut = x
            x = self.fc2(self.fc1(self.norm(x)).relu_())
            x += shortcut
        return x


def test_shared_modules_and_sums_in_place(batch):
    trace = ft.trace(Residual(), batch)
    assert steps(trace) == [
        ("norm", "norm", (-1,)),
        ("fc1", "dense", (0,)),
        (":relu", "activation", (1,)),
        ("fc2", "dense", (2,)),
        (":add", "add", (3, -1)),
        ("norm#2", "norm", (4,)),
        ("fc1#2", "dense", (5,)),
        (":relu#2", "activation", (6,)),
        ("fc2#2", "dense", (7,)),
        (":add#2", "add", (8, 4)),
    ]
    assert trace.trunks[0] == (4, 9)
    assert trace.operations[9].backward.rms == pytest.approx(1, abs=0.2)
    # The branch's end and the sum that is written over it have one gradient, the stream below more.
    assert trace.operations[8].backward == trace.operations[9].backward
    assert trace.operations[4].backward.rms > trace.operations[9].backward.rms


def test_writing_into_a_slice_joins_both_signals(batch):
    class Slices(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 8)

        def forward(self, x):
            joined = x.new_zeros(len(x), 12)
            joined[:, :4] = self.left(x)
            joined[:, 4:] = self.right(x)
            return functional.relu(joined)

    assert steps(ft.trace(Slices(), batch))[-1] == (":relu", "activation", (0, 1))


def test_dictionaries_tuples_and_several_outputs(batch):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.aux = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

        def forward(self, x, scale=1):
            x, extra = self.parts(x)
            return {"mask": x > 0, "aux": self.aux(extra), "logits": self.head(x)}

        def parts(self, x):
            return self.body(x), x

    trace = ft.trace(Several(), {"x": batch, "scale": 2})
    assert steps(trace) == [("body", "dense", (-1,)), ("aux", "dense", (-1,)), ("head", "dense", (0,))]
    assert trace.outputs == (2,)
    assert trace.operations[1].backward is None  # the main output does not depend on it
    assert ft.trace(Several(), (batch, 3)).outputs == (2,)


def test_a_function_of_ones_own_is_passed_through(batch):
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * gradient

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x):
            return self.last(Double.apply(self.first(x)))

    trace = ft.trace(Model(), batch)
    assert steps(trace) == [("first", "dense", (-1,)), ("last", "dense", (0,))]
    assert trace.operations[0].backward.rms > 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_modules_are_measured_once(batch, reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(2))
            self.forgetful = True

        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=reentrant) if self.forgetful else block(x)
            return x

    model = Checkpointed()
    found = ft.trace(model, batch, lambda output, batch: output.square().mean())
    model.forgetful = False
    assert found == ft.trace(model, batch, lambda output, batch: output.square().mean())


def without_paths(trace):
    """A wrapper is in the paths of parameters, and in nothing else."""
    return replace(trace, weights=tuple(replace(weights, path="") for weights in trace.weights))


def test_compiled_and_distributed_models_are_what_they_wrap(batch, tmp_path):
    model = perceptron()
    plain = ft.trace(model, batch)
    assert without_paths(ft.trace(torch.compile(model, backend="eager"), batch)) == without_paths(plain)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        assert without_paths(ft.trace(wrapped, batch)) == without_paths(plain)
        wrapped(batch).sum().backward()  # its reducer is still in order
    finally:
        torch.distributed.destroy_process_group()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_part_that_is_compiled_runs_as_it_is_written(batch):
    model = perceptron()
    plain = ft.trace(model, batch)
    model[1].compile(backend="eager")
    assert ft.trace(model, batch) == plain


def test_tied_weights_have_one_name_and_all_their_gradient(batch):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(20, WIDTH)
            self.head = nn.Linear(WIDTH, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x):
            return self.head(torch.tanh(self.table(x)))

    model, tokens = Tied(), torch.arange(8).reshape(2, 4)
    trace = ft.trace(
        model, tokens, lambda output, batch: functional.cross_entropy(output.flatten(0, 1), batch.flatten())
    )
    assert [step.parameters for step in trace.operations] == [("table.weight",), (), ("table.weight",)]
    assert trace.operations[0].inputs == ()
    assert trace.batch == ()
    loss = functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
    [gradient] = torch.autograd.grad(loss, [model.table.weight])
    assert [weights.gradient.rms for weights in trace.weights] == [near(rms(gradient))]


def test_parametrized_weights_are_what_the_layer_uses(batch):
    model = nn.Sequential(spectral_norm(nn.Linear(WIDTH, 8)), weight_norm(nn.Linear(8, 4)))
    before = copy.deepcopy(model.state_dict())
    trace = ft.trace(model, batch)
    assert steps(trace) == [("0", "dense", (-1,)), ("1", "dense", (0,))]
    assert set(trace.operations[1].parameters) == {"1.weight", "1.bias"}
    assert trace["0.weight"].values.rms == near(rms(model.eval()[0].weight))
    assert all(trace[name].gradient.rms > 0 for name in ("0.weight", "1.weight"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_frozen_parameters_are_measured_and_stay_frozen(batch):
    model = perceptron()
    model[0].requires_grad_(False)
    trace = ft.trace(model, batch)
    assert trace["0.weight"].gradient.rms > 0
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(batch, dtype):
    model = perceptron().to(dtype)
    trace = ft.trace(model, batch.numpy())  # NumPy has no bfloat16: the model's dtype is meant
    wide = ft.trace(model.float(), batch)
    assert trace.operations[-1].after.rms == pytest.approx(wide.operations[-1].after.rms, rel=0.02)
    assert {weights.dtype for weights in trace.weights} == {str(dtype).removeprefix("torch.")}


def test_units_are_channels_where_there_are_some(images):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 5))
    with torch.no_grad():
        model[0].bias[:2] = -100
    trace = ft.trace(model, images)
    assert [step.after.units for step in trace.operations] == [8, 8, 8, 5]
    assert trace.operations[1].after.dead == 0.25


def test_complex_signals_have_two_parts(batch):
    class Spectrum(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            return torch.fft.irfft(torch.fft.rfft(self.linear(x)))

    model = Spectrum()
    middle = ft.trace(model, batch).operations[1]
    assert (middle.name, middle.kind) == (":fft_rfft", "other")
    assert middle.after.rms == near(rms(torch.view_as_real(torch.fft.rfft(model.linear(batch)))))


# --- recurrent layers and attention --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("cell", [False, True])
def test_gates_are_those_of_the_first_step(kind, cell):
    module = getattr(nn, f"{kind}Cell" if cell else kind)(5, 7)
    x = torch.randn(3, 5) if cell else torch.randn(4, 3, 5)
    first = x if cell else x[0]
    trace = ft.trace(module, x)
    [step] = trace.operations
    assert (step.name, step.kind) == ("model", "recurrent")
    suffix = "" if cell else "_l0"
    parts = {
        name: getattr(module, f"{name}{suffix}").detach() for name in ("weight_ih", "bias_ih", "bias_hh")
    }
    bias = parts["bias_ih"] + parts["bias_hh"]
    plain = functional.linear(first, parts["weight_ih"], bias).chunk(4 if kind == "LSTM" else 3, -1)
    if kind == "LSTM":
        assert list(step.gates) == ["input_gate", "forget_gate", "cell_gate", "output_gate"]
        assert [gate.rms for gate in step.gates.values()] == [near(rms(part)) for part in plain]
    else:
        reset, update, _ = plain
        new = functional.linear(first, parts["weight_ih"][14:], parts["bias_ih"][14:])
        new = new + reset.sigmoid() * parts["bias_hh"][14:]
        assert step.gates["new_gate"].rms == near(rms(new))
        output = module(x) if cell else module(x)[0][0]
        assert torch.allclose(output, (1 - update.sigmoid()) * new.tanh(), atol=1e-6)


def test_packed_sequences_are_one_argument():
    lstm = nn.LSTM(5, 7, num_layers=2, bidirectional=True)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(4, 3, 5), [4, 3, 1])
    [step] = ft.trace(lstm, packed).operations
    assert step.inputs == (-1,)
    assert step.gates["forget_gate"].shape == (3, 7)


def test_attention_is_one_step_with_its_projections(batch):
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 24, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    trace = ft.trace(model, batch.reshape(2, 8, WIDTH))
    assert [step.kind for step in trace.operations[:3]] == ["attention", "add", "norm"]
    names = [f"layers.0.self_attn.{part}_proj.{leaf}" for leaf in ("weight", "bias") for part in "qkv"]
    out = [f"layers.0.self_attn.out_proj.{leaf}" for leaf in ("weight", "bias")]
    assert sorted(trace.operations[0].parameters) == sorted([*names, *out])


@pytest.mark.parametrize("masked", ["no", "causal", "bool", "float"])
def test_attention_says_how_many_queries_see_one_key(masked):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, q, k, v):
            below = torch.ones(6, 6, dtype=torch.bool).tril()
            mask = {"bool": below, "float": torch.where(below, 0.0, -math.inf)}.get(masked)
            return functional.scaled_dot_product_attention(
                q * self.scale, k, v, attn_mask=mask, is_causal=masked == "causal"
            )

    q, k, v = torch.randn(3, 2, 4, 6, 8)
    sharp, soft = (
        ft.trace(Attention(), (factor * q, k, v)).operations[-1].saturated for factor in (100, 0.01)
    )
    assert sharp > 0.8
    assert soft == 0.0
    scores = 100 * (q[0] @ k[0].mT) / math.sqrt(8)
    if masked != "no":
        scores = scores.masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), -math.inf)
    assert sharp == measure.saturated("softmax", scores.numpy())


# --- twins, optimizers, Jacobians ----------------------------------------------------------------


def test_units_that_stay_twins_are_told_from_units_that_part(batch):
    constant = perceptron()
    for parameter in constant.parameters():
        nn.init.constant_(parameter, 0.1)
    before = copy.deepcopy(constant.state_dict())
    trace = ft.trace(constant, batch, classes)
    assert trace["0.weight"].effective_width == 1
    assert all(torch.equal(value, before[name]) for name, value in constant.state_dict().items())
    head = perceptron()
    nn.init.zeros_(head[2].weight)
    assert [weights.tied for weights in ft.trace(head, batch, classes).weights] == [0, 0, 0, 0]


def test_one_cloned_unit_is_one_less(batch):
    model = perceptron()
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = model[0].weight[5], model[0].bias[5]
        model[2].weight[:, 3] = model[2].weight[:, 5]
    assert ft.trace(model, batch)["0.weight"].effective_width == 23


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("sgd 0.1", lambda parameters: torch.optim.SGD(parameters, 0.1)),
        ("adam 0.001", lambda parameters: torch.optim.Adam(parameters, 0.001)),
        ("rmsprop 0.001", lambda parameters: torch.optim.RMSprop(parameters, 0.001)),
    ],
)
def test_an_optimizer_is_asked_for_its_first_step_and_takes_none(batch, text, make):
    model = perceptron()
    optimizer = make(model.parameters())
    torch.optim.lr_scheduler.LinearLR(optimizer, 1.0)  # which counts the optimizer's steps
    before = copy.deepcopy(model.state_dict())
    asked, told = (
        ft.trace(model, batch, classes, optimizer=optimizer),
        ft.trace(model, batch, classes, optimizer=text),
    )
    for ours, theirs in zip(told.weights, asked.weights, strict=True):
        assert theirs.update == pytest.approx(ours.update, rel=1e-3)
    assert asked.optimizer == told.optimizer == text
    assert not optimizer.state
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_jacobian_of_an_orthogonal_chain_has_singular_values_of_one(batch):
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(5)))
    ft.initialize(model, "orthogonal", seed=0)
    assert ft.trace(model, batch, isometry=True).singular_values == pytest.approx([1] * WIDTH, abs=1e-5)


# --- the model does not notice -------------------------------------------------------------------


class Nosy(nn.Module):
    """A model that remembers what it did."""

    def __init__(self, fails):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Dropout(0.5), nn.ReLU())
        self.head = nn.Linear(WIDTH, 4)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.seen, self.fails = 0, [], fails

    def forward(self, x):
        self.calls += 1
        self.count += 1
        x -= np.random.normal() + random.random()  # noqa: NPY002 (the global generators are its own matter)
        self.last = self.body(x)
        self.seen.append(self.last)
        if self.fails == "forward":
            raise ZeroDivisionError("no such thing")
        return self.head(self.last) + torch.rand(())


@pytest.mark.parametrize("fails", ["", "forward", "loss", "hook"])
def test_the_model_is_left_as_it_was(batch, fails):
    model = Nosy(fails).train()
    model.head.eval()
    model.body[0].weight.requires_grad_(False)
    model.head.weight.grad = torch.ones(4, WIDTH)
    attributes = [{**vars(module), "hooks": len(module._forward_hooks)} for module in model.modules()]
    buffers = dict(model.named_buffers())
    kept = {
        name: (value, value._version, value.clone())
        for name, value in [*model.named_parameters(), *buffers.items()]
    }
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    given = batch.clone()

    def loss(output, batch):
        if fails == "loss":
            raise ZeroDivisionError("no such thing")
        if fails == "hook" and output.requires_grad:
            output.register_hook(lambda gradient: 1 / 0)
        return output.square().mean()

    if fails:
        with pytest.raises(TraceError, match="ZeroDivisionError"):
            ft.trace(model, batch, loss)
    else:
        assert ft.trace(model, batch, loss).loss > 0
    assert [{**vars(module), "hooks": len(module._forward_hooks)} for module in model.modules()] == attributes
    assert (model.calls, model.seen, hasattr(model, "last")) == (0, [], False)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        was, version, values = kept[name]
        assert value is was, name
        assert value._version == version, name
        assert torch.equal(value, values), name
    assert model.head.weight.grad.eq(1).all()
    assert model.head.bias.grad is None
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, *[True] * 5]
    now = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(now[0], generators[0])
    assert now[1:] == generators[1:]
    assert torch.equal(batch, given)
    assert not batch.requires_grad


def test_it_can_be_asked_where_nothing_has_a_gradient(batch):
    model = perceptron()
    plain = ft.trace(model, batch)
    with torch.no_grad():
        assert ft.trace(model, batch) == plain
    with torch.inference_mode():
        assert ft.trace(model, batch) == plain


# --- what cannot be traced -----------------------------------------------------------------------


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        raise RuntimeError("first line\nsecond line")


@pytest.mark.parametrize(
    ("model", "given", "options", "said"),
    [
        (nn.Linear, torch.ones(2, 3), {}, "`model` must be a torch.nn.Module, got type"),
        (nn.ReLU(), torch.ones(2, 3), {}, "no parameters"),
        (nn.Sequential(), torch.ones(2, 3), {}, "no parameters"),
        (nn.Linear(3, 4, device="meta"), torch.ones(2, 3), {}, "`weight` is on the meta device"),
        (nn.LazyLinear(4), torch.ones(2, 3), {}, "has no shape before the model's first forward"),
        (nn.Linear(3, 4), torch.ones(2, 5), {}, r"forward raised in the model \(Linear\): RuntimeError: .*"
            r"the batch was float32\[2, 5\]"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)), torch.ones(2, 3), {},
            r"forward raised in '1' \(Linear\)"),
        (nn.Sequential(nn.Linear(3, 3), Raises()), {"input": torch.ones(2, 3)}, {},
            r"'1' \(Raises\): RuntimeError: first line; the batch was input=float32\[2, 3\]"),
        (nn.Linear(3, 4), {"x": torch.ones(2, 3)}, {}, "TypeError: .*unexpected keyword argument 'x'"),
        (nn.Linear(3, 4), [torch.ones(2, 3)], {}, "`batch` must be a tensor or array, a tuple .* got list"),
        (nn.Linear(3, 4), torch.ones(2, 3), {"loss": lambda output, batch: 3.0},
            "`loss` must return one number"),
        (nn.Linear(3, 4), torch.ones(2, 3), {"loss": lambda output, batch: output}, r"got shape \(2, 4\)"),
        (nn.Linear(3, 4), torch.ones(2, 3), {"loss": lambda output, batch: batch[9]},
            "`loss` raised: IndexError"),
        (nn.Linear(3, 4), torch.ones(0, 3), {},
            r"output is empty, shape \(0, 4\); the batch was float32\[0, 3\]"),
        (nn.Linear(3, 4), torch.ones(2, 3), {"optimizer": 3},
            "`optimizer` must be a torch.optim.Optimizer or text"),
        (nn.Linear(3, 4), torch.ones(2, 3), {"optimizer": "adam"}, "expected a rule and a rate"),
        (nn.Linear(3, 4), torch.ones(2, 3), {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters())},
            "none of the model's parameters"),
        (nn.Linear(3, 4), torch.ones(2, 3), {"optimizer": torch.optim.LBFGS}, "`optimizer` must be"),
        (nn.Embedding(3, 4), torch.ones(2, dtype=torch.int64), {"isometry": True}, "no floating point array"),
        (nn.Linear(3, 2000), torch.ones(2, 3), {"isometry": True}, "at most 1024 outputs.* 2000"),
    ],
)  # fmt: skip
def test_what_cannot_be_traced_is_one_clear_error(model, given, options, said):
    with pytest.raises(ArgumentError, match=said):
        ft.trace(model, given, **options)


def test_an_output_without_values_or_gradients_is_an_error(batch):
    class Chooses(nn.Linear):
        def forward(self, x):
            return super().forward(x).argmax(-1)

    class Detached(nn.Linear):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(TraceError, match=r"no floating point tensor, but torch\.int64"):
        ft.trace(Chooses(WIDTH, 4), batch)
    with pytest.raises(TraceError, match="has no gradient"):
        ft.trace(Detached(WIDTH, 4), batch)


def test_a_sharded_model_is_an_error(tmp_path):
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.Linear(3, 4)
        fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        with pytest.raises(TraceError, match="'weight' is sharded over 1 ranks"):
            ft.trace(model, torch.ones(2, 3))
    finally:
        torch.distributed.destroy_process_group()


def test_values_that_are_not_finite_are_counted(batch):
    model = perceptron()
    with torch.no_grad():
        model[0].weight[2, 3] = math.nan
    trace = ft.trace(model, batch)
    assert trace["0.weight"].broken == (2,)
    assert trace.operations[0].after.broken == BATCH
    assert trace.operations[2].after.broken == BATCH * 10


# --- whole architectures -------------------------------------------------------------------------

SOME = ["gpt2", "gpt_neo", "llama", "mixtral", "mamba", "t5", "albert", "vit", "swin", "convnextv2", "clip"]
SOME += ["wav2vec2", "unet", "lstm_language_model"]


@pytest.mark.parametrize("name", SOME)
def test_architectures_are_whole(name):
    """Every parameter that has a gradient belongs to a step; the trunk ends at the output."""
    [model] = [each for each in models.MODELS if each.name == name]
    built = model.build()
    trace = ft.trace(built, model.batch())
    planned = [row.name for row in ft.plan(built, Recipe([(named("*"), "zeros")]), seed=0).rows]
    assert [weights.name for weights in trace.weights] == planned
    used = {name for step in trace.operations for name in step.parameters}
    moved = {weights.name for weights in trace.weights if weights.gradient.rms > 0}
    assert moved <= used
    kinds = {step.kind for step in trace.operations}
    assert kinds & {"attention", "softmax", "conv", "recurrent"}
    assert kinds & {"dense", "conv"}
    assert trace.trunks[0][-1] == trace.outputs[0]
    assert len(trace.trunks[0]) > 2
    last = trace.operations[trace.outputs[0]].backward
    assert last.rms == pytest.approx(1, abs=4 / math.sqrt(2 * last.n))
