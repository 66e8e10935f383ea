"""Write a network as ONNX or as an exported program (.pt2), and prove that the file gives the same outputs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from netwright.core.checkpoint import atomic
from netwright.core.compare import relative_error
from netwright.core.errors import BadInput, NetwrightError, NotApplicable
from netwright.core.graph.trace import trace
from netwright.core.latency import onnx_feed, onnx_session
from netwright.core.network import clone
from netwright.core.packed import ONNX_TRANSLATIONS, Packed
from netwright.core.quiet import quiet, silent
from netwright.core.split import Normalise

OPSET = 20
METADATA = "netwright"
TOLERANCE = 1e-4
# a rounding that falls the other way moves a value by one step of its grid, and what follows with it
TOLERANCE_QUANTISED = 5e-2
TOLERANCE_HALF = 2e-2
_FOLDED = 1024  # entries of a constant that the exporter may fold in a network of packed weights

_TRANSLATIONS = dict(ONNX_TRANSLATIONS)
_QUANTISING = {"QuantizeLinear", "DynamicQuantizeLinear"}


def register_translation(operator: Callable[..., Any], translation: Callable[..., Any]) -> None:
    """Teach the ONNX exporter a torch operator: `translation` is an onnxscript function of its arguments."""
    _TRANSLATIONS[operator] = translation


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its outputs were from the network's.

    max_error: the largest absolute difference over the largest absolute output, over all inputs tried.
    dynamic_batch: whether the file takes any batch size (False: that of the example only).
    """

    path: Path
    bytes: int
    max_error: float
    dynamic_batch: bool


class Front(nn.Module):
    """A network with the normalisation of its first input in front."""

    def __init__(self, normalise: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        return self.network(self.normalise(inputs[0]), *inputs[1:])


def export(
    network: nn.Module,
    example: tuple[Tensor, ...],
    path: str | Path,
    normalise: nn.Module | None = None,
    dynamic_batch: bool = True,
) -> Exported:
    """Write `path` (.onnx or .pt2) in evaluation mode, on the CPU, and run it against the network.

    example: inputs, batch first, as the file will take them (before the normalisation, if one is given).
    The ONNX file is self-contained; its inputs are 'input' (or input_0, input_1, ...), its output 'output' (or
    output_0, ...); its metadata say whether normalisation is inside. Where the network cannot be exported for
    any batch size, the file is for the example's own and the result says so.
    Outputs may differ by TOLERANCE of the largest output; TOLERANCE_QUANTISED in networks that quantise,
    TOLERANCE_HALF in networks of half precision. Raises NotApplicable where no exporter serves the network
    and NetwrightError where the file gives other outputs; the file is then not written.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise BadInput(f"{path}: a network is exported to a name that ends in .onnx or .pt2")
    if path.is_dir():
        raise BadInput(f"cannot write {path}: it is a folder")
    inputs = tuple(t.detach().cpu() for t in example)
    subject = clone(network).cpu().eval()
    if normalise is not None:
        subject = Front(clone(normalise).cpu().eval(), subject)
    inside = normalise is not None and any(isinstance(m, Normalise) for m in normalise.modules())
    facts = {"normalise": "inside" if inside else "outside"}
    write = _onnx_ways if path.suffix == ".onnx" else _pt2_ways
    failure: Exception | None = None
    for dynamic, content in write(subject, inputs, dynamic_batch, facts):
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(content())
                error = _prove(subject, inputs, temporary, dynamic)
            return Exported(path, path.stat().st_size, error, dynamic)
        except BadInput:
            raise  # the disk, not the network
        except Exception as reason:
            failure = failure or reason
    if isinstance(failure, NetwrightError):
        raise failure
    raise NotApplicable(f"this network cannot be exported to {path.suffix}: {_line(failure)}") from failure


def _line(error: Exception | None) -> str:
    """What an exporter said, in one line: the operator it misses, or the first line of its message."""
    text = str(error)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    if missing:
        return f"ONNX has no counterpart of the operator {missing[1]}"
    return text.strip().partition("\n")[0][:300] or type(error).__name__


Way = tuple[bool, Callable[[], bytes]]


def _pt2_ways(subject: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool, facts: dict) -> Iterator[Way]:
    """For any batch, then for one."""
    for batch in (True, False) if dynamic else (False,):
        program, varies = _program(subject, inputs, batch)
        yield varies, partial(_pt2_bytes, program, facts)


def _onnx_ways(subject: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool, facts: dict) -> Iterator[Way]:
    """From the traced program or else by the older exporter, for any batch or else for one.

    The older exporter would follow one side of a branch on values without a word; so it is asked only about
    networks that torch.export has traced, which have no such branch.
    """
    program, varies = _program(subject, inputs, dynamic)
    if dynamic:
        if varies:
            yield True, partial(_onnx_bytes, subject, program, inputs, True, facts)
        yield True, partial(_onnx_bytes, subject, None, inputs, True, facts)
        program, _ = _program(subject, inputs, False)
    yield False, partial(_onnx_bytes, subject, program, inputs, False, facts)
    yield False, partial(_onnx_bytes, subject, None, inputs, False, facts)


def _program(
    subject: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool
) -> tuple[torch.export.ExportedProgram, bool]:
    """The traced program and whether its batch may vary."""
    with quiet(), torch.no_grad():
        if dynamic:
            graph = trace(subject, inputs)
            return graph.program, graph.dynamic
        try:
            return torch.export.export(subject, inputs), False
        except Exception as error:
            raise NotApplicable(f"this network cannot be traced: {_line(error)}") from error


def _pt2_bytes(program: torch.export.ExportedProgram, facts: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={METADATA: json.dumps(facts)})
    return buffer.getvalue()


def _onnx_bytes(
    subject: nn.Module,
    program: torch.export.ExportedProgram | None,
    inputs: tuple[Tensor, ...],
    dynamic: bool,
    facts: dict[str, str],
) -> bytes:
    """The finished ONNX file, from the program or, without one, by running the network under the tracer."""
    with torch.no_grad():
        outputs = _names("output", len(_outputs(subject, inputs)))
    given = _names("input", len(inputs))
    axes = {name: {0: "batch"} for name in given + outputs} if dynamic else None
    buffer: Any = io.BytesIO()
    if program is not None:
        with quiet(), torch.no_grad():
            packed = any(isinstance(module, Packed) for module in subject.modules())
            made: Any = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, verbose=False, input_names=given,
                output_names=outputs, custom_translation_table=dict(_TRANSLATIONS), optimize=not packed,
            )  # fmt: skip
            if packed:  # the default folds 8-bit weights of up to 8192 entries back into floats
                import onnxscript.optimizer
                import onnxscript.rewriter.onnx_fusions

                onnxscript.optimizer.optimize_ir(made.model, input_size_limit=_FOLDED)
                onnxscript.rewriter.onnx_fusions.fuse(made.model)
            made.save(buffer, external_data=False)
    else:
        with silent(), torch.no_grad():
            torch.onnx.export(
                subject, inputs, buffer, dynamo=False, opset_version=OPSET, dynamic_axes=axes,
                input_names=given, output_names=outputs,
            )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    _finish(model, facts)
    return model.SerializeToString()


def _names(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}_{i}" for i in range(count)]


def _finish(model: onnx.ModelProto, facts: dict[str, str]) -> None:
    """Name the batch dimension, note the facts, drop what only a debugger of the exporter reads."""
    batch = {d.dim_param for d in (_first_dim(v) for v in model.graph.input) if d is not None} - {""}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in batch:
                dim.dim_param = "batch"
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    onnx.helper.set_model_props(model, {f"{METADATA}.{key}": value for key, value in facts.items()})
    onnx.checker.check_model(model)


def _first_dim(value: onnx.ValueInfoProto) -> Any:
    dims = value.type.tensor_type.shape.dim
    return dims[0] if len(dims) else None


def _prove(subject: nn.Module, inputs: tuple[Tensor, ...], path: Path, dynamic: bool) -> float:
    """The largest relative error of the file over the example, random inputs, and another batch size."""
    run, tolerance = _runner(path)
    if any(t.dtype in (torch.float16, torch.bfloat16) for t in (*subject.parameters(), *inputs)):
        tolerance = max(tolerance, TOLERANCE_HALF)
    worst = 0.0
    for tried in _trials(inputs, dynamic):
        with torch.no_grad():
            expected = _outputs(subject, tried)
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


def _runner(path: Path) -> tuple[Callable[[tuple[Tensor, ...]], list[Tensor]], float]:
    """How to run a written file, and the tolerance for it."""
    if path.suffix == ".onnx":
        quantises = any(node.op_type in _QUANTISING for node in onnx.load(path).graph.node)
        session = onnx_session(path)

        def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
            return [torch.as_tensor(a) for a in session.run(None, onnx_feed(session, inputs))]

        return run, TOLERANCE_QUANTISED if quantises else TOLERANCE
    with quiet():
        program = torch.export.load(io.BytesIO(path.read_bytes()))  # written by us a moment ago
        module = program.module(check_guards=False)
    quantises = any("quantize" in str(node.target) for node in program.graph.nodes)
    return partial(_outputs, module), TOLERANCE_QUANTISED if quantises else TOLERANCE


def _outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The tensors among its outputs (None is none of a file's). The inputs stay, should the network write to them."""
    return [t for t in tree_leaves(network(*(t.clone() for t in inputs))) if isinstance(t, Tensor)]


def _trials(inputs: tuple[Tensor, ...], dynamic: bool) -> Iterator[tuple[Tensor, ...]]:
    """The example; two random inputs of its shape; with a dynamic batch, one more of another size."""
    generator = torch.Generator().manual_seed(0)
    yield inputs
    size = inputs[0].shape[0] if inputs and inputs[0].dim() else 1
    for batch in (size, size, *((size + 3,) if dynamic else ())):
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
