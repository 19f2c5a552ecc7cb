"""Where values reach a Keras tensor, and where a seed comes from: the same bits on every backend."""

import random
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.stateless_scope import in_stateless_scope

from fanin._types import Array
from fanin.dialects import InDialect, _seeded
from fanin.dtypes import NATIVE, as_dtype
from fanin.errors import DtypeError, SeedError
from fanin.initializers import Initializer
from fanin.memory import aligned
from fanin.streams import fold_seed


def dtype_of(dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype from a name or any backend's dtype; Keras's ``floatx`` for None."""
    if not isinstance(dtype, str):
        try:
            dtype = keras.backend.standardize_dtype(dtype)
        except ValueError as error:
            raise DtypeError(f"`dtype` {dtype!r} is unknown to Keras") from error
    return as_dtype(dtype)


def numbers(core: Initializer, shape: tuple[int, ...], seed: int, dtype: np.dtype[Any]) -> Array:
    """The tensor as Keras stores it, (..., in, out)."""
    out = aligned(shape, dtype)
    if isinstance(core, InDialect):  # it counts fans in the framework's own layout
        turned = core.layout.out == (0,) and out.ndim > 1
        view = np.moveaxis(out, (-1, -2), (0, 1)) if turned else out
        core(view.shape, seed=seed, out=view)
    else:
        core(shape, seed=seed, axes="io", out=out)
    return out


def own_memory(variable: keras.Variable) -> Array | None:
    """The memory of a variable that is set by writing into it, as Keras sets PyTorch's; then call `written`.

    The tensors of TensorFlow and the arrays of JAX never change, and others may hold them: there a variable
    takes a new one.
    """
    if keras.backend.backend() != "torch" or in_stateless_scope():
        return None
    import torch

    held = variable.value
    plain = type(held) is torch.nn.Parameter and held.device.type == "cpu" and not held.is_inference()
    if (
        not plain
        or held.dtype not in (torch.float16, torch.float32, torch.float64)
        or not held.is_contiguous()
    ):
        return None
    memory: Array = held.detach().numpy()
    return memory


def written(variable: keras.Variable) -> None:
    """Tell autograd that a variable's memory is about to change."""
    import torch

    torch.autograd.graph.increment_version(variable.value)


def tensor(values: Array) -> Any:
    """The backend's tensor of an array, in its dtype."""
    name = values.dtype.name
    if keras.backend.backend() == "jax":
        import jax  # jax.numpy copies; the two share this memory

        return jax.device_put(values)
    if keras.backend.backend() == "tensorflow" and name in NATIVE:
        import tensorflow as tf  # Keras's own way copies; the two share this memory

        return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
    if name.startswith("float8"):  # PyTorch takes none from NumPy; float32 holds them exactly
        return keras.ops.cast(keras.ops.convert_to_tensor(values.astype(np.float32)), name)
    return keras.ops.convert_to_tensor(values, dtype=name)


def put(pairs: Sequence[tuple[keras.Variable, Array]]) -> None:
    """Let variables take over arrays of their shapes and dtypes."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        tensors = jax.device_put([values for _, values in pairs])  # together: half the time of one by one
    else:
        tensors = [tensor(values) for _, values in pairs]
    for (variable, _), new in zip(pairs, tensors, strict=True):
        held = variable.value
        if backend == "tensorflow" and hasattr(held, "assign") and not in_stateless_scope():
            held.assign(new, read_value=False)  # Keras's own makes a tensor of the variable, and drops it
        else:
            variable.assign(new)


def in_shape_inference() -> bool:
    """Whether Keras only asks for shapes now, and throws the numbers away."""
    with keras.SymbolicScope() as scope:
        return scope.original_scope is not None


def check_seed(seed: Any) -> Any:
    """What may stand for ``seed``: None, any integer, a ``SeedGenerator`` or its saved form."""
    if isinstance(seed, dict):
        seed = keras.saving.deserialize_keras_object(seed)
    if isinstance(seed, keras.random.SeedGenerator):
        return seed
    _seeded.check_seed(seed)
    return seed if seed is None else int(seed)


def next_seed(seed: Any) -> int:
    """The core's seed of one tensor.

    An integer is the same seed at every call, a ``SeedGenerator`` moves on, and None asks Python's generator,
    which `keras.utils.set_random_seed` sets.
    """
    if seed is None:
        return random.getrandbits(64)
    if not isinstance(seed, keras.random.SeedGenerator):
        return fold_seed(seed)
    try:
        words = tuple(int(word) for word in seed.next())
    except TypeError as error:  # a tensor of a trace has no value
        raise SeedError(
            "`seed` is a SeedGenerator, whose state has no value while a function is traced; "
            "pass an integer, or make the variables before"
        ) from error
    return fold_seed(words, "keras.random.SeedGenerator")
