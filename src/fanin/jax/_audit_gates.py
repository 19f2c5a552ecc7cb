"""What goes into the gates of a recurrent layer at its first step."""

from collections.abc import Mapping, Sequence
from typing import Any

from fanin.jax._audit_steps import Step, flat
from fanin.model import GATES

# A cell's functions in the order in which it computes them; an LSTM's last is of its state.
CELLS = {
    ("logistic", "logistic", "tanh", "logistic", "tanh"): GATES["LSTM"],
    ("logistic", "logistic", "tanh"): GATES["GRU"],
}


def gates(loop: Step, values: Sequence[Any]) -> Mapping[str, Any]:
    """The inputs of the gates' functions, by the gates' names; of other cells than LSTM and GRU none.

    Parameters
    ----------
    loop : Step
        A scan over time.
    values : sequence of array
        What it takes.
    """
    settings = loop.settings
    program = flat(settings["jaxpr"], lambda number: False)
    curves = [step for step in program.steps if step.name in ("logistic", "tanh")]
    names = CELLS.get(tuple(step.name for step in curves), ())
    literals, left = dict(loop.literals), iter(values)
    taken = [literals[at] if at in literals else next(left) for at in range(len(program.given))]
    first, start = settings["num_consts"] + settings["num_carry"], -1 if settings["reverse"] else 0
    given = [value if at < first else value[start] for at, value in enumerate(taken)]
    known = program.constants | dict(zip(program.given, given, strict=True))
    for step in program.steps:
        known.update(zip(step.gives, step.run(*(known[take] for take in step.takes)), strict=True))
    return {name: known[step.takes[0]] for name, step in zip(names, curves, strict=False)}
