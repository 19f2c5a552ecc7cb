"""Checks on weights: each planted fault is found where it is, by its code, and nothing else is said."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import fanin
from fanin.audit import CHECKS, Operation, Trace, examine, measure
from fanin.audit.checks import fingerprint, values
from fanin.audit.measure import signal
from fanin.fans import LOOKUP, OI, Fans
from fanin.model import GATES, Model, Piece, Tensor, beside

OURS = {check.code for check in CHECKS if type(check).__module__ in (fingerprint.__name__, values.__name__)}
WIDTH, DEPTH = 64, 6


def weigh(tensors, gradients=None):
    """The numbers of tensors: {name: (values, role, layer, axes, further facts)}."""
    model, held = [], {}
    for name, (array, role, layer, axes, facts) in tensors.items():
        held[name] = np.asarray(array)
        piece = Piece(name, role, layer, axes, **facts)
        model.append(Tensor(name, held[name].shape, str(held[name].dtype), (piece,)))
    reads = () if gradients is None else (gradients.get,)
    return tuple(measure.weights(Model(tuple(model)), held.get, reads))


def mlp(init="he_normal", depth=DEPTH, width=WIDTH, activation="relu", seed=0, block=False):
    """A chain of kernels (out, in) and biases."""
    found = {}
    for at in range(depth):
        name, shape = f"layers.{at}.weight", (width, width)
        facts = {"activation": activation, "block": at if block else None}
        kernel = fanin.get(init)(shape, seed=seed, name=name, axes="oi")
        found[name] = [kernel, "kernel", "linear", OI, facts]
        fans = beside(Fans(width, width))
        found[f"layers.{at}.bias"] = [np.zeros(width, np.float32), "bias", "linear", fans, facts]
    return found


def said(trace):
    return [(finding.code, finding.level, finding.at) for finding in examine(trace, OURS)]


def alone(tensors):
    return Trace("torch", weigh(tensors))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("init", ["he_normal", "he_uniform", "orthogonal(gain=1.4142135623730951)"])
@pytest.mark.parametrize("block", [False, True])
def test_sound_weights_are_left_alone(seed, init, block):
    assert said(alone(mlp(init, seed=seed, block=block))) == []


def planted(name, change):
    """A sound chain with one tensor changed."""
    tensors = mlp()
    tensors[name][0] = change(tensors[name][0].copy())
    return alone(tensors)


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


def narrowed(dtype):
    return lambda array: array.astype(fanin.dtypes.as_dtype(dtype)).astype(np.float32)


PLANTED = [
    ("not-finite", "fail", put((3, 5), np.nan)),
    ("not-finite", "fail", put((0, 0), -np.inf)),
    ("unset-memory", "fail", put((slice(None), 3), 1e-41)),
    ("unset-memory", "fail", put((2, 2), 3e30)),
    ("coarse-values", "warn", narrowed("bfloat16")),
    ("coarse-values", "warn", narrowed("float16")),
    ("scaled-layer", "warn", lambda array: array * np.float32(5)),
    ("scaled-layer", "warn", lambda array: array * np.float32(0.2)),
]


@pytest.mark.parametrize(("code", "level", "change"), PLANTED)
def test_a_planted_fault_is_found_first_and_where_it_is(code, level, change):
    trace = planted("layers.3.weight", change)
    assert said(trace)[0] == (code, level, ("layers.3.weight",))


def test_rows_with_nan_are_named():
    trace = planted("layers.3.weight", put(([7, 9], [0, 1]), np.nan))
    [finding] = examine(trace, ["not-finite"])
    assert finding.measured == "2 of 4096 values are nan or infinite, in rows 7, 9"
    assert "layers.3.weight" in finding.snippet


def test_a_copied_layer_is_found_as_one_finding():
    tensors = mlp()
    biases = {name: row for name, row in tensors.items() if name.endswith("bias")}
    for at, row in enumerate(biases.values()):
        row[0] = fanin.RandomNormal()((WIDTH,), seed=at, name="b").astype(np.float32)
    for leaf in ("weight", "bias"):
        tensors[f"layers.4.{leaf}"][0] = tensors[f"layers.1.{leaf}"][0].copy()
    [finding] = examine(alone(tensors), ["repeated-tensor"])
    assert finding.level == "warn"
    assert set(finding.at) == {f"layers.{at}.{leaf}" for at in (1, 4) for leaf in ("weight", "bias")}
    assert "so do 1 more of layers.1, layers.4" in finding.measured


def test_few_values_and_values_that_are_not_random_may_be_equal():
    eye = {f"{at}.weight": (np.eye(8, dtype=np.float32), "kernel", "linear", OI, {}) for at in range(3)}
    small = {f"{at}.b": (np.float32([1.3, 2.7]), "bias", "linear", beside(Fans(4, 2)), {}) for at in range(3)}
    assert said(alone(eye | small)) == []


@pytest.mark.parametrize("factor", [1.3, 1 / 1.3])
def test_a_layer_a_little_larger_is_no_finding(factor):
    found = said(planted("layers.3.weight", lambda array: array * np.float32(factor)))
    assert all(level == "info" for _, level, _ in found)


def test_a_branch_that_is_scaled_in_every_block_is_meant_so():
    tensors = {}
    for at in range(6):
        for leaf, std in (("fc", 0.02), ("proj", 0.02 / 12**0.5)):
            name = f"h.{at}.{leaf}.weight"
            array = fanin.RandomNormal(0.0, std)((64, 64), seed=0, name=name)
            tensors[name] = [array, "kernel", "linear", OI, {"block": at}]
    assert said(alone(tensors)) == []
    tensors["h.2.proj.weight"][0] = tensors["h.2.proj.weight"][0] * np.float32(12**0.5)
    assert said(alone(tensors)) == [("scaled-layer", "warn", ("h.2.proj.weight",))]


def test_a_third_of_the_layers_with_another_scale_are_meant_so():
    tensors = mlp("random_normal(0.0, 0.05)", depth=12, activation=None)
    for at in (2, 5, 8, 11):
        name = f"layers.{at}.weight"
        tensors[name][0] = fanin.RandomNormal(0.0, 0.0123)((WIDTH, WIDTH), seed=0, name=name)
    assert said(alone(tensors)) == []


def test_scales_that_fall_with_depth_are_meant_so():
    tensors = {}
    for at in range(12):  # Mitchell's: 1 / sqrt(2 (at + 1))
        name = f"h.{at}.proj.weight"
        array = fanin.RandomNormal(0.0, (2 * 64 * (at + 1)) ** -0.5)((64, 64), seed=0, name=name)
        tensors[name] = [array, "kernel", "linear", OI, {"block": at}]
    assert said(alone(tensors)) == []


def uneven(mistaken=None, drawn="io"):
    """Layers whose two fans differ, one drawn along the wrong axes."""
    tensors, sizes = {}, [96, 64, 160, 64, 200]
    for at, (n_in, n_out) in enumerate(pairwise(sizes)):
        name = f"{at}.weight"
        axes = drawn if at == mistaken else "oi"
        array = fanin.HeNormal()((n_out, n_in), seed=0, name=name, axes=axes)
        tensors[name] = [array, "kernel", "linear", OI, {}]
    return tensors


def test_one_layer_drawn_along_the_wrong_axes_is_a_slip():
    assert said(alone(uneven())) == []
    assert said(alone(uneven(1)))[0] == ("wrong-fan", "warn", ("1.weight",))
    [finding, *_] = examine(alone(uneven(1)), ["wrong-fan"])
    assert finding.after == "std 0.177"  # sqrt(2 / 64)


def test_all_layers_by_fan_out_are_a_choice():
    tensors = uneven()
    for name, row in tensors.items():
        row[0] = fanin.VarianceScaling(2.0, "fan_out", "normal")(row[0].shape, seed=0, name=name, axes="oi")
    assert all(level == "info" for _, level, _ in said(alone(tensors)))


@pytest.mark.parametrize("axes", ["io", "fieldless"])
def test_a_convolution_drawn_by_other_fans_is_found(axes):
    array = fanin.HeNormal()((64, 32, 3, 3), seed=0, name="w", axes="io" if axes == "io" else "oi")
    array = array * np.float32(3.0 if axes == "fieldless" else 1.0)
    found = said(alone({"conv.weight": (array, "kernel", "conv2d", OI, {})}))
    assert found == [("wrong-fan", "warn", ("conv.weight",))]


def test_a_wrong_gain_is_told_and_no_warning_by_itself():
    [finding] = examine(alone(mlp("variance_scaling(0.3333333333333333, 'fan_in', 'uniform')")), OURS)
    assert (finding.code, finding.level) == ("wrong-gain", "info")
    assert "torch default of linear" in finding.measured
    assert finding.expected == "sigma_w^2 = 2"
    assert len(finding.at) == DEPTH
    assert said(alone(mlp("glorot_normal", activation="tanh"))) == []
    assert said(alone(mlp("glorot_normal", activation=None))) == []


# --- with a forward pass -------------------------------------------------------------------------


def step(name, kind, inputs, parameters=(), activation=None, size=1.0):
    after = signal(np.linspace(-size, size, 64, dtype=np.float32).reshape(8, 8))
    return Operation(name, kind, kind, inputs, after, parameters=parameters, activation=activation)


def zeros(tensors, name):
    return tensors | {name: [np.zeros_like(tensors[name][0]), *tensors[name][1:]]}


def chain(tensors, gradients):
    """Dense layers with ReLU between them."""
    steps = []
    for at in range(DEPTH):
        parameters = (f"layers.{at}.weight", f"layers.{at}.bias")
        steps.append(step(f"layers.{at}", "dense", (len(steps) - 1,), parameters))
        steps.append(step(f"layers.{at}:relu", "activation", (len(steps) - 1,), activation="relu"))
    steps = steps[:-1]  # the last is the head
    return Trace("torch", weigh(tensors, gradients), tuple(steps), outputs=(len(steps) - 1,))


def ones_like(tensors):
    return {name: np.ones_like(row[0]) for name, row in tensors.items()}


@pytest.mark.parametrize(("at", "gradient", "level"), [(2, 0.0, "fail"), (2, 1.0, "warn"), (5, 1.0, None)])
def test_zero_layers(at, gradient, level):
    name = f"layers.{at}.weight"
    tensors = zeros(mlp(), name)
    gradients = ones_like(tensors) | {name: np.full((WIDTH, WIDTH), gradient, np.float32)}
    found = [(each.level, each.at) for each in values.ZeroLayer().run(chain(tensors, gradients))]
    assert found == ([] if level is None else [(level, (name,))])


def residual(tensors, gradients):
    steps = (
        step("layers.0", "dense", (-1,), ("layers.0.weight",)),
        step("layers.1", "dense", (0,), ("layers.1.weight",)),
        step("layers.2", "dense", (1,), ("layers.2.weight",)),
        step(":add", "add", (0, 2)),
        step("layers.3", "dense", (3,), ("layers.3.weight",)),
    )
    return Trace("torch", weigh(tensors, gradients), steps, outputs=(4,))


def test_zeros_at_the_end_of_a_branch_are_meant_and_two_of_them_are_not():  # A20: Fixup, LoRA
    tensors = mlp(depth=4)
    one = zeros(tensors, "layers.2.weight")
    assert list(values.ZeroLayer().run(residual(one, ones_like(one)))) == []
    both = zeros(one, "layers.1.weight")
    stuck = ones_like(both) | {f"layers.{at}.weight": np.zeros((64, 64), np.float32) for at in (1, 2)}
    found = {each.at[0] for each in values.ZeroLayer().run(residual(both, stuck))}
    assert found == {"layers.1.weight", "layers.2.weight"}


def test_a_bias_that_keeps_units_off():
    for value, expected in ((-30.0, ["fail"]), (-1.0, []), (30.0, [])):
        tensors = mlp()
        tensors["layers.2.bias"][0] = np.full(WIDTH, value, np.float32)
        trace = chain(tensors, ones_like(tensors))
        assert [each.level for each in values.DeadBias().run(trace)] == expected
        assert [each.level for each in values.DeadBias().run(alone(tensors))] == expected
    tensors["layers.2.bias"][0] = np.where(np.arange(WIDTH) < 48, -30, 0).astype(np.float32)
    [finding] = values.DeadBias().run(alone(tensors))
    assert finding.level == "warn"
    assert finding.measured.startswith("75% of 64 units at about -30")


def test_random_biases_beside_a_signal_that_has_faded_are_not_dead():
    for seed in range(200):
        width = (4, 16, 64)[seed % 3]
        tensors = mlp("variance_scaling(0.0001)", depth=2, width=width)
        for name in ("layers.0.bias", "layers.1.bias"):
            tensors[name][0] = fanin.RandomNormal(0.0, 0.1)((width,), seed=seed, name=name)
        assert list(values.DeadBias().run(alone(tensors))) == []


def test_gates_held_by_their_bias():
    for value, expected in ((-20.0, 4), (1.0, 0), (6.9, 1), (0.0, 0)):  # 6.9 opens tanh's, not sigmoid's
        tensors = {
            f"lstm.bias_ih.{gate}": (
                np.full(32, value, np.float32),
                "gate_bias",
                "lstm",
                beside(Fans(8, 32)),
                {},
            )
            for gate in GATES["LSTM"]
        }
        found = list(values.SaturatedGate().run(alone(tensors)))
        assert len(found) == expected
        assert all(each.level == "fail" for each in found)


@pytest.mark.parametrize(
    ("dtype", "std", "found"),
    [("float16", 0.02, 0), ("float16", 1e-5, 1), ("float8_e4m3fn", 0.02, 1), ("float8_e5m2", 0.02, 0)],
)
def test_weights_too_small_for_their_dtype(dtype, std, found):
    array = fanin.RandomNormal(0.0, std)((64, 64), seed=0, name="w").astype(fanin.dtypes.as_dtype(dtype))
    trace = alone({"w": (array, "kernel", "linear", OI, {})})
    assert len(list(values.WeightRange().run(trace))) == found


def test_kernels_before_a_norm_are_information_alone():
    tensors = mlp(depth=4)
    tensors["layers.1.weight"][0] = tensors["layers.1.weight"][0] * np.float32(5)
    steps, last = [], -1
    for at in range(4):
        steps.append(step(f"layers.{at}", "dense", (last,), (f"layers.{at}.weight",)))
        steps.append(step(f"norm.{at}", "norm", (len(steps) - 1,)))
        last = len(steps) - 1
    trace = Trace("torch", weigh(tensors), tuple(steps), outputs=(last,))
    assert [(each.code, each.level) for each in fingerprint.ScaledLayer().run(trace)] == [
        ("scaled-layer", "info")
    ]


def test_weights_alone_are_said_to_be_guessed():
    trace = Trace("", weigh(mlp()))
    [finding] = examine(trace, OURS)
    assert (finding.code, finding.level) == ("weights-alone", "info")
    assert list(values.WeightsAlone().run(replace(trace, framework="torch"))) == []


def test_tables_have_no_kernel_to_be_wrong():
    table = fanin.RandomNormal(0.0, 0.02)((100, 64), seed=0, name="t")
    assert said(alone({"wte": (table, "embedding", "embedding", LOOKUP, {})})) == []


def test_every_check_says_why_and_has_numbers_for_thresholds():
    for check in CHECKS:
        if check.code in OURS:
            assert type(check).__doc__
            for value in vars(check).values():
                assert isinstance(value, int | float)
