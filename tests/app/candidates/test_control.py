import pytest
import torch
from torch import nn

import netwright as nw
from netwright.app.candidates import choose, control, plan
from netwright.app.compare import compare
from netwright.app.report.document import left_out
from netwright.core.budget import Budget, Target
from netwright.core.errors import NotApplicable
from netwright.core.metrics import evaluate


@pytest.fixture(scope="module")
def task():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    return nw.Task.from_arrays(x, (x[:, 0] + x[:, 1] > 0).long() + (x[:, 2] > 1).long(), name="planes")


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3)).eval()


def test_the_given_network_learns_on_and_stays_as_it_was(task):
    given = build()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    after = control.trained_on(given, task, Budget(epochs=5), seed=0)
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in before.items())
    assert evaluate(after, task)["nll"] < evaluate(given, task)["nll"]
    assert type(after) is type(given)


def test_nothing_to_train_is_not_applicable(task):
    with pytest.raises(NotApplicable, match="can be trained"):
        control.trained_on(nn.Identity(), task, Budget(), 0)


def test_compare_compress_has_the_control_as_a_row_of_its_own(task):
    comparison = compare(
        "compress", build(), task, Budget(epochs=3), methods=["magnitude-pruning"], as_it_is=True
    )
    row = comparison.control
    assert (row["status"], row["label"]) == ("done", "the given network, trained on")
    assert row["key"] not in {r["key"] for r in comparison.rows}
    assert row["nll"] < comparison.original["nll"]
    assert "accuracy_change" in row
    assert row["bytes"] == pytest.approx(comparison.original["bytes"], rel=0.05)
    assert "the given network, trained on" in comparison._repr_html_()
    assert comparison.to_json()["control"]["slug"] == control.CONTROL
    assert comparison.best is None or comparison.best.row["slug"] == "magnitude-pruning"
    none = compare("compress", build(), task, Budget(epochs=3), methods=["static-int8"], as_it_is=True)
    assert none.control is None, "nothing trains here"


def test_improve_gives_the_control_one_share_of_the_budget():
    methods = ["taylor-pruning", "static-int8"]
    with_ = plan.first_round(Target(faster=2), methods, Budget(seconds=90), 0)
    assert [t.slug for t in with_].count(control.CONTROL) == 1
    training = [t for t in with_ if t.slug != "static-int8"]
    assert len({t.budget.seconds for t in training}) == 1
    assert training[0].slug == control.CONTROL, "before what may use up the time"
    assert sum(t.budget.seconds for t in training) <= plan.rounds(90)[0].share * 90 + 1e-6
    tiny = plan.first_round(Target(faster=2), methods, Budget(seconds=12), 0)
    assert control.CONTROL not in {t.slug for t in tiny}
    assert left_out([{"slug": t.slug} for t in tiny]) == [control.LEFT_OUT]
    assert left_out([{"slug": t.slug} for t in with_]) == []
    assert left_out([{"slug": "static-int8"}]) == []


def figures(slug, change, **more):
    return {
        "key": slug, "slug": slug, "status": "done", "accuracy": 0.9 + change, "accuracy_change": change,
        "accuracy_change_low": change - 0.01, "accuracy_change_high": change + 0.01,
        "onnx_latency_ms": 0.4, "bytes": 100.0, "faster": 2.5, **more,
    }  # fmt: skip


def test_the_control_is_never_chosen():
    rows = [figures("taylor-pruning", -0.001), figures(control.CONTROL, 0.05, onnx_latency_ms=0.1)]
    original = {"accuracy": 0.9, "bytes": 100.0}
    choice = choose.choose(rows, original, Target(max_drop=0.01), "accuracy", 1000)
    assert choice.row["slug"] == "taylor-pruning"
    assert choice.why[control.CONTROL] == control.WHY


@pytest.mark.parametrize(
    ("alone", "winner", "said"),
    [(0.02, 0.008, True), (0.02, 0.012, False), (0.004, 0.008, False), (-0.01, -0.02, False)],
)
def test_a_gain_that_training_alone_brings_is_said(alone, winner, said):
    text = control.remark(figures(control.CONTROL, alone), figures("taylor-pruning", winner), "accuracy")
    assert bool(text) is said
    if said:
        assert (
            "by +2.0 points [+1.0, +3.0] on validation data, the chosen one by +0.8 points [-0.2, +1.8]"
            in text
        )
    assert control.remark(None, figures("taylor-pruning", winner), "accuracy") == ""
