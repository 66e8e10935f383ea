"""An epoch of LightGCN on Gowalla, ours beside PyTorch Geometric's, in one run: same triples, batch, layers, width,
objective and optimiser, steps taken in turn. Then both are trained for the stated number of steps and ranked.

    python benchmarks/lightgcn_epoch.py [--steps 12] [--peer-epochs 1] [--epochs 8] [--data lastfm]

PyTorch Geometric is measured twice: as its documentation shows it (edge list, normalised in every layer), and in the
fastest form that it offers (normalised beforehand, a torch CSR adjacency). Needs NETWRIGHT_DATA.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch_geometric.nn import LightGCN as Peer

from netwright.claims.record import machine, revision
from netwright.core.files.checkpoint import atomic
from netwright.domains.graphs.lightgcn import LightGCN, _Step
from netwright.domains.graphs.parts.bpr import Triples, sample
from netwright.domains.graphs.parts.interactions import load
from netwright.domains.graphs.parts.propagation import adjacency, to_torch
from netwright.domains.graphs.parts.ranking import full_ranking

OURS, AS_SHIPPED, AS_CSR = "netwright", "PyG, edge list", "PyG, CSR"
PUBLISHED = {"gowalla": 0.1830}


class PeerStep:
    """PyTorch Geometric's LightGCN, one optimiser step on a batch of triples."""

    def __init__(self, matrix, settings: LightGCN, start: torch.Tensor, csr: bool) -> None:
        graph = adjacency(matrix)
        self.users, self.l2 = matrix.shape[0], settings.l2
        self.model = Peer(sum(matrix.shape), settings.dim, settings.layers, normalize=not csr)
        self.model.embedding.weight.data.copy_(start)
        edges = torch.from_numpy(np.stack(graph.nonzero())).long()
        self.edges = to_torch(graph, torch.device("cpu")) if csr else edges
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)

    def __call__(self, batch: Triples) -> float:
        user, positive, negative = batch.users, batch.positives + self.users, batch.negatives + self.users
        final = self.model.get_embedding(self.edges)
        better = (final[user] * final[positive]).sum(1)
        worse = (final[user] * final[negative]).sum(1)
        # its regulariser has no factor of a half
        loss = self.model.recommendation_loss(
            better, worse, torch.cat([user, positive, negative]), lambda_reg=self.l2 / 2
        )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()

    @torch.no_grad()
    def final(self) -> torch.Tensor:
        return self.model.get_embedding(self.edges)


def batches(matrix, size: int, seed: int):
    """Batches of one epoch after the other."""
    rng = np.random.default_rng(seed)
    while True:
        triples = sample(matrix, matrix.nnz, rng)
        for start in range(0, matrix.nnz, size):
            yield Triples(*(t[start : start + size] for t in triples))


def in_turn(arms: dict[str, Callable], matrix, size: int, steps: int) -> dict[str, list[float]]:
    """Seconds of each step, the arms taking turns on the same batches; the first round is warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    source = batches(matrix, size, seed=1)
    for round_ in range(steps + 1):
        batch = next(source)
        for name, step in arms.items():
            start = time.perf_counter()
            step(batch)
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def curve(step, matrix, test, size: int, per_epoch: int, epochs: float, marks: list[float]) -> list[dict]:
    """Train, and rank at the marks (in epochs); seconds are processor time of the training alone."""
    rows, spent, source = [], 0.0, batches(matrix, size, seed=2)
    todo = {round(m * per_epoch): m for m in marks if m <= epochs}
    for k in range(1, round(epochs * per_epoch) + 1):
        batch = next(source)
        start = time.process_time()
        loss = step(batch)
        spent += time.process_time() - start
        if k in todo:
            final, users = step.final(), matrix.shape[0]
            ranked = full_ranking(lambda u, f=final, n=users: f[torch.from_numpy(u)] @ f[n:].T, matrix, test)
            rows.append(
                {
                    "epoch": todo[k],
                    "seconds": spent,
                    "loss": loss,
                    "recall": ranked.recall,
                    "ndcg": ranked.ndcg,
                }
            )
            print(
                f"  epoch {todo[k]:5.2f}  {spent:7.1f} s  recall@20 {ranked.recall:.4f}  ndcg@20 {ranked.ndcg:.4f}"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="gowalla")
    parser.add_argument("--steps", type=int, default=12, help="timed steps per arm, in turn")
    parser.add_argument("--epochs", type=float, default=8, help="length of our training")
    parser.add_argument(
        "--peer-epochs", type=float, default=1, help="length of the peer's training (CSR form)"
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--out", default=str(Path(__file__).parents[1] / "docs/benchmarks/lightgcn_epoch.json")
    )
    options = parser.parse_args()

    torch.set_num_threads(1)
    train, test = load(options.data)
    settings = LightGCN(lr=options.lr)
    per_epoch = math.ceil(train.nnz / settings.batch_size)

    def fresh(name: str):
        ours = _Step(settings, train)
        return ours if name == OURS else PeerStep(train, settings, ours.weight.detach(), csr=name == AS_CSR)

    arms = {name: fresh(name) for name in (OURS, AS_SHIPPED, AS_CSR)}
    seconds = in_turn(arms, train, settings.batch_size, options.steps)
    apart = {n: float((arms[n].final() - arms[OURS].final()).abs().max()) for n in (AS_SHIPPED, AS_CSR)}
    timing = {}
    for name, values in seconds.items():
        ratios = [v / o for v, o in zip(values, seconds[OURS], strict=True)]
        timing[name] = {
            "implementation": name,
            "seconds an epoch": round(statistics.median(values) * per_epoch, 1),
            "times ours": round(statistics.median(ratios), 2),
            "least": round(min(ratios), 2),
            "most": round(max(ratios), 2),
            "apart": apart.get(name, 0.0),
        }
        print(
            f"{name:16s} {timing[name]['seconds an epoch']:8.1f} s an epoch, {timing[name]['times ours']} x ours"
        )
    arms.clear()

    marks = [0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0]
    curves = {}
    for name, epochs in ((OURS, options.epochs), (AS_CSR, options.peer_epochs)):
        print(name)
        curves[name] = curve(fresh(name), train, test, settings.batch_size, per_epoch, epochs, marks)
    for name, marked in curves.items():
        timing[name] |= {f"recall@20, epoch {m['epoch']:g}": round(m["recall"], 4) for m in marked}
    result = {
        "data": options.data, "users": train.shape[0], "items": train.shape[1], "pairs": train.nnz,
        "users with test items": int((np.diff(test.indptr) > 0).sum()), "steps an epoch": per_epoch,
        "batch": settings.batch_size, "dim": settings.dim, "layers": settings.layers, "learning rate": settings.lr,
        "timed steps": options.steps, "published recall@20 after 1000 epochs": PUBLISHED.get(options.data),
        "processor": machine()["processor"], "threads": 1, "revision": revision(),
        **{n: version(n) for n in ("torch", "torch-geometric")},
        "apart": "largest difference of final embeddings from ours after the timed steps",
        "rows": list(timing.values()),
    }  # fmt: skip
    with atomic(Path(options.out)) as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
