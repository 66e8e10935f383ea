"""CROWN bounds of random networks, ours beside auto_LiRPA's, in one run and in turn: values and seconds.

    python benchmarks/crown_bounds.py [--rounds 5] [--out docs/benchmarks]

auto_LiRPA is no dependency (its release pins an older torch): put its source tree on PYTHONPATH, with the packages
appdirs, graphviz, ninja and pyyaml and, where torchvision is missing, an empty module of that name.
Both compute in float32 and bound every intermediate layer backward with CROWN's adaptive slopes. Ours also meets them
with intervals, so that its bounds may be tighter; they are looser where auto_LiRPA's are tighter for another reason.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from netwright.claims.record import machine, revision
from netwright.core.files.checkpoint import atomic
from netwright.models import build
from netwright.verify.parts.bounds import Interval, crown_bounds, lowest, read

BATCH, RADIUS = 4, 0.01


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Networks that both read, with batch norm statistics that are no identity."""
    cnn = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    mlp = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    resnet = build("resnet", (1, 12, 12), 10, depth=8, width=4)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return {"mlp": (mlp, (1, 28, 28)), "cnn": (cnn, (1, 28, 28)), "resnet": (resnet, (1, 12, 12))}


def ours(network: nn.Module, x: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    program, box = read(network, x), Interval(x - RADIUS, x + RADIUS)
    eye = torch.eye(program.output.size)
    rows = torch.cat([eye, -eye])[None].expand(len(x), -1, -1)

    @torch.no_grad()
    def bound() -> tuple[Tensor, Tensor]:
        found = lowest(program, program.output, rows, crown_bounds(program, box))
        return found[:, : len(eye)], -found[:, len(eye) :]

    return bound


def theirs(network: nn.Module, x: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    model = BoundedModule(network, x, verbose=False)
    given = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), eps=RADIUS))
    return lambda: model.compute_bounds(x=(given,), method="CROWN")


def measure(network: nn.Module, shape: tuple[int, ...], rounds: int) -> dict[str, float]:
    x = torch.rand(BATCH, *shape)
    arms = {"ours": ours(network, x), "theirs": theirs(network, x)}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(rounds + 1):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    (low, high), (peer_low, peer_high) = (tuple(t.detach() for t in arm()) for arm in arms.values())
    width = (peer_high - peer_low).mean()
    differences = torch.cat([(low - peer_low).flatten(), (peer_high - high).flatten()]) / width
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return {
        "mean_width": width.item(),
        "tighter_at_most": differences.max().clamp_min(0).item(),
        "looser_at_most": (-differences).max().clamp_min(0).item(),
        "ours_seconds": statistics.median(seconds["ours"]),
        "theirs_seconds": statistics.median(seconds["theirs"]),
        "times_as_fast": statistics.median(ratios),
        "times_as_fast_range": [min(ratios), max(ratios)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    try:
        import auto_LiRPA
    except ImportError as error:
        sys.exit(f"skipped: auto_LiRPA cannot be imported ({error}); see the head of this file")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {name: measure(net.eval(), shape, options.rounds) for name, (net, shape) in networks().items()}
    for name, row in found.items():
        print(name, json.dumps({k: v if isinstance(v, list) else round(v, 6) for k, v in row.items()}))
    with atomic(options.out / "crown_bounds.json") as path:
        result = {
            "what": f"output bounds of {BATCH} examples at radius {RADIUS}; differences as fractions of the mean width",
            "peer": f"auto_LiRPA {auto_LiRPA.__version__}", "rounds": options.rounds, "networks": found,
            "machine": machine(), "torch": torch.__version__, "revision": revision(),
        }  # fmt: skip
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
