"""Which layers are calibrated, to what, and why others are left out.

It is read off the trace: execution order, residual branches, the head and what a normalization undoes are in
its edges, so that no layer is known by its name.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fanin.audit.lines import RECTIFIERS
from fanin.audit.trace import Operation, Trace

WEIGHTED = ("dense", "conv")
KERNELS = ("kernel", "recurrent_kernel", "head")
BIASES = ("bias", "gate_bias", "recurrent_bias")
OTHERS = {
    "embedding": "a table, whose size is the recipe's choice",
    "attention": "attention in one operation: what its projections put out is not seen",
    "recurrent": "of its kernels only those before the first gates are calibrated: the others are not seen",
}
PASSED = ("dropout", "multiply", "activation", "pool")  # between the last kernel of a branch and its sum


@dataclass(frozen=True)
class Layer:
    """One operation with a kernel, or one gate of a recurrent one.

    Attributes
    ----------
    at : int
        Its index in the trace.
    name : str
        Of the operation; with the gate's, if it is one.
    kernels, biases : tuple of str
        Canonical names; several are packed side by side.
    share : float
        Of the target: 1, and ``1 / sqrt(N)`` at the end of each of N residual branches.
    """

    at: int
    name: str
    kernels: tuple[str, ...]
    biases: tuple[str, ...]
    share: float = 1.0
    gate: str = ""


def layers(
    trace: Trace, *, head: bool = False, normalized: bool = False
) -> tuple[list[Layer], dict[str, str]]:
    """The layers to calibrate, in the order of execution, and {what is left out: why}.

    Parameters
    ----------
    head, normalized : bool
        Whether to take the head, and layers whose size a normalization takes away, too.
    """
    ends, heads, undone = branch_ends(trace), heads_of(trace), _normalized(trace)
    share = 1 / math.sqrt(max(1, len(ends)))
    taken: dict[str, str] = {}  # {kernel: the operation it is calibrated in}
    found: list[Layer] = []
    left: dict[str, str] = {}
    for at, operation in enumerate(trace.operations):
        if operation.kind not in (*WEIGHTED, *OTHERS) or not operation.parameters:
            continue
        kernels, biases = kernels_of(trace, operation), biases_of(trace, operation)
        seen = next((taken[name] for name in kernels if name in taken), None)
        gates = list(_gates(at, operation, biases)) if seen is None else []
        conditions = (
            (operation.kind in OTHERS, OTHERS.get(operation.kind, "")),
            (seen is not None, f"its kernel is calibrated in {seen}"),
            (not kernels, "its kernel is a table's, or computed"),
            (at in heads and not head, "the head: unit outputs would raise the loss; 'head' is for it"),
            (at in undone and not normalized, "a normalization takes its size away: nothing would change"),
            (at in ends and _all_zero(trace, kernels), "the end of a residual branch that starts at zero"),
        )
        why = next((words for holds, words in conditions if holds), None)
        if why is None:
            found.append(Layer(at, operation.name, kernels, biases, share if at in ends else 1.0))
        else:
            left[operation.name] = why
        found += gates
        if why is None or gates:
            taken.update(dict.fromkeys(kernels, operation.name))
    return found, left


def _all_zero(trace: Trace, names: tuple[str, ...]) -> bool:
    return all(trace[name].values.largest == 0 for name in names)


def kernels_of(trace: Trace, operation: Operation) -> tuple[str, ...]:
    """Names of an operation's kernels."""
    held = map(trace.__getitem__, operation.parameters)
    return tuple(w.name for w in held if w.role in KERNELS or (w.role == "unknown" and len(w.shape) > 1))


def biases_of(trace: Trace, operation: Operation) -> tuple[str, ...]:
    """Names of an operation's biases."""
    held = map(trace.__getitem__, operation.parameters)
    return tuple(w.name for w in held if w.role in BIASES or (w.role == "unknown" and len(w.shape) == 1))


def _gates(at: int, operation: Operation, biases: tuple[str, ...]) -> Iterator[Layer]:
    """Of the first layer inside, forward in time: the only one whose input is seen."""
    prefix = "" if operation.module == "model" else f"{operation.module}."
    for gate in operation.gates:
        kernel = f"{prefix}weight_ih.{gate}"
        if kernel in operation.parameters:
            both = (f"{prefix}bias_ih.{gate}", f"{prefix}bias_hh.{gate}")
            mine = tuple(name for name in both if name in biases)
            yield Layer(at, f"{operation.name}.{gate}", (kernel,), mine, gate=gate)


# --- what the edges say --------------------------------------------------------------------------


def heads_of(trace: Trace) -> frozenset[int]:
    """The operations with a kernel behind which there is no other, but for a branch's end."""
    above = ancestors(trace)
    kinds = (*WEIGHTED, "recurrent", "attention")
    weighted = [at for at, each in enumerate(trace.operations) if each.kind in kinds]
    passed = 0
    for at in weighted:
        passed |= above[at]
    return frozenset(
        at for at in weighted if not passed >> (at + 1) & 1 and trace.operations[at].kind in WEIGHTED
    ) - branch_ends(trace)


class Branch(NamedTuple):
    """A residual branch: the sum it ends in, that sum's other term, and the operation that makes its own."""

    sum: int
    stream: int
    last: int


def branches(trace: Trace) -> tuple[Branch, ...]:
    """Residual branches, in the order of their sums.

    Of the terms of a sum the branch is what the other was before; where both have kernels (a projected
    shortcut), the one with more of them in a row.
    """
    above, deep = ancestors(trace), _depths(trace)
    found: list[Branch] = []
    for at, operation in enumerate(trace.operations):
        terms = list(dict.fromkeys(operation.inputs))
        if operation.kind != "add" or len(terms) < 2:
            continue
        stream = next((term for term in terms if _leads_to(above, term, terms)), None)
        if stream is None:
            depth = Counter({term: deep[term] if term >= 0 else 0 for term in terms}).most_common(2)
            shared = with_itself(above, depth[0][0]) & with_itself(above, depth[1][0])
            if shared and depth[0][1] > depth[1][1]:
                found.append(Branch(at, depth[1][0], depth[0][0]))
        else:
            found += [Branch(at, stream, term) for term in terms if term != stream]
    return tuple(found)


def branch_ends(trace: Trace) -> frozenset[int]:
    """The last operation with a kernel in each residual branch."""
    ends = (end_of(trace, branch) for branch in branches(trace))
    return frozenset(end for end in ends if end is not None)


def _leads_to(above: list[int], term: int, others: list[int]) -> bool:
    return all(other == term or (other >= 0 and above[other] >> (term + 1) & 1) for other in others)


def end_of(trace: Trace, branch: Branch) -> int | None:
    """The kernel a branch ends with, through what only passes it on; None if something else scales it."""
    at = branch.last
    while at >= 0:
        operation = trace.operations[at]
        if operation.kind in (*WEIGHTED, "attention", "recurrent"):
            return at
        if operation.kind not in PASSED or len(operation.inputs) != 1 or operation.parameters:
            return None
        at = operation.inputs[0]
    return None


def with_itself(above: list[int], at: int) -> int:
    """An operation and its ancestors."""
    return above[at] | 1 << (at + 1) if at >= 0 else 1


def ancestors(trace: Trace) -> list[int]:
    """For each operation a set of bits: the batch is bit 0, operation k is bit k + 1."""
    above: list[int] = []
    for operation in trace.operations:
        mine = 0
        for source in operation.inputs:
            mine |= with_itself(above, source)
        above.append(mine)
    return above


def _depths(trace: Trace) -> list[int]:
    """How many kernels lie on the longest way to each operation, its own included."""
    deep: list[int] = []
    for operation in trace.operations:
        most = max((deep[source] for source in operation.inputs if source >= 0), default=0)
        deep.append(most + (operation.kind in WEIGHTED))
    return deep


def _normalized(trace: Trace) -> frozenset[int]:
    """The operations whose size a norm takes away before it meets another signal."""
    takers: Mapping[int, list[int]] = {at: [] for at in range(-1, len(trace.operations))}
    for at, operation in enumerate(trace.operations):
        for source in operation.inputs:
            takers[source].append(at)
    found: set[int] = set()
    for at in range(len(trace.operations) - 1, -1, -1):
        if takers[at] and at not in trace.outputs and all(_undoes(trace, each, found) for each in takers[at]):
            found.add(at)
    return frozenset(found)


def _undoes(trace: Trace, at: int, undone: set[int]) -> bool:
    operation = trace.operations[at]
    if operation.kind == "norm":
        return True
    passes = operation.kind in (*WEIGHTED, "dropout", "pool") or operation.activation in RECTIFIERS
    return at in undone and passes and len(operation.inputs) == 1
