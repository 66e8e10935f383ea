"""A network fed in the wrong way is found, not improved: before any work, ways to feed it are tried."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netwright.app.feeding.suspicion import SIGNIFICANT, doubt, gains
from netwright.app.feeding.ways import AS_THEY_ARE, Way, ways
from netwright.core.budget import time_left
from netwright.core.errors import BadInput
from netwright.core.files.load import check_match
from netwright.core.metrics import outputs_of
from netwright.core.network import call, device_of, evaluating, move
from netwright.core.split import take
from netwright.core.task import Task

ROWS = (1_000, 300, 100)  # few steps, so that the next run looks at the same rows
# for a look at validation rows, or all the ways together; of the time left, where less, but a moment at least
SECONDS, SHARE, MOMENT = 4.0, 0.1, 0.5
_CALLS = 6  # by which a network's pace is told
_SHOWN = 6


@dataclass(frozen=True)
class Fed:
    """The task as the network is to be fed, and what is to be said of it; warning: it may be fed wrongly."""

    task: Task
    note: str = ""
    warning: str = ""


@dataclass(frozen=True)
class _Score:
    """One way's outcome on validation rows: outputs, targets, what each row adds to the metric."""

    label: str
    task: Task
    outputs: Tensor
    targets: Tensor
    each: Tensor

    @property
    def value(self) -> float:
        return self.each.mean().item()


def fed(network: nn.Module, task: Task, *, believed: bool = False, as_it_is: bool = False) -> Fed:
    """The way to feed the network, tried on about 1,000 validation rows.

    Another way than the task's own is taken where it is clearly better, and itself above suspicion: by more than two
    standard errors (of the rows' differences) where the network as the task feeds it is under suspicion, else three.
    A table is an exception: that its columns are standardised was our guess, so a network that takes them as well as
    they are is fed so. Where no way is and the suspicion stands, BadInput with what was tried.
    believed: the network's file says how it is fed, nothing else is tried. as_it_is: nothing is tried, and a
    suspicion is a warning only. A network that the task does not fit is BadInput, unless some way does.
    """
    try:
        check_match(network, task)
    except BadInput:
        fitting = [] if as_it_is or believed else _fitting(network, task)
        if not fitting:
            raise
        rows = len(fitting[0].targets)
        if why := _doubt(network, fitting[0], rows):
            raise _stopped(why, fitting) from None
        return _chosen(fitting[0], fitting, "as the task has them they do not fit")
    rows = _affordable(network, task, 1)
    base = _score(network, "", task, rows)
    why = _doubt(network, base, rows)
    if as_it_is:
        return Fed(task, warning=f"{why}; it goes on as it is" if why else "")
    reference, tried = (base, []) if believed else _tried(network, base, bool(why))
    plain = None if why else _plain(reference, tried)
    best = _better(plain or reference, tried, 2.0 if why else SIGNIFICANT) or plain
    if best is not None and not _doubt(network, best, rows):
        verb = "has" if task.normalise is None else "normalises"
        return _chosen(best, tried, f"as the task {verb} them {reference.value:.3f}")
    if why:
        raise _stopped(why, tried)
    return Fed(task)


def _chosen(best: _Score, tried: list[_Score], other: str) -> Fed:
    others = f"; tried: {_figures(s for s in tried if s is not best)}" if len(tried) > 1 else ""
    return Fed(
        best.task,
        f"inputs are fed {best.label}: so it scores {best.value:.3f} on {len(best.targets):,} validation rows, "
        f"{other}{others}",
    )


def _stopped(why: str, tried: list[_Score]) -> BadInput:
    tries = f"tried: {_figures(tried)}" if tried else "there was no other way to try"
    return BadInput(
        f"{why}; its preprocessing is probably not the one that it was trained with; {tries}; --as-it-is "
        "(as_it_is=True) goes on"
    )


def _affordable(network: nn.Module, task: Task, times: int) -> int:
    """How many rows the network looks at in the time for it, that many times over; one of ROWS.

    By the fastest of a few calls: the first one prepares, and on a loaded machine any other may have to wait.
    """
    inputs = move(task.example(32), device_of(network))
    taken: list[float] = []
    with evaluating(network), torch.no_grad():
        while len(taken) < 2 or (len(taken) < _CALLS and sum(taken) < MOMENT / 2):
            began = time.perf_counter()
            call(network, inputs)
            taken.append(time.perf_counter() - began)
    each = min(taken) / len(inputs[0])
    seconds = min(SECONDS, max(MOMENT, SHARE * time_left()))
    return next((count for count in ROWS if count * each * times <= seconds), ROWS[-1])


def _score(network: nn.Module, label: str, task: Task, rows: int) -> _Score:
    outputs, targets = outputs_of(network, take(task.val, rows, seed=0))
    return _Score(label, task, outputs, targets, gains(outputs, targets, task.kind))


def _doubt(network: nn.Module, scored: _Score, rows: int) -> str:
    train = outputs_of(network, take(scored.task.train, rows, seed=0))
    return doubt((scored.outputs, scored.targets), train, scored.task.kind)


def _tried(network: nn.Module, base: _Score, suspicious: bool) -> tuple[_Score, list[_Score]]:
    """The task's own way and each other that the network can run, best first, on the same rows.

    A slow network that is above suspicion is spared all but a table's columns as they are.
    """
    found = ways(base.task)
    rows = _affordable(network, base.task, len(found) + 1)
    if rows == ROWS[-1] and not suspicious:
        found = [way for way in found if way.label == AS_THEY_ARE]
    if not found:
        return base, []
    scores = [_score(network, label, task, rows) for label, task in _runnable(network, base.task, found)]
    return _score(network, "", base.task, rows), sorted(scores, key=lambda s: -s.value)


def _fitting(network: nn.Module, task: Task) -> list[_Score]:
    """Ways that fit a network which the task as it stands does not, best first."""
    found = list(_runnable(network, task, ways(task)))
    if not found:
        return []
    rows = _affordable(network, found[0][1], len(found))
    return sorted((_score(network, label, t, rows) for label, t in found), key=lambda s: -s.value)


def _runnable(network: nn.Module, task: Task, found: list[Way]) -> Iterator[tuple[str, Task]]:
    """Those that give the network something else than the task itself and than those before."""
    given = [task.example(8)[0]]
    for way in found:
        fed_so = way.feed(task)
        rows = fed_so.example(8)[0]
        if any(_same(rows, other) for other in given):
            continue
        given.append(rows)
        try:
            check_match(network, fed_so)
        except BadInput:
            continue
        yield way.label, fed_so


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two batches differ by less than a hundredth of the largest value in each place."""
    return a.shape == b.shape and bool(((a - b).abs() <= 0.01 * b.abs().amax(0)).all())


def _gained(way: _Score, base: _Score) -> Tensor:
    """What a way gains in each row that both have seen: the same rows in the same order, fewer where time ran out."""
    rows = min(len(way.each), len(base.each))
    return way.each[:rows] - base.each[:rows]


def _plain(base: _Score, tried: list[_Score]) -> _Score | None:
    """A table's columns as they are, if the network takes them no worse than as the task normalises them: by the
    metric, or by the loss where the metric does not tell."""
    found = next((s for s in tried if s.label == AS_THEY_ARE), None)
    if found is None or base.task.normalise is None:
        return None
    difference = _gained(found, base)
    error = difference.std().item() / math.sqrt(len(difference))
    if abs(difference.mean().item()) > max(2 * error, 1e-9):
        return found if difference.mean() > 0 else None
    rows = len(difference)
    losses = [base.task.loss(s.outputs[:rows], s.targets[:rows]).item() for s in (found, base)]
    return found if losses[0] <= losses[1] else None


def _better(base: _Score, tried: list[_Score], errors: float) -> _Score | None:
    """The best way, if it is better than the task's own by so many standard errors.

    With classes of one weight it must be better too: answering the commonest class more often is no better way.
    """
    if not tried:
        return None
    difference = _gained(tried[0], base)
    error = difference.std().item() / math.sqrt(len(difference))
    clear = difference.mean().item() > max(errors * error, 1e-9)
    if clear and base.task.kind == "classification":
        classes = base.targets[: len(difference)]
        per_class = [difference[classes == c].mean() for c in classes.unique()]
        clear = torch.stack(per_class).mean().item() > 0
    return tried[0] if clear else None


def _figures(scores: Iterable[_Score]) -> str:
    """'0 to 1 0.104, -1 to 1 0.098 and 9 more, none better'."""
    listed = list(scores)
    text = ", ".join(f"{s.label} {s.value:.3f}" for s in listed[:_SHOWN])
    return text + (f" and {len(listed) - _SHOWN} more, none better" if len(listed) > _SHOWN else "")
