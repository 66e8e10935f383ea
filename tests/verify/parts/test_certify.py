"""The verifier: verdicts that agree with exact answers, and accuracies at a radius."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netwright.core.budget import Budget
from netwright.core.contracts import Box, Verifier
from netwright.core.errors import BadInput, NotApplicable, OutOfTime
from netwright.core.fit import Fit
from netwright.core.task import Task
from netwright.verify.crown import Crown
from netwright.verify.interval_bounds import IntervalBounds
from netwright.verify.parts.bounds import read
from netwright.verify.parts.boxes import box_around, margins
from netwright.verify.parts.certify import Certify, certified_accuracy, margin_bound, margin_rows
from netwright.verify.pgd import PGD


def test_margin_rows():
    rows = margin_rows(torch.tensor([2, 0]), 3, torch.float64)
    assert rows.tolist() == [[[-1, 0, 1], [0, -1, 1]], [[1, -1, 0], [1, 0, -1]]]


@pytest.mark.parametrize("bound", ["interval", "crown-ibp", "crown"])
def test_a_linear_classifier_is_decided_exactly(bound):
    """Holds just below the closed-form radius, is violated just above it: nothing is left unknown."""
    net = nn.Linear(12, 3).double()
    x = torch.randn(40, 12, dtype=torch.float64)
    with torch.no_grad():
        out = net(x)
    label = out.argmax(1)
    gap = out.gather(1, label[:, None]) - out
    norm = (net.weight[label][:, None] - net.weight[None]).abs().sum(2)
    radius = torch.where(norm > 0, gap / norm, torch.inf).min(1).values.detach()
    verifier = Certify(bound, pgd_steps=40, restarts=3)
    below, above = ((f * radius)[:, None] for f in (0.99, 1.2))
    holds = verifier(net, Box(x - below, x + below, label), Budget())
    assert set(holds.answers) == {"holds"}
    exact = torch.where(norm > 0, gap - 0.99 * radius[:, None] * norm, torch.inf).min(1).values.detach()
    torch.testing.assert_close(holds.margin, exact, rtol=1e-9, atol=1e-12)
    broken = verifier(net, Box(x - above, x + above, label), Budget())
    assert "holds" not in broken.answers
    assert broken.count("violated") >= 38


def test_where_time_runs_out_what_intervals_prove_stays_proved(trained, monkeypatch):
    """Linear bounds that never come in time leave the answers of interval propagation, not none at all."""
    net, digits = trained
    x = digits.example(20)[0]
    with torch.no_grad():
        y = net(x).argmax(1)
    box = box_around(x, y, 0.002, (0.0, 1.0), digits.normalise)
    intervals = IntervalBounds()(net, box, Budget())

    def late(program, part, bound="crown"):
        if bound == "crown":
            raise OutOfTime("the time is over")
        return margin_bound(program, part, bound)

    monkeypatch.setattr("netwright.verify.parts.certify.margin_bound", late)
    found = Crown()(net, box, Budget(seconds=60))
    assert intervals.count("holds") > 0
    assert found.answers == intervals.answers
    assert Crown()(net, box, Budget()).count("holds") == 0, "without a limit there is nothing to fall back on"


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task]:
    from netwright.data import task

    digits = task("digits")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10),
    )  # fmt: skip
    Fit(epochs=4, lr=5e-3)(net, digits)
    return net, digits


def test_accuracies_at_a_radius_are_ordered(trained):
    net, task = trained
    found = {
        bound: certified_accuracy(net, task, 0.02, Certify(bound), examples=50)
        for bound in ("interval", "crown-ibp", "crown")
    }
    for result in found.values():
        assert result.certified <= result.attacked <= result.clean
        assert result.examples == 50
    assert found["interval"].certified <= found["crown-ibp"].certified <= found["crown"].certified
    assert found["crown"].certified > found["interval"].certified
    still = certified_accuracy(net, task, 0.0, Certify("interval"), examples=50)
    assert still.certified == still.attacked == still.clean > 0.7
    wide = certified_accuracy(net, task, 0.5, Certify(), examples=20)
    assert wide.certified == wide.attacked == 0


def test_what_holds_withstands_every_sample(trained):
    net, task = trained
    x, label = next(iter(task.test.batches(12)))
    box = box_around(x, label, 0.02, (0, 1), task.normalise)
    verifier = Certify()
    assert isinstance(verifier, Verifier)
    verdict = verifier(net, box, Budget())
    proved = torch.tensor([a == "holds" for a in verdict.answers])
    assert int(proved.sum()) > 3
    with torch.no_grad():
        for _ in range(100):
            noise = torch.rand(20, *x.shape)
            noise[::2] = noise[::2].round()
            point = box.lower + noise * (box.upper - box.lower)
            low = margins(net(point.flatten(0, 1)), label.repeat(20)).reshape(20, -1).min(0).values
            assert bool((low >= verdict.margin).all())
            assert bool((low[proved] > 0).all())
    wide = verifier(net, box_around(x, label, 0.1, (0, 1), task.normalise), Budget())
    assert wide.count("violated") > 3
    for answer, found, own in zip(wide.answers, wide.counterexample, label.tolist(), strict=True):
        if answer == "violated":
            assert net(found[None]).argmax().item() != own


def test_a_planted_counterexample_is_never_proved_away():
    """A network that is wrong on one small spot only, where a gradient from the centre does not lead."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    exact = lambda rows: torch.tensor(rows, dtype=torch.float64)
    with torch.no_grad():
        # out1 - out0 = relu(x - 0.89) * 20 - 0.1 : wrong for x > 0.895
        net[0].weight.copy_(exact([[1.0, 0], [0, 0], [0, 0]]))
        net[0].bias.copy_(exact([-0.89, 0, 0]))
        net[2].weight.copy_(exact([[0.0, 0, 0], [20, 0, 0]]))
        net[2].bias.copy_(exact([0.1, 0]))
    label = torch.tensor([0])
    centre = torch.zeros(1, 2, dtype=torch.float64)
    for bound in ("interval", "crown-ibp", "crown"):
        for radius, proved in ((0.894, True), (0.896, False), (1.0, False)):
            box = Box(centre - radius, centre + radius, label)
            answer = Certify(bound, pgd_steps=0)(net, box, Budget()).answers[0]
            assert answer == ("holds" if proved else "unknown")
            low = margin_bound(read(net, centre), box, bound)
            true = 0.1 - 20 * max(0, radius - 0.89)
            assert low.item() <= true + 1e-12
            assert low.item() > true - 1e-9


@torch.no_grad()
def test_a_margin_within_rounding_of_zero_proves_nothing():
    """Outputs (x + margin, 0) on the point x = 1: in float64, also where the network is float32."""
    for margin, proved in ((1e-7, False), (1e-5, True)):
        net = nn.Linear(1, 2)
        net.weight.copy_(torch.tensor([[1.0], [1.0]]))
        net.bias.copy_(torch.tensor([margin, 0.0]))
        x = torch.ones(1, 1)
        verdict = Certify(pgd_steps=0)(net, Box(x, x, torch.tensor([0])), Budget())
        assert verdict.answers == ["holds" if proved else "unknown"]
        assert verdict.margin.dtype == torch.float64
        assert verdict.margin.item() == pytest.approx(margin, rel=1e-4)


def test_budget_and_mode_and_refusals(trained):
    net, task = trained
    x, label = next(iter(task.test.batches(6)))
    box = box_around(x, label, 0.001, None, task.normalise)
    net.train()
    verdict = Certify()(net, box, Budget(seconds=0))
    assert net.training
    assert "holds" not in verdict.answers
    net.eval()
    with pytest.raises(BadInput, match="no bound named"):
        Certify("deeppoly")(net, box, Budget())  # type: ignore[arg-type]
    with pytest.raises(NotApplicable, match=r"aten\.sin"):
        certified_accuracy(nn.Sequential(nn.Flatten(), Sine(), nn.Linear(64, 10)), task, 0.1)
    values = Task.from_arrays(torch.randn(60, 4), torch.randn(60))
    with pytest.raises(NotApplicable, match="regression"):
        certified_accuracy(nn.Linear(4, 1), values, 0.1)


def test_whole_numbers_are_refused():
    """Tokens have no radius around them; a box would have made numbers between them."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 9, (60, 5))
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))
    task = Task.from_arrays(tokens, torch.arange(60) % 2)
    for verifier in (Certify(), PGD()):
        with pytest.raises(NotApplicable, match="continuous inputs"):
            certified_accuracy(net, task, 0.01, verifier)
    with pytest.raises(NotApplicable, match="continuous inputs"):
        box_around(tokens, torch.zeros(60, dtype=torch.int64), 0.01)


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)
