"""What reading a checkpoint tensor by tensor takes at most: a program of its own, since peaks only grow.

Given a small checkpoint and a large one of the same kind, it prints by how many bytes the peaks of this
process and of the largest one that it started grow from the one to the other.
"""

import re
import resource
import sys
from pathlib import Path

from fanin import checkpoints

UNIT = 1024  # Linux counts in KiB


def peaks(path: str) -> tuple[int, int]:
    """The peaks after every tensor of a checkpoint was read: here, and in a process that read for it."""
    with checkpoints.open(path) as checkpoint:
        for name in checkpoint.tensors:
            checkpoint.read(name).sum()
    # getrusage would count what the process that started this one had
    (here,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(here) * UNIT, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT


if __name__ == "__main__":
    before, after = (peaks(path) for path in sys.argv[1:])
    print(after[0] - before[0], after[1] - before[1])
