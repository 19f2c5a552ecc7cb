"""fanin for JAX: plan a model's initialization and apply it; initializers in JAX's own protocol.

Models are modules of Flax (nnx or linen) and Equinox, and any tree of arrays.

>>> import jax, jax.numpy as jnp, fanin.jax as fj
>>> shapes = {"dense": {"kernel": jax.ShapeDtypeStruct((784, 256), jnp.float32)}}
>>> params = fj.initialize(shapes, "he_normal", seed=0)
>>> w = fj.he_normal()(jax.random.key(0), (784, 256))
"""

from fanin.fans import Axes as Axes
from fanin.jax import _recurrent as _recurrent
from fanin.jax._keys import fold_key as fold_key
from fanin.jax._layers import layer as layer
from fanin.jax._verbs import audit as audit
from fanin.jax._verbs import calibrate as calibrate
from fanin.jax._verbs import distance as distance
from fanin.jax._verbs import initialize as initialize
from fanin.jax._verbs import plan as plan
from fanin.jax._verbs import trace as trace
from fanin.jax._verbs import transfer as transfer
from fanin.jax._verbs import verify as verify
from fanin.jax.initializers import Initializer as Initializer
from fanin.jax.initializers import as_stored as as_stored
from fanin.jax.initializers import bilinear as bilinear
from fanin.jax.initializers import blocks as blocks
from fanin.jax.initializers import constant as constant
from fanin.jax.initializers import convolution_orthogonal_1d as convolution_orthogonal_1d
from fanin.jax.initializers import convolution_orthogonal_2d as convolution_orthogonal_2d
from fanin.jax.initializers import convolution_orthogonal_3d as convolution_orthogonal_3d
from fanin.jax.initializers import delta_orthogonal as delta_orthogonal
from fanin.jax.initializers import dirac as dirac
from fanin.jax.initializers import glorot_normal as glorot_normal
from fanin.jax.initializers import glorot_uniform as glorot_uniform
from fanin.jax.initializers import hadamard_identity as hadamard_identity
from fanin.jax.initializers import he_normal as he_normal
from fanin.jax.initializers import he_uniform as he_uniform
from fanin.jax.initializers import icnr as icnr
from fanin.jax.initializers import identity as identity
from fanin.jax.initializers import kaiming_normal as kaiming_normal
from fanin.jax.initializers import kaiming_uniform as kaiming_uniform
from fanin.jax.initializers import lecun_normal as lecun_normal
from fanin.jax.initializers import lecun_uniform as lecun_uniform
from fanin.jax.initializers import looks_linear as looks_linear
from fanin.jax.initializers import masked as masked
from fanin.jax.initializers import mimetic as mimetic
from fanin.jax.initializers import normal as normal
from fanin.jax.initializers import ones as ones
from fanin.jax.initializers import orthogonal as orthogonal
from fanin.jax.initializers import random_normal as random_normal
from fanin.jax.initializers import random_uniform as random_uniform
from fanin.jax.initializers import scaled as scaled
from fanin.jax.initializers import scaled_units as scaled_units
from fanin.jax.initializers import sinusoidal as sinusoidal
from fanin.jax.initializers import siren as siren
from fanin.jax.initializers import sparse as sparse
from fanin.jax.initializers import tile as tile
from fanin.jax.initializers import truncated_normal as truncated_normal
from fanin.jax.initializers import uniform as uniform
from fanin.jax.initializers import uniform_unit_scaling as uniform_unit_scaling
from fanin.jax.initializers import variance_scaling as variance_scaling
from fanin.jax.initializers import with_row as with_row
from fanin.jax.initializers import xavier_normal as xavier_normal
from fanin.jax.initializers import xavier_uniform as xavier_uniform
from fanin.jax.initializers import zeros as zeros
from fanin.model import Piece as Piece
