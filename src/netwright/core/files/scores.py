"""What a network gives, as the one tensor of scores that losses and metrics compute with.

Files of other tools give probabilities, a label beside them, one number for two classes, or pictures of one pixel.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from netwright.core.files.facts import signature_of
from netwright.core.network import call, clone, device_of, evaluating, move
from netwright.core.task import Task

_ROWS = 64
_SAME = {"reshape", "view", "flatten", "squeeze", "clone", "contiguous", "to", "dropout", "identity"}


def scores_for(network: nn.Module, task: Task) -> tuple[nn.Module, Task, str]:
    """The network with outputs (B, O) as the task's loss takes them, the task with as many outputs as the network where
    that has more classes than occur, and what was done, '' for nothing. What cannot be brought there stays as it is.
    """
    inputs = move(task.example(_ROWS), device_of(network))
    done: list[str] = []
    for step in (_pick, _flatten, _two_classes, _probabilities):
        with evaluating(network), torch.no_grad():
            output = call(network, inputs)
        changed = step(network, output, task)
        if changed is not None:
            network, said = changed
            done.append(said)
    with evaluating(network), torch.no_grad():
        output = call(network, inputs)
    task, said = _widened(network, output, task)
    return network, task, "; ".join([*done, *([said] if said else [])])


Changed = tuple[nn.Module, str] | None


def _pick(network: nn.Module, output: Any, task: Task) -> Changed:
    """Of several outputs the only one that the task can use."""
    if not isinstance(output, (tuple, list)):
        return None
    fits = [
        i
        for i, t in enumerate(output)
        if isinstance(t, Tensor) and t.is_floating_point() and tuple(t.shape[1:]) in _shapes(task)
    ]
    if len(fits) != 1:
        return None
    index = fits[0]
    step = _Picked(index)
    return _after(network, step), f"of the network's {len(output)} outputs number {index + 1} is used"


def _shapes(task: Task) -> set[tuple[int, ...]]:
    wide = {(task.outputs,), (task.outputs, 1, 1)}
    return wide | ({(), (1,)} if task.outputs == 1 or _binary(task) else set())


def _binary(task: Task) -> bool:
    return task.kind == "classification" and task.outputs == 2


def _flatten(network: nn.Module, output: Any, task: Task) -> Changed:
    """(B, O, 1, 1) and the like, as fully convolutional networks give them."""
    if not isinstance(output, Tensor) or output.dim() < 3 or output[0].numel() != output.shape[1]:
        return None
    return _after(network, nn.Flatten()), f"outputs of shape {tuple(output.shape[1:])} are flattened"


def _two_classes(network: nn.Module, output: Any, task: Task) -> Changed:
    """One number for two classes: the second's probability, or its logit."""
    if not _binary(task) or not isinstance(output, Tensor) or output[0].numel() != 1:
        return None
    sure = bool(((output >= 0) & (output <= 1)).all())
    bare = _without_sigmoid(network)
    if bare is not None:
        return _after(bare, _Two(False)), "its sigmoid is taken off: two logits, for what was one probability"
    kind = "probability" if sure else "logit"
    return _after(network, _Two(sure)), f"the one {kind} that it gives for two classes becomes two logits"


def _probabilities(network: nn.Module, output: Any, task: Task) -> Changed:
    if not isinstance(output, Tensor) or output.dim() != 2 or not output.is_floating_point():
        return None
    if not bool(((output >= 0) & (output <= 1)).all()):
        return None
    if task.kind == "multilabel":
        bare = _without_sigmoid(network)
        if bare is not None:
            return bare, "its sigmoid is taken off: outputs are logits"
        return _after(network, _Logit()), "its probabilities become logits"
    if task.kind != "classification" or not bool(((output.sum(1) - 1).abs() < 1e-3).all()):
        return None
    if isinstance(network, fx.GraphModule):
        return as_logits(network), "it gives probabilities: outputs are their logits"
    return _after(network, _Log()), "it gives probabilities: outputs are their logarithms"


def _widened(network: nn.Module, output: Any, task: Task) -> tuple[Task, str]:
    """More classes than occur. The data's are found among the network's by their names, where its file names them, or
    by their numbers; else they are taken to be its first. Those that never occur are named by their number."""
    if task.kind != "classification" or not isinstance(output, Tensor) or output.dim() != 2:
        return task, ""
    width, count = output.shape[1], task.outputs
    if width <= count:
        return task, ""
    signature = signature_of(network)
    known = signature.classes if signature is not None and len(signature.classes) == width else ()
    numbers = tuple(str(c) for c in range(width))
    said = task.classes or numbers[:count]
    knows = f"the network knows {width} classes, of which the data have"
    for names, how in ((known, "found by their names"), (numbers, "found by their numbers")):
        if not set(said) <= set(names):
            continue
        places = torch.tensor([names.index(c) for c in said])
        if bool((places == torch.arange(count)).all()):
            return replace(task, outputs=width, classes=known or names), f"{knows} the first {count}"
        if all(isinstance(getattr(s, "targets", None), Tensor) for s in (task.train, task.val, task.test)):
            splits: dict[str, Any] = {
                role: replace(split, targets=places[split.targets])  # type: ignore[type-var]
                for role in ("train", "val", "test")
                for split in (getattr(task, role),)
            }
            return replace(task, outputs=width, classes=known or names, **splits), f"{knows} {count}, {how}"
    names = (*said, *(f"class {c}" for c in range(count, width)))
    return replace(task, outputs=width, classes=names), (
        f"the network knows {width} classes and does not name them: its first {count} are taken to be the data's, in "
        "their order"
    )


def logs(probabilities: Tensor) -> Tensor:
    """Their logarithms, finite where one is 0: not below that of the type's smallest normal number."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class _Picked(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, outputs: tuple[Tensor, ...]) -> Tensor:
        return outputs[self.index]


class _Two(nn.Module):
    """(B,) or (B, 1) for the second class, a logit or a probability -> logits (B, 2)."""

    def __init__(self, probability: bool) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, 1)
        if self.probability:
            return torch.cat([logs(1 - x), logs(x)], 1)
        return torch.cat([torch.zeros_like(x), x], 1)


class _Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return logs(x)


class _Logit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return logs(x) - logs(1 - x)


class Scored(nn.Module):
    """A network and what makes scores of its outputs."""

    def __init__(self, network: nn.Module, scores: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.scores = scores

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.scores(self.network(*inputs))


def _after(network: nn.Module, step: nn.Module) -> nn.Module:
    """The step behind the network; a graph stays a graph."""
    if not isinstance(network, fx.GraphModule):
        return Scored(network, step)
    copy = clone(network)
    assert isinstance(copy, fx.GraphModule)
    if isinstance(step, _Picked):
        return _returning(copy, lambda graph, given: given[step.index])
    name = next(n for i in range(10**6) if not hasattr(copy, n := f"scores_{i}"))
    copy.add_submodule(name, step.eval())
    return _returning(copy, lambda graph, given: graph.call_module(name, (given,)))


def _returning(network: fx.GraphModule, change: Callable[[fx.Graph, Any], fx.Node]) -> fx.GraphModule:
    end = network.graph.output_node()
    with network.graph.inserting_before(end):
        end.args = (change(network.graph, end.args[0]),)
    network.graph.eliminate_dead_code()
    network.graph.lint()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def _without_sigmoid(network: nn.Module) -> nn.Module | None:
    """The network without the sigmoid at its end; None where it has none."""
    if not isinstance(network, fx.GraphModule):
        return None
    copy = clone(network)
    assert isinstance(copy, fx.GraphModule)
    given = copy.graph.output_node().args[0]
    chain = []
    while isinstance(given, fx.Node) and _kind(copy, given) in _SAME:
        chain.append(given)
        given = given.args[0]
    if not isinstance(given, fx.Node) or _kind(copy, given) != "sigmoid":
        return None

    def change(graph: fx.Graph, _: Any) -> fx.Node:
        made: Any = given.args[0]
        for node in reversed(chain):
            made = _again(graph, node, made)
        return made

    return _returning(copy, change)


def as_logits(network: fx.GraphModule) -> fx.GraphModule:
    """The same network with the logits of the probabilities that it gives: what stood before its softmax where it
    has one at its end, else their logarithms; softmax of both is what it gave."""
    copy = clone(network)
    assert isinstance(copy, fx.GraphModule)
    return _returning(copy, lambda graph, given: _log(copy, graph, given, True))


def _log(network: fx.GraphModule, graph: fx.Graph, node: fx.Node, free: bool) -> fx.Node:
    """The logarithm of a step's result; if free, but for one number for each row."""
    kind, given = _kind(network, node), node.args[0] if node.args else None
    if isinstance(given, fx.Node):
        if kind == "softmax":
            return given if free else graph.call_function(torch.log_softmax, (given, -1))
        if kind == "sigmoid":
            return graph.call_function(F.logsigmoid, (given,))
        if kind in _SAME:
            return _again(graph, node, _log(network, graph, given, free))
        if kind == "unit_length" and free and node.args[1] == 1:
            return _log(network, graph, given, False)
    if kind == "cat" and isinstance(given, (list, tuple)) and all(isinstance(p, fx.Node) for p in given):
        parts = [_log(network, graph, part, False) for part in given if isinstance(part, fx.Node)]
        return graph.call_function(torch.cat, (parts, *node.args[1:]), dict(node.kwargs))
    if node.target is operator.sub and node.args[0] == 1 and isinstance(node.args[1], fx.Node):
        other = node.args[1]
        if _kind(network, other) == "sigmoid":
            minus = graph.call_function(torch.neg, (other.args[0],))
            return graph.call_function(F.logsigmoid, (minus,))
    made = graph.call_function(logs, (node,))
    made.meta["is_wrapped"] = True  # kept whole when the network is unpickled
    return made


def _again(graph: fx.Graph, node: fx.Node, given: fx.Node) -> fx.Node:
    """The same step on something else."""
    return graph.create_node(node.op, node.target, (given, *node.args[1:]), dict(node.kwargs))


def _kind(network: fx.GraphModule, node: fx.Node) -> str:
    """softmax, sigmoid, cat, ... whichever way the step is written."""
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))).__name__.lower()
    if node.op == "call_method":
        return str(node.target)
    name = str(getattr(node.target, "__name__", node.target)).removeprefix("aten.").partition(".")[0]
    return {"softmax_of_rest": "softmax" if node.args[-1] is False else name, "_softmax": "softmax"}.get(
        name, name
    )
