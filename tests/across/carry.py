"""What the workers share: the example's networks, what they write, what they take from one another's files.

``carry_torch.py write FOLDER`` makes a model of six networks and writes its files, its plan and its outputs;
``carry_torch.py read FOLDER FILE...`` takes each file of another framework's and writes the outputs.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "same_network"))
from shared import batches as of_example


def batches():
    """A batch for each network."""
    found = of_example()
    draws = np.random.default_rng(1)
    images, steps = draws.normal(size=(4, 6, 5, 3)), draws.normal(size=(3, 7, 8))
    return found | {"norm": images.astype(np.float32), "gru": steps.astype(np.float32)}


def values(shape, name, seed):
    """Values that no initializer leaves: biases and statistics are none that a layer starts with."""
    made = np.random.default_rng([seed, len(name)]).normal(0.1, 0.3, shape).astype(np.float32)
    return np.abs(made) + np.float32(0.5) if "var" in name else made


def main(framework, write, read):
    """``write(folder)`` gives the outputs by network, ``read(file, source)`` those of what was taken."""
    what, folder, *files = sys.argv[1:]
    folder = Path(folder)
    if what == "write":
        np.savez(folder / f"{framework}.npz", **write(folder))
    for file in files:
        outputs = read(folder / file, folder / f"{file.partition('_')[0]}.json")
        np.savez(folder / f"{file.replace('/', '.')}_in_{framework}.npz", **outputs)
