"""Let the Quantum Creep In: swapping layers of a CNN for simulated quantum ones (arXiv 2409.17583)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.compress.quantum_creep.layers import Constrained, QuantumLinear, Quanvolution
from netwright.core.budget import Budget, time_left
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.finding import Found
from netwright.core.fit import Fit
from netwright.core.metrics import outputs_of
from netwright.core.network import call, device_of, evaluating, move, parameter_count, seeded
from netwright.core.plural import number_of
from netwright.core.split import Split, first
from netwright.core.taps import leaves_that_run
from netwright.core.task import Task
from netwright.core.weights.fold import swap
from netwright.core.weights.initialise import reinitialised

LEVELS = ("level 0", "level 1", "constrained", "level 2")


@dataclass(frozen=True)
class QuantumCreep:
    """What it costs to swap a network's layers for simulated quantum ones of the same shape, one kind after the other.

    Level 0: the network's own architecture. Level 1: every convolution of up to 4x4 a flipped quanvolution. Level 2:
    the last linear layer a circuit of re-uploaded data, too (see `quantum_creep.layers`). Beside level 1 stands
    'constrained': plain convolutions whose kernels are held to what a quanvolution can be, symmetric, positive
    semi-definite, of rank 2, which tells how much of the cost is the constraint's. All are trained from new weights on
    two thirds of the data, for equally many steps, and judged on the rest; where the time set around it ends sooner,
    each gets an equal share of it. The given network's weights play no part.

    Classification by a network with such convolutions; NotApplicable otherwise. A linear layer of I inputs
    takes n qubits with 4^n >= I and matrices of 2^n in every example, so that wide ones are slow (7 qubits above 4,096
    inputs). Nothing becomes smaller or faster by this: it shows what each swap costs.

    Angles are real here, so that gates are unitary; the authors' code keeps them as complex parameters. Their optimiser
    and epochs are not known; here AdamW.
    """

    epochs: float = 10
    batch_size: int = 32
    lr: float = 1e-2
    steps: int = 10
    seed: int = 0

    def __call__(self, network: nn.Module, data: Split) -> Found:
        outputs = _outputs(network, data)
        task = _task(data, outputs, self.seed)
        networks = creep(network, first(data, 2), self.steps, self.seed)
        rows = []
        for i, (level, made) in enumerate(networks.items()):
            share = Budget(
                seconds=max(0.0, time_left()) / (len(networks) - i) if time_left() < math.inf else None
            )
            fit = Fit(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr, seed=self.seed)
            fit(made, task, share)
            given, targets = outputs_of(made, task.test)
            right = (given.argmax(1) == targets).double().mean().item()
            rows.append(
                {"level": level, "accuracy": right, "parameters": parameter_count(made), **_replaced(made)}
            )
        return _found(rows, {"trained on": len(task.train), "judged by": len(task.test)})


def creep(
    network: nn.Module, example: tuple[Tensor, ...], steps: int = 10, seed: int = 0
) -> dict[str, nn.Module]:
    """The network at every level (`LEVELS`), each with new weights; without level 2 where it has no linear layer."""
    fresh = reinitialised(network, seed)
    run = leaves_that_run(network, example, (nn.Conv2d, nn.Linear))
    convolutions = {name for name in run if _serves(network.get_submodule(name))}
    linear = [name for name in run if isinstance(network.get_submodule(name), nn.Linear)][-1:]
    if not convolutions:
        raise NotApplicable("this network has no convolution of up to 4x4 that a quanvolution could replace")

    def replaced(names: set[str], kind: Any) -> nn.Module:
        with seeded(seed):
            like = device_of(fresh)
            return swap(fresh, lambda name, _: name in names, lambda _, module: kind(module).to(like))

    made = {"level 0": fresh, "level 1": replaced(convolutions, Quanvolution)}
    made["constrained"] = replaced(convolutions, Constrained)
    if linear:
        kind = lambda m: QuantumLinear(m, steps) if isinstance(m, nn.Linear) else Quanvolution(m)
        made["level 2"] = replaced({*convolutions, *linear}, kind)
    return made


def _serves(module: nn.Module) -> bool:
    if type(module) is not nn.Conv2d:
        return False
    try:
        Quanvolution(module)
    except NotApplicable:
        return False
    return True


def _replaced(network: nn.Module) -> dict[str, int]:
    linear = [m for m in network.modules() if isinstance(m, QuantumLinear)]
    return {
        "quanvolutions": sum(type(m) is Quanvolution for m in network.modules()),
        "qubits": max((m.qubits for m in linear), default=0),
    }


def _outputs(network: nn.Module, data: Split) -> int:
    inputs, targets = next(iter(data.batches(2)))
    with evaluating(network), torch.no_grad():
        given = call(network, move(inputs, device_of(network)))
    if targets.is_floating_point() or targets.dim() != 1 or given.dim() != 2:
        raise NotApplicable("this compares accuracies: it needs a network that tells classes apart")
    return given.shape[1]


def _task(data: Split, outputs: int, seed: int) -> Task:
    """Two thirds of the data to train on, the rest to judge by."""
    if len(data) < 3:
        raise BadInput(f"{number_of(len(data), 'example')} cannot be divided: give 3 or more")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    some, rest = data.select(order[: 2 * len(data) // 3]), data.select(order[2 * len(data) // 3 :])
    return Task("creep", "classification", some, rest, rest, outputs)


def _found(rows: list[dict[str, Any]], counts: dict[str, int]) -> Found:
    by = {row["level"]: row for row in rows}
    right = {level: row["accuracy"] for level, row in by.items()}
    figures = {f"accuracy, {level}": value for level, value in right.items()}
    figures |= {f"parameters, {level}": float(row["parameters"]) for level, row in by.items()}
    figures["lost at level 1"] = right["level 0"] - right["level 1"]
    figures["lost by the constraint alone"] = right["level 0"] - right["constrained"]
    points = lambda value: f"{100 * value:.1f} points"
    said = (
        f"Quanvolutions in place of {number_of(by['level 1']['quanvolutions'], 'convolution')} cost "
        f"{points(figures['lost at level 1'])} of accuracy ({100 * right['level 0']:.1f} to "
        f"{100 * right['level 1']:.1f} %), plain convolutions constrained alike "
        f"{points(figures['lost by the constraint alone'])}"
    )
    if "level 2" in by:
        figures["lost at level 2"] = right["level 0"] - right["level 2"]
        said += (
            f"; with the last linear layer in {by['level 2']['qubits']} qubits too it is "
            f"{points(figures['lost at level 2'])}"
        )

    def draw() -> Any:
        import plotly.graph_objects as go

        figure = go.Figure(go.Bar(x=list(right), y=[100 * value for value in right.values()]))
        figure.update_layout(
            title="accuracy as layers are swapped for quantum ones", yaxis_title="%", template="plotly_white"
        )
        return figure

    return Found("quantum-creep", f"{said}.", figures, rows, draw, counts)
