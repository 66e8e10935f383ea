"""Weights of 4 and 3 bits beside torchao and hqq, at equal bytes.

Three converged ResNets on Fashion-MNIST and three transformers on sst2. Every weight matrix and kernel goes through
each tool's own quantiser and comes back as floats into the same network; activations stay float. torchao:
IntxWeightOnlyConfig, symmetric, groups of 32 with a scale of 16 bits. hqq: groups of 64 with a scale and a zero of 16
bits each, its optimiser on. Ours: QuantSurvey, symmetric, groups of 36 (kernels of 3 by 3 fill them) or 32 with a scale
of 16 bits, least squares; once to the nearest, which like both peers needs no data, and once with AdaRound and
corrected biases on 256 training examples. error: squared distance of the logits from the float network's over their
variance, on test data.

    python benchmarks/beside_torchao_hqq.py        needs: pip install --no-deps torchao hqq; data in NETWRIGHT_DATA
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netwright.claims.beds.trained import testbed
from netwright.claims.statistics import difference, mean
from netwright.compress.parts.int8 import prepared
from netwright.compress.parts.int8_graph import attribute
from netwright.compress.parts.weights import Weight, packed, weights
from netwright.compress.quant_survey import QuantSurvey
from netwright.core.budget import Budget
from netwright.core.errors import NetwrightError
from netwright.core.metrics import outputs_of, score
from netwright.core.network import clone
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.bits import PackedBits
from result import write

BEDS = {"fashion": 36, "sst2": 32}  # bed: our groups
BITS, SEEDS, JUDGED = (4, 3), (0, 1, 2), 2_000
PEERS = ("torchao", "hqq")
OURS = ("netwright, nearest", "netwright, AdaRound")
OUT = Path(__file__).parents[1] / "docs" / "benchmarks" / "weight_only.json"

Peer = Callable[[Tensor, int], tuple[Tensor, float]]
"""(weight, bits) -> the weight as it comes back, the bytes that it takes."""


def torchao(weight: Tensor, bits: int) -> tuple[Tensor, float]:
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    rows = weight.reshape(_rows(weight, 32), -1)
    layer = nn.Linear(rows.shape[1], rows.shape[0], bias=False)
    layer.weight = nn.Parameter(rows.clone())
    quantize_(
        layer, IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=PerGroup(32))
    )
    return layer.weight.dequantize().detach().reshape(weight.shape), weight.numel() * (bits + 16 / 32) / 8


def hqq(weight: Tensor, bits: int) -> tuple[Tensor, float]:
    from hqq.core.quantize import Quantizer

    codes, meta = Quantizer.quantize(
        weight.reshape(len(weight), -1), nbits=bits, group_size=64, axis=1, bitpack=False, device="cpu",
        compute_dtype=torch.float32,
    )  # fmt: skip
    back = Quantizer.dequantize(codes, meta)
    return back.reshape(weight.shape).float(), weight.numel() * (bits + 32 / 64) / 8


def _rows(weight: Tensor, group: int) -> int:
    """A number of rows into which the weight's values fit so that groups fill them."""
    return next(n for n in range(len(weight), 0, -1) if weight.numel() % (n * group) == 0)


def eligible(module: nn.Module) -> list[Weight]:
    """Weights that every tool can group without filling up; the others stay float in all arms."""
    return [w for w in weights(module) if math.prod(w.shape) % 64 == 0 and math.prod(w.shape[1:]) >= 32]  # type: ignore[arg-type]


def by_peer(peer: Peer, module: Any, bits: int) -> tuple[nn.Module, float]:
    module, total = clone(module), 0.0
    for weight in eligible(module):
        tensor = attribute(module, weight.path)
        found, size = peer(tensor.detach(), bits)
        tensor.data.copy_(found)
        total += size
    return module, total


def by_us(arm: str, network: nn.Module, task: Task, module: Any, bits: int, group: int, seed: int) -> Any:
    nearest = arm == OURS[0]
    method = QuantSurvey(
        bits=bits,
        ends=bits,
        group=group,
        rounding="nearest" if nearest else "adaround",
        correct=not nearest,
        seed=seed,
    )
    module = clone(module)
    chosen = {w.path: bits for w in eligible(module)}
    walked = method.walk(
        module, chosen, method.inputs(network, module, task, Budget().start()), Budget().start()
    )
    made = packed(module, walked.rounded, walked.biases)
    return made, float(sum(m.nbytes for m in made.modules() if isinstance(m, PackedBits)))


def measure(bed: str, seed: int) -> list[dict[str, Any]]:
    network, task = testbed(bed, seed)
    module = prepared(network, task)
    test = take(task.test, JUDGED, seed)
    whole, targets = outputs_of(module, test)
    rows = []
    for bits in BITS:
        arms = {name: by_peer(peer, module, bits) for name, peer in (("torchao", torchao), ("hqq", hqq))}
        arms |= {arm: by_us(arm, network, task, module, bits, BEDS[bed], seed) for arm in OURS}
        for arm, (made, size) in arms.items():
            outputs, _ = outputs_of(made, test)
            error = (outputs - whole).pow(2).sum() / (whole - whole.mean(0)).pow(2).sum()
            rows.append({
                "bed": bed, "bits": bits, "arm": arm, "seed": seed, "bytes": size, "error": float(error),
                "log error": math.log(error), "accuracy": score(outputs, targets, task.kind)["accuracy"],
            })  # fmt: skip
    return rows


def main() -> int:
    rows: list[dict[str, Any]] = []
    try:
        for bed in BEDS:
            for seed in SEEDS:
                rows += measure(bed, seed)
                print(*rows[-8:], sep="\n", flush=True)
    except (ModuleNotFoundError, NetwrightError) as missing:
        print(f"skipped: {missing}")
        return 0
    gaps = {}
    for bed in BEDS:
        for bits in BITS:
            mine = [row for row in rows if row["bed"] == bed and row["bits"] == bits]
            for ours in OURS:
                for peer in PEERS:
                    name = f"{bed}, {bits} bits: {ours} over {peer}"
                    gaps[f"log error, {name}"] = difference(mine, ours, peer, "log error")
                    gaps[f"bytes, {name}"] = mean(mine, ours, "bytes") / mean(mine, peer, "bytes")
    write(OUT, {"setting": __doc__, **gaps, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
