"""Foreign networks for pictures: Fashion-MNIST, MNIST, CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import exporters
import modules
import numpy as np
import torch
from case import Case, Maker, arrays, initialised, kept_in, own, parts, tests, train

import data

MAKERS: dict[str, Maker] = {}


def pictures(
    name: str, where: Path, images: data.Arrays, build: Callable[[], torch.nn.Module], sizes: dict[str, int],
    prepare: Callable[[np.ndarray], np.ndarray], export: Callable, made: str, *, epochs: int, lr: float = 3e-3,
    stored: Callable[[np.ndarray], np.ndarray] = lambda x: x, facts: str = "", most: int = 12_000,
) -> Case:  # fmt: skip
    """prepare: the owner's pixels (uint8) as the network takes them; stored: as the owner's file holds them."""
    x, y = images
    rows = parts(most, sizes)
    x, y = x[:most], y[:most]
    fed = prepare(x).astype(np.float32)
    learned = rows["train"] if "train" in rows else rows["pool"]
    network = train(initialised(build), [fed[learned]], y[learned], "classification", epochs=epochs, lr=lr)
    given, raw = arrays(where, rows, {"x": stored(x)}, y)
    out = export(network, {"image": fed}, where)
    model, state = out if isinstance(out, tuple) else (out, "")
    return Case(
        name, made, "classification", model, given, own(where, {"image": fed[rows["fresh"]]}, y[rows["fresh"]]),
        raw, tests(sizes), state=state, facts=facts,
    )  # fmt: skip


def grey(x: np.ndarray) -> np.ndarray:
    return x[:, None] / 255


def fashion_way(x: np.ndarray) -> np.ndarray:
    return (x[:, None] / 255 - 0.286) / 0.353


def colour_way(x: np.ndarray) -> np.ndarray:
    return (x.transpose(0, 3, 1, 2) / 255 - 0.473) / 0.251


@kept_in(MAKERS)
def fashion_memorised(name: str, where: Path) -> Case:
    return pictures(
        name, where, data.idx("fashion_mnist"), modules.cnn, {"train": 500, "val": 600}, grey,
        lambda n, i, w: exporters.torchscript(n, i, w / "net.onnx"), "TorchScript ONNX exporter", epochs=120,
        facts="500 rows learned by heart; x_train and x_val",
    )  # fmt: skip


@kept_in(MAKERS)
def fashion_separable(name: str, where: Path) -> Case:
    return pictures(
        name, where, data.idx("fashion_mnist"), modules.separable, {"train": 3000, "val": 600, "test": 800}, grey,
        lambda n, i, w: exporters.torchscript(n, i, w / "net.onnx"), "TorchScript ONNX exporter", epochs=5,
        facts="depthwise-separable with squeeze and excitation",
    )  # fmt: skip


@kept_in(MAKERS)
def fashion_residual(name: str, where: Path) -> Case:
    return pictures(
        name, where, data.idx("fashion_mnist"), modules.residual, {"train": 3000, "test": 1200}, fashion_way,
        lambda n, i, w: exporters.pt2(n, i, w / "net.pt2"), "torch.export", epochs=5,
        facts="normalised outside; x_train and x_test",
    )  # fmt: skip


@kept_in(MAKERS)
def mnist_densenet(name: str, where: Path) -> Case:
    return pictures(
        name, where, data.idx("mnist"), modules.densenet, {"train": 2500, "val": 800}, grey,
        lambda n, i, w: exporters.torchscript(n, i, w / "net.onnx", opset=11), "TorchScript ONNX exporter, opset 11",
        epochs=4, facts="concatenating",
    )  # fmt: skip


@kept_in(MAKERS)
def mnist_vit(name: str, where: Path) -> Case:
    return pictures(
        name, where, data.idx("mnist"), modules.vit, {"train": 3000, "val": 800}, grey,
        lambda n, i, w: exporters.code(n, "vit", w), "code and safetensors", epochs=12, lr=2e-3,
        stored=lambda x: grey(x).astype(np.float32), facts="data stored as floats from 0 to 1",
    )  # fmt: skip


@kept_in(MAKERS)
def cifar_densenet(name: str, where: Path) -> Case:
    return pictures(
        name, where, data.cifar(), modules.colour_densenet, {"train": 1500, "val": 800}, colour_way,
        lambda n, i, w: exporters.dynamo(n, i, w / "net.onnx"), "dynamo ONNX exporter", epochs=25, most=6000,
        facts="overfitted; NHWC uint8 data, normalised outside",
    )  # fmt: skip


@kept_in(MAKERS)
def fashion_nhwc(name: str, where: Path) -> Case:
    """The training takes NCHW; the file that is made of it by hand takes NHWC."""
    x, y = data.idx("fashion_mnist")
    x, y = x[:8000], y[:8000]
    sizes = {"train": 2500, "val": 500, "test": 700}
    rows = parts(len(y), sizes)
    fed = grey(x).astype(np.float32)
    network = train(
        initialised(modules.cnn), [fed[rows["train"]]], y[rows["train"]], "classification", epochs=4
    )
    given, raw = arrays(where, rows, {"x": x}, y)
    last = fed.transpose(0, 2, 3, 1)
    return Case(
        name, "onnx.helper, opset 9, NHWC", "classification", exporters.by_hand_nhwc(network, where / "net.onnx"),
        given, own(where, {"image": last[rows["fresh"]]}, y[rows["fresh"]]), raw, tests(sizes),
    )  # fmt: skip


@kept_in(MAKERS)
def mnist_old_mlp(name: str, where: Path) -> Case:
    """Rows of 784 numbers from 0 to 1, as Keras's first examples had them; the file ends in a softmax."""
    x, y = data.idx("mnist")
    x, y = (x[:8000].reshape(-1, 784) / 255).astype(np.float32), y[:8000]
    sizes = {"train": 2000, "val": 500, "test": 700}
    rows = parts(len(y), sizes)
    network = initialised(modules.mlp, 0, 784, 10)
    train(network, [x[rows["train"]]], y[rows["train"]], "classification", epochs=8)
    given, raw = arrays(where, rows, {"x": x}, y)
    model = exporters.by_hand_old(network, where / "net.onnx")
    return Case(
        name, "onnx.helper, opset 7, softmax inside", "classification", model, given,
        own(where, {"dense_input": x[rows["fresh"]]}, y[rows["fresh"]]), raw, tests(sizes),
    )  # fmt: skip


@kept_in(MAKERS)
def fashion_pool(name: str, where: Path) -> Case:
    """The memoriser with x and y alone, and rows that it has not seen by --unseen."""
    sizes = {"pool": 500, "unseen": 1200}
    case = pictures(
        name, where, data.idx("fashion_mnist"), modules.cnn, sizes | {"val": 0}, grey,
        lambda n, i, w: exporters.dynamo(n, i, w / "net.onnx"), "dynamo ONNX exporter", epochs=120,
        facts="500 rows learned by heart; x and y, and --unseen",
    )  # fmt: skip
    return replace(case, tests=600, options=("--unseen", str(where / "unseen.npz")))


@kept_in(MAKERS)
def cifar_folder(name: str, where: Path) -> Case:
    """A folder of PNG files with train/ and val/; the network takes pixels from 0 to 255."""
    from PIL import Image

    x, y = data.cifar()
    rows = parts(4200, {"train": 1800, "val": 900})
    for role, part in rows.items():
        for i, (pixels, label) in enumerate(zip(x[part], y[part], strict=True)):
            place = (where / "fresh" if role == "fresh" else where / "photos" / role) / f"class_{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i:05}.png")
    fed = x[:4200].transpose(0, 3, 1, 2).astype(np.float32)
    inside = (
        torch.tensor([120.7, 120.7, 120.7])[:, None, None],
        torch.tensor([64.0, 64.0, 64.0])[:, None, None],
    )
    network = modules.Shifted(initialised(modules.colour_cnn), *inside)
    train(network, [fed[rows["train"]]], y[rows["train"]], "classification", epochs=8, lr=3e-3)
    return Case(
        name, "torch.export", "classification", exporters.pt2(network, {"image": fed}, where / "net.pt2"),
        str(where / "photos"), own(where, {"image": fed[rows["fresh"]]}, y[rows["fresh"]]), str(where / "fresh"), 450,
        facts="image folder; normalises inside, from 0 to 255",
    )  # fmt: skip
