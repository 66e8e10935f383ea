"""Proof that a written file gives a network's outputs: it is run as anybody would run it, on several inputs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from netwright.core.errors import NetwrightError
from netwright.core.measure.difference import relative_error
from netwright.core.measure.latency import onnx_feed, onnx_session
from netwright.core.quiet import quiet

TOLERANCE = 1e-4
# a rounding that falls the other way moves a value by one step of its grid, and what follows with it
TOLERANCE_QUANTISED = 5e-2
TOLERANCE_HALF = 2e-2
_QUANTISING = {"QuantizeLinear", "DynamicQuantizeLinear"}


def prove(subject: nn.Module, inputs: tuple[Tensor, ...], path: Path, dynamic: bool) -> float:
    """The largest relative error of the file over the example, random inputs, and another batch size."""
    run, tolerance = _runner(path)
    if any(t.dtype in (torch.float16, torch.bfloat16) for t in (*subject.parameters(), *inputs)):
        tolerance = max(tolerance, TOLERANCE_HALF)
    worst = 0.0
    for tried in _trials(inputs, dynamic):
        with torch.no_grad():
            expected = outputs_of(subject, tried)
        got = run(tried)
        if len(got) != len(expected):
            raise NetwrightError(f"the file gives {len(got)} outputs, the network {len(expected)}")
        for a, b in zip(expected, got, strict=True):
            worst = max(worst, relative_error(a, b))
    if not worst <= tolerance:
        raise NetwrightError(
            f"the exported {path.suffix} file gives other outputs than the network "
            f"(relative difference {worst:.2g}, allowed {tolerance:g}); nothing was written"
        )
    return worst


def _quantises(graph: onnx.GraphProto) -> bool:
    """Whether a file rounds what it computes, to 8 bits or to signs: by ONNX's own operators, by Round beside weights
    of int8, as an 8-bit program does that was written here and read again, or by comparing beside weights of bits."""
    operators = {node.op_type for node in graph.node}
    types = {weight.data_type for weight in graph.initializer}
    return (
        bool(operators & _QUANTISING)
        or ("Round" in operators and onnx.TensorProto.INT8 in types)
        or ("GreaterOrEqual" in operators and onnx.TensorProto.UINT8 in types)
    )


def _counts(program: torch.export.ExportedProgram) -> bool:
    """Whether a program rounds between layers: to 8 bits, as integer kernels do (core/files/int8_arithmetic.py), or to
    signs (core/weights/binary.py)."""
    called = [node for node in program.graph.nodes if node.op == "call_function"]
    values = [node.meta.get("val") for node in called]
    codes = any(isinstance(value, Tensor) and value.dtype is torch.uint8 for value in values)
    compared = any(node.target is torch.ops.aten.ge.Tensor for node in called)
    held = {tensor.dtype for tensor in program.state_dict.values()}
    return (codes and torch.int8 in held) or (compared and torch.uint8 in held)


def _runner(path: Path) -> tuple[Callable[[tuple[Tensor, ...]], list[Tensor]], float]:
    """How to run a written file, and the tolerance for it."""
    if path.suffix == ".onnx":
        quantises = _quantises(onnx.load(path).graph)
        session = onnx_session(path)

        def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
            return [torch.as_tensor(a) for a in session.run(None, onnx_feed(session, inputs))]

        return run, TOLERANCE_QUANTISED if quantises else TOLERANCE
    with quiet():  # as anybody would run it, its checks of the inputs included
        program = torch.export.load(io.BytesIO(path.read_bytes()))  # written by us a moment ago
        module = program.module()
    return partial(outputs_of, module), TOLERANCE_QUANTISED if _counts(program) else TOLERANCE


def outputs_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The tensors among its outputs (None is none of a file's). The inputs stay, should the network write to them."""
    return [t for t in tree_leaves(network(*(t.clone() for t in inputs))) if isinstance(t, Tensor)]


def _trials(inputs: tuple[Tensor, ...], dynamic: bool) -> Iterator[tuple[Tensor, ...]]:
    """The example; two random inputs of its shape; with a dynamic batch, one of a single row and a larger one."""
    generator = torch.Generator().manual_seed(0)
    yield inputs
    size = inputs[0].shape[0] if inputs and inputs[0].dim() else 1
    for batch in (size, size, *((1, size + 3) if dynamic else ())):
        yield tuple(_like(t, batch if t.dim() and t.shape[0] == size else None, generator) for t in inputs)


def _like(tensor: Tensor, batch: int | None, generator: torch.Generator) -> Tensor:
    """Random values spread as the example's: normal for floats, drawn from its range for integers."""
    shape = tensor.shape if batch is None else (batch, *tensor.shape[1:])
    if tensor.is_floating_point():
        std, mean = torch.std_mean(tensor.double(), correction=0)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (noise * (std if std > 0 else 1.0) + mean).to(tensor.dtype)
    low, high = int(tensor.min()), int(tensor.max())
    return torch.randint(low, high + 1, shape, generator=generator).to(tensor.dtype)
