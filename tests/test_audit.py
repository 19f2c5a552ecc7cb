"""The checks see what is wrong with a start, and nothing where nothing is."""

import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fanin.audit import CHECKS, Finding, Layer, Operation, Signal, Spread, Trace, examine, of_chain
from fanin.audit.checks import (
    BackwardScale,
    Balanced,
    DeadUnits,
    DepthScale,
    Distinguishability,
    DtypeRange,
    FirstUpdate,
    ForwardScale,
    Isometry,
    LinearUnits,
    LossAtStart,
    ResidualScale,
    SaturatedUnits,
    Symmetry,
    backward_rms,
    balance,
    effective_widths,
    forward_rms,
)
from fanin.audit.checks.balance import common_push
from fanin.audit.lines import change, drift, lines, normalized
from fanin.audit.measure import signal
from fanin.audit.ranking import ranked
from fanin.audit.theory import predicted
from fanin.audit.updates import first_step, parse, stepper
from fanin.errors import ArgumentError, ShapeError, UnknownNameError
from fanin.gains import ALPHA, LAMBDA

PHI = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: z > 0),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "linear": (lambda z: z, np.ones_like),
    "selu": (
        lambda z: LAMBDA * np.where(z > 0, z, ALPHA * np.expm1(np.minimum(z, 0))),
        lambda z: LAMBDA * np.where(z > 0, 1, ALPHA * np.exp(np.minimum(z, 0))),
    ),
}


def passed(weights, x, cotangent, biases=None, activation="relu"):
    """A chain in float64; ``cotangent`` is the gradient of its output."""
    phi, slope = PHI[activation]
    weights = [np.asarray(w, np.float64) for w in weights]
    biases = [np.zeros(w.shape[1]) for w in weights] if biases is None else biases
    inputs, outputs, values = [], [], x
    for w, b in zip(weights, biases, strict=True):
        inputs.append(values)
        outputs.append(values @ w + b)
        values = phi(outputs[-1])
    gradients = [cotangent]
    for w, below in zip(weights[:0:-1], outputs[-2::-1], strict=True):
        gradients.insert(0, (gradients[0] @ w.T) * slope(below))
    names = [f"layers.{i}.weight" for i in range(len(weights) - 1)] + ["head.weight"]
    return [Layer(*parts) for parts in zip(names, weights, biases, inputs, outputs, gradients, strict=True)]


def chain(weights, x, cotangent, biases=None, activation="relu"):
    return of_chain(passed(weights, x, cotangent, biases, activation), activation, "torch")


def drawn(draw, depth=12, width=64, batch=128, head=10, seed=0, activation="relu", plant=len):
    """Trace a chain whose weights are ``draw(rng, shape)``, fed with unit normals."""
    rng = np.random.default_rng(seed)
    weights = [draw(rng, shape) for shape in pairwise([width] * (depth + 1) + [head])]
    plant(weights)
    x, cotangent = rng.normal(size=(batch, width)), rng.normal(size=(batch, head))
    return chain(weights, x, cotangent, activation=activation)


def he(rng, shape):
    return rng.normal(size=shape) * math.sqrt(2 / shape[0])


def lecun(rng, shape):
    return rng.normal(size=shape) * math.sqrt(1 / shape[0])


def orthogonal(rng, shape):
    q, _ = np.linalg.qr(rng.normal(size=(max(shape), max(shape))))
    return q[: shape[0], : shape[1]]


RULES = ("symmetry", "balance", "forward-scale", "backward-scale")


def codes(trace, select=RULES):
    return {f.code: f.level for f in examine(trace, select) if f.level != "info"}


def one(check, trace):
    """The one finding of a check, or None."""
    found = list(check.run(trace))
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("seed", range(5))
def test_a_sound_start_has_no_findings(seed):
    assert codes(drawn(he, seed=seed), select=None) == {}


# symmetry


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_constant_weights_are_one_unit_wide(value):
    trace = drawn(lambda rng, shape: np.full(shape, value))
    assert effective_widths(trace) == (1,) * 12
    finding = one(Symmetry(), trace)
    assert finding.level == "fail"
    assert finding.measured == "1 distinct unit of 64"
    assert finding.where.endswith("of 13 layers, first layers.0.weight")
    assert finding.why.startswith("Units that start equal stay equal")
    assert finding.after == "64 distinct units of 64"
    assert examine(trace)[0].code in ("symmetry", "zero-layer")


def test_a_duplicated_unit_costs_one():
    def same_inputs(weights):
        weights[1][:, 5] = weights[1][:, 40]

    def twins(weights):
        same_inputs(weights)
        weights[2][5] = weights[2][40]

    assert effective_widths(drawn(he, depth=3, plant=same_inputs)) == (64, 64, 64)
    trace = drawn(he, depth=3, plant=twins)
    assert effective_widths(trace) == (64, 63, 64)
    assert one(Symmetry(), trace).measured == "63 distinct units of 64"
    assert one(Symmetry(), trace).at == ("layers.1.weight",)


def test_zeros_that_are_meant_are_not_tied():
    def zero_head(weights):
        weights[-1][:] = 0

    assert codes(drawn(he, plant=zero_head), select=None) == {}


# balance


def test_balance_is_exact_for_constants_and_zeros():
    tenth = balance(drawn(lambda _, shape: np.full(shape, 0.1)).weights[::2])
    assert (tenth.std, tenth.mean_over_std, tenth.z) == (0.0, math.inf, math.inf)
    assert (tenth.positive, tenth.negative) == (1.0, 0.0)
    nothing = balance(drawn(lambda _, shape: np.zeros(shape)).weights)
    assert (nothing.z, nothing.positive, nothing.negative) == (0.0, 0.0, 0.0)


def test_balance_of_several_tensors_is_that_of_their_entries():
    trace = drawn(lambda rng, shape: rng.normal(rng.normal(), 1, shape), depth=3)
    kernels = [weights for weights in trace.weights if weights.role == "kernel"]
    rng = np.random.default_rng(0)
    entries = np.concatenate([rng.normal(rng.normal(), 1, (64, 64)).ravel() for _ in kernels])
    found = balance(kernels)
    assert (found.mean, found.std) == pytest.approx((entries.mean(), entries.std()))
    assert found.positive == pytest.approx(np.mean(entries > 0))


def test_common_push_follows_its_formula():
    x = np.array([[1.0, 3.0], [3.0, 5.0]])
    trace = chain([[[0.5, 0.25], [0.25, 0.0]]], x, np.zeros((2, 2)))
    spread = np.std([[1.25, 0.25], [2.75, 0.75]])
    found = common_push(trace, trace.operations[0], trace.weights[0])
    assert found == pytest.approx(0.25 * 2 * 3 / spread)


def test_one_sided_weights_are_found_and_named():
    # the mean 1 / width keeps the signal's size, so that only the balance is wrong
    finding = one(Balanced(), drawn(lambda rng, shape: rng.uniform(0, 2 / shape[0], shape)))
    assert finding.code == "balance"
    assert "100% positive, 0% negative" in finding.measured
    assert finding.level == "warn"


def test_a_mean_that_meets_centred_inputs_does_no_harm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 64))
    x -= x.mean()
    trace = chain([rng.normal(0.5, 1, (64, 64))], x, np.zeros((256, 64)))
    assert balance(trace.weights[:1]).z > 20
    assert one(Balanced(), trace) is None


@pytest.mark.parametrize("seed", range(10))
def test_balanced_draws_are_not_accused(seed):
    assert one(Balanced(), drawn(he, depth=30, seed=seed)) is None


# scale


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        ([1.0, 0.1, 0.01], -1.0),
        ([2.0, 4.0, 8.0], math.log10(2)),
        ([5.0], 0.0),
        ([1.0, 0.0], -math.inf),
        ([1.0, math.inf], math.inf),
    ],
)
def test_drift_is_decades_per_layer(signal, expected):
    assert drift(signal) == pytest.approx(expected)


@pytest.mark.parametrize("signal", [[0.0, 0.0], [math.inf, math.nan], [1.0, math.nan]])
def test_drift_of_no_signal_is_nan(signal):
    assert math.isnan(drift(signal))


def test_a_change_is_steady_or_by_jumps_or_neither():
    steady = change([10.0**-k for k in range(9)])
    assert (steady.jumps, steady.steady) == ((), pytest.approx(-8))
    jump = change([1.0, 1.1, 1.0, 90.0, 100.0])
    assert (jump.jumps, jump.leap) == ((3,), pytest.approx(math.log10(90)))
    slowing = change([k**-0.5 for k in range(1, 200)])
    assert slowing.total < -1
    assert slowing.jumps == ()
    assert abs(slowing.steady) < abs(slowing.total) / 2


@pytest.mark.parametrize("variance", [1.0, 2.0, 4.0])
def test_relu_drift_is_half_the_log_of_half_the_variance(variance):
    """For Var W = v / n the mean square changes by v / 2 per layer. Its logarithm has per layer
    and input a variance of at most 5 / n, and so a mean of -5 / (2 n) beside log(v / 2); the
    batch's mean square varies less than one input's."""
    depth, width, seeds = 20, 128, 4

    def draw(rng, shape):
        return math.sqrt(variance) * lecun(rng, shape)

    traces = [drawn(draw, depth, width, batch=64, head=width, seed=seed) for seed in range(seeds)]
    for drifts in (
        [drift(forward_rms(trace)) for trace in traces],
        [drift(backward_rms(trace)[::-1]) for trace in traces],
    ):
        natural = np.mean(drifts) * 2 * math.log(10)
        bias = 5 / (2 * width)
        error = math.sqrt(5 / width / (depth - 1) / seeds)
        assert math.log(variance / 2) - bias - 5 * error < natural < math.log(variance / 2) + 5 * error


def test_scale_findings_grow_with_depth():
    # lecun: 0.15 decades per layer, 1.4 over 10 layers, 4.4 over 30
    both = ("forward-scale", "backward-scale")
    assert codes(drawn(lecun, depth=4, width=256)) == {}
    assert codes(drawn(lecun, depth=12, width=256)) == dict.fromkeys(both, "warn")
    assert codes(drawn(lecun, depth=30, width=256)) == dict.fromkeys(both, "fail")


def test_scale_findings_say_which_way_and_what_to_do():
    # with std s and 64 units each layer multiplies by s * sqrt(64 / 2): -1.25 and +0.75 decades
    small = one(ForwardScale(), drawn(lambda rng, shape: 0.01 * rng.normal(size=shape)))
    assert float(small.measured.split()[0]) == pytest.approx(-1.25, abs=0.1)
    assert "in all; theory -1." in small.measured
    assert "larger std: he_normal" in small.advice
    assert small.snippet.endswith('ft.initialize(model, "he_normal", seed=0)')
    assert small.after.startswith("he_normal: 12 layers keep 1.0 of the size instead of 10^-1")
    large = one(BackwardScale(), drawn(lambda rng, shape: rng.normal(size=shape)))
    assert float(large.measured.split()[0]) == pytest.approx(0.75, abs=0.1)
    assert "smaller std" in large.advice
    assert large.where == "backward, over 12 layers, layers.11 to layers.0"


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_one_scaled_layer_is_named_both_ways(factor):
    def scaled(weights):
        weights[5] *= factor

    trace = drawn(he, plant=scaled, width=256)
    for check in (ForwardScale(), BackwardScale()):
        finding = one(check, trace)
        assert finding.at == ("layers.5", "layers.5.weight")
        assert float(finding.measured.split()[0]) == pytest.approx(math.log10(factor), abs=0.2)


def test_zeros_let_no_signal_through():
    trace = drawn(lambda _, shape: np.zeros(shape))
    findings = {finding.code: finding for finding in examine(trace, RULES)}
    assert set(findings) == {"symmetry", "forward-scale", "backward-scale"}
    assert findings["forward-scale"].measured == "no signal arrives"
    assert "larger std" in findings["forward-scale"].advice


def test_a_zero_layer_is_named_where_the_signal_ends():
    def zero(weights):
        weights[5][:] = 0

    finding = one(ForwardScale(), drawn(he, plant=zero))
    assert (finding.level, finding.where) == ("fail", "forward, at layers.5")


def test_a_nan_is_named_where_it_comes_in():
    def broken(weights):
        weights[4][3] = math.nan

    finding = one(ForwardScale(), drawn(he, plant=broken))
    assert (finding.measured, finding.at[0]) == ("the signal is not finite", "layers.4")


def test_a_hundred_critical_orthogonal_tanh_layers_are_sound():
    """At sigma_w = 1 the signal decays as 1 / sqrt(2 l), a decade over 100 layers, and trains."""
    assert codes(drawn(orthogonal, depth=100, activation="tanh"), select=None) == {}


def test_selu_at_gain_three_quarters_has_a_fixed_point_of_a_fifth():
    """Theory: standard deviation .1996 and chi 1.0037. The mean of 20 layers' variances errs by a share of
    about sqrt(5 / 512) in each."""

    def torchs_gain(rng, shape):
        return rng.normal(size=shape) * 0.75 / math.sqrt(shape[0])

    trace = drawn(torchs_gain, depth=60, width=512, batch=32, activation="selu")
    stds = [operation.after.std for operation in trace.operations if operation.kind == "activation"][-20:]
    assert np.mean(stds) == pytest.approx(0.1996, abs=0.02)
    sizes = backward_rms(trace)
    chi = (sizes[-21] / sizes[-1]) ** (2 / 20)
    assert chi == pytest.approx(1.0037, abs=0.05)


# residual streams, norms


def operation(name, inputs, rms=1.0, kind="dense", backward=1.0, **more):
    """An operation of 64 units whose signal has a size, and no mean."""

    def values(size, kind, **facts):
        return kind(n=640, mean=0.0, std=size, rms=size, largest=3 * size, zeros=0.0, broken=0, **facts)

    after = values(rms, Signal, shape=(10, 64), units=64, cosine=0.1, rank=9.0, rows=10)
    return Operation(name, kind, kind, inputs, after, backward=values(backward, Spread), **more)


def stream(growth, n=12, norms=False, last_norm=False):
    """A residual stream whose sums grow by a factor each."""
    made = [operation("embed", (-1,))]
    for k in range(n):
        source = len(made) - 1
        if norms:
            made.append(operation(f"blocks.{k}.norm", (source,), kind="norm"))
        made.append(operation(f"blocks.{k}.fc", (len(made) - 1,)))
        made.append(operation(f"blocks.{k}:add", (source, len(made) - 1), growth ** (k + 1), "add"))
    if last_norm:
        made.append(operation("norm", (len(made) - 1,), kind="norm"))
    made.append(operation("head", (len(made) - 1,)))
    return Trace("torch", (), tuple(made), outputs=(len(made) - 1,))


def test_a_stream_that_doubles_is_residual_scale_before_forward_scale():
    trace = stream(math.sqrt(2))
    found = [f for f in examine(trace) if f.level != "info"]
    assert [f.code for f in found[:2]] == ["residual-scale", "forward-scale"]
    assert "1 / sqrt(12)" in found[0].advice
    assert one(ResidualScale(), stream(1.03)) is None


def test_a_stream_whose_size_a_norm_takes_away_is_only_reported():
    trace = stream(math.sqrt(2), norms=True, last_norm=True)
    assert {f.code: f.level for f in examine(trace)} == {"residual-scale": "info"}
    assert normalized(trace) >= {at for at, each in enumerate(trace.operations) if each.kind == "add"}
    assert not normalized(stream(1.0, norms=True)) & {len(trace.operations) - 3}


def test_an_embedding_of_any_size_before_a_norm_is_sound():
    made = [operation("embed", (), 0.02, "embedding"), operation("norm", (0,), kind="norm")]
    made += [operation(f"fc.{k}", (k + 1,)) for k in range(4)]
    assert examine(Trace("torch", (), tuple(made), outputs=(len(made) - 1,))) == ()


def test_a_line_leaves_branches_and_the_head_out():
    trace = stream(1.0, n=2)
    names = [trace.operations[at].name for at in lines(trace)[0].places]
    assert names == ["embed", "blocks.0:add", "blocks.1:add"]


# directions


def test_relu_draws_inputs_together_as_the_c_map_says():
    """c_30 = .972011 of orthogonal inputs; a wide network departs by about its width's square root."""
    rng = np.random.default_rng(0)
    values, cosines = rng.normal(size=(24, 1024)), []
    for _ in range(31):
        outputs = values @ he(rng, (1024, 1024))
        cosines.append(signal(outputs).cosine)
        values = np.maximum(outputs, 0)
    assert cosines[1] == pytest.approx(0.318310, abs=0.02)
    assert cosines[10] == pytest.approx(0.871536, abs=0.02)
    assert cosines[30] == pytest.approx(0.972011, abs=0.02)


def test_cosines_near_one_are_reported_before_they_harm():
    finding = one(Distinguishability(), drawn(he, depth=31, width=256, batch=24))
    assert (finding.level, finding.at) == ("info", ("layers.30",))


def test_inputs_that_become_one_are_a_failure_unless_they_were():
    rng = np.random.default_rng(0)
    weights = [np.outer(np.ones(64), rng.normal(size=64)) / 8 + 1e-4 * he(rng, (64, 64)) for _ in range(6)]
    x = rng.normal(size=(32, 64))
    trace = chain(weights, abs(x) + 3 * rng.normal(size=(32, 64)), x)
    finding = one(Distinguishability(), trace)
    assert finding.level == "fail"
    assert one(Distinguishability(), chain(weights, 1 + 1e-3 * x, x)) is None


# units


def test_a_bias_far_below_zero_is_dead_units():
    rng = np.random.default_rng(0)
    weights = [he(rng, (64, 64)) for _ in range(4)]
    x = rng.normal(size=(128, 64))
    biases = [np.full(64, -20.0 if k == 1 else 0.0) for k in range(4)]
    trace = chain(weights, x, x, biases)
    finding = one(DeadUnits(), trace)
    assert (finding.level, finding.where) == ("fail", "layers.1:relu")
    assert "layers.1.bias" in finding.at
    assert one(LinearUnits(), chain(weights, x, x, [-bias for bias in biases])).where == "layers.1:relu"


def test_half_dead_is_no_news():
    """However alike the examples: of weights without a mean no more than half are dead."""
    x = 1 + 1e-6 * np.random.default_rng(1).normal(size=(64, 256))
    rng = np.random.default_rng(0)
    trace = chain([he(rng, (256, 256)) for _ in range(6)], x, x)
    assert max(each.after.dead for each in trace.operations) > 0.4
    assert one(DeadUnits(), trace) is None


def test_large_weights_saturate_tanh():
    trace = drawn(lambda rng, shape: rng.normal(size=shape), depth=6, activation="tanh")
    finding = one(SaturatedUnits(), trace)
    # |z| < 2.178 with z of standard deviation 8 in the first layer: 21 %
    assert finding.level == "warn"
    assert int(finding.measured.split("%")[0]) == pytest.approx(78, abs=3)
    assert one(SaturatedUnits(), drawn(lecun, depth=6, activation="tanh")) is None


@pytest.mark.parametrize(("mean", "found"), [(0.0, False), (1.0, False), (10.0, True), (-10.0, True)])
def test_a_gate_far_from_zero_is_saturated(mean, found):
    gate = Signal(100, mean, 1.0, math.hypot(mean, 1), 12.0, 0.0, 0)
    lstm = operation("lstm", (-1,), kind="recurrent", gates={"forget_gate": gate})
    finding = one(SaturatedUnits(), Trace("torch", (), (lstm,), outputs=(0,)))
    assert (finding is not None) == found
    assert not found or finding.where == "lstm, forget_gate"


# loss, first step, theory, dtypes


@pytest.mark.parametrize(
    ("loss", "level"),
    [(2.3026, None), (2.35, None), (2.6, "info"), (6.8, "info"), (7.0, "warn"), (math.nan, "fail")],
)
def test_the_loss_at_the_start_is_compared_with_a_blind_guess(loss, level):
    trace = replace(drawn(he, depth=2), loss=loss, blind_loss=math.log(10))
    finding = one(LossAtStart(), trace)
    assert (finding and finding.level) == level
    if finding:
        assert finding.at == ("head.weight", "head")
        assert finding.after == "2.303"


def test_the_first_step_is_compared_with_the_weights():
    trace = drawn(he, depth=3)

    def stepped(*updates, dtype="float32"):
        kernels = [w for w in trace.weights if w.role != "bias"]
        moved = [replace(w, update=u, dtype=dtype) for w, u in zip(kernels, updates, strict=True)]
        return {f.level: f for f in FirstUpdate().run(replace(trace, weights=tuple(moved)))}

    assert stepped(1e-3, 1e-3, 1e-3, 1e-3) == {}
    assert set(stepped(2e-2, 2e-2, 2e-2, 1e-3)) == {"info"}
    assert stepped(1e-3, 1.0, 1e-3, 1e-3)["warn"].at == ("layers.1.weight",)
    assert set(stepped(1e-3, 9.0, 1e-3, 1e-3)) == {"fail"}
    assert "lost" in stepped(1e-3, 1e-3, 1e-9, 1e-3)["warn"].measured
    assert "lost" in stepped(1e-3, 1e-3, 1e-3, 1e-3, dtype="bfloat16")["warn"].measured


def test_depth_is_compared_with_the_depth_scale():
    """sigma_w^2 = 1 before ReLU: chi = 1/2, xi = 1 / ln 2 = 1.44 layers, six of them 8.7."""
    finding = one(DepthScale(), drawn(lecun, depth=12, width=256))
    assert finding.level == "info"
    assert "xi 1.4" in finding.measured
    assert one(DepthScale(), drawn(lecun, depth=6, width=256)) is None
    assert one(DepthScale(), stream(1.0)) is None


def test_a_wide_spectrum_is_reported():
    trace = replace(drawn(he, depth=2), singular_values=(11.0, 1.0, 1e-15))
    assert one(Isometry(), trace) is None
    assert one(Isometry(), replace(trace, singular_values=(4.1, 0.036, 0.001))).level == "info"


def test_gradients_below_a_dtype_are_lost():
    trace = drawn(he, depth=4)
    small = Spread(10, 0.0, 1e-9, 1e-9, 1e-9, 0.0, 0, {-30: 10})
    trace = replace(trace, operations=tuple(replace(each, loss_gradient=small) for each in trace.operations))
    assert one(DtypeRange(), trace).level == "info"
    half = replace(trace, weights=tuple(replace(weights, dtype="float16") for weights in trace.weights))
    finding = one(DtypeRange(), half)
    assert (finding.level, "gradients" in finding.where) == ("warn", True)


def test_theory_agrees_with_what_is_measured():
    trace = drawn(he, depth=4, width=512)
    for each, expected in zip(trace.operations, predicted(trace), strict=True):
        assert expected == pytest.approx(each.after.rms, rel=0.1)


def test_theory_of_sums_products_and_norms():
    made = (
        operation("a", (-1,), 3.0),
        operation("b", (-1,), 4.0),
        operation("add", (0, 1), kind="add"),
        operation("multiply", (0, 1), kind="multiply"),
        operation("matmul", (0, 1), kind="matmul"),
        operation("concat", (0, 1), kind="concat"),
        operation("norm", (0,), kind="norm"),
        operation("pool", (0,), kind="pool"),
        operation("mine", (0,), kind="activation", activation="mine"),
    )
    found = predicted(Trace("", (), made, outputs=(8,)))
    assert found[2:] == (5.0, 12.0, 8 * 12.0, pytest.approx(math.sqrt(12.5)), 1.0, None, None)


@pytest.mark.parametrize(("rule", "expected"), [("sgd", -0.2), ("adam", -0.1), ("rmsprop", -1.0)])
def test_first_steps(rule, expected):
    gradient = np.array([2.0, 0.0])
    step = first_step(rule, 0.1, "kernel", np.zeros(2), gradient)
    assert step == pytest.approx([expected, 0.0])
    assert np.array_equal(stepper(f"{rule} 0.1")("kernel", np.zeros(2), gradient), step)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("adm 0.1", UnknownNameError, "did you mean adam"),
        ("adam", ArgumentError, "expected a rule and a rate"),
        ("adam x", ArgumentError, "the rate must be a positive number, got 'x'"),
        ("sgd -1", ArgumentError, "the rate must be a positive number"),
        ("sgd nan", ArgumentError, "the rate must be a positive number"),
        (3, ArgumentError, "expected a rule and a rate"),
    ],
)
def test_an_optimizer_that_is_none_is_named(text, error, says):
    with pytest.raises(error, match=says):
        parse(text)


# ranking


def finding(code, level="warn", *at, weight=0.0):
    return Finding(code, level, code, "", "", "", "", at=at, weight=weight)


def test_findings_come_worst_first_then_strongest():
    mixed = [finding("coarse-values", "info"), finding("weight-range"), finding("first-update", "fail")]
    assert [f.level for f in ranked(Trace("", ()), mixed)] == ["fail", "warn", "info"]
    strongest = ranked(Trace("", ()), [finding("weight-range", weight=k) for k in (1.0, 3.0, 2.0)])
    assert [f.weight for f in strongest] == [3.0, 2.0, 1.0]


def test_a_cause_comes_before_what_follows_and_is_as_bad():
    trace = stream(1.0)
    drift = finding("forward-scale", "fail", *(each.name for each in trace.operations), weight=9.0)
    gain = finding("wrong-gain", "info", "embed", "blocks.0.fc")
    found = ranked(trace, [drift, finding("loss-at-start"), gain])
    assert [f.code for f in found] == ["wrong-gain", "forward-scale", "loss-at-start"]
    assert found[0].level == "fail"


def test_one_layer_does_not_explain_what_all_do_nor_the_other_way():
    trace = stream(1.0)
    every = [each.name for each in trace.operations]
    layer, drift = finding("scaled-layer", "warn", "blocks.0.fc"), finding("forward-scale", "fail", *every)
    found = ranked(trace, [layer, drift])
    assert [f.code for f in found] == ["forward-scale", "scaled-layer"]
    gain, jump = finding("wrong-gain", "info", *every), finding("forward-scale", "fail", "blocks.0:add")
    found = ranked(trace, [gain, jump])
    assert [f.code for f in found] == ["forward-scale", "wrong-gain"]


def test_a_cause_must_lie_before_what_follows():
    trace = stream(1.0)
    below, above = "embed", "head"
    found = ranked(trace, [finding("dead-units", "fail", below), finding("dead-bias", "warn", above)])
    assert [f.code for f in found] == ["dead-units", "dead-bias"]
    found = ranked(trace, [finding("dead-units", "fail", above), finding("dead-bias", "warn", below)])
    assert [f.code for f in found] == ["dead-bias", "dead-units"]


def test_codes_are_selected_and_ignored():
    trace = drawn(lecun, depth=30)
    assert {f.code for f in examine(trace, select=["forward-scale"])} == {"forward-scale"}
    assert "forward-scale" not in {f.code for f in examine(trace, ignore=["forward-scale"])}
    with pytest.raises(UnknownNameError, match="no check 'forward'; did you mean forward-scale"):
        examine(trace, select=["forward"])


# chains


def test_a_chain_refuses_parts_that_do_not_fit():
    x = np.ones((2, 3))
    with pytest.raises(ShapeError, match=r"a: outputs must have shape \(2, 4\), got \(2, 3\)"):
        Layer("a", np.ones((3, 4)), np.zeros(4), x, x, x)
    with pytest.raises(ShapeError, match=r"a: weight must be \(in, out\), got \(3,\)"):
        Layer("a", np.ones(3), np.zeros(4), x, x, x)
    low = Layer("low", np.ones((3, 2)), np.zeros(2), x, np.ones((2, 2)), np.ones((2, 2)))
    high = Layer("high", np.eye(3), np.zeros(3), x, x, x)
    with pytest.raises(ShapeError, match="high takes 3 inputs, but low before it has 2 units"):
        of_chain([low, high])


def test_every_check_has_its_own_code_and_text():
    assert len({check.code for check in CHECKS}) == len(CHECKS)
    assert all(type(check).__doc__ for check in CHECKS)


LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"


def loaded_by(statement):
    run = subprocess.run(
        [sys.executable, "-c", f"{statement}; {LOADED}"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


HEAVY = {"jax", "optax", "sklearn", "torch", "tensorflow", "keras", "matplotlib"}


def test_the_audit_loads_no_framework():
    assert not HEAVY & loaded_by("import fanin.audit, fanin.report")


def test_the_test_above_can_fail():
    assert {"jax", "sklearn"} <= loaded_by("import fanin.lab")
