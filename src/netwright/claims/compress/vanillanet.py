"""Deep training and the series activation, each alone and together, on a network that ends up equally shallow."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import arms_of, differences, mean, spread
from netwright.compress.vanillanet import deep_training
from netwright.core.budget import Budget
from netwright.core.files.export import export
from netwright.core.fit import Fit
from netwright.core.measure.latency import latency
from netwright.core.metrics import evaluate
from netwright.core.network import evaluating, parameter_count, seeded
from netwright.core.split import Normalise
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build
from netwright.models.vanillanet import VanillaNetwork

# arm: trained deep, n of the series activation
ARMS = {"plain": (False, 0), "deep": (True, 0), "series": (False, 1), "both": (True, 1)}
DIMS, STRIDES = (32, 64, 128, 256), (2, 2, 1)
IMAGES, EPOCHS = 2500, 10
AHEAD, ERROR = (
    "accuracy of both over plain, in pooled standard deviations",
    "largest error of fusing, float32",
)

CLAIM = Claim(
    slug="vanillanet",
    seeds=5,
    paper=(
        "11 layers reach about 81 % on ImageNet in 3.59 ms, ResNet-50 needs 7.64 (A100); both deep training and the "
        "series activation raise the accuracy of the shallow network"
    ),
    setting=(
        "Fashion-MNIST brought to 14x14 pixels, 2,500 training images; 5 layers of 32 to 256 channels, stem of "
        "3x3, series of 3x3; 10 epochs of AdamW 3e-3, batch 64, for every arm, the slope rising over the first "
        "third; ResNet-8 of the width whose file is nearest in latency; accuracy of the fused networks on 5,000 "
        "test images; latency of ONNX files, batch 1, one thread"
    ),
    rule=Rule(
        holds=(
            Part(AHEAD, "at least", 1),
            Part(ERROR, "at most", 1e-4),
            # else it is the series activation alone that wins
            Part("accuracy: both less series", "at least", 0),
        ),
        mixed=((Part(AHEAD, "at least", 1), Part(ERROR, "at most", 1e-4)),),
        bed=(
            Part("accuracy of plain", "at least", 0.75),
            Part("share of training images plain gets right", "at least", 0.85),
        ),
    ),
)


@cache
def halved() -> Task:
    """Fashion-MNIST with every 2x2 pixels averaged."""
    task = named_task("fashion-mnist", limit=IMAGES)
    parts = {}
    for role in ("train", "val", "test"):
        batches = list(getattr(task.fed(None), role).batches(1000))
        parts[role] = torch.cat([F.avg_pool2d(x, 2) for x, _ in batches]), torch.cat([y for _, y in batches])
    return Task.from_arrays(
        *parts["train"], val=parts["val"], test=parts["test"], name="halved",
        normalise=Normalise([0.286], [0.32], 1 / 255),
    )  # fmt: skip


def network_of(arm: str, seed: int, task: Task) -> VanillaNetwork:
    deep, series = ARMS[arm]
    with seeded(seed):
        made = build(
            "vanillanet", task.input_shape, task.outputs, dims=DIMS, strides=STRIDES, deep=deep, series=series
        )
    assert isinstance(made, VanillaNetwork)
    return made


def measure(scale: Scale) -> list[dict[str, Any]]:
    task = halved()
    width = resnet_width(task)
    fit = Fit(epochs=EPOCHS, batch_size=64, lr=3e-3, warmup=1.0)
    rows = []
    for seed in scale.seeds:
        plan = Fit(**{**fit.__dict__, "seed": seed})
        made: dict[str, nn.Module] = {}
        for arm in ARMS:
            network = network_of(arm, seed, task).to(scale.device)
            deep_training(network, task, plan, Budget().start())
            made[arm] = network.fuse()
            rows.append(
                {
                    "arm": arm, "seed": seed, "parameters": parameter_count(made[arm]),
                    "error": fusing_error(network, task), "on_training": evaluate(made[arm], task, "train")["accuracy"],
                    **evaluate(made[arm], task, "test"),
                }
            )  # fmt: skip
            if arm == "both":
                made["both, not fused"] = network
        with seeded(seed):
            made["resnet"] = build("resnet", task.input_shape, task.outputs, depth=8, width=width).to(
                scale.device
            )
        plan(made["resnet"], task)
        figures = evaluate(made["resnet"], task, "test")
        rows.append({"arm": "resnet", "seed": seed, "parameters": parameter_count(made["resnet"]), **figures})
        rows += [{"arm": f"{arm}, file", "seed": seed, "ms": ms} for arm, ms in timed(made, task).items()]
    return rows


@torch.no_grad()
def fusing_error(network: VanillaNetwork, task: Task) -> float:
    """The largest difference of the fused network's logits, over the largest logit."""
    x: Tensor = task.example(256)[0].to(next(network.parameters()).device)
    with evaluating(network):
        expected = network(x)
    return ((network.fuse()(x) - expected).abs().max() / expected.abs().max()).item()


def timed(networks: dict[str, nn.Module], task: Task, rounds: int = 40) -> dict[str, float]:
    """Milliseconds of an image, by ONNX Runtime, the files in turn."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, network in enumerate(networks.values()):
            files.append(export(network.cpu(), task.example(2), Path(folder) / f"{i}.onnx").path)
        found = latency(files, task.example(1), "onnx", rounds=rounds)
    return dict(zip(networks, found.median_ms, strict=True))


def resnet_width(task: Task) -> int:
    """Of the ResNet-8 whose file takes as long as the fused network of the arm 'both'."""
    shallow = network_of("series", 0, task).fuse()  # the same shape when fused
    widths = (4, 6, 8, 12, 16, 24)
    candidates = {
        str(w): build("resnet", task.input_shape, task.outputs, depth=8, width=w).eval() for w in widths
    }
    found = timed({"both": shallow, **candidates}, task)
    return min(widths, key=lambda w: abs(found[str(w)] - found["both"]))


def judge(rows: list[dict[str, Any]]) -> Measured:
    trained = [arm for arm in arms_of(rows) if not arm.endswith(", file")]
    figures: dict[str, Any] = differences(rows, "both", [a for a in trained if a != "both"], ("accuracy",))
    figures |= differences(rows, "deep", ("plain",), ("accuracy",))
    figures |= differences(rows, "series", ("plain",), ("accuracy",))
    pooled = ((spread(rows, "both", "accuracy") ** 2 + spread(rows, "plain", "accuracy") ** 2) / 2) ** 0.5
    figures[AHEAD] = figures["accuracy: both less plain"]["mean"] / max(pooled, 1e-9)
    figures[ERROR] = max(row["error"] for row in rows if "error" in row)
    for arm in (*ARMS, "both, not fused", "resnet"):
        figures[f"milliseconds of {arm}"] = mean(rows, f"{arm}, file", "ms")
    said = ", ".join(
        f"{arm} {100 * mean(rows, arm, 'accuracy'):.1f} % ({figures[f'milliseconds of {arm}']:.3f} ms)"
        for arm in trained
    )
    return Measured(
        summary=(
            f"test accuracy: {said}; fusing 'both' makes it "
            f"{figures['milliseconds of both, not fused'] / figures['milliseconds of both']:.2f} times faster"
        ),
        figures=figures,
        bed={
            "accuracy of plain": mean(rows, "plain", "accuracy"),
            "share of training images plain gets right": mean(rows, "plain", "on_training"),
        },
        notes=(
            "The paper trains for 300 epochs on 1.3 million images with strong augmentation, where the shallow "
            "network underfits; here it is 2,500 small images without augmentation, for 10 epochs."
        ),
    )
