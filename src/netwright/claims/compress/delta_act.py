"""Multiply-accumulates that are left when only changes are computed, against skipping zeros, measured here."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.claims.beds.clips import LENGTH, clips, moving, network, stills
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import column, difference, differences, mean
from netwright.compress.delta_act import DeltaAct
from netwright.compress.delta_act.engine import DeltaEngine, work
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import Inputs, as_tuple, clone, seeded
from netwright.core.taps import Taps, places
from netwright.core.task import Task

WEIGHTS = (0.3, 1.0, 3.0)  # of the loss on changes
SPARSE = 0.3  # of the loss on sizes
LONG = 300  # frames
BASELINES = ("relu", "relu and L1", "quantised")
LOST = "accuracy: delta less relu"
FEWER = {arm: f"times fewer multiply-accumulates than {arm}" for arm in BASELINES}
ERROR = "largest error against the dense network, float64"

CLAIM = Claim(
    slug="delta-act",
    paper="almost 3 times the activation sparsity on UCF101 (ResNet-50, MobileNet), accuracy recovered by training",
    setting=(
        "clips of 10 frames of 28x28 in which a Fashion-MNIST article of 14x14 moves over a background that stays; "
        "1,000 for training, 400 for testing; CNN 16-32-64 with batch norm, 6 epochs of AdamW 3e-3 on 8,000 single "
        "frames; from there 2 epochs of 3e-3 on the clips for each arm: ReLU, ReLU and L1 of 0.3, quantised (steps "
        "learned, no loss on changes), and delta with weights 0.3, 1 and 3, of which validation picks the one with "
        "the fewest products that loses at most a point (else the least). Products of convolutions and linear "
        "layers per frame after the first: of changed inputs for quantised and delta, of inputs other than 0 for "
        "ReLU"
    ),
    rule=Rule(
        holds=(Part(LOST, "at least", -0.01), *(Part(name, "at least", 2) for name in FEWER.values()),
               Part(ERROR, "at most", 1e-5)),
        mixed=((Part(LOST, "at least", -0.01), Part(FEWER["relu"], "at least", 2), Part(ERROR, "at most", 1e-5)),),
        bed=(Part("accuracy of relu", "at least", 0.7), Part("share of pixels that change", "at most", 0.3)),
    ),
)  # fmt: skip


def measure(scale: Scale) -> list[dict[str, Any]]:
    task = moving()
    x = task.example(10_000)[0]
    rows = [
        {"arm": "clips", "seed": s, "changing": (x[:, 1:] != x[:, :-1]).double().mean().item()}
        for s in scale.seeds
    ]
    for seed in scale.seeds:
        with seeded(seed):
            given = network().to(scale.device)
        Fit(epochs=6, batch_size=64, lr=3e-3, seed=seed)(given, stills())
        for arm, made in arms(given, task, seed).items():
            rows.append({"arm": arm, "seed": seed, **figures_of(made, task, zeros=arm.startswith("relu"))})
            if arm == f"delta {WEIGHTS[1]:g}":
                rows.append({"arm": "a long clip", "seed": seed, **streamed(made.cpu(), seed)})
    return rows


def arms(given: nn.Module, task: Task, seed: int) -> dict[str, nn.Module]:
    fit = Fit(epochs=2, batch_size=16, lr=3e-3, weight_decay=0.0)
    made: dict[str, nn.Module] = {}
    for arm, weight in (("relu", 0.0), ("relu and L1", SPARSE)):
        made[arm] = clone(given)
        replace(fit, seed=seed)(made[arm], task, loss=sparse_loss(task, made[arm], weight))
    made["quantised"] = DeltaAct(weight=0.0, gradient="lsq", fit=fit, seed=seed)(given, task, Budget())
    for weight in WEIGHTS:
        made[f"delta {weight:g}"] = DeltaAct(weight=weight, fit=fit, seed=seed)(given, task, Budget())
    return made


def sparse_loss(task: Task, made: nn.Module, weight: float) -> Any:
    """The task's loss and the mean size of every ReLU's outputs."""
    where = places(made, nn.ReLU)

    def loss(net: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        with Taps(net, where, detach=False) as taps:
            fits = task.loss(net(as_tuple(inputs)[0]), targets)
            sizes = [taps[name].abs().mean() for name in where]
        return fits + weight * torch.stack(sizes).sum()

    return loss


def figures_of(made: nn.Module, task: Task, zeros: bool) -> dict[str, float]:
    needed = work(made, task.test.select(torch.arange(100)).inputs[0])  # type: ignore[attr-defined]
    accuracy = {role: evaluate(made, task, role)["accuracy"] for role in ("val", "test")}  # type: ignore[arg-type]
    return {"accuracy": accuracy["test"], "validation": accuracy["val"], **needed.__dict__,
            "macs": needed.nonzero if zeros else needed.changed}  # fmt: skip


@torch.no_grad()
def streamed(made: nn.Module, seed: int) -> dict[str, float]:
    """A long clip by deltas: how far from the dense network in float64 and float32, and how many times faster, in
    seconds of the processor."""
    long = clips("test", 1, seed, LONG)[0]
    found = {}
    for dtype, name in ((torch.float64, "error"), (torch.float32, "error_float32")):
        dense, x = clone(made).to(dtype), long.to(dtype)
        engine = DeltaEngine(dense, x[:, :1], dense_above=1.0)
        expected = torch.cat([dense(x[:, t : t + 1]) for t in range(LONG)])
        got = torch.cat([engine(x[:, t : t + 1]) for t in range(LONG)])
        off = (got - expected).abs().amax(1) / expected.abs().max()
        found[name] = off.max().item()
        found[f"frames_off{name[5:]}"] = (off > 1e-5).double().mean().item()
    return {**found, "faster": speed(made, long)}


def speed(made: nn.Module, clip: Tensor) -> float:
    """Dense over deltas, seconds of the processor, frames in turn, one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    engine, spent = DeltaEngine(made, clip[:, :1]), []
    with torch.inference_mode():
        for t in range(clip.shape[1]):
            frame = clip[:, t : t + 1]
            marks = [time.process_time()]
            for run in (engine, made):
                run(frame)
                marks.append(time.process_time())
            spent.append(np.diff(marks))
    torch.set_num_threads(before)
    deltas, dense = np.array(spent[LENGTH:]).T
    return float(np.median(dense / deltas))


def chosen(rows: list[dict[str, Any]]) -> str:
    """The arm of delta that validation picks."""
    names = [f"delta {weight:g}" for weight in WEIGHTS]
    least = mean(rows, "relu", "validation") - 0.01
    fit = [name for name in names if mean(rows, name, "validation") >= least] or names[:1]
    return min(fit, key=lambda name: mean(rows, name, "macs"))


def judge(rows: list[dict[str, Any]]) -> Measured:
    best = chosen(rows)
    figures: dict[str, Any] = {LOST: difference(rows, best, "relu", "accuracy")}
    for arm in BASELINES:
        figures[FEWER[arm]] = mean(rows, arm, "macs") / mean(rows, best, "macs")
    figures["times fewer multiply-accumulates than relu run by deltas"] = mean(
        rows, "relu", "changed"
    ) / mean(rows, best, "macs")
    figures[ERROR] = max(column(rows, "a long clip", "error").values())
    figures["largest error, float32"] = max(column(rows, "a long clip", "error_float32").values())
    figures["share of frames off by 1e-5, float32"] = mean(rows, "a long clip", "frames_off_float32")
    figures["times faster than the dense network"] = mean(rows, "a long clip", "faster")
    arms_ = [*BASELINES, *(f"delta {weight:g}" for weight in WEIGHTS)]
    figures |= differences(rows, best, [a for a in arms_ if a not in ("relu", best)], ("accuracy",))
    share = lambda arm, figure: 100 * mean(rows, arm, figure) / mean(rows, arm, "dense")
    said = ", ".join(
        f"{arm} {100 * mean(rows, arm, 'accuracy'):.1f} % at {share(arm, 'macs'):.1f} %" for arm in arms_
    )
    return Measured(
        summary=(
            f"test accuracy at the share of dense products per frame: {said}; picked: {best}; ReLU run by deltas "
            f"needs {share('relu', 'changed'):.1f} %; by deltas a frame is "
            f"{figures['times faster than the dense network']:.2f} times faster than dense"
        ),
        figures=figures,
        bed={
            "accuracy of relu": mean(rows, "relu", "accuracy"),
            "share of pixels that change": mean(rows, "clips", "changing"),
        },
        notes=(
            "In float32 a value at the edge between two steps may fall to either side, for the dense network sums "
            "in another order. First frames count nothing: a stream has one. The background stays what it is to "
            "the bit, so that even plain ReLU changes little behind it; a camera's noise would change that."
        ),
    )
