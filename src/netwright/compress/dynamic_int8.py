"""Post-training quantisation to 8-bit integers, with ranges of activations taken at run time.

A Survey of Quantization Methods for Efficient Neural Network Inference (arXiv 2103.13630), section III.D.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from netwright.compress.parts.int8 import prepared, weight_bits
from netwright.compress.parts.int8_graph import finish, pack
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.task import Task


@dataclass(frozen=True)
class DynamicInt8:
    """Weights in 8 bits; linear layers round their inputs to 8 bits over the range of the moment. No data needed.

    Convolutions hold int8 weights but compute in float: per-example ranges cost more there than they bring.
    The range is taken over the whole batch, so an example's output depends a little on its neighbours.
    reduce_range: as in StaticInt8.
    """

    reduce_range: bool | None = None

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        module = prepared(network, task)
        if not pack(module, weight_bits(self.reduce_range), static=False):
            raise NotApplicable("there is no convolution or linear layer to quantise")
        return finish(module)
