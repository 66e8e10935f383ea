"""Foreign networks for rows of numbers, sequences, sentences and two inputs at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import exporters
import modules
import numpy as np
import torch
from case import Case, Maker, arrays, initialised, kept_in, own, parts, tests, train

import data

MAKERS: dict[str, Maker] = {}


def numbers(
    name: str, where: Path, given: dict[str, np.ndarray], y: np.ndarray, network: torch.nn.Module, kind: str,
    sizes: dict[str, int], export: Callable, made: str, *, epochs: int, lr: float = 2e-3, facts: str = "",
) -> Case:  # fmt: skip
    """given: the inputs by the network's own names; the owner's file calls an only one x."""
    rows = parts(len(y), sizes)
    learned = rows["train"]
    train(network, [x[learned] for x in given.values()], y[learned], kind, epochs=epochs, lr=lr)
    held = given if len(given) > 1 else {"x": next(iter(given.values()))}
    task, raw = arrays(where, rows, held, y)
    model = export(network, given, where)
    fresh = {n: x[rows["fresh"]] for n, x in given.items()}
    return Case(
        name, made, kind, model, task, own(where, fresh, y[rows["fresh"]]), raw, tests(sizes), facts=facts
    )


def dynamo(network: torch.nn.Module, inputs: dict[str, np.ndarray], where: Path) -> str:
    return exporters.dynamo(network, inputs, where / "net.onnx")


def torchscript(network: torch.nn.Module, inputs: dict[str, np.ndarray], where: Path) -> str:
    return exporters.torchscript(network, inputs, where / "net.onnx")


def pt2(network: torch.nn.Module, inputs: dict[str, np.ndarray], where: Path) -> str:
    return exporters.pt2(network, inputs, where / "net.pt2")


@kept_in(MAKERS)
def digits_mlp(name: str, where: Path) -> Case:
    x, y = data.digits()
    return numbers(
        name, where, {"pixels": x.reshape(-1, 64)}, y, initialised(modules.mlp, 0, 64, 10), "classification",
        {"train": 400, "val": 200, "test": 200}, dynamo, "dynamo ONNX exporter", epochs=20,
    )  # fmt: skip


@kept_in(MAKERS)
def sst_text_cnn(name: str, where: Path) -> Case:
    x, y = data.sentences()
    return numbers(
        name, where, {"ids": x}, y, initialised(modules.text_cnn), "classification", {"train": 5500, "val": 900},
        torchscript, "TorchScript ONNX exporter", epochs=8, facts="overfitted; tokens; x_train and x_val",
    )  # fmt: skip


@kept_in(MAKERS)
def sst_gru(name: str, where: Path) -> Case:
    x, y = data.sentences()
    x = x[:, ::-1].copy()  # padding in front, so that the last state has read the words
    return numbers(
        name, where, {"ids": x}, y, initialised(modules.text_gru), "classification",
        {"train": 5000, "val": 500, "test": 900}, torchscript, "TorchScript ONNX exporter", epochs=6, lr=4e-3,
    )  # fmt: skip


@kept_in(MAKERS)
def waves_lstm(name: str, where: Path) -> Case:
    x, y = data.waves(6000)
    return numbers(
        name, where, {"signal": x}, y, initialised(modules.wave_lstm), "classification", {"train": 1500, "val": 700},
        dynamo, "dynamo ONNX exporter", epochs=25, lr=8e-3,
    )  # fmt: skip


@kept_in(MAKERS)
def waves_gru_values(name: str, where: Path) -> Case:
    x, _ = data.waves(6000)
    noise = np.random.default_rng(1).normal(0, 0.1, (6000, 3))
    y = (
        np.stack([x[..., 0].mean(1), x[:, -6:, 1].mean(1), (x[..., 2] * np.linspace(-1, 1, 24)).mean(1)], 1)
        + noise
    )
    return numbers(
        name, where, {"signal": x}, y.astype(np.float32), initialised(modules.wave_gru), "regression",
        {"train": 1500, "test": 1200}, pt2, "torch.export", epochs=20, lr=5e-3, facts="regression, 3 outputs",
    )  # fmt: skip


@kept_in(MAKERS)
def multilabel_mlp(name: str, where: Path) -> Case:
    x, y = data.features(7000, 20, 6, "labels", 11)
    return numbers(
        name, where, {"features": x}, y, initialised(modules.mlp, 0, 20, 6), "multilabel",
        {"train": 1500, "val": 500, "test": 800}, dynamo, "dynamo ONNX exporter", epochs=15,
    )  # fmt: skip


@kept_in(MAKERS)
def overfit_values(name: str, where: Path) -> Case:
    x, y = data.features(6000, 12, 1, "values", 12)
    return numbers(
        name, where, {"features": x}, y[:, 0], initialised(modules.mlp, 0, 12, 1), "regression",
        {"train": 250, "val": 700}, pt2, "torch.export", epochs=60, facts="regression, overfitted; x_train and x_val",
    )  # fmt: skip


@kept_in(MAKERS)
def double_mlp(name: str, where: Path) -> Case:
    x, y = data.features(7000, 16, 1, "values", 13)
    return numbers(
        name, where, {"features": x.astype(np.float64)}, y[:, 0].astype(np.float64),
        initialised(modules.mlp, 0, 16, 1).double(), "regression", {"train": 2000, "val": 500, "test": 900},
        torchscript, "TorchScript ONNX exporter, float64", epochs=20,
    )  # fmt: skip


@kept_in(MAKERS)
def rare_mlp(name: str, where: Path) -> Case:
    x, y = data.rare(8000)
    return numbers(
        name, where, {"features": x}, y, initialised(modules.mlp, 0, 10, 2, 32), "classification",
        {"train": 1500, "val": 1000}, dynamo, "dynamo ONNX exporter", epochs=25, facts="classes 95 to 5",
    )  # fmt: skip


@kept_in(MAKERS)
def two_inputs(name: str, where: Path) -> Case:
    left, right, y = data.pairs(7000)
    return numbers(
        name, where, {"left": left, "right": right}, y, initialised(modules.two_sided), "classification",
        {"train": 2500, "val": 500, "test": 800}, dynamo, "dynamo ONNX exporter", epochs=15,
    )  # fmt: skip
