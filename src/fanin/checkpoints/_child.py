"""The process that reads what only another library can: questions come in as lines, answers go out.

An answer is one line of JSON; that to ``read`` is followed by the tensor's bytes. The process ends when its
questions do, which is when the one that asks them ends.
"""

import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, NamedTuple

import numpy as np

from fanin._types import Array, Window
from fanin.checkpoints.contents import Asked, Contents
from fanin.errors import CheckpointError

CORES = 4  # a library's threads, each with a stack, count against the limit


class Reader(NamedTuple):
    """The package that a kind of checkpoint needs, the module that reads it, and what that takes.

    ``reserves``: the whole file's size in address space, which is not filled.
    """

    package: str
    module: str
    reserves: bool = False


READERS = {
    "torch": Reader("torch", "fanin.checkpoints.pickled", reserves=True),
    "keras": Reader("h5py", "fanin.checkpoints.hdf5"),
    "h5": Reader("h5py", "fanin.checkpoints.hdf5"),
    "tensorflow": Reader("tensorflow", "fanin.checkpoints.tensorflow"),
    "orbax": Reader("tensorstore", "fanin.checkpoints.orbax"),
}


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    questions: SimpleQueue[dict[str, Any]] = SimpleQueue()
    Thread(target=_listen, args=(sys.stdin.buffer, questions), daemon=True).start()
    open_files: list[Contents] = []
    seconds = float(sys.argv[1])
    while True:
        question = questions.get()
        array, said = None, {}
        try:
            if "open" in question:
                said = _open(question, open_files, seconds)
            else:
                array = _read(question, open_files, seconds)
        except CheckpointError as error:
            said = {"error": str(error)}
        except MemoryError as error:
            said = {"limit": str(error) or "MemoryError"}
        except Exception as error:  # another library's errors are whatever they are
            said = _failed(error, question)
        answers.write(json.dumps(said).encode() + b"\n")
        if array is not None:
            answers.write(array.reshape(-1).view(np.uint8).data)
        answers.flush()


def _listen(stdin: IO[bytes], questions: SimpleQueue[dict[str, Any]]) -> None:
    for line in stdin:
        questions.put(json.loads(line))
    os._exit(0)  # nobody asks any more


def _open(question: dict[str, Any], open_files: list[Contents], seconds: float) -> dict[str, Any]:
    reader, path = READERS[question["kind"]], Path(question["open"])
    import_module(reader.package)
    module: Any = import_module(reader.module)
    _limit(question["memory"] + (path.stat().st_size if reader.reserves else 0), seconds)
    asked = Asked(question["key"], question["most"], question["part"])
    found: Contents = module.contents(path, asked)
    open_files.append(found)
    return {
        "tensors": {name: (spec.shape, spec.dtype) for name, spec in found.tensors.items()},
        "left_out": dict(found.left_out),
        "metadata": dict(found.metadata),
        "places": found.places
        and {name: (place.start, place.strides) for name, place in found.places.items()},
    }


def _read(question: dict[str, Any], open_files: list[Contents], seconds: float) -> Array:
    """A window of a tensor, as it was described."""
    held, name = open_files[question["read"]], question["name"]
    _limit(question["memory"] + question["room"], seconds)
    window: Window = tuple(slice(*bounds) for bounds in question["window"])
    assert held.read is not None
    array = np.asarray(held.read(name, window), order="C")
    shape = tuple(part.stop - part.start for part in window)
    if (array.shape, array.dtype.name) != (shape, held.tensors[name].dtype):
        raise CheckpointError(f"{name!r} is {array.dtype} {array.shape}, not what its file said")
    return array


BASE: list[int] = []


def _limit(memory: int, seconds: float) -> None:
    """Bound what this process may have from now on, where the system can.

    Memory is counted from what the libraries took when they were imported, seconds from now.
    """
    try:
        import resource
    except ImportError:  # Windows; there the asking process's clock is the only limit
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource, resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        if not BASE:
            BASE.append(int(statistics.read_text().split()[0]) * resource.getpagesize())
        _lower(resource, resource.RLIMIT_AS, BASE[0] + memory)


def _lower(resource: Any, which: int, bound: int) -> None:
    """Set a limit, within the one that this process was given."""
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))


def _failed(error: Exception, question: dict[str, Any]) -> dict[str, Any]:
    """What another library's error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"[:WORDS]
    if "alloc" in str(error).lower() or "RESOURCE_EXHAUSTED" in str(error):
        return {"limit": text}
    traceback.print_exception(error)
    what = question.get("open") or question.get("name")
    return {"error": f"{what}: cannot be read; truncated, damaged or of another kind ({text})"}


WORDS = 300  # characters of a library's error

if __name__ == "__main__":
    main()
