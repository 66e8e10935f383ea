"""What CKA over all layers costs beside the bare forward passes, and whether its memory grows with the data.

    python benchmarks/cka_overhead.py [--images 10000] [--pairs 3] [--out docs/benchmarks/cka_overhead.json]

A ResNet-20 on images of 32x32, one thread. Bare passes and analysis are timed in turn, A B A B; the figure is the
median of the ratios pair by pair, by the clock and by the processor's time of this process alone, which other
processes disturb less. Memory is the peak of resident memory, each size in a process of its own. The
pictures are drawn batch by batch, so that the data itself takes no memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from netwright.core.network import evaluating, seeded
from netwright.core.split import Batch
from netwright.inspect.cka import Cka
from netwright.models import build
from result import write

SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Drawn:
    """A split of noise pictures: one batch, drawn once, given again and again."""

    count: int

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int, *, shuffle: bool = False, seed: int = 0) -> Iterator[Batch]:
        pictures = torch.randn(size, *SHAPE, generator=torch.Generator().manual_seed(seed))
        for start in range(0, self.count, size):
            rows = min(size, self.count - start)
            yield pictures[:rows], torch.zeros(rows, dtype=torch.long)

    def select(self, indices: Tensor) -> Drawn:
        return Drawn(len(indices))


def subject() -> nn.Module:
    with seeded(0):
        return build("resnet", SHAPE, 10).eval()


def bare(network: nn.Module, data: Drawn, batch_size: int) -> None:
    with evaluating(network), torch.no_grad():
        for x, _ in data.batches(batch_size):
            network(x)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of this process."""
    clock, own = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - own


def peak(images: int) -> float:
    """Peak resident memory in MB of a process that analyses so many images."""
    command = [sys.executable, __file__, "--peak", str(images)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/cka_overhead.json"))
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, cka = subject(), Cka()
    if options.peak:
        cka(network, Drawn(options.peak))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    data, warm = Drawn(options.images), Drawn(2 * cka.batch_size)
    bare(network, warm, cka.batch_size)
    cka(network, warm)
    pairs = [
        (timed(lambda: bare(network, data, cka.batch_size)), timed(lambda: cka(network, data)))
        for _ in range(options.pairs)
    ]
    ratios = [with_cka[0] / plain[0] for plain, with_cka in pairs]
    own = [with_cka[1] / plain[1] for plain, with_cka in pairs]
    sizes = [options.images // 10, options.images // 2, options.images]
    result = {
        "what": "CKA over all layers of a ResNet-20 (32x32) beside bare forward passes, one thread",
        "images": options.images,
        "layers": len(cka(network, Drawn(8)).data["rows"]),
        "seconds_bare": [plain[0] for plain, _ in pairs],
        "seconds_cka": [with_cka[0] for _, with_cka in pairs],
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "process_ratio": statistics.median(own),
        "process_ratio_spread": [min(own), max(own)],
        "peak_megabytes": {str(n): round(peak(n), 1) for n in sizes},
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
