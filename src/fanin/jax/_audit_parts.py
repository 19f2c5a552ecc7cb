"""Which parameters a value is made of, followed through slices, transposes and loops over layers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fanin.jax._audit_steps import INDEX, Step
from fanin.model import Tensor

Window = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Part:
    """A rectangle of a stored tensor, and which of its axes each axis of the value is (None: of several)."""

    tensor: Tensor
    window: Window
    axes: tuple[int | None, ...]

    @classmethod
    def whole(cls, tensor: Tensor) -> "Part":
        return cls(tensor, tuple((0, size) for size in tensor.shape), tuple(range(len(tensor.shape))))

    def cut(self, axis: int, start: int, stop: int) -> "Part":
        """From ``start`` to ``stop`` along an axis of the value."""
        stored = self.axes[axis] if axis < len(self.axes) else None
        if stored is None:
            return self
        first = self.window[stored][0]
        window = list(self.window)
        window[stored] = (first + start, first + stop)
        return replace(self, window=tuple(window))

    @property
    def parameters(self) -> Iterator[tuple[str, str]]:
        """Names and roles of those that lie in it, in part at least."""
        for piece in self.tensor.pieces:
            sizes = piece.whole.atoms(self.tensor.shape)
            inside = len(sizes) == len(self.window)
            window = [(part.start, part.stop) for part in piece.slices(self.tensor.shape)]
            pairs = zip(window, self.window, strict=True) if inside else ()
            if all(a < stop and start < b for (a, b), (start, stop) in pairs):
                yield from ((member.name, piece.role) for member in piece.members(self.tensor.shape))


def names_of(parts: Iterable[Part]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name, _ in part.parameters))


def roles_of(parts: Iterable[Part]) -> set[str]:
    return {role for part in parts for _, role in part.parameters}


def module_of(names: Sequence[str]) -> str:
    """The module that parameters are in: what their names begin with alike, else the first of them.

    >>> module_of(["layers.0.fc.weight", "layers.0.fc.bias"]), module_of(["w1", "b1"])
    ('layers.0.fc', 'w1')
    """
    paths = [name.split(".")[:-1] for name in names]
    alike = 0
    while all(len(path) > alike and path[alike] == paths[0][alike] for path in paths):
        alike += 1
    return ".".join(paths[0][:alike]) or names[0]


def after(step: Step, part: Part, rank: int, give: int) -> Part:
    """What a step makes of a part, in its result of this number and rank."""
    follow = VIEWS.get(step.name)
    found = part if follow is None else follow(part, step.settings, give)
    axes = found.axes if follow is not None and len(found.axes) == rank else (None,) * rank
    return replace(found, axes=axes)


# --- one function per primitive that only moves elements -----------------------------------------


def _index(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    at = settings["at"]
    cut = part.cut(0, at, at + 1)
    return replace(cut, axes=cut.axes[1:])


def _transpose(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    return replace(part, axes=tuple(part.axes[axis] for axis in settings["permutation"]))


def _slice(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    limits = zip(settings["start_indices"], settings["limit_indices"], strict=True)
    for axis, (start, stop) in enumerate(limits):
        part = part.cut(axis, start, stop)
    return part


def _split(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    sizes = [int(size) for size in settings["sizes"]]
    return part.cut(settings["axis"], sum(sizes[:give]), sum(sizes[: give + 1]))


def _squeeze(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    gone = {axis % len(part.axes) for axis in settings["dimensions"]}
    return replace(part, axes=tuple(at for axis, at in enumerate(part.axes) if axis not in gone))


def _broadcast(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    axes: list[int | None] = [None] * len(settings["shape"])
    for axis, at in zip(settings["broadcast_dimensions"], part.axes, strict=True):
        axes[axis] = at
    return replace(part, axes=tuple(axes))


def _reshape(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    """Axes keep what they are as long as the sizes are those before."""
    sizes = [part.window[at][1] - part.window[at][0] if at is not None else None for at in part.axes]
    axes: list[int | None] = []
    for at, before, size in zip(part.axes, sizes, settings["new_sizes"], strict=False):
        if before != size:
            break
        axes.append(at)
    return replace(part, axes=(*axes, *(None,) * (len(settings["new_sizes"]) - len(axes))))


def _same(part: Part, settings: Mapping[str, Any], give: int) -> Part:
    return part


VIEWS = {
    INDEX: _index,
    "transpose": _transpose,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "convert_element_type": _same,
    "copy": _same,
    "copy_p": _same,
    "stop_gradient": _same,
    "reduce_precision": _same,
    "optimization_barrier": _same,
    "sharding_constraint": _same,
    "name": _same,
}
