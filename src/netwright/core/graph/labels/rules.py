"""How labels pass the operators that move, combine and reduce elements. Layers with weights are in `layers.py`.

A rule is `(analysis, node, args, kwargs) -> value`. Arguments are labels (tensors), `Held`, numbers, or lists
of these; a rule may only merge and fix classes, so that what it does not understand costs units, never
correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.ir import Node
from netwright.core.graph.labels.analysis import Analysis
from netwright.core.graph.labels.classes import FIXED
from netwright.core.graph.labels.values import Held, fixed, flat

Rule = Callable[[Analysis, Node, tuple[Any, ...], dict[str, Any]], Any]

# the first argument is passed on as it is
IDENTITY = {
    "to", "_to_copy", "contiguous", "clone", "detach", "detach_", "alias", "lift_fresh_copy", "lift_fresh",
    "dropout", "dropout_", "feature_dropout", "alpha_dropout", "type_as", "cumsum", "float", "native_dropout",
    "_assert_tensor_metadata", "log_sigmoid", "glu_jvp", "conj", "resolve_conj", "resolve_neg",
}  # fmt: skip


REDUCING = {
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "prod", "logsumexp", "linalg_vector_norm", "norm",
    "argmax", "argmin", "any", "all", "var_mean", "std_mean",
}  # fmt: skip

SPATIAL = {
    f"{name}{n}d": n
    for n in (1, 2, 3)
    for name in (
        "max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool", "reflection_pad",
        "replication_pad", "upsample_nearest", "_upsample_nearest_exact", "lp_pool",
    )
} | {"upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_bicubic2d": 2, "_upsample_bilinear2d_aa": 2,
     "upsample_trilinear3d": 3, "max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3,
     "grid_sampler": 2, "grid_sampler_2d": 2}  # fmt: skip

SOFTMAX = {"softmax", "_softmax", "log_softmax", "_log_softmax", "softmin"}

CREATING = {
    "zeros",
    "ones",
    "full",
    "empty",
    "arange",
    "new_zeros",
    "new_ones",
    "new_full",
    "scalar_tensor",
    "eye",
}


def kind(node: Node) -> str:
    """'aten.add_.Tensor' -> 'add'; in-place operators do to labels what the others do."""
    parts = node.op.split(".")
    name = parts[1] if parts[0] == "aten" and len(parts) > 1 else node.op
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


def identity(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if node.op.startswith("aten._assert"):
        return None
    if kind(node) == "cumsum":
        return unless_along(analysis, node, args[0], [args[1]])
    return args[0]


def unless_along(analysis: Analysis, node: Node, value: Any, dims: Sequence[int]) -> Any:
    """Units along these dimensions are mixed by the operator: fix them, or keep those that lie across (heads)."""
    labels = analysis.labels(value)
    moving = set(analysis.classes.varying(labels))
    mixed = moving & {d % labels.dim() for d in dims}
    because = analysis.because(node, "mixes the units along a dimension")
    if mixed and moving - mixed:
        return analysis.classes.collapse(labels, sorted(mixed), because).expand(labels.shape)
    if mixed:
        analysis.classes.fix(labels, because)
    return labels


def pointwise(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Elements that meet belong together. A unit is never tied to what is merely repeated along its dimension."""
    operands = [v for v in flat((*args, *kwargs.values())) if isinstance(v, (Tensor, Held))]
    if not any(isinstance(v, Tensor) for v in operands):
        for held in operands:
            if isinstance(held, Held):
                analysis.table.refuse(held, f"'{node.name}' computes with it ({node.op})")
        return fixed(node)
    result = analysis.labels(operands[0])
    for value in operands[1:]:
        result = join(analysis, node, result, analysis.labels(value))
    return result.expand(node.shape)


def join(analysis: Analysis, node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Labels of a pointwise combination of two activations."""
    shape = torch.broadcast_shapes(a.shape, b.shape)
    a, b = (t.reshape((1,) * (len(shape) - t.dim()) + tuple(t.shape)) for t in (a, b))
    a, b = _apart(analysis, node, a, b), _apart(analysis, node, b, a)
    reason = analysis.because(node, "joins what is no unit, or cannot go")
    varying = analysis.classes.varying
    if {d for d in range(len(shape)) if b.shape[d] == 1} & set(varying(a)):
        analysis.classes.fix(b, reason)
        return a.expand(shape)
    if {d for d in range(len(shape)) if a.shape[d] == 1} & set(varying(b)):
        analysis.classes.fix(a, reason)
        return b.expand(shape)
    wide_a, wide_b = a.expand(shape), b.expand(shape)
    analysis.classes.merge(wide_a, wide_b, reason)
    return torch.maximum(analysis.classes.find(wide_a), analysis.classes.find(wide_b))


def _apart(analysis: Analysis, node: Node, a: Tensor, b: Tensor) -> Tensor:
    """If a's units run along dimensions of b and across them too: keep those along b's dimensions. Of a table of
    numbers, such as the angles of a rotary embedding that all heads share, keep those across: whole heads."""
    moving = analysis.classes.varying(a)
    across = [d for d in moving if b.shape[d] == 1]
    if across and len(across) < len(moving):
        lost = [d for d in moving if d not in across] if _is_table(analysis, b) else across
        return analysis.classes.collapse(a, lost, analysis.because(node, "repeats")).expand(a.shape)
    return a


def _is_table(analysis: Analysis, labels: Tensor) -> bool:
    """Whether an operand has no units: its numbers are fixed, or stand each for itself along several dimensions."""
    varying = analysis.classes.varying(labels)
    return len(varying) > 1 or (not varying and bool((analysis.classes.find(labels) == FIXED).any()))


def reducing(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Sums drop units, other reductions over units fix them; units along the other dimensions pass."""
    name = kind(node)
    if name in ("max", "min") and node.op.endswith(".other"):
        return pointwise(analysis, node, args, kwargs)
    labels = analysis.labels(args[0])
    position = 2 if name in ("linalg_vector_norm", "norm") else 1
    given = args[position] if len(args) > position else kwargs.get("dim")
    dims = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    dims = [d % labels.dim() for d in dims] or list(range(labels.dim()))
    because = analysis.because(node, "reduces over the units")
    moving = analysis.classes.varying(labels)
    kept = [d for d in moving if d not in dims]
    if kept:
        labels = analysis.classes.collapse(labels, [d for d in moving if d in dims], because)
    elif moving:
        if name != "sum":
            analysis.classes.fix(labels, because)
        return results(node, None)
    left = labels.amax(dims, keepdim=True) if dims else labels
    if (node.shape and len(node.shape) != labels.dim()) or not node.shape:
        left = left.reshape([n for d, n in enumerate(left.shape) if d not in dims])
    return results(node, analysis.classes.find(left))


def results(node: Node, labels: Tensor | None) -> Any:
    """One result, or one for each that the operator gives."""
    parts = [user for user in node.users if user.op == "operator.getitem"]
    if not node.shape and parts:
        shapes = {user.args[1]: user for user in parts}
        top = max(shapes) + 1
        whole = [shapes.get(i, parts[0]) for i in range(top)]
        return [fixed(part) if labels is None else labels.reshape(part.shape) for part in whole]
    return fixed(node) if labels is None else labels.expand(node.shape)


def spatial(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pooling, resizing and padding of the last dimensions: channels pass."""
    labels = analysis.labels(args[0])
    n = SPATIAL[kind(node)]
    last = list(range(labels.dim() - n, labels.dim()))
    moving = [d for d in analysis.classes.varying(labels) if d in last]
    because = analysis.because(node, "mixes positions")
    small = analysis.classes.collapse(labels, last, because) if moving else labels.amax(last, keepdim=True)
    if len(args) > 1 and isinstance(args[1], Tensor):  # a sampling grid
        analysis.classes.fix(args[1], because)
    if not node.shape:
        parts = [user for user in node.users if user.op == "operator.getitem"]
        return [small.expand(parts[0].shape)] * 2
    return small.expand(node.shape)


def softmax(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return unless_along(analysis, node, args[0], [args[1]])


def biased(analysis: Analysis, node: Node, out: Tensor, bias: Any, dim: int) -> Tensor:
    if bias is None:
        return out
    shape = [-1 if d == dim else 1 for d in range(out.dim())]
    return join(analysis, node, out, analysis.labels(bias).reshape(shape))


def prelu(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    labels, slope = analysis.labels(args[0]), analysis.labels(args[1])
    shape = [1] * labels.dim()
    if slope.shape[0] > 1:
        shape[1 if labels.dim() > 1 else 0] = -1
    return join(analysis, node, labels, slope.reshape(shape))


def creating(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fixed(node)
