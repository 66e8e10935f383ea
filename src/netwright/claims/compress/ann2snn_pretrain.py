"""Spiking networks from sharpened pretraining, against spikes from the beginning, ReLUs first, and conversion."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from netwright.claims.beds.quartered import quartered
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, estimate, mean
from netwright.compress.ann2snn_pretrain import begun, converted, pretrain, rates, spiking, tune
from netwright.compress.ann2snn_pretrain.spiking import SpikingNetwork
from netwright.core.budget import Budget, Meter
from netwright.core.fit import Fit, State
from netwright.core.metrics import evaluate
from netwright.core.network import seeded
from netwright.core.task import Task
from netwright.models import build

STEPS, LONG, IMAGES = 6, 64, 3000
WITHOUT_TIME, WITH_TIME, DIRECT = 15, 4, 15
NEVER = 100  # times as long: what counts for one that does not come so near, which no rule takes for met
NEAR = 0.01  # below what the direct training ends with
SHARPENED, RELU, SPIKES = "sharpened, then spikes", "ReLU, then spikes", "spikes from the beginning"
CONVERSIONS = {f"conversion, {steps} moments": steps for steps in (STEPS, LONG)}
SECONDS = "seconds to one point below the direct training"
CLAIM = Claim(
    slug="ann2snn-pretrain",
    paper=(
        "spiking ResNets as accurate as directly trained ones in 1/10 of the time on ImageNet, and in 2/5 of it on "
        "ES-ImageNet"
    ),
    setting=(
        f"Fashion-MNIST at 14x14, {IMAGES:,} images, ResNet-8 of width 8, {STEPS} moments. Sharpened: {WITHOUT_TIME} "
        f"epochs without time, then {WITH_TIME} over moments; ReLU first: the same with ReLUs; direct: {DIRECT} epochs "
        "over moments, falling to 0.3 four times as the others' last epochs do; all SGD 0.1 with momentum 0.9, batch "
        f"64. Conversion: the trained ReLU network's, at {STEPS} and {LONG} moments, nothing trained. Processor "
        "seconds of training alone, one thread, test accuracy after each epoch over moments; three seeds"
    ),
    rule=Rule(
        holds=(
            Part(f"{SECONDS}: share", "at most", 0.5),
            Part(f"accuracy: {SHARPENED} less {SPIKES}", "at least", -NEAR),
        ),
        bed=(Part(f"accuracy of {SPIKES}", "at least", 0.75), Part("accuracy of ReLU", "at least", 0.8)),
    ),
)


class Watch:
    """Processor seconds of training, and the accuracy after each epoch; the evaluation's own time is left out."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        self.network, self.task, self.left_out, self.began = network, task, 0.0, time.process_time()
        self.points: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        return time.process_time() - self.began - self.left_out

    def __call__(self, state: State) -> None:
        now = time.process_time()
        seconds, training = now - self.began - self.left_out, self.network.training
        self.points.append((seconds, evaluate(self.network, self.task, "test")["accuracy"]))
        self.network.train(training)
        self.left_out += time.process_time() - now


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for seed in scale.seeds:
        task = quartered(IMAGES, 2000, seed)
        fit = Fit(batch_size=64, optimiser="sgd", lr=0.1, weight_decay=0.0, seed=seed)
        curves = {SPIKES: _direct(task, fit, seed), SHARPENED: _sharpened(task, fit, seed)}
        curves[RELU], plain = _relu(task, fit, seed)
        wanted = curves[SPIKES].points[-1][1] - NEAR
        rows.append({"arm": "ReLU", "seed": seed, "accuracy": evaluate(plain, task, "test")["accuracy"]})
        for arm, watch in curves.items():
            reached = [seconds for seconds, accuracy in watch.points if accuracy >= wanted]
            rows.append(
                {
                    "arm": arm, "seed": seed, "accuracy": watch.points[-1][1], "seconds": watch.points[-1][0],
                    "reached": bool(reached), "seconds to near": reached[0] if reached else watch.points[-1][0],
                    "curve": watch.points, "rate": _rate(watch.network, task),
                }
            )  # fmt: skip
        for arm, steps in CONVERSIONS.items():
            made = converted(plain, task.train, steps)
            rows.append({"arm": arm, "seed": seed, "accuracy": evaluate(made, task, "test")["accuracy"]})
    return rows


def _new(task: Task, seed: int) -> nn.Module:
    with seeded(seed):
        return build("resnet", task.input_shape, task.outputs, depth=8, width=8)


def _spiking(task: Task, seed: int) -> SpikingNetwork:
    return begun(spiking(_new(task, seed), task.example(2), STEPS))


def _direct(task: Task, fit: Fit, seed: int) -> Watch:
    network = _spiking(task, seed)
    return _timed(network, task, lambda watch, meter: tune(network, task, DIRECT, fit, meter, watch))


def _sharpened(task: Task, fit: Fit, seed: int) -> Watch:
    network = _spiking(task, seed)

    def train(watch: Watch, meter: Meter) -> None:
        pretrain(network, task, replace(fit, epochs=WITHOUT_TIME), meter)
        tune(network.at(STEPS), task, WITH_TIME, fit, meter, watch)

    return _timed(network, task, train)


def _relu(task: Task, fit: Fit, seed: int) -> tuple[Watch, nn.Module]:
    plain = _new(task, seed)
    start = time.process_time()
    replace(fit, epochs=WITHOUT_TIME)(plain, task)
    before = time.process_time() - start
    network = spiking(plain, task.example(2), STEPS)
    watch = _timed(network, task, lambda watch, meter: tune(network, task, WITH_TIME, fit, meter, watch))
    watch.points = [(before + seconds, accuracy) for seconds, accuracy in watch.points]
    return watch, plain


def _timed(network: nn.Module, task: Task, train: Callable[[Watch, Meter], None]) -> Watch:
    watch = Watch(network, task)
    train(watch, Budget().start())
    # batch statistics were measured anew at the end: the last point is what is handed over
    watch.points[-1] = (watch.seconds, evaluate(network, task, "test")["accuracy"])
    return watch


def _rate(network: nn.Module, task: Task) -> float:
    assert isinstance(network, SpikingNetwork)
    found = rates(network, task.example(200))
    return sum(found.values()) / len(found)


def judge(rows: list[dict[str, Any]]) -> Measured:
    mine, theirs = ([row for row in rows if row["arm"] == arm] for arm in (SHARPENED, SPIKES))
    shares = [
        a["seconds to near"] / b["seconds to near"] * (1 if a["reached"] else NEVER)
        for a, b in zip(mine, theirs, strict=True)
    ]
    figures = {
        **differences(rows, SHARPENED, (SPIKES, RELU, "ReLU", *CONVERSIONS), ("accuracy",)),
        f"{SECONDS}: share": estimate(shares),
    }
    said = ", ".join(
        f"{arm} {100 * mean(rows, arm, 'accuracy'):.1f} %"
        for arm in (SHARPENED, SPIKES, RELU, "ReLU", *CONVERSIONS)
    )
    return Measured(
        summary=(
            f"{said}; within one point of the direct training in {sum(shares) / len(shares):.2f} of its time, whole "
            f"trainings {mean(rows, SHARPENED, 'seconds'):.0f} s and {mean(rows, SPIKES, 'seconds'):.0f} s; a neuron "
            f"fires in {100 * mean(rows, SHARPENED, 'rate'):.0f} % of its moments"
        ),
        figures=figures,
        bed={f"accuracy of {arm}": mean(rows, arm, "accuracy") for arm in (SPIKES, "ReLU")},
        notes=(
            "the direct training's time is that until it is itself within one point of its end, after whole epochs, "
            "so that epochs which bring nothing do not count against it"
        ),
    )
