"""fanin's initializers as Keras 3 initializers, on TensorFlow, JAX and PyTorch alike.

>>> import keras
>>> import fanin.keras as fk
>>> layer = keras.layers.Dense(64, kernel_initializer=fk.HeNormal(seed=3))
>>> layer.build((None, 784))

Names and arguments are the core's, and so are the numbers, to the bit. A weight is (..., in, out): Keras
tells an initializer only the shape, so fans are counted by the last two axes times all others.
"""

import dataclasses
import inspect
import warnings
from typing import Any

import keras

from fanin import initializers as core
from fanin._types import Shape
from fanin.dialects import InDialect
from fanin.errors import ArgumentError
from fanin.fans import check_shape
from fanin.initializers import Initializer as Core
from fanin.initializers import catalogue
from fanin.keras._classes import documented, subclass
from fanin.keras._values import check_seed, dtype_of, in_shape_inference, next_seed, numbers, tensor

PACKAGE = "fanin"
SEED = """seed : int, keras.random.SeedGenerator or None
    An integer gives equal values at every call, a generator others at each. With None every call is another
    draw, and ``keras.utils.set_random_seed`` repeats them all."""


@keras.saving.register_keras_serializable(PACKAGE)
class Initializer(keras.initializers.Initializer):  # type: ignore[misc]
    """Any initializer of fanin for a Keras layer; base of all classes here.

    Parameters
    ----------
    initializer : str, dict or fanin.Initializer
        A catalogue expression or what it describes: ``"he_normal"``, ``"scaled(orthogonal, 0.5)"``, or a
        framework's own word such as ``"torch:kaiming_uniform(a=1)"``, which counts fans as that framework
        does in its own layout.
    seed : int, keras.random.SeedGenerator or None
        An integer gives equal values at every call, a generator others at each. With None every call is
        another draw, and ``keras.utils.set_random_seed`` repeats them all.

    Raises
    ------
    UnknownNameError, ExpressionError, ArgumentError
        When the expression describes no initializer.
    SeedError
        When ``seed`` is none of the above.

    Examples
    --------
    >>> keras.ops.shape(Initializer("torch:kaiming_uniform(a=1)", seed=3)((784, 256)))
    (784, 256)
    """

    core: Core
    seed: Any

    def __init__(self, initializer: str | dict[str, Any] | Core, seed: Any = None) -> None:
        self._set(catalogue.get(initializer), seed)

    def _set(self, made: Core, seed: Any) -> None:
        if seed is None and isinstance(made, InDialect):
            seed = made.meaning.seed
        self.core, self.seed = made, check_seed(seed)
        self._filled: set[tuple[int, ...]] = set()
        self._warned = False

    def __call__(self, shape: Shape, dtype: Any = None) -> Any:
        """The tensor of a shape.

        Parameters
        ----------
        shape : sequence of int
            (..., in, out).
        dtype : str or dtype, optional
            ``keras.config.floatx()`` by default. Narrower floats are float32 rounded once.

        Returns
        -------
        tensor of the backend

        Raises
        ------
        ShapeError, DtypeError
            Before anything is made.
        SeedError
            When a ``SeedGenerator`` is asked while a function is traced.

        Warns
        -----
        UserWarning
            Once, when an integer seed has filled a shape before: equal weights stay equal in training.
        """
        full, kind = check_shape(shape), dtype_of(dtype)
        if in_shape_inference():
            return keras.ops.zeros(full, kind.name)
        values = numbers(self.core, full, next_seed(self.seed), kind)
        if isinstance(self.seed, int) and self.core.drawn:
            self._warn_of_twins(full)
        return tensor(values)

    def _warn_of_twins(self, shape: tuple[int, ...]) -> None:
        if shape in self._filled and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.core} with seed={self.seed} has filled a tensor of shape {shape} before: both hold "
                f"the same values. Give each layer an initializer of its own, with another seed or with none",
                UserWarning,
                stacklevel=3,
            )
        self._filled.add(shape)

    def get_config(self) -> dict[str, Any]:
        """Plain data that ``from_config`` turns back into an equal initializer."""
        return {"initializer": self.core.to_dict(), "seed": keras.saving.serialize_keras_object(self.seed)}


class _Named(Initializer):
    """An initializer whose arguments are those of the core's class, and a seed if it draws."""

    def get_config(self) -> dict[str, Any]:
        """Plain data that ``from_config`` turns back into an equal initializer."""
        config = self.core.to_dict()
        del config["name"]
        if self.core.drawn:
            config["seed"] = keras.saving.serialize_keras_object(self.seed)
        return config


NAMED: dict[type[Core], type[_Named]] = {}  # by the core's class


def _named(of: type[Core], arguments: str = "", shape: Shape = (64, 32)) -> type[_Named]:
    """The Keras class of a core class; an example calls it with ``arguments`` and ``shape``."""
    drawn = of.drawn

    def init(self: _Named, given: dict[str, Any]) -> None:
        seed = given.pop("seed", None)
        made = of(**{name: _inner(value) for name, value in given.items()})
        self._set(made, seed)
        self.__dict__.update((name, getattr(made, name)) for name in given)

    parameters = list(inspect.signature(of).parameters.values())
    if drawn:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(inspect.Parameter("seed", kind, default=None, annotation=Any))
        arguments = ", ".join(filter(None, [arguments, "seed=3"]))
    example = f">>> keras.ops.shape({of.__name__}({arguments})({shape}))\n{shape}"
    doc = documented(of.__doc__, SEED if drawn else "", example)
    NAMED[of] = subclass(_Named, of.__name__, parameters, init, doc, package=PACKAGE)
    return NAMED[of]


def _inner(value: Any) -> Any:
    """An argument of the core's: one that is a Keras initializer of fanin stands for its core."""
    return value.core if isinstance(value, Initializer) else value


Zeros = _named(core.Zeros)
Ones = _named(core.Ones)
Constant = _named(core.Constant, "0.1")
Identity = _named(core.Identity)
RandomNormal = _named(core.RandomNormal)
TruncatedNormal = _named(core.TruncatedNormal)
RandomUniform = _named(core.RandomUniform)
UniformUnitScaling = _named(core.UniformUnitScaling, "1.43")
VarianceScaling = _named(core.VarianceScaling, "2.0, 'fan_in', 'normal'")
GlorotNormal = XavierNormal = _named(core.GlorotNormal)
GlorotUniform = XavierUniform = _named(core.GlorotUniform)
HeNormal = KaimingNormal = _named(core.HeNormal)
HeUniform = KaimingUniform = _named(core.HeUniform)
LecunNormal = _named(core.LecunNormal)
LecunUniform = _named(core.LecunUniform)
Orthogonal = _named(core.Orthogonal)
DeltaOrthogonal = _named(core.DeltaOrthogonal, shape=(3, 3, 4, 8))
ConvolutionOrthogonal1D = _named(core.ConvolutionOrthogonal1D, shape=(3, 4, 8))
ConvolutionOrthogonal2D = _named(core.ConvolutionOrthogonal2D, shape=(3, 3, 4, 8))
ConvolutionOrthogonal3D = _named(core.ConvolutionOrthogonal3D, shape=(3, 3, 3, 4, 8))
Dirac = _named(core.Dirac, shape=(3, 3, 8, 8))
Bilinear = _named(core.Bilinear, shape=(4, 4, 1, 1))
HadamardIdentity = _named(core.HadamardIdentity)
Sparse = _named(core.Sparse, "0.9")
Siren = _named(core.Siren)
Sinusoidal = _named(core.Sinusoidal)
Mimetic = _named(core.Mimetic, "'value', pair='attention'", (64, 64))
ICNR = _named(core.ICNR, "'he_normal', 2", (3, 3, 16, 8))
LooksLinear = _named(core.LooksLinear)
Scaled = _named(core.Scaled, "'he_normal', 0.5")
ScaledUnits = _named(core.ScaledUnits, "'he_normal', (0.5, 2.0, 1.0)", (8, 3))
Blocks = _named(core.Blocks, "'glorot_uniform', 4")
WithRow = _named(core.WithRow, "'random_normal', 0")
Tile = _named(core.Tile, "'he_normal', (2, 2)")
AsStored = _named(core.AsStored, "'glorot_uniform', 4")
Masked = _named(core.Masked, "'he_normal', [[1, 0], [1, 1]]", (2, 2))


def get(identifier: Any, seed: Any = None) -> Initializer:
    """The Keras initializer of a name, an expression, a dictionary or a core initializer.

    Parameters
    ----------
    identifier : str, dict, fanin.Initializer or Initializer
        What `fanin.get` takes: ``"he_normal"``, ``"orthogonal(gain=1.5)"``, ``"torch:xavier_uniform"``. Bare
        names are the core's. A Keras initializer of fanin is returned as it is.
    seed : int, keras.random.SeedGenerator or None
        As for the classes; what draws nothing ignores it.

    Raises
    ------
    UnknownNameError, ExpressionError, ArgumentError
        When there is no such initializer.

    Examples
    --------
    >>> type(get("he_normal", seed=3)).__name__
    'HeNormal'
    """
    if isinstance(identifier, Initializer):
        if seed is not None:
            raise ArgumentError(f"`seed` (={seed!r}) must be None for an initializer that has its own")
        return identifier
    made = catalogue.get(identifier)
    named = NAMED.get(type(made))
    if named is None:
        return Initializer(made, seed)
    given = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}  # type: ignore[arg-type]
    return named(**given, seed=seed) if made.drawn else named(**given)
