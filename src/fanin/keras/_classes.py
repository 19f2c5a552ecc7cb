"""Classes made from constructors that exist already, with their signature and documentation."""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import keras

T = TypeVar("T")


def subclass(
    base: type[T],
    name: str,
    parameters: Iterable[inspect.Parameter],
    init: Callable[..., None],
    doc: str,
    *,
    package: str,
) -> type[T]:
    """A class that Keras can save, of the module of ``base``.

    ``init`` is called with the instance and a dictionary of all arguments, defaults included.
    """
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([self, *parameters])

    def construct(*args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}; it takes {str(signature).replace('self, ', '')}") from None
        bound.apply_defaults()
        given = dict(bound.arguments)
        init(given.pop("self"), given)

    construct.__signature__ = signature  # type: ignore[attr-defined]
    construct.__name__, construct.__qualname__ = "__init__", f"{name}.__init__"
    made = type(name, (base,), {"__init__": construct, "__doc__": doc, "__module__": base.__module__})
    registered: type[T] = keras.saving.register_keras_serializable(package, name)(made)
    return registered


def documented(doc: str | None, parameters: str, example: str) -> str:
    """A numpydoc text with other examples, and more parameters at the end of its own."""
    sections = re.split(r"\n\n(?=[A-Z]\w+\n-{4,}\n)", inspect.cleandoc(doc or ""))
    kept = [section for section in sections if not section.startswith("Examples\n")]
    at = next((i for i, section in enumerate(kept) if section.startswith("Parameters\n")), None)
    if parameters and at is None:
        kept.insert(1, f"Parameters\n----------\n{parameters}")
    elif parameters and at is not None:
        kept[at] += f"\n{parameters}"
    return "\n\n".join([*kept, f"Examples\n--------\n{example}"])
