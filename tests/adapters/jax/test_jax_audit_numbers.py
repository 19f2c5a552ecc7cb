"""Published and derived numbers, met by the audit of JAX models."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fanin.jax as fj


def draws(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def classes(output: Any, batch: Any) -> Any:
    labels = jnp.arange(len(output)) % output.shape[-1]
    return -jnp.take_along_axis(jax.nn.log_softmax(output), labels[:, None], 1).mean()


def said(report: Any) -> list[Any]:
    """What is wrong, without what is only worth knowing."""
    return [finding for finding in report.findings if finding.level != "info"]


def layers(depth: int, width: int, n_out: int | None = None) -> list[dict[str, Any]]:
    sizes = [width] * depth + [n_out or width]
    return [{"kernel": jnp.zeros((a, b)), "bias": jnp.zeros(b)} for a, b in pairwise(sizes)]


def chain(phi: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def model(params: Any, x: Any) -> Any:
        *hidden, head = params
        for layer in hidden:
            x = phi(x @ layer["kernel"] + layer["bias"])
        return x @ head["kernel"] + head["bias"]

    return model


def test_inputs_grow_alike_as_the_map_of_cosines_says() -> None:
    """Orthogonal inputs after l ReLU layers: 1/pi, then the arc-cosine kernel again and again."""
    width = 512
    params = fj.initialize(layers(30, width), "he_normal", seed=0)
    trace = fj.trace(
        chain(jax.nn.relu), np.eye(width, dtype=np.float32)[:32] * math.sqrt(width), params=params
    )
    cosines = [step.after.cosine for step in trace.operations if step.kind == "activation"]
    assert [cosines[at - 1] for at in (1, 10, 29)] == pytest.approx([0.318310, 0.871536, 0.970487], abs=0.02)


@pytest.mark.parametrize(("factor", "tolerance"), [(0.0, 1e-6), (0.01, 0.01)])
def test_a_small_head_starts_at_a_blind_guess(factor: float, tolerance: float) -> None:
    params = fj.initialize(layers(2, 64, 10), "he_normal", seed=0)
    params[-1] = jax.tree.map(lambda leaf: factor * leaf, params[-1])
    report = fj.audit(chain(jax.nn.relu), draws(256, 64), classes, params=params)
    assert report.trace.loss == pytest.approx(math.log(10), rel=tolerance)
    assert report.trace.blind_loss == pytest.approx(math.log(10), rel=1e-6)
    assert said(report) == []


def test_flaxs_layers_start_with_one() -> None:
    """lecun_normal, and its truncation is made up for."""
    trace = fj.trace(nnx.Linear(512, 700, rngs=nnx.Rngs(0)), draws(2, 512))
    assert trace["weight"].weight_variance == pytest.approx(1, rel=0.02)
    conv = nn.Conv(96, (3, 3))
    images = draws(1, 4, 4, 64)
    trace = fj.trace(conv, images, params=conv.init(jax.random.key(0), images))
    assert trace["weight"].weight_variance == pytest.approx(1, rel=0.02)


def test_a_constant_start_has_one_unit_and_fails() -> None:
    params = fj.initialize(layers(3, 16, 10), "constant(0.05)", seed=0)
    model, batch = chain(jnp.tanh), draws(64, 16)
    report = fj.audit(model, batch, classes, params=params)
    first = report.findings[0]
    assert (first.code, first.level, first.at[0]) == ("symmetry", "fail", "0.kernel")
    # Nothing parts them: a hundred steps later they are one unit still.
    gradient = jax.jit(jax.grad(lambda params: classes(model(params, batch), None)))
    for _ in range(100):
        params = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, gradient(params))
    later = fj.trace(model, batch, classes, params=params)
    for trace in (report.trace, later):
        assert [trace[f"{at}.kernel"].effective_width for at in range(2)] == [1, 1]


def test_a_duplicated_unit_is_one_less() -> None:
    params = fj.initialize(layers(2, 16, 10), "he_normal", seed=0)
    params[0]["kernel"] = params[0]["kernel"].at[:, 7].set(params[0]["kernel"][:, 2])
    params[1]["kernel"] = params[1]["kernel"].at[7].set(params[1]["kernel"][2])
    report = fj.audit(chain(jnp.tanh), draws(64, 16), classes, params=params)
    assert report.trace["0.kernel"].effective_width == 15
    assert any(finding.code == "symmetry" and "0.kernel" in finding.at for finding in said(report))


def fixup(params: Any) -> None:
    """Zhang et al. 2019: the last layer of each branch and the head are zero, others He over sqrt(depth)."""
    for block in params["blocks"]:
        block["up"] = block["up"] / math.sqrt(len(params["blocks"]))
        block["down"] = jnp.zeros_like(block["down"])
    params["head"] = jnp.zeros_like(params["head"])


def rezero(params: Any) -> None:
    for block in params["blocks"]:
        block["alpha"] = jnp.zeros(())


def lora(params: Any) -> None:
    """A branch of low rank beside each kernel, its second factor zero."""
    for block in params["blocks"]:
        block["b"] = jnp.zeros_like(block["b"])
    params["head"] = params["head"] / 10


@pytest.mark.parametrize("start", [fixup, rezero, lora])
def test_starts_that_keep_a_function_are_not_failed(start: Callable[[Any], None]) -> None:
    width, depth = 32, 4
    ranks = {"a": (width, 4), "b": (4, width)} if start is lora else {}
    shapes = {"up": (width, width), "down": (width, width), **ranks}
    block = {leaf: jnp.zeros(shape) for leaf, shape in shapes.items()}
    tree = {"blocks": [dict(block) for _ in range(depth)], "head": jnp.zeros((width, 10))}
    params = fj.initialize(tree, "he_normal", seed=0, axes={"*": "io"})
    for each in params["blocks"]:
        each["alpha"] = jnp.ones(()) / math.sqrt(depth)
    start(params)

    def model(params: Any, x: Any) -> Any:
        for block in params["blocks"]:
            inside = jax.nn.relu(x @ block["up"]) @ block["down"]
            if "a" in block:
                inside = inside + x @ block["a"] @ block["b"]
            x = x + block["alpha"] * inside
        return x @ params["head"]

    axes = {name: ("scale", fj.Axes((), ())) if name.endswith("alpha") else "io" for name in _names(params)}
    assert said(fj.audit(model, draws(64, width), classes, params=params, axes=axes)) == []


def _names(params: Any) -> list[str]:
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
