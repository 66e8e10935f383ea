"""A task: data in three splits, a loss, metrics, the input's shape and meaning."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from netwright.core.division import Division, divide
from netwright.core.errors import BadInput, NotApplicable
from netwright.core.signature import Input, Signature
from netwright.core.split import ArraySplit, LoaderSplit, Normalise, Permute, Split, first, sample

Kind = Literal["classification", "multilabel", "regression"]
Meaning = Literal["image", "sequence", "tokens", "table", "other"]

PRIMARY: dict[str, str] = {"classification": "accuracy", "multilabel": "accuracy", "regression": "r2"}


@dataclass(frozen=True)
class Task:
    """What a network is for.

    kind: classification (targets (B,) int64; (B, T) where each position has its own, as for language), multilabel
    (targets (B, L) of 0/1), regression ((B[, O]) float).
    outputs: width of the network's output (classes, labels or values).
    meaning: what an input is; pictures are drawn for images only.
    normalise: applied to the first input of every batch already; exported networks carry it in front (see `front`).
    axes: how exported files lay out their first input, where otherwise than a batch here: (0, 2, 3, 1) for NHWC.
    augment: (batch, generator) -> batch, for training only.
    division: where validation and test rows come from (see `unseen`).
    inputs: names, layouts and a table's features, for the signature of exported files; () where nothing is known
    beyond the shapes. target: the name of the column that is predicted. missing: how missing values were filled.
    """

    name: str
    kind: Kind
    train: Split
    val: Split
    test: Split
    outputs: int
    classes: tuple[str, ...] = ()
    meaning: Meaning = "other"
    normalise: Normalise | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    note: str = ""
    division: Division = "given"
    inputs: tuple[Input, ...] = ()
    target: str = ""
    missing: str = ""
    axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for role in ("train", "val", "test"):
            if len(getattr(self, role)) == 0:
                raise BadInput(f"task '{self.name}': the {role} split is empty")

    @property
    def primary(self) -> str:
        """The metric that a drop is counted in; higher is better."""
        return PRIMARY[self.kind]

    @property
    def unseen(self) -> bool:
        """Whether validation and test rows are none that a network trained elsewhere can have learned from."""
        return self.division != "ours"

    @property
    def signature(self) -> Signature:
        """What an exported file takes and gives: the data as `raw` has them, normalised inside."""
        given = self.inputs or tuple(
            Input(f"input_{i}" if len(self.input_shapes) > 1 else "input", shape)
            for i, shape in enumerate(self.input_shapes)
        )
        raw = self.raw().example()
        inputs = tuple(
            replace(
                i,
                shape=tuple(t.shape[1:]),
                type=str(t.dtype).removeprefix("torch."),
                layout=i.layout or _LAYOUTS.get((self.meaning, t.dim() - 1), ""),
            )
            for i, t in zip(given, raw, strict=True)
        )
        if self.meaning == "image" and _stored_type(self.val) == torch.uint8:
            inputs = (replace(inputs[0], pixels=True), *inputs[1:])
        letters = inputs[0].layout
        if self.axes and len(letters) == len(self.axes) - 1:
            moved = "".join(letters[a - 1] for a in self.axes[1:])
            inputs = (replace(inputs[0], layout=moved), *inputs[1:])
        n = self.normalise
        inside = None if n is None else {"mean": n.mean.tolist(), "std": n.std.tolist(), "scale": n.scale}
        if n is not None and n.channels:
            inside = {**(inside or {}), "channels": list(n.channels)}
        return Signature(
            self.kind, self.meaning, inputs, _OUTPUTS[self.kind].format(self.outputs), self.classes, inside,
            self.target, self.missing,
        )  # fmt: skip

    def example(self, count: int = 1) -> tuple[Tensor, ...]:
        """Inputs of the first validation examples, as a tuple of tensors (count, ...)."""
        return first(self.val, count)

    @cached_property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each input without the batch."""
        return tuple(tuple(t.shape[1:]) for t in self.example())

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input without the batch."""
        return self.input_shapes[0]

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of a batch: cross entropy, binary cross entropy or squared error."""
        if self.kind == "classification":
            return F.cross_entropy(*by_position(outputs, targets), label_smoothing=label_smoothing)
        if self.kind == "multilabel":
            soft = targets.float() * (1 - label_smoothing) + label_smoothing / 2
            return F.binary_cross_entropy_with_logits(outputs, soft)
        return F.mse_loss(outputs.reshape(targets.shape), targets.float())

    def raw(self) -> Task:
        """The same task as exported files take it: without normalisation, since they carry it themselves, as floats of
        the data's own scale (pixels: 0 to 255), laid out as `axes` say."""
        bare = self.fed(None) if self.normalise is not None else self
        if not self.axes:
            return bare
        splits: dict[str, Any] = {
            role: _then(getattr(bare, role), Permute(self.axes)) for role in ("train", "val", "test")
        }
        return replace(bare, axes=(), **splits)

    def fed(self, way: Normalise | None) -> Task:
        """The same task, normalised in another way; None: floats of the data's own scale."""
        prepare = way if way is not None else Normalise([0.0], [1.0])
        splits: dict[str, Any] = {
            role: replace(getattr(self, role), prepare=prepare) for role in ("train", "val", "test")
        }
        return replace(self, normalise=way, **splits)

    @property
    def front(self) -> nn.Module | None:
        """What stands before the network in an exported file, so that it takes what `raw` gives; None for nothing."""
        if not self.axes:
            return self.normalise
        back = Permute([self.axes.index(i) for i in range(len(self.axes))])
        return back if self.normalise is None else nn.Sequential(back, self.normalise)

    def fingerprint(self) -> str:
        """A short hash of the splits: their sizes, all targets at hand and examples from all over them. Tells whether
        a study may continue."""
        digest = hashlib.sha256(repr((self.name, self.kind, self.outputs)).encode())
        for split in (self.train, self.val, self.test):
            digest.update(str(len(split)).encode())
            for tensor in sample(split):
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        val: tuple[Any, Any] | None = None,
        test: tuple[Any, Any] | None = None,
        name: str = "arrays",
        kind: Kind | None = None,
        classes: Sequence[str] = (),
        normalise: Normalise | None = None,
        meaning: Meaning | None = None,
        seed: int = 0,
    ) -> Task:
        """From numpy arrays or tensors. One of val and test given: it is halved, and x, y are all for training.
        Neither: 15 % of x, y each (core/division.py); a network that was trained elsewhere may have seen those rows.

        x: (N, ...) float or uint8, or a tuple of such arrays; y: (N,) integers (classification),
        (N, L) of 0 and 1 (multi-label) or floats (regression). Integers of other types become int64.
        """
        from netwright.core.checks import as_inputs, as_targets, check_classes, guess_kind

        x_train, y_train = as_inputs(x, f"{name}: x"), as_targets(y, f"{name}: y")
        kind = kind or guess_kind(y_train)
        parts = {"train": (x_train, y_train)}
        for role, given in (("val", val), ("test", test)):
            if given is not None:
                parts[role] = (
                    as_inputs(given[0], f"{name}: {role} x"),
                    as_targets(given[1], f"{name}: {role} y"),
                )
        for role, (xs, ys) in parts.items():
            if len(xs[0]) != len(ys):
                raise BadInput(
                    f"{name}: x and y of {role} have different lengths: {len(xs[0])} and {len(ys)}"
                )
        outputs, classes = check_classes({r: p[1] for r, p in parts.items()}, kind, tuple(classes), name)
        places, division = divide({r: ys for r, (_, ys) in parts.items()}, seed, kind == "classification")
        parts = {
            role: (tuple_at(parts[source][0], index), parts[source][1][index])
            for role, (source, index) in places.items()
        }
        shape = x_train[0].shape[1:]
        guess: Meaning = (
            "image" if len(shape) == 3 and shape[0] in (1, 3) else "table" if len(shape) == 1 else "other"
        )
        splits: dict[str, Any] = {role: ArraySplit(xs, ys, normalise) for role, (xs, ys) in parts.items()}
        return cls(
            name=name, kind=kind, outputs=outputs, classes=classes, meaning=meaning or guess,
            normalise=normalise, division=division, **splits,
        )  # fmt: skip

    @classmethod
    def from_loaders(
        cls,
        train: DataLoader[Any],
        val: DataLoader[Any] | None = None,
        test: DataLoader[Any] | None = None,
        *,
        classes: Sequence[str] = (),
        kind: Kind = "classification",
        outputs: int | None = None,
        name: str = "loaders",
        meaning: Meaning | None = None,
        seed: int = 0,
    ) -> Task:
        """From the user's own DataLoaders, whose batches are (input, target) or (input_1, ..., target).

        One of val and test given: it is halved. Neither: 15 % of train each, which a network that was trained
        elsewhere may have seen.
        """
        given = {"train": train, "val": val, "test": test}
        splits: dict[str, Any] = {r: LoaderSplit(loader) for r, loader in given.items() if loader is not None}
        division: Division = "given"
        if len(splits) < 3:
            splits, division = _divided(splits, kind, seed, name)
        for role, split in splits.items():
            if len(split) == 0:
                raise BadInput(f"task '{name}': the {role} split is empty")
        if outputs is None:
            outputs = len(classes) or count_outputs(splits["train"], kind)
        names = tuple(classes) or (tuple(str(c) for c in range(outputs)) if kind == "classification" else ())
        shape = first(splits["val"], 1)[0].shape[1:]
        guess: Meaning = "image" if len(shape) == 3 and shape[0] in (1, 3) else "other"
        return cls(
            name=name, kind=kind, outputs=outputs, classes=names, meaning=meaning or guess, division=division,
            **splits,
        )  # fmt: skip


def by_position(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, C) with a target for each position, (B, T), as (B * T, C) and (B * T,); others as they are."""
    if targets.dim() > 1 and outputs.shape[:-1] == targets.shape:
        return outputs.flatten(0, -2), targets.flatten()
    return outputs, targets


_LAYOUTS = {("image", 3): "CHW", ("table", 1): "F", ("tokens", 1): "T", ("sequence", 2): "TF"}

_OUTPUTS = {
    "classification": "logits of {} classes; softmax makes probabilities of them",
    "multilabel": "logits of {} labels; sigmoid makes probabilities of them",
    "regression": "{} value(s)",
}


def _then(split: Any, step: nn.Module) -> Split:
    """The split, with one more step after what prepares its batches."""
    return replace(split, prepare=step if split.prepare is None else nn.Sequential(split.prepare, step))


def _stored_type(split: Split) -> torch.dtype | None:
    """The type of the first input before it is prepared; None where only batches are to be had."""
    held = getattr(split, "images", None)  # mapped from a file (data/mapped.py)
    if held is None and isinstance(split, ArraySplit):
        held = split.inputs[0]
    return None if held is None else held.dtype


def tuple_at(tensors: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, ...]:
    return tuple(t[index] for t in tensors)


def _divided(splits: dict[str, Split], kind: Kind, seed: int, name: str) -> tuple[dict[str, Split], Division]:
    """Three splits from the one or two that are given; reads the targets of what is cut, once."""
    cut = next((role for role in ("val", "test") if role in splits), "train")
    try:
        targets = {role: torch.arange(len(split)) for role, split in splits.items()}
        targets[cut] = torch.cat([y for _, y in splits[cut].batches(256)])
        places, division = divide(targets, seed, kind == "classification")
        parts = {role: splits[at] if at != cut else splits[at].select(i) for role, (at, i) in places.items()}
    except NotApplicable as reason:
        raise BadInput(
            f"task '{name}': give val and test too, for train cannot be divided ({reason})"
        ) from None
    return parts, division


def count_outputs(split: Split, kind: Kind) -> int:
    """Width of the output, read from the targets."""
    top = 0
    for _, targets in split.batches(256):
        if kind != "classification":
            return 1 if targets.dim() == 1 else targets.shape[1]
        top = max(top, int(targets.max()))
    return top + 1
