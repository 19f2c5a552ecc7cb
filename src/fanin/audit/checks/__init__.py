"""The checks, one stateless class each. A new check is one class and one entry here."""

from fanin.audit.checks.balance import Balance as Balance
from fanin.audit.checks.balance import Balanced as Balanced
from fanin.audit.checks.balance import balance as balance
from fanin.audit.checks.depth import DepthScale as DepthScale
from fanin.audit.checks.depth import Isometry as Isometry
from fanin.audit.checks.directions import Distinguishability as Distinguishability
from fanin.audit.checks.fingerprint import ScaledLayer as ScaledLayer
from fanin.audit.checks.fingerprint import WrongFan as WrongFan
from fanin.audit.checks.fingerprint import WrongGain as WrongGain
from fanin.audit.checks.loss import LossAtStart as LossAtStart
from fanin.audit.checks.ranges import DtypeRange as DtypeRange
from fanin.audit.checks.scale import BackwardScale as BackwardScale
from fanin.audit.checks.scale import ForwardScale as ForwardScale
from fanin.audit.checks.scale import ResidualScale as ResidualScale
from fanin.audit.checks.scale import backward_rms as backward_rms
from fanin.audit.checks.scale import forward_rms as forward_rms
from fanin.audit.checks.symmetry import Symmetry as Symmetry
from fanin.audit.checks.symmetry import effective_widths as effective_widths
from fanin.audit.checks.units import DeadUnits as DeadUnits
from fanin.audit.checks.units import LinearUnits as LinearUnits
from fanin.audit.checks.units import SaturatedUnits as SaturatedUnits
from fanin.audit.checks.update import FirstUpdate as FirstUpdate
from fanin.audit.checks.values import CoarseValues as CoarseValues
from fanin.audit.checks.values import DeadBias as DeadBias
from fanin.audit.checks.values import NotFinite as NotFinite
from fanin.audit.checks.values import RepeatedTensor as RepeatedTensor
from fanin.audit.checks.values import SaturatedGate as SaturatedGate
from fanin.audit.checks.values import UnsetMemory as UnsetMemory
from fanin.audit.checks.values import WeightRange as WeightRange
from fanin.audit.checks.values import WeightsAlone as WeightsAlone
from fanin.audit.checks.values import ZeroLayer as ZeroLayer
from fanin.audit.findings import Check

CHECKS: tuple[Check, ...] = (
    Symmetry(),
    Balanced(),
    ForwardScale(),
    BackwardScale(),
    ResidualScale(),
    Distinguishability(),
    DeadUnits(),
    SaturatedUnits(),
    LinearUnits(),
    LossAtStart(),
    FirstUpdate(),
    DepthScale(),
    Isometry(),
    DtypeRange(),
    NotFinite(),
    UnsetMemory(),
    RepeatedTensor(),
    CoarseValues(),
    ZeroLayer(),
    DeadBias(),
    SaturatedGate(),
    WeightRange(),
    ScaledLayer(),
    WrongFan(),
    WrongGain(),
    WeightsAlone(),
)
