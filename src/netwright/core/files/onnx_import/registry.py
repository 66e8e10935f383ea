"""The tables of operators: which function reads which. Each family of operators fills them in its own file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from netwright.core.errors import BadInput, UnsupportedOperator
from netwright.core.files.onnx_import.emitter import Emitter
from netwright.core.files.onnx_import.values import Const, Operand, Results, Size, Value

Reader = Callable[[Emitter, "Node"], Results]
READERS: dict[str, Reader] = {}
"""Operator -> what writes its steps."""
SIZES: dict[str, Callable[[Node], Results]] = {}
"""Operator -> what computes it on sizes (numpy arrays of objects)."""


def reads(*operators: str) -> Callable[[Reader], Reader]:
    def enter(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(operators, reader))
        return reader

    return enter


@dataclass
class Node:
    """One node of the file.

    opset: version of its operators. used: for each output, how often it is read. hint: a name for its layer.
    """

    op: str
    name: str
    inputs: list[Operand]
    attributes: dict[str, Any]
    opset: int
    used: list[int]
    hint: str = ""

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def operand(self, index: int) -> Any:
        """An input; its absence is an error of the file's."""
        if not self.has(index):
            raise BadInput(f"node '{self.name}' ({self.op}) lacks its input {index}")
        return self.inputs[index]

    def constant(self, index: int) -> torch.Tensor | None:
        """An input that must be known when the network is read; None if absent."""
        if not self.has(index):
            return None
        value = self.inputs[index]
        if isinstance(value, Const):
            return value.tensor
        if isinstance(value, np.ndarray) and not any(isinstance(v, Size) for v in value.ravel()):
            return torch.tensor(value.tolist())
        raise self.refuse(f"with an input {index} that is computed")

    def integers(self, index: int) -> list[int] | None:
        """The same as a list."""
        found = self.constant(index)
        return None if found is None else [int(v) for v in found.reshape(-1).tolist()]

    def numbers(self, index: int, attribute: str) -> list[int] | None:
        """What is an input in newer operator sets and an attribute in older ones."""
        if self.has(index):
            return self.integers(index)
        found = self.attribute(attribute)
        return None if found is None else list(found)

    def sizes(self, index: int) -> list[Any]:
        """An input that says sizes: integers and `Size`s."""
        value = self.operand(index)
        if isinstance(value, Const):
            return [int(v) for v in value.tensor.reshape(-1).tolist()]
        if isinstance(value, np.ndarray):
            return list(value.ravel())
        raise self.refuse("with sizes that are computed from data")

    def refuse(self, what: str, supported: str = "") -> UnsupportedOperator:
        return UnsupportedOperator(f"{self.op} ({what})", self.name, "Netwright", supported)

    def only_first_output(self) -> None:
        if any(self.used[1:]):
            raise self.refuse("with more than its first output used")


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """An attribute as Python has it; texts decoded, tensors as torch tensors."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return to_torch(value)
    if isinstance(value, (list, tuple)) or attribute.type in (
        onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS, onnx.AttributeProto.STRINGS,
    ):  # fmt: skip
        return [v.decode(errors="replace") if isinstance(v, bytes) else v for v in value]
    return value


def to_torch(proto: onnx.TensorProto) -> torch.Tensor:
    """The tensor of a file, of the same type."""
    if proto.data_type == onnx.TensorProto.BFLOAT16:
        return torch.from_numpy(numpy_helper.to_array(proto).astype(np.float32)).bfloat16()
    array = numpy_helper.to_array(proto)
    if array.dtype.kind not in "biuf":
        raise BadInput(f"tensor '{proto.name}' holds {array.dtype}, which torch has no type for")
    return torch.from_numpy(np.array(array))


def torch_type(code: int) -> torch.dtype:
    """ONNX's number of a type as torch's type."""
    if code == onnx.TensorProto.BFLOAT16:
        return torch.bfloat16
    try:
        return torch.from_numpy(np.zeros(0, onnx.helper.tensor_dtype_to_np_dtype(code))).dtype
    except (KeyError, TypeError):
        raise BadInput(f"the file uses the type {onnx.TensorProto.DataType.Name(code)}") from None


def scalar(operand: Operand, other: Operand = None) -> Any:
    """A constant of one number as that number, where broadcasting it changes no shape; else the operand.

    So a lone number of the file's is not trained: mostly it is a scale that the exporter wrote down.
    """
    if isinstance(operand, Const) and operand.tensor.numel() == 1 and not isinstance(other, np.ndarray):
        rank = other.dim if isinstance(other, (Const, Value)) else 0
        if operand.dim <= rank or operand.dim == 0:
            return operand.tensor.item()
    return operand
