"""What methods that turn layers into signs share: which layers, how they learn, and what they become.

`learning(network, task, operator)` gives a copy whose layers learn, `packed(network)` the network with bits.
"""

from netwright.compress.parts.binary.layers import Learned, counts, learning, packed
from netwright.compress.parts.binary.operators import OPERATORS, Operator
from netwright.compress.parts.binary.schedule import advance, schedule

__all__ = ["OPERATORS", "Learned", "Operator", "advance", "counts", "learning", "packed", "schedule"]
