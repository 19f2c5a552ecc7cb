"""A model from ``package.module:name`` or a transformers config, its plan, and its weights."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np

from fanin import checkpoints
from fanin._types import Array
from fanin.audit import Trace, Weights, measure
from fanin.audit.stored import guessed
from fanin.checkpoints import model_of
from fanin.errors import ArgumentError, CheckpointError, FaninError
from fanin.model import Model
from fanin.plan import Plan
from fanin.planning import planned

# The base of each framework's models, and the adapter for them; a Keras model may be a PyTorch module too.
ADAPTERS = {
    "keras.src.layers.layer.Layer": "fanin.keras",
    "torch.nn.modules.module.Module": "fanin.torch",
    "flax.nnx.module.Module": "fanin.jax",
}


CONFIG = "config.json"
Progress: TypeAlias = Callable[[int, int], None]  # tensors done, tensors in all
Parameters: TypeAlias = tuple[Model, Callable[[str], Array]]  # what they are, and the values at a path


def plan_of(target: str, recipe: str, seed: int) -> Plan:
    """The plan of what a text names: a saved plan, the tensors of a checkpoint, or a model.

    Of a checkpoint only names, shapes and dtypes are read: every parameter must be named by a rule.
    """
    path = Path(target)
    if target.endswith((".safetensors", ".safetensors.index.json")):
        return planned(model_of(path), recipe, seed)
    if path.suffix == ".json" and path.name != CONFIG:
        return Plan.from_file(path)
    model = load_model(target)
    made: Plan = adapter_of(model).plan(model, recipe, seed=seed)
    return made


def load_model(target: str, *, memory: bool = False) -> Any:
    """What ``package.module:name`` is, or returns when it is called without arguments.

    PyTorch models are built on the meta device, unless ``memory`` is asked for their weights. A transformers
    ``config.json``, or its folder, is the model that it describes.

    Raises
    ------
    ArgumentError
        When there is no such thing, or it is no model.
    """
    if Path(target).name == CONFIG or (Path(target) / CONFIG).is_file():
        return _from_config(Path(target), memory)
    found = load("model", target)
    if _adapter_name(found) is not None:
        return found
    if not callable(found):
        raise ArgumentError(
            f"model {target!r} is a {type(found).__name__}; expected a model or what returns one"
        )
    found = called("model", target, found, memory)
    if _adapter_name(found) is None:
        raise ArgumentError(f"model {target!r} returns a {type(found).__name__}; expected a model")
    return found


def load(what: str, target: str) -> Any:
    """The object that ``package.module:name`` names; ``what`` it is for is said in errors.

    Raises
    ------
    ArgumentError
        When there is no such thing, or its module cannot be imported.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise ArgumentError(
            f"{what} {target!r}: expected package.module:name, such as my_package.models:build"
        )
    sys.path.insert(0, "")  # the user's own files, as with python -m
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ArgumentError(f"{what} {target!r}: no module {error.name!r}") from error
    except Exception as error:  # other people's code: what it says is passed on
        raise ArgumentError(f"{what} {target!r}: importing {module_name} raised {_said(error)}") from error
    finally:
        sys.path.remove("")
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ArgumentError(f"{what} {target!r}: {module_name} has no {name!r}")
        found = getattr(found, name)
    return found


def load_value(what: str, target: str) -> Any:
    """What ``package.module:name`` is, or returns when it is a function."""
    found = load(what, target)
    return (
        called(what, target, found)
        if isinstance(found, FunctionType | BuiltinFunctionType | partial)
        else found
    )


def called(what: str, target: str, function: Callable[[], Any], memory: bool = True) -> Any:
    """What a function returns when it is called without arguments."""
    with nullcontext() if memory else _without_memory():
        try:
            return function()
        except FaninError:
            raise
        except TypeError as error:
            raise ArgumentError(f"{what} {target!r} cannot be called without arguments: {error}") from error
        except Exception as error:  # other people's code: what it says is passed on
            raise ArgumentError(f"{what} {target!r} raised {_said(error)}") from error


def _said(error: Exception) -> str:
    """An error's class and message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _from_config(path: Path, memory: bool) -> Any:
    """The transformers model that a config describes, on the meta device unless memory is asked for."""
    path = path if path.name == CONFIG else path / CONFIG
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        [name, *_] = data["architectures"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path}: no transformers config that names its `architectures`") from error
    transformers: Any = import_module("transformers")
    kind = getattr(transformers, str(name), None)
    if kind is None:
        raise ArgumentError(f"{path}: transformers has no {name!r}")
    import_module("torch")
    with nullcontext() if memory else _without_memory():
        return kind(kind.config_class.from_dict(data))


def adapter_of(model: Any) -> ModuleType:
    """The module of fanin whose `plan` takes this model."""
    name = _adapter_name(model)
    if name is None:
        raise ArgumentError(f"a {type(model).__name__} is no model of PyTorch, Keras or Flax")
    return import_module(name)


def _adapter_name(model: Any) -> str | None:
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]
    return next((adapter for base, adapter in ADAPTERS.items() if base in kinds), None)


def _without_memory() -> AbstractContextManager[Any]:
    """PyTorch's meta device, where it is PyTorch that was imported."""
    if "torch" in sys.modules and "keras" not in sys.modules:
        device: AbstractContextManager[Any] = sys.modules["torch"].device("meta")
        return device
    return nullcontext()


# --- weights -------------------------------------------------------------------------------------


def is_checkpoint(target: str) -> bool:
    """Whether a text names a file or folder of weights, rather than a model."""
    path = Path(target)
    config = path.name == CONFIG or (path.is_dir() and [file.name for file in path.iterdir()] == [CONFIG])
    return not config and (path.exists() or ":" not in target)


def stored_trace(target: str, on_progress: Progress | None = None) -> Trace:
    """The weights of a checkpoint, one tensor in memory at a time; roles and axes are guessed by their names.

    Raises
    ------
    CheckpointError
        When it is damaged, or not what its header says: the message names file and tensor.
    """
    with checkpoints.open(target) as checkpoint:
        named = [(name, spec.shape, spec.dtype) for name, spec in checkpoint.tensors.items()]
        model = guessed(named)
        if not model.tensors:
            raise CheckpointError(f"{target}: holds no weights")
        return Trace("", tuple(_measured(model, checkpoint.read, on_progress)))


def weights_of(model: Any, on_progress: Progress | None = None) -> Trace:
    """The weights that a model has, without running it."""
    stored, read = parameters_of(model)
    if not stored.tensors:
        raise ArgumentError(f"the {type(model).__name__} has no parameters")
    framework = adapter_of(model).__name__.rpartition(".")[2]
    return Trace(framework, tuple(_measured(stored, read, on_progress)))


def _measured(model: Model, read: measure.Read, on_progress: Progress | None) -> Iterator[Weights]:
    for done, tensor in enumerate(model.tensors):
        yield from measure.weights(Model((tensor,)), read)
        if on_progress is not None:
            on_progress(done + 1, len(model.tensors))


def parameters_of(model: Any) -> Parameters:
    """The parameters of a model that has values, by its adapter.

    Raises
    ------
    ArgumentError
        When it has none: it is on PyTorch's meta device, is abstract, or a linen module.
    """
    return {"fanin.torch": _of_torch, "fanin.keras": _of_keras, "fanin.jax": _of_jax}[
        adapter_of(model).__name__
    ](model)


def save_weights(model: Any, path: Path) -> None:
    """Write a model's parameters to one safetensors file, tied ones once."""
    from safetensors.numpy import save_file

    stored, read = parameters_of(model)
    save_file({tensor.path: np.ascontiguousarray(read(tensor.path)) for tensor in stored.tensors}, path)


def _of_torch(model: Any) -> Parameters:
    from fanin.torch._tensors import as_array
    from fanin.torch._walk import describe

    described = describe(model)

    def read(path: str) -> Array:
        value = described.slots[path][0].value.detach()
        if value.is_meta:
            raise ArgumentError(f"{path!r} is on the meta device and has no values")
        return as_array(value.cpu().contiguous())

    return described.model, read


def _of_keras(model: Any) -> Parameters:
    from fanin.keras._transfer import held
    from fanin.keras._walk import describe

    described = describe(model)
    return described.model, lambda path: held(described.variables[path])


def _of_jax(model: Any) -> Parameters:
    from fanin.jax._tree import is_abstract
    from fanin.jax._walk import describe

    described = describe(model, None)

    def read(path: str) -> Array:
        array = described.slots[path][0].array
        if is_abstract(array):
            raise ArgumentError(f"{path!r} is abstract and has no values")
        return np.asarray(array)

    return described.model, read
