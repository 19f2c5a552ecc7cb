"""Buffers that a model on the meta device has lost: running statistics, positions, masks, rotary tables.

A value counts only where it is the same whatever was there before and whatever PyTorch's generator says.
"""

import copy
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from fanin.errors import PlanError
from fanin.torch._tensors import as_bytes
from fanin.torch._walk import Place

Buffers: TypeAlias = Callable[[str, nn.Module, torch.Tensor], torch.Tensor | None]
Device: TypeAlias = str | int | torch.device

CONSTANT: dict[type[nn.Module], dict[str, float]] = {
    _NormBase: {"running_mean": 0, "running_var": 1, "num_batches_tracked": 0},
    AveragedModel: {"n_averaged": 0},
}
PRETRAINED = "transformers.modeling_utils.PreTrainedModel"
SIMPLE = (bool, int, float, str, tuple, list, torch.dtype, type(None))


class Lost(NamedTuple):
    """A buffer without memory, and where it is kept."""

    place: Place
    attribute: str
    buffer: torch.Tensor

    @property
    def name(self) -> str:
        return self.place.name + self.attribute


class Rebuilt(NamedTuple):
    """A buffer, and the value it had lost."""

    module: nn.Module
    attribute: str
    value: torch.Tensor


Found: TypeAlias = Iterator[tuple[Lost, torch.Tensor]]


def rebuild(places: Iterable[Place], device: Device | None, buffers: Buffers | None) -> list[Rebuilt]:
    """A value for every buffer on the meta device; nothing is set. What was shared still is.

    Parameters
    ----------
    places : iterable of Place
        All modules, wrappers included.
    device : device
        Where the buffers are to live.
    buffers : callable, optional
        Is asked first. Then: running statistics; what a transformers model's own initialization says; the
        buffer's module made again from the arguments it keeps.

    Raises
    ------
    PlanError
        Naming all buffers whose value nothing tells, and the kinds of modules they belong to.
    """
    found = tuple(places)
    lost = [
        Lost(place, attribute, buffer)
        for place in found
        for attribute, buffer in place.module._buffers.items()
        if buffer is not None and buffer.is_meta
    ]
    if lost and device is None:
        raise PlanError(
            f"{lost[0].name!r} is on the meta device; say where the model should live: device='cpu'"
        )
    values: dict[int, torch.Tensor] = {}
    why: dict[str, str] = {}
    for source in (
        lambda left: _given(left, buffers),
        _constant,
        lambda left: _by_transformers(left, found, why),
        lambda left: _made_again(left, why),
    ):
        for each, value in source([each for each in lost if id(each.buffer) not in values]):
            values.setdefault(id(each.buffer), value.to(device, each.buffer.dtype, copy=True))
    nowhere = [each for each in lost if id(each.buffer) not in values]
    if nowhere:
        said = [
            f"{each.name!r} of {type(each.place.module).__name__}{why.get(each.name, '')}" for each in nowhere
        ]
        raise PlanError(
            f"the meta device has lost the values of {', '.join(said)}; give them by "
            f"`buffers`, a function of (name, module, meta tensor)"
        )
    return [Rebuilt(each.place.module, each.attribute, values[id(each.buffer)]) for each in lost]


# --- who may know a value ------------------------------------------------------------------------


def _given(lost: list[Lost], buffers: Buffers | None) -> Found:
    for each in lost if buffers is not None else ():
        value = buffers(each.name, each.place.module, each.buffer)  # type: ignore[misc]
        if value is None:
            continue
        if not isinstance(value, torch.Tensor) or value.is_meta or not _fits(value, each.buffer):
            raise PlanError(
                f"`buffers` gives {each.name!r} {_shown(value)}; expected values of {_shown(each.buffer)}"
            )
        yield each, value


def _constant(lost: list[Lost]) -> Found:
    for each in lost:
        for kind, values in CONSTANT.items():
            if isinstance(each.place.module, kind) and each.attribute in values:
                yield each, torch.full_like(each.buffer, values[each.attribute], device="cpu")


def _by_transformers(lost: list[Lost], places: tuple[Place, ...], why: dict[str, str]) -> Found:
    """Their models set all that a file of weights does not hold, buffers too, by ``initialize_weights``."""
    tops: list[Place] = []
    for place in places:
        inside = any(place.path.startswith(top.path) for top in tops)
        if not inside and PRETRAINED in (
            f"{k.__module__}.{k.__qualname__}" for k in type(place.module).__mro__
        ):
            tops.append(place)
    for top in tops:
        mine = [each for each in lost if each.place.path.startswith(top.path)]
        paths = [(each.place.path + each.attribute).removeprefix(top.path) for each in mine]
        yield from _agreed(mine, paths, partial(_started, top.module), why)


def _made_again(lost: list[Lost], why: dict[str, str]) -> Found:
    """The smallest module that has the buffer, from arguments that it keeps under their own names."""
    for owner in {id(each.place.module): each.place.module for each in lost}.values():
        mine = [each for each in lost if each.place.module is owner]
        yield from _agreed(mine, [each.attribute for each in mine], partial(_twin, owner), why)


def _agreed(
    lost: list[Lost], paths: list[str], make: Callable[[int], nn.Module], why: dict[str, str]
) -> Found:
    """Buffers that are alike in two modules made with different noise; where none can be made, why not."""
    made = []
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        for noise in (0, 1) if lost else ():
            torch.default_generator.manual_seed(noise)
            try:
                made.append(make(noise))
            except Exception as error:  # other people's code: what it says is passed on
                why.update((each.name, f" ({error})") for each in lost)
                return
    for each, path in zip(lost, paths, strict=True):
        one, two = (module.get_buffer(path) for module in made)
        if not one.is_meta and _fits(one, each.buffer) and torch.equal(as_bytes(one), as_bytes(two)):
            yield each, one


def _started(model: Any, noise: int) -> nn.Module:
    """A model started anew by itself: parameters without memory, lost buffers full of ``noise``."""
    memo: dict[int, Any] = {id(old): _without_memory(old) for old in model.parameters()}
    for old in model.buffers():
        memo[id(old)] = torch.full_like(old, noise, device="cpu") if old.is_meta else old.clone()
    started = copy.deepcopy(model, memo)
    for module in started.modules():
        vars(module).pop("_is_hf_initialized", None)  # else it would be passed over
    started.initialize_weights()
    return started  # type: ignore[no-any-return]


def _twin(owner: nn.Module, _noise: int) -> nn.Module:
    """A module made from the arguments that another of its kind keeps."""
    kept, arguments = vars(owner), {}
    for name, parameter in list(inspect.signature(type(owner).__init__).parameters.items())[1:]:
        if name in kept:
            arguments[name] = kept[name]
        elif name not in ("device", "dtype") or parameter.default is parameter.empty:
            raise PlanError(f"it does not keep its argument {name!r}")
    with _weightless():
        twin: nn.Module = type(owner)(**arguments)
    twin.train(owner.training)
    for name in sorted(name for name in kept.keys() | vars(twin).keys() if not name.startswith("_")):
        mine, its = kept.get(name), vars(twin).get(name)
        if (isinstance(mine, SIMPLE) or isinstance(its, SIMPLE)) and mine != its:
            raise PlanError(f"made again, its {name!r} is {its!r} instead of {mine!r}")
    return twin


@contextmanager
def _weightless() -> Iterator[None]:
    """Parameters of modules made here have no memory; what is made from them is lost, too."""
    mine = threading.get_ident()

    def replaced(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or is_lazy(parameter) or threading.get_ident() != mine:
            return parameter
        return _without_memory(parameter)

    handle = register_module_parameter_registration_hook(replaced)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


# --- tensors -------------------------------------------------------------------------------------


def _without_memory(parameter: torch.Tensor) -> nn.Parameter:
    """A parameter of the same shape; of a sharded one, of the full shape, and not sharded."""
    shape = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
    return nn.Parameter(shape, requires_grad=parameter.requires_grad)


def _fits(value: torch.Tensor, buffer: torch.Tensor) -> bool:
    """Whether a value has the shape of a buffer, and numbers of its sort; the width is the buffer's."""
    return value.shape == buffer.shape and (
        value.dtype == buffer.dtype or (value.is_floating_point() and buffer.is_floating_point())
    )


def _shown(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{value.dtype} {tuple(value.shape)}{' on the meta device' if value.is_meta else ''}"
