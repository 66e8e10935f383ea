"""The small network is new, of the pruned shape, and trained for the length that its budget rule says."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from netwright.compress.parts.prune import Prune
from netwright.compress.rethink import Rethink
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build


@pytest.fixture(scope="module")
def digits():
    task = named_task("digits")
    torch.manual_seed(0)
    network = build("cnn", task.input_shape, task.outputs, widths=(16, 32))
    Fit(epochs=5, lr=3e-3)(network, task)
    return network, task


def test_scratch_b_spends_what_the_large_network_did(digits) -> None:
    network, task = digits
    method = Rethink(ratio=0.7, epochs=10, training="scratch-B")
    small = method.new_network(network, task)
    ratio = cost(network, task.example()).macs / cost(small, task.example()).macs
    assert 2.5 < ratio < 4.5
    assert method.length(network, small, task) == 10 * ratio // 1
    assert Rethink(epochs=10, training="scratch-E").length(network, small, task) == 10
    with pytest.raises(BadInput, match="scratch"):
        Rethink(training="fine-tune")(network, task, Budget(epochs=0.1))


def test_what_it_cannot_serve() -> None:
    table = Task.from_arrays(torch.randn(40, 6), torch.arange(40) % 2)
    with pytest.raises(NotApplicable):
        Rethink()(nn.Linear(6, 2), table, Budget())


def test_batch_statistics_start_anew(digits) -> None:
    network, task = digits
    new = Rethink().new_network(network, task)
    assert (new.norm1.running_mean == 0).all()
    assert (new.norm1.weight == 1).all()


@pytest.mark.parametrize("training", ["scratch-E", "scratch-B"])
def test_nothing_is_inherited(digits, training) -> None:
    """From scratch: the large network's weights, and which filters it would keep, leave no trace."""
    network, task = digits
    torch.manual_seed(5)
    other = build("cnn", task.input_shape, task.outputs, widths=(16, 32))
    method = Rethink(epochs=0.2, optimiser="adamw", lr=3e-3, training=training)
    one, two = method(network, task, Budget()), method(other, task, Budget())
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    other_seed = replace(method, seed=1)
    assert not torch.equal(other_seed(network, task, Budget()).conv1.weight, one.conv1.weight)


def test_scope_makes_a_predefined_or_a_discovered_shape(digits) -> None:
    _, task = digits
    network = build("cnn", task.input_shape, task.outputs, widths=(32, 64))
    with (
        torch.no_grad()
    ):  # what most of the first layer's filters make, and what reads it, is next to nothing
        network.conv1.weight[:24] *= 1e-3
        network.conv2.weight[:, :24] *= 1e-3
    shapes = {}
    for scope in ("layer", "global"):
        small = Rethink(scope=scope, ratio=0.6).new_network(network, task)
        shapes[scope] = small.conv1.out_channels, small.conv2.out_channels
    expected = Prune(importance="magnitude", scope="global", ratio=0.6, epochs=0)(network, task, Budget())
    assert shapes["global"] == (expected.conv1.out_channels, expected.conv2.out_channels)
    assert shapes["global"] != shapes["layer"]


def test_it_learns_and_obeys_the_budget(digits) -> None:
    network, task = digits
    small = Rethink(epochs=6, optimiser="adamw", lr=3e-3)(network, task, Budget())
    assert evaluate(small, task)["accuracy"] > 0.85
    barely = Rethink(epochs=6, optimiser="adamw", lr=3e-3)(network, task, Budget(samples=256))
    assert evaluate(barely, task)["accuracy"] < 0.7
