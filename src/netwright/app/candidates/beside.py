"""Each candidate beside the original, on the same validation examples: how its metric moved, and whether its
probabilities have blown up."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.app import words
from netwright.app.candidates.run import JUDGED, ORIGINAL
from netwright.core.measure.paired import Change, changes
from netwright.core.study.study import Study
from netwright.core.task import Task

Row = dict[str, Any]
FAR, FARTHER = 3.0, 5.0  # times the likelihood loss of a uniform guess, and times the original's


def hold_beside(study: Study, task: Task) -> None:
    """Add to each row that has not got them yet: METRIC_change with its 95 % interval METRIC_change_low and
    METRIC_change_high, paired, over the original on the same examples; blown_up (1.0) where `blown_up` says so."""
    rows = [row for row in study.rows if row["status"] == "done" and JUDGED in row["files"]]
    original = next((row for row in rows if row["slug"] == ORIGINAL), None)
    if original is None:
        return
    reference, metric = _judged(study, original), task.primary
    for row in rows:
        if row is original or f"{metric}_change" in row:
            continue
        mine = _judged(study, row)
        if mine.shape != reference.shape:  # judged on other examples
            continue
        change = changes(reference, mine, task.outputs if task.kind == "multilabel" else 1)[metric]
        figures = {"": change.value, "_low": change.low, "_high": change.high}
        study.add(row["key"], {f"{metric}_change{end}": value for end, value in figures.items()})
        if blown_up(row.get("nll"), original.get("nll"), task):
            study.add(row["key"], {"blown_up": 1.0})


def _judged(study: Study, row: Row) -> Tensor:
    return torch.from_numpy(np.load(io.BytesIO(study.file(row["key"], JUDGED)), allow_pickle=False))


def blown_up(nll: float | None, original: float | None, task: Task) -> bool:
    """Whether a negative log likelihood is several times that of a uniform guess, and of the original's."""
    if nll is None or original is None:
        return False
    guess = math.log(2 if task.kind == "multilabel" else max(2, task.outputs))
    return not math.isfinite(nll) or (nll > FAR * guess and nll > FARTHER * original)


def blow_up(row: Row, original: Row) -> str:
    """'its probabilities have blown up: ...', or nothing."""
    if not row.get("blown_up"):
        return ""
    return (
        f"its probabilities have blown up: negative log likelihood {row['nll']:.3g}, "
        f"of the original {original['nll']:.3g}"
    )


def note_of(row: Row, original: Row | None) -> str:
    """The row's own note, and that its probabilities have blown up."""
    warning = "" if original is None else blow_up(row, original)
    return "; ".join(filter(None, [row.get("note") or "", warning]))


def change_of(row: Row, metric: str, examples: int) -> Change | None:
    """What `hold_beside` added, as a Change."""
    if f"{metric}_change" not in row:
        return None
    value, low, high = (row[f"{metric}_change{end}"] for end in ("", "_low", "_high"))
    return Change(value, low, high, examples)


def change_cell(row: Row, metric: str) -> str:
    """'+0.8 [-0.1, +1.7]' for a table."""
    change = change_of(row, metric, 0)
    return "" if change is None else f"{words.amount(metric, change.value)} {words.interval(metric, change)}"
