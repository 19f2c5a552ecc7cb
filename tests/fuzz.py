"""Files from strangers: spoiled ones, by the thousand, through each of fanin's readers.

A file is refused by one of fanin's errors, or it is read, and then what was read is written and read again
without loss. Anything else (another error, a warning, much memory, much time) is a failure: its file is kept.

    python tests/fuzz.py --files 1000 --seed 0 [--keep FOLDER] [READER ...]

Without names it is all readers of fanin's own. What other libraries read (HDF5, PyTorch's, TensorFlow's and
Orbax's files) is named one by one: a process is started for each file.
"""

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
import tomllib
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spoiling

import fanin
from fanin import checkpoints
from fanin.audit import Trace, config, examine, of_chain
from fanin.audit.chain import Layer
from fanin.checkpoints import model_of, tensors_of
from fanin.checkpoints.index import index_text
from fanin.checkpoints.safetensors import header
from fanin.errors import FaninError
from fanin.fans import LOOKUP, OI, Axes, Fans
from fanin.model import Model, Piece, Tensor
from fanin.plan import Plan
from fanin.planning import planned
from fanin.recipe import Recipe, Rule, block, role, shape
from fanin.report import Comparison, Interval, Row
from fanin.report.audit import Report
from fanin.transfer import card, resolve

MEMORY = 256 << 20  # bytes that reading a file of some KiB may take beside what is there
SECONDS = 5.0  # of the processor, for one file

# --- what is spoiled -----------------------------------------------------------------------------


def model() -> Model:
    """Packed projections, groups of unequal size, split heads, a table, a bias, an own start."""
    packed = Axes.parse("i (s o) -> s : o | i", members={"s": ("q", "k", "v")})
    halves = (((0, 3), (0, 6)), ((3, 4), (0, 6)))
    heads = (((0, 2), (0, 1), (0, 4)), ((0, 2), (1, 3), (0, 4)))
    own = fanin.Constant([[0.0, 1.0], [2.0, 3.0]])
    tensors = (
        ("h.0.qkv", (4, 12), (Piece("h.0.{}", "kernel", "attention", packed, block=0),)),
        (
            "h.0.kv",
            (4, 6),
            tuple(Piece(f"h.0.kv.{at}", "kernel", "linear", OI, each) for at, each in enumerate(halves)),
        ),
        (
            "u",
            (6, 4),
            tuple(
                Piece(f"u.{at}", "kernel", "linear", OI, each, ((0, (2, 3)),))
                for at, each in enumerate(heads)
            ),
        ),
        ("e", (2, 4, 3), (Piece("e.{}", "kernel", "experts", Axes.parse("e i o -> e : o | i")),)),
        ("bias", (5,), (Piece("bias", "bias", "linear", Axes((0,), (), known=Fans(6, 5))),)),
        ("wte", (7, 4), (Piece("wte", "embedding", "embedding", LOOKUP, padding_row=2),)),
        ("pos", (2, 2), (Piece("pos", "position", "sinusoid", OI, own=own),)),
    )
    made = (
        Tensor(path, size, "float32", pieces, ("tied",) * (path == "wte")) for path, size, pieces in tensors
    )
    return Model(tuple(made), {"n_layer": 1})


MODEL = model()
RECIPE = Recipe(
    [
        ("wte", fanin.Masked("random_normal(0, 0.02)", np.tri(7, 4, dtype=bool))),
        Rule(role("*bias"), "constant(0.1)", optional=True),
        (block(0) & shape("4, *"), "scaled(orthogonal(gain=2.0), 0.5)"),
        ("u.0", "torch:kaiming_uniform(a=2.0)"),
        ("*", "he_normal"),
    ],
    alias={"h": "blocks"},
    name="mine",
)
SMALL = Recipe([Rule(role("head"), "zeros", optional=True)], base="torch", unpadded={"wte": (6, 4)})
ARRAYS = {"u": np.ones((6, 4), np.float32), "wte": np.ones((9, 4), np.float16), "n": np.array(7)}
# Initializers that need arguments, or should have some.
MADE = (
    fanin.Scaled("he_normal", 0.5),
    fanin.ScaledUnits("he_normal", [1.0, 0.5, 2.0, 0.0]),
    fanin.Blocks("orthogonal", 2, 0),
    fanin.WithRow("ones", 1, 3.0),
    fanin.Tile("lecun_uniform", (2, 1)),
    fanin.Masked("ones", np.eye(4, dtype=bool)),
    fanin.ICNR("he_normal", 2),
    fanin.initializers.AsStored("glorot_uniform", packed=2),
    fanin.LooksLinear("orthogonal"),
    fanin.Constant(np.arange(4.0)),
    fanin.Sparse(0.5),
    fanin.Mimetic("query", 2, pair="attn"),
)


def catalogue() -> Plan:
    """Every initializer, on the first of some shapes that it can make."""
    plain = [fanin.get(name) for name in fanin.names() if name not in {each.name() for each in MADE}]
    tensors, rules = [], []
    for at, init in enumerate([*plain, *MADE]):
        for size in ((4, 4), (4, 4, 3), (4, 4, 3, 3), (4, 4, 3, 3, 3)):
            with suppress(FaninError):
                init(size, seed=0, axes="oi")
                tensors.append(Tensor(f"p{at}", size, "float32", (Piece(f"p{at}", "kernel", "linear", OI),)))
                rules.append((f"p{at}", init))
                break
    assert len(rules) == len(plain) + len(MADE)
    return planned(Model(tuple(tensors)), Recipe(rules), 5)


def recipes(_: Path) -> list[str]:
    rules = [Rule(row.name, row.initializer, optional=True) for row in catalogue().rows if row.initializer]
    return [RECIPE.to_json(), SMALL.to_json(), Recipe([*rules, ("*", "zeros")]).to_json()]


def plans(folder: Path) -> list[str]:
    np.savez(folder / "old.npz", **ARRAYS)
    transferred = resolve(MODEL, folder / "old.npz", RECIPE, seed=3, adapt={"wte": "rows"})
    return [planned(MODEL, RECIPE, 7).with_digests().to_json(), transferred.to_json(), catalogue().to_json()]


def trace() -> Trace:
    x = np.random.default_rng(0).standard_normal((4, 3))
    names = ("0.weight", "1.weight")
    return of_chain([Layer(name, np.eye(3) * 9, np.zeros(3), x, x * 9, x) for name in names], "relu", "torch")


def traces(_: Path) -> list[str]:
    return [trace().to_json()]


def reports(_: Path) -> list[str]:
    return [Report(trace(), tuple(examine(trace()))).to_json()]


def comparisons(_: Path) -> list[str]:
    found = tuple(examine(trace()))[:1]
    none, curve = Interval(0.5, -1.0, 2.0), ((0.1, 0.5), (0.1, 0.6))
    first = Row(
        "he_normal", 0.2, 3, None, float("nan"), 0.5, 0.5, (1.0,), (0.5,), -0.1, 0.1, found, (0.4, 0.8), 0.1,
        (0.5, 0.6), none, 0.25, None, 0.0, "learned", curve, curve, none, ("zeros",),
    )  # fmt: skip
    made = Comparison(
        "digits", "relu", 1, 3, 64, 10, 60, 20, 20, (0.01, 0.1), 1, 4, 2, 0.9, 0.1, (0, 1), 1.5,
        (first, replace(first, expression="zeros", outcome="stuck")),
    )  # fmt: skip
    return [made.to_json()]


def configs(_: Path) -> list[str]:
    table = {"select": ["symmetry", "balance"], "ignore": ["first-update"], "forward-scale": {"warn": 0.5}}
    return [json.dumps({"tool": {"fanin": {"audit": table}}})]


def stored(*names: str) -> tuple[str, bytes]:
    """The header and the bytes of a file of safetensors."""
    front, where = header(
        [(name, ARRAYS[name].dtype.name, ARRAYS[name].shape) for name in names], {"of": "us"}
    )
    ordered = sorted(names, key=lambda name: where[name].start)
    return front[8:].decode(), b"".join(ARRAYS[name].tobytes() for name in ordered)


def indexes(folder: Path) -> list[str]:
    """An index, and the two files that it names."""
    for at, name in enumerate(("u", "wte")):
        (folder / f"{at}.safetensors").write_bytes(spoiling.as_safetensors(stored(name), None))
    return [index_text({"u": "0.safetensors", "wte": "1.safetensors"}, 168)]


def archives(_: Path) -> list[dict[str, bytes]]:
    return [{f"{name}.npy": spoiling.npy(array) for name, array in ARRAYS.items()}]


# --- reading -------------------------------------------------------------------------------------


def text_of(path: Path) -> str:
    """A file's text as a program would hand it on."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def all_of(path: Path) -> None:
    """Every tensor of a checkpoint is what the checkpoint says of it."""
    with checkpoints.open(path) as checkpoint:
        for name, spec in checkpoint.tensors.items():
            array = checkpoint.read(name)
            assert (array.shape, array.dtype.name) == (spec.shape, spec.dtype), name


def same_recipe(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(recipe.to_json())).to_json() == recipe.to_json()
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())).to_json() == recipe.to_json()


def same_plan(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again.to_json() == plan.to_json()
    assert again.diff(plan) == []
    assert plan.table(fold=True)
    assert card(plan)


def same(held: Any) -> None:
    assert type(held).from_json(held.to_json()).to_json() == held.to_json()


def nothing(_: Any) -> None:
    """Reading was all."""


class Reader(NamedTuple):
    """What is spoiled and how, the file's name, what reads it, what must hold of what is read."""

    samples: Callable[[Path], list[Any]]
    spoiled: spoiling.Spoiled
    file: str
    read: Callable[[Path], Any]
    check: Callable[[Any], None] = nothing


READERS = {
    "recipe.toml": Reader(recipes, spoiling.as_toml, "x.toml", Recipe.from_file, same_recipe),
    "recipe.json": Reader(recipes, spoiling.as_json, "x.json", Recipe.from_file, same_recipe),
    "start": Reader(recipes, spoiling.as_json, "x.json", lambda path: planned(MODEL, path, 7), same_plan),
    "plan": Reader(plans, spoiling.as_json, "x.json", Plan.from_file, same_plan),
    "config": Reader(configs, spoiling.as_toml, "pyproject.toml", config.load),
    "trace": Reader(traces, spoiling.as_json, "x.json", lambda path: Trace.from_json(text_of(path)), same),
    "report": Reader(reports, spoiling.as_json, "x.json", lambda path: Report.from_json(text_of(path)), same),
    "comparison": Reader(
        comparisons, spoiling.as_json, "x.json", lambda path: Comparison.from_json(text_of(path)), same
    ),
    "safetensors": Reader(lambda _: [stored(*ARRAYS)], spoiling.as_safetensors, "x.safetensors", all_of),
    "header": Reader(lambda _: [stored("u", "wte")], spoiling.as_safetensors, "x.safetensors", model_of),
    "index": Reader(indexes, spoiling.as_json, "x.safetensors.index.json", all_of),
    "folder": Reader(indexes, spoiling.as_json, "model.safetensors.index.json", tensors_of),
    "npz": Reader(archives, spoiling.as_npz, "x.npz", all_of),
}


# --- other libraries' files ----------------------------------------------------------------------


def h5(folder: Path) -> str:
    import h5py

    with h5py.File(folder / "x.h5", "w") as file:
        for name, array in ARRAYS.items():
            file.create_dataset(f"layers/{name}", data=array, compression="gzip" if array.ndim else None)
    return "x.h5"


def keras(folder: Path) -> str:
    h5(folder)
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        archive.write(folder / "x.h5", "model.weights.h5")
        archive.writestr("config.json", json.dumps({"config": {"layers": []}}))
    (folder / "x.h5").unlink()
    return "x.keras"


def pickled(folder: Path, archive: bool = True) -> str:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save({"model": tensors, "epoch": 3}, folder / "x.pt", _use_new_zipfile_serialization=archive)
    return "x.pt"


def tensorflow(folder: Path) -> str:
    import tensorflow as tf

    variables = {name: tf.Variable(array) for name, array in ARRAYS.items()}
    tf.train.Checkpoint(**variables).write(str(folder / "x"))
    return "x"


def orbax(folder: Path) -> str:
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "x", ARRAYS)
    return "x"


FOREIGN: dict[str, Callable[[Path], str]] = {
    "h5": h5,
    "keras": keras,
    "torch": pickled,
    "torch-old": partial(pickled, archive=False),
    "tensorflow": tensorflow,
    "orbax": orbax,
}


# --- running -------------------------------------------------------------------------------------


class Slow(BaseException):
    """A file took too long; no reader's ``except Exception`` may catch it."""


@contextmanager
def bounded() -> Iterator[None]:
    """Bound the processor's time, whatever else the machine does."""

    def late(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@dataclass
class Counts:
    """How many files were refused and read, and what went wrong: {where: (what, a file)}."""

    refused: int = 0
    read: int = 0
    failed: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def take(
        self, path: Path, data: bytes, read: Callable[[Path], Any], check: Callable[[Any], None]
    ) -> None:
        """Read what is at a path, of which ``data`` was spoiled."""
        try:
            with bounded():
                try:
                    held = read(path)
                except FaninError:
                    self.refused += 1
                    return
                check(held)
                self.read += 1
        except (Exception, Slow) as error:
            last = traceback.extract_tb(error.__traceback__)
            place = next(f for f in reversed(last) if "/fanin/" in f.filename or "/tests/" in f.filename)
            where = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
            self.failed.setdefault(where, (str(error)[:200], data))


def fuzz(name: str, files: int, seed: int, folder: Path) -> Counts:
    """Spoiled files through one of fanin's own readers; the same ones for the same seed."""
    reader, rng, counts = READERS[name], random.Random(f"{name} {seed}"), Counts()
    samples, path = reader.samples(folder), folder / reader.file
    for sample in samples:  # what is not spoiled is read, and all that reading imports is there
        path.write_bytes(reader.spoiled(sample, None))
        reader.check(reader.read(path))
    limited(MEMORY)
    for _ in range(files):
        data = reader.spoiled(rng.choice(samples), rng)
        path.write_bytes(data)
        counts.take(path, data, reader.read, reader.check)
    return counts


def fuzz_foreign(name: str, files: int, seed: int, folder: Path) -> Counts:
    """Files of other libraries, bytes of which are changed: a process of its own reads each."""
    path, rng, counts = folder / FOREIGN[name](folder), random.Random(f"{name} {seed}"), Counts()
    parts = sorted(part for part in folder.rglob("*") if part.is_file() and part.stat().st_size)
    all_of(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(files):
        part = rng.choice(parts)
        whole = part.read_bytes()
        data = rng.choice((spoiling.damaged, spoiling.flipped, spoiling.flipped))(whole, rng)
        part.write_bytes(data)
        counts.take(path, data, all_of, nothing)
        part.write_bytes(whole)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > MEMORY:
        counts.failed["memory"] = (f"it grew by {grown} bytes", b"")
    return counts


def limited(memory: int) -> None:
    """Bound the address space, from what is used now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files of failures")
    parser.add_argument("readers", nargs="*", metavar="reader", help=", ".join([*READERS, *FOREIGN]))
    asked = parser.parse_args()
    every = 0
    for name in asked.readers or READERS:
        if name in READERS:
            warnings.simplefilter("error")
        with tempfile.TemporaryDirectory() as folder:
            run = fuzz if name in READERS else fuzz_foreign
            counts = run(name, asked.files, asked.seed, Path(folder))
        print(
            f"{name}: {counts.refused} refused, {counts.read} read, {len(counts.failed)} ways to fail",
            flush=True,
        )
        for at, (where, (what, data)) in enumerate(counts.failed.items()):
            print(f"  {where}: {what}")
            if asked.keep is not None:
                asked.keep.mkdir(exist_ok=True)
                (asked.keep / f"{name}-{at}").write_bytes(data)
        every += len(counts.failed)
    return 1 if every else 0


if __name__ == "__main__":
    sys.exit(main())
