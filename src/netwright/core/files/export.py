"""Write a network as ONNX or as an exported program (.pt2), and prove that the file gives the same outputs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, NetwrightError, NotApplicable
from netwright.core.files.checkpoint import atomic
from netwright.core.files.onnx_names import rename
from netwright.core.files.onnx_translations import TRANSLATIONS
from netwright.core.files.plain import plain
from netwright.core.files.proof import outputs_of, prove
from netwright.core.graph.trace import trace
from netwright.core.network import clone
from netwright.core.quiet import quiet, silent
from netwright.core.signature import SIGNATURE, Input, Signature
from netwright.core.split import Normalise
from netwright.core.weights.binary import PackedSigns
from netwright.core.weights.bits import PackedBits
from netwright.core.weights.packed import ONNX_TRANSLATIONS, Packed

OPSET = 20
METADATA = "netwright"
_FOLDED = 1024  # entries of a constant that the exporter may fold in a network of 8-bit weights
_FOLDED_BITS = 64  # and of fewer bits, whose unpacking is such constants' arithmetic all through

_TRANSLATIONS = {**TRANSLATIONS, **ONNX_TRANSLATIONS}


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
    signature: Signature | None = None,
) -> Exported:
    """Write `path` (.onnx or .pt2) in evaluation mode, on the CPU, and run it against the network.

    example: inputs, batch first, as the file will take them (before the normalisation, if one is given).
    signature: what the file takes and gives, written into it: `signature_of` (core/files/load.py) reads it again.
    The file is self-contained and opens with onnxruntime or torch alone. An ONNX file's inputs and outputs are
    named as the signature says, else 'input' (or input_0, input_1, ...) and 'output' (or output_0, ...); its
    metadata say whether normalisation is inside. Where the network cannot be exported for any batch size, the
    file is for the example's own and the result says so.
    Outputs may differ by TOLERANCE (core/files/proof.py) of the largest output; TOLERANCE_QUANTISED in ONNX files
    that quantise, TOLERANCE_HALF in networks of half precision. Raises NotApplicable where no exporter serves
    the network and NetwrightError where the file gives other outputs; the file is then not written.
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
    if signature is not None and len(signature.inputs) != len(inputs):
        raise BadInput(
            f"the signature has {len(signature.inputs)} inputs, the network is given {len(inputs)}"
        )
    if signature is not None:  # the example knows best
        signature = replace(signature, inputs=tuple(map(_as_given, signature.inputs, inputs)))
    inside = normalise is not None and any(isinstance(m, Normalise) for m in normalise.modules())
    facts = _Facts("inside" if inside else "outside", signature)
    write = _onnx_ways if path.suffix == ".onnx" else _pt2_ways
    failure: Exception | None = None
    for dynamic, content in write(subject, inputs, dynamic_batch, facts):
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(content())
                error = prove(subject, inputs, temporary, dynamic)
            return Exported(path, path.stat().st_size, error, dynamic)
        except BadInput:
            raise  # the disk, not the network
        except Exception as reason:
            failure = failure or reason
    if isinstance(failure, NetwrightError):
        raise failure
    raise NotApplicable(f"this network cannot be exported to {path.suffix}: {_line(failure)}") from failure


def _as_given(told: Input, tensor: Tensor) -> Input:
    return replace(told, shape=tuple(tensor.shape[1:]), type=str(tensor.dtype).removeprefix("torch."))


def _line(error: Exception | None) -> str:
    """What an exporter said, in one line: the operator it misses, or the first line of its message."""
    text = str(error)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    if missing:
        return f"ONNX has no counterpart of the operator {missing[1]}"
    return text.strip().partition("\n")[0][:300] or type(error).__name__


@dataclass(frozen=True)
class _Facts:
    """What a file says about itself. normalise: inside or outside."""

    normalise: str
    signature: Signature | None

    def signed(self, outputs: int) -> dict[str, str]:
        """The signature as a file of so many outputs holds it."""
        if self.signature is None:
            return {}
        told = replace(self.signature, output_names=tuple(self.names("output", outputs)))
        return {SIGNATURE: json.dumps(told.to_json(), separators=(",", ":"))}

    def names(self, stem: str, count: int) -> list[str]:
        """The signature's names of the inputs or outputs where it has so many, else names of ours."""
        if self.signature is None:
            return _names(stem, count)
        told = (
            [i.name for i in self.signature.inputs] if stem == "input" else list(self.signature.output_names)
        )
        return told if len(told) == count else _names(stem, count)


Way = tuple[bool, Callable[[], bytes]]


def _pt2_ways(subject: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool, facts: _Facts) -> Iterator[Way]:
    """For any batch, then for one."""
    for batch in (True, False) if dynamic else (False,):
        program, varies = _program(subject, inputs, batch)
        yield varies, partial(_pt2_bytes, program, facts)


def _onnx_ways(subject: nn.Module, inputs: tuple[Tensor, ...], dynamic: bool, facts: _Facts) -> Iterator[Way]:
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


def _pt2_bytes(program: torch.export.ExportedProgram, facts: _Facts) -> bytes:
    buffer = io.BytesIO()
    program = plain(program)
    signed = facts.signed(len(program.graph_signature.user_outputs))
    extra = {METADATA: json.dumps({"normalise": facts.normalise}), **signed}
    with quiet():
        torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


def _onnx_bytes(
    subject: nn.Module,
    program: torch.export.ExportedProgram | None,
    inputs: tuple[Tensor, ...],
    dynamic: bool,
    facts: _Facts,
) -> bytes:
    """The finished ONNX file, from the program or, without one, by running the network under the tracer."""
    with torch.no_grad():
        outputs = _names("output", len(outputs_of(subject, inputs)))
    given = _names("input", len(inputs))
    axes = {name: {0: "batch"} for name in given + outputs} if dynamic else None
    buffer: Any = io.BytesIO()
    if program is not None:
        with quiet(), torch.no_grad():
            packed = any(isinstance(m, (Packed, PackedBits, PackedSigns)) for m in subject.modules())
            made: Any = torch.onnx.export(
                program, (), dynamo=True, opset_version=OPSET, verbose=False, input_names=given,
                output_names=outputs, custom_translation_table=dict(_TRANSLATIONS), optimize=not packed,
            )  # fmt: skip
            if packed:  # the default folds packed weights of up to 8192 entries back into floats
                import onnxscript.optimizer
                import onnxscript.rewriter.onnx_fusions

                few = any(isinstance(m, (PackedBits, PackedSigns)) for m in subject.modules())
                limit = _FOLDED_BITS if few else _FOLDED
                onnxscript.optimizer.optimize_ir(made.model, input_size_limit=limit)
                onnxscript.rewriter.onnx_fusions.fuse(made.model)
            made.save(buffer, external_data=False)
    else:
        with silent(), torch.no_grad():
            torch.onnx.export(
                subject, inputs, buffer, dynamo=False, opset_version=OPSET, dynamic_axes=axes,
                input_names=given, output_names=outputs,
            )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    wanted = facts.names("input", len(given)) + facts.names("output", len(outputs))
    rename(model.graph, dict(zip(given + outputs, wanted, strict=True)))
    _finish(model, {f"{METADATA}.normalise": facts.normalise, **facts.signed(len(outputs))})
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
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)


def _first_dim(value: onnx.ValueInfoProto) -> Any:
    dims = value.type.tensor_type.shape.dim
    return dims[0] if len(dims) else None
