"""What every initializer is: a frozen description that can be called, explained, stored and compared."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from fanin import layout
from fanin._types import Array, Dtype, Shape, Window
from fanin.fans import Axes, AxesLike, Fans, as_axes, check_shape
from fanin.sampling import (
    Canvas,
    Distribution,
    TruncatedNormal,
    Uniform,
    canvas,
    draw,
    name_stream,
)


def snake(name: str) -> str:
    """``HeNormal`` -> ``he_normal``, ``ConvolutionOrthogonal1D`` -> ``convolution_orthogonal_1d``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "_", name).lower()


@dataclass(frozen=True)
class Description:
    """One initializer resolved for one shape: what will be drawn, in words and numbers.

    ``limit`` is the half-width of a uniform distribution, ``std_before`` the standard deviation before
    truncation where there is one; what does not apply is None.
    """

    initializer: str
    shape: tuple[int, ...]
    formula: str
    distribution: str
    mean: float | None = None
    std: float | None = None
    std_before: float | None = None
    limit: float | None = None
    fans: Fans | None = None
    reference: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """(label, text) pairs, for a table."""
        rows = [
            ("initializer", self.initializer),
            ("shape", str(self.shape)),
            ("formula", self.formula),
            ("distribution", self.distribution),
        ]
        if self.fans is not None:
            rows.append(("fans", f"fan_in {self.fans.fan_in}, fan_out {self.fans.fan_out}"))
        if self.mean is not None:
            rows.append(("mean", f"{self.mean:.6g}"))
        if self.limit is not None:
            rows.append(("limit", f"{self.limit:.6g}"))
        if self.std_before is not None:
            rows.append(("std before truncation", f"{self.std_before:.6g}"))
        if self.std is not None:
            after = " after truncation" if self.std_before is not None else ""
            rows.append((f"std{after}", f"{self.std:.6g}"))
        if self.reference:
            rows.append(("source", self.reference))
        return rows

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


class Initializer:
    """Base of all initializers: a frozen dataclass whose call fills a tensor.

    Subclasses say their ``formula`` and ``reference``, and either their ``law`` (what each element is drawn
    from) or how to ``_fill`` a canvas.
    """

    formula: ClassVar[str]
    reference: ClassVar[str] = ""
    coupled: ClassVar[bool] = False
    drawn: ClassVar[bool] = True  # False: the values are the same for every seed
    filed: ClassVar[bool] = False  # True: the values lie in a file, which need not be here
    uses_axes: ClassVar[bool] = True  # False: values belong to the stored shape as it is

    def __call__(
        self,
        shape: Shape,
        *,
        seed: int | None = None,
        name: str | None = None,
        axes: AxesLike = "io",
        dtype: Dtype | None = None,
        window: Window | None = None,
        out: Array | None = None,
    ) -> Array:
        """Make the tensor, or a window of it.

        Parameters
        ----------
        shape : sequence of int
            The full tensor's shape, as it is stored.
        seed : int
            0 .. 2**64 - 1; required for random draws.
        name : str, optional
            The parameter's name. Equal (seed, name) gives equal numbers; without a name the shape is used.
        axes : "io", "oi" or Axes
            Which axes are inputs and outputs: ``"io"`` is (..., in, out), ``"oi"`` is (out, in, ...).
        dtype : str or dtype, optional
            float32 by default, or the dtype of ``out``. Narrower floats are float32 rounded once.
        window : tuple of slices, optional
            Make only this rectangle of the full tensor.
        out : ndarray, optional
            Write here (any strides without overlap) instead of into a new C-ordered array.

        Returns
        -------
        ndarray
            ``out``, or a new array of the window's shape.

        Raises
        ------
        ShapeError, SeedError, DtypeError, OutError, ArgumentError
            Before anything is written.
        """
        roles = as_axes(axes)
        where = canvas(shape, dtype, window, out)
        roles.order(len(roles.atoms(where.shape)))
        if roles.plain or not self.uses_axes:
            self._fill(where, seed, name, roles)
        else:
            for part in layout.parts(where, roles, name):
                self._fill(part.where, seed, part.name, part.axes)
        return where.out

    def law(self, shape: tuple[int, ...], axes: Axes) -> Distribution:
        """What each element of a tensor is drawn from."""
        raise NotImplementedError(f"{type(self).__name__} is not drawn element by element")

    def _fill(self, where: Canvas, seed: int | None, name: str | None, axes: Axes) -> None:
        draw(self.law(where.shape, axes), where, name_stream(seed, name, where.shape), axes)

    def _formula(self) -> str:
        """The formula with this instance's own numbers, where that says more."""
        return self.formula

    def describe(self, shape: Shape, axes: AxesLike = "io") -> Description:
        """Explain what will be drawn for a shape: the resolved distribution, limit, stds, fans, formula.

        Examples
        --------
        >>> from fanin import GlorotUniform
        >>> print(GlorotUniform().describe((784, 256)))
        initializer   glorot_uniform()
        shape         (784, 256)
        formula       limit = sqrt(6 / (fan_in + fan_out))
        distribution  uniform on (-0.0759555, 0.0759555)
        fans          fan_in 784, fan_out 256
        mean          0
        limit         0.0759555
        std           0.0438529
        source        Glorot and Bengio 2010, equation 16
        """
        full, roles = check_shape(shape), as_axes(axes)
        member = layout.member_shape(roles, full)
        fans = roles.fans(full) if member else None
        return self._describe(member, layout.member_axes(roles, full), fans)

    def _describe(self, shape: tuple[int, ...], axes: Axes, fans: Fans | None) -> Description:
        law = self.law(shape, axes)
        return Description(
            initializer=str(self),
            shape=shape,
            formula=self._formula(),
            distribution=str(law),
            mean=law.mean,
            std=law.std,
            std_before=law.scale if isinstance(law, TruncatedNormal) else None,
            limit=(law.high - law.low) / 2 if isinstance(law, Uniform) else None,
            fans=fans,
            reference=self.reference,
        )

    @classmethod
    def name(cls) -> str:
        """The catalogue name, such as ``he_normal``."""
        return snake(cls.__name__)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `fanin.from_dict` turns back into an equal initializer.

        Examples
        --------
        >>> from fanin import RandomNormal
        >>> RandomNormal(stddev=0.5).to_dict()
        {'name': 'random_normal', 'mean': 0.0, 'stddev': 0.5}
        """
        data: dict[str, Any] = {"name": self.name()}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            data[field.name] = _plain(getattr(self, field.name))
        return data

    def sign(self) -> None:
        """Note what would tell that a file of values has changed, if that has been left for later."""

    def __str__(self) -> str:
        """The catalogue expression that makes this initializer."""
        parts = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            parts.append(f"{field.name}={_shown(value)}")
        return f"{self.name()}({', '.join(parts)})"

    def _set(self, **values: Any) -> Self:
        """Store validated field values on a frozen instance, from ``__post_init__`` only."""
        for name, value in values.items():
            object.__setattr__(self, name, value)
        return self


def _plain(value: Any) -> Any:
    """A field's value as plain data."""
    if isinstance(value, Initializer):
        return value.to_dict()
    if isinstance(value, tuple):
        return list(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def _shown(value: Any) -> str:
    """A field's value as in an expression."""
    if isinstance(value, Initializer):
        return str(value)
    return f"array{value.shape}" if isinstance(value, np.ndarray) else repr(value)
