"""Flax modules and trees from checkpoints: values, state, shardings, nothing half-applied."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen, nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from safetensors.numpy import save_file

import fanin
import fanin.jax as fj
from fanin.errors import CheckpointError, FaninError, PlanError


class Net(nnx.Module):
    def __init__(self, rngs, classes=3):
        self.fc, self.bn = nnx.Linear(4, 6, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(6, 6, rngs=rngs) for _ in range(2)])
        self.head = nnx.Linear(6, classes, rngs=rngs)

    def __call__(self, x):
        x = self.drop(self.bn(self.fc(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Dense(6, name="fc")(x)
        x = linen.BatchNorm(use_running_average=not train, name="bn")(x)
        return linen.Dense(3, name="head")(linen.Dropout(0.1, deterministic=not train)(x))


X = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)


def drawn(tree):
    """The same tree with other values."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 1, leaf.shape), leaf.dtype), tree)


def state(model):
    """Everything but random keys, by path."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngKey)))
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}


def same(one, two):
    return one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)


@pytest.fixture(scope="module")
def old():
    model = Net(nnx.Rngs(0))
    nnx.update(model, drawn(nnx.state(model, (nnx.Param, nnx.BatchStat))))
    model.eval()
    return model


@pytest.fixture(scope="module")
def files(old, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    kept = nnx.state(old, (nnx.Param, nnx.BatchStat))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", kept)
        checkpointer.save(folder / "pure", nnx.to_pure_dict(kept))
    return folder


@pytest.mark.parametrize("name", ["state", "pure"])
@pytest.mark.parametrize("abstract", [False, True])
def test_the_same_module_is_the_same(old, files, name, abstract):
    new = nnx.eval_shape(lambda: Net(nnx.Rngs(1))) if abstract else Net(nnx.Rngs(1))
    assert fj.transfer(new, files / name) is new
    new.eval()
    assert same(state(new), state(old))
    assert new(X).tobytes() == old(X).tobytes()


def test_plans_are_proofs(old, files):
    new = Net(nnx.Rngs(1))
    before = state(new)
    plan = fj.transfer(new, files / "state", dry_run=True)
    assert same(state(new), before)
    plan = fanin.Plan.from_json(plan.to_json())
    assert {row.name: row.source for row in plan.rows if row.source != "taken"} == {"drop.rngs.count": "keep"}
    assert {each.path for each in fj.verify(new, plan)} >= {"fc.kernel", "bn.mean", "bn.var"}
    fj.initialize(new, plan)
    assert fj.verify(new, plan) == []
    assert fj.distance(new, plan).total == 0
    new.bn.mean[...] += 1
    new.head.bias[...] += 2
    assert {each.path for each in fj.verify(new, plan)} == {"bn.mean", "head.bias"}
    moved = {row.path: row.rms for row in fj.distance(new, plan).rows}
    assert moved["head.bias"] == pytest.approx(2)
    assert "bn.mean" not in moved


def test_another_head_is_drawn(old, files):
    new = nnx.eval_shape(lambda: Net(nnx.Rngs(1), classes=5))
    plan = fj.transfer(new, files / "state", "he_normal", seed=0, adapt={"head.*": "draw"}, dry_run=True)
    fj.transfer(new, files / "state", "he_normal", seed=0, adapt={"head.*": "draw"})
    assert fj.verify(new, plan) == []
    expected = fanin.HeNormal()((6, 5), seed=0, name="head.weight")
    assert np.asarray(new.head.kernel[...]).tobytes() == expected.tobytes()
    assert new.fc.kernel[...].tobytes() == old.fc.kernel[...].tobytes()


@pytest.mark.parametrize("what", ["variables", "params"])
def test_linen_modules_have_their_collections(tmp_path, what):
    started = Linen().init(jax.random.key(0), X)
    old = drawn(started)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", old if what == "variables" else old["params"])
    plan = fj.transfer(Linen(), tmp_path / "c", inputs=(X,), dry_run=True)
    new = fj.transfer(Linen(), tmp_path / "c", inputs=(X,))
    assert jax.tree.structure(new) == jax.tree.structure(old)
    expected = old if what == "variables" else {**old, "batch_stats": started["batch_stats"]}
    for one, two in zip(jax.tree.leaves(new), jax.tree.leaves(expected), strict=True):
        assert one.tobytes() == two.tobytes()
    assert fj.verify(new, plan) == []
    sources = {row.name: row.source for row in plan.rows}
    assert sources["bn.running_mean"] == ("taken" if what == "variables" else "keep")


def test_arrays_are_where_they_are_to_be(old, files):
    mesh = jax.make_mesh((1,), ("x",), (AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("x"))
    new = nnx.eval_shape(lambda: Net(nnx.Rngs(1)))
    fj.transfer(new, files / "state", shardings=lambda path, shape: place if path == "fc.kernel" else None)
    assert new.fc.kernel[...].sharding == place
    assert same(state(new), state(old))


@pytest.mark.parametrize("bad", ["nan", "shape", "lacks", "changed"])
def test_after_an_error_nothing_has_changed(old, tmp_path, bad):
    new = Net(nnx.Rngs(1))
    before = state(new)
    stored = {name: value for name, value in state(old).items() if "rngs" not in name}
    if bad == "nan":
        stored["head.bias"] = np.array([0, 1, np.nan], np.float32)
    elif bad == "shape":
        stored["head.bias"] = np.zeros(7, np.float32)
    elif bad == "lacks":
        del stored["head.bias"]
    path = tmp_path / "bad.safetensors"
    save_file(stored, path)
    if bad == "changed":
        plan = fanin.Plan.from_json(fj.transfer(new, path, dry_run=True).to_json())  # has digests
        save_file(stored | {"head.kernel": stored["head.kernel"] + 1}, path)
        with pytest.raises(CheckpointError, match=r"head\.kernel"):
            fj.initialize(new, plan)
    else:
        with pytest.raises(FaninError, match=r"head\.bias"):
            fj.transfer(new, path)
    assert same(state(new), before)


def test_a_tree_is_a_model(tmp_path):
    shapes = jax.eval_shape(lambda: {"fc": {"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}})
    weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    save_file({"fc.w": weight}, tmp_path / "oi.safetensors")
    params = fj.transfer(shapes, tmp_path / "oi.safetensors", "zeros", seed=0, layout="oi")
    assert np.asarray(params["fc"]["w"]).tobytes() == np.ascontiguousarray(weight.T).tobytes()
    assert not params["fc"]["b"].any()


def test_flipped_kernels_need_a_source(tmp_path):
    up = nnx.ConvTranspose(3, 3, (2, 2), use_bias=False, rngs=nnx.Rngs(0))
    save_file({"kernel": np.zeros((3, 3, 2, 2), np.float32)}, tmp_path / "oi.safetensors")
    with pytest.raises(PlanError, match=r"fused, stacked.*\(conv_transpose2d\); give `source`"):
        fj.transfer(up, tmp_path / "oi.safetensors", layout="oi")
