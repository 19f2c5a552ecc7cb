"""Calibration without a framework: what is calibrated, what plans repeat it, and how moments travel."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import fanin
from fanin.audit.trace import Operation, Signal, Spread, Trace, Weights
from fanin.calibrate import METHODS, calibrated, checked
from fanin.calibrate.graph import _side
from fanin.calibrate.layers import branch_ends, heads_of, layers
from fanin.errors import ArgumentError, CalibrationError, UnknownNameError
from fanin.lab.calibrated import Chain
from fanin.lab.network import initialize
from fanin.model import Model
from fanin.plan import Plan
from fanin.planning import planned

X = np.random.default_rng(0).standard_normal((128, 20)).astype(np.float32)
LABELS = np.arange(128) % 4
UNIT = Signal(
    n=64, mean=0.0, std=1.0, rms=1.0, largest=2.0, zeros=0.0, broken=0, shape=(8, 8), units=8, rows=8
)


def chain(init="glorot_normal", activation="tanh", depth=4):
    return Chain(initialize(fanin.get(init), (20, *[32] * depth, 4), 0), X, LABELS, activation)


def plan_of(engine, init):
    return planned(engine.model, init, 0)


# --- which layers --------------------------------------------------------------------------------


def weights(name, role="kernel", largest=1.0):
    values = Spread(n=64, mean=0.0, std=largest / 3, rms=largest / 3, largest=largest, zeros=0.0, broken=0)
    return Weights(name, name, role, "linear", (8, 8), "float32", values, 0.5, 3.0, 24, 8, 8, "", fan_in=8.0)


def traced(*steps):
    """Steps are (kind, inputs); a dense one has a kernel of the name of its place."""
    operations, held = [], []
    for at, (kind, *inputs) in enumerate(steps):
        named = (str(at),) if kind in ("dense", "embedding") else ()
        held += [weights(name, "embedding" if kind == "embedding" else "kernel") for name in named]
        activation = "relu" if kind == "activation" else None
        operations.append(
            Operation(str(at), kind, kind, tuple(inputs), UNIT, parameters=named, activation=activation)
        )
    return Trace("", tuple(held), tuple(operations), (UNIT,), (len(steps) - 1,))


RESIDUAL = traced(
    ("dense", -1), ("norm", 0), ("dense", 1), ("activation", 2), ("dense", 3), ("dropout", 4), ("add", 0, 5),
    ("dense", 6), ("activation", 7), ("dense", 8), ("add", 9, 6), ("dense", 10),
)  # fmt: skip


def test_branches_end_where_the_other_term_was_before():
    assert branch_ends(RESIDUAL) == {4, 9}
    assert heads_of(RESIDUAL) == {11}
    found, left = layers(RESIDUAL)
    shares = {layer.name: layer.share for layer in found}
    assert shares == {"0": 1.0, "2": 1.0, "4": pytest.approx(2**-0.5), "7": 1.0, "9": pytest.approx(2**-0.5)}
    assert list(left) == ["11"]


def test_a_projected_shortcut_is_the_shorter_way():
    trace = traced(
        ("dense", -1),
        ("dense", 0),
        ("activation", 1),
        ("dense", 2),
        ("dense", 0),
        ("add", 4, 3),
        ("dense", 5),
    )
    assert branch_ends(trace) == {3}
    twins = traced(("dense", -1), ("dense", 0), ("dense", 0), ("add", 1, 2), ("dense", 3))
    assert branch_ends(twins) == frozenset()


def test_what_a_norm_takes_away_is_left_out_but_not_a_stream():
    trace = traced(("dense", -1), ("activation", 0), ("dense", 1), ("norm", 2), ("dense", 3))
    found, left = layers(trace)
    assert not found
    assert "normalization" in left["0"]  # relu only passes its factor on
    assert "normalization" in left["2"]
    found, _ = layers(
        traced(("embedding",), ("norm", 0), ("dense", 1), ("add", 0, 2), ("norm", 3), ("dense", 4))
    )
    assert [layer.name for layer in found] == ["2"]


def test_a_zero_kernel_is_left_alone_at_the_end_of_a_branch():
    zero = replace(
        RESIDUAL,
        weights=tuple(
            weights(w.name, largest=0.0 if w.name in ("4", "9") else 1.0) for w in RESIDUAL.weights
        ),
    )
    found, left = layers(zero)
    assert [layer.name for layer in found] == ["0", "2", "7"]
    assert left["4"] == left["9"] == "the end of a residual branch that starts at zero"


# --- all methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_makes_the_calibrated_values_and_undo_the_old_ones(method):
    engine = chain(activation="relu")
    old = {tensor.path: engine.read(tensor.path) for tensor in engine.model.tensors}
    base = plan_of(engine, "glorot_normal")
    result = calibrated(engine, method, base, {})
    again = Plan.from_json(result.plan.to_json())
    changed = [path for path in old if engine.read(path).tobytes() != old[path].tobytes()]
    assert changed
    assert set(changed) <= {*result.factors, *result.constants}
    for path in old:
        assert again.fill(path).tobytes() == engine.read(path).tobytes(), path
    assert json.loads(json.dumps(result.to_dict()))["method"] == method
    assert all(name in str(result) for name in result.after)
    result.undo()
    assert all(engine.read(path).tobytes() == values.tobytes() for path, values in old.items())


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_lsuv_is_exact_in_one_run(activation):
    result = calibrated(chain(activation=activation, depth=20), "lsuv", None, {})
    assert len(result.scales) == 20
    assert all(abs(after**2 - 1) < 1e-4 for after in result.after.values())


def test_examples_that_a_network_no_longer_tells_apart_are_no_signal():
    with pytest.raises(CalibrationError, match="puts out the same for all examples"):
        calibrated(chain(activation="sigmoid", depth=20), "lsuv", None, {})


def test_after_an_error_everything_is_as_it_was():
    engine = chain(activation="relu")
    engine.write("layers.2.weight", np.zeros((32, 32), np.float32))
    old = {tensor.path: engine.read(tensor.path) for tensor in engine.model.tensors}
    writes = []
    write = engine.write
    engine.write = lambda path, values: (writes.append(path), write(path, values))
    with pytest.raises(CalibrationError, match=r"'layers.2' is dead: its kernel is zero"):
        calibrated(engine, "lsuv", None, {})
    assert writes[:2] == ["layers.0.weight", "layers.1.weight"]
    assert all(engine.read(path).tobytes() == values.tobytes() for path, values in old.items())


def test_names_and_options_are_looked_at_first():
    with pytest.raises(UnknownNameError, match="no method 'lsu'; did you mean lsuv"):
        checked("lsu", {}, X)
    with pytest.raises(ArgumentError, match="krahenbuhl_between takes no `beta`; it takes nothing"):
        checked("krahenbuhl_between", {"beta": 1}, X)
    with pytest.raises(ArgumentError, match="jacobian looks at a batch"):
        checked("jacobian", {}, None)
    assert checked("analytic", {"head": True}, None) is METHODS["analytic"]


def test_an_empty_model_has_nothing_to_calibrate():
    class Empty(Chain):
        def trace(self, *, gradients=False):
            return Trace("", ())

    engine = chain()
    engine.__class__ = Empty
    assert isinstance(engine.model, Model)
    for method in ("lsuv", "weight_norm", "analytic", "jacobian", "krahenbuhl_between"):
        with pytest.raises(CalibrationError, match="nothing to calibrate"):
            calibrated(engine, method, None, {})


# --- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "taps", "stride", "padding"), [(7, 3, 1, 1), (8, 5, 2, 2), (9, 3, 2, 1), (8, 3, 1, 0)]
)
def test_the_share_of_taps_inside_is_counted(n, taps, stride, padding):
    padded = np.pad(np.ones(n), padding)
    places = range(0, n + 2 * padding - taps + 1, stride)
    inside = np.mean([padded[at : at + taps].mean() for at in places])
    assert _side(n, len(places), taps) == pytest.approx(inside)


def test_moments_of_activations_come_near_what_is_measured():
    for activation in ("relu", "tanh", "gelu"):
        engine = Chain(initialize(fanin.get("he_normal"), (20, 1024, 1024, 4), 0), X, LABELS, activation)
        result = calibrated(engine, "analytic", None, {})
        noise = 5 / math.sqrt(2 * len(X) * 20)  # of the mean square of the batch itself
        assert all(abs(after**2 - 1) < 2 * noise for after in result.after.values())
