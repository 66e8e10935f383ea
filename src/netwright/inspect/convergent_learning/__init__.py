"""Do networks that were trained apart learn the same units?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import in_time
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.finding import Found
from netwright.core.network import as_tuple, call, device_of, evaluating, move
from netwright.core.split import Split, first, take
from netwright.core.taps import leaves_that_run, watching
from netwright.inspect.convergent_learning.alignment import (
    best_partner,
    block_overlap,
    blocks,
    one_to_one,
    sparse_errors,
    strengths,
)  # fmt: skip
from netwright.inspect.convergent_learning.information import binned, mutual_information
from netwright.inspect.parts.moments import Moments, correlation
from netwright.inspect.parts.units import ACTIVATIONS, Layer, layers, per_unit

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass(frozen=True)
class ConvergentLearning:
    """Align the units of networks of the same shape, layer by layer, and say which features recur.

    Convergent Learning: Do different neural networks learn the same representations? (Li et al., arXiv
    1511.07543). (network, other, data): other is one network or several; each pair is compared. Per unit,
    activations over examples and positions give Pearson correlations and mutual information (10 percentile bins,
    zeros a bin of their own, bias subtracted), within and between networks. Then
    one-to-one: the matching of largest total correlation, beside the semi-matching in which a unit may be taken
    twice (a large gap: a feature that one network lacks), and the same for mutual information;
    one-to-many: each unit of the second network by an L1-penalised linear map of the first's (error against number
    of weights, the whole path by LARS from the correlations instead of the authors' SGD at six penalties);
    many-to-many: spectral clusters of the joint units, and principal angles between each block's subspaces. The
    paper's number of clusters could not be established: `clusters` defaults to a quarter of the units.

    Correlations are streamed over all data; mutual information is of at most `points` rows drawn evenly from it.
    layers: places, default the activation modules that run (else convolutions and linear layers), without the
    output. samples: at most so many examples. Raises NotApplicable for networks of different shapes.
    """

    layers: tuple[str, ...] | None = None
    bins: int = 10
    points: int = 20_000
    weights: tuple[int, ...] = (1, 2, 3, 5, 10)
    clusters: int | None = None
    samples: int | None = None
    batch_size: int = 128
    seed: int = 0

    def __call__(self, network: nn.Module, other: nn.Module | Sequence[nn.Module], data: Split) -> Found:
        networks = [network, other] if isinstance(other, nn.Module) else [network, *other]
        if len(networks) < 2:
            raise BadInput("convergent learning compares two networks or more")
        data = data if self.samples is None else take(data, self.samples, self.seed)
        found = self._layers(networks, data)
        records = self._record(networks, found, data)
        rows, details = [], {}
        for done, (layer, record) in enumerate(in_time(list(zip(found, records, strict=True)))):
            progress.step(done, len(found), f"aligning {layer.name}")
            for i, j in combinations(range(len(networks)), 2):
                row, detail = self._align(record, layer.width, i, j)
                rows.append({"layer": layer.name, "first": i, "second": j, "units": layer.width, **row})
                details[f"{layer.name}: {i} and {j}"] = detail
        return _found(rows, details, records[0].examples)

    def _layers(self, networks: Sequence[nn.Module], data: Split) -> list[Layer]:
        example = first(data, 2)
        found = [layers(n, example, self.layers or _places(n, example) or None) for n in networks]
        shapes = [[(layer.name, layer.shape) for layer in side] for side in found]
        if any(s != shapes[0] for s in shapes):
            raise NotApplicable("convergent learning compares networks of the same shape; these differ")
        return found[0]

    def _record(self, networks: Sequence[nn.Module], found: list[Layer], data: Split) -> list[_Record]:
        """One pass over the data: all networks on each batch, their units side by side."""
        index = {(layer.place, layer.run): i for i, layer in enumerate(found)}
        where = list(dict.fromkeys(layer.place for layer in found))
        records = [
            _Record(layer.width * len(networks), self.points / len(data), self.seed) for layer in found
        ]
        seen = 0
        for inputs, _ in in_time(data.batches(self.batch_size)):
            parts: list[list[Tensor]] = [[] for _ in found]
            for network in networks:
                runs: dict[str, int] = defaultdict(int)

                def observe(place: str, value: Tensor, runs: Any = runs, parts: Any = parts) -> None:
                    at = index.get((place, runs[place]))
                    runs[place] += 1
                    if at is not None:
                        # a copy: the next layer may work in place
                        parts[at].append(per_unit(value, found[at].axis).float().cpu().clone())

                with evaluating(network), torch.no_grad(), watching(network, where, observe):
                    call(network, move(inputs, device_of(network)))
            count = as_tuple(inputs)[0].shape[0]
            for record, part in zip(records, parts, strict=True):
                record.see(torch.cat(part, 1), count)
            seen += count
            progress.step(seen, len(data), "recording units")
        return records

    def _align(self, record: _Record, width: int, i: int, j: int) -> tuple[dict[str, Any], dict[str, Any]]:
        one, two = slice(i * width, (i + 1) * width), slice(j * width, (j + 1) * width)
        corr = record.correlations
        first_, second, between = corr[one, one], corr[two, two], corr[one, two]
        codes = record.codes(self.bins)
        information = mutual_information(codes[:, one], codes[:, two], self.bins).numpy()
        matched, loose = one_to_one(between), best_partner(between)
        pairs, semi = strengths(between, matched), strengths(between, loose)
        by_information = one_to_one(information)
        errors = sparse_errors(first_, between, record.moments.count, self.weights)
        count = self.clusters or max(2, width // 4)
        block = block_overlap(first_, second, between, blocks(between, count, self.seed))
        sizes = np.array([min(b["first"], b["second"]) for b in block], dtype=float)
        weighted = lambda key: (
            float(np.average([b[key] for b in block], weights=sizes)) if block else float("nan")
        )
        alive = second.diagonal() > 0
        row = {
            "dead": int((first_.diagonal() == 0).sum() + (~alive).sum()),
            "matched": float(pairs.mean()),
            "semi_matched": float(semi.mean()),
            "matched_information": float(strengths(information, by_information).mean()),
            "semi_matched_information": float(information.max(1).mean()),
            "same_partner": float((matched == by_information).mean()),
            **{
                f"error_{k}_weights": float(errors[alive, at].mean()) if alive.any() else float("nan")
                for at, k in enumerate(self.weights)
            },
            "subspace_overlap": weighted("subspace"),
            "unit_overlap": weighted("units"),
        }
        detail = {
            "correlation": between.tolist(), "within_first": first_.tolist(), "within_second": second.tolist(),
            "information": information.tolist(), "partner": matched.tolist(), "strength": pairs.tolist(),
            "semi_partner": loose.tolist(), "semi_strength": semi.tolist(),
            "information_partner": by_information.tolist(), "errors": errors.tolist(), "blocks": block,
        }  # fmt: skip
        return row, detail


@dataclass
class _Record:
    """A layer's units of all networks side by side: streamed moments, and a sample of rows for histograms.

    rate: rows per example that the sample takes, on average.
    """

    width: int
    rate: float
    seed: int
    rows: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.moments = Moments(self.width, self.width)
        self.random = torch.Generator().manual_seed(self.seed)
        self.owed = 0.0
        self.examples = 0

    def see(self, rows: Tensor, examples: int) -> None:
        self.moments.see(rows)
        self.examples += examples
        self.owed += self.rate * examples
        take_ = min(int(self.owed), rows.shape[0])
        self.owed -= int(self.owed)
        self.rows.append(rows[torch.randperm(rows.shape[0], generator=self.random)[:take_]])

    @property
    def correlations(self) -> np.ndarray:
        """(width, width)"""
        return correlation(self.moments.covariance).clamp(-1, 1).numpy()

    def codes(self, bins: int) -> Tensor:
        """Bin numbers of the sampled rows (n, width)."""
        return binned(torch.cat(self.rows), bins)


def _places(network: nn.Module, example: tuple[Tensor, ...]) -> list[str]:
    """Activation modules that run; where there are none, weighted layers without the last, which is the output."""
    return leaves_that_run(network, example, ACTIVATIONS) or (
        leaves_that_run(network, example, WEIGHTED)[:-1] or leaves_that_run(network, example)
    )


def _found(rows: list[dict[str, Any]], details: dict[str, Any], examples: int) -> Found:
    names = list(dict.fromkeys(row["layer"] for row in rows))
    mean = lambda key, name: float(np.nanmean([r[key] for r in rows if r["layer"] == name]))
    figures = {"examples": float(examples), "layers": float(len(names))}
    for key in ("matched", "semi_matched", "subspace_overlap", "unit_overlap"):
        figures[key] = float(np.nanmean([r[key] for r in rows]))

    def draw() -> Any:
        import plotly.graph_objects as go

        figure = go.Figure()
        for key in ("matched", "semi_matched", "subspace_overlap", "unit_overlap"):
            values = [mean(key, name) for name in names]
            figure.add_trace(go.Bar(name=key.replace("_", " "), x=names, y=values))
        figure.update_layout(barmode="group", template="plotly_white", yaxis={"title": "mean correlation"})
        return figure

    least = min(names, key=lambda name: mean("matched", name))
    sentence = (
        f"Matched one to one, the networks' units correlate by {figures['matched']:.2f} on average, "
        f"{figures['semi_matched']:.2f} where one may be taken twice; least in {least} ({mean('matched', least):.2f}), "
        f"and blocks of them span subspaces that overlap by {figures['subspace_overlap']:.2f} (1 is the same)."
    )
    return Found("convergent-learning", sentence, figures, rows, draw, details)
