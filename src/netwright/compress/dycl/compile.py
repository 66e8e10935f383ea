"""From a network and an example to a staged network: rewrite, cut into parts, write each part as ONNX."""

from __future__ import annotations

import ast
import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.compress.dycl import calls
from netwright.compress.dycl.parts import Part, Parts, parts_of
from netwright.compress.dycl.program import (
    Block,
    Decide,
    Flow,
    Goto,
    Local,
    LocalDict,
    Raise,
    Recorder,
    Result,
    Value,
    values_in,
)
from netwright.compress.dycl.statements import statement
from netwright.compress.dycl.walk import Walk
from netwright.core import progress
from netwright.core.budget import check_time
from netwright.core.errors import BadInput, NetwrightError, NotApplicable
from netwright.core.files.export import OPSET, export
from netwright.core.files.proof import prove
from netwright.core.files.staged import Staged
from netwright.core.files.staged import plan as plans
from netwright.core.files.staged.staged import session_part
from netwright.core.network import clone
from netwright.core.quiet import silent

WHOLE = "network.onnx"


def compiled(network: nn.Module, example: tuple[Tensor, ...], turns: int = 256, threads: int = 1) -> Staged:
    """The network in evaluation mode, for inputs of the example's shapes (B, ...), as a staged network.

    Where no decision depends on values, it is one part, for any batch if it can be exported so. Raises NotApplicable,
    with the line, for what cannot be compiled.
    """
    subject = clone(network).cpu().eval()
    inputs = tuple(t.detach().cpu() for t in example)
    recorder = Recorder(subject)
    given = [recorder.given(t, f"input_{k}" if len(inputs) > 1 else "input") for k, t in enumerate(inputs)]
    results = _recorded(recorder, subject, given, turns)
    parts = parts_of(recorder.blocks, recorder.targets)
    decisions = sum(isinstance(block.end, Decide) for block in parts.blocks)
    if not decisions and len(results) == 1 and not any(v.number for v in values_in(results[0])):
        older = all(exact(part.module) for part in parts.of.values())
        return _whole(subject, inputs, given, results[0], threads, older)
    return _staged(parts, given, len(inputs[0]) if inputs[0].dim() else 1, threads)


def _recorded(recorder: Recorder, network: nn.Module, given: list[Value], turns: int) -> list[Any]:
    """Follow the network's method; gives the results of the ways through it."""
    walk = Walk(recorder, turns, type(network).__name__)
    flow = Flow([{}], [], recorder.block(""))
    flows = calls.call(walk, flow, network, list(given), {}, ast.Pass(), statement)
    for f in flows:
        f.result = f.pop()
        f.block.end = Result(f.result)
    if not flows:
        raise NotApplicable("the network ends in an error for every input")
    return [f.result for f in flows]


def _whole(
    network: nn.Module, inputs: tuple[Tensor, ...], given: list[Value], result: Any, threads: int, older: bool
) -> Staged:
    """A network without decisions, exported as it is."""
    outputs = list(values_in(result))
    content, dynamic = onnx_of(network, inputs, outputs, older, dynamic=True)
    taken = tuple(f"output_{k}" for k in range(len(outputs)))
    names = iter(taken)
    end = plans.Give(_result(result, lambda value: plans.Name(next(names))))
    block = plans.Block("b0", "", WHOLE, tuple(v.name for v in given), taken, (), end)
    batch = None if dynamic else len(inputs[0])
    plan = plans.Plan(tuple(map(_input, given)), batch, (), (block,))
    return Staged(plan, {WHOLE: content}, {}, {WHOLE: network}, threads)


def _staged(parts: Parts, given: list[Value], batch: int, threads: int) -> Staged:
    """One ONNX file for parts that compute the same."""
    names: dict[Any, str] = {}
    files: dict[str, bytes] = {}
    nodes: dict[str, nn.Module] = {}
    used: dict[str, Tensor] = {}
    blocks = []
    for done, block in enumerate(parts.blocks):
        part = parts.of.get(block.name)
        if part is not None and part.key not in names:
            check_time("compiling the network")
            name = names[part.key] = f"part_{len(names)}.onnx"
            inputs = tuple(_example(value) for value in part.inputs)
            files[name], _ = onnx_of(part.module, inputs, part.outputs, exact(part.module))
            nodes[name] = part.module
        blocks.append(_block(block, part, "" if part is None else names[part.key], parts, used))
        progress.step(done + 1, len(parts.blocks), "parts")
    plan = plans.Plan(tuple(map(_input, given)), batch, tuple(used), tuple(blocks))
    plans.check(plan)
    return Staged(plan, files, used, nodes, threads)


def _input(value: Value) -> plans.Input:
    return plans.Input(value.name, tuple(value.fake.shape), str(value.fake.dtype).removeprefix("torch."))


def _block(block: Block, part: Part | None, file: str, parts: Parts, used: dict[str, Tensor]) -> plans.Block:
    """A block of the plan; the constants that it reads are added to `used`."""

    def name(value: Value) -> str:
        value = parts.named(value)
        if value in parts.constants:
            used[value.name] = parts.constants[value].detach().clone().contiguous()
        return value.name

    match block.end:
        case Goto(to):
            end: plans.End = plans.Jump(to.name)
        case Decide(test, yes, no):
            end = plans.Choice(name(test), yes.name, no.name)
        case Result(value):
            end = plans.Give(_result(value, lambda v: plans.Name(name(v), v.number)))
        case Raise(message):
            end = plans.Fail(message)
        case _:
            raise AssertionError(f"{block.name} does not end")
    return plans.Block(
        block.name, block.line, file,
        tuple(name(v) for v in part.inputs) if part else (),
        tuple(v.name for v in part.outputs) if part else (),
        tuple((target.name, name(source)) for target, source in parts.moves[block.name]),
        end,
    )  # fmt: skip


def _result(thing: Any, leaf: Any) -> Any:
    """A method's result as the plan says it."""
    if isinstance(thing, Value):
        return leaf(thing)
    if isinstance(thing, tuple):
        return tuple(_result(item, leaf) for item in thing)
    if isinstance(thing, (Local, list)):
        return [_result(item, leaf) for item in thing]
    if isinstance(thing, (LocalDict, dict)) and all(isinstance(key, str) for key in thing):
        return {key: _result(item, leaf) for key, item in thing.items()}
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    raise NotApplicable(f"the network gives a {type(thing).__name__}, which a plan cannot hold")


def onnx_of(
    module: nn.Module, inputs: tuple[Tensor, ...], outputs: list[Value], older: bool, dynamic: bool = False
) -> tuple[bytes, bool]:
    """A module without decisions as ONNX, proved against it on random inputs, and whether it takes any batch.

    By torch's older exporter where it may be trusted, which is many times faster; that it follows one side of a branch
    without a word does no harm where there is none. What it cannot write, the newer one does.
    """
    given, taken = [f"input_{k}" for k in range(len(inputs))], [f"output_{k}" for k in range(len(outputs))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.onnx"
        buffer: Any = io.BytesIO()
        try:
            if not older:
                raise NotApplicable("the older exporter is not asked")
            with silent(), torch.no_grad():
                torch.onnx.export(
                    module, inputs, buffer, dynamo=False, opset_version=OPSET, input_names=given,
                    output_names=taken,
                    dynamic_axes={name: {0: "batch"} for name in given + taken} if dynamic else None,
                )  # fmt: skip
            path.write_bytes(buffer.getvalue())
            prove(module, inputs, path, dynamic)
            _check_types(outputs, session_part(path.read_bytes(), 1)([t.numpy() for t in inputs]))
        except BadInput:
            raise
        except Exception:
            dynamic = export(module, inputs, path, dynamic_batch=dynamic).dynamic_batch
        return path.read_bytes(), dynamic


def exact(module: nn.Module) -> bool:
    """Whether the older exporter writes what the module computes: it rounds floor divisions towards zero, which random
    inputs need not show."""
    nodes = module.graph.nodes if isinstance(module, fx.GraphModule) else ()
    for node in nodes:
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if ("floor" in name and "div" in name) or node.kwargs.get("rounding_mode") == "floor":
            return False
        if node.op == "call_module" and not exact(module.get_submodule(str(node.target))):
            return False
    return True


def _check_types(outputs: list[Value], results: list[Any]) -> None:
    """The older exporter loses 64 bits here and there; the next part would not take what this one gives."""
    for value, result in zip(outputs, results, strict=True):
        given = str(result.dtype), tuple(result.shape)
        if given != (str(value.fake.dtype).removeprefix("torch."), tuple(value.fake.shape)):
            raise NetwrightError(f"the part gives {given} for '{value.name}'")


def _example(value: Value) -> Tensor:
    """Something of the value's shape and type: small integers are indices of any table."""
    fake = value.fake
    draw = torch.Generator().manual_seed(0)
    if fake.dtype.is_floating_point:
        return torch.randn(tuple(fake.shape), generator=draw).to(fake.dtype)
    return torch.randint(0, 2, tuple(fake.shape), generator=draw).to(fake.dtype)
