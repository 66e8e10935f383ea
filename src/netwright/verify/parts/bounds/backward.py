"""CROWN: linear bounds carried backward from any step to the input (arXiv 1811.00866, 2002.12920).

Only lower bounds are computed: an upper bound of row c is minus the lower bound of row -c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from netwright.core.budget import check_time
from netwright.verify.parts.bounds.forward import at_input, interval_bounds
from netwright.verify.parts.bounds.interval import Interval, rounding
from netwright.verify.parts.bounds.operators import operator_of
from netwright.verify.parts.bounds.program import Program, Step

# Coefficients held at once per tensor: 4 MB in single precision, which a processor's cache nearly holds (2.4 times
# as fast as 64 MB on a digit CNN). A pass holds a few such tensors.
BLOCK = 2**20


def lowest(
    program: Program,
    start: Step,
    rows: Tensor,
    bounds: Mapping[Step, Interval],
    slopes: Mapping[Step, Tensor] | None = None,
    ends: str = "input",
) -> Tensor:
    """A lower bound (B, R) of rows (B, R, *start.shape) times the value of `start`, over the box.

    bounds: of every step that a relaxation reads, and of the input. slopes: lower slopes of relu-like steps,
    broadcast to (B, R, *shape), 0 to 1; they may require gradients, as may `rows`.
    ends: 'input' carries the rows to the input; 'interval' only to the nearest steps that are not affine, and
    takes these steps' intervals there (interval bounds with the last affine layers merged).
    """
    waiting: dict[Step, Tensor] = {start: rows.reshape(*rows.shape[:2], *start.shape)}
    total = magnitude = rows.new_zeros(rows.shape[:2])
    for step in reversed(program.upto(start)):
        carried = waiting.pop(step, None)
        if carried is None:
            continue
        check_time("bounding this network")
        if step is program.input or (ends == "interval" and not operator_of(step).affine):
            at, size = concretise(carried, bounds[step])
            total, magnitude = total + at, magnitude + size
            continue
        row = operator_of(step)
        extra = {"slope": slopes[step]} if row.slopes and slopes and step in slopes else {}
        back, added = row.backward(step, carried, *(bounds[s] for s in step.sources), **extra)
        total, magnitude = total + added, magnitude + added.abs()
        for source, coefficients in zip(step.sources, back, strict=True):
            waiting[source] = waiting[source] + coefficients if source in waiting else coefficients
    return total - rounding(total) * magnitude


def tightest(
    program: Program,
    rows: Tensor,
    bounds: Mapping[Step, Interval],
    slopes: Mapping[Step, Tensor] | None = None,
) -> Tensor:
    """The better of both ends of `lowest`, for rows (B, R, outputs) of the network's output.

    The lines of CROWN can lie below an interval (relu(x) + relu(-x) >= x, but also >= 0), and intervals cost little.
    -inf for an example whose bounds overflow somewhere: there is no line around a value of which nothing is known.
    """
    start = program.output
    intervals = lowest(program, start, rows, bounds, ends="interval")
    least = torch.maximum(intervals, lowest(program, start, rows, bounds, slopes))
    ends = [end.isfinite().flatten(1).all(1) for interval in bounds.values() for end in interval]
    return torch.where(torch.stack(ends).all(0)[:, None], least, -torch.inf)


def concretise(rows: Tensor, x: Interval) -> tuple[Tensor, Tensor]:
    """The least value (B, R) of rows . x on a box, and the sum of the magnitudes that it is made of."""
    flat = rows.flatten(2)
    dot = lambda a, b: torch.einsum("brn,bn->br", a, b.flatten(1))
    size = flat.abs()
    least = dot(flat, x.centre) - dot(size, x.radius)
    return least, dot(size, x.centre.abs() + x.radius)


def crown_bounds(
    program: Program,
    box: Interval,
    intermediate: str = "crown",
    block: int = BLOCK,
    slope_of: Callable[[Interval], Tensor] | None = None,
) -> dict[Step, Interval]:
    """Bounds of every step from those of the input, (B, ...), for use in `lowest`.

    intermediate: 'interval' propagates intervals only (CROWN-IBP, fast); 'crown' tightens by backward bounds those
    elements that a relaxation reads, that intervals leave undecided, and for which intervals are not exact already.
    Each bound is the tighter of the two. block: how many coefficients a pass may hold. slope_of: the lower slope of
    relu-like steps (0 to 1) from the bounds of what they read, default CROWN's adaptive choice.
    """
    if intermediate == "interval":
        return interval_bounds(program, box)
    bounds = {program.input: at_input(program, box)}
    exact = exact_steps(program)
    for step in program.steps[1:]:
        check_time("bounding this network")
        row = operator_of(step)
        for source in step.sources:
            if row.undecided is not None and source not in exact and operator_of(source).affine:
                open_ = row.undecided(step, bounds[source])
                slopes = lower_slopes(program, bounds, slope_of) if slope_of else None
                bounds[source] = _tightened(program, source, bounds, open_, block, slopes)
        bounds[step] = row.interval(step, *(bounds[s] for s in step.sources))
    return bounds


def lower_slopes(
    program: Program, bounds: Mapping[Step, Interval], slope_of: Callable[[Interval], Tensor]
) -> dict[Step, Tensor]:
    """Lower slopes, for `lowest`, of the relu-like steps that have bounds."""
    steps = [s for s in program.steps[1:] if s in bounds and operator_of(s).slopes]
    return {step: slope_of(bounds[step.sources[0]])[:, None] for step in steps}


def exact_steps(program: Program) -> set[Step]:
    """Steps of which the interval is the exact range, element by element: backward bounds cannot improve it.

    True as far as each element of the input has been mixed once, by steps of one source.
    """
    separate, exact = {program.input}, {program.input}
    for step in program.steps[1:]:
        row, source = operator_of(step), step.sources[0]
        if len(step.sources) > 1 or not row.affine:
            continue
        if not row.mixes and source in separate and step.size <= source.size:
            separate.add(step)
        if source in (separate if row.mixes else exact):
            exact.add(step)
    return exact


def _tightened(
    program: Program,
    step: Step,
    bounds: dict[Step, Interval],
    open_: Tensor,
    block: int,
    slopes: Mapping[Step, Tensor] | None,
) -> Interval:
    """Backward bounds of the open elements (B, *shape) of a step, met with what was known."""
    old = bounds[step]
    low, high = old.lower.flatten(1).clone(), old.upper.flatten(1).clone()
    for index, real in _places(open_.flatten(1), _rows_at_once(program, step, len(low), block)):
        rows = torch.zeros(*index.shape, step.size, dtype=low.dtype, device=low.device)
        rows.scatter_(2, index[..., None], 1.0)
        least = lowest(program, step, torch.cat([rows, -rows], 1), bounds, slopes)
        count = index.shape[1]
        # places beyond an example's own open elements write back what is there
        low.scatter_(1, index, torch.where(real, least[:, :count], low.gather(1, index)))
        high.scatter_(1, index, torch.where(real, -least[:, count:], high.gather(1, index)))
    shape = old.lower.shape
    return old.meet(Interval(low.reshape(shape), high.reshape(shape)))


def _rows_at_once(program: Program, step: Step, batch: int, block: int) -> int:
    widest = max(s.size for s in program.upto(step))
    return max(1, block // (2 * batch * widest))


def _places(open_: Tensor, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices (B, K) of each example's open elements, a block at a time, and which are real (B, K)."""
    most = int(open_.sum(1).max())
    order = open_.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    for first in range(0, most, at_once):
        index = order[:, first : first + at_once]
        yield index, open_.gather(1, index)
