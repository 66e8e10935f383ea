"""The table of operators: everything that bounds know about one stands in its row.

interval: intervals of the sources -> interval of the result.
backward: coefficients (B, R, *shape) of rows that are bounded from below, on the result -> coefficients on each
source, and what is added to the bound (B, R). For an affine step that is the transpose of its linear part, taken
from autograd, and the value at zero. For an activation it is its lower line where the coefficient is positive and
its upper line where it is negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from netwright.core.errors import NotApplicable, UnsupportedOperator
from netwright.verify.parts.bounds import lines, pool
from netwright.verify.parts.bounds.interval import Interval, averaged, corners, monotone, weighted
from netwright.verify.parts.bounds.program import Step

Back = tuple[list[Tensor], Tensor]
# Values in these are taken for real numbers. In others (whole numbers, truth values, half precision) an operator
# rounds, and is not what its row says.
REAL = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Operator:
    """What bounds know about an operator.

    affine: exact in the backward pass. mixes: a result takes in several elements of a source, so that intervals
    behind a second such step are no longer exact. undecided: which elements of the source the relaxation is
    inexact for, (B, *shape); tighter bounds of the others would change nothing.
    admits: refuses a step with arguments that the row does not cover, or that vary in a way that it does not.
    slopes: whether a trained lower slope is understood.
    """

    interval: Callable[..., Interval]
    backward: Callable[..., Back]
    affine: bool = True
    mixes: bool = False
    undecided: Callable[[Step, Interval], Tensor] | None = None
    admits: Callable[[Step], bool] = lambda step: True
    slopes: bool = False


def operator_of(step: Step) -> Operator:
    """The step's row; an operator without one is an error that names it and the step."""
    row = TABLE.get(step.op)
    if row is None:
        raise UnsupportedOperator(step.op, step.name, "the bound engine")
    if not row.admits(step):
        raise NotApplicable(
            f"node '{step.name}' ({step.op}): the bound engine cannot read it with arguments like these"
        )
    if step.original not in REAL:
        raise NotApplicable(
            f"node '{step.name}' ({step.op}) computes in {step.original}; the bound engine reads float32 and float64"
        )
    return row


def transpose(step: Step, rows: Tensor, *_: Interval) -> Back:
    """Backward through an affine step."""
    offset, turned = step.affine
    batch, count = rows.shape[:2]
    back = torch.func.vmap(turned)(rows.reshape(batch * count, *step.shape))
    added = rows.new_zeros(batch, count) if offset is None else rows.flatten(2) @ offset.flatten()
    return [b.reshape(batch, count, *b.shape[1:]) for b in back], added


def _through(rows: Tensor, given: lines.Lines) -> Back:
    """Backward through lines whose slopes broadcast to rows (B, R, *shape); intercepts are (B, 1, *shape)."""
    lower, upper = given
    down = rows.clamp(max=0)
    dot = lambda a, b: torch.einsum("brn,bn->br", a.flatten(2), b.flatten(1))
    added = dot(rows, lower.intercept) + dot(down, upper.intercept - lower.intercept)
    return [torch.addcmul(rows * lower.slope, down, upper.slope - lower.slope)], added


def _activation(
    relax: Callable[..., lines.Lines],
    undecided: Callable[..., Tensor],
    slopes: bool = False,
    admits: Callable[[Step], bool] = lambda step: True,
) -> Operator:
    """A row for a rising function of single elements. relax(step, interval[, slope]) gives its lines."""

    def backward(step: Step, rows: Tensor, x: Interval, **slope: Tensor) -> Back:
        return _through(rows, relax(step, Interval(*(t[:, None] for t in x)), **slope))

    return Operator(monotone, backward, False, False, undecided, admits, slopes)


def _argument(step: Step, position: int, name: str, default: Any) -> Any:
    value = step.args[position] if len(step.args) > position else step.kwargs.get(name, default)
    return default if value is None else value


def _limits(step: Step) -> tuple[float, float]:
    if step.op == "aten.hardtanh.default":
        return float(_argument(step, 1, "min_val", -1.0)), float(_argument(step, 2, "max_val", 1.0))
    return float(_argument(step, 1, "min", -math.inf)), float(_argument(step, 2, "max", math.inf))


def _ordered(step: Step) -> bool:
    """A clamp of one value whose limits are in order (in the other order it is a constant, not the nearer limit)."""
    floor, ceiling = _limits(step)
    return step.occurrences() == 1 and step.varies(0) and floor <= ceiling


def _leak(step: Step) -> float:
    return float(_argument(step, 1, "negative_slope", 0.01))


def _crosses(x: Interval, at: float) -> Tensor:
    return (x.lower < at) & (x.upper > at)


def _cuts(step: Step, x: Interval) -> Tensor:
    floor, ceiling = _limits(step)
    return _crosses(x, floor) | _crosses(x, ceiling)


def _only(*positions: int) -> Callable[[Step], bool]:
    """Nothing but these arguments may vary, and of them one."""
    return lambda step: step.occurrences() == 1 and any(step.varies(p) for p in positions)


_RELU = _activation(
    lambda step, x, slope=None: lines.leaky_relu(x, 0.0, slope), lambda step, x: _crosses(x, 0.0), slopes=True
)
_LEAKY = _activation(
    lambda step, x, slope=None: lines.leaky_relu(x, _leak(step), slope), lambda step, x: _crosses(x, 0.0),
    slopes=True, admits=lambda step: 0 <= _leak(step) <= 1,
)  # fmt: skip
_CLAMP = _activation(lambda step, x: lines.clamp(x, *_limits(step)), _cuts, admits=_ordered)
_SIGMOID = _activation(lambda step, x: lines.sigmoid(x), lambda step, x: x.upper > x.lower)
_TANH = _activation(lambda step, x: lines.tanh(x), lambda step, x: x.upper > x.lower)
_MAXPOOL = Operator(
    monotone, pool.backward, affine=False, mixes=True, undecided=pool.undecided,
    admits=lambda step: step.part in (None, 0),
)  # fmt: skip

_MOVE = Operator(monotone, transpose)
_CAST = Operator(monotone, transpose, admits=lambda step: step.kwargs.get("dtype") in (None, *REAL))
_ELEMENTWISE = Operator(corners, transpose)
_MEAN = Operator(averaged, transpose, mixes=True)
# a negative divisor turns the mean around
_WINDOW_MEAN = Operator(
    averaged, transpose, mixes=True, admits=lambda step: _argument(step, 6, "divisor_override", 1) > 0
)
_SCALE = Operator(corners, transpose, admits=lambda step: step.occurrences() == 1)
_FIRST = Operator(corners, transpose, admits=_only(0))


def _product(weight: int, bias: int | None, data: int) -> Operator:
    return Operator(
        partial(weighted, weight=weight, bias=bias), transpose, mixes=True, admits=_only(data)
    )  # fmt: skip


TABLE: dict[str, Operator] = {
    # products with fixed weights
    "aten.convolution.default": _product(1, 2, 0),
    "aten.addmm.default": _product(2, 0, 1),
    "aten.mm.default": _product(1, None, 0),
    "aten.bmm.default": _product(1, None, 0),
    # sums and means
    **dict.fromkeys(
        ("aten.mean.dim", "aten.mean.default", "aten.sum.dim_IntList", "aten.sum.default",
         "aten.avg_pool1d.default",
         "aten._adaptive_avg_pool2d.default", "aten.adaptive_avg_pool1d.default",
         "aten._adaptive_avg_pool3d.default"), _MEAN,
    ),
    **dict.fromkeys(("aten.avg_pool2d.default", "aten.avg_pool3d.default"), _WINDOW_MEAN),
    # element by element, affine in what varies
    **dict.fromkeys(
        ("aten.add.Tensor", "aten.add.Scalar", "aten.sub.Tensor", "aten.sub.Scalar", "aten.rsub.Scalar",
         "aten.neg.default"), _ELEMENTWISE,
    ),
    **dict.fromkeys(("aten.mul.Tensor", "aten.mul.Scalar"), _SCALE),
    **dict.fromkeys(
        ("aten.div.Tensor", "aten.div.Scalar", "aten._native_batch_norm_legit_no_training.default"), _FIRST
    ),
    # the same numbers elsewhere
    **dict.fromkeys(
        ("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.permute.default",
         "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default", "aten.expand.default",
         "aten.cat.default", "aten.slice.Tensor", "aten.select.int", "aten.split_with_sizes.default",
         "aten.split.Tensor", "aten.unbind.int", "aten.constant_pad_nd.default", "aten.clone.default",
         "aten.alias.default", "aten.index_select.default", "aten.flip.default",
         "aten.reflection_pad2d.default", "aten.replication_pad2d.default", "aten.upsample_nearest2d.vec",
         "aten.repeat.default", "aten.pixel_shuffle.default"), _MOVE,
    ),
    "aten._to_copy.default": _CAST,
    # activations and maxima
    "aten.relu.default": _RELU,
    "aten.leaky_relu.default": _LEAKY,
    "aten.hardtanh.default": _CLAMP,
    "aten.clamp.default": _CLAMP,
    "aten.clamp_min.default": _CLAMP,
    "aten.sigmoid.default": _SIGMOID,
    "aten.tanh.default": _TANH,
    "aten.max_pool2d_with_indices.default": _MAXPOOL,
}  # fmt: skip
