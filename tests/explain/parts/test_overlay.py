from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from netwright.explain.parts.overlay import overlay, png


def test_untouched_where_the_map_is_nothing_and_coloured_where_it_is_high() -> None:
    image = torch.linspace(-2, 3, 3 * 4 * 5).view(3, 4, 5)
    heat = torch.zeros(4, 5)
    plain = overlay(image, heat)
    assert plain.shape == (4, 5, 3)
    assert plain.dtype == np.uint8
    assert plain.min() == 0
    assert plain.max() == 255
    heat[1, 2] = 1.0
    marked = overlay(image, heat, opacity=1.0)
    assert marked[1, 2].tolist() == [252, 255, 164]
    changed = (marked != plain).any(-1)
    assert changed.sum() == 1


def test_one_channel_is_grey_and_a_flat_picture_is_fine() -> None:
    pixels = overlay(torch.rand(1, 6, 6), torch.zeros(6, 6))
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert overlay(torch.ones(3, 2, 2), torch.zeros(2, 2)).max() == 0


def test_png_holds_the_pixels() -> None:
    image, heat = torch.rand(3, 4, 5), torch.rand(4, 5)
    for side, scale in ((17, 3), (2, 1)):
        back = np.array(Image.open(io.BytesIO(png(image, heat, side))))
        assert back.shape == (4 * scale, 5 * scale, 3)
        for row in range(scale):
            for column in range(scale):
                assert np.array_equal(back[row::scale, column::scale], overlay(image, heat))
