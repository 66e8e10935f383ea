"""The user's pictures: a folder, zip or tar with one sub-folder a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from netwright.core.errors import BadInput
from netwright.core.split import Normalise, Split
from netwright.core.task import Task, split_indices
from netwright.data.archive import LARGEST, Member, members
from netwright.data.decode import Broken, header, parse_size, pixels
from netwright.data.division import cut
from netwright.data.layout import Layout, arrange, is_picture
from netwright.data.mapped import MappedSplit, channel_moments
from netwright.data.rows import Rows, cached_rows

_LOOKED_AT = 100  # pictures whose kind decides between grey and colour


def load(
    path: Path,
    seed: int = 0,
    limit: int | None = None,
    size: int | str | tuple[int, int] | None = None,
    channels: int | None = None,
) -> Task:
    """Images (C, H, W) uint8, decoded once into a cache on disk and read from there batch by batch.

    Sub-folders train, val and test are honoured; what is missing of val and test is divided off the training
    pictures (15 % each). size: default that of the first picture. channels: 1 or 3, default 3 unless the pictures
    are grey. Normalised by the training pictures' mean and deviation.
    """
    what = str(path)
    return task_of_pictures(what, path.stem or what, lambda: members(path), seed, limit, size, channels)


def task_of_pictures(
    what: str, name: str, source: Callable[[], Iterable[Member]], seed: int, limit: int | None,
    size: int | str | tuple[int, int] | None, channels: int | None, classes: Sequence[str] = (),
) -> Task:  # fmt: skip
    """A task from anything that lists pictures as members (`source` may be read several times)."""
    if channels not in (None, 1, 3, "1", "3"):
        raise BadInput(f"channels must be 1 or 3, got {channels}")
    stamps = {m.name: (m.size, m.changed) for m in source() if is_picture(m.name)}
    layout = arrange(list(stamps), what, classes)
    parts = divide_pictures(layout, seed, limit, what)
    rows = torch.cat(list(parts.values())).sort().values  # all of them, unless there is a limit
    labels = {layout.names[i]: layout.labels[i] for i in rows.tolist()}
    shape = _shape(what, source, list(labels), size, channels)
    key = ("pictures", what, *((n, label, *stamps[n]) for n, label in labels.items()))
    images, y = cached_rows(key, shape, lambda: [("all", _rows(what, source, labels, shape))])["all"]
    place = torch.full((len(layout.names),), -1)
    place[rows] = torch.arange(len(rows))
    index = {role: place[part] for role, part in parts.items()}
    mean, std = channel_moments(images, index["train"])
    normalise = Normalise(mean, std, scale=1 / 255)
    splits: dict[str, Split] = {r: MappedSplit(images, y[i], i, normalise) for r, i in index.items()}
    return Task(
        name, "classification", splits["train"], splits["val"], splits["test"], len(layout.classes),
        layout.classes, "image", normalise,
    )  # fmt: skip


def divide_pictures(layout: Layout, seed: int, limit: int | None, what: str) -> dict[str, torch.Tensor]:
    """Indices per split: as the folders say, and 15 % each of the rest for what they do not say."""
    y = torch.tensor(layout.labels)
    by = {
        role: torch.tensor([i for i, r in enumerate(layout.roles) if r == role], dtype=torch.int64)
        for role in ("", "train", "val", "test")
    }
    rest = torch.cat([by[""], by["train"]])
    missing = [role for role in ("val", "test") if len(by[role]) == 0]
    pools = split_indices(y[rest], [0.15] * len(missing), seed, stratify=True)
    parts = {"train": cut(rest[pools[0]], seed, limit), "val": by["val"], "test": by["test"]}
    parts |= {role: rest[pool] for role, pool in zip(missing, pools[1:], strict=True)}
    for role, part in parts.items():
        if len(part) == 0:
            raise BadInput(
                f"{what}: the {role} split is empty; {len(layout.names)} images are too few to divide"
            )
    return parts


def _shape(
    what: str, source: Callable[[], Iterable[Member]], names: list[str],
    size: int | str | tuple[int, int] | None, channels: int | None,
) -> tuple[int, int, int]:  # fmt: skip
    """(C, H, W) from the options, else from the headers of some pictures."""
    if size is not None and channels is not None:
        return (int(channels), *parse_size(size))
    looked = set(names[:: max(1, len(names) // _LOOKED_AT)])
    found = []
    for member in source():
        if member.name in looked and member.size <= LARGEST:
            try:
                found.append(header(member.read()))
            except (Broken, OSError):
                continue  # the decoding names all that are broken
    if not found:
        raise BadInput(f"{what}: none of the image files can be read as an image ('{names[0]}', ...)")
    depth = int(channels) if channels is not None else 1 if all(h.grey for h in found) else 3
    return (depth, *(parse_size(size) if size is not None else (found[0].height, found[0].width)))


def _rows(
    what: str, source: Callable[[], Iterable[Member]], labels: dict[str, int], shape: tuple[int, int, int]
) -> Rows:
    return Rows(len(labels), lambda: _decoded(what, source, labels, shape))


def _decoded(
    what: str, source: Callable[[], Iterable[Member]], labels: dict[str, int], shape: tuple[int, int, int]
) -> Iterator[tuple[np.ndarray, int]]:
    """Every picture in the source's order; at the end one error that names those that are broken."""
    broken = []
    for member in source():
        if member.name not in labels:
            continue
        try:
            if member.size > LARGEST:
                raise Broken(f"larger than {LARGEST >> 20} MB")
            yield pixels(member.read(), shape), labels[member.name]
        except (Broken, OSError) as error:
            broken.append(f"{member.name} ({error})" if len(broken) < 3 else member.name)
            yield np.zeros(shape, np.uint8), labels[member.name]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise BadInput(
            f"{what}: {len(broken)} of {len(labels):,} images are broken: {', '.join(broken[:3])}{more}. "
            "Remove or replace them"
        )
