"""A plan to safetensors files, larger than memory, by any number of threads, processes and hosts.

Files are written in a folder of their own, at their final size, in chunks that any worker makes in any order;
a byte for each chunk says that it is on the disk. When all are, the files get their final names, and the
index last. So a run that is killed goes on where it was, and what has a final name is whole.
"""

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fanin.checkpoints.index import INDEX, SINGLE, index_text
from fanin.dtypes import as_dtype
from fanin.errors import ArgumentError, CheckpointError
from fanin.materialize.files import Chunk, File, chunks_of, files_of, final, identity
from fanin.plan import Plan

SUFFIX = ".safetensors"
PARTIAL = ".fanin-partial"
DONE, IDENTITY = "done", "identity"
FLUSH = 1 << 28  # bytes between two times that the disk is asked to have them: what a killed run may redo
SHARD = 5 * 10**9

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    """What a run did: the files, all their bytes, the bytes it wrote, and whether nothing is left to do."""

    files: tuple[str, ...]
    total: int
    wrote: int
    finished: bool


def materialize(
    plan: Plan,
    folder: str | Path,
    *,
    max_shard_size: int = SHARD,
    workers: int = 1,
    part: tuple[int, int] = (1, 1),
    resume: bool = False,
    on_progress: Progress | None = None,
) -> Written:
    """Write all tensors of a plan to ``model*.safetensors`` and an index.

    The bytes depend on the plan and ``max_shard_size`` alone. Memory is 16 MiB for each worker, and for
    initializers that need their whole tensor (orthogonal ones) that.

    Parameters
    ----------
    plan : Plan
        Without kept values.
    folder : path
        Made if it is not there; it must hold no other checkpoint. A name that ends in ``.safetensors`` is one
        file, which takes the place of what has that name when it is whole.
    max_shard_size : int
        Bytes of a file in a folder; a tensor is never split.
    workers : int
        Threads that make and write.
    part : (int, int)
        Which part of how many this run makes, from 1. Parts may run one after the other or at the same time,
        on several hosts that share the folder; the last to finish names the files.
    resume : bool
        Go on with what an earlier run of the same plan left.
    on_progress : callable, optional
        ``on_progress(bytes done, bytes in all)`` of this part.

    Raises
    ------
    CheckpointError
        When the folder holds another checkpoint, or what an unfinished run of another plan left.
    OSError
        When the disk is full or cannot be written; the run can be resumed.
    """
    mine, of = part
    if not 1 <= mine <= of:
        raise ArgumentError(f"`part` {mine}/{of}: expected k/n with 1 <= k <= n")
    if workers < 1:
        raise ArgumentError(f"`workers` must be >= 1, got {workers}")
    folder = Path(folder)
    if folder.suffix == SUFFIX and of > 1:
        raise ArgumentError(f"`part` {mine}/{of}: {folder.name} is one file; parts need a folder")
    if folder.suffix == SUFFIX:
        return _one_file(plan, folder, workers, resume, on_progress)
    files = files_of(plan, max_shard_size)
    chunks = list(chunks_of(plan, files))
    total = sum(chunk.size for chunk in chunks)
    names = tuple(file.name for file in files)
    if resume and _is_whole(folder, files):
        _clean(folder)
        return Written(names, total, 0, True)
    work = _Work(folder / PARTIAL, files, len(chunks))
    work.prepare(identity(plan, files), resume or of > 1, total)
    done = work.done()
    todo = [at for at in range(len(chunks)) if at * of // len(chunks) == mine - 1 and not done[at]]
    before = sum(chunk.size for at, chunk in enumerate(chunks) if at * of // len(chunks) == mine - 1) - sum(
        chunks[at].size for at in todo
    )
    wrote = _write(plan, work, chunks, todo, workers, before, on_progress)
    finished = bool(work.done().all())
    if finished:
        work.finish(folder, index_text({n: f.name for f in files for n in f.tensors}, total))
    return Written(names, total, wrote, finished)


def _one_file(plan: Plan, file: Path, workers: int, resume: bool, on_progress: Progress | None) -> Written:
    """Write a folder beside the file, and move what is in it."""
    if file.is_dir():
        raise CheckpointError(f"{file}: is a folder; choose another name")
    folder = file.with_name(f".{file.name}{PARTIAL}")
    if (folder / SINGLE).exists():  # of a run that was killed at its very end, perhaps of another plan
        shutil.rmtree(folder)
    written = materialize(
        plan,
        folder,
        max_shard_size=sys.maxsize,
        workers=workers,
        resume=resume,
        on_progress=on_progress,
    )
    os.replace(folder / SINGLE, file)
    _sync_folder(file.parent)
    shutil.rmtree(folder)
    return replace(written, files=(file.name,))


def _is_whole(folder: Path, files: tuple[File, ...]) -> bool:
    """Whether every file, and the index of several, has its final name."""
    there = final(folder, files)
    return len(there) == len(files) and (len(files) == 1 or (folder / INDEX).exists())


def _clean(folder: Path) -> None:
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


class _Work:
    """The folder of an unfinished run."""

    def __init__(self, place: Path, files: tuple[File, ...], count: int) -> None:
        self.place, self.files, self.count = place, files, count

    def prepare(self, identity: str, may_exist: bool, total: int) -> None:
        """Make the folder and the files at their size, unless an earlier run of the same plan did."""
        folder = self.place.parent
        there = final(folder, self.files)
        if not self.place.exists():
            if there or (folder / INDEX).exists():
                raise CheckpointError(
                    f"{folder} holds a checkpoint ({(there or [folder / INDEX])[0].name}); choose another"
                )
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if free < total:
                raise CheckpointError(f"{folder}: {total:,} bytes are needed, {free:,} are free")
        elif not may_exist:
            raise CheckpointError(
                f"{folder} holds an unfinished run; go on with it (resume) or remove {self.place}"
            )
        self.place.mkdir(exist_ok=True)
        self._claim(identity)
        done = self.done()
        if done.any():
            self._check_files()
        if done.all() and self.count:
            return
        for file in self.files:
            with _naming(self.place / file.name):
                with open(self.place / file.name, "ab") as handle:
                    handle.truncate(file.size)
                with open(self.place / file.name, "r+b") as handle:
                    handle.write(file.front)

    def _check_files(self) -> None:
        """What is marked as done must still be there: a new file in its place would hold zeros."""
        for file in self.files:
            places = (self.place / file.name, self.place.parent / file.name)
            if not any(place.is_file() and place.stat().st_size == file.size for place in places):
                raise CheckpointError(
                    f"{places[0]} is gone or has another size, though parts of it were written; remove "
                    f"{self.place} and start again"
                )

    def _claim(self, identity: str) -> None:
        mark = self.place / IDENTITY
        if not mark.exists():
            fresh = self.place / f"{IDENTITY}.{os.getpid()}.{threading.get_ident()}"
            fresh.write_text(identity)
            os.replace(fresh, mark)
        if mark.read_text() != identity:
            raise CheckpointError(
                f"{self.place} is what another plan or another max_shard_size left unfinished; remove it"
            )
        with open(self.place / DONE, "ab") as handle:
            handle.truncate(self.count)

    def done(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """A byte for each chunk: 1 when it is on the disk."""
        return np.fromfile(self.place / DONE, np.uint8)

    def finish(self, folder: Path, index: str) -> None:
        """Give the files their final names, the index last."""
        self._check_files()
        for file in self.files:
            with contextlib.suppress(FileNotFoundError):  # another part finished at the same time
                with open(self.place / file.name, "rb") as handle:
                    os.fsync(handle.fileno())
                os.replace(self.place / file.name, folder / file.name)
        if len(self.files) > 1:
            with contextlib.suppress(FileNotFoundError):
                with open(self.place / INDEX, "w", encoding="utf-8") as handle:
                    handle.write(index)
                    handle.flush()
                    os.fsync(handle.fileno())
                os.replace(self.place / INDEX, folder / INDEX)
        _sync_folder(folder)
        _clean(folder)


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Say which file the system refused, and what to do: calls on an open file do not name it."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror}; what is on the disk is kept, go on with resume"
        raise OSError(error.errno, what, str(file)) from error


def _sync_folder(folder: Path) -> None:
    """Make new names last through a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(
    plan: Plan,
    work: _Work,
    chunks: list[Chunk],
    todo: list[int],
    workers: int,
    before: int,
    on_progress: Progress | None,
) -> int:
    """Make and write chunks; how many bytes."""
    todo_bytes = sum(chunks[at].size for at in todo)
    wrote, lock, stop = 0, threading.Lock(), threading.Event()
    line = iter(todo)

    def take() -> int | None:
        with lock:
            return None if stop.is_set() else next(line, None)

    def work_on() -> None:
        nonlocal wrote
        with _Handles(work) as handles:
            while (at := take()) is not None:
                chunk = chunks[at]
                dtype = as_dtype(plan.tensor(chunk.path).dtype)
                values = handles.buffer(chunk.size).view(dtype)
                values = values.reshape([part.stop - part.start for part in chunk.window])
                plan.fill(chunk.path, window=chunk.window, out=values)
                handles.write(at, chunk, values)
                with lock:
                    wrote += chunk.size
                    if on_progress is not None:
                        on_progress(before + wrote, before + todo_bytes)

    with ThreadPoolExecutor(workers, thread_name_prefix="fanin-writer") as pool:
        running = [pool.submit(work_on) for _ in range(workers)]
        for worker in running:
            try:
                worker.result()
            except BaseException:
                stop.set()
                raise
    return wrote


class _Handles:
    """One worker's open files, its buffer, and what it has written but not yet marked as done."""

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.files: dict[int, int] = {}
        self.unmarked: list[int] = []
        self.bytes = 0
        self.room = np.empty(0, np.uint8)

    def __enter__(self) -> "_Handles":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.mark()
        finally:
            for handle in self.files.values():
                os.close(handle)

    def buffer(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        if self.room.size < size:
            self.room = np.empty(size, np.uint8)
        return self.room[:size]

    def write(self, at: int, chunk: Chunk, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
        handle = self._open(chunk.file)
        rest, place = values.reshape(-1).view(np.uint8).data, chunk.start
        with _naming(self.work.place / self.work.files[chunk.file].name):
            while rest:
                count = os.pwrite(handle, rest, place)
                rest, place = rest[count:], place + count
        self.unmarked.append(at)
        self.bytes += chunk.size
        if self.bytes >= FLUSH:
            self.mark()

    def mark(self) -> None:
        """Mark as done what the disk has."""
        for file, handle in self.files.items():
            with _naming(self.work.place / self.work.files[file].name):
                os.fdatasync(handle)
        if self.unmarked:
            with open(self.work.place / DONE, "r+b", buffering=0) as done:
                for at in self.unmarked:
                    os.pwrite(done.fileno(), b"\1", at)
        self.unmarked, self.bytes = [], 0

    def _open(self, file: int) -> int:
        if file not in self.files:
            self.files[file] = os.open(self.work.place / self.work.files[file].name, os.O_WRONLY)
        return self.files[file]


def planned(plan: Plan, max_shard_size: int = SHARD) -> Iterator[tuple[str, int, int]]:
    """What would be written: (file, tensors, bytes)."""
    for file in files_of(plan, max_shard_size):
        yield file.name, len(file.tensors), file.size
