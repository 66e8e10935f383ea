"""Narrow copies of blocks, cut from the wide ones by importance: the rungs of a side network.

A block is cut as LST's authors do: the rows of a matrix with the largest importance, summed over the columns that are
kept, stay, and are the columns kept in the next matrix, chained from the embedding. Matrices that read the same tensor
(query, key and value; gate and up) keep the same rows, by the product of their importances. Norms keep what was kept
last. Residual consistency is ignored.

Nothing is known of any class: a narrow block is a copy whose tensors are smaller and whose sizes are divided, and it
counts only if it runs on narrow states in the place of the wide one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.adapt.lst.stack import Call, first
from netwright.core.errors import NotApplicable
from netwright.core.network import evaluating, without_fast_path

_COUNT = re.compile(r"(^|_)(heads?|groups)$")
_SIZE = re.compile(r"dim$|size$|features$|^d_|^embed|hidden|width$|_shape$|^n[xf]$")


@dataclass(frozen=True)
class Matrix:
    """A weight (out, in) of a block, or (in, out) where `turned`, with its bias; names within the block."""

    weight: str
    bias: str | None
    turned: bool = False

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(out, in), whichever way it is stored."""
        return tensors[self.weight].T if self.turned else tensors[self.weight]


Step = list[Matrix] | str
"""Matrices that read one tensor, or the name of a norm; in the order in which a block runs them."""


def steps_of(block: nn.Module, given: Call) -> list[Step]:
    """What a block is made of. Raises NotApplicable for a part that is no matrix, norm or look-up table."""
    steps: list[Step] = []
    read: list[Any] = []  # the tensor that each step reads, kept alive so that it is not taken for another
    names = {module: name for name, module in block.named_modules()}
    handles = []

    def ran(module: nn.Module, args: Any, kwargs: Any) -> None:
        if isinstance(module, nn.Embedding):
            return
        if isinstance(module, nn.MultiheadAttention):
            steps.extend([[m] for m in _attention(names[module], module)])
            read.extend([None, None])
            return
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() > 2:
            raise NotApplicable(
                f"it cannot build a narrow {type(block).__name__}: it has no rule for the {type(module).__name__} in it"
            )
        source = args[0] if args else next(iter(kwargs.values()))
        if weight.dim() == 1:
            steps.append(names[module])
            read.append(None)
            return
        bias = f"{names[module]}.bias" if getattr(module, "bias", None) is not None else None
        matrix = Matrix(f"{names[module]}.weight", bias, turned=not isinstance(module, nn.Linear))
        if read and read[-1] is source and isinstance(steps[-1], list):
            steps[-1].append(matrix)
        else:
            steps.append([matrix])
            read.append(source)

    for module in _weighted(block):
        handles.append(module.register_forward_pre_hook(ran, with_kwargs=True))
    try:
        with evaluating(block), torch.no_grad(), without_fast_path():
            block(given.hidden, *private(given.args[1:]), **private(given.kwargs))
    finally:
        for handle in handles:
            handle.remove()
    return steps


def _weighted(block: nn.Module) -> Iterator[nn.Module]:
    """Modules with parameters of their own; torch's attention is one, its projection included."""
    inside: set[nn.Module] = set()
    for module in block.modules():
        if module in inside:
            continue
        if isinstance(module, nn.MultiheadAttention):
            inside.update(module.modules())
            yield module
        elif any(True for _ in module.parameters(recurse=False)):
            yield module


def _attention(name: str, module: nn.MultiheadAttention) -> tuple[Matrix, Matrix]:
    if module.in_proj_weight is None:
        raise NotApplicable("it cannot narrow an attention whose keys and values have widths of their own")
    inner = Matrix(
        f"{name}.in_proj_weight", f"{name}.in_proj_bias" if module.in_proj_bias is not None else None
    )
    outer = module.out_proj
    return inner, Matrix(
        f"{name}.out_proj.weight", f"{name}.out_proj.bias" if outer.bias is not None else None
    )


def private(values: Any) -> Any:
    """Arguments without the caches of keys and values, which belong to the block that they were made for."""
    if isinstance(values, dict):
        return {name: private(value) for name, value in values.items() if name != "use_cache"}
    if isinstance(values, tuple):
        return tuple(private(value) for value in values)
    return None if hasattr(values, "get_seq_length") else values


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the largest scores, in ascending order."""
    return scores.topk(count).indices.sort().values


def narrow(
    block: nn.Module, given: Call, reduction: int, importance: Mapping[str, Tensor], columns: Tensor
) -> tuple[nn.Module, Tensor]:
    """A copy of the block, every width divided by `reduction`, and the units of its output that are kept.

    importance: squared gradients by parameter name in the block; columns (d / reduction,): hidden units kept so far.
    The heads become narrower; where that does not run (rotary positions know the width of a head), fewer.
    """
    steps = steps_of(block, given)
    tensors, kept = _cut(dict(block.named_parameters()), steps, reduction, importance, columns)
    widths = {n for step in steps if not isinstance(step, str) for m in step for n in m.of(importance).shape}
    reasons = []
    for fewer in (False, True):
        side = copy.deepcopy(block)
        _resize(side, widths, reduction, fewer)
        for name, tensor in tensors.items():
            _put(side, name, tensor)
        reason = _runs(side, given, len(columns))
        if reason is None:
            return side.requires_grad_(True), kept
        reasons.append(reason)
    raise NotApplicable(
        f"a {type(block).__name__} cannot be {reduction} times narrower: with narrower heads, {reasons[0]}; with fewer "
        f"heads, {reasons[1]}"
    )


def _cut(
    tensors: Mapping[str, Tensor], steps: Sequence[Step], reduction: int, importance: Mapping[str, Tensor],
    columns: Tensor,
) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
    """The smaller tensors by name, and the rows kept last."""
    found: dict[str, Tensor] = {}
    matrices = [step for step in steps if not isinstance(step, str)]
    read = [step[0].of(tensors).shape[1] for step in matrices]
    readers = [*read[1:], matrices[-1][0].of(tensors).shape[0]]
    whole, at = read[0], iter(readers)
    for step in steps:
        if isinstance(step, str):
            for name in (f"{step}.weight", f"{step}.bias"):
                if tensors.get(name) is not None:
                    size = len(tensors[name])
                    index = columns if size == whole else torch.arange(size // reduction)
                    found[name] = tensors[name].detach()[index]
            continue
        reader, following = next(at), None
        for size in dict.fromkeys(m.of(tensors).shape[0] for m in step):
            like = [m for m in step if m.of(tensors).shape[0] == size]
            packed = size // reader if size % reader == 0 else 1
            rows = _rows([m.of(importance)[:, columns] for m in like], packed, reduction)
            following = rows if following is None or size // packed == reader else following
            every = torch.cat([rows + i * (size // packed) for i in range(packed)])
            for matrix in like:
                weight = matrix.of(tensors).detach()[every][:, columns]
                found[matrix.weight] = weight.T if matrix.turned else weight
                if matrix.bias is not None:
                    found[matrix.bias] = tensors[matrix.bias].detach()[every]
        assert following is not None
        columns, whole = following, reader
    return found, columns


def _rows(importances: list[Tensor], packed: int, reduction: int) -> Tensor:
    """The rows with the largest product of importances, summed over columns. packed: matrices stacked in each."""
    together = torch.stack([i.double().unflatten(0, (packed, -1)).prod(0) for i in importances]).prod(0)
    return top(together.sum(1), together.shape[0] // reduction)


def _resize(side: nn.Module, widths: set[int], reduction: int, fewer: bool) -> None:
    """Divide the sizes that modules keep as numbers: all widths; and those of a head, or the number of heads."""
    for module in side.modules():
        numbers = {n: v for n, v in vars(module).items() if type(v) is int}
        counts = {n: v for n, v in numbers.items() if _COUNT.search(n) and v > 0}
        of_heads = {w // c for w in widths for c in counts.values() if w % c == 0} - widths
        for name, value in list(vars(module).items()):
            if name in counts:
                if fewer and value % reduction == 0:
                    setattr(module, name, value // reduction)
            elif type(value) is int and _SIZE.search(name):
                if value in widths or (value in of_heads and not fewer):
                    setattr(module, name, value // reduction)
            elif type(value) is tuple and _SIZE.search(name):
                if len(value) == 1 and value[0] in widths:
                    setattr(module, name, (value[0] // reduction,))
            elif type(value) is float and not fewer and any(abs(value - h**-0.5) < 1e-9 for h in of_heads):
                setattr(module, name, value * reduction**0.5)


def _put(side: nn.Module, name: str, tensor: Tensor) -> None:
    place, _, leaf = name.rpartition(".")
    setattr(side.get_submodule(place), leaf, nn.Parameter(tensor.clone()))


def _runs(side: nn.Module, given: Call, width: int) -> str | None:
    """Why the narrow block does not run in the place of the wide one; None if it does."""
    state = torch.zeros(*given.hidden.shape[:-1], width, device=given.hidden.device)
    try:
        with evaluating(side), torch.no_grad(), without_fast_path():
            made = first(side(state, *private(given.args[1:]), **private(given.kwargs)))
    except Exception as error:  # the user's own block, at sizes that it may not expect
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None if made.shape == state.shape else f"it gives {tuple(made.shape)}"
