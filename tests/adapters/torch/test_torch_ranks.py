"""Real ranks with gloo: every sharding holds the numbers of one process, and ranks that disagree are told."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

HERE = Path(__file__).parent
WORLDS = (1, 2, 3, 4, 8)
LAYOUTS = {
    1: ["fsdp", "fsdp", "tp", "tp", "experts"],
    2: ["fsdp", "fsdp", "tp", "tp", "experts"],
    3: ["fsdp", "fsdp"],
    4: ["fsdp", "fsdp", "tp", "tp", "experts", "fsdp x tp", "hsdp"],
    8: ["fsdp", "fsdp", "tp", "tp", "fsdp x tp", "hsdp", "hsdp x tp"],
}


@cache
def found(world):
    """What each rank of a world of this size found, layout by layout."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, str(HERE / "ranks.py"), str(world), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads((Path(folder) / "found.json").read_text())


@pytest.mark.parametrize("world", WORLDS)
def test_every_sharding_holds_the_numbers_of_one_process(world):
    ranks = found(world)
    assert len(ranks) == world
    for rank in ranks:
        results = [result for result in rank if result["layout"] != "stages"]
        assert [result["layout"] for result in results] == LAYOUTS[world]
        for result in results:
            assert result["meta"], result
            assert result["cpu"], result
            assert result["meta verified"], result
            assert result["cpu verified"], result


@pytest.mark.parametrize("world", WORLDS)
def test_a_sharded_model_computes_the_same_loss(world):
    losses = {"llama": [], "padded_llama": [], "mixtral": []}
    for rank in found(world):
        for result in rank:
            losses.get(result.get("model"), []).extend(v for key, v in result.items() if key.endswith("loss"))
    for of_model in filter(None, losses.values()):
        # the same weights: only sums in another order
        assert max(of_model) - min(of_model) <= 1e-5 * max(of_model)
    first = next(r for r in found(1)[0] if r["model"] == "llama")
    assert abs(losses["llama"][0] - first["cpu loss"]) <= 1e-5 * first["cpu loss"]


def test_ranks_hold_only_their_shards():
    held = {world: [rank[0]["elements"] for rank in found(world)] for world in WORLDS}
    whole = held[1][0]
    for world, elements in held.items():
        assert sum(elements) == whole
        assert max(elements) <= whole / world * 1.05  # rows do not divide evenly


def test_stages_whose_names_were_counted_afresh_are_told_apart_by_a_prefix():
    ranks = [rank[-1] for rank in found(2)]
    for rank in ranks:
        assert "two pipeline stages have a parameter '0." in rank["without prefix"]
        assert "name_prefix" in rank["without prefix"]
        assert "ranks differ in the seed: 0, 1" in rank["other seeds"]
        assert "ranks differ in the recipe: he_normal, zeros" in rank["other recipes"]
        assert rank["untouched"]
        assert rank["verified"]
    assert ranks[0]["names"][0] == "stage0.0.weight"
    assert ranks[1]["names"][0] == "stage1.0.weight"
