"""Parameters while a model is calibrated: what each is multiplied by, and how all of it is undone."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from fanin import layout
from fanin._types import Array
from fanin.calibrate.engine import Engine
from fanin.errors import CalibrationError
from fanin.fans import Axes
from fanin.initializers import Constant, Initializer, Scaled, ScaledUnits
from fanin.model import Piece, Tensor
from fanin.plan import Plan, Row
from fanin.sampling import Canvas


class Store:
    """Factors and constants of parameters, by canonical name; each change is made to the base values at once.

    So a parameter that is scaled twice is rounded once, and a plan of the base values tells the rest.
    """

    def __init__(self, engine: Engine) -> None:
        self.factors: dict[str, Array] = {}  # of shape (), or (units,)
        self.constants: dict[str, Array] = {}  # in canonical order
        self.replaced: tuple[str, ...] = ()
        self._engine = engine
        self._base: dict[str, Array] = {}
        self._new: dict[str, Array] = {}  # what factors multiply where values were replaced

    # --- changing --------------------------------------------------------------------------------

    def scale(self, names: tuple[str, ...], factor: Array) -> None:
        """Multiply parameters: by a number, or each unit of them all, side by side, by its own."""
        factor = np.asarray(factor, np.float64)
        if not np.isfinite(factor).all():
            raise CalibrationError(f"{names[0]!r} would be multiplied by {factor}")
        start = 0
        for name in names:
            mine = factor if factor.ndim == 0 else factor[start : (start := start + self.units(name))]
            self.factors[name] = np.multiply(self.factors.get(name, 1.0), mine)
        self._make(names)

    def set(self, names: tuple[str, ...], values: Array) -> None:
        """Set biases, side by side."""
        start = 0
        for name in names:
            self.constants[name] = values[start : (start := start + self.units(name))]
        self._make(names)

    def replace(self, names: tuple[str, ...], rows: Array) -> None:
        """Give kernels, side by side, other values; factors begin anew, and no plan makes these values."""
        start = 0
        for name in names:
            path, units = self._paths[name], self.units(name)
            base = self._base.setdefault(path, self._engine.read(path))
            self._new.setdefault(path, np.array(base, order="C"))
            view = next(each for key, each in _rows(self._tensors[path], self._new[path]) if key == name)
            view[...] = rows[start : start + units].reshape(view.shape)
            start += units
            self.factors.pop(name, None)
        self.replaced = tuple(dict.fromkeys((*self.replaced, *names)))
        self._make(names)

    def _make(self, names: tuple[str, ...]) -> None:
        for path in dict.fromkeys(self._paths[name] for name in names):
            self._base.setdefault(path, self._engine.read(path))
            self._engine.write(path, self._made(path, self._new.get(path, self._base[path])))

    def _made(self, path: str, base: Array) -> Array:
        made = np.ascontiguousarray(base).copy()
        for name, rows in _rows(self._tensors[path], made):
            if name in self.constants:
                rows[...] = self.constants[name].reshape(len(rows), -1).reshape(rows.shape)
            elif name in self.factors:
                real = np.float64 if base.dtype == np.float64 else np.float32
                factor = self.factors[name].astype(real)
                sides = factor.shape + (1,) * (rows.ndim - factor.ndim)
                rows[...] = np.multiply(rows, factor.reshape(sides), dtype=real)
        return made

    def undo(self) -> None:
        """Give every tensor that was changed its old bytes."""
        for path, values in self._base.items():
            self._engine.write(path, values)

    # --- looking ---------------------------------------------------------------------------------

    def units(self, name: str) -> int:
        """How many output units a parameter has."""
        return len(self.values(name))

    def values(self, name: str) -> Array:
        """Its values, axis 0 its output units, all of them."""
        tensor = self._tensor_of(name)
        return next(rows for each, rows in _rows(tensor, self._engine.read(tensor.path)) if each == name)

    def beside(self, names: tuple[str, ...], units: int) -> Array:
        """What biases add to each unit, in the order in which the operation has them."""
        paths = list(dict.fromkeys(self._paths[name] for name in names))
        total = np.zeros(units)
        for path in paths:
            stored = self._engine.read(path).astype(np.float64).ravel()
            if stored.size == units:  # one stored vector, however it is made up
                total = total + stored
        if len(paths) > 1 and not total.any():
            joined = np.concatenate([self.values(name).ravel() for name in names])
            total = joined.astype(np.float64) if joined.size == units else total
        return total

    def side_by_side(self, names: tuple[str, ...]) -> bool:
        """Whether the units of these kernels are those of their operation, one kernel after the other."""
        pieces = [self._pieces[name] for name in names]
        return len(names) == 1 or all(not piece.split and piece.axes.plain for piece in pieces)

    @cached_property
    def _tensors(self) -> Mapping[str, Tensor]:
        return {tensor.path: tensor for tensor in self._engine.model.tensors}

    @cached_property
    def _pieces(self) -> Mapping[str, Piece]:
        return {
            member.name: piece
            for tensor in self._tensors.values()
            for piece in tensor.pieces
            for member in piece.members(tensor.shape)
        }

    @cached_property
    def _paths(self) -> Mapping[str, str]:
        return {
            member.name: tensor.path
            for tensor in self._tensors.values()
            for piece in tensor.pieces
            for member in piece.members(tensor.shape)
        }

    def _tensor_of(self, name: str) -> Tensor:
        return self._tensors[self._paths[name]]

    # --- as a plan -------------------------------------------------------------------------------

    def planned(self, plan: Plan, method: str) -> Plan:
        """The plan that makes the calibrated values, which it puts into the model.

        Raises
        ------
        CalibrationError
            When the model did not hold what the plan says.
        """
        for path, base in self._base.items():
            if plan.fill(path, out=base.copy()).tobytes() != base.tobytes():
                raise CalibrationError(
                    f"`plan` has other values than {path!r}; initialize the model with it, then calibrate"
                )
        rows = tuple(self._row(row) for row in plan.rows)
        made = replace(plan, rows=rows, recipe=f"{plan.recipe}, {method}", digests={})
        for path, base in self._base.items():
            self._engine.write(path, made.fill(path, out=base.copy()))
        return made

    def _row(self, row: Row) -> Row:
        initializer: Initializer | None = None
        if row.name in self.constants:
            initializer = Constant(self.constants[row.name].astype(np.float32).reshape(row.shape))
        elif row.name in self.factors and row.initializer is not None:
            factor = self.factors[row.name]
            scaled = Scaled if factor.ndim == 0 else ScaledUnits
            initializer = scaled(row.initializer, factor.tolist())
        if initializer is None:
            return row
        said = initializer.describe(row.shape, row.axes)
        source = "draw" if initializer.drawn else "constant"
        return replace(row, initializer=initializer, mean=said.mean, std=said.std, source=source)


def _rows(tensor: Tensor, values: Array) -> Iterator[tuple[str, Array]]:
    """The parameters in a stored tensor as views of it, output units first."""
    whole = Canvas(values.shape, tuple(slice(0, size) for size in values.shape), values)
    for piece in tensor.pieces:
        for unfolded in layout.unfolded(whole, piece.whole):
            inside = unfolded.out[piece.slices(tensor.shape)]
            canvas = Canvas(inside.shape, tuple(slice(0, size) for size in inside.shape), inside)
            for part in layout.parts(canvas, piece.axes, piece.name):
                yield str(part.name), _units_first(part.where.out, part.axes)


def _units_first(values: Array, axes: Axes) -> Array:
    """A view whose axes are in canonical order; several output axes become one where memory allows."""
    if values.ndim == 0:
        return values.reshape(1)
    ordered = values.transpose(axes.order(values.ndim))
    if len(axes.out) < 2 or values.ndim == len(axes.out):
        return ordered
    units = int(np.prod(ordered.shape[: len(axes.out)]))
    flat = ordered.view()
    flat.shape = (units, *ordered.shape[len(axes.out) :])  # raises rather than copies
    return flat
