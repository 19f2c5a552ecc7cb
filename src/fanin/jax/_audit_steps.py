"""A traced function as one flat list of steps: calls are opened, loops over layers are unrolled."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

MARK = "fanin:"  # begins the named scopes that say which module an equation is in
NN = "jax/_src/nn/functions.py"  # where the functions of jax.nn are written
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
OPENED = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
OWN_DERIVATIVE = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
HEAVY = ("dot_general", "conv_general_dilated", "scan")
CLASSES = "eqx."  # begins the scopes of Equinox, which are classes, not names
INDEX = "index"  # a step of ours: one layer of a stack


@dataclass(frozen=True)
class Step:
    """One equation.

    Attributes
    ----------
    name : str
        Of its primitive, or of the function of ``jax.nn`` that it calls.
    run : callable
        From the values of ``takes`` to those of ``gives``.
    takes, gives : tuple of int
        Numbers of values.
    scope : str
        The innermost module it is in, as ``mark`` has named it; else the user's named scopes.
    settings : mapping
        The parameters of its primitive.
    is_call : bool
        Whether it calls a function that is not opened.
    literals : tuple of (place, value)
        The constants written into it, among what its primitive takes.
    loops : tuple of (loop, round)
        The unrolled loops it is in.
    key : tuple
        Equal for steps that do the same to values of the same kind.
    """

    name: str
    run: Callable[..., Sequence[Any]]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    scope: str
    settings: Mapping[str, Any]
    is_call: bool = False
    literals: tuple[tuple[int, Any], ...] = ()
    loops: tuple[tuple[int, int], ...] = ()
    key: tuple[Any, ...] = ()


@dataclass
class Program:
    """Steps between numbered values.

    Attributes
    ----------
    steps : list of Step
    given, results : tuple of int
        What it takes and what it returns.
    constants : dict of int to array
    kinds : dict of int to shape and dtype
        Of every value.
    """

    steps: list[Step] = field(default_factory=list)
    given: tuple[int, ...] = ()
    results: tuple[int, ...] = ()
    constants: dict[int, Any] = field(default_factory=dict)
    kinds: dict[int, Any] = field(default_factory=dict)


def mark(name: str, layer: str) -> str:
    """The named scope of a module: its canonical name and its class."""
    return f"{MARK}{layer}:{name}"


def flat(closed: core.ClosedJaxpr, stacked: Callable[[int], bool]) -> Program:
    """Every equation that the results need, in the order of execution.

    Parameters
    ----------
    closed : ClosedJaxpr
    stacked : callable
        Whether the argument of this number is a parameter: a loop over some goes through layers.
    """
    made = _Flat()
    made.program.given = tuple(made.value(var.aval) for var in closed.jaxpr.invars)
    made.parameters = {number for at, number in enumerate(made.program.given) if stacked(at)}
    consts = [made.constant(value) for value in closed.consts]
    outs = made.open(closed.jaxpr, [*consts, *made.program.given], "", ())
    made.program.results = tuple(
        made.constant(jnp.asarray(out.val)) if isinstance(out, core.Literal) else out for out in outs
    )
    made.program.steps = list(reversed(list(_needed(made.program))))
    return made.program


def _needed(program: Program) -> Iterator[Step]:
    """The steps that results come from, last first."""
    wanted = set(program.results)
    for step in reversed(program.steps):
        if wanted & set(step.gives):
            wanted.update(step.takes)
            yield step


class _Flat:
    def __init__(self) -> None:
        self.program = Program()
        self.parameters: set[int] = set()  # values that are made of parameters alone
        self.numbers = itertools.count()
        self.loops = itertools.count()

    def value(self, kind: Any) -> int:
        number = next(self.numbers)
        self.program.kinds[number] = kind
        return number

    def constant(self, value: Any) -> int:
        number = self.value(jax.typeof(value))
        self.program.constants[number] = value
        return number

    def add(
        self,
        name: str,
        run: Callable[..., Sequence[Any]],
        atoms: Sequence[Any],
        kinds: Sequence[Any],
        scope: str,
        loops: tuple[tuple[int, int], ...],
        settings: Mapping[str, Any],
        key: tuple[Any, ...],
        *,
        is_call: bool = False,
    ) -> list[int]:
        literals = {at: atom.val for at, atom in enumerate(atoms) if isinstance(atom, core.Literal)}
        takes = tuple(atom for atom in atoms if not isinstance(atom, core.Literal))
        gives = tuple(self.value(kind) for kind in kinds)
        if takes and all(atom in self.parameters or atom in self.program.constants for atom in takes):
            self.parameters.update(gives if self.parameters & set(takes) else ())
        written = tuple((at, str(value), str(jax.typeof(value))) for at, value in literals.items())
        step = Step(
            name,
            _filled(run, literals, len(atoms)) if literals else run,
            takes,
            gives,
            scope,
            settings,
            is_call,
            tuple(literals.items()),
            loops,
            (name, key, written),
        )
        self.program.steps.append(step)
        return list(gives)

    def open(
        self, jaxpr: core.Jaxpr, args: Sequence[Any], scope: str, loops: tuple[tuple[int, int], ...]
    ) -> list[Any]:
        """Add the equations of a jaxpr, whose arguments are numbers or literals; its results are such."""
        known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], args, strict=True))
        for eqn in jaxpr.eqns:
            atoms = [atom if isinstance(atom, core.Literal) else known[atom] for atom in eqn.invars]
            inside = _scope(eqn, scope)
            outs = self.equation(eqn, atoms, inside, loops)
            known.update(zip(eqn.outvars, outs, strict=True))
        return [atom if isinstance(atom, core.Literal) else known[atom] for atom in jaxpr.outvars]

    def equation(
        self, eqn: core.JaxprEqn, atoms: list[Any], scope: str, loops: tuple[tuple[int, int], ...]
    ) -> list[Any]:
        name = eqn.primitive.name
        if name == "scan" and self.over_layers(eqn, atoms):
            return self.unrolled(eqn, atoms, scope, loops)
        called = _called(eqn)
        function = None if called is None else _function(called)
        if called is not None and function is None and _opens(name, called.jaxpr):
            consts = [self.constant(value) for value in called.consts]
            return self.open(called.jaxpr, [*consts, *atoms], scope, loops)
        kinds = [var.aval for var in eqn.outvars]
        key = tuple((word, _hashable(value)) for word, value in sorted(eqn.params.items()))
        run, is_call = _bound(eqn), called is not None
        return self.add(function or name, run, atoms, kinds, scope, loops, eqn.params, key, is_call=is_call)

    # --- loops over layers -----------------------------------------------------------------------

    def over_layers(self, eqn: core.JaxprEqn, atoms: Sequence[Any]) -> bool:
        """Whether a loop takes parameters one by one along their first axis."""
        first = eqn.params["num_consts"] + eqn.params["num_carry"]
        return any(not isinstance(atom, core.Literal) and atom in self.parameters for atom in atoms[first:])

    def unrolled(
        self, eqn: core.JaxprEqn, atoms: list[Any], scope: str, loops: tuple[tuple[int, int], ...]
    ) -> list[Any]:
        settings = eqn.params
        n_consts, n_carry, length = (settings[word] for word in ("num_consts", "num_carry", "length"))
        first = n_consts + n_carry
        consts, carry, rows = atoms[:n_consts], atoms[n_consts:first], atoms[first:]
        body, loop = settings["jaxpr"], next(self.loops)
        own = [self.constant(value) for value in body.consts]
        made: dict[int, list[Any]] = {}
        for at in range(length)[:: -1 if settings["reverse"] else 1]:
            inside = (*loops, (loop, at))
            taken = [self.row(row, at, scope, inside) for row in rows]
            outs = self.open(body.jaxpr, [*own, *consts, *carry, *taken], scope, inside)
            carry, made[at] = outs[:n_carry], outs[n_carry:]
        kinds = [var.aval for var in eqn.outvars[n_carry:]]
        columns = [[made[at][column] for at in range(length)] for column in range(len(kinds))]
        stacks = [
            self.add("stack", _stack, column, [kind], scope, loops, {}, (length,))
            for column, kind in zip(columns, kinds, strict=True)
        ]
        return [*carry, *itertools.chain.from_iterable(stacks)]

    def row(self, stack: int, at: int, scope: str, loops: tuple[tuple[int, int], ...]) -> int:
        kind = self.program.kinds[stack]
        one = kind.update(shape=kind.shape[1:])

        def run(rows: Any) -> list[Any]:
            return [jax.lax.dynamic_index_in_dim(rows, at, keepdims=False)]

        (number,) = self.add(INDEX, run, [stack], [one], scope, loops, {"at": at}, (at,))
        return number


def _stack(*rows: Any) -> list[Any]:
    return [jnp.stack(rows)]


# --- equations -----------------------------------------------------------------------------------


def _bound(eqn: core.JaxprEqn) -> Callable[..., Sequence[Any]]:
    primitive: Any = eqn.primitive

    def run(*values: Any) -> Sequence[Any]:
        found = primitive.get_bind_params(eqn.params)
        subfuns, settings = found if isinstance(found, tuple) else ((), found)  # a tuple before JAX 0.10
        results = primitive.bind(*subfuns, *values, **settings)
        return list(results) if primitive.multiple_results else [results]

    return run


def _filled(
    run: Callable[..., Sequence[Any]], literals: Mapping[int, Any], n: int
) -> Callable[..., Sequence[Any]]:
    def with_literals(*values: Any) -> Sequence[Any]:
        left = iter(values)
        return run(*(literals[at] if at in literals else next(left) for at in range(n)))

    return with_literals


def _called(eqn: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """The function that an equation calls once, with its own arguments."""
    if eqn.primitive.name not in (*OPENED, *OWN_DERIVATIVE):
        return None
    found = next((eqn.params[word] for word in CALLS if word in eqn.params), None)
    return core.ClosedJaxpr(found, ()) if isinstance(found, core.Jaxpr) else found


def _function(called: core.ClosedJaxpr) -> str | None:
    """The name of a function of ``jax.nn``; None of others."""
    name, _, place = str(called.jaxpr.debug_info.func_src_info).partition(" at ")
    return name if NN in place.replace("\\", "/") else None


def _opens(primitive: str, jaxpr: core.Jaxpr) -> bool:
    """Whether to look into a call. One with a derivative of its own is one step, unless it holds layers."""
    return primitive not in OWN_DERIVATIVE or any(
        eqn.primitive.name in HEAVY or ((inner := _called(eqn)) and _opens(primitive, inner.jaxpr))
        for eqn in jaxpr.eqns
    )


def _scope(eqn: core.JaxprEqn, outer: str) -> str:
    stack = eqn.source_info.name_stack.stack
    names = [part.name for part in stack if type(part).__name__ == "Scope"]
    names = [name for name in names if not name.startswith(CLASSES)]
    marked = [name for name in names if name.startswith(MARK)]
    if marked:
        return marked[-1]
    if not names or outer.startswith(MARK):
        return outer
    return ".".join(filter(None, (outer, *names)))


def _hashable(value: Any) -> Any:
    """The value, or what stands for it while it is kept."""
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
