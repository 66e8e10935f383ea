"""A network that runs as a plan over static parts in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves

from netwright.core.errors import BadInput, NetwrightError, NotApplicable
from netwright.core.files.staged.plan import Choice, Fail, Give, Jump, Name, Plan

Part = Callable[[list[Any]], list[Any]]


class Staged(nn.Module):
    """Runs a plan. For inference on the CPU; `forward` takes and gives what the network that it was made from did.

    files: the parts as ONNX, by the names of the plan; constants: its values that stand from the start. nodes: the
    parts as torch modules, where it was made here and not read from a folder: they run where gradients are asked
    for, the network is traced, or its operations are counted. threads: of ONNX Runtime. Parts that take one example
    only are run row by row.
    """

    def __init__(
        self,
        plan: Plan,
        files: Mapping[str, bytes],
        constants: Mapping[str, Tensor],
        nodes: Mapping[str, nn.Module] | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__()
        if missing := [name for name in plan.parts if name not in files]:
            raise BadInput(f"the plan runs '{missing[0]}', which is not there")
        if missing := [name for name in plan.constants if name not in constants]:
            raise BadInput(f"the plan's constant '{missing[0]}' is not there")
        self.plan, self.files, self.threads = plan, dict(files), threads
        self.nodes = None if nodes is None else nn.ModuleDict({_key(k): node for k, node in nodes.items()})
        self.constants = dict(constants)
        self._sessions: dict[str, Part] = {}
        self.eval()

    def forward(self, *inputs: Tensor) -> Any:
        if len(inputs) != len(self.plan.inputs):
            raise BadInput(f"the network takes {len(self.plan.inputs)} inputs, not {len(inputs)}")
        batch, rows = self.plan.batch, len(inputs[0]) if inputs and inputs[0].dim() else 1
        if batch is None or rows == batch:
            return self._run(inputs)
        if batch != 1:
            raise BadInput(f"the network was compiled for batches of {batch}, not of {rows}")
        return _together([self._run(tuple(t[i : i + 1] for t in inputs)) for i in range(rows)])

    def _run(self, inputs: tuple[Tensor, ...]) -> Any:
        asked = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
        watched = self.nodes is not None and _get_current_dispatch_mode() is not None
        if asked or watched or _traced():
            return self._torch(inputs)
        return self._follow(inputs, self._session)

    def way(self, *inputs: Tensor) -> tuple[str, ...]:
        """The parts that one example takes, in turn."""
        taken: list[str] = []

        def noted(name: str) -> Part:
            taken.append(name)
            return self._session(name)

        self._follow(inputs, noted)
        return tuple(taken)

    def _follow(self, inputs: tuple[Tensor, ...], part: Callable[[str], Part]) -> Any:
        """In ONNX Runtime."""
        given = [t.detach().cpu().contiguous().numpy() for t in inputs]
        held = {name: tensor.numpy() for name, tensor in self.constants.items()}
        return follow(self.plan, given, held, part, _tensor)

    def _torch(self, inputs: tuple[Tensor, ...]) -> Any:
        if self.nodes is None:
            raise NotApplicable("a network read from a folder of plan and files gives no gradients")
        if self.plan.decisions and _traced():
            raise NotApplicable(
                "this network decides by its values, which no single file can hold; write it as a folder"
            )
        held = dict(self.constants)
        return follow(self.plan, list(inputs), held, self._node, lambda value: value)

    def _node(self, name: str) -> Part:
        assert self.nodes is not None
        node = self.nodes[_key(name)]
        return lambda given: [t for t in tree_leaves(node(*given)) if isinstance(t, Tensor)]

    def _session(self, name: str) -> Part:
        if name not in self._sessions:
            self._sessions[name] = session_part(self.files[name], self.threads)
        return self._sessions[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Staged:
        import copy

        nodes = copy.deepcopy(self.nodes, memo)
        made = Staged(self.plan, self.files, copy.deepcopy(self.constants, memo), None, self.threads)
        made.nodes = nodes
        return made.train(self.training)

    def extra_repr(self) -> str:
        return f"{len(self.plan.parts)} parts, {self.plan.decisions} decisions"


def _traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _key(name: str) -> str:
    return name.replace(".", "_")  # a module's name holds no dot


def follow(
    plan: Plan,
    inputs: list[Any],
    held: dict[str, Any],
    part: Callable[[str], Part],
    handed: Callable[[Any], Any],
) -> Any:
    """Run a plan: from its first block to a result."""
    held.update(zip((i.name for i in plan.inputs), inputs, strict=True))
    blocks, block = plan.by_name, plan.blocks[0]
    while True:
        if block.run:
            results = part(block.run)([held[name] for name in block.given])
            held.update(zip(block.taken, results, strict=True))
        if block.moves:
            held.update([(target, held[source]) for target, source in block.moves])
        match block.end:
            case Jump(to):
                block = blocks[to]
            case Choice(test, yes, no):
                block = blocks[yes if bool(held[test].item()) else no]
            case Give(result):
                return _filled(result, held, handed)
            case Fail(message):
                raise NetwrightError(message)


def _filled(result: Any, held: Mapping[str, Any], handed: Callable[[Any], Any]) -> Any:
    match result:
        case Name(name, number):
            return held[name].item() if number else handed(held[name])
        case tuple():
            return tuple(_filled(item, held, handed) for item in result)
        case list():
            return [_filled(item, held, handed) for item in result]
        case dict():
            return {key: _filled(item, held, handed) for key, item in result.items()}
    return result


def session_part(content: bytes, threads: int) -> Part:
    """An ONNX part, from its bytes (so that it can name no other file); BadInput where ONNX Runtime refuses it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BadInput(f"ONNX Runtime cannot run a part ({str(error).splitlines()[0]})") from error
    names = [i.name for i in session.get_inputs()]
    return lambda given: session.run(None, dict(zip(names, given, strict=True)))


def _tensor(value: Any) -> Tensor:
    array = np.asarray(value)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _together(results: list[Any]) -> Any:
    """Results of single rows as that of the batch."""
    first = results[0]
    if isinstance(first, Tensor) and first.dim():
        if len({t.shape[1:] for t in results}) > 1:
            raise BadInput("results of these rows differ in shape; give the inputs one at a time")
        return torch.cat(results)
    if isinstance(first, (tuple, list)):
        return type(first)(_together(list(column)) for column in zip(*results, strict=True))
    raise BadInput("results of rows that are no tensors are not put together; give the inputs one at a time")
