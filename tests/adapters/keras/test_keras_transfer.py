"""Keras models from checkpoints: values, state, names in files, nothing half-applied, the command line."""

import sys

import keras
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import load_file, save_file

import fanin
import fanin.keras as fk
from fanin import checkpoints
from fanin.cli import main
from fanin.errors import ArgumentError, CheckpointError, FaninError, PlanError

# Keras's own, when it saves on PyTorch
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def build(classes=3, *, extra=False):
    inputs = keras.Input((5, 4))
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.BatchNormalization(name="bn")(x)
    if extra:
        x = layers.Dense(6, name="extra")(x)
    x = keras.Sequential([layers.Dense(6), layers.Dense(6), layers.Dropout(0.5)], name="encoder")(x)
    return keras.Model(inputs, layers.Dense(classes, name="head")(x))


def numbers(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable))


def values(model):
    """Everything that the model holds, in its own order."""
    return [numbers(variable) for variable in model.variables]


def same(one, two):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


@pytest.fixture(scope="module")
def old():
    model = build()
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.uniform(0.1, 1, variable.shape).astype("float32"))
    return model


@pytest.fixture(scope="module")
def files(old, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    old.save(folder / "m.keras")
    old.save_weights(folder / "m.weights.h5")
    return folder


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_the_same_model_is_the_same(old, files, name):
    new = build()
    before = [numbers(generator.state) for layer in new.layers for generator in layer._seed_generators]
    plan = fk.transfer(new, files / name)
    assert plan.unexpected == ()
    assert same([numbers(v) for v in new.weights], [numbers(v) for v in old.weights])
    sources = {row.name: row.source for row in plan.rows}
    assert sources["bn.running_mean"] == sources["bn.running_var"] == "taken"
    assert {name for name, source in sources.items() if source != "taken"} == {
        name for name in sources if "seed_generator" in name
    }
    assert same(
        before, [numbers(generator.state) for layer in new.layers for generator in layer._seed_generators]
    )
    assert fk.verify(new, fanin.Plan.from_json(plan.to_json())) == []
    assert fk.distance(new, plan).total == 0
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype("float32")
    assert numbers(new(x)).tobytes() == numbers(old(x)).tobytes()


def test_layers_are_found_by_their_own_names_and_the_rest_is_drawn(old, files):
    """In the file the head is ``layers/dense``, which in the new model is the layer before."""
    new = build(classes=5, extra=True)
    with pytest.raises(PlanError, match=r"'extra/kernel'|extra"):
        fk.transfer(new, files / "m.keras")
    adapt = {"head.*": ("rows", {"new": "draw"})}
    plan = fk.transfer(new, files / "m.keras", "he_normal", seed=0, adapt=adapt)
    assert {row.name: row.source for row in plan.rows if row.source in ("draw", "constant", "adapted")} == {
        "extra.weight": "draw", "extra.bias": "constant", "head.weight": "adapted", "head.bias": "adapted",
    }  # fmt: skip
    head = new.get_layer("head")
    assert numbers(head.kernel)[:, :3].tobytes() == numbers(old.get_layer("head").kernel).tobytes()
    assert fk.verify(new, plan) == []


def test_a_nested_models_path_is_not_taken_for_anothers_name(tmp_path):
    """``sequential/dense/kernel`` is a variable of the outer model, and in its file the nested one's key."""

    def stack():
        inner = keras.Sequential([layers.Dense(3, name="dense")])
        outer = layers.Dense(3, name="dense")
        return keras.Sequential([keras.Input((3,)), outer, inner], name="sequential")

    one, two, three = stack(), stack(), stack()
    for at, variable in enumerate(one.weights):
        variable.assign(np.full(variable.shape, at, "float32"))
    one.save_weights(tmp_path / "m.weights.h5")
    with checkpoints.open(tmp_path / "m.weights.h5") as checkpoint:
        assert "sequential/dense/kernel" in checkpoint.tensors
    assert two.weights[0].path == "sequential/dense/kernel"
    fk.transfer(two, tmp_path / "m.weights.h5")
    fk.transfer(three, tmp_path / "m.weights.h5", source=fk.plan(one, "keep"))
    for each in (two, three):
        assert same([numbers(v) for v in each.weights], [numbers(v) for v in one.weights])


def test_state_that_layers_compute_with_is_made_anew(tmp_path):
    data = np.random.default_rng(0).normal(3, 2, (50, 2)).astype("float32")
    one, two = (keras.Sequential([keras.Input((2,)), layers.Normalization(name="norm")]) for _ in range(2))
    one.layers[0].adapt(data)
    save_file(
        {f"norm/{v.name}": numbers(v) for v in one.layers[0].weights if v.name != "count"},
        tmp_path / "n.safetensors",
    )
    fk.transfer(two, tmp_path / "n.safetensors", "zeros", seed=0)
    assert numbers(two(data)).tobytes() == numbers(one(data)).tobytes()


@pytest.mark.parametrize("bad", ["nan", "shape", "lacks", "overflow", "changed"])
def test_after_an_error_nothing_has_changed(tmp_path, bad):
    new = build()
    before = values(new)
    stored = {variable.path: numbers(variable) + 1 for variable in new.weights}
    last = "head/bias"
    if bad == "nan":
        stored[last][-1] = np.nan
    elif bad == "shape":
        stored[last] = np.zeros(11, "float32")
    elif bad == "lacks":
        del stored[last]
    elif bad == "overflow":
        stored[last] = np.full(3, 1e300)
    path = tmp_path / "bad.safetensors"
    save_file(stored, path)
    if bad == "changed":
        plan = fanin.Plan.from_json(fk.transfer(new, path, dry_run=True).to_json())  # has digests
        stored[last][0] += 1
        save_file(stored, path)
        with pytest.raises(CheckpointError, match="head/bias"):
            fk.initialize(new, plan)
    else:
        with pytest.raises(FaninError):
            fk.transfer(new, path)
    assert same(values(new), before)


def test_differences_name_state_and_parameters(files):
    new = build()
    plan = fk.transfer(new, files / "m.keras")
    bn = new.get_layer("bn")
    bn.moving_mean.assign(bn.moving_mean + 1)
    head = new.get_layer("head")
    head.bias.assign(head.bias + 2)
    assert {mismatch.path for mismatch in fk.verify(new, plan)} == {"bn/moving_mean", "head/bias"}
    moved = {row.path: row.rms for row in fk.distance(new, plan).rows}
    assert moved["head/bias"] == pytest.approx(2)
    assert "bn/moving_mean" not in moved


def test_a_dry_run_changes_nothing_and_its_plan_can_be_applied(old, files):
    new = build()
    before = values(new)
    plan = fk.transfer(new, files / "m.weights.h5", dry_run=True)
    assert same(values(new), before)
    fk.initialize(new, plan)
    assert fk.verify(new, plan) == []


def test_layout_is_for_plain_kernels(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 3)).astype("float32")
    dense = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False, name="fc")])
    save_file({"fc.weight": weight}, tmp_path / "torch.safetensors")
    fk.transfer(dense, tmp_path / "torch.safetensors", layout="oi")
    assert numbers(dense.layers[0].kernel).tobytes() == weight.T.tobytes()
    recurrent = keras.Sequential([keras.Input((7, 4)), layers.LSTM(4, use_bias=False, name="lstm")])
    save_file(
        {v.path: np.ascontiguousarray(numbers(v).T) for v in recurrent.weights}, tmp_path / "lstm.safetensors"
    )
    with pytest.raises(PlanError, match=r"lstm\.weight_ih\.input_gate.*fused, stacked.*\(lstm\).*`source`"):
        fk.transfer(recurrent, tmp_path / "lstm.safetensors", layout="oi")
    with pytest.raises(ArgumentError, match="expected one of io, oi"):
        fk.transfer(dense, tmp_path / "torch.safetensors", layout="hwio")


MODELS = """
import keras
from keras import layers

def build():
    return keras.Sequential([
        keras.Input((4,)), layers.Dense(6, name="fc"), layers.Dropout(0.1), layers.Dense(3, name="head")
    ], name="net")
"""


def test_the_command_line_writes_what_it_takes(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine_in_keras.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 4)).astype("float32")
    save_file({"fc.weight": weight, "fc.bias": np.ones(6, "float32")}, tmp_path / "torch.safetensors")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fanin", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        return capsys.readouterr()

    asked = ["transfer", "mine_in_keras:build", "torch.safetensors", "--layout", "oi"]
    said = run(*asked, "--recipe", "he_normal", "--plan", "plan.json", "--out", "new")
    assert "dropout.seed_generator.state" in said.err
    assert "0 differ" in run("verify", "new/model.safetensors", "plan.json").out
    kernel = load_file(tmp_path / "new" / "model.safetensors")["net/fc/kernel"]
    assert kernel.tobytes() == np.ascontiguousarray(weight.T).tobytes()
    run("plan", "mine_in_keras:build", "--recipe", "keep", "--save", "keras.json")
    again = ["transfer", "mine_in_keras:build", "new/model.safetensors", "--source", "keras.json"]
    assert "from net/fc/kernel" in run(*again, "--dry-run").out
