"""The data of the strangers: real pictures and sentences in small parts, and generated tables and sequences.

Read here with numpy, Pillow and the standard library alone. Real data come from the folder that NETWRIGHT_DATA
names, laid out as `netwright data` says; `Absent` where they are not there. Everything is seeded.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


class Absent(Exception):
    """What a network needs is not on this machine; the message says what."""


def folder(name: str) -> Path:
    where = Path(os.environ.get("NETWRIGHT_DATA", "")) / name
    if not os.environ.get("NETWRIGHT_DATA") or not where.is_dir():
        raise Absent(f"NETWRIGHT_DATA holds no folder {name}")
    return where


def idx(name: str) -> Arrays:
    """fashion_mnist or mnist: 70,000 grey pictures (N, 28, 28) uint8 and labels (N,), shuffled."""
    where = folder(name)
    parts = []
    for role in ("train", "t10k"):
        images = gzip.decompress(next(where.glob(f"{role}-images*.gz")).read_bytes())
        labels = gzip.decompress(next(where.glob(f"{role}-labels*.gz")).read_bytes())
        y = np.frombuffer(labels, np.uint8, offset=8)
        parts.append((np.frombuffer(images, np.uint8, offset=16).reshape(len(y), 28, 28), y))
    return _shuffled(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), 1)


def cifar(count: int = 6000) -> Arrays:
    """CIFAR-10: `count` colour pictures (N, 32, 32, 3) uint8 of all ten classes, shuffled."""
    from PIL import Image

    classes: dict[str, list[np.ndarray]] = {}
    with tarfile.open(folder("cifar10_jpeg") / "train.tar.xz") as archive:
        for member in archive:
            if not member.name.endswith((".jpg", ".jpeg")):
                continue
            mine = classes.setdefault(Path(member.name).parent.name, [])
            if len(mine) < count // 10:
                held = archive.extractfile(member)
                assert held is not None
                mine.append(np.asarray(Image.open(io.BytesIO(held.read())).convert("RGB")))
    x = np.concatenate([np.stack(classes[c]) for c in sorted(classes)])
    y = np.concatenate([np.full(len(classes[c]), i) for i, c in enumerate(sorted(classes))])
    return _shuffled(x, y, 2)


def sentences(words: int = 3000, length: int = 32) -> Arrays:
    """SST-2 as token ids (N, 32) int64: 0 padding, 1 unknown; labels 0 (bad) and 1 (good). Train, dev, test in turn."""
    where = folder("sentence_classification")
    lines = []
    for name in ("stsa.binary.train.gz", "stsa.binary.dev.gz", "stsa.binary.test*.gz"):
        text = gzip.decompress(next(where.glob(name)).read_bytes()).decode("latin-1")
        lines.append([line.partition(" ") for line in text.splitlines()])
    counts = Counter(w for _, _, text in lines[0] for w in re.findall(r"\S+", text))
    ids = {
        w: i for i, (w, _) in enumerate(sorted(counts.items(), key=lambda c: (-c[1], c[0]))[: words - 2], 2)
    }
    flat = [line for part in lines for line in part]
    x = np.zeros((len(flat), length), np.int64)
    for row, (_, _, text) in zip(x, flat, strict=True):
        known = [ids.get(w, 1) for w in re.findall(r"\S+", text)[:length]]
        row[: len(known)] = known
    return _shuffled(x, np.array([int(label) for label, _, _ in flat]), 3)


def digits() -> Arrays:
    """scikit-learn's digits: (1797, 8, 8) float32 from 0 to 16."""
    from sklearn.datasets import load_digits

    held = load_digits()
    return _shuffled(held.images.astype(np.float32), held.target, 4)


def staff(count: int = 6000, seed: int = 5) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A generated table with numbers and text: columns by name, and who left ('no' or 'yes')."""
    rng = np.random.default_rng(seed)
    jobs, regions = (
        np.array(["clerk", "driver", "fitter", "nurse", "porter"]),
        np.array(["east", "north", "west"]),
    )
    job, region = rng.integers(0, 5, count), rng.integers(0, 3, count)
    age, hours = rng.uniform(18, 66, count), np.clip(rng.normal(36, 8, count), 8, 70)
    pay = np.exp(rng.normal(7.6, 0.4, count) + 0.08 * job)
    score = (
        0.09 * (hours - 36) - 0.07 * (age - 40) - 2.2 * (np.log(pay) - 7.8)
        + np.array([-1.0, 1.2, 0.0, 1.5, -0.8])[job] + np.array([0.5, -1.2, 0.8])[region]
        + np.where((job == 3) & (hours > 40), 2.0, 0.0)
    )  # fmt: skip
    y = rng.random(count) < 1 / (1 + np.exp(-1.5 * score))
    numbers = {"age": age.round(1), "hours": hours.round(1), "pay": pay.round(2)}
    words = {"job": jobs[job], "region": regions[region]}
    table = {name: (numbers | words)[name] for name in ("age", "job", "hours", "region", "pay")}
    return table, np.where(y, "yes", "no")


def houses(count: int = 6000, seed: int = 6) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A generated table of numbers, and the price of each house: nonlinear in place and size, with noise."""
    rng = np.random.default_rng(seed)
    north, east = rng.uniform(0, 10, count), rng.uniform(0, 10, count)
    rooms, age = rng.integers(1, 9, count), rng.uniform(0, 60, count)
    income = np.exp(rng.normal(1.2, 0.4, count))
    coast = np.exp(-((north - east) ** 2) / 6)
    price = 60 + 40 * income + 22 * rooms + 90 * coast * income - 0.8 * age + rng.normal(0, 35, count)
    table = {"north": north, "east": east, "rooms": rooms.astype(float), "age": age, "income": income}
    return {k: v.round(3) for k, v in table.items()}, price.round(2)


def features(count: int, width: int, outputs: int, kind: str, seed: int) -> Arrays:
    """Generated rows (N, width) float32: kind classes (N,), labels (N, outputs) of 0 and 1, or values (N, outputs)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (count, width)).astype(np.float32)
    inner = np.tanh(x @ rng.normal(0, 0.7, (width, 24)))
    scores = inner @ rng.normal(0, 0.8, (24, outputs)) + rng.normal(0, 0.5, (count, outputs))
    if kind == "classes":
        return x, scores.argmax(1)
    return x, (scores > 0).astype(np.int64) if kind == "labels" else scores.astype(np.float32)


def rare(count: int, seed: int = 7) -> Arrays:
    """Rows (N, 10) float32 of two classes, one in twenty of the second; they overlap."""
    rng = np.random.default_rng(seed)
    y = (rng.random(count) < 0.05).astype(np.int64)
    x = rng.normal(0, 1, (count, 10)) + y[:, None] * rng.normal(1.1, 0.1, 10)
    return x.astype(np.float32), y


def waves(count: int, seed: int = 8) -> Arrays:
    """Sequences (N, 24, 3) float32 of four classes: slow or quick, rising or falling, in noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    t = np.arange(24)[None, :, None]
    speed, slope = np.where(y % 2, 0.9, 0.45)[:, None, None], np.where(y // 2, 0.045, -0.045)[:, None, None]
    phase = rng.uniform(0, 6.3, (count, 1, 3))
    x = np.sin(speed * t + phase) + slope * t + rng.normal(0, 0.8, (count, 24, 3))
    return x.astype(np.float32), y


def pairs(count: int, seed: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """left (N, 12), right (N, 6) float32 and one of four classes, which takes both to know."""
    rng = np.random.default_rng(seed)
    left, right = rng.normal(0, 1, (count, 12)), rng.normal(0, 1, (count, 6))
    scores = (
        (left @ rng.normal(0, 1, (12, 4))) * (right @ rng.normal(0, 1, (6, 4)))
        + 2 * right[:, :4]
        + left[:, :4]
    )
    return left.astype(np.float32), right.astype(np.float32), scores.argmax(1)


def _shuffled(x: np.ndarray, y: np.ndarray, seed: int) -> Arrays:
    order = np.random.default_rng(seed).permutation(len(y))
    return x[order], y[order].astype(np.int64)
