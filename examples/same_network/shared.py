"""What the frameworks share: the recipes, the seed, the inputs, and what each writes."""

import sys

import numpy as np

SEED = 7
RECIPES = {"mlp": "he_normal", "cnn": "glorot_uniform", "lstm": "orthogonal", "encoder": "gpt2(n_layer=1)"}


def batches():
    """A batch for each network; the numbers are plain, so that every process has the same."""
    draws = np.random.default_rng(0)
    tokens = draws.integers(0, 20, (3, 7))
    return {
        "mlp": draws.normal(size=(5, 12)).astype(np.float32),
        "cnn": draws.normal(size=(2, 15, 14, 3)).astype(np.float32),  # height, width, channels
        "lstm": tokens,
        "encoder": tokens,
    }


def main(run):
    """Run each network by ``run(name, recipe, batch) -> (plan, weights by path, output)``; write all."""
    written = {}
    for name, batch in batches().items():
        plan, weights, output = run(name, RECIPES[name], batch)
        written[f"{name}/output"] = output
        for path, values in weights.items():
            for member, canonical in plan.members(path, np.asarray(values)).items():
                written[f"{name}/weights/{member}"] = canonical
    np.savez(sys.argv[1], **written)
