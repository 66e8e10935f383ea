import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import netwright as nw
from netwright.app.candidates.calibrated import calibrated, crossed
from netwright.core.metrics import evaluate


def task_of(logits: torch.Tensor, targets: torch.Tensor) -> nw.Task:
    """A task whose inputs are the logits themselves."""
    return nw.Task.from_arrays(logits, targets, val=(logits, targets), test=(logits, targets))


def drawn(rows: int, sharpness: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and classes drawn from their probabilities; the logits then `sharpness` times too large."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(rows, 4)) * 2).float()
    p = logits.double().softmax(1).numpy()
    targets = torch.tensor([rng.choice(4, p=row) for row in p])
    return logits * sharpness, targets


def test_an_overconfident_network_is_calibrated_and_the_text_says_by_how_much():
    task = task_of(*drawn(800, 3.0))
    network, said = calibrated(nn.Identity(), task)
    assert said.startswith(("temperature 3.", "temperature 2.9"))
    assert "better on validation rows that it was not fitted on" in said
    assert evaluate(network, task)["nll"] < evaluate(nn.Identity(), task)["nll"]


def test_an_honest_network_is_left_as_it_is():
    """Its fitted temperature is better on the rows that it was fitted on, as it always is, and worse on others."""
    logits, targets = drawn(60, 1.0)
    temperature = nw.method("temperature-scaling").build()(
        nn.Identity(), task_of(logits, targets), nw.Budget()
    )
    fitted = F.cross_entropy(temperature(logits), targets)
    assert fitted < F.cross_entropy(logits, targets), "in sample it helps"
    assert crossed(logits.double(), targets) > F.cross_entropy(logits, targets).item()
    given = nn.Identity()
    network, said = calibrated(given, task_of(logits, targets))
    assert network is given
    assert said.startswith("not calibrated: a temperature (")


def test_crossed_halves_by_hand():
    from netwright.calibrate.temperature_scaling import fit

    logits, targets = drawn(100, 2.0)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    a, b = order[:50], order[50:]
    logits = logits.double()
    by_hand = (
        F.cross_entropy(logits[a] / fit(logits[b], targets[b]), targets[a])
        + F.cross_entropy(logits[b] / fit(logits[a], targets[a]), targets[b])
    ) / 2
    assert crossed(logits, targets) == pytest.approx(by_hand.item())


def test_regression_is_not_calibrated():
    task = nw.Task.from_arrays(torch.randn(60, 1), torch.randn(60))
    network, said = calibrated(given := nn.Identity(), task)
    assert network is given
    assert said.startswith("not calibrated: ")
