"""What each layer holds, does and wastes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import progress
from netwright.core.budget import in_time, time_left
from netwright.core.errors import NotApplicable
from netwright.core.finding import Found
from netwright.core.measure.cost import macs
from netwright.core.network import as_tuple, call, device_of, evaluating, move, parameter_count
from netwright.core.plural import number_of
from netwright.core.split import Split, first, take
from netwright.core.taps import watching
from netwright.inspect.parts.moments import Moments
from netwright.inspect.parts.units import Layer, layers, per_unit
from netwright.inspect.profile.weights import weight_figures

WIDEST = 2048


@dataclass(frozen=True)
class Profile:
    """A row per layer: parameters and multiply-accumulates, its weights, its activations, and how redundant it is.

    Without data (network alone) what the weights tell: Frobenius norm, share of zeros, effective rank of the
    matrix (outputs, inputs), share of near-duplicate filters. With data also, over examples and positions: mean,
    standard deviation, share of zeros, share of dead units (they never change), and of the units' covariance the
    participation ratio (sum of eigenvalues squared over sum of squares) and effective rank (exponential of the
    entropy of the eigenvalues, Roy & Vetterli 2007), both as shares of the number of units, and the share of
    units that follow an earlier one (|correlation| at least `duplicate`).

    Memory does not grow with the data: a matrix (units, units) per layer. Of layers with more than 2,048 units so
    many, drawn by `seed`, are looked at. Filters are compared in blocks, and the rows of an embedding, which are
    its vocabulary, not at all. samples: at most so many examples. Units are channels (see units.py).
    """

    samples: int | None = None
    duplicate: float = 0.95
    batch_size: int = 128
    seed: int = 0

    def __call__(self, network: nn.Module, data: Split | None = None) -> Found:
        rows = {name: weight_figures(module, self.duplicate) for name, module in _weighted(network)}
        if data is None:
            if not rows:
                raise NotApplicable("this network has no parameters; give data to profile its activations")
            table = [{"layer": name or "network", **row} for name, row in rows.items()]
            return _found(table, {"parameters": float(parameter_count(network))})
        data = data if self.samples is None else take(data, self.samples, self.seed)
        found = layers(network, first(data, 2))
        costs = _macs(network, data)
        moments, examples = self._moments(network, found, data)
        table = []
        for layer, seen in zip(found, moments, strict=True):
            row = rows.get(layer.place, {}) if layer.run == 0 else {}
            kind = type(dict(network.named_modules())[layer.place]).__name__
            table.append(
                {
                    "layer": layer.name, "kind": kind, "shape": list(layer.shape),
                    "macs": costs.get((layer.place, layer.run), 0),
                    **row, **(seen.figures(self.duplicate) if time_left() > 0 or not table else {}),
                }
            )  # fmt: skip
        ran = {layer.place for layer in found}
        table += [{"layer": name, **row} for name, row in rows.items() if name not in ran]
        example = tuple(t[:1] for t in first(data, 1))
        total = {
            "parameters": float(parameter_count(network)),
            "macs": float(macs(network, move(example, device_of(network)))),
            "examples": float(examples),
        }
        return _found(table, total)

    def _moments(self, network: nn.Module, found: list[Layer], data: Split) -> tuple[list[Moments], int]:
        index = {(layer.place, layer.run): i for i, layer in enumerate(found)}
        moments = [Moments(layer.width, WIDEST, self.seed) for layer in found]
        seen = 0
        for inputs, _ in in_time(data.batches(self.batch_size)):
            runs: dict[str, int] = defaultdict(int)

            def observe(place: str, value: Tensor, runs: dict[str, int] = runs) -> None:
                at = index.get((place, runs[place]))
                runs[place] += 1
                if at is not None:
                    moments[at].see(per_unit(value, found[at].axis))

            where = list(dict.fromkeys(layer.place for layer in found))
            with evaluating(network), torch.no_grad(), watching(network, where, observe):
                call(network, move(inputs, device_of(network)))
            seen += as_tuple(inputs)[0].shape[0]
            progress.step(seen, len(data), "profile")
        return moments, seen


def _weighted(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules that hold parameters themselves."""
    return [
        (name, module)
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]


def _macs(network: nn.Module, data: Split) -> dict[tuple[str, int], int]:
    """Multiply-accumulates of each run of each leaf, for one example."""
    calls: list[tuple[str, int, nn.Module, Any, Any]] = []
    runs: dict[str, int] = defaultdict(int)

    def hook(name: str) -> Any:
        def record(module: nn.Module, args: Any, kwargs: Any) -> None:
            calls.append((name, runs[name], module, args, kwargs))
            runs[name] += 1

        return record

    leaves = [(n, m) for n, m in network.named_modules() if not any(m.children())]
    handles = [m.register_forward_pre_hook(hook(n), with_kwargs=True) for n, m in leaves]
    example = tuple(t[:1] for t in first(data, 1))
    try:
        with evaluating(network), torch.no_grad():
            call(network, move(example, device_of(network)))
    finally:
        for handle in handles:
            handle.remove()
    # the inputs were taken before the layer ran; a later in-place change alters values, not the count
    return {
        (name, run): macs(module, args)
        for name, run, module, args, kwargs in calls
        if not kwargs and all(isinstance(a, Tensor) for a in args)
    }


def _sentence(table: list[dict[str, Any]], figures: dict[str, float]) -> str:
    """How large the network is, where its work is done, and how much of it is idle or doubled."""
    count = f"{number_of(int(figures['parameters']), 'parameter')} in {number_of(len(table), 'layer')}"
    parts = [count]
    total = figures.get("macs", 0.0)
    if total:
        heavy = max(table, key=lambda row: row.get("macs", 0))
        share = 100 * heavy.get("macs", 0) / total
        parts.append(f"{heavy['layer']} does {share:.0f} % of the multiply-accumulates")
    units = [row for row in table if row.get("units")]
    if units:
        all_ = sum(row["units"] for row in units)
        dead, doubled = (
            sum(row[name] * row["units"] for row in units) / all_ for name in ("dead", "duplicate_units")
        )
        parts.append(
            f"{100 * dead:.1f} % of the units never change and {100 * doubled:.1f} % follow another one"
        )
        parts.append(
            f"a layer's activity takes {100 * figures['mean_participation']:.0f} % of its directions on average"
        )
    else:
        doubled_ = figures.get("mean_duplicate_filters")
        if doubled_ is not None:
            parts.append(f"{100 * doubled_:.1f} % of the filters nearly repeat an earlier one")
    return "; ".join(parts) + "."


def _found(table: list[dict[str, Any]], totals: dict[str, float]) -> Found:
    figures = dict(totals)
    for name in ("dead", "duplicate_units", "participation", "duplicate_filters", "weight_rank"):
        values = [row[name] for row in table if row.get(name) is not None]
        if values:
            figures[f"mean_{name}"] = sum(values) / len(values)

    def draw() -> Any:
        import plotly.graph_objects as go

        names = [row["layer"] for row in table]
        figure = go.Figure()
        shown = (
            "participation",
            "effective_rank",
            "duplicate_units",
            "dead",
            "weight_rank",
            "duplicate_filters",
        )
        for name in shown:
            values = [row.get(name) for row in table]
            if any(v is not None for v in values):
                figure.add_trace(go.Bar(name=name.replace("_", " "), x=names, y=values))
        figure.update_layout(
            barmode="group", template="plotly_white", yaxis={"title": "share", "range": [0, 1]}
        )
        return figure

    return Found("profile", _sentence(table, figures), figures, table, draw)
