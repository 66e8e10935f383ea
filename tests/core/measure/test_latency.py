"""Timing: itself against itself, wide against narrow, both backends; settings are restored."""

import pytest
import torch
from torch import nn

from netwright.core.errors import BadInput
from netwright.core.measure.latency import fixed_batch, latency
from netwright.core.measure.machine import instruction_sets, processor_name


def mlp(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    for width in (256, 1024):
        torch.onnx.export(
            mlp(width).eval(), (torch.rand(1, 64),), str(folder / f"{width}.onnx"), dynamo=True, verbose=False
        )
    return folder


def test_torch_itself_and_a_wider_one() -> None:
    narrow = mlp(256)
    threads = torch.get_num_threads()
    found = latency([narrow, narrow, mlp(1024)], torch.rand(3, 64), "torch", threads=2, rounds=40)
    assert torch.get_num_threads() == threads
    assert narrow.training
    low, high = found.spread[1]
    assert low <= 1 <= high
    assert found.ratio[0] == 1
    assert 0.8 < found.ratio[1] < 1.25
    assert found.ratio[2] > 1.5
    assert found.interval[2][0] > 1.2
    assert found.faster[2] == pytest.approx(1 / found.ratio[2])


def test_onnx_itself_and_a_wider_one(files) -> None:
    paths = [files / "256.onnx", files / "256.onnx", files / "1024.onnx"]
    found = latency(paths, torch.rand(1, 64), "onnx", rounds=40)
    assert 0.8 < found.ratio[1] < 1.25
    assert found.ratio[2] > 2
    assert found.median_ms[2] > found.median_ms[0] > 0
    assert found.interval[2][0] <= found.ratio[2] <= found.interval[2][1]


def test_seconds_end_it_after_five_rounds() -> None:
    assert latency([mlp(8)], torch.rand(1, 64), "torch", rounds=10_000, seconds=0.0).rounds == 5


def test_a_file_for_one_batch_size_is_timed_with_that_alone(tmp_path) -> None:
    torch.onnx.export(
        mlp(8).eval(), (torch.rand(2, 64),), str(tmp_path / "two.onnx"), dynamo=True, verbose=False
    )  # fmt: skip
    assert fixed_batch(tmp_path / "two.onnx") == 2
    assert latency([tmp_path / "two.onnx"], torch.rand(1, 64), batch=2, rounds=5).rounds == 5
    with pytest.raises(BadInput, match=r"two.onnx takes batches of 2 only.*ask for a batch of 2"):
        latency([tmp_path / "two.onnx"], torch.rand(1, 64), batch=1)


def test_bad_input(tmp_path) -> None:
    x = torch.rand(1, 64)
    for candidates, backend in (([], "torch"), ([mlp(8)], "onnx"), (["a.onnx"], "torch"), ([mlp(8)], "tvm")):
        with pytest.raises(BadInput):
            latency(candidates, x, backend)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(BadInput, match="broken"):
        latency([broken], x)
    with pytest.raises(BadInput, match="no such file"):
        latency([tmp_path / "none.onnx"], x)
    with pytest.raises(BadInput):
        latency([mlp(8)], x, "torch", batch=0)


def test_the_machine_has_a_name() -> None:
    assert processor_name()
    assert all(isinstance(name, str) for name in instruction_sets())
