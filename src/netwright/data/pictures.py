"""The user's pictures: a folder, zip or tar with one sub-folder a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from netwright.core.division import Division, cut, divide, halves
from netwright.core.errors import BadInput
from netwright.core.signature import Input
from netwright.core.split import Normalise, Split
from netwright.core.task import Task
from netwright.data.archive import LARGEST, Member, members
from netwright.data.decode import Broken, header, parse_size, pixels
from netwright.data.layout import Layout, arrange, is_picture
from netwright.data.mapped import MappedSplit, channel_moments
from netwright.data.rows import Rows, cached_rows

_LOOKED_AT = 100  # pictures whose kind decides between grey and colour


class Source(NamedTuple):
    """Anything that lists pictures as members, as often as it is asked; what: what to call it."""

    what: str
    members: Callable[[], Iterable[Member]]


def load(
    path: Path,
    seed: int = 0,
    limit: int | None = None,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
    unseen: str | Path | None = None,
) -> Task:
    """Images (C, H, W) uint8, decoded once into a cache on disk and read from there batch by batch.

    Sub-folders train, val and test are honoured; where one of val and test is missing the other is halved, where both
    are, 15 % each are divided off. unseen: pictures in the same class folders, whose halves are validation and test;
    then all others are for training. size: default that of the first picture. channels: 1 or 3, default 3 unless the
    pictures are grey. Normalised by the training pictures' mean and deviation.
    """
    fresh = None if unseen is None else _source(Path(unseen))
    return task_of_pictures(_source(path), path.stem or str(path), seed, limit, size, channels, unseen=fresh)


def _source(path: Path) -> Source:
    return Source(str(path), lambda: members(path))


def task_of_pictures(
    source: Source, name: str, seed: int, limit: int | None, size: int | str | tuple[int, int] | None,
    channels: int | None, classes: Sequence[str] = (), unseen: Source | None = None,
) -> Task:  # fmt: skip
    """A task from anything that lists pictures as members."""
    if channels not in (None, 1, 3, "1", "3"):
        raise BadInput(f"channels must be 1 or 3, got {channels}")
    stamps = _stamps(source)
    layout = arrange(list(stamps), source.what, classes)
    parts, division = divide_pictures(layout, seed, limit, source.what, unseen is not None)
    rows = torch.cat(list(parts.values())).sort().values  # all of them, unless there is a limit
    labels = {layout.names[i]: layout.labels[i] for i in rows.tolist()}
    shape = _shape(source, list(labels), size, channels)
    images, y = _held(source, labels, stamps, shape)
    place = torch.full((len(layout.names),), -1)
    place[rows] = torch.arange(len(rows))
    index = {role: place[part] for role, part in parts.items()}
    normalise = Normalise(*channel_moments(images, index["train"]), scale=1 / 255)
    splits: dict[str, Split] = {r: MappedSplit(images, y[i], i, normalise) for r, i in index.items()}
    if unseen is not None:
        splits |= _judging(unseen, layout.classes, shape, seed, normalise)
    return Task(
        name, "classification", splits["train"], splits["val"], splits["test"], len(layout.classes),
        layout.classes, "image", normalise, division=division, inputs=(Input("input", shape, layout="CHW"),),
    )  # fmt: skip


def _stamps(source: Source) -> dict[str, tuple[int, int]]:
    return {m.name: (m.size, m.changed) for m in source.members() if is_picture(m.name)}


def _held(
    source: Source, labels: dict[str, int], stamps: dict[str, tuple[int, int]], shape: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """These pictures (N, C, H, W) from the cache, and their labels (N,)."""
    key = ("pictures", source.what, *((n, label, *stamps[n]) for n, label in labels.items()))
    return cached_rows(key, shape, lambda: [("all", _rows(source, labels, shape))])["all"]


def _judging(
    unseen: Source, classes: tuple[str, ...], shape: tuple[int, int, int], seed: int, normalise: Normalise
) -> dict[str, Split]:
    """Validation and test: the halves of pictures that the network has not seen. Of a divided folder, not its
    training pictures."""
    stamps = _stamps(unseen)
    layout = arrange(list(stamps), unseen.what, classes, partial=True)
    named = zip(layout.names, layout.labels, layout.roles, strict=True)
    images, y = _held(unseen, {n: label for n, label, role in named if role != "train"}, stamps, shape)
    val, test = halves(y, seed, stratify=True)
    return {r: MappedSplit(images, y[i], i, normalise) for r, i in (("val", val), ("test", test))}


def divide_pictures(
    layout: Layout, seed: int, limit: int | None, what: str, all_train: bool = False
) -> tuple[dict[str, torch.Tensor], Division]:
    """Indices per split: as the folders say (core/division.py); all_train: the training part alone, the judging
    pictures come from elsewhere."""
    y = torch.tensor(layout.labels)
    by = {
        role: torch.tensor([i for i, r in enumerate(layout.roles) if r == role], dtype=torch.int64)
        for role in ("", "train", "val", "test")
    }
    by["train"] = torch.cat([by.pop(""), by["train"]])
    if all_train:
        return {"train": cut(by["train"], seed, limit)}, "halved"
    places, division = divide({r: y[i] for r, i in by.items() if len(i) or r == "train"}, seed, stratify=True)
    parts = {role: by[source][index] for role, (source, index) in places.items()}
    parts["train"] = cut(parts["train"], seed, limit)
    for role, part in parts.items():
        if len(part) == 0:
            raise BadInput(
                f"{what}: the {role} split is empty; {len(layout.names)} images are too few to divide"
            )
    return parts, division


class Picture(NamedTuple):
    """pixels (C, H, W) uint8; label: the number of the class whose folder it lies in, None where it lies in none."""

    name: str
    label: int | None
    pixels: np.ndarray


def read_pictures(path: Path, shape: tuple[int, int, int], classes: Sequence[str] = ()) -> Iterator[Picture]:
    """The pictures of a folder, zip or tar one at a time, brought to (C, H, W) just as a task's are."""
    numbers = {name: i for i, name in enumerate(classes)}
    for member in members(path):
        if is_picture(member.name):
            label = next((numbers[part] for part in member.name.split("/")[:-1] if part in numbers), None)
            try:
                yield Picture(member.name, label, _pixels(member, shape))
            except (Broken, OSError) as error:
                raise BadInput(f"{path}: {member.name} is broken ({error})") from error


def _shape(
    source: Source, names: list[str], size: int | str | tuple[int, int] | None, channels: int | None
) -> tuple[int, int, int]:  # fmt: skip
    """(C, H, W) from the options, else from the headers of some pictures."""
    if size is not None and channels is not None:
        return (int(channels), *parse_size(size))
    looked = set(names[:: max(1, len(names) // _LOOKED_AT)])
    found = []
    for member in source.members():
        if member.name in looked and member.size <= LARGEST:
            try:
                found.append(header(member.read()))
            except (Broken, OSError):
                continue  # the decoding names all that are broken
    if not found:
        raise BadInput(f"{source.what}: none of the image files can be read as an image ('{names[0]}', ...)")
    depth = int(channels) if channels is not None else 1 if all(h.grey for h in found) else 3
    return (depth, *(parse_size(size) if size is not None else (found[0].height, found[0].width)))


def _rows(source: Source, labels: dict[str, int], shape: tuple[int, int, int]) -> Rows:
    return Rows(len(labels), lambda: _decoded(source, labels, shape))


def _decoded(
    source: Source, labels: dict[str, int], shape: tuple[int, int, int]
) -> Iterator[tuple[np.ndarray, int]]:
    """Every picture in the source's order; at the end one error that names those that are broken."""
    broken = []
    for member in source.members():
        if member.name not in labels:
            continue
        try:
            yield _pixels(member, shape), labels[member.name]
        except (Broken, OSError) as error:
            broken.append(f"{member.name} ({error})" if len(broken) < 3 else member.name)
            yield np.zeros(shape, np.uint8), labels[member.name]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise BadInput(
            f"{source.what}: {len(broken)} of {len(labels):,} images are broken: {', '.join(broken[:3])}{more}. "
            "Remove or replace them"
        )


def _pixels(member: Member, shape: tuple[int, int, int]) -> np.ndarray:
    if member.size > LARGEST:
        raise Broken(f"larger than {LARGEST >> 20} MB")
    return pixels(member.read(), shape)
