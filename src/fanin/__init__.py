"""fanin: parameter initialization for neural networks. One seed, one network.

>>> import fanin
>>> fanin.HeNormal()((512, 256), seed=0, name="fc1.weight").shape
(512, 256)
"""

from fanin import recipes as recipes
from fanin._kernel import kernel as kernel
from fanin.dialects import Difference as Difference
from fanin.dialects import diff as diff
from fanin.errors import ArgumentError as ArgumentError
from fanin.errors import CheckpointError as CheckpointError
from fanin.errors import DtypeError as DtypeError
from fanin.errors import ExpressionError as ExpressionError
from fanin.errors import FaninError as FaninError
from fanin.errors import OutError as OutError
from fanin.errors import PlanError as PlanError
from fanin.errors import RecipeError as RecipeError
from fanin.errors import SeedError as SeedError
from fanin.errors import ShapeError as ShapeError
from fanin.errors import UnknownNameError as UnknownNameError
from fanin.fans import Axes as Axes
from fanin.fans import Fans as Fans
from fanin.gains import gain as gain
from fanin.initializers import ICNR as ICNR
from fanin.initializers import AsStored as AsStored
from fanin.initializers import Bilinear as Bilinear
from fanin.initializers import Blocks as Blocks
from fanin.initializers import Constant as Constant
from fanin.initializers import ConvolutionOrthogonal1D as ConvolutionOrthogonal1D
from fanin.initializers import ConvolutionOrthogonal2D as ConvolutionOrthogonal2D
from fanin.initializers import ConvolutionOrthogonal3D as ConvolutionOrthogonal3D
from fanin.initializers import DeltaOrthogonal as DeltaOrthogonal
from fanin.initializers import Description as Description
from fanin.initializers import Dirac as Dirac
from fanin.initializers import GlorotNormal as GlorotNormal
from fanin.initializers import GlorotUniform as GlorotUniform
from fanin.initializers import HadamardIdentity as HadamardIdentity
from fanin.initializers import HeNormal as HeNormal
from fanin.initializers import HeUniform as HeUniform
from fanin.initializers import Identity as Identity
from fanin.initializers import Initializer as Initializer
from fanin.initializers import KaimingNormal as KaimingNormal
from fanin.initializers import KaimingUniform as KaimingUniform
from fanin.initializers import LecunNormal as LecunNormal
from fanin.initializers import LecunUniform as LecunUniform
from fanin.initializers import LooksLinear as LooksLinear
from fanin.initializers import Masked as Masked
from fanin.initializers import Mimetic as Mimetic
from fanin.initializers import Ones as Ones
from fanin.initializers import Orthogonal as Orthogonal
from fanin.initializers import RandomNormal as RandomNormal
from fanin.initializers import RandomUniform as RandomUniform
from fanin.initializers import Scaled as Scaled
from fanin.initializers import ScaledUnits as ScaledUnits
from fanin.initializers import Sinusoidal as Sinusoidal
from fanin.initializers import Siren as Siren
from fanin.initializers import Sparse as Sparse
from fanin.initializers import Tile as Tile
from fanin.initializers import TruncatedNormal as TruncatedNormal
from fanin.initializers import UniformUnitScaling as UniformUnitScaling
from fanin.initializers import VarianceScaling as VarianceScaling
from fanin.initializers import WithRow as WithRow
from fanin.initializers import XavierNormal as XavierNormal
from fanin.initializers import XavierUniform as XavierUniform
from fanin.initializers import Zeros as Zeros
from fanin.initializers import from_dict as from_dict
from fanin.initializers import get as get
from fanin.initializers import names as names
from fanin.meanfield import CriticalPoint as CriticalPoint
from fanin.meanfield import DepthScale as DepthScale
from fanin.meanfield import critical as critical
from fanin.meanfield import depth_scale as depth_scale
from fanin.meanfield import half_stable as half_stable
from fanin.plan import Plan as Plan
from fanin.recipe import Match as Match
from fanin.recipe import Recipe as Recipe
from fanin.recipe import Rule as Rule
from fanin.recipe import activation as activation
from fanin.recipe import block as block
from fanin.recipe import layer as layer
from fanin.recipe import named as named
from fanin.recipe import role as role
from fanin.recipe import shape as shape
from fanin.streams import CONTRACT as CONTRACT
from fanin.streams import fold_seed as fold_seed
from fanin.streams import fresh_seed as fresh_seed
from fanin.streams import philox4x32 as philox4x32
from fanin.threads import set_threads as set_threads

__version__ = "0.1.0"
