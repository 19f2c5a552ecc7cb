"""A model from ``package.module:name`` or a transformers config, without memory for its weights; its plan."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from fanin.checkpoints import model_of
from fanin.errors import ArgumentError
from fanin.plan import Plan
from fanin.planning import planned

# The base of each framework's models, and the adapter for them; a Keras model may be a PyTorch module too.
ADAPTERS = {
    "keras.src.layers.layer.Layer": "fanin.keras",
    "torch.nn.modules.module.Module": "fanin.torch",
    "flax.nnx.module.Module": "fanin.jax",
}


CONFIG = "config.json"


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


def load_model(target: str) -> Any:
    """What ``package.module:name`` is, or returns when it is called without arguments.

    PyTorch models are built on the meta device. A transformers ``config.json``, or its folder, is the model
    that it describes.

    Raises
    ------
    ArgumentError
        When there is no such thing, or it is no model.
    """
    if Path(target).name == CONFIG or (Path(target) / CONFIG).is_file():
        return _from_config(Path(target))
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise ArgumentError(
            f"model {target!r}: expected package.module:name, such as my_package.models:build"
        )
    sys.path.insert(0, "")  # the user's own files, as with python -m
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ArgumentError(f"model {target!r}: no module {error.name!r}") from error
    finally:
        sys.path.remove("")
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ArgumentError(f"model {target!r}: {module_name} has no {name!r}")
        found = getattr(found, name)
    if _adapter_name(found) is not None:
        return found
    if not callable(found):
        raise ArgumentError(
            f"model {target!r} is a {type(found).__name__}; expected a model or what returns one"
        )
    with _without_memory():
        try:
            found = found()
        except TypeError as error:
            raise ArgumentError(f"model {target!r} cannot be called without arguments: {error}") from error
    if _adapter_name(found) is None:
        raise ArgumentError(f"model {target!r} returns a {type(found).__name__}; expected a model")
    return found


def _from_config(path: Path) -> Any:
    """The transformers model that a config describes, on the meta device."""
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
    with _without_memory():
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
