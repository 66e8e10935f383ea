"""Do a network and a task belong together? Asked before anything long begins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.files.facts import fixed_batch, input_shapes
from netwright.core.network import call, device_of, evaluating, move
from netwright.core.quiet import quiet
from netwright.core.task import Task


def check_match(network: nn.Module, task: Task) -> None:
    """Run a few validation examples; BadInput in one line where shapes do not fit or the output has another width.

    The output must be one tensor: (B, outputs) of the task, or (B,) where that is one.
    """
    given, wanted = task.input_shapes, input_shapes(network)
    if wanted is not None and (len(given) != len(wanted) or not all(map(_agree, given, wanted))):
        raise BadInput(
            f"the network takes {_words(wanted)}, but task '{task.name}' gives {_words(given)} (without the batch)"
        )
    fixed = fixed_batch(network)
    if fixed is not None:
        raise BadInput(
            f"the network takes batches of {fixed} only; export it with a batch size that may vary"
        )
    inputs = move(task.example(3), device_of(network))
    try:
        with quiet(), evaluating(network), torch.no_grad():
            output = call(network, inputs)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise BadInput(
            f"the network cannot run on task '{task.name}', whose inputs are {_words(given)}: {reason}"
        ) from error
    _check_output(output, task, len(inputs[0]))


def _check_output(output: Any, task: Task, batch: int) -> None:
    if not isinstance(output, Tensor):
        raise BadInput(f"the network gives a {type(output).__name__}; a task needs one tensor of outputs")
    shape = tuple(output.shape)
    if shape == (batch, task.outputs) or (task.outputs == 1 and shape == (batch,)):
        return
    noun = {"classification": "classes", "multilabel": "labels"}.get(task.kind, "values")
    if len(shape) == 2 and shape[0] == batch:
        raise BadInput(
            f"the network gives {shape[1]} outputs, but task '{task.name}' has {task.outputs} {noun}"
        )
    raise BadInput(
        f"the network gives outputs of shape {shape} for {batch} examples, but task '{task.name}' needs "
        f"({batch}, {task.outputs})"
    )


def _agree(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(given) == len(wanted) and all(w is None or g == w for g, w in zip(given, wanted, strict=True))


def _words(shapes: tuple[tuple[int | None, ...], ...]) -> str:
    return " and ".join(
        "x".join("?" if s is None else str(s) for s in shape) or "single numbers" for shape in shapes
    )
