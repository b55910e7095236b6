# SPDX-License-Identifier: Apache-2.0
"""Between tensors and picture files."""

import io
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .atomic import write_bytes
from .errors import UserError


def to_uint8(image: Tensor) -> np.ndarray:
    """[3, H, W] or [H, W] in [0, 1] -> uint8 with channels last; floor(255 x + 0.5), clamped."""
    levels = (image.detach().float() * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    return (levels.permute(1, 2, 0) if levels.ndim == 3 else levels).contiguous().cpu().numpy()


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


def depth_levels(depth: Tensor, alpha: Tensor) -> tuple[np.ndarray, float]:
    """Depth as 16-bit levels, and the scene units of one level.

    Args:
        depth: Sum of blend weight times depth [H, W], scene units along the optical axis.
        alpha: Sum of blend weights [H, W].

    Returns:
        uint16 [H, W], 0 where the view is less than half covered, and the scale: depth = level times scale.
    """
    covered = alpha >= 0.5
    surface = torch.where(covered, depth / alpha.clamp_min(0.5), 0).double()
    scale = max(float(surface.max()), 1e-12) / 65535
    return (surface / scale).round().clamp(0, 65535).to(torch.int32).cpu().numpy().astype(np.uint16), scale


def depth_preview(levels: np.ndarray) -> np.ndarray:
    """Depth in colours, near red to far blue, black where there is none: uint8 [H, W, 3] of uint16 [H, W]."""
    inverse = 1 / np.maximum(levels, 1).astype(np.float64)
    seen = inverse[levels > 0]
    if not seen.size:
        return np.zeros((*levels.shape, 3), np.uint8)
    far, near = np.quantile(seen, (0.02, 0.98))  # a few outliers must not take all the colours
    share = np.clip((inverse - far) / max(near - far, 1e-12), 0, 1)
    colors = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.where((levels > 0)[..., None], cv2.cvtColor(colors, cv2.COLOR_BGR2RGB), 0)
