"""fanin for PyTorch: plan a model's initialization, look at it, apply it.

>>> import torch, fanin.torch as ft
>>> model = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
>>> print(ft.plan(model, "he_normal", seed=0))
recipe he_normal, seed 0, fanin/1: 4 parameters, 203,530 elements
parameter  shape    role    rule         initializer  fan in, out      std  dtype
───────────────────────────────────────────────────────────────────────────────────
0.weight   256x784  kernel  role kernel  he_normal()     784, 256  0.05051  float32
0.bias     256      bias    role bias    zeros()         784, 256        0  float32
2.weight   10x256   kernel  role kernel  he_normal()      256, 10  0.08839  float32
2.bias     10       bias    role bias    zeros()          256, 10        0  float32
>>> plan = ft.initialize(model, "he_normal", seed=0)
"""

from fanin.fans import Axes as Axes
from fanin.model import Piece as Piece
from fanin.torch import init as init
from fanin.torch._coordinates import coordinate_check as coordinate_check
from fanin.torch._layers import layer as layer
from fanin.torch._verbs import audit as audit
from fanin.torch._verbs import calibrate as calibrate
from fanin.torch._verbs import distance as distance
from fanin.torch._verbs import initialize as initialize
from fanin.torch._verbs import plan as plan
from fanin.torch._verbs import trace as trace
from fanin.torch._verbs import transfer as transfer
from fanin.torch._verbs import verify as verify
