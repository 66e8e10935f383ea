"""The gallery of `netwright explain --out`, for every kind of task on pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from netwright.app import one
from netwright.app.clock import Clock
from netwright.app.feeding.opening import Subject
from netwright.app.screen import View
from netwright.core import catalogue
from netwright.core.task import Task


def gallery(targets: Tensor, folder: Path, **options) -> tuple[Task, str]:
    torch.manual_seed(0)
    pictures = torch.rand(len(targets), 3, 12, 12)
    task = Task.from_arrays(pictures, targets, val=(pictures, targets), test=(pictures, targets), **options)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, task.outputs)
    ).eval()
    method = catalogue.method("grad-cam")
    subject = Subject("mine", network, task)
    said = one.explain(method.build(), method, subject, Clock(None), folder, View(quiet=True))
    assert len(said["target"]) == one.EXPLAINED
    return task, (folder / "gallery.html").read_text(encoding="utf-8")


def test_classes_are_named_and_escaped(tmp_path: Path) -> None:
    _, page = gallery(torch.arange(20) % 2, tmp_path, classes=("<cat>", "dog"))
    assert page.count("<img ") == 2 * one.EXPLAINED
    assert page.count("(true: &lt;cat&gt;)") == page.count("(true: dog)") == one.EXPLAINED // 2


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (torch.linspace(0, 1, 20), "regression"),
        (torch.rand(20, 2, generator=torch.Generator().manual_seed(0)), "regression"),
        ((torch.arange(60).reshape(20, 3) % 2).long(), "multilabel"),
    ],
)
def test_without_classes_the_output_is_named(tmp_path: Path, targets: Tensor, kind: str) -> None:
    task, page = gallery(targets, tmp_path)
    assert task.kind == kind
    assert page.count("<img ") == 2 * one.EXPLAINED
    assert page.count("<figcaption>output ") == one.EXPLAINED
    assert "true" not in page
