# SPDX-License-Identifier: Apache-2.0
"""Photos without their lens distortion.

The undistorted photo has the size, focal lengths and principal point of the distorted one, so its middle keeps its
resolution. What a barrel lens saw beyond that frame is lost; where the frame reaches beyond what the lens saw, pixels
are masked.
"""

from functools import lru_cache

import cv2
import numpy as np

from utils.errors import UserError

from .lens import Lens

ROWS = 256
"""Rows whose rays are bent at once: what is in between needs several times the memory of the result."""

LEAST_SEEN = 0.1
"""Share of the undistorted frame that a lens must fill; damaged coefficients fill less."""


def undistorted(rgb: np.ndarray, kept: np.ndarray | None, lens: Lens) -> tuple[np.ndarray, np.ndarray | None]:
    """Straighten a photo.

    Args:
        rgb: uint8 [H, W, 3].
        kept: Where the photo counts, bool [H, W], or None for everywhere.
        lens: Its lens, at any size of the photo.

    Returns:
        The photo and where it counts, of the same shapes.
    """
    height, width = rgb.shape[:2]
    places, seen = _places(lens, width, height)
    straight = cv2.remap(rgb, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if kept is not None:
        inside = cv2.remap(kept.astype(np.uint8), places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        kept = inside.astype(bool) if seen is None else inside.astype(bool) & seen
    else:
        kept = seen
    if kept is not None and seen is not None:
        straight[~seen] = 0
    return straight, kept


def check_lens(lens: Lens, name: str) -> None:
    """Complain about a lens that cannot be undone.

    Raises:
        UserError: Its coefficients leave next to nothing of the photo.
    """
    width = min(lens.width, 64)
    seen = _places(lens, width, max(1, round(lens.height * width / lens.width)))[1]
    if seen is not None and seen.mean() < LEAST_SEEN:
        raise UserError(
            f"image {name!r}: the coefficients of its {lens.model} camera leave {seen.mean():.0%} of the photo; "
            "undistort the photos with the tool that made the model, or calibrate again"
        )


@lru_cache(maxsize=3)
def _places(lens: Lens, width: int, height: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Where in the photo each pixel comes from, float32 [H, W, 2] in OpenCV's pixels, and which do at all."""
    lens = lens.scaled(width, height)
    fx, fy, cx, cy = lens.pinhole
    reach = lens.reach()
    x = (np.arange(width) + 0.5 - cx) / fx
    places, seen = np.empty((height, width, 2), np.float32), np.empty((height, width), bool)
    for top in range(0, height, ROWS):
        rows = slice(top, min(top + ROWS, height))
        grid = np.broadcast_arrays(x[None], ((np.arange(rows.start, rows.stop) + 0.5 - cy) / fy)[:, None])
        bent = lens.bend(*grid)
        u, v = fx * bent[0] + cx, fy * bent[1] + cy
        seen[rows] = (u >= 0) & (u <= width) & (v >= 0) & (v <= height) & (np.hypot(*grid) < reach)
        for axis, value in enumerate((u, v)):
            places[rows, :, axis] = np.where(seen[rows], value - 0.5, -1)
    return places, None if seen.all() else seen
