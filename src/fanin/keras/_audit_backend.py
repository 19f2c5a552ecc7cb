"""Derivatives on each of Keras's backends, and a look at values and gradients as they pass."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from fanin._types import Array
from fanin.dtypes import KNOWN, NATIVE, as_dtype

Function: TypeAlias = Callable[[list[Any]], list[Any]]
Pull: TypeAlias = Callable[[Sequence[Any], Sequence[int]], list[Any]]
See: TypeAlias = Callable[[Any], None]


def linearized(function: Function, leaves: Sequence[Any]) -> tuple[list[Any], Pull]:
    """A function's outputs, and what takes gradients of these to gradients of its leaves.

    Parameters
    ----------
    function : callable
        From a list of floating point tensors to another; called once.
    leaves : sequence of tensor

    Returns
    -------
    outputs : list of tensor
    pull : callable
        Takes a gradient for each output, None for no gradient, and the numbers of some leaves; gives theirs,
        None where the outputs do not depend on one. It may be called often.
    """
    return BACKENDS[keras.backend.backend()](function, leaves)


def watched(tensor: Any, see: See) -> Any:
    """The same values; ``see(gradient)`` is called whenever a gradient passes on its way back."""
    return WATCHED[keras.backend.backend()](tensor, see)


def numbers(tensor: Any) -> Array:
    """The values of a tensor or variable in NumPy, also while derivatives are taken."""
    if isinstance(tensor, keras.Variable):
        tensor = tensor.value
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.lax.stop_gradient(tensor))
    if not keras.ops.is_tensor(tensor):
        return np.asarray(tensor)
    if backend == "torch":
        plain = tensor.detach().cpu()
        dtype = keras.backend.standardize_dtype(plain.dtype)
        if dtype in KNOWN and dtype not in NATIVE:  # PyTorch gives NumPy none of these
            return np.asarray(plain.float().numpy().astype(as_dtype(dtype)))
        return np.asarray(plain.numpy())
    return np.asarray(tensor.numpy())


# --- JAX -----------------------------------------------------------------------------------------


def _linearized_by_jax(function: Function, leaves: Sequence[Any]) -> tuple[list[Any], Pull]:
    import jax
    import jax.numpy as jnp

    outputs, back = jax.vjp(function, list(leaves))

    def pull(gradients: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
        pairs = zip(outputs, gradients, strict=True)
        full = [jnp.zeros_like(output) if given is None else given for output, given in pairs]
        found = back(full)[0]
        return [found[at] for at in wanted]

    return outputs, pull


def _watched_by_jax(tensor: Any, see: See) -> Any:
    import jax

    def back(_: None, gradient: Any) -> tuple[Any]:
        see(gradient)
        return (gradient,)

    same = jax.custom_vjp(lambda values: values)
    same.defvjp(lambda values: (values, None), back)
    return same(tensor)


# --- TensorFlow ----------------------------------------------------------------------------------


def _linearized_by_tensorflow(function: Function, leaves: Sequence[Any]) -> tuple[list[Any], Pull]:
    import tensorflow as tf

    leaves = [tf.identity(leaf) for leaf in leaves]
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        outputs = function(leaves)

    def pull(gradients: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
        pairs = zip(outputs, gradients, strict=True)
        some = [leaves[at] for at in wanted]
        given = [(output, gradient) for output, gradient in pairs if gradient is not None]
        found = tape.gradient([output for output, _ in given], some, [gradient for _, gradient in given])
        return [None if each is None else tf.convert_to_tensor(each) for each in found]

    return outputs, pull


def _watched_by_tensorflow(tensor: Any, see: See) -> Any:
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def same(values: Any) -> tuple[Any, Callable[[Any], Any]]:
        def back(gradient: Any) -> Any:
            see(tf.convert_to_tensor(gradient))
            return gradient

        return tf.identity(values), back

    return same(tensor)


# --- PyTorch -------------------------------------------------------------------------------------


def _linearized_by_torch(function: Function, leaves: Sequence[Any]) -> tuple[list[Any], Pull]:
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        outputs = function(list(leaves))

    def pull(gradients: Sequence[Any], wanted: Sequence[int]) -> list[Any]:
        pairs = zip(outputs, gradients, strict=True)
        some = [leaves[at] for at in wanted]
        given = [(out, gradient) for out, gradient in pairs if gradient is not None and out.requires_grad]
        if not given:
            return [None] * len(some)
        ends, back = zip(*given, strict=True)
        return list(torch.autograd.grad(ends, some, back, retain_graph=True, allow_unused=True))

    return outputs, pull


def _watched_by_torch(tensor: Any, see: See) -> Any:
    if tensor.requires_grad:
        tensor = tensor.view_as(tensor)  # one of its own, for functions that return what they took
        tensor.register_hook(see)
    return tensor


BACKENDS = {
    "jax": _linearized_by_jax,
    "tensorflow": _linearized_by_tensorflow,
    "torch": _linearized_by_torch,
}
WATCHED = {"jax": _watched_by_jax, "tensorflow": _watched_by_tensorflow, "torch": _watched_by_torch}
