"""Which class and which split each picture belongs to, read from its path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netwright.core.errors import BadInput

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_ROLES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """names (N,) of the pictures; labels (N,) into classes; roles (N,): 'train', 'val', 'test', or '' for all."""

    names: tuple[str, ...]
    labels: tuple[int, ...]
    roles: tuple[str, ...]
    classes: tuple[str, ...]


def is_picture(name: str) -> bool:
    """By its suffix; hidden files and folders, and the copies that macOS packs beside them, are not."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and parts[-1].lower().endswith(SUFFIXES)


def arrange(names: Sequence[str], what: str, classes: Sequence[str] = (), partial: bool = False) -> Layout:
    """<class>/.../<picture>, or <split>/<class>/.../<picture> with a split 'train'. Common top folders are ignored.

    The pictures stay in the order given. classes: the folders' names in the order of the labels, default sorted.
    partial: pictures that nothing learns from, which need not be of several classes.
    """
    kept = [name for name in names if is_picture(name)]
    if not kept:
        raise BadInput(
            f"{what} holds no images; expected one sub-folder a class with {', '.join(SUFFIXES[:3])}, ..."
        )
    paths = [name.split("/") for name in kept]
    while len({path[0] for path in paths}) == 1 and min(map(len, paths)) >= 3:
        paths = [path[1:] for path in paths]
    tops = {path[0].lower() for path in paths}
    divided = tops <= set(_ROLES) and len(tops) > 1 and any(_ROLES[top] == "train" for top in tops)
    roles = tuple(_ROLES[path[0].lower()] if divided else "" for path in paths)
    below = [path[1:] if divided else path for path in paths]
    for name, path in zip(kept, below, strict=True):
        if len(path) < 2:
            raise BadInput(f"{what}: image '{name}' lies in no class folder; expected one sub-folder a class")
    trained = {p[0] for p, role in zip(below, roles, strict=True) if role in ("", "train")}
    known = tuple(classes) or tuple(sorted(trained))
    labels = []
    for name, path in zip(kept, below, strict=True):
        if path[0] not in known:
            raise BadInput(f"{what}: the class '{path[0]}' of '{name}' does not occur in the training split")
        labels.append(known.index(path[0]))
    if len(trained) < 2 and not partial:
        raise BadInput(f"{what} has one class only ('{min(trained)}'); there is nothing to learn")
    return Layout(tuple(kept), tuple(labels), roles, known)
