"""fanin for Keras 3, on TensorFlow, JAX and PyTorch: plan a model's initialization, look at it, apply it.

>>> import keras
>>> import fanin.keras as fk
>>> layers = [keras.Input((784,)), keras.layers.Dense(256, "relu", name="hidden"), keras.layers.Dense(10)]
>>> model = keras.Sequential(layers)
>>> print(fk.plan(model, "he_normal", seed=0))
recipe he_normal, seed 0, fanin/1: 4 parameters, 203,530 elements
parameter      shape    role    rule         initializer  fan in, out      std  dtype
───────────────────────────────────────────────────────────────────────────────────────
hidden.weight  784x256  kernel  role kernel  he_normal()     784, 256  0.05051  float32
hidden.bias    256      bias    role bias    zeros()         784, 256        0  float32
dense.weight   256x10   kernel  role kernel  he_normal()      256, 10  0.08839  float32
dense.bias     10       bias    role bias    zeros()          256, 10        0  float32
>>> plan = fk.initialize(model, "he_normal", seed=0)

Its initializers are Keras initializers, too:

>>> layer = keras.layers.Dense(64, kernel_initializer=fk.HeNormal(seed=3))
"""

from fanin.fans import Axes as Axes
from fanin.keras._layers import layer as layer
from fanin.keras._verbs import audit as audit
from fanin.keras._verbs import calibrate as calibrate
from fanin.keras._verbs import distance as distance
from fanin.keras._verbs import initialize as initialize
from fanin.keras._verbs import plan as plan
from fanin.keras._verbs import trace as trace
from fanin.keras._verbs import transfer as transfer
from fanin.keras._verbs import verify as verify
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
from fanin.keras.initializers import ScaledUnits as ScaledUnits
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
from fanin.model import Piece as Piece
