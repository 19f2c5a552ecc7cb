"""JAX's initializers and fanin's, 64 MiB of float32 each: ``python benchmarks/jax_initializers.py``.

JAX's are compiled and warm; ours are called outside ``jit`` and inside it (compiled and warm). The two take
turns in processes of their own; a time is the median over the turns of each one's best call.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

TURNS, CALLS = 3, 4
MATRIX, KERNEL = (4096, 4096), (3, 3, 1024, 1820)
CASES = {
    "uniform": MATRIX,
    "normal": MATRIX,
    "truncated_normal": MATRIX,
    **{f"{who}_{law}": MATRIX for who in ("glorot", "lecun", "he") for law in ("uniform", "normal")},
    "orthogonal": MATRIX,
    "delta_orthogonal": KERNEL,
}


def seconds(function: Callable[..., Any], *arguments: object) -> float:
    """The best of some calls."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        function(*arguments).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)


def worker(side: str) -> dict[str, list[float]]:
    """{name: [compile, compiled]} of JAX, {name: [outside jit, inside]} of fanin."""
    import jax

    import fanin.jax

    functions = jax.nn.initializers if side == "jax" else fanin.jax
    key, found = jax.random.key(0), {}
    for name, shape in CASES.items():
        init = getattr(functions, name)()
        compiled = jax.jit(lambda key, init=init, shape=shape: init(key, shape))
        start = time.perf_counter()
        compiled.lower(key).compile()
        first = time.perf_counter() - start if side == "jax" else seconds(init, key, shape)
        compiled(key).block_until_ready()
        found[name] = [first, seconds(compiled, key)]
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(worker(sys.argv[1])))
        sys.exit()
    turns = [
        {
            side: json.loads(subprocess.check_output([sys.executable, __file__, side]))
            for side in ("jax", "fanin")
        }
        for _ in range(TURNS)
    ]
    print(
        "| seconds | JAX compiles | JAX | fanin | fanin in jit | times faster | in jit |\n| --- |"
        + " ---: |" * 6
    )
    for name in CASES:
        compile_, theirs = (median(turn["jax"][name][k] for turn in turns) for k in (0, 1))
        ours, inside = (median(turn["fanin"][name][k] for turn in turns) for k in (0, 1))
        times = f"{compile_:.2f} | {theirs:.3f} | {ours:.3f} | {inside:.3f}"
        print(f"| {name} | {times} | {theirs / ours:.1f} | {theirs / inside:.1f} |")
