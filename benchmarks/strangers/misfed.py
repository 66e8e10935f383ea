"""Is a network that is fed in the wrong way found, and one that is fed rightly left alone?

    python benchmarks/strangers/misfed.py [--cache DIR] [--only NAME ...] [--fresh-start]

Six misfed networks: each must be stopped (exit code 2, one line, before any work) or repaired (the figure before is
that of the network as its owner feeds it), and it must be said. Ten rightly fed ones, odd in every way that looks
like misfeeding (overconfident, 95 to 5, hardly better than chance, few rows, R2 near 0): none may be stopped, nor
fed in another way. Writes docs/benchmarks/strangers_misfed.json.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import exporters
import modules
import numpy as np
import outsider
import torch
from case import Case, Maker, arrays, initialised, kept_in, own, parts, train
from command import netwright, of
from networks import MAKERS, arguments, cases
from pictures import colour_way, grey
from record import Record
from rows import dynamo, numbers, torchscript
from truth import PRIMARY, compared

import data

MISFED: dict[str, Maker] = {}
PLAIN = ("digits_mlp", "mnist_old_mlp", "multilabel_mlp", "two_inputs", "fashion_residual")
RIGHT: dict[str, Maker] = {name: MAKERS[name] for name in PLAIN}
JUDGING = {"val": 600, "test": 600}


def _fed(
    name: str, where: Path, x: np.ndarray, y: np.ndarray, network: torch.nn.Module,
    prepare: Callable[[np.ndarray], np.ndarray], epochs: int, made: str, learned: int = 1500,
) -> Case:  # fmt: skip
    """A network that was trained on `prepare(x)`, and an owner who hands over x."""
    x, y = x[: learned + 4500], y[: learned + 4500]
    rows, fed = parts(len(y), {"train": learned, **JUDGING}), prepare(x)
    train(network, [fed[rows["train"]]], y[rows["train"]], "classification", epochs=epochs, lr=3e-3)
    given, raw = arrays(where, rows, {"x": x}, y)
    return Case(
        name, made, "classification", exporters.dynamo(network, {"input": fed}, where / "net.onnx"), given,
        own(where, {"input": fed[rows["fresh"]]}, y[rows["fresh"]]), raw, JUDGING["test"],
    )  # fmt: skip


@kept_in(MISFED)
def column_order(name: str, where: Path) -> Case:
    """One-hot columns in the network's own order, which nobody tells."""
    case = MAKERS["staff_one_hot"](name, where)
    left = case.options.index("--columns")
    return replace(case, options=case.options[:left] + case.options[left + 2 :])


@kept_in(MISFED)
def scale(name: str, where: Path) -> Case:
    x, y = data.idx("mnist")
    return _fed(
        name, where, x[:, None].astype(np.float32), y, initialised(modules.vit), lambda x: x / np.float32(255), 12,
        "floats from 0 to 255 for a network of 0 to 1",
    )  # fmt: skip


@kept_in(MISFED)
def bgr(name: str, where: Path) -> Case:
    x, y = data.cifar()
    return _fed(
        name, where, x, y, initialised(modules.colour_cnn), lambda x: colour_way(x[..., ::-1]).astype(np.float32), 10,
        "RGB pictures for a network of BGR",
    )  # fmt: skip


@kept_in(MISFED)
def nhwc(name: str, where: Path) -> Case:
    x, y = data.cifar()
    return _fed(
        name, where, (x / 255).astype(np.float32), y, initialised(modules.colour_cnn),
        lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)), 8, "floats (N, H, W, C) for a network of (N, C, H, W)",
    )  # fmt: skip


@kept_in(MISFED)
def unnormalised(name: str, where: Path) -> Case:
    """Rows as they are for a network of standardised ones; the columns' sizes are thousands apart."""
    x, y = data.features(6000, 16, 4, "classes", 21)
    rng = np.random.default_rng(1)
    size, middle = np.exp(rng.normal(2, 2, 16)).astype(np.float32), rng.normal(0, 300, 16).astype(np.float32)
    return _fed(
        name, where, x * size + middle, y, initialised(modules.mlp, 0, 16, 4), lambda r: (r - middle) / size, 20,
        "raw rows for a network of standardised ones",
    )  # fmt: skip


@kept_in(MISFED)
def tokens(name: str, where: Path) -> Case:
    x, y = data.sentences()
    order = np.concatenate([[0, 1], 2 + np.random.default_rng(0).permutation(2998)])
    return _fed(
        name,
        where,
        x,
        y,
        initialised(modules.text_cnn),
        lambda x: order[x],
        8,
        "the ids of another vocabulary",
        learned=5000,
    )


@kept_in(RIGHT)
def overconfident(name: str, where: Path) -> Case:
    """Learned by heart, and its logits thirty times too large: a negative log likelihood far beyond ln 10."""
    x, y = data.idx("fashion_mnist")
    x, y = x[:8000], y[:8000]
    rows = parts(len(y), {"train": 400, "val": 600})
    fed = grey(x).astype(np.float32)
    learned = [fed[rows["train"]]], y[rows["train"]]
    network = train(initialised(modules.cnn), *learned, "classification", epochs=120, lr=3e-3)
    with torch.no_grad():
        network[-1][2].weight.mul_(30)
        network[-1][2].bias.mul_(30)
    given, raw = arrays(where, rows, {"x": x}, y)
    return Case(
        name, "TorchScript ONNX exporter", "classification", torchscript(network, {"x": fed}, where), given,
        own(where, {"x": fed[rows["fresh"]]}, y[rows["fresh"]]), raw, 300,
    )  # fmt: skip


@kept_in(RIGHT)
def rare_and_hard(name: str, where: Path) -> Case:
    """95 to 5, and so much overlap that its accuracy is hardly above the majority's."""
    x, y = data.rare(8000)
    x = (x + np.random.default_rng(2).normal(0, 1.4, x.shape)).astype(np.float32)
    return numbers(
        name, where, {"features": x}, y, initialised(modules.mlp, 0, 10, 2, 32), "classification",
        {"train": 2000, "val": 1000}, dynamo, "dynamo ONNX exporter", epochs=10,
    )  # fmt: skip


@kept_in(RIGHT)
def noisy(name: str, where: Path) -> Case:
    """Two classes of which six in ten can be told."""
    x, y = data.features(9000, 8, 2, "classes", 22)
    swap = np.random.default_rng(3).random(len(y)) < 0.36
    return numbers(
        name, where, {"features": x}, np.where(swap, 1 - y, y), initialised(modules.mlp, 0, 8, 2, 32),
        "classification", {"train": 3000, "val": 800, "test": 800}, dynamo, "dynamo ONNX exporter", epochs=5,
    )  # fmt: skip


@kept_in(RIGHT)
def few_rows(name: str, where: Path) -> Case:
    x, y = data.features(3000, 8, 3, "classes", 23)
    return numbers(
        name, where, {"features": x}, y, initialised(modules.mlp, 0, 8, 3, 32), "classification",
        {"train": 60, "val": 40}, dynamo, "dynamo ONNX exporter", epochs=40,
    )  # fmt: skip


@kept_in(RIGHT)
def low_r2(name: str, where: Path) -> Case:
    """A regression that explains a twentieth of the variance, as those of returns or of human behaviour do."""
    x, y = data.features(9000, 8, 1, "values", 24)
    noise = np.random.default_rng(4).normal(0, 4.2 * y.std(), len(y)).astype(np.float32)
    return numbers(
        name, where, {"features": x}, y[:, 0] + noise, initialised(modules.mlp, 0, 8, 1, 16), "regression",
        {"train": 3500, "val": 900, "test": 900}, torchscript, "TorchScript ONNX exporter", epochs=6,
    )  # fmt: skip


BUDGET = "30s"


def measure(case: Case, out: Path) -> dict[str, Any]:
    """`improve` with one method that needs no training: what is asked here is decided before any method runs."""
    shutil.rmtree(out, ignore_errors=True)
    said = netwright(
        "improve", *of(case), "--budget", BUDGET, "--methods", "dynamic-int8", "--out", str(out), limit=600
    )
    row: dict[str, Any] = {"made": case.made, "exit": said.code, "seconds": round(said.seconds, 1)}
    if (out / "result.json").exists():
        result = json.loads((out / "result.json").read_text())
        figures = outsider.outputs_of_case(case)
        row["before"] = compared(result["before"][PRIMARY[case.kind]], case.tests, *figures, case.kind)
        row["note"] = result["note"]
    else:
        row["line"], row["lines"] = said.last[:1500], len(said.err.strip().splitlines())
    return row


def verdict(row: dict[str, Any], wrong: bool) -> tuple[bool, str]:
    """Whether it is as it should be, and in a word what happened."""
    if row["exit"] == 2 and "its preprocessing is probably not" in row["line"]:
        return wrong and row["lines"] == 1, "stopped"
    if "before" not in row:
        return False, "ended for another reason" if row["exit"] is not None else "no end"
    same = abs(row["before"]["z"]) <= 3
    if wrong:
        return same and bool(row["note"]), "repaired" if same else "went on with the wrong feed"
    return same, "left alone" if same else "fed in another way than its owner's"


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--fresh-start", action="store_true", help="forget what an earlier run wrote")
    options = parser.parse_args()
    record, good = Record("strangers_misfed", {"budget": BUDGET}, options.fresh_start), True
    for makers, wrong in ((MISFED, True), (RIGHT, False)):
        print("misfed" if wrong else "rightly fed")
        names = [n for n in makers if not options.only or n in options.only]
        for case in cases(names, options.cache, makers) if names else ():
            row = record.row(case.name, lambda c=case: measure(c, options.cache / "out" / c.name))
            fine, word = verdict(row, wrong)
            row["verdict"], good = word, good and fine
            figures = f"{row['before']['said']:.4f} / {row['before']['true']:.4f}" if "before" in row else ""
            print(
                f"  {'' if fine else 'NOT '}as it should: {case.name:16} {word}  {row['seconds']:.0f} s  {figures}  "
                f"{row.get('note') or row.get('line', '')}", flush=True,
            )  # fmt: skip
    verdicts = {n: r.get("verdict") for n, r in record.rows.items()}
    record.summary({"verdicts": verdicts})
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
