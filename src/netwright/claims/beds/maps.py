"""The same networks and scenes for all claims about class activation maps, and how a map is scored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from netwright.claims.beds.scenes import Scenes, scenes
from netwright.claims.beds.trained import cache_folder
from netwright.claims.clock import uncounted
from netwright.claims.record import Scale
from netwright.claims.rule import Part
from netwright.claims.statistics import mean
from netwright.core.files.checkpoint import load_state, save_state
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.split import Normalise
from netwright.core.task import Task
from netwright.explain.parts.faithfulness import deletion_insertion
from netwright.models import build

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
TRAIN, TEST, IMAGES = 4000, 500, {"quick": 100, "full": 300}
THRESHOLDS = (0.0, 0.25, 0.5)
SETTING = (
    "cluttered Fashion-MNIST scenes of 64x64 with 1 to 3 articles of one class and exact boxes; CNN 16-32-64 trained "
    "4 epochs on 4,000 scenes; 3 seeds of 100 test scenes; maps of the true class at the last layer that gives maps; "
    "IoU of the pixels above 0, 1/4 and 1/2 of the maximum with the boxes, averaged, over scenes of 2 or 3 articles"
)

FULL = "300 test scenes per seed"

# a network that does not know the articles has nothing to point at
RECOGNISED = (Part("accuracy", "at least", 0.7),)


def bed_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Why a map can show anything: the network tells the scenes apart, and its arms look at the same pictures."""
    return {"accuracy": mean(rows, rows[0]["arm"], "accuracy")}


@cache
def _task() -> tuple[Task, Scenes]:
    train, test = scenes("train", TRAIN + TEST, seed=1), scenes("test", TEST, seed=2)
    task = Task.from_arrays(
        train.pictures[:TRAIN], train.targets[:TRAIN],
        val=(train.pictures[TRAIN:], train.targets[TRAIN:]), test=(test.pictures, test.targets),
        name="scenes", normalise=Normalise([0.15], [0.28], 1 / 255),
    )  # fmt: skip
    return task, test


def _hidden_head(net: nn.Sequential, outputs: int) -> nn.Sequential:
    """The convolutions, then a hidden layer over the flattened maps, as in VGG, in place of global averaging."""
    body = OrderedDict(item for item in net.named_children() if item[0] not in ("pool", "flatten", "head"))
    maps = 64 * 8 * 8
    head = {
        "flatten": nn.Flatten(),
        "hidden": nn.Linear(maps, 64),
        "relu": nn.ReLU(),
        "head": nn.Linear(64, outputs),
    }
    return nn.Sequential(OrderedDict({**body, **head}))


def network(seed: int, hidden: bool = False) -> tuple[nn.Module, Task, Scenes]:
    """A trained network, its task and the test scenes with their boxes; trained once and kept."""
    task, test = _task()
    with seeded(seed):
        net = build("cnn", task.input_shape, task.outputs, widths=(16, 32, 64))
        net = _hidden_head(net, task.outputs) if hidden else net
    name = "scenes-cnn-hidden" if hidden else "scenes-cnn"
    path = cache_folder() / f"{name}-{seed}-{task.fingerprint()}.safetensors"
    if path.exists():
        net.load_state_dict(load_state(path)[0])
    else:
        with uncounted():
            Fit(epochs=4, batch_size=64, lr=3e-3, seed=seed)(net, task)
        save_state(path, net.state_dict())
    return net.eval(), task, test


def measure_arms(
    scale: Scale, arms: Mapping[str, Explain], hidden: bool = False, count: int | None = None
) -> list[dict[str, Any]]:
    """A row per seed and arm: pointing, energy, IoU on scenes of several objects, deletion and insertion.

    hidden: the network with a hidden layer behind its maps. count: test scenes a seed, where not the scale's.
    """
    rows = []
    for seed in scale.seeds:
        net, task, test = network(seed, hidden)
        net = net.to(scale.device)
        count = count or IMAGES[scale.name]
        chosen = torch.randperm(len(test.targets), generator=torch.Generator().manual_seed(seed))[:count]
        x = next(iter(task.test.select(chosen).batches(count)))[0].to(scale.device)
        target = test.targets[chosen].to(scale.device)
        accuracy = evaluate(net, task, "test")["accuracy"]
        for arm, explain in arms.items():
            heat = explain(net, x, target)
            row = score(heat.cpu(), test.inside[chosen], test.objects[chosen])
            found = deletion_insertion(net, x, heat, target, steps=8)
            row |= {name: value.mean().item() for name, value in found.items()}
            rows.append({"arm": arm, "seed": seed, "accuracy": accuracy, **row})
    return rows


def score(heat: Tensor, inside: Tensor, objects: Tensor) -> dict[str, float]:
    """How well maps (N, H, W) show the boxes (N, H, W), for scenes with so many objects (N,)."""
    flat, box = heat.flatten(1).double().clamp_min(0), inside.flatten(1)
    points = box.gather(1, flat.argmax(1, keepdim=True)).double().mean()
    energy = (flat * box).sum(1) / flat.sum(1).clamp_min(1e-12)
    top = flat.amax(1, keepdim=True)
    overlaps = []
    for threshold in THRESHOLDS:
        marked = (flat > threshold * top) & (top > 0)
        overlaps.append((marked & box).sum(1) / (marked | box).sum(1))
    iou = torch.stack(overlaps, 1).mean(1)
    return {
        "pointing": points.item(),
        "energy": energy.mean().item(),
        "iou_several": iou[objects > 1].mean().item(),
        "iou_one": iou[objects == 1].mean().item(),
        **{
            f"iou_at_{threshold:g}": overlap[objects > 1].mean().item()
            for threshold, overlap in zip(THRESHOLDS, overlaps, strict=True)
        },
    }


def gradient(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """|d score / d pixel|, summed over channels."""
    return smooth_gradient(net, x, target, samples=1, sigma=0.0)


def smooth_gradient(
    net: nn.Module, x: Tensor, target: Tensor, samples: int = 5, sigma: float = 0.3, seed: int = 0
) -> Tensor:
    """SmoothGrad (arXiv 1706.03825): the mean gradient over noisy copies, its size summed over channels."""
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(x)
    for _ in range(samples):
        copy = (x + sigma * torch.randn(x.shape, generator=random).to(x)).requires_grad_(True)
        (grad,) = torch.autograd.grad(net(copy).gather(1, target[:, None]).sum(), copy)
        total += grad
    return total.abs().sum(1)


def centre(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """A bump in the middle of every picture: what one gets without looking."""
    at = torch.linspace(-1, 1, x.shape[-1])
    return torch.exp(-(at[:, None] ** 2 + at[None] ** 2) * 2).expand(len(x), -1, -1).to(x)
