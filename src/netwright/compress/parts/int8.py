"""How a network comes to 8 bits: as a graph, and with how many bits its weights can have on this machine."""

from __future__ import annotations

import torch
from torch import fx, nn

from netwright.compress.parts.int8_graph import functional
from netwright.core.errors import NotApplicable
from netwright.core.measure.machine import instruction_sets
from netwright.core.network import clone
from netwright.core.task import Task


def prepared(network: nn.Module, task: Task) -> fx.GraphModule:
    """A copy on the CPU as a graph of plain functions, batch norms folded; NotApplicable where it is not float32."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dtype in (torch.float16, torch.bfloat16, torch.float64):
            raise NotApplicable(f"the network holds {tensor.dtype}; turn it into float32 first")
    return functional(clone(network).cpu(), task.example(2))


def weight_bits(reduce_range: bool | None) -> int:
    """7 where sums of two products would overflow 16 bits: with AVX2 or AVX-512 but no VNNI, unless told."""
    if reduce_range is None:
        sets = instruction_sets()
        reduce_range = "AVX2" in sets and not any("VNNI" in name or "AMX" in name for name in sets)
    return 7 if reduce_range else 8
