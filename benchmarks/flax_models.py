"""A Flax transformer of 110 M parameters, initialized by its own initializers and by fanin, in one process.

    python benchmarks/flax_models.py

Its own initializers run three ways, all warm: one by one as the constructor calls them, compiled as one
program (``nnx.jit``), and linen's ``init`` compiled. The time to compile is shown beside, and for fanin that
of ``nnx.eval_shape``; a linen module is traced inside `fanin.jax.initialize`. Medians of turns.
"""

import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import fanin
import fanin.jax as fj

LAYERS, WIDTH, HEADS, VOCABULARY, LENGTH = 12, 768, 12, 32_000, 1024
TURNS = 9


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm1, self.norm2 = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(HEADS, WIDTH, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs), nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)


class Transformer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.positions = nnx.Embed(LENGTH, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + nn.MultiHeadDotProductAttention(HEADS)(nn.LayerNorm()(x))
        return x + nn.Dense(WIDTH)(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x)))


class LinenTransformer(nn.Module):
    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(VOCABULARY, WIDTH)(tokens) + nn.Embed(LENGTH, WIDTH)(jnp.arange(tokens.shape[-1]))
        for _ in range(LAYERS):
            x = LinenBlock()(x)
        return nn.LayerNorm()(x)


def timed(make: Callable[[], Any]) -> float:
    """Seconds until all arrays are there."""
    start = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(make()))
    return time.perf_counter() - start


def abstract() -> Transformer:
    return nnx.eval_shape(lambda: Transformer(nnx.Rngs(0)))


def filled(model: Transformer) -> Any:
    return nnx.state(fj.initialize(model, "lecun_normal", seed=0))


def main() -> None:
    key, tokens = jax.random.key(0), jnp.zeros((1, 8), jnp.int32)
    own = nnx.jit(lambda: nnx.state(Transformer(nnx.Rngs(0))))
    init = jax.jit(LinenTransformer().init)
    prepared: dict[str, Callable[[], Any]] = {
        "nnx, one by one": lambda: nnx.state(Transformer(nnx.Rngs(0))),
        "nnx.jit": own,
        "linen, jit": lambda: init(key, tokens),
        "fanin, nnx": lambda: nnx.state(abstract(), nnx.RngState),
        "fanin, linen": lambda: fj.initialize(LinenTransformer(), "lecun_normal", seed=0, inputs=(tokens,)),
    }
    first = {name: timed(make) for name, make in prepared.items()}
    timed(partial(filled, abstract()))
    turns = [
        {
            name: timed(partial(filled, abstract()) if name == "fanin, nnx" else make)
            for name, make in prepared.items()
        }
        for _ in range(TURNS)
    ]
    median = {name: statistics.median(turn[name] for turn in turns) for name in prepared}
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(), nnx.Param)))
    print(f"{size / 1e6:.0f} M parameters, float32, {jax.default_backend()}, {platform.machine()}")
    print(f"fanin's kernel {fanin.kernel()}, jax {jax.__version__}\n")
    print(f"{'':<22}{'prepared':>9}{'run':>9}")
    for name in prepared:
        once = first[name] if name == "fanin, nnx" else max(0.0, first[name] - median[name])
        print(f"{name:<22}{once:>8.2f}s{median[name]:>8.2f}s")
    for ours, theirs in (("fanin, nnx", ("nnx, one by one", "nnx.jit")), ("fanin, linen", ("linen, jit",))):
        ratios = sorted(min(turn[name] for name in theirs) / turn[ours] for turn in turns)
        middle = f"{statistics.median(ratios):.1f} times faster than the faster of its own"
        print(f"{ours}: {middle} (turns {ratios[0]:.1f} to {ratios[-1]:.1f})")


if __name__ == "__main__":
    main()
