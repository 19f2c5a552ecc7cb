"""Do features keep their size as a network gets wider? The coordinate check, with a verdict.

Hyperparameters that were tuned at one width fit another only where each layer's output keeps its size while
it is trained: flat lines of size against width, on log-log axes.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fanin._columns import aligned
from fanin.errors import ArgumentError

FLAT = 0.1  # the largest slope of a network whose features keep their size
STEEP = 0.5  # the least of one where they do not: theory has 1 for the standard parametrization

Measure = Callable[[int, int], Mapping[str, float]]


@dataclass(frozen=True)
class Coordinate:
    """One layer: {width: size of its output}, and the slope of the line through them, both in log2."""

    layer: str
    sizes: dict[int, float]
    slope: float


@dataclass(frozen=True)
class CoordinateCheck:
    """Sizes of layers' outputs by width, after some steps of training.

    Attributes
    ----------
    layers : tuple of Coordinate
        In the order of execution.
    """

    layers: tuple[Coordinate, ...]

    @property
    def worst(self) -> Coordinate:
        """The layer whose size depends most on width."""
        return max(self.layers, key=lambda each: abs(each.slope))

    @property
    def verdict(self) -> str:
        """``"flat"``, ``"grows"``, ``"shrinks"``, or ``"unclear"``: by `worst`, at slopes of 0.1 and 0.5."""
        slope = self.worst.slope
        if abs(slope) <= FLAT:
            return "flat"
        if abs(slope) < STEEP:
            return "unclear"
        return "grows" if slope > 0 else "shrinks"

    @property
    def ok(self) -> bool:
        """Whether every layer keeps its size."""
        return self.verdict == "flat"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"verdict": self.verdict, **asdict(self)}

    def __str__(self) -> str:
        rows = [("layer", *map(str, self.layers[0].sizes), "slope")]
        for each in self.layers:
            rows.append((each.layer, *(f"{size:.4g}" for size in each.sizes.values()), f"{each.slope:+.2f}"))
        return "\n".join([*aligned(rows), f"{self.verdict}: {SENTENCES[self.verdict]}"])


SENTENCES = {
    "flat": "every layer keeps its size; what was tuned at one width fits the others",
    "grows": "outputs grow with the width; a learning rate that fits one width is too large for a wider one",
    "shrinks": "outputs shrink with the width; wider networks learn less in each step",
    "unclear": "outputs change with the width, but little; more widths, steps or seeds tell",
}


def coordinate_check(measure: Measure, widths: Sequence[int], *, seeds: int = 1) -> CoordinateCheck:
    r"""The coordinate check of whatever can be measured at several widths.

    .. math:: \log_2 \mathrm{size}_l(n) = \mathrm{slope}_l \cdot \log_2 n + c_l

    fitted for each layer by least squares.

    Parameters
    ----------
    measure : callable
        From a width and a seed to {layer: root mean square of its output} after a few steps of training, on
        the same batch at every width. `fanin.torch.coordinate_check` makes one.
    widths : sequence of int
        Two or more.
    seeds : int
        Sizes are means over seeds 0 to ``seeds - 1``.

    Raises
    ------
    ArgumentError
        When there are fewer than two widths, layers differ between widths, or a size is not finite and > 0.

    References
    ----------
    Yang et al. 2022, Tensor Programs V, arXiv:2203.03466, appendix D.1; microsoft/mup, coord_check.

    Examples
    --------
    >>> print(coordinate_check(lambda width, seed: {"first": 1.0, "head": width / 64}, [64, 128, 256]))
    layer  64  128  256  slope
    first   1    1    1  +0.00
    head    1    2    4  +1.00
    grows: outputs grow with the width; a learning rate that fits one width is too large for a wider one
    """
    if len(set(widths)) < 2 or not all(isinstance(width, int) and width > 0 for width in widths):
        raise ArgumentError(f"`widths` must be two or more different integers > 0, got {widths!r}")
    if not isinstance(seeds, int) or seeds < 1:
        raise ArgumentError(f"`seeds` must be an integer >= 1, got {seeds!r}")
    runs = {width: [measure(width, seed) for seed in range(seeds)] for width in sorted(set(widths))}
    layers = list(next(iter(runs.values()))[0])
    for width, several in runs.items():
        for sizes in several:
            if not layers or list(sizes) != layers:
                raise ArgumentError(f"at width {width} layers are {list(sizes)}, before they were {layers}")
            for layer, size in sizes.items():
                if not 0 < size < math.inf:
                    raise ArgumentError(
                        f"at width {width} {layer!r} has size {size}; > 0 is needed for a slope"
                    )
    found = []
    for layer in layers:
        means = {width: statistics.mean(sizes[layer] for sizes in several) for width, several in runs.items()}
        found.append(Coordinate(layer, means, _slope(means)))
    return CoordinateCheck(tuple(found))


def _slope(sizes: Mapping[int, float]) -> float:
    x, y = ([math.log2(value) for value in values] for values in (sizes.keys(), sizes.values()))
    return statistics.linear_regression(x, y).slope
