"""Threads change how long a fill takes, and nothing else."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fanin
from fanin import sampling
from fanin.errors import ArgumentError

threads = sampling.threads  # the module: ``fanin.threads`` is the function


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("axes", ["io", "oi"])
def test_the_number_of_threads_changes_no_bit(dtype, axes, use_threads, same_bits):
    made = []
    for n in (1, 2, 3, 7):
        use_threads(n)
        made.append(fanin.RandomNormal()((1201, 703), seed=1, name="w", axes=axes, dtype=dtype))
    for other in made[1:]:
        same_bits(other, made[0])


@pytest.mark.parametrize("shape", [(30_000,), (3, 8_000), (8_000, 3), (2, 70, 3, 40)])
def test_a_tensor_of_any_proportions_is_split_without_a_seam(shape, use_threads, same_bits, monkeypatch):
    monkeypatch.setattr(sampling, "PIECE", 1000)
    use_threads(1)
    whole = fanin.TruncatedNormal()(shape, seed=1, name="w")
    for n in (2, 5):
        use_threads(n)
        same_bits(fanin.TruncatedNormal()(shape, seed=1, name="w"), whole)


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    workers=st.sampled_from([1, 2, 3, 7]),
    piece=st.sampled_from([1, 16, 100, 4096]),
)
def test_pieces_cover_every_element_once(shape, workers, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "PIECE", piece)
        patch.setattr(threads, "threads", lambda: workers)
        seen = np.zeros(shape, np.int64)
        for part, axis, at in sampling.pieces(seen):
            np.add(part, 1, out=part)
            assert np.shares_memory(part, seen[(slice(None),) * axis + (slice(at, None),)])
        assert np.all(seen == 1)


@pytest.mark.parametrize("piece", [1, 64, 1000, 1 << 30])
def test_how_work_is_cut_changes_no_bit(piece, use_threads, same_bits, monkeypatch):
    init, shape = fanin.HeNormal(), (5, 3, 70, 21)
    use_threads(1)
    whole = init(shape, seed=1, name="w")
    monkeypatch.setattr(sampling, "PIECE", piece)
    for n in (2, 3, 7):
        use_threads(n)
        same_bits(init(shape, seed=1, name="w"), whole)


def test_large_fills_use_the_threads_that_were_set(use_threads, monkeypatch):
    seen = set()
    fill = sampling._fill_part
    barrier = threading.Barrier(2, timeout=20)

    def watched(*arguments):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            barrier.wait()  # nobody goes on before two threads are at work
        fill(*arguments)

    monkeypatch.setattr(sampling, "_fill_part", watched)
    use_threads(2)
    fanin.RandomNormal()((1_000_000,), seed=0)
    assert len(seen) == 2
    assert threading.get_ident() in seen  # the caller is one of them


def test_one_thread_fills_in_the_callers(use_threads, monkeypatch):
    seen = set()
    monkeypatch.setattr(sampling, "_fill_part", lambda *_: seen.add(threading.get_ident()))
    use_threads(1)
    fanin.RandomNormal()((1_000_000,), seed=0)
    assert seen == {threading.get_ident()}


def test_callers_in_many_threads_get_their_own_numbers(use_threads):
    use_threads(2)
    names = [f"layers.{i}.weight" for i in range(24)]
    expected = [fanin.RandomNormal()((300_000,), seed=0, name=name).tobytes() for name in names]
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda name: fanin.RandomNormal()((300_000,), seed=0, name=name).tobytes(), names)
    assert list(found) == expected


def test_an_error_in_a_thread_reaches_the_caller(use_threads, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a fill went wrong")

    monkeypatch.setattr(sampling, "_fill_part", broken)
    use_threads(3)
    with pytest.raises(RuntimeError, match="a fill went wrong"):
        fanin.RandomNormal()((1_000_000,), seed=0)


def test_set_threads_is_what_threads_says(use_threads):
    use_threads(5)
    assert threads.threads() == 5
    use_threads(None)
    assert threads.threads() == threads.usable_cores()


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", True, 2.0])
def test_a_number_of_threads_is_a_positive_integer(n, use_threads):
    use_threads(3)
    with pytest.raises(
        ArgumentError, match="`n` must be an integer >= 1, or None for one per usable core; got"
    ) as caught:
        use_threads(n)
    assert repr(n) in str(caught.value)
    assert threads.threads() == 3


@pytest.fixture
def quota_read_afresh():
    threads._quota.cache_clear()
    yield
    threads._quota.cache_clear()


@pytest.mark.usefixtures("quota_read_afresh")
@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 6),
        ("200000 100000", 2),
        ("50000 100000", 1),
        ("250000 100000", 2),
        ("900000 100000", 6),
    ],
)
def test_usable_cores_are_those_of_the_affinity_and_the_control_group(quota, cores, monkeypatch, tmp_path):
    file = tmp_path / "cpu.max"
    file.write_text(quota + "\n")
    monkeypatch.setattr(threads, "Path", lambda _: file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert threads.usable_cores() == cores


@pytest.mark.usefixtures("quota_read_afresh")
def test_usable_cores_without_affinity_or_control_group_are_the_machines(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "Path", lambda _: tmp_path / "missing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 11)
    assert threads.usable_cores() == 11
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.usable_cores() == 1


@pytest.mark.parametrize(("ranks", "expected"), [("1", 6), ("2", 3), ("4", 1), ("8", 1), ("0", 6), ("x", 6)])
def test_the_ranks_of_a_host_share_its_cores(ranks, expected, monkeypatch, use_threads):
    use_threads(None)
    monkeypatch.setattr(threads, "usable_cores", lambda: 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert threads.threads() == expected
    use_threads(5)
    assert threads.threads() == 5


FORK = """
import os, sys
import fanin
fanin.set_threads(3)
parent = fanin.RandomNormal()((1_000_000,), seed=1, name="w")
child = os.fork()
if child == 0:
    same = fanin.RandomNormal()((1_000_000,), seed=1, name="w").tobytes() == parent.tobytes()
    os._exit(0 if same else 7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_draws_the_same_numbers(python):
    """Where a process can fork, the child has the pool's object but not its threads."""
    program = FORK if hasattr(os, "fork") else "print(0)"
    assert python(program).strip() == "0"
