"""Eight ways to make a network of signs. `BiBench` applies one of them, `Tracks` ranks them on the owner's networks.

BiBench: Benchmarking and Analyzing Network Binarization, ICML 2023, arXiv 2301.11233.
"""

from netwright.compress.bibench.method import BiBench
from netwright.compress.bibench.tracks import Subject, Tracks

__all__ = ["BiBench", "Subject", "Tracks"]
