"""Tables of sines and cosines: positions that are not learned."""

from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np

from fanin._kernel._reference import cos_sin_64
from fanin._types import Array
from fanin.dtypes import held
from fanin.errors import ArgumentError, ShapeError
from fanin.fans import Axes, Fans
from fanin.initializers._base import Description, Initializer
from fanin.normal import pi
from fanin.sampling import Canvas, finite

PART = 1 << 14  # elements computed together: their float64 steps stay in cache


@dataclass(frozen=True)
class Sinusoidal(Initializer):
    r"""The sines and cosines of positions, at wavelengths in geometric progression.

    .. math:: w_{p, 2i} = \sin(p\,\omega_i), \quad w_{p, 2i + 1} = \cos(p\,\omega_i), \quad
              \omega_i = \mathrm{period}^{-2i / d}

    of a table (positions, d). Phases are exact: whole turns are dropped in integers, so a late position is as
    accurate as the first.

    Parameters
    ----------
    period : float
        Of the slowest wave, over 2 pi, > 1.
    halves : bool
        Sines in the first half of each entry and cosines in the second, instead of by turns.
    closed : bool
        Let the slowest wave have the period itself, ``omega_i = period ** (-i / (d / 2 - 1))``, as
        tensor2tensor and Whisper do, instead of being one step short of it.

    Raises
    ------
    ArgumentError
        When ``period`` is not a number > 1, or an option is no bool.
    ShapeError
        When the tensor does not have 2 axes, or an odd (or, if ``closed``, fewer than 4) features.

    References
    ----------
    Vaswani et al. 2017, Attention is all you need, arXiv:1706.03762, section 3.5.

    Examples
    --------
    >>> Sinusoidal()((2, 4)).round(4).tolist() == np.float32([[0, 1, 0, 1], [.8415, .5403, .01, 1]]).tolist()
    True
    """

    drawn = False

    period: float = 10000.0
    halves: bool = False
    closed: bool = False
    uses_axes = False
    formula = "w[p, 2i] = sin(p w_i), w[p, 2i + 1] = cos(p w_i), w_i = period ** (-2i / d)"
    reference = "Vaswani et al. 2017, arXiv:1706.03762, section 3.5"

    def __post_init__(self) -> None:
        period = finite("period", self.period)
        if period <= 1:
            raise ArgumentError(f"`period` must be > 1, got {self.period!r}")
        for what in ("halves", "closed"):
            if not isinstance(getattr(self, what), bool):
                raise ArgumentError(f"`{what}` must be True or False, got {getattr(self, what)!r}")
        self._set(period=period)

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        self._check(where.shape)
        rows, columns = where.window
        half = where.shape[1] // 2
        features = np.arange(columns.start, columns.stop)
        wave, cosine = (
            (features % half, features >= half) if self.halves else (features // 2, features % 2 == 1)
        )
        waves, place = np.unique(wave, return_inverse=True)
        turns = np.array([self._turns(int(each), half) for each in waves], dtype=np.uint64)
        step = max(1, PART // max(1, len(turns)))
        for start in range(rows.start, rows.stop, step):
            positions = np.arange(start, min(start + step, rows.stop), dtype=np.uint64)
            values = _waves(np.multiply.outer(positions, turns), place, cosine)
            part = where.out[start - rows.start : start - rows.start + step]
            wide = part.dtype == np.float64
            part[...] = held(values if wide else values.astype(np.float32), part.dtype, "a sine")

    def _turns(self, wave: int, half: int) -> int:
        """A wave's turns per position, in steps of 2**-64 turns."""
        with localcontext() as context:
            context.prec = 50
            exponent = Decimal(wave) / (half - 1 if self.closed else half)
            omega = (-exponent * Decimal(self.period).ln()).exp()
            return round(omega / (2 * pi()) * 2**64)

    def _check(self, shape: tuple[int, ...]) -> None:
        least = 4 if self.closed else 2
        if len(shape) != 2 or shape[1] % 2 or shape[1] < least:
            raise ShapeError(
                f"sinusoidal needs `shape` (positions, features) with an even number of features >= {least}, "
                f"got {shape}"
            )

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        self._check(shape)
        text = f"sines and cosines of positions 0 .. {shape[0] - 1}"
        return Description(str(self), shape, self.formula, text, fans=fans, reference=self.reference)


def _waves(phase: Array, place: Array, cosine: Array) -> Array:
    """Columns of the sines or cosines of phases in steps of 2**-64 turns: whole turns have overflowed."""
    cos, sin = cos_sin_64(phase)
    sin[phase == 0] = 0.0  # which takes the middle of a step
    values: Array = np.where(cosine, cos[:, place], sin[:, place])
    return values
