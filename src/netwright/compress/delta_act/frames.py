"""A network of clips as a network of frames, with delta layers behind its activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from netwright.compress.delta_act.layer import Delta
from netwright.compress.parts.int8_graph import finish, functional
from netwright.core.errors import NotApplicable
from netwright.core.measure.difference import relative_error
from netwright.core.network import call, device_of, evaluating
from netwright.core.task import Task

_aten = torch.ops.aten
_ACTIVATIONS = {
    getattr(_aten, name).default
    for name in (
        "relu", "relu6", "hardtanh", "clamp_min", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish",
        "softplus", "sigmoid", "tanh", "hardswish", "hardsigmoid", "prelu", "clamp",
    )
}  # fmt: skip
_POOLING = {
    _aten.max_pool1d.default, _aten.max_pool2d.default, _aten.avg_pool1d.default, _aten.avg_pool2d.default,
    _aten.adaptive_avg_pool1d.default, _aten.adaptive_avg_pool2d.default, _aten.mean.dim, _aten.dropout.default,
}  # fmt: skip


class Clips(nn.Module):
    """Clips (B, T, ...) -> the mean over frames of what a network of frames, (N, 1, ...) -> (N, ...), gives."""

    def __init__(self, frames: nn.Module) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.frames(apart(x))
        return outputs.unflatten(0, (-1, x.shape[1])).mean(1)


def apart(clips: Tensor) -> Tensor:
    """Clips (B, T, ...) as clips of one frame (B T, 1, ...)."""
    return clips.flatten(0, 1).unsqueeze(1)


def check_frames(network: nn.Module, task: Task) -> Tensor:
    """Clips of the task (2, T, ...), or NotApplicable where the network does not work on each frame alone."""
    shapes = task.input_shapes
    if len(shapes) > 1 or len(shapes[0]) < 2 or shapes[0][0] < 2:
        raise NotApplicable(f"this needs clips of two frames or more, (T, ...), not inputs of {shapes}")
    clips = task.example(2)[0].to(device_of(network))
    try:
        with evaluating(network), torch.no_grad():
            whole, each = call(network, clips), call(network, apart(clips))
    except Exception:
        raise NotApplicable(
            f"this network takes no clip of a single frame: its inputs {shapes[0]} are no clips, or it joins frames"
        ) from None
    if relative_error(whole, each.unflatten(0, (len(clips), -1)).mean(1)) > 1e-4:
        raise NotApplicable(
            "this network joins frames before its end; deltas serve one whose output for a clip is the mean of its "
            "outputs for each frame alone"
        )
    return clips


def with_deltas(network: nn.Module, frames: Tensor, make: Callable[[tuple[int, ...]], Delta]) -> Clips:
    """The network of clips with a delta layer behind every activation, and behind the pooling that follows it.

    Batch norms are folded first. frames (N, 1, ...); make: the shape of the values (N, ...) -> their layer.
    """
    module = functional(network, frames)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    places = _places(module.graph)
    if not places:
        raise NotApplicable("this network has no activation that another layer reads")
    for i, node in enumerate(places):
        name = f"delta{i}"
        module.add_submodule(name, make(tuple(node.meta["val"].shape)).to(frames))
        with module.graph.inserting_after(node):
            layer = module.graph.call_module(name, (node,))
        layer.meta = {"val": node.meta["val"]}
        node.replace_all_uses_with(layer, delete_user_cb=lambda user, layer=layer: user is not layer)
    return Clips(finish(module))


def _places(graph: fx.Graph) -> list[fx.Node]:
    """The nodes behind which a delta layer goes, each once; none that is the network's output."""
    found = []
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _ACTIVATIONS:
            while len(node.users) == 1 and next(iter(node.users)).target in _POOLING:
                node = next(iter(node.users))
            if not any(user.op == "output" for user in node.users):
                found.append(node)
    return list(dict.fromkeys(found))
