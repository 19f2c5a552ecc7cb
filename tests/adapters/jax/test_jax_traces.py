"""A linen module is traced once for the same inputs, and anew for others."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import fanin.jax as fj

traced: list[tuple[int, ...]] = []


class Noted(nn.Module):
    """Says when its call is traced."""

    width: Any = 3

    @nn.compact
    def __call__(self, x: jax.Array, twice: Any = False) -> jax.Array:
        traced.append(x.shape)
        x = nn.Dense(self.width if isinstance(self.width, int) else self.width[0])(x)
        return nn.Dense(2)(x) if twice is True else x


@pytest.fixture(autouse=True)
def _none_yet() -> None:
    traced.clear()


def names(module: nn.Module, *inputs: Any) -> dict[str, tuple[int, ...]]:
    return {row.name: row.shape for row in fj.plan(module, "he_normal", seed=0, inputs=inputs).rows}


def test_the_same_module_and_shapes_are_traced_once() -> None:
    module = Noted()
    first = names(module, jnp.zeros((1, 5)))
    assert first == names(Noted(), jnp.ones((1, 5)))  # an equal one: the values of the inputs do not matter
    assert traced == [(1, 5)]


def test_other_shapes_and_other_fields_are_traced_anew() -> None:
    assert names(Noted(7), jnp.zeros((1, 5)))["Dense_0.weight"] == (5, 7)
    assert names(Noted(7), jnp.zeros((1, 6)))["Dense_0.weight"] == (6, 7)
    assert names(Noted(8), jnp.zeros((1, 6)))["Dense_0.weight"] == (6, 8)
    assert names(Noted(7), jnp.zeros((1, 5)))["Dense_0.weight"] == (5, 7)  # each with its own layers


def test_inputs_that_are_equal_but_of_other_types_are_traced_anew() -> None:
    assert len(names(Noted(), jnp.zeros((1, 5)), True)) == 4
    assert len(names(Noted(), jnp.zeros((1, 5)), 1)) == 2


def test_a_module_that_has_no_hash_is_traced_each_time() -> None:
    module = Noted(jnp.array([4]).tolist())
    object.__setattr__(module, "width", [4])  # flax itself makes lists into tuples
    for _ in range(2):
        assert names(module, jnp.zeros((1, 5)))["Dense_0.weight"] == (5, 4)
    assert len(traced) == 2


def test_what_jax_is_told_about_its_types_counts() -> None:
    module = Noted(9)
    before = fj.initialize(module, "he_normal", seed=0, inputs=(jnp.zeros((1, 5)),))
    with jax.numpy_dtype_promotion("strict"):
        within = fj.initialize(module, "he_normal", seed=0, inputs=(jnp.zeros((1, 5)),))
    assert len(traced) == 2
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, within))
