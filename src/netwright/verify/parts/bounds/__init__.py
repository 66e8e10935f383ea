"""Sound bounds of a traced network's outputs over a box of inputs.

    program = read(network, example)                    # the graph, one example at a time
    box = Interval(lower, upper)                        # (B, ...) inputs
    bounds = crown_bounds(program, box)                 # of every step, or interval_bounds(program, box)
    tightest(program, rows, bounds)                     # rows (B, R, outputs) -> (B, R): <= rows . f over the box

An operator is taught in one place, the table in `operators.py`.
"""

from netwright.verify.parts.bounds.backward import crown_bounds, lowest, tightest
from netwright.verify.parts.bounds.forward import interval_bounds, read
from netwright.verify.parts.bounds.interval import Interval
from netwright.verify.parts.bounds.program import Program, Step

__all__ = ["Interval", "Program", "Step", "crown_bounds", "interval_bounds", "lowest", "read", "tightest"]
