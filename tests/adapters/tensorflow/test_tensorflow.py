"""The tutorial's names in TensorFlow 2: the core's bits, exact parts, eager, traced, in version 1 graphs."""

import inspect
import itertools
import socket
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

import fanin
import fanin.tensorflow as ff
from fanin.dialects import names, tf1

v1 = tf.compat.v1

CASES = {  # long name: arguments, the core's initializer, and a shape that it takes
    "zeros_initializer": ((), fanin.Zeros(), (12, 8)),
    "ones_initializer": ((), fanin.Ones(), (12, 8)),
    "constant_initializer": ((0.1,), fanin.Constant(0.1), (12, 8)),
    "identity_initializer": ((2.0,), fanin.Identity(2.0), (12, 8)),
    "random_normal_initializer": ((), fanin.RandomNormal(0.0, 1.0), (12, 8)),
    "truncated_normal_initializer": ((0.5, 0.1), fanin.TruncatedNormal(0.5, 0.1), (12, 8)),
    "random_uniform_initializer": ((-1, 2), fanin.RandomUniform(-1, 2), (12, 8)),
    "uniform_unit_scaling_initializer": ((1.43,), fanin.UniformUnitScaling(1.43), (3, 3, 12, 8)),
    "variance_scaling_initializer": (
        (2.0, "fan_avg", "uniform"),
        fanin.VarianceScaling(2.0, "fan_avg", "uniform"),
        (3, 3, 12, 8),
    ),
    "orthogonal_initializer": ((1.5,), fanin.Orthogonal(1.5), (12, 8)),
    "glorot_uniform_initializer": ((), fanin.GlorotUniform(), (12, 8)),
    "glorot_normal_initializer": ((), fanin.GlorotNormal(), (12, 8)),
    "he_normal": ((), fanin.HeNormal(), (12, 8)),
    "he_uniform": ((), fanin.HeUniform(), (12, 8)),
    "lecun_normal": ((), fanin.LecunNormal(), (12, 8)),
    "lecun_uniform": ((), fanin.LecunUniform(), (12, 8)),
    "convolutional_delta_orthogonal": ((), fanin.DeltaOrthogonal(), (3, 3, 4, 8)),
    "convolutional_orthogonal_1d": ((), fanin.ConvolutionOrthogonal1D(), (3, 4, 8)),
    "convolutional_orthogonal_2d": ((), fanin.ConvolutionOrthogonal2D(), (3, 3, 4, 8)),
    "convolutional_orthogonal_3d": ((), fanin.ConvolutionOrthogonal3D(), (2, 2, 2, 4, 8)),
}
FIXED = ("zeros_initializer", "ones_initializer", "constant_initializer", "identity_initializer")
DRAWN = [name for name in CASES if name not in FIXED]


def made(name, seed=3):
    arguments = CASES[name][0]
    return getattr(ff, name)(*arguments, **({} if name in FIXED else {"seed": seed}))


def run_in_session(build, runs=1):
    """What a version 1 program's tensors hold, in each of several runs of one session."""
    with tf.Graph().as_default() as graph:
        fetched = build()
        start = v1.global_variables_initializer()
        with v1.Session(graph=graph) as session:
            session.run(start)
            return [session.run(fetched) for _ in range(runs)]


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_values_are_the_cores_bit_for_bit(name, same_bits):
    core, shape = CASES[name][1:]
    init = made(name)
    tensor = init(list(shape))
    assert isinstance(tensor, tf.Tensor)
    same_bits(tensor.numpy(), core(shape, seed=3))
    same_bits(init(tf.TensorShape(shape)).numpy(), tensor.numpy())
    same_bits(init(tf.constant(shape)).numpy(), tensor.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_dtype_of_the_constructor_and_of_the_call(name, dtype, same_bits):
    arguments, core, shape = CASES[name]
    own = {} if name in FIXED else {"seed": 3}
    expected = core(shape, seed=3, dtype=dtype)
    for tensor in (
        getattr(ff, name)(*arguments, dtype=tf.as_dtype(dtype), **own)(shape),
        getattr(ff, name)(*arguments, **own)(shape, tf.as_dtype(dtype)),
        getattr(ff, name)(*arguments, **own)(shape, dtype=dtype),
    ):
        assert tensor.dtype == tf.as_dtype(dtype)
        same_bits(tensor.numpy(), expected)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int32", "int64", "uint64", "bool", "float8_e5m2", "complex64"]
)
def test_what_draws_nothing_takes_every_numeric_dtype(dtype):
    ones = ff.Ones()([2, 3], dtype)
    assert ones.dtype == tf.as_dtype(dtype)
    assert np.array_equal(ones.numpy(), np.ones((2, 3), ones.dtype.as_numpy_dtype))
    assert ff.Zeros(dtype)([0, 3]).shape == [0, 3]
    assert ff.Zeros(dtype)([]).numpy() == 0


def test_uniform_integers_are_the_dialects(same_bits):
    ours = ff.random_uniform_initializer(0, 9, seed=1, dtype=tf.int32)([40])
    same_bits(ours.numpy(), tf1.random_uniform_initializer(0, 9, seed=1, dtype="int32")([40]))


def test_constants_are_lists_in_row_major_order_whose_last_value_repeats():
    assert ff.constant_initializer([1, 2, 3])([2, 3]).numpy().tolist() == [[1, 2, 3], [3, 3, 3]]
    with pytest.raises(fanin.ShapeError, match="too many for `shape`"):
        ff.constant_initializer([1, 2, 3])([2])
    with pytest.raises(fanin.ShapeError, match="verify_shape=True"):
        ff.constant_initializer([1, 2], verify_shape=True)([1, 2])


def test_a_variable_may_change_in_place():
    """The values are the initializer's memory no longer."""
    init = ff.RandomNormal(seed=1)
    first = tf.Variable(init([64, 64]))
    before = first.numpy().copy()
    tensor = init([64, 64])
    second = tf.Variable(tensor)
    second.assign_add(tf.ones([64, 64]))
    assert np.array_equal(tensor.numpy(), before)
    assert np.array_equal(first.numpy(), before)
    assert not np.array_equal(second.numpy(), before)


def test_a_big_tensor_is_handed_over_without_a_copy():
    values = ff.aligned((64, 64), np.dtype(np.float32))
    values[...] = 1.0
    tensor = ff._adopted(values)
    values[0, 0] = 2.0
    assert np.asarray(memoryview(tensor)).ctypes.data == values.ctypes.data
    assert tensor.numpy()[0, 0] == 2.0


# --- names ---------------------------------------------------------------------------------------


def test_every_spelling_of_the_tutorial_is_here():
    assert {name for name in names("tf1", synonyms=True) if not hasattr(ff, name)} == set()
    assert ff.Zeros is ff.zeros_initializer
    assert ff.XavierNormal is ff.glorot_normal_initializer
    assert {getattr(ff, name) for name in CASES} == set(ff.Initializer.__subclasses__())


def test_signatures_are_tensorflows():
    for name in CASES:
        theirs = getattr(v1, name, None) or getattr(v1.initializers, name.removesuffix("_initializer"), None)
        if theirs is None:  # tf.contrib is gone
            assert name.startswith("convolutional")
            assert str(inspect.signature(getattr(ff, name))).startswith("(gain: float = 1.0, seed:")
            continue
        wanted = list(inspect.signature(theirs).parameters.values())
        ours = list(inspect.signature(getattr(ff, name)).parameters.values())
        assert [p.name for p in ours][: len(wanted)] == [p.name for p in wanted]
        assert [p.name for p in ours][len(wanted) :] in ([], ["dtype"])  # he_* and lecun_* had none
        for mine, its in zip(ours, wanted, strict=False):
            if mine.name == "dtype":
                assert tf.as_dtype(mine.default) == its.default
            elif mine.name == "distribution":
                assert {mine.default, its.default} == {"normal", "truncated_normal"}  # one and the same
            else:
                assert mine.default == its.default
    called = list(inspect.signature(ff.Zeros()).parameters)
    assert called[:3] == list(inspect.signature(v1.zeros_initializer()).parameters)
    assert called[3:] == ["partition_shape", "partition_offset"]


def test_orthogonal_takes_the_tutorials_order_too(same_bits):
    ours = ff.orthogonal_initializer(1.0, tf.float64, 3)
    assert ours.get_config() == {"gain": 1.0, "seed": 3, "dtype": "float64"}
    same_bits(ours([4, 4]).numpy(), fanin.Orthogonal()((4, 4), seed=3, dtype="float64"))


# --- seeds ---------------------------------------------------------------------------------------


def test_a_seed_repeats_and_no_seed_follows_set_seed():
    def program():
        tf.random.set_seed(5)
        first, second = ff.HeNormal(), ff.HeNormal()
        return [init([5, 4]).numpy() for init in (first, second, second)]

    once, again = program(), program()
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert not np.array_equal(once[0], once[1])
    assert not np.array_equal(once[1], once[2])
    seeded = ff.HeNormal(seed=1)
    assert np.array_equal(seeded([5, 4]), seeded([5, 4]))


@pytest.mark.parametrize("name", DRAWN)
def test_every_draw_without_a_seed_is_another(name):
    init, shape = made(name, None), CASES[name][2]
    assert not np.array_equal(init(shape), init(shape))


def test_no_operation_is_counted_where_nothing_is_drawn():
    """Zeros between two draws leave TensorFlow's sequence of operation seeds alone."""
    tf.random.set_seed(5)
    first = [ff.HeNormal()([4]).numpy(), ff.HeNormal()([4]).numpy()]
    tf.random.set_seed(5)
    second = [ff.HeNormal()([4]).numpy()]
    ff.Zeros()([4]), ff.HeNormal(seed=1)([4])
    second.append(ff.HeNormal()([4]).numpy())
    assert np.array_equal(first, second)


# --- parts ---------------------------------------------------------------------------------------


def offsets(shape, axis):
    """Three unequal parts of an axis: where each begins, and its shape."""
    cuts = [0, 1, shape[axis] // 2 + 1, shape[axis]]
    for start, stop in itertools.pairwise(cuts):
        begin, size = [0] * len(shape), list(shape)
        begin[axis], size[axis] = start, stop - start
        yield begin, size


@pytest.mark.parametrize("name", CASES)
def test_parts_make_the_whole(name):
    init, shape = made(name), CASES[name][2]
    whole = init(shape).numpy()
    for axis in (len(shape) - 2, len(shape) - 1):
        new = [
            init(shape, partition_shape=size, partition_offset=begin) for begin, size in offsets(shape, axis)
        ]
        old = [init(size, partition_info=tf1_part(shape, begin)) for begin, size in offsets(shape, axis)]
        assert np.array_equal(np.concatenate(new, axis), whole)
        assert np.array_equal(np.concatenate(old, axis), whole)


def tf1_part(shape, offset):
    """TensorFlow's own description of a part."""
    from tensorflow.python.ops.variable_scope import _PartitionInfo

    return _PartitionInfo(full_shape=list(shape), var_offset=list(offset))


@pytest.mark.parametrize(
    "name", ["orthogonal_initializer", "glorot_uniform_initializer", "constant_initializer"]
)
def test_a_partitioned_variable_of_version_1_is_the_whole(name):
    core, shape = CASES[name][1:]

    def build():
        parts = v1.get_variable("w", shape, initializer=made(name), partitioner=v1.fixed_size_partitioner(3))
        assert len(list(parts)) == 3
        return tf.concat(list(parts), 0)

    assert np.array_equal(run_in_session(build)[0], core(shape, seed=3))


def test_a_sharded_variable_of_a_parameter_server_is_the_whole():
    """A cluster of one worker and two servers, all in this process."""
    free = [socket.create_server(("localhost", 0)) for _ in range(3)]
    worker, *servers = (f"localhost:{place.getsockname()[1]}" for place in free)
    for place in free:
        place.close()
    cluster = tf.train.ClusterSpec({"worker": [worker], "ps": servers})
    jobs = [("worker", 0), ("ps", 0), ("ps", 1)]
    running = [tf.distribute.Server(cluster, job_name=job, task_index=task) for job, task in jobs]
    strategy = tf.distribute.ParameterServerStrategy(
        tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc"),
        variable_partitioner=tf.distribute.experimental.partitioners.FixedShardsPartitioner(2),
    )
    asked = []

    def init(**part):
        asked.append((tuple(part["partition_shape"]), tuple(part["partition_offset"])))
        return ff.Orthogonal(seed=3)([7, 5], tf.float32, **part)

    with strategy.scope():
        plain = tf.Variable(partial(ff.HeNormal(seed=3), [7, 5], tf.float32), shape=[7, 5], dtype=tf.float32)
        asking = tf.Variable(init, shape=[7, 5], dtype=tf.float32)
    assert len(running) == 3
    assert [part.shape.as_list() for part in plain.variables] == [[4, 5], [3, 5]]
    whole = np.concatenate([part.numpy() for part in plain.variables])
    assert np.array_equal(whole, fanin.HeNormal()((7, 5), seed=3))
    assert asked == [((4, 5), (0, 0)), ((3, 5), (4, 0))]
    whole = np.concatenate([part.numpy() for part in asking.variables])
    assert np.array_equal(whole, fanin.Orthogonal()((7, 5), seed=3))


# --- tf.function ---------------------------------------------------------------------------------


def test_a_traced_function_draws_anew_without_a_seed_and_repeats_with_one(same_bits):
    def program():
        tf.random.set_seed(5)
        fresh, seeded = ff.HeNormal(), ff.HeNormal(seed=3)

        @tf.function
        def traced():
            return fresh([5, 4]), seeded([5, 4], tf.bfloat16)

        shapes = traced.get_concrete_function().structured_outputs
        assert [tensor.shape.as_list() for tensor in shapes] == [[5, 4], [5, 4]]
        return traced(), traced()

    (first, seeded), (second, seeded_too) = program()
    assert not np.array_equal(first, second)
    for values in (seeded, seeded_too):
        same_bits(values.numpy(), fanin.HeNormal()((5, 4), seed=3, dtype="bfloat16"))
    again = program()
    assert np.array_equal(again[0][0], first)
    assert np.array_equal(again[1][0], second)


def test_autograph_leaves_the_core_alone(monkeypatch):
    """Reading and rewriting it would cost a second at the first trace."""
    seen, law = [], fanin.HeNormal.law

    def watched(self, shape, axes):
        seen.append(tf.__internal__.autograph.control_status_ctx().status.name)
        return law(self, shape, axes)

    monkeypatch.setattr(fanin.HeNormal, "law", watched)
    tf.function(lambda: ff.HeNormal(seed=3)([5, 4])).get_concrete_function()
    assert seen == ["DISABLED"]


def test_a_variable_made_inside_a_traced_function():
    class Module(tf.Module):
        def __init__(self):
            self.seeded = self.fresh = None

        @tf.function
        def __call__(self):
            if self.seeded is None:
                self.seeded = tf.Variable(ff.Orthogonal(seed=3)([5, 4]))
                self.fresh = tf.Variable(lambda: ff.HeNormal()([5, 4]))
            return self.seeded + 0.0, self.fresh + 0.0

    module = Module()
    first, second = module(), module()
    assert np.array_equal(first[0], fanin.Orthogonal()((5, 4), seed=3))
    assert np.array_equal(first[1], second[1])  # a variable is initialized once


# --- version 1 graphs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_variable_of_a_version_1_graph(name, same_bits):
    core, shape = CASES[name][1:]
    (values,) = run_in_session(lambda: v1.get_variable("w", shape, initializer=made(name)))
    same_bits(values, core(shape, seed=3))


def test_a_class_is_an_initializer_too():
    values = run_in_session(lambda: v1.get_variable("b", [4], tf.float64, initializer=ff.Ones))[0]
    assert values.dtype == np.float64
    assert values.tolist() == [1.0] * 4


def test_a_graph_holds_no_values():
    """A definition ends at 2 GiB; this one stands for 64 GiB and is checked at once."""
    with tf.Graph().as_default() as graph:
        seeded = ff.HeNormal(seed=1)([1 << 17, 1 << 17])
        ff.Constant(0.1)([1 << 17, 1 << 17])
        assert seeded.shape == [1 << 17, 1 << 17]
        assert len(graph.as_graph_def().SerializeToString()) < 10_000
        with pytest.raises(fanin.DtypeError, match="`dtype` int32 cannot hold a random draw"):
            ff.HeNormal(seed=1)([4, 3], tf.int32)
        with pytest.raises(fanin.DtypeError, match="`value` 300 does not fit `dtype` uint8"):
            ff.Constant([300, 1])([2], tf.uint8)
        with pytest.raises(fanin.ShapeError, match="known only when the graph runs"):
            ff.HeNormal(seed=1)(v1.placeholder(tf.int32, [2]))


def test_a_graphs_own_seed_and_runs():
    """As TensorFlow's: every run draws anew without a seed, and the graph's seed repeats the session."""

    def build():
        v1.set_random_seed(3)
        return ff.HeNormal()([5, 4]), ff.HeNormal()([5, 4]), ff.HeNormal(seed=1)([5, 4])

    one, two = run_in_session(build, runs=2), run_in_session(build, runs=2)
    assert np.array_equal(one, two)
    (first, second, seeded), (later, _, seeded_later) = one
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, later)
    assert np.array_equal(seeded, seeded_later)


# --- Keras and configuration ---------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_configuration_is_plain_and_complete(name, same_bits):
    init, shape = made(name), CASES[name][2]
    for twin in (
        type(init).from_config(init.get_config()),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(init)),
    ):
        assert type(twin) is type(init)
        assert twin.get_config() == init.get_config()
        same_bits(twin(shape).numpy(), init(shape).numpy())


def test_constants_and_odd_seeds_are_configuration_too():
    assert ff.Constant(np.arange(3)).get_config() == {
        "value": [0, 1, 2],
        "dtype": "float32",
        "verify_shape": False,
    }
    init = ff.RandomNormal(seed=-1, dtype=tf.float16)
    twin = ff.RandomNormal.from_config(init.get_config())
    assert np.array_equal(init([5]), twin([5]))
    assert twin.dtype == tf.float16


def test_a_keras_layer(same_bits):
    layer = keras.layers.Dense(4, kernel_initializer=ff.HeNormal(seed=3), bias_initializer=ff.Constant(0.1))
    layer.build((None, 5))
    same_bits(layer.kernel.numpy(), fanin.HeNormal()((5, 4), seed=3))
    twin = keras.layers.Dense.from_config(layer.get_config())
    assert type(twin.kernel_initializer) is ff.HeNormal
    assert keras.initializers.get(ff.HeNormal(seed=1)).seed == 1


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ff.HeNormal(sed=3), TypeError, r"HeNormal\(\) got an unexpected keyword argument 'sed'; it"),
        (lambda: ff.HeNormal("3"), fanin.SeedError, "`seed` must be an integer or None, got '3'"),
        (
            lambda: ff.VarianceScaling(mode="fan"),
            fanin.ArgumentError,
            "`mode` 'fan'; expected one of fan_avg",
        ),
        (lambda: ff.VarianceScaling(0.0), fanin.ArgumentError, "`scale` must be > 0, got 0.0"),
        (lambda: ff.HeNormal(dtype=tf.string), fanin.DtypeError, "`dtype` string is not numeric"),
        (lambda: ff.Zeros(tf.resource), fanin.DtypeError, "`dtype` resource is not numeric"),
        (lambda: ff.Zeros()([2], tf.qint8), fanin.DtypeError, "`dtype` qint8 is not numeric"),
        (lambda: ff.Zeros("float31"), fanin.DtypeError, "`dtype` 'float31' is unknown; did you mean"),
        (lambda: ff.HeNormal()([3], tf.int32), fanin.DtypeError, "`dtype` int32 cannot hold a random draw"),
        (lambda: ff.Constant(tf.constant([1.0])), fanin.DtypeError, "`value` must be a number, list, tuple"),
        (lambda: ff.HeNormal()([None, 3]), fanin.ShapeError, r"`shape` must hold integers >= 0, got \[None"),
        (lambda: ff.HeNormal()(tf.TensorShape(None)), fanin.ShapeError, "`shape` is unknown"),
        (lambda: ff.Orthogonal()([3]), fanin.ShapeError, "orthogonal needs at least 2 axes"),
        (
            lambda: ff.HeNormal()([20, 12], partition_shape=[5, 12]),
            fanin.ShapeError,
            "`partition_shape` and `partition_offset` together",
        ),
        (
            lambda: ff.HeNormal()(
                [5, 12], None, tf1_part([20, 12], [0, 0]), partition_shape=[5, 12], partition_offset=[0, 0]
            ),
            fanin.ShapeError,
            "or by `partition_info` alone",
        ),
        (
            lambda: ff.HeNormal()([20, 12], partition_shape=[5, 12], partition_offset=[18, 0]),
            fanin.ShapeError,
            r"slice\(18, 23, None\) does not fit axis 0",
        ),
        (
            lambda: ff.HeNormal()([20, 12], partition_shape=[5], partition_offset=[0]),
            fanin.ShapeError,
            "differ in length",
        ),
        (
            lambda: ff.Zeros()([5, 12], partition_info=tf1_part([20, 12], [18, 0])),
            fanin.ShapeError,
            r"slice\(18, 23, None\) does not fit axis 0",
        ),
    ],
)
def test_bad_input_is_one_clear_error(make, error, text):
    with pytest.raises(error, match=text):
        make()
