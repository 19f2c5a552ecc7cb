"""Initializers with a structure and no randomness: Dirac, Bilinear, HadamardIdentity."""

import math
from dataclasses import dataclass

import numpy as np

from fanin._types import Array
from fanin.errors import ArgumentError
from fanin.fans import Axes, Fans
from fanin.initializers._base import Description, Initializer
from fanin.initializers._canonical import Kernel, nowhere
from fanin.sampling import Canvas


def check_count(what: str, value: object) -> int:
    """A whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ArgumentError(f"`{what}` must be an integer >= 1, got {value!r}")
    return int(value)


@dataclass(frozen=True)
class _Structured(Initializer):
    """Values are a function of the position alone."""

    drawn = False

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        kernel = self._kernel(where, axes)
        kernel.write(self._values(kernel), str(self))

    def _kernel(self, where: Canvas, axes: Axes) -> Kernel:
        return Kernel.of(where, axes, self.name())

    def _values(self, kernel: Kernel) -> Array:
        """Rows x columns x taps of the window."""
        raise NotImplementedError

    def _text(self) -> str:
        raise NotImplementedError

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        self._kernel(nowhere(shape), axes)  # checks the shape
        return Description(str(self), shape, self.formula, self._text(), fans=fans, reference=self.reference)


@dataclass(frozen=True)
class Dirac(_Structured):
    r"""A convolution that copies its input: ones at the central tap of matching channels.

    .. math:: w_{o,i,x} = [\,o \bmod m = i\,]\,[x = \lfloor k / 2 \rfloor], \quad
              m = \mathrm{outputs} / \mathrm{groups}

    Channels without a partner (more inputs than outputs of a group, or more outputs than inputs) stay zero.
    The central tap of an even size k is PyTorch's, k // 2, which copies exactly under padding k // 2; under
    "same" padding the aligned tap is (k - 1) // 2, that of `DeltaOrthogonal`.

    Parameters
    ----------
    groups : int
        Groups of the convolution, each of which copies its inputs; those of ``axes`` where they have some.

    Raises
    ------
    ShapeError
        When the tensor has fewer than 2 axes, or the groups do not divide its outputs.

    References
    ----------
    Zagoruyko and Komodakis 2017, DiracNets, arXiv:1706.00388, section 3.1.

    Examples
    --------
    >>> Dirac()((2, 1, 3), axes="oi").tolist()
    [[[0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]]
    >>> Dirac(groups=2)((2, 1, 3), axes="oi").tolist()
    [[[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]]
    """

    groups: int = 1
    formula = "w[o, i, x] = 1 if o = i in its group and x is the centre, else 0"
    reference = "Zagoruyko and Komodakis 2017, arXiv:1706.00388, section 3.1"

    def __post_init__(self) -> None:
        self._set(groups=check_count("groups", self.groups))

    def _kernel(self, where: Canvas, axes: Axes) -> Kernel:
        return Kernel.of(where, axes, self.name(), groups=self.groups)

    def _values(self, kernel: Kernel) -> Array:
        return kernel.at_tap(_partners(kernel), tuple(size // 2 for size in kernel.field))

    def _text(self) -> str:
        return "1 at the central tap of matching channels, 0 elsewhere"


def _partners(kernel: Kernel) -> Array:
    """1 where an output is its group's output of an input's number."""
    outputs = kernel.rows % max(1, kernel.outputs_of_group)
    partners: Array = np.equal.outer(outputs, kernel.columns).astype(np.int64)
    return partners


@dataclass(frozen=True)
class Bilinear(_Structured):
    r"""Upsampling by linear interpolation, channel by channel: for a transposed convolution of stride f.

    .. math:: w_{o,i,x} = [\,o \bmod m = i\,] \prod_d \left(1 - \frac{|x_d - c_d|}{f_d}\right), \quad
              c = \frac{k - 1}{2},\; f = \lceil k / 2 \rceil

    Sizes k = 2 f and 2 f - 1 with stride f reproduce constants and ramps exactly. Any number of spatial axes:
    linear, bilinear, trilinear. The rule ``c = (2f - 1 - f % 2) / 2`` of Caffe and of those who took it over
    is off the centre when k = 2f - 1 with an even f, such as k = 3; this one is not.

    Parameters
    ----------
    groups : int
        Groups of the convolution (as many as channels for a depthwise one); those of ``axes`` where they
        have some.

    Raises
    ------
    ShapeError
        When the tensor has no receptive field, or the groups do not divide its outputs.

    References
    ----------
    Long, Shelhamer, Darrell 2015, Fully convolutional networks, arXiv:1411.4038, section 3.3.

    Examples
    --------
    >>> Bilinear()((3, 1, 1)).ravel().tolist()
    [0.5, 1.0, 0.5]
    >>> Bilinear()((4, 1, 1)).ravel().tolist()
    [0.25, 0.75, 0.75, 0.25]
    """

    groups: int = 1
    formula = "w[o, i, x] = prod(1 - |x - (k - 1) / 2| / ceil(k / 2)) if o = i in its group, else 0"
    reference = "Long et al. 2015, arXiv:1411.4038, section 3.3"

    def __post_init__(self) -> None:
        self._set(groups=check_count("groups", self.groups))

    def _kernel(self, where: Canvas, axes: Axes) -> Kernel:
        return Kernel.of(where, axes, self.name(), rank=3, groups=self.groups)

    def _values(self, kernel: Kernel) -> Array:
        steps, whole = _partners(kernel), 1
        for size, taps in zip(kernel.field, kernel.taps, strict=True):
            twice_reach = 2 * (-(-size // 2))
            away = np.abs(2 * np.arange(taps.start, taps.stop) - (size - 1))  # twice the distance
            steps = np.multiply.outer(steps, twice_reach - away)
            whole *= twice_reach
        return steps / max(1, whole)  # a quotient of integers: rounded once

    def _text(self) -> str:
        return "the interpolation kernel between matching channels, 0 elsewhere"


@dataclass(frozen=True)
class HadamardIdentity(_Structured):
    r"""ZerO: the identity where outputs do not outnumber inputs, else a slice of the Hadamard transform.

    .. math:: W = I_{m \times n} \;(m \le n), \qquad
              W = I_{m \times P}\, \frac{H_P}{\sqrt P}\, I_{P \times n} \;(m > n), \quad
              P = 2^{\lceil \log_2 m \rceil}

    with m outputs, n inputs, and ``H_P[i, j] = (-1)^popcount(i & j)``. Nothing is drawn, and yet a widening
    layer breaks the symmetry that a padded identity would keep (the rank of W - I). Columns are orthonormal
    when m is a power of two. A convolution has the matrix at its central tap k // 2, each group its own.
    The factor is that of the authors' code, 1 / sqrt(P).

    Raises
    ------
    ShapeError
        When the tensor has fewer than 2 axes.

    References
    ----------
    Zhao, Schäfer, Anandkumar 2022, ZerO initialization, arXiv:2110.12661, algorithms 1 and 2.

    Examples
    --------
    >>> HadamardIdentity()((2, 4), axes="oi").tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    >>> HadamardIdentity()((4, 2), axes="oi").tolist()
    [[0.5, 0.5], [0.5, -0.5], [0.5, 0.5], [0.5, -0.5]]
    """

    formula = "W = I (outputs <= inputs), I H_P I / sqrt(P) with P = 2^ceil(log2 outputs) otherwise"
    reference = "Zhao et al. 2022, arXiv:2110.12661, algorithms 1 and 2"

    def _values(self, kernel: Kernel) -> Array:
        outputs = kernel.outputs_of_group
        if outputs <= kernel.inputs:
            matrix = _partners(kernel)
        else:
            rows = kernel.rows % outputs
            odd = np.bitwise_count(np.bitwise_and.outer(rows, kernel.columns)) & 1
            size = 1 << (outputs - 1).bit_length()
            matrix = np.where(odd, -1.0, 1.0) * math.sqrt(1.0 / size)
        return kernel.at_tap(matrix, tuple(size // 2 for size in kernel.field))

    def _text(self) -> str:
        return "a partial identity, or Hadamard signs over the square root of their number"
