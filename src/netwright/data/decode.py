"""Bytes of an image file -> pixels."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from netwright.core.errors import BadInput

LARGEST = 50_000_000  # pixels; a small file can announce an image that fills the memory
_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")


class Broken(Exception):
    """This file is no usable image."""


class Header(NamedTuple):
    height: int
    width: int
    grey: bool


def header(data: bytes) -> Header:
    """Size and kind, without decoding the pixels."""
    with _open(data) as image:
        try:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception as error:  # a damaged block of EXIF raises whatever its parser met
            raise Broken(f"damaged EXIF: {error}") from error
        width, height = image.size if not turned else image.size[::-1]
        return Header(height, width, image.mode in _GREY)


def pixels(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """(C, H, W) uint8 with C 1 or 3: turned upright, resized to H x W (bilinear, the aspect may change)."""
    channels, height, width = shape
    with _open(data) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                deep = np.asarray(upright, dtype=np.uint16) >> 8
                upright = Image.fromarray(deep.astype(np.uint8))
            flat = upright.convert("L" if channels == 1 else "RGB")
            if flat.size != (width, height):
                flat = flat.resize((width, height), Image.Resampling.BILINEAR)
            values = np.asarray(flat)
        except Exception as error:  # decoders raise whatever their formats inspire
            raise Broken(str(error)) from error
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:
        raise Broken(
            "not an image" if not str(error) or "cannot identify" in str(error) else str(error)
        ) from error
    if image.size[0] * image.size[1] > LARGEST:
        raise Broken(f"{image.size[0]}x{image.size[1]} is more than {LARGEST:,} pixels")
    return image


def parse_size(size: int | str | tuple[int, int]) -> tuple[int, int]:
    """32, '32', '32x48' or (32, 48): height and width."""
    try:
        numbers = (
            [int(part) for part in size.lower().split("x")]
            if isinstance(size, str)
            else [size] if isinstance(size, int) else [int(n) for n in size]
        )  # fmt: skip
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or min(numbers) < 1:
        raise BadInput(f"size={size}: write 32 or 32x48 (height x width)")
    return numbers[0], numbers[1]
