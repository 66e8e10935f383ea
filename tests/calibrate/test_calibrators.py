"""Each calibrator against planted parameters, a peer or a closed form."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor, nn

from netwright.calibrate.isotonic_calibration import Isotonic, IsotonicCalibration, log_odds
from netwright.calibrate.matrix_scaling import MatrixScaling
from netwright.calibrate.temperature_scaling import TemperatureScaling
from netwright.calibrate.vector_scaling import VectorScaling
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.metrics import ece, outputs_of, score
from netwright.core.task import Task

CLASSES = 4
ALL = [TemperatureScaling(), VectorScaling(), MatrixScaling(), IsotonicCalibration()]
ids = lambda method: type(method).__name__


def planted(distort, count: int = 20_000, seed: int = 0) -> Task:
    """Inputs are distorted logits; the classes are drawn from the softmax of the true ones."""
    generator = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(3 * count, CLASSES, generator=generator)
    y = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    x = distort(truth)
    part = lambda i: (x[i * count : (i + 1) * count], y[i * count : (i + 1) * count])
    return Task.from_arrays(*part(0), val=part(1), test=part(2), name="planted")


def layer(network: nn.Module) -> nn.Module:
    return network.calibration  # type: ignore[return-value]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_recovers_what_was_planted(temperature: float) -> None:
    task = planted(lambda z: z * temperature)
    network = TemperatureScaling()(nn.Identity(), task, Budget())
    assert float(layer(network).temperature) == pytest.approx(temperature, rel=0.03)


def test_temperature_is_the_optimum_of_the_likelihood() -> None:
    task = planted(lambda z: z * 2.2, count=1000)
    found = float(layer(TemperatureScaling()(nn.Identity(), task, Budget())).temperature)
    z, y = outputs_of(nn.Identity(), task.val)
    t = torch.tensor(found, dtype=torch.float64, requires_grad=True)
    nn.functional.cross_entropy(z.double() / t, y).backward()
    assert abs(float(t.grad)) < 1e-6


def test_temperature_keeps_every_prediction_and_serves_logits_of_any_size() -> None:
    for size in (1e-4, 1e5):
        task = planted(lambda z, size=size: z * size, count=2000)
        network = TemperatureScaling()(nn.Identity(), task, Budget())
        assert float(layer(network).temperature) == pytest.approx(size, rel=0.1)
        x = torch.cat([b for b, _ in task.test.batches(500)])
        assert torch.equal(network(x).argmax(1), x.argmax(1))


def test_vector_recovers_what_was_planted() -> None:
    weight, bias = torch.tensor([0.5, 1.0, 2.0, 1.5]), torch.tensor([1.3, 0.5, 1.1, 1.1])
    task = planted(lambda z: (z - bias) / weight)
    found = layer(VectorScaling()(nn.Identity(), task, Budget()))
    assert torch.allclose(found.weight, weight, atol=0.06)
    assert torch.allclose(found.bias, bias - bias.mean(), atol=0.06)


def test_matrix_recovers_what_was_planted() -> None:
    mix = torch.eye(CLASSES) + 0.4 * torch.roll(torch.eye(CLASSES), 1, 0)
    task = planted(lambda z: torch.linalg.solve(mix, z.T).T)
    found = layer(MatrixScaling(strengths=(1e-6,))(nn.Identity(), task, Budget()))
    # a vector added to every row leaves the probabilities as they are
    centred = lambda m: m - m.mean(0)
    assert torch.allclose(centred(found.weight), centred(mix), atol=0.08)


def test_matrix_regularisation_is_the_odir_objective() -> None:
    """At the optimum the gradient of the stated objective vanishes."""
    task = planted(lambda z: z.roll(1, 1) + 0.5 * z, count=300)
    strength = 0.05
    found = layer(MatrixScaling(strengths=(strength,))(nn.Identity(), task, Budget()))
    z, y = outputs_of(nn.Identity(), task.val)
    w = found.weight.double().requires_grad_(True)
    b = found.bias.double().requires_grad_(True)
    off = w - torch.diag(torch.diagonal(w))
    penalty = off.pow(2).sum() / (CLASSES * (CLASSES - 1)) + b.pow(2).sum() / CLASSES
    (nn.functional.cross_entropy(z.double() @ w.T + b, y) + strength * penalty).backward()
    assert float(w.grad.abs().max()) < 1e-5
    assert float(b.grad.abs().max()) < 1e-5


def test_matrix_chooses_strong_regularisation_where_the_truth_is_diagonal() -> None:
    task = planted(lambda z: z * 2, count=120)
    z, y = outputs_of(nn.Identity(), task.val)
    method = MatrixScaling(strengths=(1e-6, 1.0))
    assert method.choose(z.double(), y, Budget().start()) == 1.0


def _scikit_learn(p_fit: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    curves = [
        IsotonicRegression(out_of_bounds="clip").fit(p_fit[:, k], y == k).predict(p[:, k])
        for k in range(CLASSES)
    ]
    return np.stack(curves, 1)


def test_isotonic_equals_scikit_learn() -> None:
    task = planted(lambda z: z * 3, count=3000)
    network = IsotonicCalibration()(nn.Identity(), task, Budget())
    z, y = outputs_of(nn.Identity(), task.val)
    x, _ = outputs_of(nn.Identity(), task.test)
    p_val = z.double().softmax(1).numpy()
    # equal where it was fitted
    expected = _scikit_learn(p_val, y.numpy(), p_val)
    found = network(z).softmax(1).numpy()
    assert np.abs(found - expected / expected.sum(1, keepdims=True)).max() < 3e-4
    # close elsewhere: only the interpolation within a step differs
    expected = _scikit_learn(p_val, y.numpy(), x.double().softmax(1).numpy())
    found = network(x).softmax(1).numpy()
    assert np.abs(found - expected / expected.sum(1, keepdims=True)).mean() < 1e-3


def test_log_odds_of_certain_predictions() -> None:
    z = 40 * torch.randn(500, CLASSES, generator=torch.Generator().manual_seed(0))
    exact = z.double()
    others = torch.stack(
        [exact[:, [j for j in range(CLASSES) if j != k]].logsumexp(1) for k in range(CLASSES)], 1
    )
    inside = (exact - others).abs() < 60
    assert torch.allclose(log_odds(z).double()[inside], (exact - others)[inside], atol=1e-4)


def test_isotonic_orders_what_the_curves_leave_equal() -> None:
    """Curves that say the same for every class must not hand all predictions to class 0."""
    curves = [(np.array([-1.0, 1.0]), np.array([-2.0, -2.0]))] * CLASSES
    z = torch.randn(50, CLASSES, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Isotonic(curves)(z).argmax(1), z.argmax(1))


def test_isotonic_keeps_a_class_that_validation_lacks() -> None:
    task = planted(lambda z: z, count=500)
    x, y = (torch.cat(parts) for parts in zip(*task.val.batches(500), strict=True))
    lacking = Task.from_arrays(
        *(torch.cat(p) for p in zip(*task.train.batches(500), strict=True)),
        val=(x[y != 2], y[y != 2]), test=(x, y),
    )  # fmt: skip
    curve = layer(IsotonicCalibration()(nn.Identity(), lacking, Budget()))
    odds = torch.linspace(-5, 5, 11)
    kept = np.interp(odds, curve.knots[2], curve.values[2])
    assert np.abs(kept - nn.functional.logsigmoid(odds).numpy()).max() < 0.01


@pytest.mark.parametrize("method", ALL, ids=ids)
def test_calibration_error_falls_and_the_network_is_not_touched(method) -> None:
    task = planted(lambda z: 3 * z)
    network = nn.Linear(CLASSES, CLASSES)
    with torch.no_grad():
        network.weight.copy_(torch.eye(CLASSES))
        network.bias.zero_()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    calibrated = method(network, task, Budget())
    assert network.training
    assert not calibrated.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    worse = ece(*_probabilities(network, task))
    better = ece(*_probabilities(calibrated, task))
    assert worse > 0.1
    assert better < 0.02
    assert score(*outputs_of(calibrated, task.test), "classification")["ece"] == pytest.approx(better)


def _probabilities(network: nn.Module, task: Task) -> tuple[Tensor, Tensor]:
    outputs, targets = outputs_of(network, task.test)
    return outputs.double().softmax(1), targets


@pytest.mark.parametrize("method", ALL, ids=ids)
def test_onnx_gives_the_same(method, tmp_path) -> None:
    task = planted(lambda z: 2 * z, count=400)
    calibrated = method(nn.Sequential(nn.Linear(CLASSES, CLASSES)), task, Budget())
    x = next(iter(task.test.batches(64)))[0]
    path = tmp_path / "calibrated.onnx"
    torch.onnx.export(
        calibrated, (x[:2],), path, dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.abs(found - calibrated(x).detach().numpy()).max() < 1e-4


class TwoInputs(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


@pytest.mark.parametrize("method", ALL, ids=ids)
def test_several_inputs(method) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(900, CLASSES), torch.randn(900, CLASSES)
    y = torch.multinomial((a + b).softmax(1), 1)[:, 0]
    task = Task.from_arrays((a, 2 * a + 3 * b), y)
    calibrated = method(TwoInputs(), task, Budget())
    assert calibrated(*task.example(5)).shape == (5, CLASSES)


@pytest.mark.parametrize("method", ALL, ids=ids)
def test_only_validation_data_is_read(method) -> None:
    """Other training and test examples give the same calibration."""
    one, other = planted(lambda z: 2 * z, 500, seed=1), planted(lambda z: 5 * z, 500, seed=2)
    mixed = Task.from_arrays(
        *(torch.cat(p) for p in zip(*other.train.batches(500), strict=True)),
        val=tuple(torch.cat(p) for p in zip(*one.val.batches(500), strict=True)),
        test=tuple(torch.cat(p) for p in zip(*other.test.batches(500), strict=True)),
    )
    first = layer(method(nn.Identity(), one, Budget())).state_dict()
    second = layer(method(nn.Identity(), mixed, Budget())).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("method", ALL, ids=ids)
def test_refusals(method) -> None:
    x, y = torch.randn(100, 3), torch.arange(100.0)
    with pytest.raises(NotApplicable, match="classification"):
        method(nn.Linear(3, 1), Task.from_arrays(x, y), Budget())
    task = planted(lambda z: z, 100)
    with pytest.raises(NotApplicable, match="outputs"):
        method(nn.Linear(CLASSES, CLASSES - 1), task, Budget())
    if not isinstance(method, IsotonicCalibration):
        labels = torch.arange(200) % CLASSES
        right = nn.functional.one_hot(labels, CLASSES).float()
        with pytest.raises(NotApplicable, match="classified right"):
            method(nn.Identity(), Task.from_arrays(right, labels), Budget())


def test_a_spent_budget_leaves_the_identity() -> None:
    task = planted(lambda z: 2 * z, 200)
    x = task.example(9)[0]
    for method in (VectorScaling(), MatrixScaling()):
        assert torch.allclose(method(nn.Identity(), task, Budget(seconds=0))(x), x, atol=1e-6)
