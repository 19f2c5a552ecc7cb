"""Weights carried between PyTorch, Keras and Flax by the files that these write: the same outputs after."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

WORKERS = Path(__file__).parent / "across"
ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
NETWORKS = {"mlp", "cnn", "lstm", "encoder", "norm", "gru"}
TAKES = {
    "torch": (
        *("keras_model.keras", "keras_model.weights.h5", "keras_objects", "keras_saved/variables/variables"),
        "flax_orbax",
    ),
    "keras": ("torch_state.pt", "torch_state.safetensors", "flax_orbax"),
    "flax": ("torch_state.pt", "torch_state.safetensors", "keras_model.keras", "keras_model.weights.h5"),
}
CASES = [(file, framework) for framework, files in TAKES.items() for file in files]


def run(folder, what, arguments):
    """Each framework's worker in a process of its own, side by side."""

    def worker(framework):
        command = [sys.executable, str(WORKERS / f"carry_{framework}.py"), what, str(folder)]
        return subprocess.run(
            [*command, *arguments[framework]],
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor() as workers:
        for done in workers.map(worker, arguments):
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("across")
    run(made, "write", dict.fromkeys(TAKES, ()))
    run(made, "read", TAKES)
    return made


def test_the_example_prints_what_the_page_says():
    example = WORKERS.parents[1] / "examples" / "carry_weights.py"
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith("outputs differ by ")
    assert float(said.split()[-1]) <= 64 * np.finfo(np.float32).eps


def outputs(folder, name):
    with np.load(folder / f"{name}.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize(("file", "framework"), CASES)
def test_outputs_are_equal_to_float32_rounding(folder, file, framework):
    first = outputs(folder, file.partition("_")[0])
    found = outputs(folder, f"{file.replace('/', '.')}_in_{framework}")
    assert first.keys() == found.keys() == NETWORKS
    for network, values in first.items():
        # sums of a few hundred float32 products, in another order, through a few layers
        most = 64 * np.finfo(np.float32).eps * np.abs(values).max()
        assert np.abs(found[network] - values).max() <= most, network


def test_the_comparison_can_fail(folder):
    """The frameworks' own models hold different values."""
    torch, keras, flax = (outputs(folder, framework) for framework in TAKES)
    for network in NETWORKS:
        assert np.abs(torch[network] - keras[network]).max() > 1e-3
        assert np.abs(torch[network] - flax[network]).max() > 1e-3
