"""What every calibrator shares: the validation logits it is fitted on, the optimiser, the network it returns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import Budget, Meter, within
from netwright.core.errors import NotApplicable
from netwright.core.metrics import outputs_of
from netwright.core.network import clone, device_of
from netwright.core.task import Task


class Calibrated(nn.Module):
    """A network of several inputs, followed by a calibration layer. One input needs only `nn.Sequential`."""

    def __init__(self, network: nn.Module, calibration: nn.Module) -> None:
        super().__init__()
        self.network, self.calibration = network, calibration

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.calibration(self.network(*inputs))


def follow(network: nn.Module, calibration: nn.Module, task: Task) -> nn.Module:
    """A copy of the network with the calibration layer behind it, in evaluation mode."""
    parts = OrderedDict(network=clone(network), calibration=calibration.to(device_of(network)))
    whole = nn.Sequential(parts) if len(task.input_shapes) == 1 else Calibrated(**parts)
    return whole.eval()


def validation_logits(
    network: nn.Module,
    task: Task,
    budget: Budget = Budget(),  # noqa: B008  frozen
) -> tuple[Tensor, Tensor]:
    """Outputs (N, C) and classes (N,) of the validation split, the only data a calibrator sees; of as much of it as
    half of the budget's seconds allow, a batch at least."""
    if task.kind != "classification":
        raise NotApplicable(f"calibration needs a classification task, '{task.name}' is {task.kind}")
    with within(budget.part(0.5).seconds):
        logits, targets = outputs_of(network, task.val)
    if logits.dim() != 2 or logits.shape[1] < task.outputs:  # it may know more classes than occur
        raise NotApplicable(
            f"calibration needs outputs (batch, {task.outputs}) or wider; this network gives {tuple(logits.shape)}"
        )
    if not bool(torch.isfinite(logits).all()):
        raise NotApplicable("the network's outputs hold NaN or Inf on the validation data")
    return logits, targets


def refuse_separable(logits: Tensor, targets: Tensor) -> None:
    """Without one mistake the likelihood grows for ever as the logits do: there is nothing to fit to."""
    if bool((logits.argmax(1) == targets).all()):
        raise NotApplicable(
            f"all {len(targets)} validation examples are classified right, so the likelihood has no finite "
            "optimum; calibrate with more validation data"
        )


def minimise(
    parameters: Sequence[Tensor], loss: Callable[[], Tensor], meter: Meter, note: str, rounds: int = 25
) -> None:
    """LBFGS in place until the gradient vanishes, the loss falls no more or the budget ends."""
    for p in parameters:
        p.requires_grad_(True)
    optimiser = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    reached = float("inf")
    for i in range(rounds):
        if meter.exhausted:
            break
        optimiser.step(closure)
        with torch.no_grad():
            before, reached = reached, loss().item()
        progress.step(i + 1, rounds, note)
        if max(float(p.grad.abs().max()) for p in parameters) < 1e-7 or before - reached < 1e-12:
            break
    for p in parameters:
        p.requires_grad_(False)
