"""fanin's initializers in Keras 3, on the backend of KERAS_BACKEND: the core's bits, Keras's manners."""

import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import fanin
import fanin.keras as fk
from fanin.initializers.catalogue import CATALOGUE
from fanin.keras.initializers import NAMED

BACKEND = keras.backend.backend()
# Keras reads variables by np.array(variable), which NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CASES = {  # every core class: arguments, and a shape that it takes
    "zeros": ((), (4, 3)),
    "ones": ((), (4, 3)),
    "constant": (([1.0, 2.0, 3.0],), (4, 3)),
    "identity": ((2.0,), (4, 3)),
    "random_normal": ((0.5, 0.1), (40, 30)),
    "truncated_normal": ((0.5, 0.1), (40, 30)),
    "random_uniform": ((-1.0, 2.0), (40, 30)),
    "uniform_unit_scaling": ((1.43,), (3, 3, 16, 8)),
    "variance_scaling": ((2.0, "fan_avg", "uniform"), (3, 3, 16, 8)),
    "glorot_normal": ((), (3, 3, 16, 8)),
    "glorot_uniform": ((), (40, 30)),
    "he_normal": ((), (40, 30)),
    "he_uniform": ((), (3, 3, 16, 8)),
    "lecun_normal": ((), (40, 30)),
    "lecun_uniform": ((), (40, 30)),
    "orthogonal": ((1.5,), (3, 3, 4, 8)),
    "delta_orthogonal": ((), (3, 3, 4, 8)),
    "convolution_orthogonal_1d": ((), (3, 4, 8)),
    "convolution_orthogonal_2d": ((), (3, 3, 4, 8)),
    "convolution_orthogonal_3d": ((), (2, 2, 2, 4, 8)),
    "dirac": ((), (3, 3, 8, 8)),
    "bilinear": ((), (4, 4, 1, 1)),
    "hadamard_identity": ((), (4, 8)),
    "sparse": ((0.75,), (40, 30)),
    "siren": ((30.0,), (40, 30)),
    "sinusoidal": ((), (10, 8)),
    "mimetic": (("value", 2, None, None, "attention"), (16, 16)),
    "icnr": (("he_normal", 2), (3, 3, 16, 8)),
    "looks_linear": (("orthogonal",), (8, 4)),
    "scaled": (("he_normal", 0.5), (40, 30)),
    "scaled_units": (("he_normal", [0.5, 2.0, 1.0]), (40, 3)),
    "blocks": (("glorot_uniform", 3), (40, 30)),
    "with_row": (("random_normal", 1), (40, 30)),
    "tile": (("he_normal", (2, 1)), (40, 30)),
    "as_stored": (("glorot_uniform", 4), (40, 30)),
    "masked": (("he_normal", [[1, 0], [1, 1]]), (2, 2)),
}
DRAWN = [name for name in CASES if CATALOGUE[name].drawn]


def made(name, seed=3):
    """The Keras initializer of a case, and the core's."""
    arguments, _ = CASES[name]
    own = {} if name not in DRAWN else {"seed": seed}
    return getattr(fk, CATALOGUE[name].__name__)(*arguments, **own), CATALOGUE[name](*arguments)


def array(tensor):
    """A backend's tensor as an array of its own dtype."""
    return keras.ops.convert_to_numpy(tensor)


def run(program, **environment):
    """What a program prints in a fresh process."""
    source = str(Path(fanin.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        env=os.environ | {"PYTHONPATH": source} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# --- values --------------------------------------------------------------------------------------


def test_every_initializer_of_the_core_is_here():
    assert set(CASES) == set(CATALOGUE)
    assert {cls.name(): keras_cls.__name__ for cls, keras_cls in NAMED.items()} == {
        name: cls.__name__ for name, cls in CATALOGUE.items()
    }
    for name in NAMED.values():
        assert getattr(fk, name.__name__) is name
    assert fk.XavierNormal is fk.GlorotNormal
    assert fk.KaimingUniform is fk.HeUniform


@pytest.mark.parametrize("name", CASES)
def test_values_are_the_cores_bit_for_bit(name, same_bits):
    ours, core = made(name)
    shape = CASES[name][1]
    same_bits(array(ours(shape)), core(shape, seed=3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", ["random_normal", "he_uniform", "orthogonal", "constant"])
def test_each_dtype_is_the_cores(name, dtype, same_bits):
    ours, core = made(name)
    shape = CASES[name][1]
    tensor = ours(shape, dtype=dtype)
    assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    same_bits(array(tensor), core(shape, seed=3, dtype=dtype))


def test_float8_and_float64():
    narrow = keras.ops.cast(fk.RandomNormal(0.0, 0.1, seed=3)((40, 30), "float8_e4m3fn"), "float32")
    core = fanin.RandomNormal(0.0, 0.1)
    assert np.array_equal(array(narrow), core((40, 30), seed=3, dtype="float8_e4m3fn").astype(np.float32))
    if BACKEND != "jax":  # which has no float64 unless it is switched on
        wide = fk.RandomNormal(0.0, 0.1, seed=3)((40, 30), "float64")
        assert np.array_equal(array(wide), core((40, 30), seed=3, dtype="float64"))


@pytest.mark.parametrize("name", ["zeros", "ones", "constant", "identity"])
def test_what_draws_nothing_takes_integers(name, same_bits):
    ours, core = made(name)
    same_bits(array(ours((4, 3), "int32")), core((4, 3), dtype="int32"))


def test_the_default_dtype_is_keras_floatx():
    before = keras.config.floatx()
    try:
        keras.config.set_floatx("float16")
        assert keras.backend.standardize_dtype(fk.HeNormal(seed=3)((4, 3)).dtype) == "float16"
    finally:
        keras.config.set_floatx(before)
    assert keras.backend.standardize_dtype(fk.HeNormal(seed=3)((4, 3)).dtype) == before


@pytest.mark.parametrize("seed", [0, -1, 2**64 - 1, 2**70, np.int64(5)])
def test_any_integer_is_a_seed(seed, same_bits):
    core = fanin.HeNormal()((5, 4), seed=fanin.fold_seed(int(seed)))
    same_bits(array(fk.HeNormal(seed=seed)((5, 4))), core)


# --- seeds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_without_a_seed_keras_own_seed_decides(name):
    """The same program gives the same values; two instances, and two calls of one, differ."""
    shape = CASES[name][1]
    if name == "mimetic":
        shape = (64, 64)

    def program():
        keras.utils.set_random_seed(5)
        first, second = made(name, None)[0], made(name, None)[0]
        return [array(init(shape)) for init in (first, second, second)]

    once, again = program(), program()
    for a, b in zip(once, again, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(once[0], once[1])
    assert not np.array_equal(once[1], once[2])


def test_a_seed_generator_moves_on_alike_on_every_backend():
    init = fk.RandomNormal(seed=keras.random.SeedGenerator(7))
    first, second = array(init((3, 2))), array(init((3, 2)))
    for step, values in enumerate((first, second)):
        seed = fanin.fold_seed((7, step), "keras.random.SeedGenerator")
        assert np.array_equal(values, fanin.RandomNormal()((3, 2), seed=seed))
    neighbour = fk.RandomNormal(seed=keras.random.SeedGenerator(8))
    assert not np.array_equal(array(neighbour((3, 2))), second)


def test_a_seed_that_fills_a_second_variable_warns_once():
    init = fk.HeNormal(seed=3)
    keras.layers.Dense(4, kernel_initializer=init).build((None, 5))
    keras.layers.Dense(6, kernel_initializer=init).build((None, 5))  # another shape has other numbers
    with pytest.warns(UserWarning, match=r"he_normal\(\) with seed=3 has filled a tensor of shape \(5, 4\)"):
        keras.layers.Dense(4, kernel_initializer=init).build((None, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert np.array_equal(array(init((5, 4))), array(init((5, 4))))
        for quiet in (fk.Constant(0.1), fk.get("zeros", seed=3), fk.HeNormal()):
            quiet((5, 4)), quiet((5, 4))


def test_shape_inference_draws_nothing_and_does_not_count():
    """Keras calls an initializer while it only asks for shapes; the model is then made in earnest."""

    class Inner(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(8, kernel_initializer=fk.HeNormal(seed=4))

        def call(self, x):
            return self.dense(x)

    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def call(self, x):
            return self.inner(x)

    outer = Outer()
    inputs = keras.Input((5,))
    model = keras.Model(inputs, outer(inputs))
    model(np.ones((2, 5), "float32"))
    assert np.array_equal(array(outer.inner.dense.kernel.value), fanin.HeNormal()((5, 8), seed=4))
    with keras.SymbolicScope():
        placeholder = fk.HeNormal()((5, 8))
    assert tuple(placeholder.shape) == (5, 8)


# --- expressions ---------------------------------------------------------------------------------


def test_get_takes_names_expressions_dictionaries_and_initializers(same_bits):
    core = fanin.Scaled(fanin.Orthogonal(2.0), 0.5)
    for identifier in ("scaled(orthogonal(gain=2.0), 0.5)", core, core.to_dict()):
        init = fk.get(identifier, seed=3)
        assert type(init) is fk.Scaled
        same_bits(array(init((6, 4))), core((6, 4), seed=3))
    assert type(fk.get("HeNormal")) is type(fk.get("kaiming_normal")) is fk.HeNormal
    assert type(fk.get("ones")) is fk.Ones
    mine = fk.HeNormal(seed=1)
    assert fk.get(mine) is mine
    same_bits(array(fk.Scaled(fk.Orthogonal(2.0), 0.5, seed=3)((6, 4))), core((6, 4), seed=3))


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("torch:kaiming_uniform(a=1)", (3, 3, 6, 8)),
        ("torch:xavier_normal", (6, 8)),
        ("torch:orthogonal", (3, 3, 6, 8)),
        ("torch:sparse(0.5)", (6, 8)),
        ("torch:dirac", (3, 3, 6, 8)),
        ("torch:normal(std=0.02)", (5,)),
    ],
)
def test_a_word_of_pytorch_means_what_it_means_there(word, shape, same_bits):
    """Fans and pairings are those of PyTorch's own layout of the same layer."""
    turned = (-1, -2) if len(shape) > 1 else ()
    stored = tuple(shape[axis] for axis in turned) + shape[: len(shape) - len(turned)]
    theirs = fanin.get(word)(stored, seed=3)
    expected = np.moveaxis(theirs, range(len(turned)), turned)
    same_bits(array(fk.get(word, seed=3)(shape)), np.ascontiguousarray(expected))


def test_keras_own_words_count_the_axes_they_are_told():
    """What Keras's argument ``input_axes`` is for: (features, heads, size) is one matrix."""
    told = fk.get("keras:variance_scaling(input_axes=[0], output_axes=[1, 2])", seed=3)
    values = array(told((32, 4, 16)))
    n = values.size
    assert abs(values.std() * np.sqrt(32) - 1) < 6 / np.sqrt(2 * n)
    assert fk.get("keras:he_normal(seed=9)").seed == 9


# --- configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_configuration_serialization_and_clones(name, same_bits):
    ours, core = made(name)
    shape = CASES[name][1]
    saved = keras.saving.serialize_keras_object(ours)
    assert saved["registered_name"] == f"fanin>{type(ours).__name__}"
    for twin in (
        type(ours).from_config(ours.get_config()),
        ours.clone(),
        keras.initializers.deserialize(keras.initializers.serialize(ours)),
        keras.saving.deserialize_keras_object(saved),
    ):
        assert type(twin) is type(ours)
        assert twin.core == core
        assert twin.get_config() == ours.get_config()
        same_bits(array(twin(shape)), core(shape, seed=3))


def test_an_expression_and_a_seed_generator_are_saved_too():
    ours = fk.get("torch:kaiming_normal(a=0.5)", seed=3)
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours))
    assert twin.core == ours.core
    assert twin.seed == 3
    ours = fk.HeNormal(seed=keras.random.SeedGenerator(7))
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours))
    assert isinstance(twin.seed, keras.random.SeedGenerator)
    assert np.array_equal(array(twin((3, 2))), array(ours((3, 2))))


def test_a_saved_model_loads_in_a_fresh_process(tmp_path, same_bits):
    path = tmp_path / "model.keras"
    layers = [
        keras.layers.Dense(6, kernel_initializer=fk.VarianceScaling(2.0, "fan_out", seed=3)),
        keras.layers.Dense(2, kernel_initializer=fk.Scaled("orthogonal", 0.5)),
    ]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.save(path)
    expected = fanin.VarianceScaling(2.0, "fan_out")((5, 6), seed=3)
    assert np.array_equal(array(layers[0].kernel.value), expected)
    program = """
import sys, keras, fanin.keras
first, second = keras.models.load_model(sys.argv[1]).layers
print(first.kernel_initializer.get_config()["seed"], type(second.kernel_initializer).__name__)
again = keras.ops.convert_to_numpy(first.kernel_initializer.clone()((5, 6)))
print(again.tobytes().hex(), keras.ops.convert_to_numpy(first.kernel.value).tobytes().hex())
"""
    printed = run(f"import sys; sys.argv = ['', {str(path)!r}]" + program, TF_CPP_MIN_LOG_LEVEL="3")
    assert printed == ["3", "Scaled", *[expected.tobytes().hex()] * 2]


def test_signatures_and_documentation_are_real():
    for core, ours in NAMED.items():
        theirs = list(inspect.signature(core).parameters.values())
        mine = list(inspect.signature(ours).parameters.values())
        drawn = core.drawn
        assert [p.name for p in mine] == [p.name for p in theirs] + ["seed"] * drawn
        assert [p.default for p in mine] == [p.default for p in theirs] + [None] * drawn
        assert ours.__doc__.splitlines()[0] == inspect.cleandoc(core.__doc__).splitlines()[0]
        assert ("seed : int" in ours.__doc__) == drawn
        assert ours.__doc__.count("Examples\n") == 1
    init = fk.RandomNormal(0.5, stddev=0.1, seed=3)
    assert (init.mean, init.stddev, init.seed) == (0.5, 0.1, 3)
    assert list(inspect.signature(init).parameters) == ["shape", "dtype"]


# --- tracing -------------------------------------------------------------------------------------


def traced(function):
    """Run a function as the backend compiles it."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)()
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)()
    return function()  # PyTorch's eager mode is how Keras makes variables


def test_a_seed_is_a_constant_of_a_traced_function(same_bits):
    def program():
        with keras.StatelessScope():
            return fk.HeNormal(seed=3)((5, 4))

    same_bits(array(traced(program)), fanin.HeNormal()((5, 4), seed=3))


def test_a_seed_generator_has_no_value_in_a_traced_function():
    init = fk.HeNormal(seed=keras.random.SeedGenerator(7))
    if BACKEND == "torch":
        seed = fanin.fold_seed((7, 0), "keras.random.SeedGenerator")
        assert np.array_equal(array(traced(lambda: init((5, 4)))), fanin.HeNormal()((5, 4), seed=seed))
        return
    with pytest.raises(fanin.SeedError, match="no value while a function is traced; pass an integer"):
        traced(lambda: init((5, 4)))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: fk.HeNormal(sed=3), TypeError, r"HeNormal\(\) got an unexpected keyword argument 'sed'; it"),
        (lambda: fk.HeNormal(seed="3"), fanin.SeedError, "`seed` must be an integer or None, got '3'"),
        (lambda: fk.HeNormal(seed=1.5), fanin.SeedError, "`seed` must be an integer or None, got 1.5"),
        (
            lambda: fk.VarianceScaling(mode="fan"),
            fanin.ArgumentError,
            "`mode` 'fan'; expected one of fan_avg",
        ),
        (lambda: fk.RandomNormal(stddev=-1), fanin.ArgumentError, "`stddev` must be >= 0, got -1"),
        (
            lambda: fk.get("he_norm"),
            fanin.UnknownNameError,
            "no initializer 'he_norm'; did you mean he_normal",
        ),
        (lambda: fk.get(None), fanin.ExpressionError, "expected a name, an expression or an initializer"),
        (lambda: fk.get(fk.HeNormal(), seed=3), fanin.ArgumentError, r"`seed` \(=3\) must be None"),
        (lambda: fk.HeNormal()((None, 3)), fanin.ShapeError, r"`shape` must hold integers >= 0, got \(None"),
        (lambda: fk.HeNormal()((3, 3), "float31"), fanin.DtypeError, "`dtype` 'float31' is unknown; did you"),
        (lambda: fk.HeNormal()((3, 3), 5), fanin.DtypeError, "`dtype` 5 is unknown to Keras"),
        (lambda: fk.HeNormal()((3, 3), "int32"), fanin.DtypeError, "`dtype` int32 cannot hold a random draw"),
        (lambda: fk.DeltaOrthogonal()((3, 3)), fanin.ShapeError, "delta_orthogonal needs at least 3 axes"),
        (lambda: fk.Zeros(seed=3), TypeError, r"Zeros\(\) got an unexpected keyword argument 'seed'"),
    ],
)
def test_bad_input_is_one_clear_error(make, error, text):
    with pytest.raises(error, match=text):
        make()
