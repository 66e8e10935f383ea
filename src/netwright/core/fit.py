"""The one training loop. Methods bring losses and hooks; the loop counts what they spend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import Budget, Meter
from netwright.core.errors import BadInput, NetwrightError, NotApplicable
from netwright.core.files.checkpoint import load_state, save_state
from netwright.core.metrics import evaluate
from netwright.core.network import Inputs, batch_size, call, check_trainable, device_of, move, seeded
from netwright.core.split import Batch
from netwright.core.task import Task


class Loss(Protocol):
    """(network, inputs, targets) -> scalar loss of one batch. Distillation, mixup and the like are losses."""

    def __call__(self, network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor: ...


@dataclass
class State:
    """Where the loop stands; hooks read it, and set `stop` to end the training. done: the share that is over, by
    steps or by what the budget allows, whichever ends first."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    meter: Meter
    epoch: int = 0
    step: int = 0
    done: float = 0.0
    loss: float = math.nan
    stop: bool = False


@dataclass
class History:
    """One row per epoch: loss, learning rate, seconds, and validation metrics where they were asked for."""

    rows: list[dict[str, float]] = field(default_factory=list)
    stopped: str = "finished"
    samples: int = 0

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


@dataclass(frozen=True)
class Fit:
    """Train a network in place.

    epochs: passes over the training split (a fraction is allowed). A budget may end it earlier; the schedule
    is then squeezed into what the budget allows, in epochs or at the measured pace in seconds.
    optimiser: adamw or sgd (`momentum`, `nesterov`). schedule: cosine (after `warmup` epochs, linear),
    one-cycle, steps (times `drop` at `milestones`, fractions of the run) or constant.
    mixed_precision: bfloat16 autocast; None uses it where the device is a GPU.
    patience: stop after so many epochs without a better validation metric and restore the best weights;
    None trains to the end and keeps the last weights.
    checkpoint: file to continue from when it exists, written after each epoch.
    """

    epochs: float = 10
    batch_size: int = 128
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False
    schedule: Literal["cosine", "one-cycle", "steps", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    drop: float = 0.1
    warmup: float = 0.0
    label_smoothing: float = 0.0
    clip: float | None = None
    augment: bool = True
    mixed_precision: bool | None = None
    validate: bool = False
    patience: int | None = None
    checkpoint: str | None = None
    seed: int = 0

    def __call__(
        self,
        network: nn.Module,
        task: Task,
        budget: Budget | None = None,
        *,
        loss: Loss | None = None,
        batches: Callable[[int], Iterable[Batch]] | None = None,
        parameters: Iterable[Tensor] | Sequence[dict[str, Any]] | None = None,
        on_step: Callable[[State], None] | None = None,
        on_epoch: Callable[[State], None] | None = None,
        validate: Callable[[nn.Module], dict[str, float]] | None = None,
        meter: Meter | None = None,
        steps: int | None = None,
    ) -> History:
        """Train `network` in place and leave it in evaluation mode.

        loss: default the task's own. batches: epoch -> its batches, default the shuffled training split;
        steps: how many steps they amount to, where that is not `epochs` passes over the training split.
        parameters: what to train (tensors or optimiser groups), default all that require gradients.
        on_step runs before each optimiser step's weights are used again, on_epoch after each epoch.
        meter: charge a meter that is running already instead of starting one from `budget`.
        """
        if self.patience is not None and self.patience < 1:
            raise BadInput("patience must be at least 1 epoch")
        meter = meter or (budget or Budget()).start()
        with seeded(self.seed):
            history = _Run(
                self, network, task, meter, loss, batches, parameters, on_step, on_epoch, validate, steps
            ).go()
        network.eval()
        return history


class _Run:
    """One training run: the loop's variables, so that each step is a short function."""

    def __init__(
        self, fit: Fit, network: nn.Module, task: Task, meter: Meter, loss: Loss | None,
        batches: Callable[[int], Iterable[Batch]] | None, parameters: Any,
        on_step: Callable[[State], None] | None, on_epoch: Callable[[State], None] | None,
        validate: Callable[[nn.Module], dict[str, float]] | None, steps: int | None,
    ) -> None:  # fmt: skip
        self.fit, self.task, self.meter = fit, task, meter
        self.device = device_of(network)
        allowed = meter.left().epochs
        self.epochs = fit.epochs if allowed is None else min(fit.epochs, allowed)
        self.steps = steps or max(1, math.ceil(self.epochs * math.ceil(len(task.train) / fit.batch_size)))
        self.loss = loss or self._task_loss
        self.batches = batches or self._train_batches
        self.on_step, self.on_epoch = on_step, on_epoch
        self.validate = validate or (lambda net: evaluate(net, task, "val"))
        self.validating = fit.validate or fit.patience is not None
        self.generator = torch.Generator().manual_seed(fit.seed)
        if parameters is None:
            check_trainable(network)
            parameters = [p for p in network.parameters() if p.requires_grad]
        wanted = list(parameters)
        if not wanted:
            raise NotApplicable("nothing to train: no parameter requires gradients")
        self.state = State(network, self._optimiser(wanted), meter)
        self.base = [group["lr"] for group in self.state.optimiser.param_groups]
        self.history = History()
        self.began, self.first = meter.elapsed, meter.samples
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.since_best = 0
        self.autocast = fit.mixed_precision if fit.mixed_precision is not None else self.device.type == "cuda"

    def _optimiser(self, parameters: list[Any]) -> torch.optim.Optimizer:
        fit = self.fit
        if fit.optimiser == "adamw":
            return torch.optim.AdamW(parameters, lr=fit.lr, weight_decay=fit.weight_decay)
        if fit.optimiser == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=fit.lr,
                momentum=fit.momentum,
                weight_decay=fit.weight_decay,
                nesterov=fit.nesterov,
            )
        raise BadInput(f"no optimiser named '{fit.optimiser}'; use adamw or sgd")

    def _task_loss(self, network: nn.Module, inputs: Inputs, targets: Tensor) -> Tensor:
        return self.task.loss(call(network, inputs), targets, self.fit.label_smoothing)

    def _train_batches(self, epoch: int) -> Iterable[Batch]:
        return self.task.train.batches(
            self.fit.batch_size, shuffle=True, seed=self.fit.seed + 1000 * (epoch + 1)
        )

    def _done(self) -> float:
        """The fraction of the run that is over: by steps, or by samples or seconds where those will run out first."""
        step, seconds = self.state.step, self.meter.seconds
        by_steps = step / self.steps
        if self.meter.budget.samples:
            by_steps = max(
                by_steps, (self.meter.samples - self.first) / max(1, self.meter.budget.samples - self.first)
            )
        if seconds == math.inf or step < 10:
            return by_steps
        spent = self.meter.elapsed - self.began
        allowed = seconds - self.began
        return by_steps if spent / step * self.steps <= allowed else min(1.0, spent / max(allowed, 1e-9))

    def _rate(self, done: float) -> float:
        """Factor on the learning rate when the fraction `done` of the run is over."""
        fit = self.fit
        warm = fit.warmup / self.epochs if self.epochs else 0.0
        if done < warm:
            return max(done / warm, 1e-3)
        if fit.schedule == "constant":
            return 1.0
        if fit.schedule == "steps":
            return fit.drop ** sum(done >= m for m in fit.milestones)
        if fit.schedule == "one-cycle":
            return done / 0.3 if done < 0.3 else 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7))
        if fit.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1e-9, 1 - warm)))
        raise BadInput(f"no schedule named '{fit.schedule}'; use cosine, one-cycle, steps or constant")

    def go(self) -> History:
        state, fit = self.state, self.fit
        if fit.checkpoint and Path(fit.checkpoint).exists():
            self._resume(Path(fit.checkpoint))
        while state.step < self.steps and not state.stop:
            if self.meter.exhausted:
                self.history.stopped = "budget"
                break
            self._epoch()
            state.epoch += 1
            self._close_epoch()
        if self.best is not None:
            state.network.load_state_dict(self.best[1])
        self.history.samples = self.meter.samples
        passes = state.step / math.ceil(len(self.task.train) / fit.batch_size)
        if self.history.stopped == "budget" and passes < 1:
            progress.remark(f"the budget ended its training after {passes:.2f} of a pass over the data")
        return self.history

    def _epoch(self) -> None:
        state, total, seen, largest = self.state, 0.0, 0, 1
        state.network.train()
        for inputs, targets in self.batches(state.epoch):
            n = batch_size(inputs)
            if n == 1 < largest:  # what is left over: a batch norm cannot learn from one example
                state.step += 1
                continue
            largest = max(n, largest)
            total += self._step(inputs, targets) * n
            seen += n
            if state.stop or state.step >= self.steps or self.meter.exhausted:
                break
        if not seen:
            raise BadInput("the training split gave no batch")
        state.loss = total / seen

    def _step(self, inputs: Inputs, targets: Tensor) -> float:
        state, fit = self.state, self.fit
        rate = self._rate(self._done())
        for group, base in zip(state.optimiser.param_groups, self.base, strict=True):
            group["lr"] = base * rate
        if fit.augment and self.task.augment is not None:
            first = self.task.augment(inputs[0] if isinstance(inputs, tuple) else inputs, self.generator)
            inputs = (first, *inputs[1:]) if isinstance(inputs, tuple) else first
        inputs, targets = move(inputs, self.device), targets.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            loss = self.loss(state.network, inputs, targets)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if fit.clip is not None:
            torch.nn.utils.clip_grad_norm_(
                [p for group in state.optimiser.param_groups for p in group["params"]], fit.clip
            )
        state.optimiser.step()
        state.step += 1
        self.meter.spend(samples=batch_size(inputs), epochs=batch_size(inputs) / len(self.task.train))
        if self.on_step is not None:
            state.done = self._done()
            self.on_step(state)
        value = loss.item()
        if not math.isfinite(value):
            raise NetwrightError(
                f"training diverged at step {state.step} (loss {value}); lower the learning rate"
            )
        if state.step % 10 == 0:
            progress.step(state.step, self.steps, f"epoch {state.epoch + 1}, loss {value:.3f}")
        return value

    def _close_epoch(self) -> None:
        state, fit = self.state, self.fit
        row = {"epoch": float(state.epoch), "loss": state.loss, "seconds": self.meter.elapsed}
        if self.validating:
            row |= self.validate(state.network)
        self.history.rows.append(row)
        if self.on_epoch is not None:
            self.on_epoch(state)
        if fit.patience is not None:
            value = row[self.task.primary]
            if self.best is None or value > self.best[0]:
                self.best = value, {k: v.detach().clone() for k, v in state.network.state_dict().items()}
                self.since_best = 0
            else:
                self.since_best += 1
                if self.since_best >= fit.patience:
                    self.history.stopped, state.stop = "no improvement", True
        if fit.checkpoint:
            save_state(Path(fit.checkpoint), self._tensors(), self._numbers())

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{k}": v for k, v in self.state.network.state_dict().items()}
        for i, slots in self.state.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": torch.as_tensor(v) for k, v in slots.items() if v is not None}
        if self.best is not None:
            tensors |= {f"best.{k}": v for k, v in self.best[1].items()}
        tensors["random.global"] = torch.get_rng_state()
        tensors["random.augment"] = self.generator.get_state()
        return tensors

    def _numbers(self) -> dict[str, Any]:
        return {
            "epoch": self.state.epoch, "step": self.state.step, "rows": self.history.rows,
            "best": None if self.best is None else self.best[0], "since_best": self.since_best,
            "samples": self.meter.samples, "epochs": self.meter.epochs,
        }  # fmt: skip

    def _resume(self, path: Path) -> None:
        tensors, numbers = load_state(path)
        state = self.state
        part = lambda prefix: {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        state.network.load_state_dict(part("network."))
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimiser.").items():
            index, key = name.split(".", 1)
            slots.setdefault(int(index), {})[key] = value
        groups = state.optimiser.state_dict()["param_groups"]
        state.optimiser.load_state_dict({"state": slots, "param_groups": groups})
        if numbers["best"] is not None:
            self.best = numbers["best"], part("best.")
        torch.set_rng_state(tensors["random.global"])
        self.generator.set_state(tensors["random.augment"])
        state.epoch, state.step, self.since_best = numbers["epoch"], numbers["step"], numbers["since_best"]
        self.history.rows = numbers["rows"]
        self.meter.spend(numbers["samples"], numbers["epochs"])
