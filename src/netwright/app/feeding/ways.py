"""Ways to feed a network that one task leaves open: scales, orders of colours and axes, orders and codes of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from netwright.core.signature import Feature, Input
from netwright.core.split import ArraySplit, Normalise, first, take
from netwright.core.task import Task

AS_THEY_ARE = "columns as they are"
_ROLES = ("train", "val", "test")
_SEEN = 5_000  # training rows whose range and moments count
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_CAFFE = ([103.939, 116.779, 123.68], [1.0, 1.0, 1.0])  # of BGR, from 0 to 255


@dataclass(frozen=True)
class Way:
    """label: 'fed as pixels from 0 to 1, as BGR'. feed: the task, fed so."""

    label: str
    feed: Callable[[Task], Task]


def ways(task: Task) -> list[Way]:
    """What there is to try beside the task as it stands. Data that come from a DataLoader stay as they are."""
    if not all(hasattr(getattr(task, role), "prepare") for role in _ROLES):
        return []
    if any(hasattr(getattr(task, role), "loader") for role in _ROLES) or len(task.input_shapes) != 1:
        return []
    if not task.raw().example()[0].is_floating_point():
        return []
    if task.meaning == "image" and len(task.input_shape) == 3:
        return _of_pictures(task)
    if task.meaning == "table" and len(task.input_shape) == 1:
        return _of_tables(task)
    return []


def _fed(way: Normalise | None) -> Callable[[Task], Task]:
    return lambda task: task.fed(way)


def _of_pictures(task: Task) -> list[Way]:
    """Scales, each with the colours in both orders; then axes exchanged."""
    found = []
    for name, mean, std, scale in _scales(task):
        channels = task.input_shape[0]
        both: tuple[tuple[int, ...], ...] = ((), (2, 1, 0)) if channels == 3 else ((),)
        for order in both:
            kept = order and len(mean) == 3
            way = Normalise(
                [mean[c] for c in order] if kept else mean,
                [std[c] for c in order] if kept else std,
                scale,
                order,
            )
            found.append(Way(name + (", as BGR" if order else ""), _fed(way)))
    low, _, unit, _ = _range(task)
    if task.input_shape[0] == 3 and low >= 0:
        caffe = Normalise(*_CAFFE, scale=255 * unit, channels=(2, 1, 0))
        found.append(Way("0 to 255, as BGR, less ImageNet's mean", _fed(caffe)))
    if all(isinstance(getattr(task, role), ArraySplit) for role in _ROLES):
        found.append(Way("height and width exchanged", exchanged))
    return found


def _scales(task: Task) -> Iterator[tuple[str, list[float], list[float], float]]:
    """Name, and (x * scale - mean) / std."""
    low, high, unit, shift = _range(task)
    own = task.normalise
    if own is not None:
        yield "as the task normalises them", own.mean.tolist(), own.std.tolist(), own.scale
    yield f"as they are ({low:g} to {high:g})", [0.0], [1.0], 1.0
    yield "0 to 1", [shift], [1.0], unit
    yield "-1 to 1", [0.5 + shift], [0.5], unit
    yield "0 to 255", [shift / 255 * 255], [1 / 255], unit
    if task.input_shape[0] == 3:
        yield "normalised as ImageNet", [m + shift for m in _IMAGENET[0]], _IMAGENET[1], unit
    if own is None:
        mean, std = _moments(task)
        yield "with mean 0 and deviation 1", [m * unit for m in mean], [s * unit for s in std], unit


def _range(task: Task) -> tuple[float, float, float, float]:
    """Least and greatest value of the data; and unit, shift with x * unit - shift from 0 to 1."""
    x = first(take(task.raw().train, 500, seed=0), 500)[0]
    low, high = x.min().item(), x.max().item()
    if task.normalise is not None:
        return 0.0, float(round(1 / task.normalise.scale)), task.normalise.scale, 0.0
    if low >= 0:
        return (0.0, 1.0, 1.0, 0.0) if high <= 1 else (0.0, 255.0, 1 / 255, 0.0)
    if max(-low, high) <= 1:
        return -1.0, 1.0, 0.5, -0.5
    spread = max(high - low, 1e-6)
    return low, high, 1 / spread, low / spread


def _moments(task: Task) -> tuple[list[float], list[float]]:
    """Mean and deviation per channel or column of the data's own numbers."""
    x = first(take(task.raw().train, _SEEN, seed=0), _SEEN)[0].double()
    axes = [a for a in range(x.dim()) if a != 1]
    std = x.std(axes, unbiased=False)
    return x.mean(axes).tolist(), torch.where(std > 1e-9 * x.abs().max().clamp_min(1e-9), std, 1.0).tolist()


def exchanged(task: Task) -> Task:
    """The last two axes of every picture exchanged, for data from programs that count columns first."""
    new = _stored(task, lambda x: x.transpose(2, 3))
    told = task.inputs[0] if task.inputs else Input("input", ())
    return replace(new, inputs=(replace(told, shape=new.input_shape, layout="CWH"), *task.inputs[1:]))


def _stored(task: Task, change: Callable[[Tensor], Tensor]) -> Task:
    """The same task with its first input changed where it is stored."""
    splits: dict[str, Any] = {}
    for role in _ROLES:
        split = getattr(task, role)
        splits[role] = replace(split, inputs=(change(split.inputs[0]), *split.inputs[1:]))
    new = replace(task, **splits)
    if task.inputs:
        new = replace(
            new,
            inputs=(
                replace(task.inputs[0], shape=tuple(splits["val"].inputs[0].shape[1:])),
                *task.inputs[1:],
            ),
        )
    return new


def _of_tables(task: Task) -> list[Way]:
    """Every order of the columns that a network may have been trained with, each on every scale."""
    found = []
    for order, arrange in [("", lambda t: t), *_orders(task)]:
        for scale, way in _COLUMN_SCALES.items():
            label = f"{scale}, {order}" if order else scale
            found.append(Way(label, lambda t, a=arrange, w=way: w(a(t))))
    return found


def _standardised(task: Task) -> Task:
    return task.fed(Normalise(*_moments(task)))


def _numbers_standardised(task: Task) -> Task:
    """Columns of zeros and ones alone stay."""
    x = first(take(task.raw().train, _SEEN, seed=0), _SEEN)[0]
    flags = ((x == 0) | (x == 1)).all(0).tolist()
    mean, std = _moments(task)
    kept = [0.0 if f else m for f, m in zip(flags, mean, strict=True)]
    return task.fed(Normalise(kept, [1.0 if f else s for f, s in zip(flags, std, strict=True)]))


def _from_0_to_1(task: Task) -> Task:
    x = first(take(task.raw().train, _SEEN, seed=0), _SEEN)[0]
    low, high = x.amin(0), x.amax(0)
    return task.fed(Normalise(low.tolist(), torch.where(high > low, high - low, 1.0).tolist()))


_COLUMN_SCALES: dict[str, Callable[[Task], Task]] = {
    "columns as the task has them": lambda task: task,
    AS_THEY_ARE: lambda task: task.fed(None),
    "standardised columns": _standardised,
    "standardised numbers, flags as they are": _numbers_standardised,
    "columns from 0 to 1": _from_0_to_1,
}


def _orders(task: Task) -> list[tuple[str, Callable[[Task], Task]]]:
    """Orders, and codes of texts, by what the task knows of its columns: nothing is known of plain arrays."""
    features = task.inputs[0].features if task.inputs else ()
    if len(features) != task.input_shape[0]:
        return []
    groups = [
        [i for i, _ in members]
        for _, members in groupby(enumerate(features), key=lambda pair: pair[1].column)
    ]
    texts = [g for g in groups if features[g[0]].value is not None]
    numbers = [g for g in groups if features[g[0]].value is None]
    orders = {
        "": groups,
        "in the alphabet's order": sorted(groups, key=lambda g: features[g[0]].column),
    }
    if texts and numbers:
        orders |= {
            "numbers first, then one-hot": numbers + texts,
            "one-hot first, then numbers": texts + numbers,
            "numbers first, in the alphabet's order": sorted(numbers, key=lambda g: features[g[0]].column)
            + sorted(texts, key=lambda g: features[g[0]].column),
        }
    found: list[tuple[str, Callable[[Task], Task]]] = []
    taken = [list(range(len(features)))]
    for name, order in orders.items():
        whole = [i for group in order for i in group]
        if whole not in taken:
            taken.append(whole)
            found.append((name, _picking(whole)))
        if texts:
            dropped = [i for group in order for i in (group[1:] if len(group) > 1 else group)]
            if dropped not in taken:
                taken.append(dropped)
                found.append((_joined(name, "the first value of each text dropped"), _picking(dropped)))
                found.append((_joined(name, "texts as numbers"), _coding(order)))
    return found


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _picking(index: Sequence[int]) -> Callable[[Task], Task]:
    """These columns, in this order."""

    def pick(task: Task) -> Task:
        chosen = list(index)
        new = _stored(task, lambda x: x[:, chosen])
        features = tuple(task.inputs[0].features[i] for i in chosen)
        new = replace(new, inputs=(replace(new.inputs[0], features=features), *task.inputs[1:]))
        n = task.normalise
        if n is None or len(n.mean) == 1:
            return new
        return new.fed(Normalise(n.mean[chosen].tolist(), n.std[chosen].tolist(), n.scale))

    return pick


def _coding(order: Sequence[Sequence[int]]) -> Callable[[Task], Task]:
    """One number for each column: a text's is its place among the column's texts."""

    def code(task: Task) -> Task:
        given = task.inputs[0].features

        def change(x: Tensor) -> Tensor:
            parts = [
                (x[:, list(g)] @ torch.arange(len(g), dtype=x.dtype))[:, None]
                if _is_text(given, g)
                else x[:, list(g)]
                for g in order
            ]
            return torch.cat(parts, 1)

        new = _stored(task, change)
        features = tuple(
            Feature(given[g[0]].column, codes=tuple(str(given[i].value) for i in g))
            if _is_text(given, g)
            else given[i]
            for g in order
            for i in (g[:1] if _is_text(given, g) else g)
        )
        new = replace(new, inputs=(replace(new.inputs[0], features=features), *task.inputs[1:]))
        return new if task.normalise is None else _standardised(replace(new, normalise=None).fed(None))

    return code


def _is_text(features: Sequence[Feature], group: Sequence[int]) -> bool:
    return features[group[0]].value is not None
