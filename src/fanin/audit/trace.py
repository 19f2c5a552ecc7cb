"""What one batch did on its way through a model, and what its weights are: numbers alone, no arrays.

Adapters make a `Trace`; checks and pages read it. It needs no framework, does not change, and is JSON.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

from fanin.errors import FaninError, TraceError
from fanin.fans import Axes
from fanin.model import ROLES

SCHEMA = "fanin.trace/1"

KINDS = {
    "dense": "a product with a kernel",
    "conv": "a convolution",
    "embedding": "rows of a table",
    "recurrent": "a recurrent layer, all its steps",
    "attention": "attention, where it is one operation: softmax of scores, times values",
    "norm": "normalization, by moments of the batch or of each example",
    "activation": "a function of each element",
    "softmax": "softmax along an axis",
    "add": "a sum of signals, or of a signal and a parameter",
    "multiply": "a product of signals, or of a signal and a parameter",
    "matmul": "a matrix product of two signals",
    "pool": "a mean or maximum over positions",
    "dropout": "dropout",
    "concat": "signals side by side",
    "other": "anything else",
}


@dataclass(frozen=True)
class Spread:
    """Moments and magnitudes of some values; those that are not finite are counted and left out.

    Attributes
    ----------
    n : int
        How many.
    mean, std, rms, largest : float
        Mean, standard deviation, root mean square, largest magnitude.
    zeros : float
        Share that is exactly zero.
    broken : int
        How many are nan or infinite.
    magnitudes : dict of int to int
        A histogram: how many lie in ``2**k <= abs(v) < 2**(k + 1)``, of a sample.
    """

    n: int
    mean: float
    std: float
    rms: float
    largest: float
    zeros: float
    broken: int
    magnitudes: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal(Spread):
    """What passed one place, for a batch of examples.

    A row is what one example (of a sequence: one position) has there; a unit is one feature or channel.

    Attributes
    ----------
    shape : tuple of int
        Of the array.
    units : int
        How many there are.
    dead, constant : float
        Share of units that are zero everywhere; that have one value everywhere.
    offset : float
        Root mean square of the units' means.
    cosine : float or None
        Mean cosine between two rows, of a sample; None for fewer than two.
    rank : float or None
        Effective number of directions of these rows, ``(sum l)**2 / sum l**2`` with l the eigenvalues of
        their Gram matrix: 1 when all point one way.
    rows : int
        Size of that sample.
    """

    shape: tuple[int, ...] = ()
    units: int = 0
    dead: float = 0.0
    constant: float = 0.0
    offset: float = 0.0
    cosine: float | None = None
    rank: float | None = None
    rows: int = 0


@dataclass(frozen=True)
class Operation:
    """One step of the forward pass.

    Attributes
    ----------
    name : str
        The canonical path of its module; of a function inside one, the module's path, ``:`` and the
        function's name (``"blocks.0:add"``). Each call has its own operation: the second of one name ends in
        ``#2``.
    kind : str
        A key of `KINDS`.
    layer : str
        What the framework calls it, such as ``"Linear"``.
    inputs : tuple of int
        The operations whose outputs it takes; -1 is the batch. Only signals count: what depends on the
        batch's floating point values or on parameters, not masks and tables made of integers.
    after : Signal
        Its output.
    before : Signal or None
        Its input, where that is the output of no operation.
    parameters : tuple of str
        Canonical names of the parameters it uses.
    activation : str or None
        Of kind ``"activation"``, which one: a name that `fanin.gain` knows, or the framework's.
    saturated, linear : float or None
        Of an activation or softmax: the share of values where its slope is below a twentieth of its largest;
        the share of units that never leave its straight part.
    backward : Spread or None
        The gradient of its output when the model's output has a standard normal one.
    loss_gradient : Spread or None
        The gradient of its output by the loss.
    gates : dict of str to Signal
        Of a recurrent layer: what goes into each gate's sigmoid or tanh at the first step.
    """

    name: str
    kind: str
    layer: str
    inputs: tuple[int, ...]
    after: Signal
    before: Signal | None = None
    parameters: tuple[str, ...] = ()
    activation: str | None = None
    saturated: float | None = None
    linear: float | None = None
    backward: Spread | None = None
    loss_gradient: Spread | None = None
    gates: dict[str, Signal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TraceError(f"{self.name!r}: no kind {self.kind!r}; expected one of {', '.join(KINDS)}")

    @property
    def module(self) -> str:
        """The path of the module it is in."""
        return self.name.partition(":")[0].partition("#")[0]


@dataclass(frozen=True)
class Weights:
    """One parameter: what it is for, and what its values look like.

    Attributes
    ----------
    name, path, role, layer, shape, dtype, activation, block
        As in `fanin.plan.Row`.
    fan_in, fan_out : float or None
        Where its layer has some.
    axes : Axes or None
        What its axes are; None where nobody knows.
    values : Spread
    positive : float
        Share above zero.
    kurtosis : float
        ``E (v - mean)**4 / std**4``: 3 of a normal law, 1.8 of a uniform one; 0 of a constant.
    bits : int
        The most bits any significand needs: 24 of float32 values, 8 of ones that were bfloat16.
    units, distinct : int
        Output units (entries, of a table), and how many different values these have.
    tied : int or None
        How many units repeat another: same values *and* same gradients, now and after a step, so that they
        stay the same. Of 64 constant units 63 do. None where no gradient was measured.
    orthogonal : float or None
        How far the rows (or columns, if they are fewer) are from orthogonal and of equal length, of a
        sample: ``max |G - c I| / c`` with G their Gram matrix. None for fewer than two, or for zeros.
    digest : str
        BLAKE2b-128 of its values in canonical order: equal tensors have equal ones.
    gradient : Spread or None
        By the loss; without one, by the model's output with a standard normal gradient.
    update : float or None
        Root mean square of the optimizer's first step, as a share of that of the values.
    broken : tuple of int
        The first few units that hold a value that is not finite.
    """

    name: str
    path: str
    role: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    values: Spread
    positive: float
    kurtosis: float
    bits: int
    units: int
    distinct: int
    digest: str
    fan_in: float | None = None
    fan_out: float | None = None
    activation: str | None = None
    block: int | None = None
    tied: int | None = None
    orthogonal: float | None = None
    gradient: Spread | None = None
    update: float | None = None
    axes: Axes | None = None
    broken: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise TraceError(f"{self.name!r}: no role {self.role!r}; expected one of {', '.join(ROLES)}")

    @property
    def effective_width(self) -> int:
        """How many units differ: in values and gradients, or in values where no gradient was measured."""
        return self.distinct if self.tied is None else self.units - self.tied

    @property
    def weight_variance(self) -> float | None:
        """The second moment of the values times fan_in: mean-field theory's ``sigma_w**2``."""
        return None if self.fan_in is None else self.fan_in * self.values.rms**2


@dataclass(frozen=True)
class Trace:
    """A model at its start, in numbers.

    Attributes
    ----------
    framework : str
        ``"torch"``, ``"keras"``, ``"jax"``, or ``""`` for weights alone.
    weights : tuple of Weights
        In the order in which the model has them.
    operations : tuple of Operation
        In the order of execution; none when no batch was given.
    batch : tuple of Signal
        The floating point arrays of the batch.
    outputs : tuple of int
        The operations that made the model's outputs.
    loss, blind_loss : float or None
        The loss, and what it is when all outputs are zero (``ln K`` for a blind guess among K classes).
    singular_values : tuple of float
        Of the Jacobian of the output by the input for one example, when asked for; largest first.
    optimizer : str
        What the first step was measured for, such as ``"adam 0.001"``.
    """

    framework: str
    weights: tuple[Weights, ...]
    operations: tuple[Operation, ...] = ()
    batch: tuple[Signal, ...] = ()
    outputs: tuple[int, ...] = ()
    loss: float | None = None
    blind_loss: float | None = None
    singular_values: tuple[float, ...] = ()
    optimizer: str = ""
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        for at, operation in enumerate(self.operations):
            if not all(-1 <= source < at for source in operation.inputs):
                raise TraceError(
                    f"{operation.name!r}: its inputs {operation.inputs} are not before it ({at})"
                )
        if not all(0 <= at < len(self.operations) for at in self.outputs):
            raise TraceError(f"outputs {self.outputs} are none of {len(self.operations)} operations")

    def __getitem__(self, name: str) -> Weights:
        """The parameter of a canonical name."""
        if name not in self._weights:
            raise TraceError(f"no parameter {name!r} in the trace")
        return self._weights[name]

    @cached_property
    def _weights(self) -> Mapping[str, Weights]:
        return {weights.name: weights for weights in self.weights}

    @cached_property
    def trunks(self) -> tuple[tuple[int, ...], ...]:
        """For each place where a signal begins, the operations that all its paths to the output pass.

        A chain is one trunk; of a residual network the sums are, and what lies between two skips; a branch
        that may fade without harm is none. Longest first; a trunk inside another is left out.
        """
        found = [tuple(self._trunk(start)) for start in self._starts()]
        found = sorted(dict.fromkeys(trunk for trunk in found if trunk), key=len, reverse=True)
        return tuple(
            trunk
            for at, trunk in enumerate(found)
            if not any(set(trunk) <= set(longer) for longer in found[:at])
        )

    def _starts(self) -> Iterator[int]:
        """The batch, and operations that take no signal: tables, constants that are learned."""
        yield -1
        for at, operation in enumerate(self.operations):
            if not operation.inputs:
                yield at

    def _trunk(self, start: int) -> Iterator[int]:
        if not self.outputs:
            return
        end = max(self.outputs)
        below = {start}  # what the start reaches
        for at, operation in enumerate(self.operations[: end + 1]):
            if below & set(operation.inputs):
                below.add(at)
        above = {at for at in self.outputs if at in below}  # and what reaches an output
        for at in range(end, -1, -1):
            if at in above:
                above.update(below & set(self.operations[at].inputs))
        # A place that no edge passes over is passed by every path. Outputs all lead to one common end.
        last: dict[int, int] = {}
        for at in sorted(above - {-1}):
            for source in below & set(self.operations[at].inputs):
                last[source] = at
        beyond = end + 1
        for at in self.outputs:
            last[at] = beyond
        reach = last.get(start, -1) if start == -1 else start
        for at in sorted(above - {-1}):
            if reach <= at:
                yield at
            reach = max(reach, last.get(at, at))

    def to_json(self) -> str:
        """JSON that `from_json` reads; nan and infinities are strings, which JSON has no numbers for."""
        return json.dumps(plain(asdict(self)), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "trace") -> Self:
        """The trace that `to_json` wrote; an error names ``where`` and the key."""
        import msgspec

        try:
            data = json.loads(text)
            if isinstance(data, dict) and data.get("schema", SCHEMA) != SCHEMA:
                raise TraceError(f"its schema is {data['schema']!r}, this is {SCHEMA!r}")
            return msgspec.convert(data, cls, strict=False, str_keys=True)
        except (ValueError, RecursionError, msgspec.ValidationError, FaninError) as error:
            raise TraceError(f"{where}: {error}") from error


def plain(value: Any) -> Any:
    """Data as JSON can hold it: what is not finite becomes ``"nan"``, ``"inf"`` or ``"-inf"``.

    >>> plain({"a": (1.5, float("inf"))})
    {'a': [1.5, 'inf']}
    """
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
