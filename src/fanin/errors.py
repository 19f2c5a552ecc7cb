"""Every error fanin raises on purpose. One base class; each also is the builtin a plain user would catch."""

import difflib
from collections.abc import Iterable


class FaninError(Exception):
    """Base class of all errors raised by fanin."""


class ArgumentError(FaninError, ValueError):
    """An argument has a value it cannot have."""


class ShapeError(ArgumentError):
    """A shape, window, or pair of axes does not fit."""


class SeedError(ArgumentError):
    """A seed is missing or is not an integer in 0 .. 2**64 - 1."""


class DtypeError(FaninError, TypeError, ValueError):
    """A dtype is unknown, not meant for this initializer, or too narrow for its values."""


class OutError(ArgumentError):
    """The buffer given as ``out`` cannot take the values."""


class UnknownNameError(FaninError, KeyError):
    """A name that is not in a catalogue; the message lists the near ones."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0])


class ExpressionError(ArgumentError):
    """A catalogue expression such as ``"he_normal"`` or ``"orthogonal(gain=2)"`` is malformed."""


class RecipeError(ArgumentError):
    """A recipe or one of its rules is malformed, lacks a fact, or does not fit the model."""


class PlanError(ArgumentError):
    """A plan cannot be made, read, or applied: the message names the parameter."""


class CheckpointError(ArgumentError):
    """A checkpoint is truncated, damaged, or not the one that is meant: the message names file and tensor."""


def near(name: str, known: Iterable[str]) -> str:
    """A sentence naming the known names closest to ``name``, or all of them when few."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"known names: {', '.join(known)}"


class TraceError(ArgumentError):
    """A model cannot be traced, or a trace cannot be read: the message says where and why."""


class CalibrationError(ArgumentError):
    """A model cannot be calibrated: the message names the layer, or says why nothing would change."""
