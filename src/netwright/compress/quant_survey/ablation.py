"""What each setting of the survey is worth on the owner's network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from netwright.compress.parts.equalise import equalise
from netwright.compress.parts.int8_graph import functional
from netwright.compress.parts.weights import simulated, size, weights
from netwright.compress.quant_survey.method import QuantSurvey
from netwright.core import progress
from netwright.core.budget import Budget, in_time
from netwright.core.errors import NotApplicable
from netwright.core.finding import Found
from netwright.core.network import as_tuple, clone, evaluating
from netwright.core.split import Split, first, take
from netwright.core.weights.fold import fold

# one thing changes from line to line
SETTINGS: dict[str, dict[str, Any]] = {
    "tensor, min-max": {"scheme": "tensor", "range": "minmax"},
    "tensor, min-max, equalised": {"scheme": "tensor", "range": "minmax", "equalise": True},
    "channel, min-max": {"scheme": "channel", "range": "minmax"},
    "channel, percentile": {"scheme": "channel", "range": "percentile"},
    "channel, entropy": {"scheme": "channel", "range": "entropy"},
    "channel, least squares": {"scheme": "channel"},
    "channel, least squares, affine": {"scheme": "channel", "symmetric": False},
    "channel, least squares, bias corrected": {"scheme": "channel", "correct": True},
    "channel, least squares, AdaRound": {"scheme": "channel", "correct": True, "rounding": "adaround"},
    "group, least squares": {},
    "group, least squares, AdaRound": {"correct": True, "rounding": "adaround"},
    "powers of two, channel": {"scheme": "channel", "grid": "powers"},
    "codebook, channel": {"scheme": "channel", "grid": "codebook"},
}  # fmt: skip


@dataclass(frozen=True)
class Ablation:
    """Quantise the network's weights in every setting of SETTINGS, at each number of bits, and compare its outputs.

    error: squared distance of the outputs from the float network's, over their variance. same: share of examples with
    the same largest output. bytes: of the weights. `examples` of the data calibrate, as many others judge; where there
    are fewer, each gets half. steps: of AdaRound. The time that is set around it (`within`) ends it after a
    setting. Raises NotApplicable for networks without weights to quantise.
    """

    bits: tuple[int, ...] = (8, 4, 3, 2)
    group: int = 32
    examples: int = 256
    steps: int = 300
    seed: int = 0

    def __call__(self, network: nn.Module, data: Split) -> Found:
        count = min(self.examples, max(1, len(data) // 2))
        drawn = first(take(data, 2 * count, self.seed), 2 * count)
        known, judged = tuple(t[:count] for t in drawn), tuple(t[-count:] for t in drawn)
        plain = clone(network).cpu()
        modules = {False: functional(plain, known)}
        level = fold(plain, known)
        equalise(level, known)
        modules[True] = functional(level, known)
        found = weights(modules[False])
        if not found:
            raise NotApplicable(
                "there is no convolution, linear layer, embedding or recurrent layer to quantise"
            )
        whole = _outputs(modules[False], judged)
        rows = []
        cases = [(bits, name) for bits in self.bits for name in SETTINGS]
        for bits, name in in_time(cases):
            settings = {"rounding": "nearest", "correct": False, **SETTINGS[name]}
            method = QuantSurvey(
                bits=bits, ends=bits, group=self.group, steps=self.steps, seed=self.seed, **settings
            )
            rows.append({"bits": bits, "setting": name, **_score(method, modules, known, judged, whole)})
            progress.step(len(rows), len(cases), f"{name}, {bits} bits")
        return _found(rows)


def _score(
    method: QuantSurvey, modules: dict[bool, fx.GraphModule], known: Any, judged: Any, whole: Tensor
) -> dict[str, float]:
    module = modules[method.equalise]
    found = weights(module)
    walked = method.walk(module, method.uniform(found), known, Budget().start())
    outputs = _outputs(simulated(clone(module), walked.rounded, walked.biases), judged)
    spread = (whole - whole.mean(0)).pow(2).sum().clamp_min(1e-30)
    kept = sum(size(w.shape, method.quantiser(method.bits)) for w in found)
    return {
        "error": float((outputs - whole).pow(2).sum() / spread),
        "same": float((outputs.flatten(1).argmax(1) == whole.flatten(1).argmax(1)).double().mean()),
        "bytes": kept,
    }


def _outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    with evaluating(network), torch.no_grad():
        result = network(*as_tuple(inputs))
    if not isinstance(result, Tensor):
        raise NotApplicable("this network gives several results; the table compares one")
    return result


def _found(rows: list[dict[str, Any]]) -> Found:
    figures = {f"error, {row['setting']}, {row['bits']} bits": row["error"] for row in rows}
    parts = []
    for bits in dict.fromkeys(row["bits"] for row in rows):
        best = min((row for row in rows if row["bits"] == bits), key=lambda row: row["error"])
        parts.append(
            f"at {bits} bits {best['setting']} is nearest, the same decision in "
            f"{100 * best['same']:.1f} % of examples"
        )
    sentence = f"{'; '.join(parts)}."
    return Found("quant-survey", sentence[0].upper() + sentence[1:], figures, rows, lambda: _draw(rows))


def _draw(rows: list[dict[str, Any]]) -> Any:
    """Error over bits, a line for each setting."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == name]
        figure.add_trace(
            go.Scatter(
                name=name, x=[r["bits"] for r in mine], y=[r["error"] for r in mine], mode="lines+markers"
            )
        )
    figure.update_layout(
        template="plotly_white", xaxis={"title": "bits"}, yaxis={"title": "error", "type": "log"}
    )
    return figure
