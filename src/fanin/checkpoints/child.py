"""Readers of other libraries, each in a process of its own with limits, that ends with this one."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Lock, Timer
from typing import IO, Any, NamedTuple

import numpy as np

from fanin._types import Array, Window
from fanin.checkpoints._child import READERS
from fanin.checkpoints.contents import Asked, Contents, Place, Read, Spec
from fanin.checkpoints.mapped import mapped
from fanin.dtypes import as_dtype
from fanin.errors import CheckpointError

# What brings a reader's package.
EXTRAS = {"torch": "torch", "h5py": "keras", "tensorflow": "tensorflow", "tensorstore": "orbax"}
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # every thread's own would count against the limit
    "HDF5_PLUGIN_PRELOAD": "::",  # a file names its filters; none is loaded from elsewhere
}
WORDS = 300  # characters of a reader's last words in a message


class Limits(NamedTuple):
    """What reading may cost: bytes beside those that the file itself has, and seconds for each answer."""

    memory: int
    seconds: float


def contents(
    kind: str, files: Sequence[Path], asked: Asked, limits: Limits
) -> tuple[list[Contents], "Reader | None"]:
    """What is in each of the files, and the process that reads on, where there must be one."""
    package = READERS[kind].package
    if find_spec(package) is None:
        raise CheckpointError(
            f"{files[0]}: reading {kind} needs {package}: pip install 'fanin[{EXTRAS[package]}]'"
        )
    reader = Reader(files[0], limits)
    try:
        found = [reader.open(kind, file, asked) for file in files]
    except BaseException:
        reader.close()
        raise
    if all(each.places is not None for each in found):
        reader.close()
        return found, None
    return found, reader


def _mapped(file: Path, tensors: dict[str, Spec], places: dict[str, Place]) -> Read:
    """Read tensors from where they lie."""

    def read(name: str, window: Window) -> Array:
        spec, place = tensors[name], places[name]
        return mapped(file, name, spec.dtype, spec.shape, place.start, place.strides)[window]

    return read


def _remote(reader: "Reader", at: int, file: Path, tensors: dict[str, Spec]) -> Read:
    """Ask for tensors of the file that was opened as number ``at``."""

    def read(name: str, window: Window) -> Array:
        shape = tuple(part.stop - part.start for part in window)
        out = np.empty(shape, as_dtype(tensors[name].dtype))
        bounds = [[part.start, part.stop] for part in window]
        request = {"read": at, "name": name, "window": bounds, "room": 3 * tensors[name].nbytes}
        reader.ask(file, request, out.reshape(-1).view(np.uint8).data)
        return out

    return read


class Reader:
    """A process that answers one question after another."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.limits, self.lock = limits, Lock()
        self.words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by _end)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCH_FORCE")}
        found = os.pathsep.join(os.path.abspath(place) for place in sys.path)
        try:
            self.process = subprocess.Popen(
                # -P: what lies in the working directory is not imported
                [sys.executable, "-P", "-W", "ignore", "-m", "fanin.checkpoints._child", str(limits.seconds)],
                env=kept | QUIET | {"PYTHONPATH": found},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.words,
            )
        except OSError as error:
            raise CheckpointError(f"{path}: the process that reads it cannot start ({error})") from error
        self.close = weakref.finalize(self, _end, self.process, self.words)
        self.opened = 0

    def open(self, kind: str, file: Path, asked: Asked) -> Contents:
        """What is in a file."""
        said = self.ask(file, {"open": str(file), "kind": kind, **asdict(asked)})
        at, self.opened = self.opened, self.opened + 1
        tensors = {name: Spec(tuple(shape), dtype) for name, (shape, dtype) in said["tensors"].items()}
        if said["places"] is None:
            read, places = _remote(self, at, file, tensors), None
        else:
            places = {name: Place(begin, tuple(steps)) for name, (begin, steps) in said["places"].items()}
            read = _mapped(file, tensors, places)
        lies = {name: (file, at.start) for name, at in (places or {}).items() if at.dense(tensors[name])}
        return Contents(tensors, said["left_out"], said["metadata"], places, read, lies)

    def ask(self, file: Path, request: dict[str, Any], into: memoryview | None = None) -> Any:
        """The answer; the bytes after it into a buffer."""
        late = Event()
        timer = Timer(self.limits.seconds, self._stop, (late,))
        with self.lock:
            timer.start()
            try:
                said = self._answer(request | {"memory": self.limits.memory}, into)
            except (OSError, ValueError):  # it died over the question, or in the middle of its answer
                said = None
            finally:
                timer.cancel()
        if late.is_set():
            raise CheckpointError(
                f"{file}: reading it takes longer than `seconds` = {self.limits.seconds:g}; "
                f"pass more if you trust it"
            )
        if said is None:
            raise CheckpointError(f"{file}: {self._ending()}")
        if "limit" in said:
            raise CheckpointError(
                f"{file}: reading it takes more than `memory` = {self.limits.memory} bytes "
                f"({said['limit']}); pass more if you trust it"
            )
        if "error" in said:
            raise CheckpointError(said["error"])
        return said

    def _stop(self, late: Event) -> None:
        late.set()
        self.process.kill()

    def _answer(self, request: dict[str, Any], into: memoryview | None) -> Any:
        """What comes back, or None if it ends too early."""
        questions: Any = self.process.stdin
        answers: Any = self.process.stdout
        questions.write(json.dumps(request).encode() + b"\n")
        questions.flush()
        said = json.loads(answers.readline())
        if into is not None and said.keys().isdisjoint(("error", "limit")):
            at = 0
            while at < len(into):
                count = answers.readinto(into[at:])
                if count == 0:
                    return None
                at += count
        return said

    def _ending(self) -> str:
        """Why there is no answer."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the process that reads it stopped answering"
        if code == -getattr(signal, "SIGXCPU", 0):
            return (
                f"reading it takes the processor longer than `seconds` = {self.limits.seconds:g}; "
                f"pass more if you trust it"
            )
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.words.seek(0)
        words = " ".join(self.words.read().decode(errors="replace").split())[-WORDS:]
        return f"the process that read it ended by {how}{words and ': '}{words}"


def _end(process: "subprocess.Popen[bytes]", words: IO[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout, words):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # a question that it did not live to read
                continue
    process.wait()
