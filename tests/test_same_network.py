"""One seed, one network: the example's frameworks hold the same weights and compute the same outputs."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "same_network"))
try:
    from compare import FRAMEWORKS, digest, run, weights
finally:
    sys.path.pop(0)

NETWORKS = {"mlp": 6, "cnn": 10, "lstm": 15, "encoder": 19}  # parameters of each
OTHERS = [name for name in FRAMEWORKS if name != "PyTorch"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """{framework: what its process wrote}."""
    folder = tmp_path_factory.mktemp("networks")
    return {framework: run(framework, folder) for framework in FRAMEWORKS}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("framework", OTHERS)
def test_weights_are_the_same_bits(written, framework, network):
    expected, found = (weights(written[which], network) for which in ("PyTorch", framework))
    assert len(expected) == NETWORKS[network]
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].dtype == expected[name].dtype == np.float32
        assert found[name].tobytes() == expected[name].tobytes(), name
    assert digest(found) == digest(expected)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("framework", OTHERS)
def test_outputs_are_equal_to_float32_rounding(written, framework, network):
    expected, found = written["PyTorch"][f"{network}/output"], written[framework][f"{network}/output"]
    assert expected.shape == found.shape
    assert np.abs(expected).max() > 0
    # sums of a few hundred float32 products, in another order, through a few layers
    assert np.abs(found - expected).max() <= 64 * np.finfo(np.float32).eps * np.abs(expected).max()


def test_the_comparison_can_fail(written):
    """Two layers of one shape and law differ, and so do the networks' digests."""
    found = weights(written["PyTorch"], "encoder")
    assert found["attention.q_proj.weight"].tobytes() != found["attention.k_proj.weight"].tobytes()
    assert len({digest(weights(written["PyTorch"], network)) for network in NETWORKS}) == len(NETWORKS)


def test_the_page_shows_these_digests(written):
    page = (Path(__file__).resolve().parent.parent / "docs" / "port.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith("PyTorch  ")]
    assert [digest(weights(written["PyTorch"], network))[:12] for network in NETWORKS] == row.split()[1::2]
