"""How good a network's outputs are, and how well its probabilities are calibrated.

Calibration figures take probabilities (N, C) and targets (N,). Bins are right-closed, (a, b], so that a
confidence of exactly 1.0 falls in the last bin; empty bins count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.budget import in_time
from netwright.core.errors import BadInput
from netwright.core.measure.latency import onnx_feed, onnx_session
from netwright.core.network import as_tuple, call, device_of, evaluating, move
from netwright.core.split import Split
from netwright.core.task import Task, by_position

Binning = Literal["width", "mass"]


def outputs_of(network: nn.Module, split: Split, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """The network's outputs (N, O) and the targets, on the CPU, in evaluation mode without gradients; of fewer
    examples, a batch at least, where the time set around it (core/budget.py) is over."""
    device = device_of(network)
    outputs, targets = [], []
    with evaluating(network), torch.no_grad():
        for x, y in in_time(split.batches(batch_size)):
            result = call(network, move(x, device))
            if not isinstance(result, Tensor):
                raise BadInput(
                    f"the network gives a {type(result).__name__}; metrics need one tensor of outputs"
                )
            outputs.append(result.float().cpu())
            targets.append(y)
    return torch.cat(outputs), torch.cat(targets)


def outputs_of_file(path: str | Path, split: Split, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """As `outputs_of`, of an ONNX file in ONNX Runtime. split: inputs as the file takes them."""
    session = onnx_session(path, torch.get_num_threads())
    fixed = session.get_inputs()[0].shape[0]  # a number where the file takes batches of that size alone
    size = fixed if isinstance(fixed, int) else batch_size
    outputs, targets = [], []
    for x, y in split.batches(size):
        for start in range(0, len(y), size):
            part = tuple(t[start : start + size] for t in as_tuple(x))
            count = len(part[0])
            if isinstance(fixed, int) and count < size:
                part = tuple(torch.cat([t, t[:1].expand(size - count, *t.shape[1:])]) for t in part)
            outputs.append(torch.from_numpy(session.run(None, onnx_feed(session, part))[0][:count]).float())
        targets.append(y)
    return torch.cat(outputs), torch.cat(targets)


def evaluate(
    network: nn.Module, task: Task, role: Literal["train", "val", "test"] = "val"
) -> dict[str, float]:
    """The task's metrics on one split."""
    outputs, targets = outputs_of(network, getattr(task, role))
    return score(outputs, targets, task.kind)


def score(outputs: Tensor, targets: Tensor, kind: str) -> dict[str, float]:
    """Metrics of raw outputs (logits or values).

    classification: accuracy, nll, brier, ece (15 bins, equal width), over all positions where each has a target.
    multilabel: accuracy (mean over labels),
    nll. regression: mse, rmse, mae, r2.
    """
    if kind == "classification":
        outputs, targets = by_position(outputs, targets)
        logp = outputs.double().log_softmax(1)
        p = logp.exp()
        return {
            "accuracy": (outputs.argmax(1) == targets).double().mean().item(),
            "nll": F.nll_loss(logp, targets).item(),
            "brier": brier(p, targets),
            "ece": ece(p, targets),
        }
    if kind == "multilabel":
        hits = (outputs > 0) == targets.bool()
        nll = F.binary_cross_entropy_with_logits(outputs.double(), targets.double())
        return {"accuracy": hits.double().mean().item(), "nll": nll.item()}
    error = outputs.double().reshape(targets.shape) - targets.double()
    spread = (targets.double() - targets.double().mean(0)).pow(2).sum()
    return {
        "mse": error.pow(2).mean().item(),
        "rmse": error.pow(2).mean().sqrt().item(),
        "mae": error.abs().mean().item(),
        "r2": (1 - error.pow(2).sum() / spread.clamp_min(1e-12)).item(),
    }


def nll(probabilities: Tensor, targets: Tensor) -> float:
    """Mean negative log likelihood of the true class."""
    chosen = probabilities.gather(1, targets[:, None])[:, 0]
    return -chosen.clamp_min(1e-300 if chosen.dtype == torch.float64 else 1e-38).log().mean().item()


def brier(probabilities: Tensor, targets: Tensor) -> float:
    """Mean squared distance between probabilities and the one-hot truth, summed over classes (0 to 2)."""
    truth = F.one_hot(targets, probabilities.shape[1]).to(probabilities.dtype)
    return (probabilities - truth).pow(2).sum(1).mean().item()


@dataclass(frozen=True)
class Reliability:
    """One row per bin: edges (B+1,), mean confidence (B,), accuracy (B,), counts (B,). Empty bins hold NaN."""

    edges: Tensor
    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def gaps(self) -> Tensor:
        return (self.accuracy - self.confidence).abs()

    @property
    def ece(self) -> float:
        """Gap between accuracy and confidence, averaged over examples."""
        filled = self.count > 0
        return (self.gaps[filled] * self.count[filled]).sum().item() / max(1, int(self.count.sum()))

    @property
    def mce(self) -> float:
        """The largest gap of a bin that is not empty."""
        return self.gaps[self.count > 0].max().item()


def reliability(confidence: Tensor, hits: Tensor, bins: int = 15, binning: Binning = "width") -> Reliability:
    """Bin confidences (N,) with their hits (N,) of 0/1.

    binning: 'width' (equal intervals of [0, 1]) or 'mass' (equal counts; ties stay together in one bin).
    """
    c = confidence.double().contiguous()
    h = hits.double()
    if binning == "width":
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    else:
        inner = torch.quantile(c, torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1])
        edges = torch.cat([torch.zeros(1, dtype=torch.float64), inner, torch.ones(1, dtype=torch.float64)])
    index = torch.bucketize(c, edges[1:-1], right=False)
    count = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, torch.ones_like(c))
    conf = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, c) / count
    acc = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, h) / count
    return Reliability(edges, conf, acc, count.long())


def top_label(probabilities: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence of the predicted class (N,) and whether it is right (N,)."""
    confidence, predicted = probabilities.max(1)
    return confidence, predicted == targets


def ece(probabilities: Tensor, targets: Tensor, bins: int = 15, binning: Binning = "width") -> float:
    """Expected calibration error of the predicted class."""
    return reliability(*top_label(probabilities, targets), bins, binning).ece


def adaptive_ece(probabilities: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Expected calibration error with bins of equal mass."""
    return ece(probabilities, targets, bins, "mass")


def classwise_ece(
    probabilities: Tensor, targets: Tensor, bins: int = 15, binning: Binning = "width"
) -> float:
    """Mean over classes of the calibration error of that class's probability."""
    per_class = [
        reliability(probabilities[:, k], targets == k, bins, binning).ece
        for k in range(probabilities.shape[1])
    ]
    return sum(per_class) / len(per_class)
