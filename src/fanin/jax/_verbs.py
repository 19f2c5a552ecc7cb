"""What users call: plan, initialize."""

from typing import Any

import jax

from fanin.errors import PlanError
from fanin.jax._apply import key, made
from fanin.jax._linen import PARAMS, Traced, is_linen, others, trace
from fanin.jax._tree import is_nnx
from fanin.jax._walk import AxesOf, Described, describe
from fanin.plan import Plan
from fanin.planning import PlanLike, planned


def plan(
    model: Any,
    recipe: PlanLike,
    *,
    seed: int | None = None,
    inputs: Any = None,
    axes: AxesOf | None = None,
) -> Plan:
    """What every parameter of a model would get. Nothing is touched, nothing is drawn.

    Parameters
    ----------
    model : flax.nnx.Module, flax.linen.Module, or tree of arrays
        Concrete or abstract (``nnx.eval_shape``, ``jax.eval_shape``), which needs no memory for the weights.
        In a tree the layers of Equinox are known by their class, other leaves by their own words: ``kernel``,
        ``weight``, ``w`` (in, out), ``bias``, ``b``, ``scale``, ``gamma``, ``embedding``. Random keys and
        leaves that are no arrays are no parameters.
    recipe : str, Initializer, Recipe, Plan or Path
        A recipe's name (``"gpt2"``), an initializer or its name (``"he_normal"``: it fills kernels, the rest
        starts neutral), a `fanin.Recipe`, a TOML or JSON file of one, or a plan or its file.
    seed : int
        0 .. 2**64 - 1; a plan has its own.
    inputs : tuple or mapping
        Of a linen module: the arguments of its call, arrays or `jax.ShapeDtypeStruct`.
    axes : mapping, optional
        What leaves are, where the model does not say it: {glob of canonical names: axes} or (role, axes),
        such as ``{"*.conv*.w": "io", "pos": ("position", "oi")}``. Numbers of a stack are left out of
        the names.

    Returns
    -------
    Plan
        One row per parameter.

    Raises
    ------
    RecipeError
        When a rule matches no parameter, or a recipe needs a fact that the model does not show.
    PlanError
        When no rule matches a parameter, or one cannot be set.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> params = {"dense": {"kernel": jnp.zeros((784, 256)), "bias": jnp.zeros(256)}}
    >>> plan(params, "he_normal", seed=0)["dense.kernel"].fans
    Fans(fan_in=784, fan_out=256)
    """
    return planned(_described(model, inputs, axes)[0].model, recipe, seed)


def initialize(
    model: Any,
    recipe: PlanLike,
    *,
    seed: int | None = None,
    inputs: Any = None,
    axes: AxesOf | None = None,
) -> Any:
    """Plan a model's initialization and apply it: all parameters are set, or, after an error, none.

    Abstract parameters become arrays where their sharding says, or on the default device; others stay where
    they are, and each process makes its own shards alone. Batch statistics of an abstract module start at
    mean 0 and variance 1, its random streams (dropout) at keys that belong to the seed and their names; what
    a concrete module has of these stays.

    Parameters
    ----------
    model, recipe, seed, inputs, axes
        As for `plan`.

    Returns
    -------
    flax.nnx.Module, or tree of jax.Array
        A module of nnx itself, changed in place; a new tree of the same structure; for a linen module its
        variables, other collections as the module starts them.

    Examples
    --------
    >>> import fanin, jax, jax.numpy as jnp
    >>> shapes = {"kernel": jax.ShapeDtypeStruct((3, 2), jnp.float32)}
    >>> params = initialize(shapes, "he_normal", seed=0)
    >>> bool((params["kernel"] == fanin.HeNormal()((3, 2), seed=0, name="kernel")).all())
    True
    """
    described, traced = _described(model, inputs, axes)
    decided = planned(described.model, recipe, seed)
    values = made(decided, described)
    if is_nnx(model):
        for at, value in values.items():
            described.leaves[at].value.set_value(value)
        return model
    leaves = [values.get(at, leaf.array) for at, leaf in enumerate(described.leaves)]
    tree = jax.tree.unflatten(jax.tree.structure(described.tree), leaves)
    return tree if traced is None else {PARAMS: tree, **others(traced, key(decided.seed, "init"))}


def _described(model: Any, inputs: Any, axes: AxesOf | None) -> tuple[Described, Traced | None]:
    if is_linen(model):
        traced = trace(model, inputs)
        return describe(traced.variables.get(PARAMS, {}), axes, traced), traced
    if inputs is not None:
        raise PlanError(f"`inputs` are for linen modules; a {type(model).__name__} shows its shapes")
    return describe(model, axes), None
