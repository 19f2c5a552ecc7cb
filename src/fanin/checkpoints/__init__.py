"""Checkpoints: reading them without believing them."""

from fanin.checkpoints.checkpoint import Checkpoint as Checkpoint
from fanin.checkpoints.checkpoint import open as open
from fanin.checkpoints.contents import Spec as Spec
from fanin.checkpoints.index import model_of as model_of
from fanin.checkpoints.index import tensors_of as tensors_of
from fanin.checkpoints.safetensors import Stored as Stored
from fanin.checkpoints.safetensors import read_header as read_header
from fanin.checkpoints.safetensors import values as values
