"""Which activation follows a parameter, where the run shows it and the model's parts do not say."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fanin.audit.trace import Operation, Weights

KERNELS = ("dense", "conv")
BETWEEN = ("norm", "dropout")


def followed(operations: Sequence[Operation], weights: Iterable[Weights]) -> tuple[Weights, ...]:
    """The weights, each with the activation that follows its operation: at once, or after a normalization.

    Parameters
    ----------
    operations : sequence of Operation
    weights : iterable of Weights
        Those that know their activation keep it.
    """
    after: dict[int, list[int]] = {}
    for at, operation in enumerate(operations):
        for source in operation.inputs:
            after.setdefault(source, []).append(at)

    def activation(at: int) -> str | None:
        if len(after.get(at, ())) != 1:
            return None
        operation = operations[after[at][0]]
        return activation(after[at][0]) if operation.kind in BETWEEN else operation.activation

    known = {
        name: activation(at)
        for at, operation in enumerate(operations)
        if operation.kind in KERNELS
        for name in operation.parameters
    }
    return tuple(
        each if each.activation else replace(each, activation=known.get(each.name)) for each in weights
    )
