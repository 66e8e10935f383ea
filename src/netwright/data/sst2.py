"""sst2: sentences of film reviews, bad or good (Socher et al., EMNLP 2013; the whole sentences, two classes)."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from netwright.core.division import cut
from netwright.core.errors import BadInput
from netwright.core.split import ArraySplit
from netwright.core.task import Task
from netwright.data.archive import readable
from netwright.data.places import require
from netwright.data.sources import source

VOCABULARY = 8192
LENGTH = 48
_WORD = re.compile(r"\S+")


def load(seed: int = 0, limit: int | None = None) -> Task:
    """Token ids (48,) int64: 0 padding, 1 a word that is not among the 8,190 most frequent of the training split.

    The official splits: 6,920 train, 872 validation, 1,821 test. Longer sentences are cut.
    """
    parts = sentences()
    ids = vocabulary([words for words, _ in parts[0]])
    arrays = [(encode([words for words, _ in part], ids), _labels(part)) for part in parts]
    kept = cut(torch.arange(len(arrays[0][1])), seed, limit)
    splits = [ArraySplit((x,), y) for x, y in arrays]
    splits[0] = splits[0].select(kept)
    count = len(arrays[2][1])
    note = "" if count == 1821 else f"{count:,} of 1,821 test sentences"
    return Task("sst2", "classification", *splits, 2, ("bad", "good"), "tokens", note=note)


def sentences() -> list[list[tuple[list[str], int]]]:
    """The official splits (train, validation, test): words and label of every sentence."""
    return [_read(path) for path in require(source("sst2"))]


def vocabulary(sentences: list[list[str]]) -> dict[str, int]:
    """Word -> id from 2 on, the most frequent first (ties in alphabetical order)."""
    counts = Counter(word for words in sentences for word in words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: VOCABULARY - 2]
    return {word: i for i, word in enumerate(ranked, 2)}


def encode(sentences: list[list[str]], ids: dict[str, int]) -> Tensor:
    """(N, 48) ids, padded with 0."""
    out = torch.zeros(len(sentences), LENGTH, dtype=torch.int64)
    for row, words in enumerate(sentences):
        known = [ids.get(word, 1) for word in words[:LENGTH]]
        out[row, : len(known)] = torch.tensor(known, dtype=torch.int64)
    return out


def _read(path: Path) -> list[tuple[list[str], int]]:
    """Lines of 'label text'."""
    opened = gzip.open if path.suffix == ".gz" else open
    with readable(path, "gzip file"), opened(path, "rt", encoding="latin-1") as file:
        lines = file.read().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        label, _, text = line.partition(" ")
        if label not in ("0", "1"):
            raise BadInput(f"{path}, line {number}: expected '0 text' or '1 text'")
        rows.append((_WORD.findall(text), int(label)))
    return rows


def _labels(part: list[tuple[list[str], int]]) -> Tensor:
    return torch.tensor([label for _, label in part], dtype=torch.int64)
