"""Did the inherited weights help, or only the smaller architecture? `Rethink` trains the small network anew, as one
method among others; `Referee` is the whole comparison.

Rethinking the Value of Network Pruning, arXiv 1810.05270.
"""

from netwright.compress.rethink.referee import Referee
from netwright.compress.rethink.scratch import Rethink

__all__ = ["Referee", "Rethink"]
