"""The attack: closed form on a linear classifier, its box, its losses, its budget."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from netwright.core.budget import Budget
from netwright.core.contracts import Box, Verifier
from netwright.core.errors import BadInput, NotApplicable
from netwright.verify.parts.boxes import box_around, margins
from netwright.verify.pgd import PGD


def linear(inputs: int = 20, classes: int = 4) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear classifier, examples, their labels and the exact radius at which each breaks:
    min over k of margin_k / ||w_label - w_k||_1."""
    net = nn.Linear(inputs, classes).double()
    x = torch.randn(30, inputs, dtype=torch.float64)
    with torch.no_grad():
        out = net(x)
        label = out.argmax(1)
        gap = out.gather(1, label[:, None]) - out
        norm = (net.weight[label][:, None] - net.weight[None]).abs().sum(2)
        radius = torch.where(norm > 0, gap / norm, torch.inf).min(1).values
    return net, x, label, radius


@pytest.mark.parametrize("loss", ["margin", "cross-entropy"])
@pytest.mark.parametrize("start", ["centre", "random"])
def test_breaks_a_linear_classifier_at_the_exact_radius(loss, start):
    net, x, label, radius = linear(classes=2)
    for factor, wanted in ((1 + 1e-6, "violated"), (1 - 1e-6, "unknown")):
        spread = (factor * radius)[:, None]
        verdict = PGD(steps=20, loss=loss, start=start)(net, Box(x - spread, x + spread, label), Budget())
        assert set(verdict.answers) == {wanted}
        assert bool((verdict.margin == -torch.inf).all())


def test_four_classes_need_no_luck_with_the_margin_loss():
    net, x, label, radius = linear()
    spread = (1.3 * radius)[:, None]
    verdict = PGD(steps=40, restarts=3)(net, Box(x - spread, x + spread, label), Budget())
    assert verdict.count("violated") >= 28
    below = (0.999 * radius)[:, None]
    assert PGD(steps=40, restarts=3)(net, Box(x - below, x + below, label), Budget()).count("violated") == 0


def test_a_counterexample_lies_in_its_box_and_stands_a_forward_pass():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 5))
    x = torch.rand(40, 1, 8, 8)
    label = net(x).argmax(1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    box = box_around(x, label, 0.08, clip=(0, 1))
    pgd = PGD(steps=30, restarts=2)
    assert isinstance(pgd, Verifier)
    verdict = pgd(net, box, Budget())
    broken = torch.tensor([a == "violated" for a in verdict.answers])
    assert int(broken.sum()) > 5
    found = verdict.counterexample
    assert bool(((found >= box.lower) & (found <= box.upper)).all())
    assert bool(((found >= 0) & (found <= 1)).all())
    assert bool((net(found)[broken].argmax(1) != label[broken]).all())
    again = pgd(net, box, Budget())
    assert again.answers == verdict.answers
    assert torch.equal(again.counterexample, found)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_more_steps_and_restarts_break_more():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(20, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 4))
    x = torch.randn(300, 20)
    box = box_around(x, net(x).argmax(1), 0.1)
    one, many = (PGD(steps=s, restarts=r)(net, box, Budget()).count("violated") for s, r in ((1, 1), (30, 3)))
    assert many > one


def test_any_loss_and_nothing_left_to_spend():
    net, x, label, radius = linear(classes=2)
    spread = (2 * radius)[:, None]
    box = Box(x - spread, x + spread, label)
    away = PGD(loss=lambda out, y: margins(out, y))  # walks where the label wins
    toward = PGD(loss=lambda out, y: -margins(out, y))
    assert away(net, box, Budget()).count("violated") == 0
    assert toward(net, box, Budget()).count("violated") == 30
    assert toward(net, box, Budget(seconds=0)).count("violated") == 0


def test_a_box_of_one_point_is_answered():
    net, x, label, _ = linear()
    wrong = (label + 1) % 4
    for given, wanted in ((label, "holds"), (wrong, "violated")):
        verdict = PGD(steps=3)(net, Box(x, x, given), Budget())
        assert set(verdict.answers) == {wanted}
        torch.testing.assert_close(verdict.margin, margins(net(x), given).detach())


def test_two_inputs_are_refused():
    with pytest.raises(NotApplicable, match="takes 2"):
        PGD()(nn.Bilinear(3, 3, 2), Box(torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([0])), Budget())


def test_boxes():
    from netwright.core.split import Normalise

    normalise = Normalise([0.5, 0.2], [0.25, 0.5], scale=1 / 255)
    raw = torch.randint(0, 256, (6, 2, 3, 3), dtype=torch.uint8)
    box = box_around(normalise(raw), torch.zeros(6).long(), 8 / 255, (0, 1), normalise)
    levels = raw.double()
    for bound, edge in ((box.lower, (levels - 8).clamp(0, 255)), (box.upper, (levels + 8).clamp(0, 255))):
        torch.testing.assert_close(bound, normalise(edge), atol=1e-5, rtol=1e-5)
    with pytest.raises(BadInput, match="valid range"):
        box_around(torch.tensor([[2.0]]), torch.tensor([0]), 0.1, clip=(0, 1))
    with pytest.raises(BadInput, match="negative"):
        box_around(torch.tensor([[2.0]]), torch.tensor([0]), -0.1)


def test_bad_input_is_refused():
    net, x, label, _ = linear()
    good = Box(x - 0.1, x + 0.1, label)
    for box in (
        Box(x + 0.1, x - 0.1, label),
        Box(x - 0.1, x + 0.1, label + 9),
        Box(x - torch.inf, x + 0.1, label),
        Box(x - 0.1, x + 0.1, label[:3]),
        Box(x[:0], x[:0], label[:0]),
    ):
        with pytest.raises(BadInput):
            PGD()(net, box, Budget())
    for pgd in (PGD(loss="square"), PGD(steps=-1), PGD(restarts=0)):
        with pytest.raises(BadInput):
            pgd(net, good, Budget())
    with pytest.raises(NotApplicable, match="two classes"):
        PGD()(nn.Linear(20, 1).double(), good, Budget())
    with pytest.raises(NotApplicable):
        PGD()(nn.Embedding(9, 3), Box(label[:, None], label[:, None], label), Budget())
