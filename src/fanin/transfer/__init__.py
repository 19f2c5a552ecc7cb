"""Pretrained initialization: load what a checkpoint has, draw what it lacks, prove that none is missed."""

from fanin.transfer.adapters import ADAPTERS as ADAPTERS
from fanin.transfer.card import card as card
from fanin.transfer.distance import Distances as Distances
from fanin.transfer.distance import Moved as Moved
from fanin.transfer.distance import begun as begun
from fanin.transfer.distance import moved as moved
from fanin.transfer.looking import look as look
from fanin.transfer.looking import lying as lying
from fanin.transfer.pretrained import Pretrained as Pretrained
from fanin.transfer.resolving import names_in as names_in
from fanin.transfer.resolving import resolve as resolve
