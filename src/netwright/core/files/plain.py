"""An exported program written in torch's own operators, so that it opens where nothing but torch is imported.

8-bit layers are traced with operators that ONNX has counterparts of (core/weights/packed.py); a file of them opens
only where the module that registers them is imported. Here they become the arithmetic that they stand for, on the
same int8 weights: whole stretches in integers, as ONNX Runtime runs them (core/files/int8_arithmetic.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from netwright.core.errors import NotApplicable
from netwright.core.files.int8_arithmetic import integer_layers, rounded
from netwright.core.quiet import quiet
from netwright.core.weights import packed

# namespaces of operators that `import torch` registers
_OWN = {"aten", "prim", "prims", "higher_order"}


def _value(
    codes: Tensor, scale: float, zero: int, low: int, high: int, dtype: torch.dtype, *, out_dtype: Any = None
) -> Tensor:
    return (codes.to(out_dtype or torch.float32) - zero) * scale


def _values(
    codes: Tensor, scale: Tensor, zero: Tensor | None, axis: int, low: int, high: int, dtype: torch.dtype, *,
    out_dtype: Any = None,
) -> Tensor:  # fmt: skip
    shape = [1] * codes.dim()
    shape[axis] = -1
    shifted = codes if zero is None else codes - zero.view(shape)
    return (shifted * scale.view(shape)).to(out_dtype or torch.float32)


_int8 = torch.ops.quantized_decomposed
_TABLE: dict[Any, Callable[..., Any]] = {
    _int8.quantize_per_tensor.default: rounded,
    _int8.dequantize_per_tensor.default: _value,
    _int8.dequantize_per_channel.default: _values,
    torch.ops.netwright.dynamic_linear.default: packed.dynamic_arithmetic,
}


def plain(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program without operators that `import torch` does not register. The given one is used up.

    One without any is returned as it is. NotApplicable, with its name, where an operator of somebody else's is left.
    """
    found = _foreign(program)
    if any(operator in _TABLE for operator in found):
        with quiet():
            integer_layers(program)
            program = program.run_decompositions(_TABLE)
        found = _foreign(program)
    if found:
        names = ", ".join(sorted({str(operator) for operator in found}))
        raise NotApplicable(
            f"it uses {names}, which torch alone does not know: the file would open nowhere but beside the code "
            "that registers it"
        )
    return program


def _foreign(program: torch.export.ExportedProgram) -> list[Any]:
    targets = [
        node.target
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
        if node.op == "call_function"
    ]
    return [t for t in targets if isinstance(t, torch._ops.OpOverload) and t.namespace not in _OWN]
