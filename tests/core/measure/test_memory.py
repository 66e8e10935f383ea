"""Memory of a training step against a hand count."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from netwright.core.measure.memory import SavedTensors, training_memory


def step_of(network, x, optimiser):
    def step() -> None:
        optimiser.zero_grad()
        network(x).sum().backward()
        optimiser.step()

    return step


def test_mlp_by_hand() -> None:
    network = nn.Sequential(nn.Linear(20, 30), nn.Sigmoid(), nn.Linear(30, 7), nn.Sigmoid())
    x = torch.rand(5, 20)
    optimiser = torch.optim.Adam(network.parameters())
    found = training_memory(step_of(network, x, optimiser), network, optimiser)
    # the inputs of both layers and the outputs of both sigmoids; the second layer's input is the first's output
    assert found.saved == 4 * 5 * (20 + 30 + 7)
    assert found.weights == found.gradients == 4 * (20 * 30 + 30 + 30 * 7 + 7)
    assert found.optimiser == 2 * found.weights + 4 * 4  # two moments, and a step count for each of 4 tensors
    assert found.peak == found.saved + 3 * found.weights + found.weights + 16


def test_a_frozen_backbone_saves_nothing() -> None:
    backbone, head = nn.Sequential(nn.Linear(20, 400), nn.Sigmoid()), nn.Linear(400, 3)
    backbone.requires_grad_(False)
    network = nn.Sequential(backbone, head)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    found = training_memory(step_of(network, torch.rand(5, 20), optimiser), network, optimiser)
    assert found.saved == 4 * 5 * 400  # the head's input alone
    assert found.gradients == 4 * (400 * 3 + 3)
    assert found.optimiser == 0


def test_repeated_and_checkpointed_passes_count_at_their_peak() -> None:
    network = nn.Sequential(*[nn.Sequential(nn.Linear(50, 50), nn.Sigmoid()) for _ in range(4)])
    x = torch.rand(10, 50)
    unit = 4 * 10 * 50
    ledger = SavedTensors(network.parameters())
    with ledger.counting():
        for _ in range(3):
            network(x).sum().backward()
    assert ledger.peak == unit * 5
    assert ledger.held == 0

    cheap = SavedTensors(network.parameters())
    with cheap.counting():
        y = x.clone().requires_grad_()
        for block in network:
            y = checkpoint(block, y, use_reentrant=False)
        y.sum().backward()
    assert cheap.peak < ledger.peak + unit
