"""Data-dependent initialization: layers scaled to what a batch shows, and the plan that repeats it."""

from fanin.calibrate.engine import Correction as Correction
from fanin.calibrate.engine import Engine as Engine
from fanin.calibrate.engine import Seen as Seen
from fanin.calibrate.forward import krahenbuhl_within as krahenbuhl_within
from fanin.calibrate.forward import lsuv as lsuv
from fanin.calibrate.forward import weight_norm as weight_norm
from fanin.calibrate.gradients import jacobian as jacobian
from fanin.calibrate.gradients import krahenbuhl_between as krahenbuhl_between
from fanin.calibrate.graph import analytic as analytic
from fanin.calibrate.heads import head as head
from fanin.calibrate.methods import METHODS as METHODS
from fanin.calibrate.methods import calibrated as calibrated
from fanin.calibrate.methods import checked as checked
from fanin.calibrate.residual import residual_scaling as residual_scaling
from fanin.calibrate.result import Calibration as Calibration
from fanin.calibrate.result import Scale as Scale

__all__ = [
    "METHODS",
    "Calibration",
    "Correction",
    "Engine",
    "Scale",
    "Seen",
    "analytic",
    "calibrated",
    "checked",
    "head",
    "jacobian",
    "krahenbuhl_between",
    "krahenbuhl_within",
    "lsuv",
    "residual_scaling",
    "weight_norm",
]
