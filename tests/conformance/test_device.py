"""Transforms that train do so on another device, and what they make comes back to the processor whole."""

from __future__ import annotations

import pytest
import torch
from tests import far
from tests.conformance.networks import subject
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import netwright as nw
from netwright.app.candidates.control import control_trial
from netwright.app.candidates.run import result_of, trains, trials_for
from netwright.core import catalogue
from netwright.core.budget import Budget, Target
from netwright.core.network import seeded
from netwright.data import task as open_task

BUDGET = Budget(epochs=3, target=Target(faster=2))
SLUGS = [
    row.slug
    for row in catalogue.methods().values()
    if row.contract == "Transform" and row.goal in ("compress", "train") and row.trains
]


ELSEWHERE = {"delta-act": "gated"}  # of those that serve no pictures, on which of the awkward networks


@pytest.fixture(scope="module")
def task():
    return open_task("digits", limit=256)


@pytest.fixture(scope="module")
def network(task):
    with seeded(0):
        made = nw.model("cnn", task.input_shape, task.outputs, widths=(8, 16))
    nw.Fit(epochs=1, lr=5e-3)(made, task)
    return made


def test_the_far_device_computes_and_does_not_mix():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    with far.device():
        there = nn.Linear(3, 2).to(far.NAME)
        there.load_state_dict(layer.state_dict())
        with pytest.raises(RuntimeError, match="one device"):
            there(x)
        outputs = there(x.to(far.NAME))
        assert outputs.device.type == far.NAME
        outputs.square().sum().backward()
        found = there.weight.grad.cpu()
    layer(x).square().sum().backward()
    torch.testing.assert_close(found, layer.weight.grad)


@pytest.mark.parametrize("slug", [*SLUGS, "the control"])
def test_training_takes_place_where_it_is_told_to(slug, network, task):
    network, task = subject(ELSEWHERE[slug]) if slug in ELSEWHERE else (network, task)
    goal = "compress" if slug == "the control" else catalogue.method(slug).goal
    trial = control_trial(BUDGET, 0) if slug == "the control" else trials_for(goal, [slug], BUDGET)[0]
    assert trains(trial)
    places = set()
    note = lambda optimiser, *_: places.update(
        p.device.type for group in optimiser.param_groups for p in group["params"]
    )
    hook = register_optimizer_step_pre_hook(note)
    with far.device():
        try:
            made = result_of(trial, network, task, far.NAME)
        finally:
            hook.remove()
    assert places == {far.NAME}
    tensors = [*made.parameters(), *made.buffers()]
    assert {t.device.type for t in tensors} == {"cpu"}
    assert not any(isinstance(t, far.Far) for t in tensors)
    assert {t.device.type for t in network.parameters()} == {"cpu"}, "the given network stays where it was"
    outputs = made(*task.example(2))
    assert outputs.isfinite().all()
