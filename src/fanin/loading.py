"""A model from ``package.module:name``, built without memory for its weights, and its adapter."""

import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import ModuleType
from typing import Any

from fanin.errors import ArgumentError

# The base of each framework's models, and the adapter for them; a Keras model may be a PyTorch module too.
ADAPTERS = {
    "keras.src.layers.layer.Layer": "fanin.keras",
    "torch.nn.modules.module.Module": "fanin.torch",
    "flax.nnx.module.Module": "fanin.jax",
}


def load_model(target: str) -> Any:
    """What ``package.module:name`` is, or returns when it is called without arguments.

    PyTorch models are built on the meta device.

    Raises
    ------
    ArgumentError
        When there is no such thing, or it is no model.
    """
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
