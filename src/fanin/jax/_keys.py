"""From a JAX key to a seed."""

from typing import Any

import jax
import numpy as np

from fanin.errors import SeedError
from fanin.streams import fold_seed


def fold_key(key: Any) -> int:
    """The seed of a JAX key: ``fanin.fold_seed`` of its words and the name of its implementation.

    A typed key and the raw ``uint32`` words of the same key have one seed, so that every tensor made from a
    key can be made again in NumPy.

    Parameters
    ----------
    key : jax.Array
        One key, typed (``jax.random.key``) or raw (``jax.random.PRNGKey``, of the default implementation).

    Returns
    -------
    int
        0 .. 2**64 - 1

    Raises
    ------
    SeedError
        When it is no key, or not exactly one.

    Examples
    --------
    >>> fold_key(jax.random.key(0)) == fold_key(jax.random.PRNGKey(0))
    True
    >>> import fanin
    >>> from fanin.jax import siren
    >>> w = fanin.Siren()((3, 2), seed=fold_key(jax.random.key(0)))
    >>> bool((siren()(jax.random.key(0), (3, 2)) == w).all())
    True
    """
    words, kind = key_words(key)
    return seed_of_words(words, kind)


def key_words(key: Any) -> tuple[jax.Array, str]:
    """The uint32 words of one key, a tracer inside a traced function, and what kind of key it is."""
    try:
        words, implementation = jax.random.key_data(key), jax.random.key_impl(key)
    except TypeError as error:
        raise SeedError(f"`key` must be a JAX key such as jax.random.key(0), got {key!r}") from error
    if words.ndim != 1:
        raise SeedError(
            f"`key` must be one key, got an array of shape {words.shape[:-1]}; "
            f"jax.vmap makes one tensor for each"
        )
    return words, f"jax:{implementation}"


def seed_of_words(words: Any, kind: str) -> int:
    """The seed of concrete words."""
    return fold_seed(tuple(np.asarray(words).tolist()), kind)
