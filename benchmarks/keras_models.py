"""ResNet50 (25.6 M parameters, float32), initialized by its layers' own initializers and by fanin.

One process, the two taking turns, the model resident; a ratio is the median over the turns. All of
`fk.initialize` is timed: looking, planning, drawing, assigning. The layers' own is a call of each
variable's initializer and its assignment. By the laws of Keras, and with He normal for the kernels.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import keras

import fanin
import fanin.keras as fk


def own_initializers(model: keras.Model) -> list[tuple[keras.Variable, keras.initializers.Initializer]]:
    """Each variable of a model, and what its layer fills it with."""
    found = []
    for layer in model._flatten_layers():
        for attribute, initializer in vars(layer).items():
            variable = getattr(layer, attribute.removesuffix("_initializer"), None)
            if attribute.endswith("_initializer") and isinstance(variable, keras.Variable):
                found.append((variable, initializer))
    return found


def own(model: keras.Model) -> None:
    for variable, initializer in own_initializers(model):
        variable.assign(initializer(variable.shape, dtype=variable.dtype))


def by(recipe: str) -> Callable[[keras.Model], None]:
    def initialize(model: keras.Model) -> None:
        fk.initialize(model, recipe, seed=0)

    return initialize


def he_normal(model: keras.Model) -> None:
    """The kernels by another of Keras's initializers, the rest by their own."""
    he = keras.initializers.HeNormal(seed=0)
    for variable, initializer in own_initializers(model):
        chosen = he if variable.name == "kernel" else initializer
        variable.assign(chosen(variable.shape, dtype=variable.dtype))


PAIRS = {"keras": (own, by("keras")), "he_normal": (he_normal, by("he_normal"))}


def seconds(work: Callable[[keras.Model], None], model: keras.Model) -> float:
    start = time.perf_counter()
    work(model)
    if keras.backend.backend() == "jax":  # it answers before it is done
        import jax

        jax.block_until_ready([variable.value for variable in model.variables])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    fanin.set_threads(arguments.threads)
    model = keras.applications.ResNet50(weights=None)
    set_by_own = len(own_initializers(model))
    assert set_by_own >= len(model.trainable_variables)
    print(
        f"backend {keras.backend.backend()}, {arguments.threads} threads, kernel {fanin.kernel()}, "
        f"{model.count_params():,} parameters"
    )
    for recipe, (theirs, ours) in PAIRS.items():
        compiled = (seconds(theirs, model), seconds(ours, model))
        taken = [(seconds(theirs, model), seconds(ours, model)) for _ in range(arguments.turns)]
        first, second = (statistics.median(times) for times in zip(*taken, strict=True))
        ratio = statistics.median(a / b for a, b in taken)
        print(
            f"{recipe:<10} layers {first * 1e3:8.1f} ms   fanin {second * 1e3:8.1f} ms   {ratio:6.2f}   "
            f"(first run, compiling included: {compiled[0]:.2f} s, {compiled[1]:.2f} s)"
        )


if __name__ == "__main__":
    main()
