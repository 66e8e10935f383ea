"""Architectures, built by name, shape and size. Each is a Model: a frozen dataclass with a `build`.

    build("resnet", (1, 28, 28), 10, size=200_000)

Nothing here imports torch before a network is built.
"""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from netwright.core import catalogue
from netwright.core.errors import UnknownName

if TYPE_CHECKING:
    from torch import nn

_HOMES = {
    "mlp": "netwright.models.mlp:MLP",
    "cnn": "netwright.models.cnn:CNN",
    "resnet": "netwright.models.resnet:ResNet",
    "dscnn": "netwright.models.dscnn:DSCNN",
    "vit": "netwright.models.vit:ViT",
    "lstm": "netwright.models.lstm:LSTM",
    "text-transformer": "netwright.models.text_transformer:TextTransformer",
    "causal-transformer": "netwright.models.causal_transformer:CausalTransformer",
    "vanillanet": "netwright.models.vanillanet:VanillaNet",
}


def names() -> tuple[str, ...]:
    """What `build` knows: those above, and the architectures of papers."""
    return (*_HOMES, *(row.slug for row in catalogue.of_goal("models")))


def recipe(name: str) -> type:
    """The Model of this name (its fields are the configuration)."""
    homes = _HOMES | {row.slug: row.path for row in catalogue.of_goal("models")}
    if name not in homes:
        raise UnknownName("model", name, homes, "`netwright models` lists them.")
    module, _, kind = homes[name].partition(":")
    return getattr(importlib.import_module(module), kind)


def build(
    name: str, shape: tuple[int, ...], outputs: int, size: int | None = None, **config: Any
) -> nn.Module:
    """A new network with random weights (torch's global generator: wrap in `core.network.seeded`).

    shape: of one example: (C, H, W) images of 8x8 or more, (T, F) sequences for `lstm`, (T,) token ids for
    `text-transformer` and `causal-transformer`, anything for `mlp`. outputs: width of the output. size: parameters
    aimed at; the width is then chosen to come nearest. config: the fields of the Model, such as `widths` or `depth`.
    """
    kind = recipe(name)
    known = [f.name for f in fields(kind)]
    for key in config:
        if key not in known:
            raise UnknownName(f"setting of {name}", key, known, f"It has {', '.join(known)}.")
    return kind(**config).build(tuple(shape), outputs, size)


model = build  # the front door's name for it: nw.model("resnet", ...)
