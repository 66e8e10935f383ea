"""A trained CNN from elsewhere (conv-pool-conv-pool-dense, 99 % on MNIST): the three bounds in their order."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from netwright.verify.parts.certify import Certify, certified_accuracy


@pytest.mark.slow
@pytest.mark.data("small_models", "mnist")
def test_bounds_of_a_digit_network_from_elsewhere(needs_data):
    from netwright.data import task

    net = nn.ModuleDict(
        {
            "features": nn.Sequential(
                nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
                nn.MaxPool2d(2), nn.Flatten(),
            ),
            "classifier": nn.Sequential(nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10)),
        }
    )  # fmt: skip
    net.load_state_dict(load_file(needs_data("small_models") / "ccexam_mnist_cnn.safetensors"))
    whole = nn.Sequential(net["features"], net["classifier"])
    mnist = task("mnist")
    found = {
        bound: certified_accuracy(whole, mnist, 2 / 255, Certify(bound, batch_size=2), examples=6)
        for bound in ("interval", "crown-ibp", "crown")
    }
    assert {r.clean for r in found.values()} == {1.0}
    assert {r.attacked for r in found.values()} == {1.0}
    margins = {bound: r.verdict.margin for bound, r in found.items()}
    assert bool((margins["interval"] < margins["crown-ibp"]).all())
    assert bool((margins["crown-ibp"] < margins["crown"]).all())
    assert found["interval"].certified == 0
    assert found["crown"].certified == 1
    # a point of the box never lies below what is proved of it
    with torch.no_grad():
        for inputs, labels in mnist.test.batches(6):
            out = whole(inputs)
            own = out.gather(1, labels[:, None])[:, 0]
            rest = out.scatter(1, labels[:, None], -torch.inf).max(1).values
            assert bool((margins["crown"] <= own - rest).all())
            break
