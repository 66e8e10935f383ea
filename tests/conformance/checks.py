"""What every method of a contract promises, checked on one network: a correct result, or NotApplicable with a reason.

Each check returns the reason of a refusal, or '' after a correct result; anything else is an error.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from tests.conformance.cases import small
from tests.conformance.networks import CLASSES, slow_subject, subject
from torch import Tensor, nn

from netwright.core.budget import Budget, Target, within
from netwright.core.catalogue import Method
from netwright.core.contracts import Box
from netwright.core.errors import NotApplicable
from netwright.core.files.export import export
from netwright.core.network import call, evaluating

# a target in bytes, because a choice by measured latency is not repeatable
TINY = Budget(epochs=1, target=Target(smaller=1.5))


def built(row: Method) -> Any:
    return row.build(**small(row.slug))


def outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    with evaluating(network), torch.no_grad():
        return call(network, inputs)


@contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Fails if a network's state, modes, gradients, hooks or structure differ after the block."""
    before = [_state(n) for n in networks]
    yield
    for network, held in zip(networks, before, strict=True):
        now = _state(network)
        assert now["tensors"].keys() == held["tensors"].keys(), "the network's parameters have other names"
        changed = [k for k, v in now["tensors"].items() if not torch.equal(v, held["tensors"][k])]
        assert not changed, f"the network that was given has changed: {changed}"
        for what in ("modules", "modes", "learns", "hooks"):
            assert now[what] == held[what], f"the network that was given has other {what}"
        assert not any(p.grad is not None for p in network.parameters()), "gradients were left behind"


def _state(network: nn.Module) -> dict[str, Any]:
    modules = dict(network.named_modules())
    return {
        "tensors": {k: v.detach().clone() for k, v in network.state_dict().items()},
        "modules": {k: type(m) for k, m in modules.items()},
        "modes": {k: m.training for k, m in modules.items()},
        "learns": {k: p.requires_grad for k, p in network.named_parameters()},
        "hooks": {k: len(m._forward_hooks) + len(m._forward_pre_hooks) for k, m in modules.items()},
    }


def refusable(check: Callable[..., None]) -> Callable[..., str]:
    """NotApplicable is a result, if it says why."""

    @wraps(check)
    def checked(*args: Any) -> str:
        reason = ""
        try:
            check(*args)
        except NotApplicable as refusal:
            reason = str(refusal) or "no reason"
        assert not reason or len(reason) > 10, "a refusal must say why"
        return reason

    return checked


def twice(run: Callable[[], Any]) -> tuple[Any, Any]:
    """Two runs under different global seeds: a method's chance is its own."""
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(run())
    return results[0], results[1]


@refusable
def transform(row: Method, name: str, folder: Path, suffix: str) -> None:
    """suffix: with it, the work is also repeated, and the result exported to a file of this kind."""
    network, task = subject(name)
    example = task.example(5)
    torch.manual_seed(1)
    with untouched(network):
        made = built(row)(network, task, TINY)
    assert isinstance(made, nn.Module)
    assert made is not network
    assert not made.training, "a network is handed over in evaluation mode"
    result = outputs(made, example)
    assert result.shape == outputs(network, example).shape == (5, CLASSES)
    assert result.isfinite().all()
    if suffix:
        torch.manual_seed(2)
        again = built(row)(network, task, TINY)
        assert torch.allclose(result, outputs(again, example), atol=1e-6), (
            "the same seed gave another network"
        )
        written = export(made, task.example(2), folder / f"made{suffix}")
        assert written.path.stat().st_size > 0


@refusable
def analysis(row: Method, name: str) -> None:
    network, task = subject(name)
    networks = [network, *(subject(name, seed=s)[0] for s in range(1, row.networks))]
    with untouched(*networks):
        finding, again = twice(lambda: built(row)(*networks, task.val))
    assert finding.figures
    assert finding.sentence.endswith("."), "its finding in plain words"
    assert any(c.isdigit() for c in finding.sentence), "with its main figure"
    for key, value in finding.figures.items():
        assert math.isfinite(value), f"the figure '{key}' is {value}"
        assert again.figures[key] == value, f"the figure '{key}' is not repeatable"
    table = finding.table()
    assert table
    assert all(isinstance(line, dict) for line in table)
    json.dumps(finding.to_json(), allow_nan=False)
    drawn = finding.plot().to_plotly_json()
    assert drawn["data"]


@refusable
def explainer(row: Method, name: str) -> None:
    network, task = subject(name)
    inputs = task.example(4)
    given = inputs if len(inputs) > 1 else inputs[0]
    predicted = outputs(network, inputs).argmax(1)
    target = (predicted + 1) % CLASSES
    with untouched(network):
        found, again = twice(lambda: built(row)(network, given))
        asked = built(row)(network, given, target)
    shape = inputs[0].shape
    expected = (4, *shape[2:]) if task.meaning == "image" else tuple(shape)
    for explanation, wanted in ((found, predicted), (asked, target)):
        assert tuple(explanation.attribution.shape) == expected
        assert explanation.attribution.isfinite().all()
        assert torch.equal(explanation.target.cpu(), wanted)
        assert explanation.method
        for score, values in explanation.scores.items():
            assert len(values) == 4, f"the score '{score}' is not one per example"
            assert values.isfinite().all()
    assert torch.allclose(found.attribution, again.attribution, atol=1e-6)
    assert (asked.attribution - found.attribution).abs().max() > 0, "another class is explained alike"
    assert not found.attribution.requires_grad


@refusable
def verifier(row: Method, name: str) -> None:
    network, task = subject(name)
    count = 3
    x = task.example(count)[0]
    label = outputs(network, task.example(count)).argmax(1)
    decided = 0
    for radius in (0.0, 0.02, 1.5):
        box = Box(x - radius, x + radius, label)
        method, meter = built(row), Budget(seconds=20).start()
        with untouched(network):
            verdict = method(network, box, meter.budget)
        assert len(verdict.answers) == count
        assert set(verdict.answers) <= {"holds", "violated", "unknown"}
        lowest = attacked(network, box)
        for i, answer in enumerate(verdict.answers):
            assert verdict.margin[i] <= lowest[i] + 1e-4, "a point of the box lies below the proved margin"
            if answer == "holds":
                assert verdict.margin[i] > 0
            if answer == "violated":
                found = verdict.counterexample[i : i + 1]
                assert (box.lower[i] <= found + 1e-6).all()
                assert (found <= box.upper[i] + 1e-6).all()
                assert margins(outputs(network, (found,)), label[i : i + 1]) <= 0
        decided += len(verdict.answers) - verdict.count("unknown")
        if radius == 0.0:
            assert "violated" not in verdict.answers, "the box of one point holds the label's own example"
        if radius == 0.02 and meter.elapsed < 5:  # an answer that the clock cut short need not come again
            torch.manual_seed(3)
            again = method(network, box, Budget(seconds=60))
            assert list(again.answers) == list(verdict.answers)
            assert torch.equal(again.margin, verdict.margin)
    assert decided, "neither proved nor broken, at any radius"


def attacked(network: nn.Module, box: Box) -> Tensor:
    """The lowest margin (B,) found at corners, at random points, and by following the gradient's sign."""
    draw = torch.Generator().manual_seed(0)
    lowest = torch.full((len(box.label),), math.inf)
    width = box.upper - box.lower
    for start in range(20):
        place = torch.rand(box.lower.shape, generator=draw)
        point = box.lower + width * (place if start % 2 else place.round())
        for _ in range(5):
            point = point.detach().requires_grad_()
            with evaluating(network):
                margin = margins(network(point), box.label)
            lowest = torch.minimum(lowest, margin.detach())
            (slope,) = torch.autograd.grad(margin.sum(), point)
            point = torch.clamp(point - width / 4 * slope.sign(), box.lower, box.upper)
    return lowest


def margins(logits: Tensor, label: Tensor) -> Tensor:
    """Of the label over the best other class, (B,)."""
    own = logits.gather(1, label[:, None])[:, 0]
    others = logits.scatter(1, label[:, None], -math.inf)
    return own - others.amax(1)


@refusable
def predictor(row: Method, name: str) -> None:
    network, _ = subject(name)
    with untouched(network):
        score, again = twice(lambda: built(row)(network))
    assert math.isfinite(score)
    assert score == again


SECOND, ALLOWED = Budget(seconds=1), 5.0


@refusable
def ends_in_time(row: Method) -> None:
    """A budget of a second ends within five, although a pass of this network takes a good part of it. Counted in
    seconds of the processor, of which a busy machine gives fewer, never more."""
    networks = [slow_subject(seed)[0] for seed in range(max(1, row.networks))]
    _, task = slow_subject()
    inputs = task.example(4)
    box = Box(inputs[0] - 0.02, inputs[0] + 0.02, torch.zeros(4, dtype=torch.int64))
    run = {
        "Transform": lambda method: method(networks[0], task, SECOND),
        "Verifier": lambda method: method(networks[0], box, SECOND),
        "Explainer": lambda method: method(networks[0], inputs[0]),
        "Analysis": lambda method: method(*networks, task.val),
    }[row.contract]
    method, start = built(row), time.process_time()
    try:
        with within(SECOND.seconds if row.contract in ("Explainer", "Analysis") else None):
            run(method)
    finally:
        spent = time.process_time() - start
        assert spent < ALLOWED, f"a budget of 1 s took {spent:.1f} s"
