"""Interval bound propagation: bounds of every step, front to back (arXiv 1810.12715)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from netwright.core.budget import check_time
from netwright.verify.parts.bounds.interval import Interval
from netwright.verify.parts.bounds.operators import operator_of
from netwright.verify.parts.bounds.program import Program, Step, steps_of


def read(network: nn.Module, example: Tensor, dtype: torch.dtype | None = None) -> Program:
    """Trace a network for bounds, and make sure that every step is one that they can be computed of.

    example: (B, ...), of which the shape matters; dtype: what bounds are computed in, default the example's.
    Raises NotApplicable for several inputs or outputs and for a network that cannot be traced, and
    UnsupportedOperator, with the operator and the node, for an operator that is not in the table.
    """
    program = steps_of(network, example, dtype or example.dtype)
    for step in program.steps[1:]:
        operator_of(step)
    return program


def interval_bounds(program: Program, box: Interval) -> dict[Step, Interval]:
    """Bounds of every step by intervals alone, from those of the input, (B, ...)."""
    bounds = {program.input: at_input(program, box)}
    for step in program.steps[1:]:
        check_time("bounding this network")
        bounds[step] = operator_of(step).interval(step, *(bounds[s] for s in step.sources))
    return bounds


def at_input(program: Program, box: Interval) -> Interval:
    """The box in the program's type, each example in the shape of a batch of one."""
    shape, dtype = (-1, *program.input.shape), program.input.dtype
    return Interval(box.lower.to(dtype).reshape(shape), box.upper.to(dtype).reshape(shape))
