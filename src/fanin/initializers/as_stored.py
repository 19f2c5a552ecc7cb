"""Fans as frameworks count them, for laws that are to be exactly theirs."""

from dataclasses import dataclass, replace

from fanin.errors import ArgumentError
from fanin.fans import Axes, Fans
from fanin.initializers._base import Initializer
from fanin.initializers._nested import InitializerLike, Nested
from fanin.initializers.structured import check_count
from fanin.sampling import Distribution


@dataclass(frozen=True)
class AsStored(Nested):
    r"""Another initializer, with the fans that a framework reads off the stored tensor.

    .. math:: \mathrm{fan\_in}' = \mathrm{stride} \cdot \mathrm{fan\_in}, \qquad
              \mathrm{fan\_out}' = \mathrm{packed} \cdot \mathrm{groups} \cdot \mathrm{fan\_out}

    The stride of a transposed convolution and the groups of a grouped one do not show in its kernel's shape,
    and several parameters packed along the outputs count as one. The channels of a depthwise kernel (axes
    with two outputs and no input) count as its inputs, as in Keras. Fans that are `known` are only packed.

    Parameters
    ----------
    inner : Initializer, str or dict
        Whose law is meant: one that is drawn element by element.
    packed : int
        How many parameters of this shape are stored side by side: 4 for the gates of an LSTM.

    Raises
    ------
    ArgumentError
        For an initializer that is not drawn element by element, such as orthogonal.

    Examples
    --------
    >>> round(AsStored("glorot_uniform", packed=4).describe((100, 50)).limit ** 2, 6)  # 6 / (100 + 4 * 50)
    0.02
    """

    inner: InitializerLike
    packed: int = 1
    formula = "inner, with fan_in * stride and fan_out * groups * packed"

    def __post_init__(self) -> None:
        self._adopt(packed=check_count("packed", self.packed))
        if type(self._within).law is Initializer.law:
            raise ArgumentError(f"`inner` must be drawn element by element, got {self.inner}")
        self._set(reference=self._within.reference)

    def law(self, shape: tuple[int, ...], axes: Axes) -> Distribution:
        return self._within.law(shape, replace(axes, known=self._counted(shape, axes)))

    def _counted(self, shape: tuple[int, ...], axes: Axes) -> Fans:
        fans = replace(axes, stride=1, groups=1).fans(shape)
        if len(axes.out) == 2 and not axes.in_ and axes.known is None:
            channels = shape[axes.out[0]]
            fans = Fans(fans.fan_in * channels, fans.fan_out / max(1, channels))
        return Fans(fans.fan_in, self.packed * fans.fan_out)
