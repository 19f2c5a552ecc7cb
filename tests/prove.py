"""Longer proofs, run by hand: `make prove`. Each prints what it found and fails loudly.

1. Twins: random jobs (kind, target, shape, strides, window) on every kernel against the reference.
2. Statistics: 2**32 draws of each distribution; moments, tails and a chi-square over equal-mass bins.
3. Size: a 12 GiB tensor whose windows beyond 2**31 elements equal the same windows drawn alone.
4. Fuzz: 10**5 spoiled files through fanin's own readers, some hundreds through others'.
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from scipy import special

import fanin
from fanin import _kernel

KEY, LOW = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0, 1, 2)
PARAMS = {kind: params for kind, (params, _) in _kernel.CHECKS.items()}


def random_job(rng: np.random.Generator) -> tuple[str, str, tuple[int, ...], tuple[int, ...], int, int]:
    """A kind, a target, a shape, the order of its axes in memory, an offset in elements, a start."""
    kind = str(rng.choice(list(PARAMS)))
    narrow = kind in ("uniform", "normal", "truncated", "quantile")
    target = str(rng.choice(["same", "float16", "bfloat16"])) if narrow else "same"
    rank = int(rng.integers(1, 5))
    limit = {1: 5000, 2: 160, 3: 40, 4: 14}[rank]
    shape = tuple(int(n) for n in rng.integers(1, limit, rank))
    order = tuple(int(n) for n in rng.permutation(rank))
    start = int(rng.choice([0, 2**32, 2**34, 2**62])) + int(rng.integers(0, 1000)) - 500
    return kind, target, shape, order, int(rng.integers(0, 40)), max(0, start)


def prove_twins(seconds: float) -> None:
    """Every kernel equals the reference on random jobs."""
    rng = np.random.default_rng(1)
    names = [name for name in _kernel.KERNELS if name != "reference"]
    began, jobs = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        kind, target, shape, order, shift, start = random_job(rng)
        dtype = np.dtype("u2") if target != "same" else np.dtype(_kernel.dtype_of(kind))
        pad = int(rng.integers(0, 3)) * int(rng.integers(0, 20))  # sometimes a window of a wider index space
        strides, step = [], 1
        for size in reversed(shape):
            strides.append(step)
            step *= size + pad
        results = []
        for name in ["reference", *names]:
            memory = np.zeros(shift + math.prod(shape), dtype)
            stored = memory[shift:].reshape([shape[axis] for axis in order])
            out = stored.transpose(np.argsort(order))
            _kernel.KERNELS[name](
                *(out, kind, target, KEY, LOW, start), tuple(reversed(strides)), PARAMS[kind]
            )
            results.append(memory.tobytes())
        assert len(set(results)) == 1, (kind, target, shape, order, shift, start, pad)
        jobs += 1
    print(f"twins: {jobs} random jobs equal on {', '.join(names)}")


def chunks(kind: str, params: tuple[float, ...], total: int) -> Iterator[np.ndarray]:
    """``total`` float32 draws, 2**24 at a time."""
    out = np.empty(1 << 24, np.float32)
    for start in range(0, total, out.size):
        _kernel.fill(out, kind, "same", KEY, LOW, start, (1,), params)
        yield out


def prove_statistics(log2_total: int) -> None:
    """Moments within 5 standard errors, tails within 5 Poisson deviations, chi-square within 5 sigma."""
    total, bins = 1 << log2_total, 4096
    mass = special.erf(math.sqrt(2.0))
    laws = {
        "uniform": ((0.0, 1.0, -1.0, 1.0), 1 / 3, lambda v: (v + 1) / 2),
        "normal": ((0.0, 1.0), 1.0, special.ndtr),
        "truncated": ((0.0, 1.0), 0.7737413, lambda v: (special.ndtr(v) - special.ndtr(-2.0)) / mass),
    }
    for kind, (params, variance, cdf) in laws.items():
        counts = np.zeros(bins, np.int64)
        sums = np.zeros(4)
        tails = dict.fromkeys((3.0, 4.0, 5.0, 6.0), 0)
        for values in chunks(kind, params, total):
            exact = values.astype(np.float64)
            counts += np.bincount(np.minimum((cdf(exact) * bins).astype(np.int64), bins - 1), minlength=bins)
            sums += [(exact**k).sum() for k in (1, 2, 3, 4)]
            for z in tails:
                tails[z] += int((np.abs(values) > z).sum())
        mean, second, _, fourth = sums / total
        assert abs(mean) < 5 * math.sqrt(variance / total), (kind, mean)
        spread = math.sqrt((fourth - second**2) / total)
        assert abs(second - variance) < 5 * spread + 1e-6, (kind, second)
        chi = float(((counts - total / bins) ** 2).sum() / (total / bins))
        assert abs(chi - (bins - 1)) < 5 * math.sqrt(2 * (bins - 1)), (kind, chi)
        moments = f"mean {mean:.2e}, variance {second:.7f}"
        print(f"{kind}: 2**{log2_total} draws, {moments}, chi2/dof {chi / (bins - 1):.4f}")
        if kind == "normal":
            for z, found in tails.items():
                expected = total * math.erfc(z / math.sqrt(2))
                assert abs(found - expected) < 5 * math.sqrt(expected) + 5, (z, found, expected)
                print(f"  beyond {z:g} sigma: {found}, expected {expected:.0f}")


def prove_size(gib: int) -> None:
    """A tensor of many GiB, and windows of it made alone."""
    rows, columns = gib * (1 << 12), 1 << 16
    init = fanin.TruncatedNormal(0.0, 0.02)
    began = time.monotonic()
    whole = init((rows, columns), seed=5, name="huge.weight", axes="oi")
    seconds = time.monotonic() - began
    for row in (0, rows // 2 - 1, min((1 << 31) // columns, rows - 1), rows - 1):
        window = (slice(row, row + 1), slice(columns - 1000, columns))
        part = init((rows, columns), seed=5, name="huge.weight", axes="oi", window=window)
        assert np.array_equal(whole[window], part), row
    print(f"size: {whole.nbytes / 2**30:.0f} GiB of fresh memory in {seconds:.1f} s; windows equal")


def prove_fuzz(files: int, foreign: int) -> None:
    """Every spoiled file is refused by an error of fanin, or read as it is; memory and time are bounded."""
    import fuzz

    own = -(-files // len(fuzz.READERS))
    runs = [(own, [*fuzz.READERS]), *((foreign, [name]) for name in fuzz.FOREIGN if foreign)]
    for count, names in runs:
        command = [sys.executable, fuzz.__file__, "--files", str(count), *names]
        subprocess.run(command, check=True)  # its memory is limited
    print(
        f"fuzz: {own * len(fuzz.READERS)} files of our own, {foreign * len(fuzz.FOREIGN)} of other libraries'"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of random twin jobs")
    parser.add_argument("--log2-draws", type=int, default=32)
    parser.add_argument("--gib", type=int, default=12)
    parser.add_argument(
        "--files", type=int, default=100_000, help="spoiled, of formats that fanin reads itself"
    )
    parser.add_argument("--foreign", type=int, default=200, help="spoiled, of each other library")
    parser.add_argument("parts", nargs="*", default=["twins", "statistics", "size", "fuzz"])
    chosen = parser.parse_args()
    proofs = {
        "twins": lambda: prove_twins(chosen.seconds),
        "statistics": lambda: prove_statistics(chosen.log2_draws),
        "size": lambda: prove_size(chosen.gib),
        "fuzz": lambda: prove_fuzz(chosen.files, chosen.foreign),
    }
    for part in chosen.parts:
        proofs[part]()
