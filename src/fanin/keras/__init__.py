"""fanin for Keras 3, on TensorFlow, JAX and PyTorch.

>>> import keras
>>> import fanin.keras as fk
>>> layer = keras.layers.Dense(64, kernel_initializer=fk.HeNormal(seed=3))
"""

from fanin.keras.initializers import ICNR as ICNR
from fanin.keras.initializers import AsStored as AsStored
from fanin.keras.initializers import Bilinear as Bilinear
from fanin.keras.initializers import Blocks as Blocks
from fanin.keras.initializers import Constant as Constant
from fanin.keras.initializers import ConvolutionOrthogonal1D as ConvolutionOrthogonal1D
from fanin.keras.initializers import ConvolutionOrthogonal2D as ConvolutionOrthogonal2D
from fanin.keras.initializers import ConvolutionOrthogonal3D as ConvolutionOrthogonal3D
from fanin.keras.initializers import DeltaOrthogonal as DeltaOrthogonal
from fanin.keras.initializers import Dirac as Dirac
from fanin.keras.initializers import GlorotNormal as GlorotNormal
from fanin.keras.initializers import GlorotUniform as GlorotUniform
from fanin.keras.initializers import HadamardIdentity as HadamardIdentity
from fanin.keras.initializers import HeNormal as HeNormal
from fanin.keras.initializers import HeUniform as HeUniform
from fanin.keras.initializers import Identity as Identity
from fanin.keras.initializers import Initializer as Initializer
from fanin.keras.initializers import KaimingNormal as KaimingNormal
from fanin.keras.initializers import KaimingUniform as KaimingUniform
from fanin.keras.initializers import LecunNormal as LecunNormal
from fanin.keras.initializers import LecunUniform as LecunUniform
from fanin.keras.initializers import LooksLinear as LooksLinear
from fanin.keras.initializers import Masked as Masked
from fanin.keras.initializers import Mimetic as Mimetic
from fanin.keras.initializers import Ones as Ones
from fanin.keras.initializers import Orthogonal as Orthogonal
from fanin.keras.initializers import RandomNormal as RandomNormal
from fanin.keras.initializers import RandomUniform as RandomUniform
from fanin.keras.initializers import Scaled as Scaled
from fanin.keras.initializers import Sinusoidal as Sinusoidal
from fanin.keras.initializers import Siren as Siren
from fanin.keras.initializers import Sparse as Sparse
from fanin.keras.initializers import Tile as Tile
from fanin.keras.initializers import TruncatedNormal as TruncatedNormal
from fanin.keras.initializers import UniformUnitScaling as UniformUnitScaling
from fanin.keras.initializers import VarianceScaling as VarianceScaling
from fanin.keras.initializers import WithRow as WithRow
from fanin.keras.initializers import XavierNormal as XavierNormal
from fanin.keras.initializers import XavierUniform as XavierUniform
from fanin.keras.initializers import Zeros as Zeros
from fanin.keras.initializers import get as get
