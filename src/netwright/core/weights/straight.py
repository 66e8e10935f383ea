"""A graph turned into a plain module: submodules and tensors by name, and one straight run of operators."""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import _custom_builtins

from netwright.core.errors import NotApplicable


class Straight(nn.Module):
    """What a graph module computes, as a module that can be copied, pickled, exported and traced again.

    fx's own graph modules are traced anew when they are unpickled, which fails on operators that take sizes; this
    one carries the code that fx wrote.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        code = module.graph.python_code("self")
        self.code = code.src
        self.others = {name: thing for name, thing in code.globals.items() if name not in _custom_builtins}
        for name, child in module.named_children():
            self.add_module(name, child)
        for name, parameter in module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in module.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self._bind()

    def _bind(self) -> None:
        space: dict[str, Any] = {name: builtin.obj for name, builtin in _custom_builtins.items()}
        space |= self.others
        exec(compile(self.code, "<traced network>", "exec"), space)
        self.forward = types.MethodType(space["forward"], self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "forward"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._bind()


def editable(program: torch.export.ExportedProgram, name: str) -> fx.GraphModule:
    """An exported program as a graph module that may be edited: tensors in, one tensor or a tuple of them out."""
    module = program.module()
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_module":  # checks of the inputs' shapes, which know the example only
            graph.erase_node(node)
    spec = program.call_spec.out_spec
    if spec is None or not (spec.is_leaf() or all(child.is_leaf() for child in spec.children())):
        raise NotApplicable("this network returns nested results")
    output = graph.output_node()
    results: Any = output.args[0]
    output.args = (results[0],) if spec.is_leaf() else (tuple(results),)
    graph.set_codegen(fx.graph.CodeGen())
    return fx.GraphModule(module, graph, name)
