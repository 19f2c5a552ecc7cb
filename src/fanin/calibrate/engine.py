"""What a method of calibration asks of a framework: run a model, show what passes, read and write weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from fanin._types import Array
from fanin.audit.trace import Trace
from fanin.model import Model


class Correction(NamedTuple):
    """What an output becomes before anything else sees it: ``scale * y + shift``, of all or of each unit."""

    scale: Array
    shift: Array


@dataclass(frozen=True)
class Seen:
    """What one operation puts out.

    Attributes
    ----------
    at : int
        Its index in the trace.
    values : ndarray
        Its output; of a gate, what goes into it at the first step.
    units : int
        The axis of features or channels.
    gate : str
        Of a recurrent operation, which is shown once for each gate before it runs.
    """

    at: int
    values: Array
    units: int
    gate: str = ""


Visit: TypeAlias = Callable[[Seen], Correction | None]


class Engine(Protocol):
    """One model and one batch, in some framework. The order of operations is that of execution."""

    @property
    def model(self) -> Model:
        """Its tensors, and the parameters in them."""

    def trace(self, *, gradients: bool = False) -> Trace:
        """What the batch does on its way through, and back."""

    def forward(self, visit: Visit) -> None:
        """Run the batch once more and show every output as it is made.

        What `visit` writes meanwhile is used from there on, and its correction is made to the output itself:
        so one run calibrates all layers. Of a gate nothing is to be corrected, as it has not run.
        """

    def read(self, path: str) -> Array:
        """A copy of a stored tensor, in its dtype."""

    def write(self, path: str, values: Array) -> None:
        """Set a stored tensor."""
