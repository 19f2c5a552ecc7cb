"""From a plan to files and back: a model larger than memory is streamed to disk, and verified."""

from fanin.materialize.files import parse_size as parse_size
from fanin.materialize.verify import Mismatch as Mismatch
from fanin.materialize.verify import first_difference as first_difference
from fanin.materialize.verify import verify as verify
from fanin.materialize.writer import Written as Written
from fanin.materialize.writer import materialize as materialize
from fanin.materialize.writer import planned as planned
