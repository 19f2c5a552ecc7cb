"""From steps to operations: which values are measured, and what each is of.

Kernels, sums, products and the functions of ``jax.nn`` are operations wherever they stand. What lies between
them (element-wise steps, reductions) is gathered until an operation or the output takes it, and is then one
operation: of a kind where its steps show one (a division by a root of a mean square is a normalization), else
``"other"``.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from fanin.jax._audit_parts import VIEWS, Part, after, module_of, names_of, roles_of
from fanin.jax._audit_steps import INDEX, MARK, OWN_DERIVATIVE, Program, Step
from fanin.model import Tensor

MOVES = {*VIEWS, "rev", "pad", "dynamic_slice", "gather", "expand_dims"}
REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin", "cumsum"}
WINDOWS = {"reduce_window_sum", "reduce_window_max", "reduce_window", "reduce_window_min"}
# Functions of each element that are primitives, by the names that `fanin.gain` knows.
CURVES = {
    "tanh": "tanh",
    "logistic": "sigmoid",
    "erf": "erf",
    "erfc": "erf",
    "sin": "sin",
    "cos": "cos",
    "relu": "relu",
}
# Functions of jax.nn that are no functions of each element.
FUNCTIONS = {"softmax": "softmax", "log_softmax": "other", "standardize": "norm", "glu": "other"}
ALIKE = {"swish": "silu", "soft_sign": "softsign", "hard_tanh": "hardtanh", "hard_sigmoid": "hardsigmoid"}
KERNEL = {"dot_general": "dense", "conv_general_dilated": "conv"}
SCALES = {"norm_scale", "norm_offset", "norm_bias", "slope"}
VECTORS = {"bias", "gate_bias", "recurrent_bias"}
NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "RMSNorm", "InstanceNorm")
WORDS = {"multiply": "mul"}  # what a function is called in names, where it is not the kind
STATE = {"kernel", "recurrent_kernel"}  # loops with these are recurrent layers


@dataclass
class Found:
    """An operation of the program.

    Attributes
    ----------
    value : int
        Number of its output.
    watched : int or None
        Number of the value that an activation takes.
    units : int
        The axis of its units.
    loop : Step or None
        Of a recurrent layer, the step that runs it.
    """

    kind: str
    name: str
    layer: str
    value: int
    inputs: tuple[int, ...]
    parameters: tuple[str, ...] = ()
    activation: str | None = None
    watched: int | None = None
    units: int = -1
    loop: Step | None = None


@dataclass
class _Light:
    """What has been gathered since the last operations; ``roots`` are the values it was gathered from."""

    value: int
    sources: frozenset[int]
    words: frozenset[str]
    parts: tuple[Part, ...]
    step: Step
    roots: frozenset[int]
    watched: int | None = None


@dataclass
class _Value:
    """What is known of a value; views of it share it.

    ``sources`` are the operations that made it, -1 the batch; none of what is no signal.
    """

    sources: frozenset[int] = frozenset()
    parts: tuple[Part, ...] = ()
    light: _Light | None = None
    units: int = -1
    of_batch: bool = False

    @property
    def is_signal(self) -> bool:
        return bool(self.sources)


@dataclass
class Recognized:
    """The operations of a program, and which of its values are signals or made of parameters alone."""

    operations: list[Found]
    output: int
    signals: set[int] = field(default_factory=set)
    learned: set[int] = field(default_factory=set)


def recognize(program: Program, tensors: Sequence[Tensor], output: int) -> Recognized:
    """The operations between the batch and the output.

    Parameters
    ----------
    program : Program
        Its first arguments are the parameters.
    tensors : sequence of fanin.model.Tensor
        What these are.
    output : int
        Number of the value that is the model's main output.
    """
    made = _Recognizer(program)
    for number, tensor in zip(program.given, tensors, strict=False):
        made.values[number] = _Value(parts=(Part.whole(tensor),))
    for number in program.given[len(tensors) :]:
        floating = jnp.issubdtype(program.kinds[number].dtype, jnp.floating)
        made.values[number] = _Value(frozenset({-1} if floating else ()), of_batch=True)
    for step in program.steps:
        made.see(step)
    sources = made.settle(output)
    last = max(sources, default=-1)
    signals = {number for number, value in made.values.items() if value.is_signal}
    learned = {number for number, value in made.values.items() if value.parts and not value.is_signal}
    return Recognized(made.operations, last, signals, learned)


class _Recognizer:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.values: dict[int, _Value] = {number: _Value() for number in program.constants}
        self.operations: list[Found] = []
        self.calls: Counter[str] = Counter()
        self.rounds: dict[tuple[int, int], list[Part]] = defaultdict(list)
        self.uses = Counter(number for step in program.steps for number in step.takes)
        self.uses.update(program.results)

    def see(self, step: Step) -> None:
        taken = [self.values[number] for number in step.takes]
        signals = [number for number in step.takes if self.values[number].is_signal]
        if not signals:
            self.constant(step, taken)
        elif not self.floating(step):
            self.give(step, _Value(of_batch=True))  # counts and masks made of signals carry none on
        elif step.name in MOVES and len(signals) == 1 and not any(value.parts for value in taken):
            self.give(step, self.values[signals[0]])
        else:
            rule = _function if step.is_call else RULES.get(step.name)
            if rule is None or not rule(self, step, signals):
                self.gather(step, signals)

    # --- what is no signal -----------------------------------------------------------------------

    def constant(self, step: Step, taken: Sequence[_Value]) -> None:
        of_batch = any(value.of_batch for value in taken)
        parts = [part for value in taken for part in value.parts]
        if not parts or not self.floating(step):
            self.give(step, _Value(of_batch=of_batch))
        elif step.name in ("gather", "dot_general") and (of_batch or roles_of(parts) & {"embedding"}):
            self.operation(step, "embedding", [], parts)
        else:
            if step.name == INDEX:
                self.rounds[step.loops[-1]].extend(after(step, part, len(part.axes) - 1, 0) for part in parts)
            for at, number in enumerate(step.gives):
                rank = self.rank(number)
                moved = tuple(after(step, part, rank, at) for part in parts)
                self.values[number] = _Value(parts=moved, of_batch=of_batch)

    # --- signals ---------------------------------------------------------------------------------

    def gather(self, step: Step, signals: Sequence[int]) -> bool:
        """A step between operations: of what it takes, a finished function is an operation first."""
        for number in signals:
            light = self.values[number].light
            if light is not None and _is_finished(light, step):
                self.settle(number)
        held = [self.values[number] for number in signals]
        lights = [value.light for value in held if value.light is not None]
        parts = tuple(part for number in step.takes for part in self.parts_of(number))
        words = frozenset({_word(step, len(signals))}.union(*(light.words for light in lights)))
        watched = next((light.watched for light in lights if light.watched is not None), None)
        if watched is None and _watches(step, self.rank(signals[0])):
            watched = signals[0]
        sources = frozenset().union(*(value.sources for value in held))
        roots = frozenset().union(*map(self.roots, signals))
        units = held[0].units
        for number in step.gives:
            light = _Light(number, sources, words, parts, step, roots, watched)
            self.values[number] = _Value(sources, light=light, units=units, of_batch=True)
        return True

    def settle(self, number: int) -> frozenset[int]:
        """The operations that a value comes from; what was gathered on the way becomes one."""
        value = self.values[number]
        light = value.light
        if light is not None:
            kind, activation = _kind_of(light)
            word = activation or (light.step.name if kind == "other" else kind)
            found = self.found(kind, word, light.step, light.value, light.sources, light.parts)
            found.activation, found.watched, found.units = activation, light.watched, value.units
            value.light, value.sources = None, self.append(found)
        return value.sources

    def operation(self, step: Step, kind: str, signals: Iterable[int], parts: Sequence[Part] = ()) -> Found:
        """One whose output is the first result of a step."""
        sources = frozenset().union(*(self.settle(number) for number in signals))
        word = step.name if kind in ("activation", "other") else WORDS.get(kind, kind)
        found = self.found(kind, word, step, step.gives[0], sources, parts)
        rank = self.rank(found.value)
        kept = [self.values[number].units for number in signals if self.rank(number) == rank]
        found.units = kept[0] if kept and kind not in ("dense", "matmul", "conv") else -1
        self.give(step, _Value(self.append(found), units=found.units, of_batch=True))
        return found

    def found(
        self, kind: str, word: str, step: Step, value: int, sources: Iterable[int], parts: Sequence[Part]
    ) -> Found:
        names = names_of(parts)
        layer, module = self.module(step)
        own = kind == "norm" and layer.endswith(NORMS)
        name = module_of(names) if names else module if own else f"{module}:{word}"
        return Found(
            kind, name, layer if layer and name == module else word, value, tuple(sorted(sources)), names
        )

    def append(self, found: Found) -> frozenset[int]:
        self.calls[found.name] += 1
        if self.calls[found.name] > 1:
            found.name += f"#{self.calls[found.name]}"
        self.operations.append(found)
        return frozenset({len(self.operations) - 1})

    # --- facts -----------------------------------------------------------------------------------

    def give(self, step: Step, value: _Value) -> None:
        self.values.update(dict.fromkeys(step.gives, value))

    def parts_of(self, number: int) -> tuple[Part, ...]:
        value = self.values[number]
        return value.light.parts if value.light is not None else value.parts

    def roots(self, number: int) -> frozenset[int]:
        light = self.values[number].light
        return frozenset({number}) if light is None else light.roots

    def rank(self, number: int) -> int:
        return len(self.program.kinds[number].shape)

    def floating(self, step: Step) -> bool:
        return any(jnp.issubdtype(self.program.kinds[number].dtype, jnp.floating) for number in step.gives)

    def module(self, step: Step) -> tuple[str, str]:
        """Class and canonical name of the module that a step is in; layers of a stack by their numbers."""
        layer, name = step.scope.removeprefix(MARK).split(":", 1) if MARK in step.scope else ("", step.scope)
        for level, loop in enumerate(step.loops):
            names = names_of(self.rounds[loop])
            if names:
                name = numbered(name, module_of(names), loop[1], level)
        return layer, name


def numbered(scope: str, one: str, at: int, level: int = 0) -> str:
    """The name of a scope inside one of a stack of modules, from that of the one.

    >>> numbered("layers.fc", "layers.3", 3), numbered("", "layers.3", 3), numbered("norm", "layers.3", 3)
    ('layers.3.fc', 'layers.3', 'layers.3.norm')
    """
    words, outer = scope.split(".") if scope else [], one.split(".")
    places = [place for place, word in enumerate(outer) if word == str(at)]
    if not places:
        return scope
    depth = places[min(level, len(places) - 1)]
    if words[: depth + 1] == outer[: depth + 1]:
        return scope
    inside = words[depth:] if words[:depth] == outer[:depth] else words
    return ".".join([*outer[: depth + 1], *inside])


# --- rules: one for each primitive that is an operation wherever it stands -----------------------


def _product(made: _Recognizer, step: Step, signals: Sequence[int]) -> bool:
    """A matrix product or convolution: with a kernel, or of signals."""
    parts = [part for number in step.takes for part in made.values[number].parts]
    if parts:
        found = made.operation(step, KERNEL[step.name], signals, parts)
    else:
        both = step.name == "dot_general" and len(signals) > 1
        found = made.operation(step, "matmul" if both else "other", signals)
    if step.name == "conv_general_dilated":
        found.units = step.settings["dimension_numbers"].out_spec[1]
        made.values[found.value].units = found.units
    return True


def _sum(made: _Recognizer, step: Step, signals: Sequence[int]) -> bool:
    parts = [part for number in step.takes for part in made.values[number].parts]
    if parts:
        if _is_scaling(made, signals, parts):
            return False
        if not _is_bias(made, step, signals, parts):
            made.operation(step, "add", signals, parts)
        return True
    return _of_signals(made, step, signals, "add")


def _multiply(made: _Recognizer, step: Step, signals: Sequence[int]) -> bool:
    parts = [part for number in step.takes for part in made.values[number].parts]
    if parts:
        if _is_scaling(made, signals, parts):
            return False
        made.operation(step, "multiply", signals, parts)
        return True
    return _of_signals(made, step, signals, "multiply")


def _of_signals(made: _Recognizer, step: Step, signals: Sequence[int], kind: str) -> bool:
    """A sum or product of two, unless one is a function of the other that is still gathered."""
    if len(signals) < 2:
        return False
    for number in signals:
        light = made.values[number].light
        if light is not None and _is_finished(light, step):
            made.settle(number)
    if not _is_own(made, *signals):
        made.operation(step, kind, signals)
        return True
    return False


def _is_own(made: _Recognizer, one: int, other: int) -> bool:
    """Whether two values are made of the same one by steps that are still gathered."""
    values = [made.values[number] for number in (one, other)]
    if values[0].sources != values[1].sources:
        return False
    moments = any(value.light and value.light.words & REDUCTIONS for value in values)
    return moments or bool(made.roots(one) & made.roots(other))


def _is_scaling(made: _Recognizer, signals: Sequence[int], parts: Sequence[Part]) -> bool:
    """Whether parameters belong to what is gathered: scale and offset of a normalization, a slope."""
    lights = [made.values[number].light for number in signals]
    normal = any(light is not None and _kind_of(light)[0] == "norm" for light in lights)
    return normal or bool(roles_of(parts) & SCALES)


def _is_bias(made: _Recognizer, step: Step, signals: Sequence[int], parts: Sequence[Part]) -> bool:
    """Whether a vector is added to what a kernel has just made: then it is the same operation."""
    value = made.values[signals[0]]
    if len(signals) > 1 or value.light is not None or len(value.sources) > 1 or -1 in value.sources:
        return False
    found = made.operations[next(iter(value.sources))]
    plain = roles_of(parts) <= VECTORS or all(len(part.tensor.shape) == 1 for part in parts)
    once = made.uses[found.value] == 1 and made.uses[signals[0]] == 1
    if not plain or not once or found.kind not in ("dense", "conv"):
        return False
    found.parameters = tuple(dict.fromkeys((*found.parameters, *names_of(parts))))
    found.value = step.gives[0]
    made.give(step, value)
    return True


def _concatenate(made: _Recognizer, step: Step, signals: Sequence[int]) -> bool:
    parts = [part for number in step.takes for part in made.values[number].parts]
    if len(signals) == 1 and not parts:
        made.give(step, made.values[signals[0]])  # zeros beside a signal: padding
    else:
        made.operation(step, "concat", signals, parts)
    return True


def _loop(made: _Recognizer, step: Step, signals: Sequence[int]) -> bool:
    """A loop is one operation: a recurrent layer where it has kernels."""
    parts = [part for number in step.takes for part in made.values[number].parts]
    recurrent = step.name == "scan" and bool(roles_of(parts) & STATE)
    found = made.operation(step, "recurrent" if recurrent else "other", signals, parts)
    sequence = [number for number in step.gives if number in made.uses]
    found.value = sequence[-1] if sequence else found.value
    found.loop = step if recurrent else None
    return True


def _function(made: _Recognizer, step: Step, signals: Sequence[int]) -> bool:
    """A function of ``jax.nn``, or one with a derivative of its own."""
    parts = [part for number in step.takes for part in made.values[number].parts]
    kind = "other" if step.name in OWN_DERIVATIVE else FUNCTIONS.get(step.name, "activation")
    found = made.operation(step, kind, signals, parts)
    if kind in ("activation", "softmax"):
        found.activation = ALIKE.get(step.name, step.name) if kind == "activation" else None
        found.watched = signals[0]
    return True


RULES: Mapping[str, Callable[[_Recognizer, Step, Sequence[int]], bool]] = {
    "dot_general": _product,
    "conv_general_dilated": _product,
    "add": _sum,
    "sub": _sum,
    "add_any": _sum,
    "mul": _multiply,
    "concatenate": _concatenate,
    "stack": _concatenate,
    "scan": _loop,
    "while": _loop,
    "cond": _loop,
}


# --- what is gathered ----------------------------------------------------------------------------


def _word(step: Step, n_signals: int) -> str:
    if step.name == "max" and any(np.ndim(value) == 0 and float(value) == 0 for _, value in step.literals):
        return "relu"
    return "product" if step.name == "mul" and n_signals > 1 else step.name


def _watches(step: Step, rank: int) -> bool:
    """Whether a step takes the input of a function of each element, or of a softmax along the last axis."""
    if step.name == "reduce_max":
        return tuple(step.settings["axes"]) == (rank - 1,)
    return _word(step, 1) in CURVES


def _is_finished(light: _Light, step: Step) -> bool:
    """Whether a step begins another function."""
    kind, _ = _kind_of(light)
    if kind == "norm" and light.step.scope != step.scope and MARK in light.step.scope:
        return True
    begins = step.name in REDUCTIONS | WINDOWS or _word(step, 1) in CURVES
    return begins and (kind in ("norm", "activation", "softmax") or bool(light.words & WINDOWS))


def _kind_of(light: _Light) -> tuple[str, str | None]:
    """Kind and activation that gathered steps show."""
    words, roles = light.words, roles_of(light.parts)
    if roles & {"norm_scale", "norm_offset", "norm_bias"}:
        return "norm", None
    if words & {"rsqrt", "sqrt"} and "reduce_sum" in words:
        return "norm", None
    if {"exp", "reduce_sum", "div"} <= words:
        return "softmax", None
    activation = "prelu" if "slope" in roles else _curve(words)
    if activation is not None:
        return "activation", activation
    return ("pool", None) if words & (REDUCTIONS | WINDOWS) - {"cumsum"} else ("other", None)


def _curve(words: frozenset[str]) -> str | None:
    """The function of each element that steps make up, whether or not it is multiplied by its argument."""
    curves = {CURVES[word] for word in words & CURVES.keys()}
    alone = "product" not in words
    known = {
        ("erf", False): "gelu",
        ("tanh", False): "gelu" if "integer_pow" in words else None,
        ("sigmoid", False): "silu",
    }
    if len(curves) != 1:
        return None
    (curve,) = curves
    return curve if alone else known.get((curve, alone))
