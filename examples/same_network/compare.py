"""One recipe, one seed: the same network in PyTorch, in Keras on three backends, and in Flax.

``python examples/same_network/compare.py`` builds an MLP, a CNN (strides, groups, depthwise, transposed), an
LSTM and a Transformer encoder in each framework, in a process of its own, initializes them there from the
same recipe and seed, and compares every weight bit for bit, and the outputs. No checkpoint passes between.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
FRAMEWORKS = {
    "PyTorch": ("in_torch.py", {}),
    "Keras on TensorFlow": ("in_keras.py", {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
    "Keras on JAX": ("in_keras.py", {"KERAS_BACKEND": "jax"}),
    "Keras on PyTorch": ("in_keras.py", {"KERAS_BACKEND": "torch"}),
    "Flax nnx": ("in_flax.py", {}),
}


def run(framework, folder):
    """What one framework's process writes: canonical weights and outputs by network."""
    script, environment = FRAMEWORKS[framework]
    path = Path(folder) / f"{framework}.npz"
    command = [sys.executable, str(HERE / script), str(path)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{framework}:\n{done.stderr}")
    with np.load(path) as arrays:
        return dict(arrays)


def weights(written, network):
    """The weights of one network by canonical name, but for PyTorch's second recurrent bias if it is zero."""
    front = f"{network}/weights/"
    return {
        name.removeprefix(front): values
        for name, values in written.items()
        if name.startswith(front) and (".bias_hh." not in name or values.any())
    }


def digest(parameters):
    """One SHA-256 of a network's weights."""
    total = hashlib.sha256()
    for name, values in sorted(parameters.items()):
        total.update(name.encode() + values.tobytes())
    return total.hexdigest()


def main():
    with tempfile.TemporaryDirectory() as folder:
        written = {framework: run(framework, folder) for framework in FRAMEWORKS}
    networks = [name.removesuffix("/output") for name in written["PyTorch"] if name.endswith("/output")]
    table = Table(
        box=None, pad_edge=False, title="SHA-256 of all weights, and how far outputs are from PyTorch's"
    )
    for column in ("", *networks):
        table.add_column(column, justify="left" if column == "" else "right")
    for framework, found in written.items():
        cells = []
        for network in networks:
            first = written["PyTorch"][f"{network}/output"]
            apart = np.abs(found[f"{network}/output"] - first).max() / np.abs(first).max()
            cells.append(f"{digest(weights(found, network))[:12]}  {apart:.0e}")
        table.add_row(framework, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
