"""Compile networks whose forward pass branches on values: early exits, skipped layers, generating loops.

DyCL: Dynamic Neural Network Compilation Via Program Rewriting and Graph Optimization (ISSTA 2023, arXiv 2307.04963).

The forward method's source is rewritten: loops are unrolled, what is known beforehand is computed, ifs that it decides
are dropped, calls of the network's own code are followed. What is left are blocks of tensor operations with a decision
at the end of each. Liveness says what a block must hand on; each becomes a static ONNX file, whatever input it takes
to reach it. A plan (core/files/staged/plan.py), which is data and no code, says which file runs when.

    network = compiled(module, (example,))         # a Staged network: a module that runs in ONNX Runtime
    equivalence(module, network, inputs)           # delta and eta of the paper
    write_folder(network, Path("compiled"))        # plan.json, program.txt and plain .onnx files
    read_folder(Path("compiled"))                  # the network again; no code of the folder is run, no pickle read

Where we differ from the paper: the host program is a plan, and no Python, so that a folder from elsewhere can be
opened without fear. Ways that meet again with tensors of other shapes, or other known values, go on apart. Changes in
place are followed where nobody else holds the tensor. Parts that compute the same share one file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from netwright.compress.dycl.compile import compiled
from netwright.compress.dycl.equivalence import Equivalence, equivalence
from netwright.core import progress
from netwright.core.budget import Budget, within
from netwright.core.errors import NotApplicable
from netwright.core.files.proof import TOLERANCE
from netwright.core.files.staged import read_folder, write_folder
from netwright.core.network import Inputs, as_tuple
from netwright.core.task import Task

__all__ = ["Dycl", "Equivalence", "compiled", "equivalence", "read_folder", "write_folder"]


@dataclass(frozen=True)
class Dycl:
    """Static files for what runs between decisions, and a plan that decides; run by ONNX Runtime on the CPU.

    Gives a Staged network: inputs (B, ...) to what the network gives. One that decides by values is compiled for single
    examples, of which each in a batch then decides for itself. One without such decisions is a single file, for any
    batch. Every result has been held against the network on validation examples: NotApplicable where it differs.

    Raises NotApplicable, with the line of the source, for loops without a bound that is independent of the input,
    statements that are not understood, side effects, chance, and shapes that depend on values.

    turns: that a loop may take. examples: of the validation split, for the comparison. threads: of ONNX Runtime.
    """

    turns: int = 256
    examples: int = 32
    threads: int = 1

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        with within(budget.seconds):
            made = compiled(network, task.example(1), self.turns, self.threads)
            found = equivalence(network, made, _rows(task, self.examples))
        if found.eta > 0 or not found.relative <= TOLERANCE:
            raise NotApplicable(f"the compiled network gives other outputs than the network: {found}")
        plan = made.plan
        if plan.decisions:
            progress.remark(f"{len(plan.parts)} parts, {plan.decisions} decisions; {found}")
        return made


def _rows(task: Task, count: int) -> Iterator[Inputs]:
    """Validation examples, one at a time."""
    inputs = as_tuple(next(iter(task.val.batches(count)))[0])
    for row in range(len(inputs[0])):
        yield tuple(t[row : row + 1] for t in inputs)
