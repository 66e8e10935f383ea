import pytest
import torch

import netwright as nw
from netwright.app.report import verdict
from netwright.core.measure.paired import Change

LEVEL = (0.95, 1.05)


def figures(faster, size=10, torch_faster=None, interval=(0.1, 0.9), torch_interval=(0.1, 0.9), **metrics):
    more = {} if torch_faster is None else {"torch_ratio": 1 / torch_faster, "torch_interval": torch_interval}
    return {"onnx_ratio": 1 / faster, "onnx_interval": interval, "bytes": size, **more, **metrics}


def judge(before, after, target, metric="accuracy", **changes):
    moved = changes or {metric: Change(after[metric] - before[metric], -0.02, 0.01, 2000)}
    return verdict.judge(before, after, target, metric, moved)


def test_the_difference_comes_with_its_interval_and_its_examples():
    change = Change(0.008, -0.001, 0.0171, 2000)
    met, sentence = judge(
        figures(1, accuracy=0.95), figures(2.5, 5, 1.8, accuracy=0.958), nw.Target(faster=2, max_drop=0.01),
        accuracy=change,
    )  # fmt: skip
    assert met
    assert sentence == (
        "2.50x faster in ONNX Runtime, 1.80x in PyTorch; 2.00x smaller; "
        "accuracy +0.8 points [-0.1, +1.7] on 2,000 test examples never used before."
    )


def test_examples_that_the_network_may_have_seen_are_not_called_fresh():
    before, after = figures(1, accuracy=0.95), figures(2.5, accuracy=0.95)
    moved = {"accuracy": Change(0.0, -0.01, 0.01, 2000)}
    _, sentence = verdict.judge(before, after, nw.Target(faster=2), "accuracy", moved, fresh=False)
    assert sentence.endswith("on 2,000 test examples that the given network may have seen.")


def test_a_target_missed_by_a_hair_does_not_read_as_met():
    met, sentence = judge(
        figures(1, accuracy=0.95), figures(1.9996, 5, accuracy=0.939996), nw.Target(faster=2, max_drop=0.01)
    )
    assert not met
    assert sentence.startswith("1.9996x faster")
    assert "accuracy -1.0004 points" in sentence


def test_what_is_just_met_does_not_read_as_missed():
    target = nw.Target(faster=2.04, smaller=2.006, max_drop=0.0137)
    met, sentence = judge(figures(1, 2007, accuracy=0.95), figures(2.0404, 1000, accuracy=0.9364), target)
    assert met
    assert "2.04x faster" in sentence
    assert "2.01x smaller" in sentence
    assert "-1.36 points" in sentence, "-1.4 would read as missed"


@pytest.mark.parametrize(
    ("onnx", "interval", "torch_", "torch_interval", "said"),
    [
        (2.5, (0.3, 0.5), 0.5, (1.8, 2.2), "2.50x faster in ONNX Runtime, but 2.00x slower in PyTorch"),
        (0.8, (1.2, 1.3), 2.0, (0.4, 0.6), "1.25x slower in ONNX Runtime, but 2.00x faster in PyTorch"),
        (2.5, (0.3, 0.5), 1.01, LEVEL, "2.50x faster in ONNX Runtime, but no faster in PyTorch"),
        (1.01, LEVEL, 0.5, (1.8, 2.2), "as fast in ONNX Runtime, but 2.00x slower in PyTorch"),
        (0.8, (1.2, 1.3), 0.5, (1.8, 2.2), "1.25x slower in ONNX Runtime, 2.00x in PyTorch"),
    ],
)
def test_the_headline_speaks_of_both_runtimes(onnx, interval, torch_, torch_interval, said):
    after = figures(onnx, 5, torch_, interval, torch_interval, accuracy=0.9)
    _, sentence = judge(figures(1, accuracy=0.9), after, nw.Target(smaller=2))
    assert sentence.startswith(said)


def test_regression_speaks_of_r2_mae_and_rmse():
    before, after = figures(1, r2=0.9, mae=1.0, rmse=2.0), figures(2.5, r2=0.895, mae=1.02, rmse=2.05)
    moved = {
        "r2": Change(-0.005, -0.011, 0.0012, 150), "mae": Change(0.02, -0.01, 0.0512, 150),
        "rmse": Change(0.05, -0.012, 0.1, 150),
    }  # fmt: skip
    _, sentence = judge(before, after, nw.Target(faster=2, max_drop=0.01), "r2", **moved)
    assert (
        "R2 -0.0050 [-0.0110, +0.0012], MAE +0.02 [-0.01, +0.0512], RMSE +0.05 [-0.012, +0.1] on 150 test examples"
        in sentence
    )
    assert "point" not in sentence
    line = verdict.line("after ", after | {"onnx_latency_ms": 0.5}, "r2")
    assert "R2 0.8950   MAE 1.02   RMSE 2.05   0.500 ms" in line


def test_changes_are_of_the_same_examples_before_and_after():
    task = nw.Task.from_arrays(torch.randn(60, 3), torch.arange(60) % 2)
    targets = torch.tensor([0, 0, 1, 1])
    before, after = torch.eye(2)[targets], torch.eye(2)[torch.tensor([0, 1, 1, 1])]
    moved = verdict.changes_of({"before": (before, targets), "after": (after, targets)}, task)
    assert list(moved) == ["accuracy"]
    assert moved["accuracy"].value == -0.25
    assert moved["accuracy"].examples == 4
