"""Calibration without a framework: what is calibrated, what plans repeat it, and how moments travel."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import fanin
from fanin.audit.trace import Operation, Signal, Spread, Trace, Weights
from fanin.calibrate import METHODS, calibrated, checked, directions, laws
from fanin.calibrate.graph import _side
from fanin.calibrate.layers import branch_ends, heads_of, layers
from fanin.calibrate.residual import _choices, _streams
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


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"residual_scaling"}))  # of which a chain has none
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
    for method in sorted(METHODS.keys() - {"head"}):
        with pytest.raises(CalibrationError, match=r"nothing to (calibrate|scale)"):
            calibrated(engine, method, None, {})


# --- directions ----------------------------------------------------------------------------------


def outputs(engine):
    """What each layer of a chain puts out, before its activation."""
    found = []
    engine.forward(lambda seen: found.append(np.array(seen.values, np.float64)))
    return found


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_principal_components_put_out_what_is_white(activation):
    engine = chain(activation=activation)
    old = {tensor.path: engine.read(tensor.path) for tensor in engine.model.tensors}
    result = calibrated(engine, "krahenbuhl_within", plan_of(engine, "glorot_normal"), {"weights": "pca"})
    for k, values in enumerate(outputs(engine)):
        directions = min(values.shape[1], 20 if k == 0 else 32)  # more units than inputs keep theirs
        assert abs(values.mean(0) - 0.1).max() < 1e-4
        assert abs(values.var(0) - 1).max() < 1e-3
        assert abs(np.corrcoef(values.T[:directions]) - np.eye(directions)).max() < 1e-2
    assert result.plan is None
    assert not any(name.endswith("weight") for name in result.factors)
    assert result.replaced == (
        "layers.0.weight",
        "layers.1.weight",
        "layers.2.weight",
        "layers.3.weight",
        "head.weight",
    )
    assert str(result).endswith("no plan makes these, save the weights: " + ", ".join(result.replaced))
    result.undo()
    assert all(engine.read(path).tobytes() == values.tobytes() for path, values in old.items())


def test_k_means_finds_the_middles_of_clusters_and_is_the_same_twice():
    draws = np.random.default_rng(0)
    middles = np.array([[4.0, 0, 0], [0, 4, 0], [0, 0, 4], [-4, -4, -4]])
    patches = np.concatenate([middle + 0.1 * draws.standard_normal((50, 3)) for middle in middles])
    centres = directions.kmeans(patches, 4)
    assert centres.tobytes() == directions.kmeans(patches, 4).tobytes()
    best = (patches - patches.mean(0)) @ centres.T
    assert sorted(np.unique(best.argmax(1).reshape(4, 50), axis=1).ravel()) == [0, 1, 2, 3]
    assert len(directions.kmeans(patches[[0, 50, 0, 50]], 4)) == 2  # as many as differ


def test_what_directions_need_is_looked_at_first(monkeypatch):
    engine = chain()
    engine.trace = None  # nothing runs
    with pytest.raises(ArgumentError, match="`weights` 'zca'; expected one of kept, kmeans, pca"):
        calibrated(engine, "krahenbuhl_within", None, {"weights": "zca"})
    monkeypatch.setattr(directions, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"needs scikit-learn: pip install 'fanin\[calibrate\]'"):
        calibrated(engine, "krahenbuhl_within", None, {"weights": "kmeans"})


# --- residual branches ---------------------------------------------------------------------------


def block(start, *inside):
    """Steps of a branch in a row that begins at a step, and its sum."""
    steps = [
        (kind, at) for at, kind in zip([start, *range(start + 1, start + len(inside))], inside, strict=True)
    ]
    return [*steps, ("add", start, start + len(inside))]


def residual(*inside, blocks=4):
    steps = [("dense", -1)]
    for _ in range(blocks):
        steps += block(len(steps) - 1, *inside)
    return traced(*steps, ("dense", len(steps) - 1))


@pytest.mark.parametrize(
    ("inside", "zero_ends", "factors"),
    [
        (("norm", "dense", "activation", "dense"), True, {4: 0.5}),
        (("dense", "activation", "dense"), True, {1: 0.5, 3: 0.0}),
        (("dense", "dense", "dense"), True, {1: 4**-0.25, 2: 4**-0.25, 3: 0.0}),
        (("dense", "activation", "dense"), False, {3: 0.5}),
        (("dense", "softmax", "dense"), True, {3: 0.5}),
        (("dense",), True, {1: 0.5}),
    ],
)
def test_a_residual_branch_is_scaled_as_its_structure_asks(inside, zero_ends, factors):
    trace = residual(*inside)
    (stream,) = _streams(trace)
    assert len(stream) == 4
    chosen, left = _choices(trace, stream, zero_ends)
    assert not left
    period = len(inside) + 1
    expected = {at + period * k: factor for k in range(4) for at, factor in factors.items()}
    assert {at: factor for at, (factor, _) in chosen.items()} == pytest.approx(expected)
    assert all("of 4 branches" in why for _, why in chosen.values())


def small(trace, factor, ends):
    held = [weights(w.name, largest=factor if int(w.name) in ends else 1.0) for w in trace.weights]
    return replace(trace, weights=tuple(held))


def test_a_residual_branch_is_left_alone_for_a_reason():
    trace = residual("norm", "dense", "activation", "dense")
    (stream,) = _streams(trace)
    ends = branch_ends(trace)
    for factor, why in [
        (0.5, "0.5 times as large as other kernels: scaled already"),
        (0.0, "starts at zero"),
    ]:
        chosen, left = _choices(small(trace, factor, ends), stream, True)
        assert not chosen
        assert sorted(left) == sorted(ends)
        assert all(why in words for words in left.values())
    chosen, _ = _choices(small(trace, 0.8, ends), stream, True)
    assert set(chosen) == ends
    sized = residual("dense", "norm")
    chosen, left = _choices(sized, *_streams(sized), True)
    assert not chosen
    assert "no kernel, and sets its size" in left[2]
    post = traced(
        ("dense", -1), ("dense", 0), ("add", 0, 1), ("norm", 2), ("dense", 3), ("add", 3, 4), ("norm", 5)
    )
    chosen, left = _choices(post, *_streams(post), True)
    assert not chosen
    assert all("post-LN" in words for words in left.values())
    single = residual("dense", blocks=1)
    assert _choices(single, *_streams(single), True) == ({}, {1: "the only branch of its stream"})


# --- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "taps", "stride", "padding"),
    [(7, 3, 1, 1), (8, 5, 2, 2), (9, 3, 2, 1), (8, 3, 1, 0), (8, 3, 2, 0), (227, 11, 4, 0)],
)
def test_the_share_of_taps_inside_is_counted(n, taps, stride, padding):
    padded = np.pad(np.ones(n), padding)
    places = range(0, n + 2 * padding - taps + 1, stride)
    inside = np.mean([padded[at : at + taps].mean() for at in places])
    assert _side(n, len(places), taps) == pytest.approx(inside)


def test_a_sample_goes_through_kernels_of_groups_and_taps():
    draws = np.random.default_rng(0)
    x, kernel = draws.standard_normal((laws.EXAMPLES, 6)), draws.standard_normal((4, 3, 3))
    y = laws.weighted(x, kernel, 1.0, draws)
    seen = np.stack([np.roll(x, 1, 0), x, np.roll(x, -1, 0)], axis=2)[..., ::-1]
    for group in range(2):
        expected = np.einsum(
            "nit,oit->no", seen[:, 3 * group : 3 * group + 3], kernel[2 * group : 2 * group + 2]
        )
        assert np.allclose(y[:, 2 * group : 2 * group + 2], expected)
    ones = laws.weighted(np.ones((laws.EXAMPLES, 3)), np.ones((1, 3, 100)), 0.25, draws)
    assert ones.mean() == pytest.approx(75, abs=5 * 3 * math.sqrt(100 * 0.25 * 0.75 / laws.EXAMPLES))


@pytest.mark.parametrize("width", [32, 64])
def test_a_deep_narrow_gelu_network_does_not_drift(width):
    """Lengths of examples grow apart: one mean and variance end a decade off, a sample does not."""
    network = initialize(fanin.get("lecun_normal"), (width, *[width] * 50, 4), 0)
    x = np.random.default_rng(1).standard_normal((256, width)).astype(np.float32)
    result = calibrated(Chain(network, x, np.arange(256) % 4, "gelu"), "analytic", None, {})
    drift = [abs(math.log10(after)) for after in result.after.values()]
    assert len(drift) == 50
    assert max(drift) < 0.25


def test_moments_of_activations_come_near_what_is_measured():
    for activation in ("relu", "tanh", "gelu"):
        engine = Chain(initialize(fanin.get("he_normal"), (20, 1024, 1024, 4), 0), X, LABELS, activation)
        result = calibrated(engine, "analytic", None, {})
        noise = 5 / math.sqrt(2 * len(X) * 20)  # of the mean square of the batch itself
        assert all(abs(after**2 - 1) < 2 * noise for after in result.after.values())
