"""Pretrained initialization: load what a checkpoint has, draw what it lacks, prove that none is missed."""

from fanin.transfer.adapters import ADAPTERS as ADAPTERS
from fanin.transfer.card import card as card
from fanin.transfer.distance import Distances as Distances
from fanin.transfer.distance import Moved as Moved
from fanin.transfer.distance import moved as moved
from fanin.transfer.pretrained import Pretrained as Pretrained
from fanin.transfer.resolving import resolve as resolve
