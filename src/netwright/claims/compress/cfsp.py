"""Feed-forwards of a real language model, narrowed by CFSP and by what it is compared with, measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.claims.beds.small_language import CONTEXT, bits_per_token, decode_seconds, subject
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import column, differences, estimate, mean, told
from netwright.compress.cfsp import Cfsp, narrowed
from netwright.compress.cfsp.find import Block, blocks
from netwright.compress.cfsp.measure import Measured as Calibrated
from netwright.compress.cfsp.measure import measure as calibrate
from netwright.compress.cfsp.recover import ranks, recovered
from netwright.compress.cfsp.widths import best, counts
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.graph.trace import trace
from netwright.core.measure.cost import cost
from netwright.core.split import take
from netwright.core.task import Task

RATIOS = (0.2, 0.35, 0.5)
CALIBRATION, TEXT = 12, 4  # windows of 256 tokens
TRAINED = 32  # windows of recovery, two a step
PROMPT, DECODED, ROUNDS = 64, 16, 3

LESS = tuple(Part(f"bits: cfsp {r} less wanda-sp {r}", "below") for r in (0.35, 0.5))
CLAIM = Claim(
    slug="cfsp",
    seeds=5,
    paper="beats magnitude, Wanda-sp and FLAP on LLaMA and Qwen models; about 1.5 times faster at high sparsity",
    setting=(
        "SmolLM2-135M-Instruct (30 blocks, width 576, SwiGLU of 1,536; opened from 4-bit integers, float32), nothing "
        f"trained: calibration on {CALIBRATION} windows of {CONTEXT} tokens of the Python language reference, English "
        f"prose with some code; bits per token on {TEXT} windows of other topics of it, both drawn anew for each seed; "
        "20, 35 and 50 % of all feed-forwards' units deleted, as many by every arm; baselines: Wanda-sp and random "
        "units with equal widths, FLAP with its own widths and its biases; tokens per second at batch 1 after a cache, "
        "dense and narrow in turn, one thread, in seconds of the processor; for one seed also LoRA recovery at 35 %, "
        f"one pass over {TRAINED} windows"
    ),
    rule=Rule(
        holds=LESS,
        bed=(
            Part("bits per token, dense", "at most", 4.5),
            Part("bits: random 0.35 less wanda-sp 0.35", "above"),
            Part("bits: wanda-sp 0.5 less dense", "above"),
        ),
    ),
)


def measure(scale: Scale) -> list[dict[str, Any]]:
    network, task = subject()
    network = network.to(scale.device)
    example = task.example(2)[0][:, :16]  # enough to see that narrow and silenced networks agree
    graph = trace(network, example)
    found = blocks(network, graph, example)
    rows: list[dict[str, Any]] = []
    for seed in scale.seeds:
        text = task.test.select(torch.arange(TEXT) + TEXT * (seed % (len(task.test) // TEXT)))
        rows.append({"arm": "dense", "seed": seed, "bits": bits_per_token(network, text)})
        with_means = Means(network, found)
        with with_means:
            seen = calibrate(network, found, take(task.train, CALIBRATION, seed), Budget().start())
        rows[-1] |= {"least_angle": float(seen.angles.min()), "largest_angle": float(seen.angles.max())}
        for ratio in RATIOS:
            for name, keep in arms(network, found, seen, with_means.values(), ratio, seed).items():
                small = narrowed(network, graph, found, keep, example)
                if name == "flap":
                    compensate(small, network, found, keep, with_means.values())
                rows.append(row(f"{name} {ratio}", seed, small, text, keep))
                if name == "cfsp" and ratio == RATIOS[-1]:
                    rows.append(speed(network, small, text.inputs[0][:1, :PROMPT], seed))  # type: ignore[attr-defined]
                if name == "cfsp" and ratio == 0.35 and seed == scale.seeds[0]:
                    rows.append(recovery(small, found, seen, task, text, seed))
    return rows


class Means:
    """While it is open, the mean of every unit of the feed-forwards is taken, by block (H,)."""

    def __init__(self, network: nn.Module, found: Sequence[Block]) -> None:
        self.downs = [network.get_submodule(block.feed.down) for block in found]
        self.sums = [torch.zeros(block.width, dtype=torch.float64) for block in found]
        self.rows = [0] * len(found)
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for i, down in enumerate(self.downs):

            def hook(_: nn.Module, args: Any, i: int = i) -> None:
                x = args[0].flatten(0, -2)
                self.sums[i] += x.sum(0).double().cpu()
                self.rows[i] += len(x)

            self.handles.append(down.register_forward_pre_hook(hook))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def values(self) -> list[Tensor]:
        return [(total / rows).float() for total, rows in zip(self.sums, self.rows, strict=True)]


def arms(
    network: nn.Module,
    found: Sequence[Block],
    seen: Calibrated,
    means: Sequence[Tensor],
    ratio: float,
    seed: int,
) -> dict[str, list[Tensor]]:
    """The units that stay, by block; as many in all by each arm."""
    method = Cfsp(ratio=ratio)
    equal = counts(torch.full((len(found),), 1 - ratio), [block.width for block in found], method.round_to)
    keep = {"cfsp": method.kept(network, found, seen), "cfsp as released": Cfsp(
        ratio=ratio, as_released=True).kept(network, found, seen)}  # fmt: skip
    readers = [network.get_submodule(block.feed.down).weight.detach() for block in found]
    wanda = [w.abs().mean(0).cpu() * size for w, size in zip(readers, seen.sizes, strict=True)]  # type: ignore[operator]
    keep["wanda-sp"] = [best(values, number) for values, number in zip(wanda, equal, strict=True)]
    keep["flap"] = flap(readers, seen, means, sum(map(len, keep["cfsp"])))  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(seed)
    keep["random"] = [
        best(torch.rand(block.width, generator=draw), number)
        for block, number in zip(found, equal, strict=True)
    ]
    return keep


def flap(readers: Sequence[Tensor], seen: Calibrated, means: Sequence[Tensor], total: int) -> list[Tensor]:
    """FLAP (arXiv 2312.11983): the variance of a unit's activation times the squares of the weights that read it, in
    standard deviations from the mean of its block; the largest of all blocks together."""
    values = []
    for weight, size, average in zip(readers, seen.sizes, means, strict=True):
        fluctuation = (size.square() - average.square()).clamp_min(0) * weight.square().sum(0).cpu()
        values.append((fluctuation - fluctuation.mean()) / fluctuation.std())
    first = [v.argmax() for v in values]  # a block keeps one unit at least
    for v, i in zip(values, first, strict=True):
        v[i] = torch.inf
    limit = torch.cat(values).sort(descending=True).values[total - 1]
    return [(v >= limit).nonzero().flatten() for v in values]


@torch.no_grad()
def compensate(
    small: nn.Module,
    network: nn.Module,
    found: Sequence[Block],
    keep: Sequence[Tensor],
    means: Sequence[Tensor],
) -> None:
    """Give each narrowed layer the bias that what is gone gave on average: what FLAP does for it."""
    for block, kept, average in zip(found, keep, means, strict=True):
        gone = torch.ones(block.width, dtype=torch.bool)
        gone[kept] = False
        whole, down = network.get_submodule(block.feed.down), small.get_submodule(block.feed.down)
        given = whole.weight[:, gone] @ average[gone].to(whole.weight)  # type: ignore[index]
        down.bias = nn.Parameter(given if down.bias is None else down.bias + given)


def row(arm: str, seed: int, small: nn.Module, text: Any, keep: Sequence[Tensor]) -> dict[str, Any]:
    widths = [len(kept) for kept in keep]
    return {
        "arm": arm, "seed": seed, "bits": bits_per_token(small, text), "units": sum(widths),
        "narrowest": min(widths), "widest": max(widths),
    }  # fmt: skip


def speed(network: nn.Module, small: nn.Module, prompt: Tensor, seed: int) -> dict[str, Any]:
    """Tokens per second, and how many times faster: medians over rounds, the ratio's of the ratios round by round."""
    seconds = decode_seconds([network, small], prompt, DECODED, ROUNDS)
    worked, clock = seconds[..., 0], seconds[..., 1]
    whole, left = (cost(each, (prompt,)).parameters for each in (network, small))
    return {
        "arm": "decoding", "seed": seed, "tokens_dense": 1 / float(np.median(worked[:, 0])),
        "tokens": 1 / float(np.median(worked[:, 1])), "faster": float(np.median(worked[:, 0] / worked[:, 1])),
        "faster_clock": float(np.median(clock[:, 0] / clock[:, 1])), "parameters_kept": left / whole,
    }  # fmt: skip


def recovery(
    small: nn.Module, found: Sequence[Block], seen: Calibrated, task: Task, text: Any, seed: int
) -> dict[str, Any]:
    """A few steps of LoRA, with ranks by importance, on the text that calibration is drawn from."""
    part = replace(task, train=take(task.train, TRAINED, seed))
    fit = Fit(epochs=1, batch_size=2, lr=Cfsp.lr, weight_decay=0.0, seed=seed)
    done = recovered(small, found, ranks(seen.angles, Cfsp.rank), part, fit, Budget().start())
    return {"arm": "cfsp 0.35, recovered", "seed": seed, "bits": bits_per_token(done, text)}


FASTER = "times faster at 50 %, decoding"


def judge(rows: list[dict[str, Any]]) -> Measured:
    figures: dict[str, Any] = {}
    for r in RATIOS:
        others = ("dense", f"cfsp as released {r}", f"wanda-sp {r}", f"flap {r}", f"random {r}")
        figures |= differences(rows, f"cfsp {r}", others, ("bits",))
    single = [line for line in rows if line["arm"] == "decoding"]
    figures[FASTER] = estimate([line["faster"] for line in single])
    figures["tokens per second, dense"] = mean(rows, "decoding", "tokens_dense")
    figures["tokens per second, 50 %"] = mean(rows, "decoding", "tokens")
    figures["parameters kept at 50 %"] = mean(rows, "decoding", "parameters_kept")
    again = column(rows, "cfsp 0.35, recovered", "bits")
    figures["bits: cfsp 0.35, recovered less cfsp 0.35, one seed"] = sum(
        bits - column(rows, "cfsp 0.35", "bits")[seed] for seed, bits in again.items()
    )
    bed = {
        "bits per token, dense": mean(rows, "dense", "bits"),
        "smallest angle of a block, in units of pi": mean(rows, "dense", "least_angle"),
        "largest angle of a block, in units of pi": mean(rows, "dense", "largest_angle"),
        **differences(rows, "random 0.35", ("wanda-sp 0.35",), ("bits",)),
        **differences(rows, "wanda-sp 0.5", ("dense",), ("bits",)),
    }
    say = lambda other: ", ".join(
        f"{told(figures[f'bits: cfsp {r} less {other} {r}'], 1, 3)} at {r:.0%}" for r in RATIOS
    )
    lost = ", ".join(f"{figures[f'bits: cfsp {r} less dense']['mean']:+.2f}" for r in RATIOS)
    return Measured(
        summary=(
            f"bits per token against uniform Wanda-sp: {say('wanda-sp')}; against FLAP: {say('flap')}; lost against "
            f"dense ({bed['bits per token, dense']:.2f}): {lost}; {figures[FASTER]['mean']:.2f} times as many tokens "
            "per second at 50 %"
        ),
        figures=figures,
        bed=bed,
        notes=(
            "Recovery was measured with one seed, on part of the text that the other arms are calibrated on, and is no "
            "part of the verdict. Attention, embeddings and the output layer stay whole."
        ),
    )
