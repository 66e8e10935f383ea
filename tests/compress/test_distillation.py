"""The method `distillation`: its loss by hand and by the paper, its students, what it charges."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.compress.distillation import Distillation
from netwright.compress.parts.soft_targets import SoftTargets
from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.fit import Fit
from netwright.core.metrics import evaluate
from netwright.core.network import parameter_count
from netwright.core.task import Task
from netwright.data import task as named_task
from netwright.models import build


@pytest.fixture(scope="module")
def digits():
    task = named_task("digits")
    torch.manual_seed(0)
    network = build("cnn", task.input_shape, task.outputs, widths=(16, 32))
    Fit(epochs=8, lr=3e-3)(network, task)
    return network, task


def by_hand(out: Tensor, taught: Tensor, y: Tensor, alpha: float, t: float) -> Tensor:
    p = torch.softmax(taught.double() / t, 1)
    kl = (p * (p.log() - torch.log_softmax(out.double() / t, 1))).sum(1).mean()
    return (1 - alpha) * F.cross_entropy(out.double(), y) + alpha * t**2 * kl


def test_loss_by_hand(digits) -> None:
    _, task = digits
    out, taught, y = torch.randn(6, 10), 3 * torch.randn(6, 10), torch.randint(0, 10, (6,))
    expected = by_hand(out, taught, y, 0.9, 4.0)
    found = SoftTargets(temperature=4.0, alpha=0.9).loss(out, taught, y, task)
    assert torch.allclose(found.double(), expected, rtol=1e-5)
    assert SoftTargets(alpha=1.0).loss(taught, taught, y, task).abs() < 1e-5


def test_while_training_the_loss_is_of_the_student_by_the_teacher(digits) -> None:
    teacher, task = digits
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = next(iter(task.train.batches(30)))
    meter = Budget().start()
    found = SoftTargets(3.0, 0.7).by(teacher, task, meter)(student, x, y)
    with torch.no_grad():
        expected = by_hand(student(x), teacher(x), y, 0.7, 3.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert meter.samples == 30


def test_gradient_at_high_temperature_is_that_of_matching_logits(digits) -> None:
    """Equation 4 of the paper: (z - v) / (N T^2) for zero-mean logits, so T^2 times it is (z - v) / N."""
    _, task = digits
    taught = torch.randn(1, 10, dtype=torch.float64)
    taught -= taught.mean()
    out = torch.randn(1, 10, dtype=torch.float64)
    out = (out - out.mean()).requires_grad_()
    SoftTargets(temperature=500.0, alpha=1.0).loss(out, taught, torch.tensor([0]), task).backward()
    assert torch.allclose(out.grad, (out.detach() - taught) / 10, atol=2e-3)


def test_other_kinds_of_task() -> None:
    x, labels = torch.randn(60, 5), (torch.randn(60, 3) > 0).long()
    many = Task.from_arrays(x, labels)
    taught = torch.randn(4, 3)
    assert SoftTargets(alpha=1.0).loss(taught, taught, labels[:4], many).abs() < 1e-5
    assert SoftTargets(alpha=1.0).loss(taught + 1, taught, labels[:4], many) > 0.01
    out, p = taught.double() + torch.randn(4, 3).double(), torch.sigmoid(taught.double() / 3)
    q = torch.sigmoid(out / 3)
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()  # of each label's choice of two
    task_loss = F.binary_cross_entropy_with_logits(out, labels[:4].double())
    found = SoftTargets(alpha=0.4, temperature=3.0).loss(out.float(), taught, labels[:4], many)
    assert float(found) == pytest.approx(float(0.6 * task_loss + 0.4 * 9 * divergence.mean()), rel=1e-4)
    values = Task.from_arrays(x, torch.randn(60))
    assert SoftTargets(alpha=1.0).loss(taught + 1, taught, torch.randn(4, 3), values) == pytest.approx(1.0)


def test_a_student_agrees_with_its_teacher_where_labels_say_otherwise(digits) -> None:
    """With all labels permuted, only the teacher can have taught the right classes."""
    teacher, task = digits
    x, y = next(iter(task.train.batches(10_000)))
    wrong = Task.from_arrays(x, (y + 1) % 10, val=(x[:50], y[:50]), test=(x[:50], y[:50]))
    student = Distillation(alpha=1.0, epochs=6, batch_size=32, lr=5e-3)(teacher, wrong, Budget())
    assert evaluate(student, task)["accuracy"] > 0.6
    assert not student.training


def test_students(digits) -> None:
    network, task = digits
    half = Distillation().new_student(network, task)
    assert parameter_count(half) < 0.5 * parameter_count(network)
    assert type(half) is type(network)
    larger = Distillation(ratio=0.3).new_student(network, task)
    assert parameter_count(half) < parameter_count(larger) < parameter_count(network)
    named = Distillation(student="dscnn", size=2000).new_student(network, task)
    assert 1300 < parameter_count(named) < 3000
    half_of_it = build("mlp", task.input_shape, task.outputs, size=parameter_count(network) // 2)
    assert parameter_count(
        Distillation(student="mlp", ratio=0.5).new_student(network, task)
    ) == parameter_count(half_of_it)
    quarter = build("mlp", task.input_shape, task.outputs, size=parameter_count(network) // 4)
    assert parameter_count(Distillation(student="mlp").new_student(network, task)) == parameter_count(quarter)
    given = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = given[1].weight.detach().clone()
    trained = Distillation(student=given, epochs=1)(network, task, Budget())
    assert torch.equal(given[1].weight, before)
    assert not torch.equal(trained[1].weight, before)
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert isinstance(Distillation().new_student(narrow, task), nn.Module)  # no width: a CNN instead
    table = Task.from_arrays(torch.randn(40, 6), torch.arange(40) % 2)
    with pytest.raises(NotApplicable):
        Distillation().new_student(nn.Linear(6, 2), table)
    with pytest.raises(BadInput, match="match"):
        Distillation(student=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))(network, task, Budget())
    with pytest.raises(BadInput, match="alpha"):
        Distillation(alpha=2.0)(network, task, Budget())


def test_a_student_has_the_outputs_of_its_teacher_and_the_weights_of_its_seed(digits) -> None:
    network, task = digits
    knows_more = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    student = Distillation(student="mlp").new_student(knows_more, task)
    assert student(task.example(2)[0]).shape == (2, 12)
    for settings in ({}, {"student": "mlp"}):
        one, same, other = (
            torch.cat(
                [
                    p.flatten()
                    for p in Distillation(**settings, seed=s).new_student(network, task).parameters()
                ]
            )
            for s in (3, 3, 4)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_the_teacher_is_charged_for_and_unchanged(digits) -> None:
    network, task = digits
    before = {k: v.clone() for k, v in network.state_dict().items()}
    seen = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            seen.append(len(x))
            return self.layer(x.flatten(1))

    Distillation(student=Counting(), batch_size=64)(network, task, Budget(samples=1280))
    assert sum(seen) <= 700  # half of the samples are the teacher's
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_the_teacher_runs_as_in_use_and_the_student_is_trained_as_asked(digits, monkeypatch) -> None:
    _, task = digits
    modes, fits, original = [], [], Fit.__call__

    class Watched(nn.Sequential):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    monkeypatch.setattr(
        Fit, "__call__", lambda self, *a, **k: (fits.append(self), original(self, *a, **k))[1]
    )
    teacher = Watched(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    settings = {
        "epochs": 0.1,
        "batch_size": 50,
        "optimiser": "sgd",
        "lr": 0.03,
        "weight_decay": 0.2,
        "seed": 5,
    }
    Distillation(student=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), **settings)(teacher, task, Budget())
    assert modes
    assert not any(modes)
    assert teacher.training
    assert {name: getattr(fits[0], name) for name in settings} == settings
