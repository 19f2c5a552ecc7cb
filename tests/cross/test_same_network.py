"""One seed, one network: the same weights and outputs in PyTorch, Keras on three backends, and Flax.

Each framework runs in a process of its own and writes its parameters in canonical order, and its outputs.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
WORKERS = {
    "torch": ("networks_torch.py", {}),
    "keras on tensorflow": (
        "networks_keras.py",
        {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
    ),
    "keras on jax": ("networks_keras.py", {"KERAS_BACKEND": "jax"}),
    "keras on torch": ("networks_keras.py", {"KERAS_BACKEND": "torch"}),
    "flax": ("networks_flax.py", {}),
}
NETWORKS = {"mlp": 6, "cnn": 10, "lstm": 15, "encoder": 19}  # parameters of each
OTHERS = [name for name in WORKERS if name != "torch"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{framework: what its process wrote}."""
    folder = tmp_path_factory.mktemp("cross")
    found = {}
    for name, (worker, environment) in WORKERS.items():
        path = folder / f"{name}.npz"
        command = [sys.executable, str(HERE / worker), str(path)]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{name}:\n{done.stderr}"
        with np.load(path) as arrays:
            found[name] = dict(arrays)
    return found


def weights_of(written, framework, network):
    front = f"{network}/weights/"
    return {
        key.removeprefix(front): values for key, values in written[framework].items() if key.startswith(front)
    }


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("framework", OTHERS)
def test_weights_are_the_same_bits(written, framework, network):
    expected, found = (weights_of(written, which, network) for which in ("torch", framework))
    # a framework with one recurrent bias has no second one; PyTorch's is zero
    second = {name for name in expected if ".bias_hh." in name}
    assert not any(expected[name].any() for name in second)
    assert len(expected) - len(second) == NETWORKS[network]
    assert found.keys() - second == expected.keys() - second
    for name in found.keys() - second:
        assert found[name].dtype == expected[name].dtype == np.float32
        assert found[name].tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("framework", OTHERS)
def test_outputs_are_equal_to_float32_rounding(written, framework, network):
    expected, found = written["torch"][f"{network}/output"], written[framework][f"{network}/output"]
    assert expected.shape == found.shape
    assert np.abs(expected).max() > 0
    # sums of at most a few hundred products in another order
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max() * 8


def test_another_seed_is_another_network(written):
    """The comparison can fail: two networks of one framework differ."""
    one, two = (written["torch"][f"mlp/weights/{name}.weight"] for name in ("fc1", "fc2"))
    assert one.tobytes() != two[: one.size].tobytes()
