# SPDX-License-Identifier: Apache-2.0
"""Small operations on images [3, H, W] in [0, 1]: save, resize, lay side by side."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .pictures import read_picture, to_uint8, write_png

__all__ = ["read_picture", "resize", "save_png", "side_by_side"]


def save_png(path: Path, image: Tensor) -> None:
    """Write an image as 8-bit PNG, floor(255 x + 0.5) clamped, atomically."""
    write_png(path, to_uint8(image))


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """An image at another size in pixels; bilinear, averaging over what falls into a pixel when it shrinks."""
    if image.shape[1:] == (height, width):
        return image
    return interpolate(image[None], (height, width), mode="bilinear", align_corners=False, antialias=True)[0]


def side_by_side(images: Sequence[Tensor], gap: int = 4) -> Tensor:
    """Images in a row at the height of the first, `gap` white pixels between them."""
    height = images[0].shape[1]
    fitting = [resize(image, max(1, round(image.shape[2] * height / image.shape[1])), height) for image in images]
    white = torch.ones(3, height, gap)
    return torch.cat([part for image in fitting for part in (white, image)][1:], dim=2)
