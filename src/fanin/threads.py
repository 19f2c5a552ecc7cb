"""How many threads fill, and the pool they come from. The numbers do not depend on it."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from fanin.errors import ArgumentError

_chosen: int | None = None
_pool: ThreadPoolExecutor | None = None
_here = threading.local()


def usable_cores() -> int:
    """Cores this process may use: its CPU affinity and its cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _quota() or cores)


@cache
def _quota() -> int | None:
    """Cores that the cgroup grants, read once; None without a limit."""
    quota = Path("/sys/fs/cgroup/cpu.max")
    if not quota.is_file():
        return None
    limit, period = quota.read_text().split()
    return None if limit == "max" else max(1, int(limit) // int(period))


def set_threads(n: int | None) -> None:
    """Use ``n`` threads from now on; ``None`` means one per usable core. The bits are always the same.

    Examples
    --------
    >>> set_threads(2)
    >>> set_threads(None)
    """
    global _chosen, _pool
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ArgumentError(f"`n` must be an integer >= 1, or None for one per usable core; got {n!r}")
    _chosen = n
    if _pool is not None:
        _pool.shutdown()
        _pool = None


def threads() -> int:
    """How many threads fill: what `set_threads` set, or the usable cores, shared by the ranks of a host."""
    if getattr(_here, "fills", False):  # one of them is asking
        return 1
    return _chosen or max(1, usable_cores() // _local_ranks())


def _local_ranks() -> int:
    """Processes that a launcher such as torchrun has started on this host."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return int(ranks) if ranks.isdecimal() and int(ranks) > 0 else 1


def run_all(work: Iterable[Callable[[], object]]) -> None:
    """Run every piece of work, in threads if there are several; the first error is raised.

    The caller works too, so that nothing waits for a thread to wake. Work that is itself run so runs its own
    pieces one after the other.
    """
    global _pool
    pieces = deque(work)
    helpers = min(threads(), len(pieces)) - 1
    if helpers < 1:
        _drain(pieces)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(
            threads() - 1, "fanin", initializer=setattr, initargs=(_here, "fills", True)
        )
    at_work = [_pool.submit(_drain, pieces) for _ in range(helpers)]
    _here.fills = True
    try:
        _drain(pieces)
    finally:
        _here.fills = False
        for helper in at_work:
            if not helper.cancel():  # it has begun
                helper.result()


def _drain(pieces: deque[Callable[[], object]]) -> None:
    """Run pieces while there are any; after an error nobody begins another."""
    while pieces:
        try:
            piece = pieces.popleft()
        except IndexError:  # another thread was faster
            return
        try:
            piece()
        except BaseException:
            pieces.clear()
            raise


def _forget_pool() -> None:
    """A forked child has the pool but not its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
