"""Reading VNN-LIB, deciding, and never contradicting the published verdicts of VNN-COMP."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.load import load
from netwright.verify.parts.vnnlib import Case, decide, read_vnnlib, run_onnx
from netwright.verify.pgd import PGD

HEAD = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1", "Y_2"))


def test_reads_boxes_and_disjunctions(tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text(
        HEAD + "; a comment (with parentheses)\n(assert (<= X_0 2.5)) (assert (>= X_0 -1))\n"
        "(assert (or (and (<= X_1 1) (>= X_1 0)) (and (<= 3 X_1) (<= X_1 4e0))))\n"
        "(assert (or (and (>= Y_0 Y_2)) (and (<= Y_1 -3.5) (<= (+ Y_0 (* 2 Y_1)) (- Y_2 1)))))\n"
    )
    cases = read_vnnlib(path)
    assert len(cases) == 4
    assert [c.lower.tolist() for c in cases] == [[-1, 0], [-1, 0], [-1, 3], [-1, 3]]
    assert [c.upper.tolist() for c in cases] == [[2.5, 1], [2.5, 1], [2.5, 4], [2.5, 4]]
    assert cases[0].rows.tolist() == [[-1, 0, 1]]
    assert cases[0].limits.tolist() == [0]
    assert cases[3].rows.tolist() == [[0, 1, 0], [1, 2, -1]]
    assert cases[3].limits.tolist() == [-3.5, -1]
    assert cases[1].met(np.array([0, 0.5]), np.array([0, -4, 0.0]))
    assert not cases[1].met(np.array([0, 1.5]), np.array([0, -4, 0.0]))
    assert not cases[1].met(np.array([0, 0.5]), np.array([9, -4, 0.0]))


@pytest.mark.parametrize(
    "text",
    [
        "(assert (<= X_0 1)",
        "(assert (= X_0 1))",
        "(assert (<= X_0 one))",
        "(assert (<= (* X_0 X_1) 1))",
        "(assert (<= X_9 1))",
    ],
)
def test_what_is_no_vnnlib_is_refused(tmp_path, text):
    path = tmp_path / "p.vnnlib"
    path.write_text(HEAD + text)
    with pytest.raises(BadInput, match="VNN-LIB"):
        read_vnnlib(path)


def test_joined_inputs_are_not_served(tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text(HEAD + "(assert (<= X_0 X_1))")
    with pytest.raises(NotApplicable):
        read_vnnlib(path)
    with pytest.raises(BadInput):
        read_vnnlib(tmp_path / "none.vnnlib")


def test_decides_a_network_that_is_known():
    """y = |x_0| by two relus, on [-1, 2]: its range is [0, 2]."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[2].weight.fill_(1.0)
    case = lambda row, limit: Case(np.array([-1.0]), np.array([2.0]), np.array([[row]]), np.array([limit]))
    # y >= 3.1 and y <= -0.1: bounds of the range are looser than the range itself
    assert decide(net, [case(-1.0, -3.1)], (1,)).answer == "holds"
    assert decide(net, [case(1.0, -0.1)], (1,)).answer == "holds"
    found = decide(net, [case(1.0, -0.1), case(-1.0, -1.5)], (1,))  # y >= 1.5
    assert found.answer == "violated"
    assert abs(found.witness[0]) >= 1.5
    both = Case(np.array([-1.0]), np.array([2.0]), np.array([[1.0], [-1.0]]), np.array([0.4, -0.6]))
    assert decide(net, [both], (1,)).answer in ("holds", "unknown")


def test_the_proofs_box_holds_the_whole_case_and_the_attacks_lies_within(monkeypatch):
    """Limits that single precision cannot hold: the proof takes the next number outside, the attack the one inside."""
    import netwright.verify.parts.vnnlib as module

    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    lower, upper = np.array([0.1, -0.3, 1 / 3, -1e6 - 0.1]), np.array([0.7, 0.2, 0.9, 1e6 + 0.7])
    case = Case(lower, upper, np.ones((1, 1)), np.zeros(1))
    seen = {}
    bounds = module.crown_bounds
    monkeypatch.setattr(module, "crown_bounds", lambda p, box: (seen.update(proof=box), bounds(p, box))[1])

    class Attack:
        def attack(self, network, box, budget):
            seen["attack"] = box
            return box.lower, None

    decide(net, [case], (4,), attack=Attack())
    outside, inside = (np.less_equal, np.greater_equal), (np.greater_equal, np.less_equal)
    for box, sides in ((seen["proof"], outside), (seen["attack"], inside)):
        for ours, exact, side in ((box.lower, lower, sides[0]), (box.upper, upper, sides[1])):
            assert ours.dtype == torch.float32
            assert side(ours.double().numpy().ravel(), exact).all()
            np.testing.assert_allclose(ours.double().numpy().ravel(), exact, rtol=2e-7)  # the very next one


# decided within seconds here; ours may say unknown where a complete verifier knows
INSTANCES = (
    "mnist_fc",
    "reach_prob_density",
    "rl_benchmarks",
    "acasxu_2023",
    "linearizenn",
    "safenlp",
    "tllverifybench",
)


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "known_results.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["benchmark"] in INSTANCES]


@pytest.mark.data("vnncomp")
@pytest.mark.parametrize("benchmark", INSTANCES)
def test_never_contradicts_a_published_verdict(benchmark, needs_data, tmp_path):
    root = needs_data("vnncomp")
    answers = []
    for row in rows_of(root):
        if row["benchmark"] != benchmark:
            continue
        onnx, vnnlib = (
            unpacked(root / benchmark / f"{row[kind]}.gz", tmp_path) for kind in ("onnx", "vnnlib")
        )
        shape = tuple(onnxruntime.InferenceSession(str(onnx)).get_inputs()[0].shape[1:])
        cases = read_vnnlib(vnnlib)
        found = decide(load(onnx), cases, shape, attack=PGD(steps=30, restarts=3))
        answers.append((row["verdict"], found.answer))
        if found.answer == "violated":
            assert row["verdict"] != "unsat"
            y = run_onnx(onnx, found.witness)
            assert any(case.met(found.witness, y, 1e-4) for case in cases)
        if found.answer == "holds":
            assert row["verdict"] != "sat"
    assert answers
    print(benchmark, answers)


def unpacked(path: Path, folder: Path) -> Path:
    target = folder / path.stem
    target.write_bytes(gzip.decompress(path.read_bytes()))
    return target
