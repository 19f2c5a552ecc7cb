"""Orbax's checkpoints, and Orbax reading what fanin streams."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from orbax.checkpoint.experimental import v1 as ocp1
from safetensors.numpy import save_file

import fanin
from fanin import checkpoints
from fanin.checkpoints import model_of
from fanin.errors import CheckpointError
from fanin.materialize import materialize
from fanin.planning import planned

TREE = {
    "params": {
        "dense": {"kernel": jnp.arange(12.0).reshape(3, 4), "bias": jnp.ones(4, jnp.bfloat16)},
        "blocks": [jnp.arange(3), jnp.zeros((2, 2))],
    },
    "step": 7,
    "nothing": None,
}
NAMES = ["params.blocks.0", "params.blocks.1", "params.dense.bias", "params.dense.kernel", "step"]


def save(place, tree=TREE, **options):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        checkpointer.save(place, tree)
    return place


def by_name(tree):
    """Leaves by their keys, joined by dots."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.parametrize("options", [{}, {"use_ocdbt": False}, {"use_zarr3": True}], ids=str)
def test_a_tree_is_read_leaf_by_leaf(tmp_path, options):
    with checkpoints.open(save(tmp_path / "c", **options)) as checkpoint:
        assert checkpoint.kind == "orbax"
        assert sorted(checkpoint.tensors) == NAMES
        assert checkpoint.left_out == {"nothing": "a None"}
        for name, array in by_name(TREE).items():
            spec, held = checkpoint.tensors[name], checkpoint.read(name)
            assert (
                (spec.shape, spec.dtype) == (held.shape, held.dtype.name) == (array.shape, array.dtype.name)
            )
            assert held.tobytes() == array.tobytes()
        window = (slice(1, 3), slice(0, 2))
        assert checkpoint.read("params.dense.kernel", window).tolist() == [[4, 5], [8, 9]]


def test_a_module_of_flax_is_read(tmp_path):
    module = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "c", nnx.state(module))
    with checkpoints.open(tmp_path / "c") as checkpoint:
        kernel = next(name for name in checkpoint.tensors if "kernel" in name)
        assert checkpoint.read(kernel).tobytes() == np.asarray(module.kernel[...]).tobytes()


def test_an_item_is_chosen_by_key_and_a_step_by_its_folder(tmp_path):
    with ocp.CheckpointManager(tmp_path / "run", item_names=("state", "ema")) as manager:
        for step in (1, 2):
            state = ocp.args.StandardSave({"w": jnp.full(2, float(step))})
            manager.save(step, args=ocp.args.Composite(state=state, ema=state))
    with pytest.raises(CheckpointError, match=r"2 checkpoints in this folder \(1, 2\); name one"):
        checkpoints.open(tmp_path / "run")
    with pytest.raises(CheckpointError, match="trees are in ema, state; say which by `key`"):
        checkpoints.open(tmp_path / "run" / "2")
    with checkpoints.open(tmp_path / "run" / "2", key="state") as checkpoint:
        assert checkpoint.read("w").tolist() == [2, 2]
    with pytest.raises(CheckpointError, match="`key` 'other' is not there; it holds ema, state"):
        checkpoints.open(tmp_path / "run" / "2", key="other")


def test_what_was_lost_is_an_error_and_not_zeros(tmp_path):
    place = save(tmp_path / "c", {"w": jnp.ones((4, 4))}, use_ocdbt=False)
    (chunk,) = (file for file in (place / "w").iterdir() if not file.name.startswith("."))
    chunk.unlink()
    with checkpoints.open(place) as checkpoint, pytest.raises(CheckpointError, match="w: cannot be read"):
        checkpoint.read("w")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda said: {}, "does not describe a tree"),
        (lambda said: {"tree_metadata": [1]}, "does not describe a tree"),
        (
            lambda said: json.loads(json.dumps(said).replace('"w"', '"../w"')),
            r"'\.\./w' is no name of an array",
        ),
        (lambda said: json.loads(json.dumps(said).replace('"w"', '"v"')), "cannot be read"),
    ],
)
def test_a_tree_that_lies_is_one_clear_error(tmp_path, change, text):
    place = save(tmp_path / "c", {"w": jnp.ones(2)})
    said = json.loads((place / "_METADATA").read_text())
    (place / "_METADATA").write_text(json.dumps(change(said)))
    with pytest.raises(CheckpointError, match=text):
        checkpoints.open(place)


@pytest.fixture
def streamed(tmp_path):
    """A checkpoint of two files as `fanin init` streams it."""
    like = tmp_path / "like.safetensors"
    shapes = {"a.weight": (64, 32), "b.weight": (32, 64), "b.bias": (32,)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, like)
    rules = fanin.Recipe([("*.weight", "he_normal"), ("*.bias", "zeros")])
    plan = planned(model_of(like), rules, 3)
    materialize(plan, tmp_path / "out", max_shard_size=8200)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    return tmp_path / "out"


def test_orbax_reads_what_fanin_streams_and_fanin_what_orbax_writes(tmp_path, streamed, caplog):
    caplog.set_level(logging.ERROR)
    with checkpoints.open(streamed) as checkpoint:
        expected = {name: checkpoint.read(name) for name in checkpoint.tensors}
    context = ocp1.Context(checkpoint_layout=ocp1.options.CheckpointLayout.SAFETENSORS)
    with context:
        loaded = ocp1.load(streamed)
    assert {name: np.asarray(array).tobytes() for name, array in loaded.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    nested: dict = {}
    for name, array in loaded.items():
        layer, _, leaf = name.partition(".")
        nested.setdefault(layer, {})[leaf] = array
    with checkpoints.open(save(tmp_path / "back", nested)) as checkpoint:
        assert {name: checkpoint.read(name).tobytes() for name in checkpoint.tensors} == {
            name: array.tobytes() for name, array in expected.items()
        }
