"""Products of one row of inputs with a part of a matrix: rows or columns that are left out are never read.

At batch 1 a linear layer costs what it takes to read its weights, so that reading half of them takes half of the time.
Compiled by numba (the extra `kernels`) when first used, for float32 on the processor, one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from netwright.core.errors import MissingExtra


@cache
def available() -> bool:
    """Whether numba is there."""
    try:
        import numba  # noqa: F401
    except Exception:  # a numba that does not fit this numpy is no ImportError
        return False
    return True


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels may multiply x (..., I) with this weight now: x is a single row of float32 on the processor,
    nobody asks for a gradient, nothing is being traced, and numba is there."""
    return (
        type(x) is Tensor
        and x.numel() == x.shape[-1]
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        and available()
    )


def some_rows(weight: Tensor, x: Tensor, keep: Tensor) -> Tensor:
    """weight (O, I), x (I,), keep (O,) bool: weight @ x in the rows to keep, 0 in all others, (O,)."""
    return torch.ops.netwright.some_rows(weight, x, keep)


def some_columns(turned: Tensor, x: Tensor, least: Tensor) -> Tensor:
    """turned (I, O): a weight (O, I) turned over, so that its columns lie in one piece; x (I,), least (): the product
    with x as if it were 0 where |x| < least, (O,)."""
    return torch.ops.netwright.some_columns(turned, x, least)


def switch_off(z: Tensor, g: Tensor, least: Tensor, off: float) -> Tensor:
    """z, g, least (H,): where |g| < least, z becomes `off`, in place. Which are kept, (H,) bool."""
    keep = torch.empty_like(z, dtype=torch.bool)
    _compiled().off(_array(z), _array(g), _array(least), off, keep.numpy())
    return keep


# operators of torch, so that what they compute is counted as theirs; `custom_op` would cost as much as a small product
torch.library.define("netwright::some_rows", "(Tensor weight, Tensor x, Tensor keep) -> Tensor")
torch.library.define("netwright::some_columns", "(Tensor turned, Tensor x, Tensor least) -> Tensor")


@torch.library.impl("netwright::some_rows", "CPU")
def _(weight: Tensor, x: Tensor, keep: Tensor) -> Tensor:
    out = x.new_zeros(weight.shape[0])
    _compiled().rows(_array(weight), _array(x), _array(keep), out.numpy())
    return out


@torch.library.impl("netwright::some_columns", "CPU")
def _(turned: Tensor, x: Tensor, least: Tensor) -> Tensor:
    out = x.new_zeros(turned.shape[1])
    _compiled().columns(_array(turned), _array(x), _array(least), out.numpy())
    return out


def _array(tensor: Tensor) -> Any:
    return tensor.detach().contiguous().numpy()


@register_flop_formula(torch.ops.netwright.some_rows, get_raw=True)
def _(weight: Tensor, x: Tensor, keep: Tensor, **_: Any) -> int:
    return 2 * int(keep.sum()) * weight.shape[1]


@register_flop_formula(torch.ops.netwright.some_columns, get_raw=True)
def _(turned: Tensor, x: Tensor, least: Tensor, **_: Any) -> int:
    return 2 * int((x.abs() >= least).sum()) * turned.shape[1]


class _Loops(NamedTuple):
    rows: Callable[..., None]
    columns: Callable[..., None]
    off: Callable[..., None]


@cache
def _compiled() -> _Loops:
    """The loops as machine code. Eight rows at a time: so many streams keep the memory busy although each of them
    is short; and what is summed up is read and written an eighth as often."""
    try:
        import numba
    except Exception as error:
        raise MissingExtra("numba", "kernels", "a product that skips rows or columns") from error

    number, vector, matrix = numba.float32, numba.float32[::1], numba.float32[:, ::1]
    some, single = numba.boolean[::1], numba.types.Array(number, 0, "C")
    compiled = lambda *types: numba.njit(
        numba.void(*types), fastmath={"reassoc", "contract", "nsz"}, nogil=True
    )

    @compiled(matrix, vector, some, vector)
    def rows_of(weight, x, keep, out):  # type: ignore[no-untyped-def]
        rows = np.flatnonzero(keep)
        whole = len(rows) - len(rows) % 8
        for i in range(0, whole, 8):
            a, b, c, d = weight[rows[i]], weight[rows[i + 1]], weight[rows[i + 2]], weight[rows[i + 3]]
            e, f, g, h = weight[rows[i + 4]], weight[rows[i + 5]], weight[rows[i + 6]], weight[rows[i + 7]]
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = numba.float32(0)
            for j in range(len(x)):
                y = x[j]
                s0 += a[j] * y
                s1 += b[j] * y
                s2 += c[j] * y
                s3 += d[j] * y
                s4 += e[j] * y
                s5 += f[j] * y
                s6 += g[j] * y
                s7 += h[j] * y
            for k, total in enumerate((s0, s1, s2, s3, s4, s5, s6, s7)):
                out[rows[i + k]] = total
        for i in range(whole, len(rows)):
            row = weight[rows[i]]
            total = numba.float32(0)
            for j in range(len(x)):
                total += row[j] * x[j]
            out[rows[i]] = total

    @compiled(matrix, vector, single, vector)
    def columns_of(turned, x, least, out):  # type: ignore[no-untyped-def]
        columns = np.flatnonzero(np.abs(x) >= least[()])
        whole = len(columns) - len(columns) % 8
        for i in range(0, whole, 8):
            n0, n1, n2, n3 = columns[i], columns[i + 1], columns[i + 2], columns[i + 3]
            n4, n5, n6, n7 = columns[i + 4], columns[i + 5], columns[i + 6], columns[i + 7]
            a, b, c, d, e, f, g, h = (
                turned[n0], turned[n1], turned[n2], turned[n3], turned[n4], turned[n5], turned[n6], turned[n7],
            )  # fmt: skip
            x0, x1, x2, x3, x4, x5, x6, x7 = x[n0], x[n1], x[n2], x[n3], x[n4], x[n5], x[n6], x[n7]
            for j in range(len(out)):
                first = (x0 * a[j] + x1 * b[j]) + (x2 * c[j] + x3 * d[j])
                out[j] += first + ((x4 * e[j] + x5 * f[j]) + (x6 * g[j] + x7 * h[j]))
        for i in range(whole, len(columns)):
            column, value = turned[columns[i]], x[columns[i]]
            for j in range(len(out)):
                out[j] += value * column[j]

    @compiled(vector, vector, vector, number, some)
    def off_where(z, g, least, off, keep):  # type: ignore[no-untyped-def]
        for i in range(len(z)):
            keep[i] = abs(g[i]) >= least[i]
            if not keep[i]:
                z[i] = off

    return _Loops(rows_of, columns_of, off_where)
