"""Inference by deltas, one frame after the other, and what it needs and saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.compress.delta_act.frames import apart
from netwright.compress.delta_act.layer import Delta
from netwright.core.errors import NotApplicable
from netwright.core.graph.ir import Node
from netwright.core.graph.trace import trace
from netwright.core.network import evaluating
from netwright.core.taps import Taps
from netwright.core.weights.changes import layers


class DeltaEngine:
    """A network of clips that works on each frame alone, run frame by frame: it keeps every layer's sums and adds what
    changes.

        engine = DeltaEngine(made, clip[:, :1])      # clip (1, T, ...)
        for t in range(T):
            outputs = engine(clip[:, t : t + 1])     # of this frame

    2-d convolutions and linear layers are brought up to date by their changed inputs alone; everything else is
    computed on the sums, frame by frame, as in the dense network. So outputs equal the dense ones, at any input: to
    rounding in float64; in float32 up to values that lie at the edge between two steps of a delta layer, which
    rounding may take to either side. `reset` starts another clip.

    dense_above: a layer computes anew where a larger share of its input has changed (at a cut, say). Default: where
    that is faster on a processor, 4 % for a convolution and 25 % for a linear layer; 1 always adds changes.
    """

    def __init__(self, network: nn.Module, frame: Tensor, dense_above: float | None = None) -> None:
        self.graph = trace(network, frame)
        self.layers = layers(self.graph)
        if not self.layers:
            raise NotApplicable("this network has no 2-d convolution or linear layer that deltas could serve")
        self.dense_above = dense_above

    def reset(self) -> None:
        for layer in self.layers.values():
            layer.reset()

    @property
    def state_bytes(self) -> int:
        """What is kept from frame to frame."""
        return sum(
            layer.sums.nbytes + layer.before.nbytes
            for layer in self.layers.values()
            if layer.before is not None
        )

    @torch.inference_mode()
    def __call__(self, frame: Tensor) -> Tensor:
        return self.graph.run((frame,), self._rule)[0]

    def _rule(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node in self.layers:
            return self.layers[node](args[0], self.dense_above)
        if node.op == "aten.view.default":  # maps lie channels last here
            return args[0].reshape(args[1])
        assert node.target is not None
        return node.target(*args, **kwargs)


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates of a frame in the layers that deltas serve, on average over the frames after the first.

    dense: all of them. changed: those of inputs that differ from the frame before. nonzero: those of inputs that are
    not 0, which is what a network gains that skips zeros instead. first: of first frames, zeros left out.
    """

    dense: float
    changed: float
    nonzero: float
    first: float


@torch.no_grad()
def work(network: nn.Module, clips: Tensor) -> Work:
    """What a network that works on each frame alone has to do on clips (B, T, ...)."""
    count, length = clips.shape[:2]
    frames = apart(clips)
    graph = trace(network, frames[:2])
    known = layers(graph)
    total = dict.fromkeys(("dense", "changed", "nonzero", "first"), 0.0)

    def rule(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if node in known:
            maps = known[node].maps(args[0])
            fan = known[node].fan_out(*maps.shape[1:3]).double()
            maps = maps.unflatten(0, (count, length))
            products = lambda which: (which.sum((0, 1, -1)).double() * fan).sum().item()
            later = maps[:, 1:]
            total["dense"] += fan.sum().item() * maps.shape[-1]
            total["changed"] += products(later != maps[:, :-1]) / (count * (length - 1))
            total["nonzero"] += products(later != 0) / (count * (length - 1))
            total["first"] += products(maps[:, :1] != 0) / count
        assert node.target is not None
        return node.target(*args, **kwargs)

    graph.run((frames,), rule)
    return Work(**total)


@torch.no_grad()
def activity(network: nn.Module, clips: Tensor) -> dict[str, tuple[float, float]]:
    """Of each delta layer of a network of clips: the share of its values that change from a frame to the next, and
    the share that are not 0 (all frames but the first)."""
    names = [name for name, module in network.named_modules() if isinstance(module, Delta)]
    with evaluating(network), Taps(network, names) as taps:
        network(clips)
        found = {}
        for name in names:
            y = taps[name].unflatten(0, (len(clips), -1))
            found[name] = (_share(y[:, 1:] != y[:, :-1]), _share(y[:, 1:] != 0))
    return found


def _share(which: Tensor) -> float:
    return which.double().mean().item()
