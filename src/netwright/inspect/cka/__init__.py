"""Linear CKA between layers, streamed over the data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import in_time
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.finding import Found
from netwright.core.network import as_tuple, call, device_of, evaluating, move
from netwright.core.plural import number_of
from netwright.core.split import LoaderSplit, Split, first, take
from netwright.core.taps import watching
from netwright.inspect.cka.hsic import Exact, Minibatch
from netwright.inspect.parts.units import Layer, layers

EXACT_LIMIT = 1024


@dataclass(frozen=True)
class Cka:
    """How alike two layers represent the same examples, for all pairs: 1 is equal up to rotation and scale.

    Similarity of Neural Network Representations Revisited (Kornblith et al., arXiv 1905.00414): linear CKA,
    ||Y'X||^2 / (||X'X|| ||Y'Y||) of centred activations, maps flattened. (network, data) compares its layers
    with one another, (network, data, other) with the layers of another network on the same examples.

    Memory does not grow with the data. estimator 'exact' accumulates the cross-moments of all features (D, D), D
    the sum of the layers' sizes: the paper's figure, for small layers. 'minibatch' (Do Wide and Deep Networks
    Learn the Same Things?, Nguyen et al., arXiv 2010.15327) averages the unbiased HSIC of groups of `group`
    examples, whose expectation does not depend on the group: for layers of any size. 'auto' is exact where D is
    at most 1024. The two differ by the bias of the first, which vanishes as examples outnumber features.

    layers: places, default all leaves that run, but for dropout and the like. samples: at most so many
    examples, drawn by `seed`. Examples are shuffled, since groups of one class would see no classes; a data set that
    can only be iterated keeps its order, which data["order"] of the finding tells ('shuffled' or 'as given'):
    where it is sorted, trust the exact estimator alone.
    """

    layers: tuple[str, ...] | None = None
    estimator: Literal["auto", "exact", "minibatch"] = "auto"
    samples: int | None = None
    group: int = 16
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group < 4:
            raise BadInput("the unbiased estimator needs groups of at least 4 examples")

    def __call__(self, network: nn.Module, data: Split, other: nn.Module | None = None) -> Found:
        data = data if self.samples is None else take(data, self.samples, self.seed)
        example = first(data, 2)
        networks = [network] if other is None else [network, other]
        found = [layers(n, example, self.layers) for n in networks]
        total = sum(layer.size for side in found for layer in side)
        exact = self.estimator == "exact" or (self.estimator == "auto" and total <= EXACT_LIMIT)
        estimate = Exact() if exact else Minibatch(self.group)
        data, order = _shuffled(data, self.seed)
        seen = _pass(networks, found, data, estimate, self.batch_size, self.seed)
        hsic = estimate.hsic()
        if hsic is None:
            raise BadInput(
                f"CKA needs at least 4 examples in a batch; the data came as {seen} in smaller ones"
            )
        scale = hsic.diagonal().clamp_min(0).sqrt()
        matrix = (hsic / torch.outer(scale, scale)).cpu().numpy()
        matrix[~np.isfinite(matrix)] = np.nan
        rows = [layer.name for layer in found[0]]
        how = {"estimator": "exact" if exact else "minibatch", "order": order}
        if other is None:
            return _within(rows, matrix, seen, how)
        columns = [layer.name for layer in found[1]]
        between = matrix[: len(rows), len(rows) :]
        return _between(rows, columns, between, seen, how)


def _shuffled(data: Split, seed: int) -> tuple[Split, str]:
    """The data in an order of our own, where it can be had. A user's loader keeps the one that it has otherwise."""
    if not isinstance(data, LoaderSplit):
        return data, "shuffled"
    try:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        return data.select(order), "shuffled"
    except NotApplicable:
        return data, "as given"


def _pass(
    networks: Sequence[nn.Module], found: Sequence[list[Layer]], data: Split,
    estimate: Exact | Minibatch, batch_size: int, seed: int,
) -> int:  # fmt: skip
    """Feed the estimator the activations of every layer, all networks on each batch; returns the examples."""
    index: list[dict[tuple[str, int], int]] = []
    count = 0
    for side in found:
        index.append({(layer.place, layer.run): count + i for i, layer in enumerate(side)})
        count += len(side)
    estimate.start(count)
    seen = 0
    for inputs, _ in in_time(data.batches(batch_size, shuffle=True, seed=seed)):
        ran = 0
        for network, places in zip(networks, index, strict=True):
            runs: dict[str, int] = defaultdict(int)

            def observe(place: str, value: Tensor, runs: Any = runs, places: Any = places) -> None:
                nonlocal ran
                at = places.get((place, runs[place]))
                runs[place] += 1
                if at is not None:
                    estimate.see(at, value.flatten(1))
                    ran += 1

            where = list(dict.fromkeys(place for place, _ in places))
            with evaluating(network), torch.no_grad(), watching(network, where, observe):
                call(network, move(inputs, device_of(network)))
        if ran < count:
            raise NotApplicable("some layers do not run on every batch; name those that do")
        estimate.close_batch()
        seen += as_tuple(inputs)[0].shape[0]
        progress.step(seen, len(data), "CKA")
    return seen


def _table(rows: list[str], columns: list[str], matrix: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"layer": a, "other": b, "cka": float(matrix[i, j])}
        for i, a in enumerate(rows)
        for j, b in enumerate(columns)
    ]


def _within(names: list[str], matrix: np.ndarray, seen: int, how: dict[str, str]) -> Found:
    pairs = matrix[np.triu_indices(len(names), 1)]
    adjacent = np.diagonal(matrix, 1)
    figures = {
        "examples": float(seen),
        "layers": float(len(names)),
        "mean_of_neighbours": _mean(adjacent),
        "mean_of_pairs": _mean(pairs),
    }
    least = (
        int(np.nanargmin(np.where(np.isfinite(adjacent), adjacent, np.inf)))
        if np.isfinite(adjacent).any()
        else -1
    )
    if least < 0:
        said = f"No two of {number_of(len(names), 'layer')} can be compared: they never change, or there is one only."
    else:
        said = (
            f"Neighbouring layers are alike to {figures['mean_of_neighbours']:.2f} (CKA, 1 is equal) on average, any "
            f"two to {figures['mean_of_pairs']:.2f}; the largest step is from {names[least]} to {names[least + 1]} "
            f"({adjacent[least]:.2f})."
        )
    return _found(names, names, matrix, said, figures, how)


def _between(
    rows: list[str], columns: list[str], matrix: np.ndarray, seen: int, how: dict[str, str]
) -> Found:  # fmt: skip
    figures = {"examples": float(seen), "mean_of_pairs": _mean(matrix)}
    if rows == columns:
        best = np.nan_to_num(matrix, nan=-1.0).argmax(1)
        figures["mean_of_same_layer"] = _mean(np.diagonal(matrix))
        figures["same_layer_is_most_alike"] = float((best == np.arange(len(rows))).mean())
        said = (
            f"The same layer of the two networks is alike to {figures['mean_of_same_layer']:.2f} (CKA, 1 is equal) on "
            f"average; {100 * figures['same_layer_is_most_alike']:.0f} % of the layers have their own place as the "
            "most alike one."
        )
    else:
        said = f"A layer of one and a layer of the other are alike to {figures['mean_of_pairs']:.2f} on average (CKA)."
    return _found(rows, columns, matrix, said, figures, how)


def _mean(values: np.ndarray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def _found(
    rows: list[str], columns: list[str], matrix: np.ndarray, sentence: str, figures: dict[str, float],
    how: dict[str, str],
) -> Found:  # fmt: skip
    def draw() -> Any:
        import plotly.graph_objects as go

        heat = go.Heatmap(z=matrix, x=columns, y=rows, zmin=0, zmax=1, colorscale="Magma")
        figure = go.Figure(heat)
        figure.update_layout(title="linear CKA", template="plotly_white")
        figure.update_yaxes(autorange="reversed")
        return figure

    data = {"rows": rows, "columns": columns, "matrix": matrix.tolist(), **how}
    return Found("cka", sentence, figures, _table(rows, columns, matrix), draw, data)
