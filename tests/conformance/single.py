"""Checks of methods that do not start from a network: searchers, models, estimators, simulators."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from tests.conformance.cases import of_domain
from tests.conformance.checks import built, twice
from tests.conformance.networks import subject

from netwright.core.budget import Budget
from netwright.core.catalogue import Method
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.export import export
from netwright.core.network import parameter_count, seeded
from netwright.core.task import Task


class Toy:
    """Two objectives that pull apart, over 4 x 5 x 6 choices; the front is known by listing them all."""

    genes: Mapping[str, int] = {"a": 4, "b": 5, "c": 6}

    def __init__(self) -> None:
        self.asked = 0

    def measure(self, choice: Mapping[str, int], task: Task) -> Mapping[str, float]:
        self.asked += 1
        a, b, c = choice["a"], choice["b"], choice["c"]
        return {"error": (3 - a) ** 2 + 0.5 * (4 - b) + abs(c - 2), "cost": 1.0 + a + 2 * b + 0.1 * c}


def searcher(row: Method) -> None:
    _, task = subject("bare")
    spaces = [Toy(), Toy()]
    found, again = twice(lambda: list(built(row)(spaces.pop(), task, Budget())))
    assert found
    assert [c.choice for c in found] == [c.choice for c in again]
    points = [tuple(c.objectives.values()) for c in found]
    for candidate in found:
        assert candidate.choice.keys() == Toy.genes.keys()
        assert all(0 <= candidate.choice[g] < n for g, n in Toy.genes.items())
        assert dict(Toy().measure(candidate.choice, task)) == dict(candidate.objectives)
    for p in points:
        assert not any(all(a <= b for a, b in zip(q, p, strict=True)) and q != p for q in points)
    space = Toy()
    built(row)(space, task, Budget(seconds=0))
    assert space.asked <= 2, "a spent budget was not honoured"


def model(row: Method, folder: Path) -> None:
    kind = built(row)
    served = 0
    for shape in ((1, 8, 8), (3, 32, 32), (2, 17, 12), (7, 5), (20,)):
        try:
            with seeded(0):
                network = kind.build(shape, 4, 30_000)
        except NotApplicable:
            continue
        served += 1
        assert 0.6 < parameter_count(network) / 30_000 < 1.5
        x = torch.randn(3, *shape)
        out = network(x)
        assert out.shape == (3, 4)
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        if served == 1:
            written = export(network.eval(), (x,), folder / "model.onnx")
            assert written.dynamic_batch
    assert served, "it serves none of the shapes"
    assert parameter_count(kind.build((3, 32, 32), 4)) > 0
    try:
        kind.build((3, 32, 32), 4, 1)
    except BadInput:
        return
    raise AssertionError("a network of one parameter was promised")


def estimator(row: Method) -> None:
    domain = of_domain(row)
    x, asked = domain.data(), domain.asked
    method = built(row)
    same = clone(method)
    assert same.get_params() == method.get_params()
    try:
        method.predict(asked(x))
    except (NotFittedError, AttributeError):
        pass
    else:
        raise AssertionError("it predicts without having been fitted")

    def fitted() -> Any:
        new = clone(method)
        assert new.fit(x, budget=Budget(epochs=3)) is new
        return new.predict(asked(x))

    before = x.copy()
    first, second = twice(fitted)
    assert abs(before - x).max() == 0, "the data that was given has changed"
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)


def simulator(row: Method) -> None:
    first, second = twice(lambda: numbers(built(row)()))
    assert first
    for key, values in first.items():
        assert np.isfinite(values).all(), f"'{key}' is not finite"
        assert np.array_equal(values, second[key]), f"'{key}' is not repeatable"


def numbers(result: Any) -> dict[str, np.ndarray]:
    """The numeric fields of a simulator's result."""
    held = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else dict(result)
    return {
        key: np.asarray(value, dtype=float)
        for key, value in held.items()
        if isinstance(value, (np.ndarray, torch.Tensor, int, float))
        and not (isinstance(value, float) and math.isnan(value))
    }
