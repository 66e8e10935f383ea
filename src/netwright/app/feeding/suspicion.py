"""Does a network know what it was shown? Outputs and targets of a few rows tell when it cannot have been.

A network that is fed in the wrong way scores as if it had not seen its input. But so, at first sight, do some that
are fed rightly: on a hard task, with classes of unequal size, sure of itself and wrong. What tells them apart is
whether the outputs carry any information on the targets, and how the network does on the rows called train.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Seen = tuple[Tensor, Tensor]
"""Outputs (N, O) and targets of some rows."""

FEW = 60  # rows, val and train together, below which nothing can be told
SIGNIFICANT = 3.0  # standard errors
SKILLED = 1 / 3  # of the way from guessing to perfect
_FAR = 1.05  # times ln(classes)
_DRAWS = 200


def gains(outputs: Tensor, targets: Tensor, kind: str) -> Tensor:
    """What each row adds to the primary metric (N,): its mean is the accuracy, or R2."""
    if kind == "classification":
        return (outputs.argmax(1) == targets).double()
    if kind == "multilabel":
        return ((outputs > 0) == targets.bool()).double().mean(1)
    y = targets.double().reshape(len(targets), -1)
    error = (outputs.double().reshape(y.shape) - y).pow(2).sum(1)
    return 1 - error / (y - y.mean(0)).pow(2).sum(1).mean().clamp_min(1e-12)


def doubt(val: Seen, train: Seen, kind: str) -> str:
    """Why the network seems to be fed wrongly, in words; '' where it does not, or where nobody can tell."""
    if len(val[1]) + len(train[1]) < FEW:
        return ""
    if not (bool(torch.isfinite(val[0]).all()) and bool(torch.isfinite(train[0]).all())):
        return "the network gives NaN or Inf"
    if kind == "regression":
        return _of_values(val, train)
    if _skill(*train, kind) >= SKILLED or _skill(*val, kind) >= SKILLED:
        return ""
    score, guessing, _ = _guessing(*val, kind)
    both = torch.cat([val[0], train[0]]), torch.cat([val[1], train[1]])
    if guesses(*val, kind) and not informed(*both, kind):
        word = "the majority class" if kind == "classification" else "the commoner answer to each label"
        return f"the network scores as {word} would ({score:.3f} of {guessing:.3f})"
    blind = math.log(val[0].shape[1] if kind == "classification" else 2)
    found = [_nll(*seen, kind) for seen in (val, train)]
    if min(found) > _FAR * blind:
        return (
            f"the network's negative log likelihood is {found[0]:.2f} (on rows of train {found[1]:.2f}), where "
            f"guessing has {blind:.2f}"
        )
    return ""


def guesses(outputs: Tensor, targets: Tensor, kind: str) -> bool:
    """Whether the network is not better than the commonest answer by more than two standard errors; with values, than
    their mean."""
    if kind == "regression":
        return gains(outputs, targets, kind).mean().item() <= 0
    score, guessing, error = _guessing(outputs, targets, kind)
    return score <= guessing + 2 * error


def informed(outputs: Tensor, targets: Tensor, kind: str) -> bool:
    """Whether rows of a class (or with a label) have higher scores for it than others, beyond chance.

    The mean over classes of the area under the ROC curve, against the same with targets shuffled.
    """
    full = F.one_hot(targets, outputs.shape[1]) if kind == "classification" else targets
    told = (full.sum(0) > 0) & (full.sum(0) < len(full))  # both answers occur
    if not bool(told.any()):
        return False
    truth = full[:, told].double()
    scores = (outputs.double().log_softmax(1) if kind == "classification" else outputs.double())[:, told]
    places = _ranks(scores)
    generator = torch.Generator().manual_seed(0)
    real = _mean_place(places, truth)
    drawn = torch.stack(
        [_mean_place(places, truth[torch.randperm(len(truth), generator=generator)]) for _ in range(_DRAWS)]
    )
    return bool(real - drawn.mean() > SIGNIFICANT * drawn.std().clamp_min(1e-9))


def _mean_place(places: Tensor, truth: Tensor) -> Tensor:
    return ((places * truth).sum(0) / truth.sum(0)).mean()


def _ranks(scores: Tensor) -> Tensor:
    """Each score's place in its column, from 0 to 1; equal ones share theirs."""
    ordered = scores.t().contiguous()
    sorted_ = ordered.sort(1).values
    low = torch.searchsorted(sorted_, ordered)
    high = torch.searchsorted(sorted_, ordered, right=True)
    return ((low + high) / (2 * len(scores))).t()


def _guessing(outputs: Tensor, targets: Tensor, kind: str) -> tuple[float, float, float]:
    """The score, that of the commonest answer, and its standard error."""
    score = gains(outputs, targets, kind).mean().item()
    if kind == "classification":
        share = targets.bincount().max().item() / len(targets)
        return score, share, math.sqrt(share * (1 - share) / len(targets))
    ones = targets.double().mean(0)
    commoner = torch.maximum(ones, 1 - ones)
    return score, commoner.mean().item(), ((commoner * (1 - commoner)).mean() / len(targets)).sqrt().item()


def _skill(outputs: Tensor, targets: Tensor, kind: str) -> float:
    """How far from guessing (0) to perfect (1), by plain accuracy or, if higher, by that with classes of one weight."""
    score, guessing, _ = _guessing(outputs, targets, kind)
    plain = (score - guessing) / max(1 - guessing, 1e-9)
    if kind != "classification" or not informed(outputs, targets, kind):
        return plain
    hits = gains(outputs, targets, kind)
    recalls = torch.stack([hits[targets == c].mean() for c in targets.unique()])
    chance = 1 / len(recalls)
    return max(plain, (recalls.mean().item() - chance) / max(1 - chance, 1e-9))


def _nll(outputs: Tensor, targets: Tensor, kind: str) -> float:
    if kind == "classification":
        return F.cross_entropy(outputs.double(), targets).item()
    return F.binary_cross_entropy_with_logits(outputs.double(), targets.double()).item()


def _of_values(val: Seen, train: Seen) -> str:
    """R2 below 0 by more than its own uncertainty, on rows of train too; a little below is no sign where outputs go
    with the targets (a median is no mean)."""
    r2, upper = zip(*(_r2(*seen) for seen in (val, train)), strict=True)
    if max(upper) >= 0:
        return ""
    together = _correlation(*train)
    if min(r2) > -0.25 and together * math.sqrt(len(train[1])) > SIGNIFICANT:
        return ""
    hint = (
        f"; its outputs go with the targets (correlation {together:.2f}): are these in other units?"
        if together > 0.5
        else ""
    )
    return f"the network's R2 is {r2[0]:.3g} (on rows of train {r2[1]:.3g}), below that of the mean value, 0{hint}"


def _r2(outputs: Tensor, targets: Tensor) -> tuple[float, float]:
    each = gains(outputs, targets, "regression")
    return each.mean().item(), (each.mean() + 2 * each.std() / math.sqrt(len(each))).item()


def _correlation(outputs: Tensor, targets: Tensor) -> float:
    a = outputs.double().reshape(len(targets), -1)
    b = targets.double().reshape(len(targets), -1)
    a, b = a - a.mean(0), b - b.mean(0)
    return ((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)).mean().item()
