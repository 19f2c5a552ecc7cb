"""TensorFlow's checkpoints: by object, with optimizers, by name, in folders; damaged ones."""

import keras
import pytest
import tensorflow as tf

from fanin import checkpoints
from fanin.checkpoints import formats
from fanin.errors import CheckpointError


class Module(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.reshape(tf.range(12.0), (3, 4)))
        self.brain = tf.Variable(tf.cast(tf.ones(3), tf.bfloat16))
        self.steps = tf.Variable(7, dtype=tf.int64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two checkpoints of a module, the second the latest."""
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoint = tf.train.Checkpoint(model=Module())
    checkpoint.save(str(folder / "ckpt"))
    checkpoint.save(str(folder / "ckpt"))
    return folder


def test_a_folder_a_prefix_and_each_file_are_the_same_checkpoint(folder):
    same = {formats.found(place) for place in (folder, folder / "ckpt-2", folder / "ckpt-2.index")}
    assert {*same, formats.found(folder / "ckpt-2.data-00000-of-00001")} == same
    assert len(same) == 1


def test_a_module_is_read(folder):
    module = Module()
    with checkpoints.open(folder) as checkpoint:
        assert checkpoint.kind == "tensorflow"
        assert {name: (spec.shape, spec.dtype) for name, spec in checkpoint.tensors.items()} == {
            "model/brain": ((3,), "bfloat16"),
            "model/steps": ((), "int64"),
            "model/w": ((3, 4), "float32"),
        }
        assert checkpoint.left_out["save_counter"] == "a counter"
        assert checkpoint.left_out["_CHECKPOINTABLE_OBJECT_GRAPH"] == "dtype string"
        assert checkpoint.read("model/w").tobytes() == module.w.numpy().tobytes()
        assert checkpoint.read("model/brain").tobytes() == module.brain.numpy().tobytes()
        assert checkpoint.read("model/steps") == 7
        assert checkpoint.read("model/w", (slice(1, 2), slice(0, 2))).tolist() == [[4, 5]]


def test_an_optimizer_is_left_out_and_the_weights_it_holds_are_not(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
    tf.train.Checkpoint(model=model).write(str(tmp_path / "alone"))
    model.compile("adam", "mse")
    model.fit(tf.ones((2, 3)), tf.ones((2, 2)), verbose=0)
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(tmp_path / "both"))
    stored = dict(tf.train.list_variables(str(tmp_path / "both")))
    through = "optimizer/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE"
    assert stored[through] == [3, 2]  # the kernel is stored by a way through the optimizer
    with checkpoints.open(tmp_path / "both") as checkpoint:
        full = checkpoint.metadata["full_names"]
        assert sorted(path.split("/", 1)[1] for path in full.values()) == ["head/bias", "head/kernel"]
        for variable in model.trainable_variables:
            (name,) = (name for name, path in full.items() if path == variable.path)
            assert checkpoint.read(name).tobytes() == variable.numpy().tobytes()
        assert set(checkpoint.left_out.values()) == {"of the optimizer", "dtype string"}
        names = set(checkpoint.tensors)
    alone = {name for name, _ in tf.train.list_variables(str(tmp_path / "alone"))}
    assert {f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in names} | {
        "_CHECKPOINTABLE_OBJECT_GRAPH"
    } == alone


def test_a_checkpoint_by_name_is_read_without_slots(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        kernel = v1.get_variable("dense/kernel", (3, 2))
        step = v1.train.create_global_step()
        v1.train.AdamOptimizer().minimize(tf.reduce_sum(kernel), global_step=step)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model"), global_step=5)
        expected = session.run(kernel)
    with checkpoints.open(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["dense/kernel"]
        assert checkpoint.read("dense/kernel").tobytes() == expected.tobytes()
        assert checkpoint.left_out == {
            "beta1_power": "a counter",
            "beta2_power": "a counter",
            "dense/kernel/Adam": "of the optimizer",
            "dense/kernel/Adam_1": "of the optimizer",
            "global_step": "a counter",
        }


def test_damage_is_one_clear_error(tmp_path):
    tf.train.Checkpoint(w=tf.Variable(tf.ones(1000))).write(str(tmp_path / "x"))
    data = tmp_path / "x.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:2000])
    with pytest.raises(CheckpointError, match=r"less than its tensors|cannot be read"):
        checkpoints.open(tmp_path / "x")
    data.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    text = "w: cannot be read; truncated, damaged"
    with checkpoints.open(tmp_path / "x") as checkpoint, pytest.raises(CheckpointError, match=text):
        checkpoint.read("w")
    index = tmp_path / "x.index"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"named \.index but none of"):
        checkpoints.open(index)


def test_a_folder_whose_state_names_what_is_not_there_says_so(tmp_path):
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/ckpt-9"\n')
    with pytest.raises(CheckpointError, match="names 'ckpt-9', which is not there"):
        checkpoints.open(tmp_path)
