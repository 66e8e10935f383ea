"""Pictures with their channels first (NCHW), as everything here takes them, and networks that want them last (NHWC)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from netwright.core.errors import BadInput
from netwright.core.files.facts import describe, facts_of, input_shapes
from netwright.core.network import call, clone, device_of, evaluating, move
from netwright.core.quiet import quiet
from netwright.core.split import Permute
from netwright.core.task import Task

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_COLOURS = (1, 3)
_ROLES = ("train", "val", "test")


def laid_out(network: nn.Module, task: Task) -> tuple[nn.Module, Task, str]:
    """A network and a task that both have the channels of pictures first, and what was done, '' for nothing.

    Where the network's own pictures have them last, so have those of exported files (`Task.axes`).
    """
    if len(task.input_shapes) != 1 or len(task.input_shape) != 3 or not task.example()[0].is_floating_point():
        return network, task, ""
    wants = _wants_last(network, task)
    if wants is None:
        return network, task, ""
    done = []
    if task.input_shape[0] not in _COLOURS and task.input_shape[2] in _COLOURS:
        task = _moved(task)
        done.append("the data's pictures")
    if wants:
        network, task = channels_first(network), replace(task, axes=LAST)
        done.append("the network's inputs")
    said = f"{' and '.join(done)} have their channels last (NHWC)" if done else ""
    if wants and said:
        said += "; exported files take them so"
    return network, task, said


def _wants_last(network: nn.Module, task: Task) -> bool | None:
    """Whether the network takes pictures with their channels last; None where neither layout fits it, or both the
    data and the network have them first, or nobody can tell."""
    a, b, c = task.input_shape
    last = a not in _COLOURS and c in _COLOURS  # the data's own
    first_shape, last_shape = ((c, a, b), (a, b, c)) if last else ((a, b, c), (b, c, a))
    if (last_shape if last else first_shape)[-1 if last else 0] not in _COLOURS:
        return None
    declared = input_shapes(network)
    if declared is not None:
        fits_first, fits_last = (
            len(declared) == 1 and _fits(s, declared[0]) for s in (first_shape, last_shape)
        )
        if fits_first != fits_last:
            return fits_last
        if not fits_first:
            return None
    runs_first = _runs(network, task, FIRST if last else None)
    if runs_first:
        return False
    return True if _runs(network, task, None if last else LAST) else None


def _fits(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(given) == len(wanted) and all(w is None or g == w for g, w in zip(given, wanted, strict=True))


def _runs(network: nn.Module, task: Task, axes: tuple[int, ...] | None) -> bool:
    x = task.example(3)[0]
    x = x if axes is None else x.permute(axes).contiguous()
    try:
        with quiet(), evaluating(network), torch.no_grad():
            output = call(network, move((x,), device_of(network)))
    except Exception:
        return False
    return len(output) > 0


def _moved(task: Task) -> Task:
    """The task's pictures with their channels first."""
    if task.normalise is not None and len(task.normalise.mean) > 1:
        raise BadInput(f"task '{task.name}' is normalised along the height of its pictures")
    splits: dict[str, Any] = {}
    for role in _ROLES:
        split: Any = getattr(task, role)
        if hasattr(split, "inputs"):
            splits[role] = replace(split, inputs=(split.inputs[0].permute(FIRST),))
        else:
            before = [] if split.prepare is None else [split.prepare]
            splits[role] = replace(split, prepare=nn.Sequential(*before, Permute(FIRST)))
    return replace(
        task, meaning="image", inputs=tuple(replace(i, layout="CHW") for i in task.inputs), **splits
    )


class ChannelsFirst(nn.Module):
    """A network of NHWC pictures that takes NCHW ones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.turn = Permute(LAST)
        self.network = network

    def forward(self, x: torch.Tensor) -> Any:
        return self.network(self.turn(x))


def channels_first(network: nn.Module) -> nn.Module:
    """The same network for NCHW pictures. In a graph that turns them around itself, both steps fall away."""
    if not isinstance(network, fx.GraphModule):
        return ChannelsFirst(network)
    copy = clone(network)
    assert isinstance(copy, fx.GraphModule)
    graph = copy.graph
    given = next(n for n in graph.nodes if n.op == "placeholder")
    after = next(n for n in graph.nodes if n.op != "placeholder")
    with graph.inserting_before(after):
        turned = graph.call_method("permute", (given, list(LAST)))
        whole = graph.call_method("contiguous", (turned,))
    given.replace_all_uses_with(whole, delete_user_cb=lambda user: user is not turned)
    for node in list(whole.users):
        if _permutation(node) == FIRST:
            node.replace_all_uses_with(given)
            graph.erase_node(node)
    if not whole.users:
        graph.erase_node(whole)
        graph.erase_node(turned)
    graph.lint()
    copy.recompile()
    facts = facts_of(network)
    if "inputs" in facts:
        (name, shape), *rest = facts["inputs"]
        moved = tuple(shape[a - 1] for a in FIRST[1:])
        facts = {**facts, "inputs": [(name, moved), *rest]}
        describe(copy, facts)
    return copy


def _permutation(node: fx.Node) -> tuple[int, ...]:
    """The axes of a step that permutes them; () for another step."""
    if "permute" not in str(getattr(node.target, "__name__", node.target)):
        return ()
    axes = node.args[1] if len(node.args) == 2 else node.args[1:]
    return tuple(int(a) for a in axes) if isinstance(axes, (list, tuple)) else ()
