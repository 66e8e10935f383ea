"""What Kornblith et al. say of CKA, measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from netwright.claims.beds.trained import fresh, testbed
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean
from netwright.core.split import Split
from netwright.core.taps import stream
from netwright.inspect.cka import Cka

LAYERS = tuple(f"relu{i}" for i in range(1, 9))
ABOVE = tuple(Part(f"identified: CKA less {other}", "above") for other in ("linear regression", "CCA"))
CLAIM = Claim(
    slug="cka",
    paper=(
        "of ten CNNs that differ in their seed, linear CKA finds the corresponding layer in 99.3 % of cases, linear "
        "regression in 45.4 %, CCA (mean R^2) in 10.6 % (10 layers, CIFAR-10)"
    ),
    setting=(
        "digits, CNN of 8 convolutions with 16 channels, 15 epochs, 5 networks that differ in their seed; the layer of "
        "the other network with the largest similarity on the 1,257 training images, from both sides of 10 pairs"
    ),
    rule=Rule(
        holds=(*ABOVE, Part("share identified by CKA", "at least", 0.9)),
        mixed=(ABOVE,),
        bed=(Part("share identified by CKA, untrained", "at most", 0.9),),
    ),
)
NETWORKS = 5


@dataclass(frozen=True)
class Seen:
    """A layer's centred activations (N, d) and an orthonormal basis (N, rank) of the span of its features."""

    activations: Tensor
    basis: Tensor


def see(network: nn.Module, data: Split) -> list[Seen]:
    """All activations of the layers at once, for the baselines."""
    parts = [
        [batch[name].flatten(1).double().cpu() for name in LAYERS] for batch in stream(network, data, LAYERS)
    ]
    found = []
    for layer in zip(*parts, strict=True):
        x = torch.cat(layer)
        x = x - x.mean(0)
        left, values, _ = torch.linalg.svd(x, full_matrices=False)
        found.append(Seen(x, left[:, values > 1e-6 * values[0]]))
    return found


def regression(x: Seen, y: Seen) -> float:
    """R^2 of predicting x from y."""
    return ((y.basis.T @ x.activations).norm() ** 2 / x.activations.norm() ** 2).item()


def correlation_analysis(x: Seen, y: Seen) -> float:
    """Mean squared canonical correlation."""
    return ((y.basis.T @ x.basis).norm() ** 2 / min(x.basis.shape[1], y.basis.shape[1])).item()


def matrix(a: list[Seen], b: list[Seen], similarity: Callable[[Seen, Seen], float]) -> Tensor:
    return torch.tensor([[similarity(x, y) for y in b] for x in a])


def identified(similarity: Tensor) -> float:
    """Share of layers whose most alike layer of the other network is their own, from both sides."""
    at = torch.arange(len(similarity))
    hits = [(s.argmax(1) == at).double().mean() for s in (similarity, similarity.T)]
    return float(sum(hits) / 2)


def off_by(similarity: Tensor) -> float:
    """Mean distance in layers between the most alike layer and the right one, from both sides."""
    at = torch.arange(len(similarity))
    return float(sum((s.argmax(1) - at).abs().double().mean() for s in (similarity, similarity.T)) / 2)


def measure(scale: Scale) -> list[dict[str, Any]]:
    count = max(NETWORKS, len(scale.seeds))
    trained = [testbed("digits-cnn-deep", seed) for seed in range(count)]
    data = trained[0][1].train
    networks = [network.to(scale.device) for network, _ in trained]
    untrained = [fresh("digits-cnn-deep", seed)[0].to(scale.device) for seed in range(count)]
    seen = [see(network, data) for network in networks]
    rows: list[dict[str, Any]] = []
    for pair, (i, j) in enumerate(combinations(range(count), 2)):
        cka = lambda a, b, way: torch.tensor(Cka(layers=LAYERS, estimator=way)(a, data, b).data["matrix"])
        tables = {
            "CKA": cka(networks[i], networks[j], "minibatch"),
            "CKA, exact": cka(networks[i], networks[j], "exact"),
            "CKA, untrained": cka(untrained[i], untrained[j], "minibatch"),
            "linear regression": matrix(seen[i], seen[j], regression),
            "CCA": matrix(seen[i], seen[j], correlation_analysis),
        }
        rows += [
            {"arm": arm, "seed": pair, "identified": identified(t), "off_by": off_by(t)}
            for arm, t in tables.items()
        ]
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    others = ("linear regression", "CCA", "CKA, untrained")
    share = {arm: mean(rows, arm, "identified") for arm in ("CKA", "CKA, exact", *others)}
    listed = [
        f"{arm} {100 * value:.0f} % (off by {mean(rows, arm, 'off_by'):.1f} layers)"
        for arm, value in share.items()
    ]
    pairs = len({row["seed"] for row in rows})
    return Measured(
        f"layers identified: {', '.join(listed)}.",
        {
            **differences(rows, "CKA", others, ("identified",)),
            "share identified by CKA": share["CKA"],
        },
        bed={"share identified by CKA, untrained": share["CKA, untrained"]},
        notes=(
            "A row is a pair of networks; pairs share networks, so the intervals are somewhat too narrow. 'CKA' is the "
            "streamed unbiased estimator; the exact one shows what streaming costs, which is little. The network is "
            "deeper than digits need: from the third layer on all are maps of 2x2 cells whose similarities differ by "
            "a few hundredths, which is where layers are taken for their neighbours."
        ),
        seeds=tuple(range(next(n for n in range(2, pairs + 2) if n * (n - 1) // 2 == pairs))),
    )
