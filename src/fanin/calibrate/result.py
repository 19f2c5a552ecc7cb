"""What a calibration did: each layer's scale before and after, the plan that repeats it, and the way back."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fanin._columns import aligned
from fanin._types import Array
from fanin.plan import Plan


@dataclass(frozen=True)
class Scale:
    """One layer.

    Attributes
    ----------
    layer : str
        The operation's name in the trace.
    before, after : float
        What was measured: see `Calibration.measure`.
    target : float
        What `after` was to be.
    parameters : tuple of str
        What was changed.
    why : str
        Where a method chooses for each layer: what it chose, and for what.
    """

    layer: str
    before: float
    after: float
    target: float
    parameters: tuple[str, ...]
    why: str = ""


@dataclass(frozen=True)
class Calibration:
    """What a calibration did.

    Attributes
    ----------
    method : str
    measure : str
        What the scales are, in words.
    scales : tuple of Scale
        Layers in the order of execution.
    left_out : dict of str to str
        Layers that were not touched, and why.
    factors : dict of str to ndarray
        {parameter: what its values were multiplied by}, a number or one for each output unit.
    constants : dict of str to ndarray
        {bias: its values}, where a method sets them.
    replaced : tuple of str
        Kernels whose directions a method took from the batch: no draw times factors makes them.
    plan : Plan or None
        The base plan with these factors: it makes the calibrated values bit for bit, anywhere. None where no
        plan of the base values was given, and where any are `replaced`: then save the weights.
    model : object
        What was calibrated: the model itself, or, where parameters do not change in place, the new ones.
    """

    method: str
    measure: str
    scales: tuple[Scale, ...]
    left_out: Mapping[str, str]
    factors: Mapping[str, Array]
    constants: Mapping[str, Array]
    replaced: tuple[str, ...]
    plan: Plan | None
    _undo: Callable[[], Any] = field(repr=False, compare=False)
    model: Any = field(default=None, repr=False, compare=False)

    @property
    def before(self) -> dict[str, float]:
        """{layer: its scale before}."""
        return {each.layer: each.before for each in self.scales}

    @property
    def after(self) -> dict[str, float]:
        """{layer: its scale after}."""
        return {each.layer: each.after for each in self.scales}

    def undo(self) -> None:
        """Give the model its old values back, bit for bit; the result holds a copy of what was changed."""
        self._undo()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: all but the plan and the way back."""
        return {
            "method": self.method,
            "measure": self.measure,
            "scales": [asdict(scale) for scale in self.scales],
            "left_out": dict(self.left_out),
            "factors": {name: factor.tolist() for name, factor in self.factors.items()},
            "constants": {name: values.tolist() for name, values in self.constants.items()},
            "replaced": list(self.replaced),
        }

    def __str__(self) -> str:
        rows = [("layer", "before", "after", "target")]
        for each in self.scales:
            rows.append((each.layer, f"{each.before:.4g}", f"{each.after:.4g}", f"{each.target:.4g}"))
        whys = ["", *(f"  {each.why}".rstrip() for each in self.scales)]
        lines = [line + why for line, why in zip(aligned(rows), whys, strict=True)]
        left = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        if self.replaced:
            left.append(f"no plan makes these, save the weights: {', '.join(self.replaced)}")
        return "\n".join([f"{self.method}: {self.measure}", *lines, *left])
