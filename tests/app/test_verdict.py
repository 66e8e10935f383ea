import netwright as nw
from netwright.app import verdict


def test_a_target_missed_by_a_hair_does_not_read_as_met():
    before, after = {"accuracy": 0.95, "bytes": 10}, {"accuracy": 0.9396, "bytes": 5, "onnx_ratio": 1 / 1.996}
    met, sentence = verdict.judge(before, after, nw.Target(faster=2, max_drop=0.01), "accuracy", 100)
    assert not met
    assert sentence.startswith("2.00x faster, 2.00x smaller, 1.04 points less accurate")
