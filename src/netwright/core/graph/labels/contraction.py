"""How labels pass sums of products: linear layers, matrix products, einsum and attention."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from netwright.core.graph.ir import Node
from netwright.core.graph.labels.analysis import Analysis
from netwright.core.graph.labels.rules import biased, join
from netwright.core.graph.labels.values import Held, fixed


def contract(analysis: Analysis, node: Node, a: Any, b: Any, la: str, lb: str, lo: str) -> Tensor:
    """Sum of products of two operands, in the letters of einsum ('bij', 'bjk', 'bik')."""
    if isinstance(a, Held) and isinstance(b, Held):
        for held in (a, b):
            analysis.table.refuse(held, f"'{node.name}' multiplies two held tensors")
        return fixed(node)
    if isinstance(a, Held):
        return _weighted(analysis, node, analysis.labels(b), a, lb, la, lo)
    if isinstance(b, Held):
        return _weighted(analysis, node, analysis.labels(a), b, la, lb, lo)
    return _product(analysis, node, analysis.labels(a), analysis.labels(b), la, lb, lo)


def _spread(vector: Tensor, letters: str, lo: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor over some of the output's letters, repeated over the others."""
    order = [letters.index(c) for c in lo if c in letters]
    view = iter(vector.permute(order).shape)
    return vector.permute(order).reshape([next(view) if c in letters else 1 for c in lo]).expand(shape)


def _weighted(analysis: Analysis, node: Node, x: Tensor, weight: Held, lx: str, lw: str, lo: str) -> Tensor:
    """Activation times held weight: units in along the summed letters, new units out."""
    classes, table = analysis.classes, analysis.table
    because = analysis.because(node, "cannot follow the units through its weight")
    size = dict(zip(lw, weight.shape, strict=True))
    summed = [c for c in lw if c in lx and c not in lo]
    rows = [c for c in lw if c not in lx and c in lo]
    wide = {"in": [c for c in summed if size[c] > 1], "out": [c for c in rows if size[c] > 1]}
    strange = any(size[c] > 1 for c in lw if c not in (*summed, *rows)) or any(
        c not in lo and c not in lw for c in lx
    )
    if strange or len(wide["in"]) > 1 or len(wide["out"]) > 1:
        classes.fix(x, because)
        table.refuse(weight, because)
        return fixed(node)
    moving = [lx[d] for d in classes.varying(x)]
    if moving and not set(moving) & set(summed):
        # the units run along other dimensions and pass; the weight acts on each of them alike
        table.refuse(weight, because)
        kept = [d for d, c in enumerate(lx) if c in summed]
        left = x.amax(kept, keepdim=True) if kept else x
        return _spread(classes.find(left), lx, lo, node.shape) if not kept else _spread(
            classes.find(left).reshape([n for d, n in enumerate(left.shape) if d not in kept]),
            "".join(c for c in lx if c not in summed), lo, node.shape,
        )  # fmt: skip
    inner = classes.collapse(x, [d for d, c in enumerate(lx) if c not in summed], because).reshape(-1)
    for c in wide["in"]:
        vector = table.along(weight, lw.index(c), reads=True)
        if vector is None:
            classes.fix(inner, because)
            table.refuse(weight, because)
        else:
            classes.merge(inner, vector, because)
    if not wide["in"]:
        classes.fix(inner, because)
    if not wide["out"]:
        return fixed(node)
    out = table.along(weight, lw.index(wide["out"][0]))
    if out is None:
        table.refuse(weight, because)
        return fixed(node)
    return _spread(out, wide["out"][0], lo, node.shape)


def _product(analysis: Analysis, node: Node, a: Tensor, b: Tensor, la: str, lb: str, lo: str) -> Tensor:
    """Activation times activation, as in attention."""
    classes = analysis.classes
    because = analysis.because(node, "multiplies activations whose units do not match")
    batch = [c for c in la if c in lb and c in lo]
    summed = [c for c in la if c in lb and c not in lo]
    if any(c not in lo and c not in lb for c in la) or any(c not in lo and c not in la for c in lb):
        return analysis.unknown(node, (a, b), {}, "sums over one operand alone")
    moving_a = {la[d] for d in classes.varying(a)}
    moving_b = {lb[d] for d in classes.varying(b)}
    if (moving_a | moving_b) & set(batch):  # heads: all of a batch entry goes or stays
        heads = _over(analysis, a, la, batch, because)
        classes.merge(heads, _over(analysis, b, lb, batch, because), because)
        return _spread(classes.find(heads), "".join(batch), lo, node.shape)
    if (moving_a | moving_b) & set(summed):
        if (moving_a - set(summed)) or (moving_b - set(summed)):
            classes.fix(a, because)
            classes.fix(b, because)
        else:
            inner = _over(analysis, a, la, summed, because)
            classes.merge(inner, _over(analysis, b, lb, summed, because), because)
        return fixed(node)
    if moving_a and moving_b:
        classes.fix(b, because)
        moving_b = set()
    value, letters = (a, la) if moving_a else (b, lb)
    if not moving_a and not moving_b:
        classes.fix(a, because)
        classes.fix(b, because)
        return fixed(node)
    free = [c for c in letters if c in lo]
    return _spread(_over(analysis, value, letters, free, because), "".join(free), lo, node.shape)


def _over(analysis: Analysis, value: Tensor, letters: str, kept: list[str], because: str) -> Tensor:
    """Labels over the kept letters, in their order; merged along all others."""
    gone = [d for d, c in enumerate(letters) if c not in kept]
    small = analysis.classes.collapse(value, gone, because)
    left = small.reshape([n for d, n in enumerate(small.shape) if d not in gone])
    order = [c for c in letters if c in kept]
    return left.permute([order.index(c) for c in kept])


def linear(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight = args[0], args[1]
    rank = len(node.shape)
    lead = "abcdefgh"[: rank - 1]
    out = contract(analysis, node, x, weight, lead + "x", "yx", lead + "y")
    return biased(analysis, node, out, args[2] if len(args) > 2 else kwargs.get("bias"), rank - 1)


def matmul(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """matmul, mm, bmm, mv: the batch dimensions aligned from the right."""
    a, b = args[0], args[1]
    da, db = len(a.shape), len(b.shape)
    if da == 1 or db == 1:
        return analysis.unknown(node, args, kwargs, "multiplies a vector")
    lead = "abcdefgh"[: max(da, db) - 2]
    la, lb = lead[len(lead) - da + 2 :] + "ix", lead[len(lead) - db + 2 :] + "xj"
    a, la = _narrow(a, la, b, lb)
    b, lb = _narrow(b, lb, a, la)
    return contract(analysis, node, a, b, la, lb, lead + "ij")


def _narrow(value: Any, letters: str, other: Any, others: str) -> tuple[Any, str]:
    """Drop batch dimensions of size one that the other operand has: they are repeated along it."""
    for c in letters[:-2]:
        d = letters.index(c)
        if value.shape[d] == 1 and c in others:
            if isinstance(value, Held):
                value = value.moved(partial(torch.select, dim=d, index=0))
            else:
                value = value.select(d, 0)
            letters = letters.replace(c, "")
    return value, letters


def addmm(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """addmm, baddbmm: bias first."""
    return join(analysis, node, matmul(analysis, node, args[1:3], {}), analysis.labels(args[0]))


def einsum(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Two operands, no ellipsis, no letter twice in one term."""
    terms, _, out = args[0].replace(" ", "").partition("->")
    letters = terms.split(",")
    plain = len(letters) == 2 and "." not in args[0] and "->" in args[0]
    if not plain or any(len(set(term)) < len(term) for term in letters):
        return analysis.unknown(node, args, kwargs, f"has the form {args[0]}")
    return contract(analysis, node, args[1][0], args[1][1], letters[0], letters[1], out)


def attention(analysis: Analysis, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """scaled_dot_product_attention: heads are units; (.., heads, T, d)."""
    q, k, v = (analysis.labels(a) for a in args[:3])
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    if kwargs.get("enable_gqa") or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2]:
        return analysis.unknown(node, args, kwargs, "shares heads between queries")
    lead = "abcdefgh"[: q.dim() - 2]
    because = analysis.because(node, "ties what attends to each other")
    if not any(d < q.dim() - 2 for t in (q, k, v) for d in analysis.classes.varying(t)):
        analysis.classes.fix(q, analysis.because(node, "scales by the width of its only head"))
        analysis.classes.fix(k, analysis.because(node, "scales by the width of its only head"))
        scores = q.new_ones(()).expand((*q.shape[:-1], k.shape[-2]))
    else:
        scores = _heads(analysis, q, k, lead, because)
    if mask is not None:
        scores = join(analysis, node, scores, analysis.labels(mask))
    return _product(analysis, node, scores, v, lead + "ij", lead + "jx", lead + "ix")


def _heads(analysis: Analysis, q: Tensor, k: Tensor, lead: str, because: str) -> Tensor:
    heads = _over(analysis, q, lead + "ix", list(lead), because)
    analysis.classes.merge(heads, _over(analysis, k, lead + "jx", list(lead), because), because)
    shape = (*q.shape[:-1], k.shape[-2])
    return _spread(analysis.classes.find(heads), lead, lead + "ij", shape)
