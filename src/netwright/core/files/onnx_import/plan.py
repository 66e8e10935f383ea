"""Which of a file's sizes are the batch, which vary otherwise, and what to try them with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor

from netwright.core.errors import BadInput
from netwright.core.files.onnx_import.registry import torch_type

_GUESSES = (64, 32, 16, 224, 8, 128)


@dataclass(frozen=True)
class Input:
    """An input of the file: name, type, and its sizes; a size that may vary is a name, or None without one.

    texts: it takes texts, for which the network has codes.
    """

    name: str
    dtype: torch.dtype
    dims: tuple[int | str | None, ...]
    texts: bool = False


@dataclass(frozen=True)
class Plan:
    """How to read a file.

    shapes: for each input, its sizes; those that are the batch stand as None.
    free: whether the network takes any batch; batch: the size that the file fixes, if it fixes one.
    static: whether no other size varies.
    """

    shapes: tuple[tuple[int | None, ...], ...]
    free: bool
    batch: int | None
    static: bool

    def at(self, batch: int) -> list[tuple[int, ...]]:
        return [tuple(batch if d is None else d for d in shape) for shape in self.shapes]


def read_input(value: onnx.ValueInfoProto) -> Input:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise BadInput(f"input '{value.name}' is no tensor of known rank")
    dims = tuple(d.dim_value if d.dim_value > 0 else d.dim_param or None for d in kind.shape.dim)
    texts = kind.elem_type == onnx.TensorProto.STRING
    return Input(value.name, torch.int64 if texts else torch_type(kind.elem_type), dims, texts)


def declared(inputs: list[Input]) -> list[tuple[int | None, ...]]:
    """Their sizes as the file has them; None for those that may vary."""
    return [tuple(d if isinstance(d, int) else None for d in i.dims) for i in inputs]


def plans(inputs: list[Input], example: tuple[Tensor, ...] | None) -> list[Plan]:
    """Any batch first, then the file's own; sizes that vary otherwise from the example, or guessed."""
    if example is not None and (
        len(example) != len(inputs)
        or any(t.dim() != len(i.dims) for t, i in zip(example, inputs, strict=True))
    ):
        example = None
    named = [d for i in inputs for d in i.dims if isinstance(d, str)]
    batch: Any = next((d for d in named if "batch" in d.lower()), None)
    first = [i.dims[0] for i in inputs if i.dims]
    if batch is None:
        batch = next((d for d in first if not isinstance(d, int)), first[0] if first else 1)
    varying = [d for i in inputs for k, d in enumerate(i.dims) if not _is_batch(d, k, batch)]
    static = all(isinstance(d, int) for d in varying)
    number = batch if isinstance(batch, int) else None
    found = []
    for guess in (0,) if static or example is not None else _GUESSES:
        for free in (True, False) if first else (False,):
            sizes = [
                tuple(
                    (None if free else d if isinstance(d, int) else 1) if _is_batch(d, k, batch)
                    else d if isinstance(d, int)
                    else guess if example is None else example[i].shape[k]
                    for k, d in enumerate(entry.dims)
                )
                for i, entry in enumerate(inputs)
            ]  # fmt: skip
            found.append(Plan(tuple(sizes), free, number, static))
    return found


def _is_batch(dim: int | str | None, axis: int, batch: Any) -> bool:
    """A size is the batch if it has its name anywhere, or its number (or no name) as the first of an input."""
    return dim == batch and (isinstance(dim, str) or axis == 0)
