# SPDX-License-Identifier: Apache-2.0
"""Between tensors and picture files."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .atomic import write_bytes
from .errors import UserError


def to_uint8(image: Tensor) -> np.ndarray:
    """[3, H, W] or [H, W] in [0, 1] -> uint8 with channels last; floor(255 x + 0.5), clamped."""
    levels = (image.detach().float() * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    return (levels.permute(1, 2, 0) if levels.ndim == 3 else levels).contiguous().numpy()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """uint8 [H, W] or [H, W, 3], or uint16 [H, W], as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    write_bytes(path, buffer.getvalue())


def read_picture(path: Path) -> Tensor:
    """A picture file as [3, H, W] in [0, 1]."""
    return torch.from_numpy(_pixels(path, "RGB")).permute(2, 0, 1).float() / 255


def read_mask(path: Path) -> Tensor:
    """A mask file as [H, W], 1 where a pixel counts."""
    return (torch.from_numpy(_pixels(path, "L")) >= 128).float()


def _pixels(path: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert(mode))
    except OSError as error:
        raise UserError(f"{path}: not a readable picture ({error}); run render.py again") from error
