"""CHESS: Optimizing LLM Inference via Channel-Wise Thresholding and Selective Sparsification (arXiv 2409.01366)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from netwright.compress.chess.calibrate import Averaged, Pooled, Thresholds, thresholds
from netwright.compress.chess.find import attention
from netwright.compress.chess.layers import Gate, GateAndUp, Handed, SparseInput, Up
from netwright.core import progress
from netwright.core.budget import Budget, in_time, within
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.graph.feeds import Feed, gated
from netwright.core.graph.trace import trace
from netwright.core.measure.difference import relative_error
from netwright.core.network import Inputs, call, clone, device_of, evaluating, move
from netwright.core.split import Split, take
from netwright.core.taps import Taps
from netwright.core.task import Task
from netwright.core.weights import kernels

_BATCH = 32


@dataclass(frozen=True)
class Chess:
    """Switch off the channels of gated feed-forwards that matter least for the token at hand. Nothing is trained.

    In y = W_down(g * u), g = activation(W_gate x), u = W_up x, leaving out channel i costs about |g_i u_i|. Only g is
    known early, so |u_i| is replaced by its mean m_i over calibration data: channel i stays where |g_i| >= t_i =
    tau / m_i, tau being the quantile of all |g_i| m_i that switches off the share `sparsity`. Of W_up only the rows of
    channels that stay are read, of W_down only their columns, which makes a single token faster on the processor:
    kernels in the extra `kernels`, float32. Several rows at once (batches, prompts) take the masked form, which is
    dense and no faster, and so do exported files: ONNX Runtime and .pt2 give the same outputs and gain nothing.

    Any network that computes this with plain linear layers is served, whatever its modules are called; gate and up
    projection may be halves of one layer. Raises NotApplicable for others.

    attention: also one threshold each, of the same share, on the inputs of the query projection and of the projection
    behind attention (CHESS+); keys and values stay dense, for their errors would stay in the cache.
    thresholds: 'channel', or 'layer' for one threshold on |g| in each feed-forward (CATS, arXiv 2404.08763).
    examples: of the training split, for each of the two calibration passes; the paper takes 64k tokens.
    as_released: the quantile of each example by itself, then their mean, as in the authors' code; the paper's text has
    one of all scores together, and so do we. The share that is really switched off on validation data is remarked;
    `realised` measures it by layer.
    """

    sparsity: float = 0.5
    attention: bool = False
    thresholds: Literal["channel", "layer"] = "channel"
    examples: int = 512
    as_released: bool = False
    seed: int = 0

    def __call__(self, network: nn.Module, task: Task, budget: Budget) -> nn.Module:
        if not 0 <= self.sparsity < 1:
            raise BadInput(f"sparsity is a share from 0 to below 1, not {self.sparsity}")
        if self.thresholds not in ("channel", "layer"):
            raise BadInput(f"no thresholds by '{self.thresholds}'; use channel or layer")
        meter = budget.start()
        made = clone(network).eval()
        feeds, lines = self._found(made, task)
        allowed = self.examples if budget.samples is None else min(self.examples, budget.samples // 2)
        split = take(task.train, max(1, allowed), self.seed)
        quantile = (
            partial(Averaged, self.sparsity)
            if self.as_released
            else partial(Pooled, self.sparsity, len(split), self.seed)
        )
        found = thresholds(made, feeds, lines, split, meter, quantile, self.thresholds == "channel")
        install(made, feeds, found, task.example(2))
        with within(meter.left().seconds):
            self._remark(realised(made, take(task.val, self.examples)))
        return made

    def _found(self, network: nn.Module, task: Task) -> tuple[list[Feed], list[str]]:
        graph = trace(network, task.example(2))
        feeds = gated(network, graph)
        if not feeds:
            raise NotApplicable(
                "this network has no gated feed-forward, down(activation(gate(x)) * up(x)) of plain linear layers"
            )
        lines = attention(network, graph) if self.attention else []
        if self.attention and not lines:
            raise NotApplicable(
                "this network has no scaled_dot_product_attention between plain linear layers; leave attention out"
            )
        return feeds, lines

    def _remark(self, shares: dict[str, float]) -> None:
        off = 100 * sum(shares.values()) / len(shares)
        progress.remark(f"{off:.1f} % switched off on validation data, {100 * self.sparsity:.0f} % asked")
        if not kernels.available():
            progress.remark("no faster without numba: pip install 'netwright[kernels]'")


def install(network: nn.Module, feeds: Sequence[Feed], found: Thresholds, example: Inputs) -> None:
    """Put layers with these thresholds in the place of the network's own; first with thresholds of 0, to see that they
    compute the same. example: inputs for that."""
    inputs = move(example, device_of(network))
    with evaluating(network), torch.no_grad():
        before = call(network, inputs)
        placed = _replace(network, feeds, list(found.inputs))
        after = call(network, inputs)
    if relative_error(before, after) > 1e-4:
        raise NotApplicable("its feed-forward layers are used in a way that cannot be followed")
    for name, values in (found.channels | found.inputs).items():
        least = torch.finfo(placed[name].dtype).tiny
        placed[name].copy_(values.to(placed[name]).clamp_min(least).expand_as(placed[name]))


def _replace(network: nn.Module, feeds: Sequence[Feed], lines: Sequence[str]) -> dict[str, Tensor]:
    """Layers whose thresholds are all but 0, by name those that have a threshold to be set."""
    placed: dict[str, Tensor] = {}
    for feed in feeds:
        gate, down = network.get_submodule(feed.gate), network.get_submodule(feed.down)
        lowest = _lowest(gate, down.weight.shape[1])
        if feed.gate == feed.up:
            network.set_submodule(feed.gate, GateAndUp(gate, feed.activation, lowest, feed.gate_first))
        else:
            beside = Handed()
            up = network.get_submodule(feed.up)
            network.set_submodule(feed.gate, Gate(gate, feed.activation, lowest, beside))
            network.set_submodule(feed.up, Up(up, beside))
        network.set_submodule(feed.down, SparseInput(down))
        placed[feed.gate] = lowest
    for name in lines:
        line = network.get_submodule(name)
        placed[name] = _lowest(line)
        network.set_submodule(name, SparseInput(line, placed[name]))
    return placed


def _lowest(linear: nn.Module, *shape: int) -> Tensor:
    """The least threshold that exact zeros lie below."""
    weight = linear.weight
    return torch.full(shape, torch.finfo(weight.dtype).tiny, dtype=weight.dtype, device=weight.device)


def realised(network: nn.Module, split: Split) -> dict[str, float]:
    """By layer with a threshold, the share of channels (or inputs) that were switched off, over all rows of a split;
    of a part, one batch at least, where the time set around it (core/budget.py) is over."""
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (Gate, GateAndUp))
        or (isinstance(module, SparseInput) and module.threshold is not None)
    }
    off, seen = dict.fromkeys(layers, 0), dict.fromkeys(layers, 0)
    with evaluating(network), torch.no_grad(), Taps(network, list(layers), inputs=True) as taps:
        for inputs, _ in in_time(split.batches(_BATCH)):
            taps.clear()
            call(network, move(inputs, device_of(network)))
            for name, layer in layers.items():
                active = layer.active(taps[name])
                off[name] += int((~active).sum())
                seen[name] += active.numel()
    return {name: off[name] / seen[name] for name in layers}
