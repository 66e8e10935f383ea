"""Networks that take one example at a time, because they decide by its values: given a batch, row by row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.network import call, evaluating
from netwright.core.quiet import quiet
from netwright.core.task import Task

# what torch says of `if` and `.item()` on several entries
_SAID = ("Boolean value of Tensor with more than one value", "cannot be converted to Scalar")


class RowByRow(nn.Module):
    """Inputs (B, ...) to the results of single rows, put together."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        if len(inputs[0]) == 1:
            return self.network(*inputs)
        return torch.cat([self.network(*(t[i : i + 1] for t in inputs)) for i in range(len(inputs[0]))])


def in_batches(network: nn.Module, task: Task) -> tuple[nn.Module, str]:
    """The network, or one that gives it a batch row by row where it takes single examples only, and what is to be said
    of that."""
    try:
        with quiet(), evaluating(network), torch.no_grad():
            call(network, task.example(2))
    except Exception as error:
        if any(said in str(error) for said in _SAID):
            return RowByRow(network).train(network.training), "it decides by values, so it is run row by row"
    return network, ""
