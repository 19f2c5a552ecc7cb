"""Will it train? Checks of a network at initialization, over the numbers of a trace."""

from fanin.audit.chain import Layer as Layer
from fanin.audit.chain import of_chain as of_chain
from fanin.audit.checks import CHECKS as CHECKS
from fanin.audit.coordinates import Coordinate as Coordinate
from fanin.audit.coordinates import CoordinateCheck as CoordinateCheck
from fanin.audit.coordinates import coordinate_check as coordinate_check
from fanin.audit.findings import Check as Check
from fanin.audit.findings import Finding as Finding
from fanin.audit.ranking import examine as examine
from fanin.audit.trace import Operation as Operation
from fanin.audit.trace import Signal as Signal
from fanin.audit.trace import Spread as Spread
from fanin.audit.trace import Trace as Trace
from fanin.audit.trace import Weights as Weights

__all__ = [
    "CHECKS",
    "Check",
    "Coordinate",
    "CoordinateCheck",
    "Finding",
    "Layer",
    "Operation",
    "Signal",
    "Spread",
    "Trace",
    "Weights",
    "coordinate_check",
    "examine",
    "of_chain",
]
