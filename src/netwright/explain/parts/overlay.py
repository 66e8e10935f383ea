"""A heat map over its picture, as RGB pixels or PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from torch import Tensor

# nine points of the 'inferno' colour map, which is even to the eye and readable in grey
_COLOURS = np.array(
    [
        (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85),
        (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
    ]
)  # fmt: skip


def colours(heat: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (H, W) -> colours (H, W, 3) in [0, 255]."""
    at = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(heat, at, _COLOURS[:, i]) for i in range(3)], -1)


def overlay(image: Tensor, heat: Tensor, opacity: float = 0.75) -> np.ndarray:
    """uint8 pixels (H, W, 3): the picture in its own colours, warmer where the map is higher.

    image: (C, H, W), of any scale, normalised or not; of other than 3 channels the mean is drawn in grey.
    heat: (H, W) in [0, 1]. Where it is 0 the picture is untouched.
    """
    pixels = image.detach().cpu().double().numpy()
    if pixels.shape[0] != 3:
        pixels = np.repeat(pixels.mean(0, keepdims=True), 3, 0)
    low, high = pixels.min(), pixels.max()
    pixels = 255 * (pixels - low) / (high - low if high > low else 1.0)
    weight = heat.detach().cpu().double().clamp(0, 1).numpy()
    mix = opacity * weight[..., None]
    blended = pixels.transpose(1, 2, 0) * (1 - mix) + colours(weight) * mix
    return blended.round().astype(np.uint8)


def png(image: Tensor, heat: Tensor, side: int = 112) -> bytes:
    """`overlay` as a PNG file. Small pictures are enlarged a whole number of times, to at most `side` pixels."""
    picture = Image.fromarray(overlay(image, heat))
    scale = max(1, side // max(picture.size))
    buffer = io.BytesIO()
    enlarged = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    enlarged.save(buffer, format="PNG")
    return buffer.getvalue()
