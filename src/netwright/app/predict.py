"""`netwright predict`: a file that `improve` or `export` wrote, on raw data, fed as its signature says."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netwright.core import progress
from netwright.core.errors import BadInput
from netwright.core.files.checkpoint import atomic
from netwright.core.files.facts import fixed_batch
from netwright.core.files.load import input_shapes, load, signature_of
from netwright.core.measure.latency import onnx_session
from netwright.core.metrics import score
from netwright.core.plural import number_of
from netwright.core.signature import Input, Signature
from netwright.data.fresh import open_fresh

BATCH = 256  # as `improve` tests: an input that is rounded as the network runs is rounded over its batch
_SHOWN = 10


@dataclass(frozen=True)
class Predictions:
    """One entry per row of the data, in its order.

    rows: file names of pictures, else numbers from 0. names: what the columns of `probabilities` (N, C) or of `values`
    (N, O) are. classes (N,): the most probable one's name (classification). probabilities: of classes, or of each
    label. values: of regression, and of files that do not say what their outputs are. scores: accuracy, or r2, mae
    and rmse, over the `judged` rows whose truth came with the data. notes: what the user should know.
    """

    file: str
    kind: str
    rows: tuple[str, ...]
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    probabilities: np.ndarray | None = field(default=None, repr=False)
    values: np.ndarray | None = field(default=None, repr=False)
    scores: Mapping[str, float] = field(default_factory=dict)
    judged: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def table(self, most: int | None = None) -> list[dict[str, Any]]:
        """A dictionary for each row (at most so many), as the CSV file has them."""
        count = len(self) if most is None else min(most, len(self))
        return [self._row(i) for i in range(count)]

    def _row(self, i: int) -> dict[str, Any]:
        if self.kind == "classification":
            assert self.probabilities is not None
            return {
                "row": self.rows[i], "class": self.classes[i], "probability": float(self.probabilities[i].max())
            }  # fmt: skip
        held = self.values if self.probabilities is None else self.probabilities
        assert held is not None
        return {"row": self.rows[i], **dict(zip(self.names, map(float, held[i]), strict=True))}

    def to_csv(self, path: str | Path) -> None:
        """row, class and its probability; for labels the probability of each; for regression the values."""
        rows = [{k: f"{v:.9g}" if isinstance(v, float) else v for k, v in r.items()} for r in self.table()]
        with atomic(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file, "kind": self.kind, "count": len(self), "predictions": self.table(),
            "scores": dict(self.scores), "judged": self.judged, "notes": list(self.notes),
        }  # fmt: skip

    @property
    def judgement(self) -> str:
        """'accuracy 97.2 % on 359 rows whose truth is known'; '' without truth."""
        from netwright.app import words

        listed = ", ".join(f"{words.NAMES[m]} {words.figure(m, v)}" for m, v in self.scores.items())
        return f"{listed} on {number_of(self.judged, 'row')} whose truth came with the data" if listed else ""

    def __repr__(self) -> str:
        said = f", {self.judgement}" if self.scores else ""
        return f"Predictions({self.file}: {len(self):,} rows{said})"


def predict(file: str | Path, data: Any, target: str | None = None) -> Predictions:
    """Run an .onnx file (in ONNX Runtime) or a .pt2 on raw data.

    data: a table (.csv, .tsv, .parquet), a picture, a folder or archive of pictures, an .npz with arrays under the
    names of the inputs (or x); a data frame, or a dictionary of arrays. Text becomes numbers, and pictures arrays, as
    the file's signature says; a file without one takes arrays only. target: the column or array that holds the
    truth, default as the signature says; pictures' truth are the folders that are named as classes.
    BadInput in one line for what does not fit.
    """
    path = Path(file)
    signature = signature_of(path)
    inputs, run, fixed = _opened(path, signature)
    fresh = open_fresh(data, inputs, signature, path.name, target)
    rows: list[str] = []
    outputs, truths = [], []
    for part in fresh.parts(fixed or BATCH):
        count = len(part.names)
        fed = part.inputs
        if fixed and count < fixed:
            fed = tuple(np.concatenate([x, np.repeat(x[:1], fixed - count, 0)]) for x in fed)
        outputs.append(np.asarray(run(fed))[:count].reshape(count, -1))
        truths.append(part.truth)
        rows += part.names
        progress.step(len(rows), fresh.count, f"{len(rows):,} of {fresh.count:,} rows")
    truth = None if truths[0] is None else np.concatenate([t for t in truths if t is not None])
    return _predictions(path.name, signature, tuple(rows), np.concatenate(outputs), truth, tuple(fresh.notes))


Run = Callable[[tuple[np.ndarray, ...]], np.ndarray]


def _opened(path: Path, signature: Signature | None) -> tuple[tuple[Input, ...], Run, int | None]:
    """What the file takes, how it is run, and the size of its batches where it takes no other."""
    if path.suffix.lower() == ".onnx":
        session = onnx_session(path, torch.get_num_threads())
        found = session.get_inputs()
        inputs = tuple(
            Input(
                f.name,
                tuple(s if isinstance(s, int) else -1 for s in f.shape[1:]),
                _TYPES.get(f.type, "float32"),
            )
            for f in found
        )
        batch = found[0].shape[0] if found and found[0].shape else None
        run = lambda fed: session.run(None, {f.name: x for f, x in zip(found, fed, strict=True)})[0]
        return _signed(inputs, signature), run, batch if isinstance(batch, int) else None
    network = load(path)

    def run_torch(fed: tuple[np.ndarray, ...]) -> np.ndarray:
        with torch.no_grad():
            output = network(*map(torch.from_numpy, fed))
        return (output if isinstance(output, torch.Tensor) else output[0]).float().numpy()

    shapes = input_shapes(network) or ()
    names = ["input"] if len(shapes) == 1 else [f"input_{i}" for i in range(len(shapes))]
    inputs = tuple(
        Input(name, tuple(-1 if s is None else s for s in shape))
        for name, shape in zip(names, shapes, strict=True)
    )
    return _signed(inputs, signature), run_torch, fixed_batch(network)


def _signed(inputs: tuple[Input, ...], signature: Signature | None) -> tuple[Input, ...]:
    return inputs if signature is None else signature.inputs


_TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(uint8)": "uint8",
    "tensor(int8)": "int8", "tensor(int32)": "int32", "tensor(int64)": "int64", "tensor(bool)": "bool",
}  # fmt: skip


def _predictions(
    file: str, signature: Signature | None, rows: tuple[str, ...], outputs: np.ndarray, truth: np.ndarray | None,
    notes: tuple[str, ...],
) -> Predictions:  # fmt: skip
    kind = signature.kind if signature else ""
    names = _names(signature, outputs.shape[1])
    scores, judged = ({}, 0) if truth is None else _scores(outputs, truth, kind)
    if truth is not None and kind == "classification" and (truth == -1).any():
        notes = (
            *notes,
            f"{int((truth == -1).sum()):,} rows belong to a class that the network does not know",
        )
    made = Predictions(file, kind, rows, names, scores=scores, judged=judged, notes=notes)
    logits = torch.from_numpy(outputs).double()
    fields: dict[str, Any] = {"values": outputs}
    if kind == "classification":
        chosen = tuple(names[i] for i in logits.argmax(1).tolist())
        fields = {"classes": chosen, "probabilities": _probabilities(logits).numpy()}
    elif kind == "multilabel":
        fields = {"probabilities": logits.sigmoid().numpy()}
    return Predictions(**{**made.__dict__, **fields})


def _probabilities(outputs: torch.Tensor) -> torch.Tensor:
    """By softmax, unless the network gives probabilities itself."""
    already = bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-4).all())
    return outputs if already else outputs.softmax(1)


def _names(signature: Signature | None, width: int) -> tuple[str, ...]:
    """What the outputs are called."""
    if signature is not None and len(signature.classes) == width:
        return signature.classes
    stem = {"multilabel": "label", "classification": "class"}.get(
        signature.kind if signature else "", "value"
    )
    if signature is not None and width == 1:
        return (signature.target or stem,)
    return tuple(f"{stem}_{i}" for i in range(width))


def _scores(outputs: np.ndarray, truth: np.ndarray, kind: str) -> tuple[dict[str, float], int]:
    """Accuracy, or R2, MAE and RMSE, over the rows whose truth is known; how many those are."""
    known = ~np.isnan(truth.reshape(len(truth), -1)).any(1)
    count = int(known.sum())
    if not count or not kind:
        return {}, 0
    given, right = torch.from_numpy(outputs[known]), torch.from_numpy(truth[known])
    if kind == "classification":
        if right.dim() > 1:
            right = right.reshape(len(right))
        return {"accuracy": (given.argmax(1) == right).double().mean().item()}, count
    if right.numel() != given.numel():
        raise BadInput(
            f"the file gives {given.shape[1]} values a row, but the truth has {right.numel() // len(right)}"
        )
    figures = score(given, right.float() if kind == "regression" else right.reshape(given.shape), kind)
    names = ("accuracy",) if kind == "multilabel" else ("r2", "mae", "rmse")
    return {name: figures[name] for name in names}, count


def run(file: Path, data: str, out: Path | None, target: str | None, view: Any) -> Predictions:
    """The command: predictions into a CSV file, or the first on the terminal, and how right they are."""
    with view.working(f"predicting with {file.name}") as listener, progress.listen(listener):
        found = predict(file, data, target)
    if out is None:
        view.table(found.table(_SHOWN))
        if len(found) > _SHOWN:
            view.say(
                f"... and {number_of(len(found) - _SHOWN, 'more row')}; --out predictions.csv has them all"
            )
    else:
        found.to_csv(out)
        view.say(f"wrote {out}: {number_of(len(found), 'row')}")
    for note in found.notes:
        view.say(f"note: {note}")
    if found.scores:
        view.say(found.judgement)
    return found
