"""A network whose ReLUs fire: made from one of ReLUs, run all moments at once or one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from netwright.compress.ann2snn_pretrain.neurons import Integrator, Neuron
from netwright.core.errors import NotApplicable
from netwright.core.graph import trace
from netwright.core.graph.ir import HELD, INPUT
from netwright.core.network import Inputs, as_tuple, call, clone, evaluating
from netwright.core.split import Split
from netwright.core.taps import Taps

_RELUS = ("relu", "relu_")
# what neither bends nor mixes examples, so that moments can stand in the batch, and only ReLUs need to fire
_PLAIN = frozenset({
    "conv1d", "conv2d", "conv3d", "linear", "batch_norm", "add", "add_", "sub", "cat", "flatten", "view", "reshape",
    "_unsafe_view", "dropout", "dropout_", "feature_dropout", "mean", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", "squeeze", "unsqueeze", "permute", "transpose",
    "contiguous", "clone", "identity", "alias", "pad", "constant_pad_nd", "upsample_nearest2d", "detach", "sym_size",
    "operator",
})  # fmt: skip


class SpikingNetwork(nn.Module):
    """`steps` moments of a network with neurons, and the mean of its outputs over them.

    A still (B, C, H, W) is seen at every moment; with `clips`, (B, T, C, H, W) are the moments. Moments stand one after
    the other in the batch, so that batch norm takes its statistics over time and examples (threshold-dependent batch
    norm, with weights that begin at the threshold), and layers without time run once.
    """

    def __init__(self, frames: nn.Module, steps: int, clips: bool = False) -> None:
        super().__init__()
        self.frames, self.steps, self.clips = frames, steps, clips

    def forward(self, *inputs: Tensor) -> Tensor:
        moments = tuple(self._moments(x) for x in inputs)
        outputs: Tensor = call(self.frames, moments)
        return outputs.unflatten(0, (self.steps, -1)).mean(0)

    def _moments(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.clips else x.unsqueeze(0).expand(self.steps, *x.shape)
        return x.flatten(0, 1)

    def at(self, steps: int) -> SpikingNetwork:
        """The same network, in place, for another number of moments. Its batch statistics are to be measured anew."""
        self.steps = steps
        for module in self.frames.modules():
            if isinstance(module, (Neuron, Integrator)):
                module.steps = steps
        return self


class Simulator:
    """A spiking network moment by moment, in evaluation: `step` takes (B, C, H, W) and gives the mean of the outputs so
    far; a new one begins at rest. One at a time."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.network, self.total, self.count = network, torch.zeros(()), 0
        self.neurons = [m for m in network.modules() if isinstance(m, Neuron)]
        self.held: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.neurons]

    @torch.no_grad()
    def step(self, inputs: Inputs) -> Tensor:
        for neuron, held in zip(self.neurons, self.held, strict=True):
            neuron.held, neuron.place = held, 0
        try:
            with evaluating(self.network):
                outputs: Tensor = call(self.network.frames, inputs)
        finally:
            for neuron in self.neurons:
                neuron.held = None
        self.total, self.count = self.total + outputs, self.count + 1
        return self.total / self.count


def spiking(network: nn.Module, example: Inputs, steps: int, analogue: bool = False) -> SpikingNetwork:
    """A copy of a network whose ReLUs are neurons, its weights as they are.

    NotApplicable: where its only bends are not ReLU modules, or it does what moments in the batch would spoil.
    """
    return SpikingNetwork(_replaced(network, example, lambda _: Neuron(steps, analogue)), steps)


def converted(
    network: nn.Module, split: Split, steps: int, share: float = 0.999, samples: int = 512
) -> SpikingNetwork:
    """The usual conversion of a trained network of ReLUs, as a baseline: each becomes an `Integrator` whose threshold
    is the `share` quantile of what the ReLU gives on `samples` examples; nothing is trained."""
    inputs, _ = next(iter(split.batches(samples)))
    _check(network, inputs)
    names = [name for name, m in network.named_modules() if isinstance(m, nn.ReLU)]
    with Taps(network, names) as taps, evaluating(network), torch.no_grad():
        call(network, inputs)
        seen = {name: torch.cat([x.flatten() for x in taps.all(name)]) for name in names if name in taps}
    top = {name: _quantile(values, share) for name, values in seen.items()}
    return SpikingNetwork(
        _replaced(network, inputs, lambda name: Integrator(steps, top.get(name, 1.0))), steps
    )


def rates(network: SpikingNetwork, inputs: Inputs) -> dict[str, float]:
    """Spikes per neuron and moment, by the neurons' names (of analogue ones: what they give, on the mean)."""
    names = [name for name, m in network.named_modules() if isinstance(m, Neuron)]
    with Taps(network, names) as taps, evaluating(network), torch.no_grad():
        call(network, inputs)
        return {name: float(torch.cat(taps.all(name)).mean()) for name in names if name in taps}


def _quantile(values: Tensor, share: float) -> float:
    """Of any number of values (n,); never 0, which could not be a threshold."""
    return max(1e-6, float(values.kthvalue(max(1, round(share * len(values)))).values))


def _replaced(network: nn.Module, example: Inputs, make: Callable[[str], nn.Module]) -> nn.Module:
    """A copy with new modules in the place of its ReLUs: one that several places share stays shared."""
    _check(network, example)
    copy, made = clone(network), {}
    for name, module in list(copy.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.ReLU):
            if module not in made:
                made[module] = make(name)
            if not name:
                return made[module]
            owner, _, attribute = name.rpartition(".")
            setattr(copy.get_submodule(owner), attribute, made[module])
    return copy


def _check(network: nn.Module, example: Inputs) -> None:
    """NotApplicable for what is no network of plain layers and ReLU modules."""
    modules = dict(network.named_modules(remove_duplicate=False))
    bends = 0
    for node in trace(network, tuple(x[:2] for x in as_tuple(example))).nodes:
        kind = node.op.removeprefix("aten.").partition(".")[0]
        if kind in _RELUS:
            if not isinstance(modules.get(node.module or ""), nn.ReLU):
                raise NotApplicable(
                    "a ReLU of this network is no module (nn.ReLU) that a neuron could stand in for"
                )
            bends += 1
        elif node.op not in (*HELD, INPUT) and kind not in _PLAIN:
            raise NotApplicable(
                f"neurons stand in for ReLUs between plain layers; this network also has '{kind}'"
            )
    if not bends:
        raise NotApplicable("this network has no ReLU that a neuron could stand in for")
