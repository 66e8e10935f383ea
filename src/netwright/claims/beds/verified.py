"""The digit networks that all claims about verification share, trained in three ways and kept in the cache."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.claims.beds.trained import cache_folder
from netwright.claims.clock import uncounted
from netwright.core.contracts import Box
from netwright.core.files.checkpoint import load_state, save_state
from netwright.core.fit import Fit, State
from netwright.core.network import Inputs, seeded
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.verify.parts.boxes import box_around
from netwright.verify.pgd import PGD

RADIUS = 0.1  # of an image in [0, 1], as in the papers' smaller MNIST setting
SETTING = (
    "MNIST, 10,000 training images, 6 epochs; CNN with two strided convolutions (8, 16 channels) and 64 hidden units, "
    "or MLP 784-64-64-64-10; trained plainly, on PGD examples (5 steps) or on interval bounds, the last two at 0.1"
)


def subject(kind: str, seed: int) -> tuple[nn.Module, Task]:
    """kind: 'mlp', 'plain', 'pgd' or 'interval' (the last three are CNNs); evaluation mode."""
    task = named_task("mnist", limit=10_000)
    with seeded(seed):
        network = _mlp() if kind == "mlp" else _cnn()
    path = cache_folder() / f"verify-{kind}-{seed}-{task.fingerprint()}-{torch.__version__}-1.safetensors"
    if path.exists():
        network.load_state_dict(load_state(path)[0])
    else:
        with uncounted():
            _train(network, kind, task, seed)
        save_state(path, network.state_dict())
    return network.eval(), task


def boxes(task: Task, count: int, network: nn.Module, radius: float) -> Box:
    """Boxes around the first `count` test images that the network classifies rightly."""
    inputs, labels = next(iter(task.test.batches(4 * count)))
    with torch.no_grad():
        right = torch.nonzero(network(inputs).argmax(1) == labels)[:count, 0]
    return box_around(inputs[right], labels[right], radius, (0.0, 1.0), task.normalise)


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def _mlp() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inner in (784, 64, 64):
        layers += [nn.Linear(inner, 64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def _train(network: nn.Module, kind: str, task: Task, seed: int) -> None:
    """Interval training as in arXiv 1810.12715: the radius and the weight of the worst case (to 0.5) grow."""
    done = {"fraction": 0.0}

    def loss(net: nn.Module, inputs: Inputs, labels: Tensor) -> Tensor:
        assert isinstance(inputs, Tensor)
        fraction = min(1.0, done["fraction"] / 0.6)
        if kind == "pgd":
            box = box_around(inputs, labels, fraction * RADIUS, (0.0, 1.0), task.normalise)
            attack = PGD(steps=5, start="random", loss="cross-entropy", batch_size=len(labels))
            return F.cross_entropy(net(attack.attack(net, box)[0]), labels)
        plain = F.cross_entropy(net(inputs), labels)
        if kind != "interval":
            return plain
        box = box_around(inputs, labels, fraction * RADIUS, (0.0, 1.0), task.normalise)
        return (1 - fraction / 2) * plain + fraction / 2 * F.cross_entropy(worst_case(net, box), labels)

    fit = Fit(epochs=6, lr=2e-3, augment=False, seed=seed)
    steps = fit.epochs * -(-len(task.train) // fit.batch_size)

    def on_step(state: State) -> None:
        done["fraction"] = state.step / steps

    fit(network, task, loss=loss, on_step=on_step)


def worst_case(network: Any, box: Box) -> Tensor:
    """Interval bounds with gradients, of networks like `_cnn`: the label's lower bound, the others' upper, (B, C)."""
    centre, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
    for layer in network:
        if isinstance(layer, nn.Linear):
            centre, radius = layer(centre), F.linear(radius, layer.weight.abs())
        elif isinstance(layer, nn.Conv2d):
            centre, radius = (
                layer(centre),
                F.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding),
            )
        else:  # relu, flatten
            low, high = layer(centre - radius), layer(centre + radius)
            centre, radius = (low + high) / 2, (high - low) / 2
    own = F.one_hot(box.label, centre.shape[1]).bool()
    return torch.where(own, centre - radius, centre + radius)
