"""Where values reach variables: what others hold never changes, PyTorch's are written in place."""

import keras
import numpy as np
import pytest

import fanin
import fanin.keras as fk
from fanin.errors import PlanError

BACKEND = keras.backend.backend()


def numbers(value: object) -> np.ndarray:
    """Of a variable or a tensor."""
    tensor = keras.ops.convert_to_tensor(value)
    return np.asarray(tensor.detach() if BACKEND == "torch" else tensor).copy()


def dense() -> keras.layers.Dense:
    layer = keras.layers.Dense(3)
    layer.build((None, 5))
    return layer


def expected(seed: int) -> np.ndarray:
    return fanin.HeNormal()((5, 3), seed=seed, name="weight", axes="io")


def test_variables_do_not_share_memory() -> None:
    layer, other = dense(), dense()
    fk.initialize(layer, "he_normal", seed=0)
    fk.initialize(other, "he_normal", seed=0)
    layer.kernel.assign_add(keras.ops.ones((5, 3)))
    np.testing.assert_array_equal(numbers(other.kernel), expected(0))
    np.testing.assert_array_equal(numbers(layer.bias), np.zeros(3))


def test_in_a_stateless_scope_variables_stay_as_they_are() -> None:
    layer = dense()
    fk.initialize(layer, "he_normal", seed=0)
    with keras.StatelessScope() as scope:
        fk.initialize(layer, "he_normal", seed=1)
    np.testing.assert_array_equal(numbers(layer.kernel), expected(0))
    within = scope.get_current_value(layer.kernel)
    np.testing.assert_array_equal(numbers(within), expected(1))


if BACKEND == "torch":  # whose parameters are written in place

    def test_a_parameter_of_pytorch_is_filled_where_it_is_and_autograd_is_told() -> None:
        layer = dense()
        held = layer.kernel.value
        where, version = held.data_ptr(), held._version
        fk.initialize(layer, "he_normal", seed=0)
        assert layer.kernel.value is held
        assert held.data_ptr() == where
        assert held._version > version
        np.testing.assert_array_equal(held.detach().numpy(), expected(0))

    def test_a_parameter_of_other_strides_is_filled_too() -> None:
        layer = dense()
        layer.kernel.value.data = layer.kernel.value.data.T.contiguous().T
        fk.initialize(layer, "he_normal", seed=0)
        np.testing.assert_array_equal(layer.kernel.value.detach().numpy(), expected(0))

    def test_two_variables_around_one_parameter_are_refused_before_anything_is_set() -> None:
        class Two(keras.layers.Layer):
            def build(self, shape: tuple[int | None, ...]) -> None:
                self.first, self.second = keras.layers.Dense(3), keras.layers.Dense(3)
                for each in (self.first, self.second):
                    each.build(shape)
                self.second.kernel.value.data = self.first.kernel.value.data

        model = Two()
        model.build((None, 5))
        before = numbers(model.first.kernel)
        with pytest.raises(PlanError, match=r"'first.weight' and 'second.weight' lie in the same memory"):
            fk.initialize(model, "he_normal", seed=0)
        np.testing.assert_array_equal(numbers(model.first.kernel), before)

else:  # a tensor or an array is never written to

    def test_a_value_that_was_taken_stays_as_it_was() -> None:
        layer = dense()
        for seed in range(3):
            fk.initialize(layer, "he_normal", seed=seed)
            taken = keras.ops.stop_gradient(layer.kernel)  # shares its memory
            fk.initialize(layer, "he_normal", seed=seed + 1)
            np.testing.assert_array_equal(numbers(taken), expected(seed))
            np.testing.assert_array_equal(numbers(layer.kernel), expected(seed + 1))
