"""dycl: compiled networks against the networks themselves, way by way, and refusals that name the line."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from tests.compress import hard
from tests.compress.branching import EarlyExit, Generating, Skipping
from torch import Tensor, fx, nn

from netwright.compress.dycl import Dycl, compiled, equivalence, read_folder, write_folder
from netwright.compress.dycl.compile import exact
from netwright.compress.dycl.equivalence import compared
from netwright.core.budget import Budget, within
from netwright.core.errors import BadInput, NetwrightError, NotApplicable, OutOfTime
from netwright.core.network import seeded
from netwright.core.task import Task


def rows(width: int, count: int = 40, seed: int = 1) -> list[Tensor]:
    return list(torch.randn(count, 1, width, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture(scope="module")
def early():
    with seeded(0):
        network = EarlyExit(depth=2, threshold=0.7).eval()
    return network, compiled(network, (torch.randn(1, 6),))


@pytest.fixture(scope="module")
def skipping():
    with seeded(2):
        network = Skipping(depth=2).eval()
    return network, compiled(network, (torch.randn(1, 8),))


@pytest.fixture(scope="module")
def generating():
    with seeded(5):
        network = Generating(longest=3).eval()
    return network, compiled(network, (torch.tensor([[1]]),))


def ran(staged: nn.Module, x: Tensor) -> int:
    """How many parts an input takes."""
    return len(staged.way(x))


def test_an_early_exit_decides_as_the_network_and_runs_no_more_than_it_needs(early):
    network, staged = early
    found = equivalence(network, staged, rows(6))
    assert found.eta == 0
    assert found.delta < math.log(1e-5)
    assert found.examples == 40
    sure = [bool((4 * network.heads[0](first(network, x))).softmax(-1).amax() > 0.7) for x in rows(6)]
    assert 5 < sum(sure) < 35, "both ways are taken"
    assert [ran(staged, x) for x in rows(6)] == [1 if s else 2 for s in sure]
    assert len(staged.plan.parts) == 2
    assert staged.plan.decisions == 1


def first(network: EarlyExit, x: Tensor) -> Tensor:
    x = network.stem(x)
    return torch.relu(network.blocks[0](x)) + x


def test_skipped_layers_do_not_run_and_both_ways_go_on_as_one(skipping):
    network, staged = skipping
    found = equivalence(network, staged, rows(8))
    assert found.eta == 0
    assert found.relative < 1e-5
    assert {ran(staged, x) for x in rows(8)} >= {3, 4}
    # a gate, a layer and the next gate, ..., a head: not one copy of the rest for each way through
    assert len(staged.plan.parts) == 5
    assert staged.plan.decisions == 2


def test_a_generating_loop_stops_where_the_network_does(generating):
    network, staged = generating
    inputs = [torch.tensor([[symbol]]) for symbol in range(6)]
    found = equivalence(network, staged, inputs)
    assert found.eta == 0
    assert found.delta == pytest.approx(math.log(1e-10))
    lengths = {network(x)[1] for x in inputs}
    assert len(lengths) > 1, "some stop early"
    for x in inputs:
        assert staged(x)[1] == network(x)[1]
    # the state of the first turn is a constant, and the symbols so far are no business of the cell
    assert "zeros" not in str(staged.plan.blocks[0].given)


def test_a_batch_decides_row_by_row(early):
    network, staged = early
    x = torch.cat(rows(6))
    torch.testing.assert_close(staged(x), torch.cat([network(row) for row in rows(6)]), rtol=1e-4, atol=1e-5)


def test_a_folder_gives_the_network_again_and_holds_no_code(early, tmp_path):
    _, staged = early
    files = write_folder(staged, tmp_path / "net")
    assert {f.suffix for f in files} == {".json", ".txt", ".onnx"}
    assert sorted(f.name for f in files) == sorted(p.name for p in (tmp_path / "net").iterdir())
    again = read_folder(tmp_path / "net")
    assert again.plan == staged.plan
    for x in rows(6):
        assert torch.equal(again(x), staged(x))
    text = (tmp_path / "net" / "program.txt").read_text()
    assert "branching.py, line" in text
    assert "if " in text
    with pytest.raises(NotApplicable, match="gradients"):
        again(rows(6)[0].requires_grad_())


def test_copies_pickles_and_gradients(early):
    network, staged = early
    x = rows(6)[3]
    for other in (copy.deepcopy(staged), pickle.loads(pickle.dumps(staged))):
        assert torch.equal(other(x), staged(x))
    given = x.clone().requires_grad_()
    staged(given).sum().backward()
    expected = x.clone().requires_grad_()
    network(expected).sum().backward()
    torch.testing.assert_close(given.grad, expected.grad)
    assert sum(p.numel() for p in staged.parameters()) == sum(p.numel() for p in network.parameters())


def test_the_transform_measures_what_it_made():
    with seeded(0):
        network = EarlyExit(depth=2, threshold=0.7).eval()
    x = torch.cat(rows(6, 30))
    y = torch.arange(30) % 3
    task = Task.from_arrays((x,), y, val=((x,), y), test=((x,), y), name="rows", meaning="table")
    made = Dycl(examples=8)(network, task, Budget())
    assert made.plan.decisions == 1
    assert made(x).shape == (30, 3)
    with within(0.0), pytest.raises(OutOfTime):
        compiled(network, (x[:1],))
    assert (made.threads, Dycl()) == (1, Dycl(turns=256, examples=32, threads=1))


def test_a_network_that_differs_is_not_handed_out(monkeypatch):
    x, y = torch.cat(rows(6, 12)), torch.arange(12) % 3
    task = Task.from_arrays((x,), y, val=((x,), y), test=((x,), y), name="rows", meaning="table")
    wrong = nn.Linear(6, 3)
    monkeypatch.setattr("netwright.compress.dycl.compiled", lambda *_: wrong)
    with pytest.raises(NotApplicable, match=r"other outputs .* of 12 decisions differ"):
        Dycl(examples=20)(nn.Linear(6, 3), task, Budget())


@pytest.mark.parametrize("kind", hard.SERVED, ids=lambda kind: kind.__name__)
def test_awkward_methods_are_followed(kind):
    """Every way of each, against the network itself."""
    with seeded(0):
        network = kind().eval()
    staged = compiled(network, (torch.randn(1, 4),))
    taken = set()
    for x in [*rows(4, 12, seed=3), *(3 * t for t in rows(4, 12, seed=4))]:
        try:
            expected = network(x.clone())
        except (ValueError, IndexError):
            with pytest.raises(NetwrightError, match=r"hard\.py, line"):
                staged(x)
            taken.add("error")
            continue
        difference, scale, same = compared(expected, staged(x))
        assert same
        assert difference <= 1e-5 * max(1.0, scale)
        taken.add(ran(staged, x) if staged.plan.decisions else "one")
    assert staged.plan.decisions == kind.decisions
    assert " ".join(",".join(block.taken) for block in staged.plan.blocks if block.taken) == kind.taken


@pytest.mark.parametrize(("kind", "reason"), hard.REFUSED.items(), ids=lambda k: getattr(k, "__name__", ""))
def test_what_cannot_be_compiled_is_refused_with_its_line(kind, reason):
    with pytest.raises(NotApplicable, match=r"hard\.py, line \d+ \(.*\): .*" + reason):
        compiled(kind().eval(), (torch.ones(1, 4),), turns=20)


class Tie(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x[0, 0].item() > 0.1 else -x


def test_numbers_are_compared_in_double_precision_as_python_does():
    staged = compiled(Tie(), (torch.ones(1, 4),))
    for value in (0.1, 0.0999999, 0.2):  # the float next to 0.1 is larger than the double
        x = torch.full((1, 4), value)
        assert torch.equal(staged(x), Tie()(x))
    assert (staged(torch.full((1, 4), 0.1)) > 0).all()


def test_the_older_exporter_is_not_asked_to_divide_downwards():
    traced = lambda function: fx.GraphModule({}, fx.Tracer().trace(function))
    inner = traced(lambda x: x // 2)
    graph = fx.Graph()
    graph.output(graph.call_module("inner", (graph.placeholder("x"),)))
    for module in (
        inner,
        traced(lambda x: torch.floor_divide(x, 2)),
        traced(lambda x: x.div(2, rounding_mode="floor")),
        fx.GraphModule({"inner": inner}, graph),
    ):
        assert not exact(module)
    for module in (traced(lambda x: x / 2 % 3), traced(lambda x: x.floor() + x.div(2)), nn.Linear(2, 2)):
        assert exact(module)


def test_a_network_without_decisions_is_one_file_for_any_batch():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    staged = compiled(network, (torch.ones(1, 4),))
    assert staged.plan.parts == ("network.onnx",)
    assert staged.plan.batch is None
    x = torch.randn(5, 4)
    torch.testing.assert_close(staged(x), network(x))
    with pytest.raises(BadInput, match="takes 1 inputs, not 2"):
        staged(x, x)


def test_the_batch_of_the_example_is_the_only_one():
    staged = compiled(Tie(), (torch.ones(2, 4),))
    assert torch.equal(staged(-torch.ones(2, 4)), torch.ones(2, 4))
    with pytest.raises(BadInput, match="batches of 2, not of 3"):
        staged(torch.ones(3, 4))


def test_what_differs_is_seen():
    a = torch.tensor([[1.0, 2.0]])
    assert compared(a, a + 0.5) == (0.5, 2.0, True)
    assert not compared(a, a.flip(1))[2]
    assert compared(a, a[0])[0] == math.inf
    assert not compared((a, 3), (a, 4))[2]
    assert not compared(torch.tensor([3]), torch.tensor([4]))[2]
    assert compared((a, a), (a,))[0] == math.inf
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        other.load_state_dict({k: -v for k, v in network.state_dict().items()})
    found = equivalence(network, other, [torch.randn(1, 2) for _ in range(4)])
    assert found.eta == 1.0
    assert "4 of 4 decisions differ" in str(found)
