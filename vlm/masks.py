# SPDX-License-Identifier: Apache-2.0
"""Accepted boxes as soft masks: box times local error, so that good pixels inside a box are left alone."""

from collections.abc import Iterable

import cv2
import numpy as np

from .defects import Box

SMOOTHING = 0.01
"""Width of the error's blur in parts of the image diagonal."""
SATURATION = 0.75
"""Quantile of a box's blurred error that gets the full weight."""


def soft_mask(boxes: Iterable[Box], error: np.ndarray) -> np.ndarray:
    """Mask [H, W] in [0, 1] of boxes over an error map [H, W]; the larger value where boxes overlap."""
    height, width = error.shape
    local = cv2.GaussianBlur(error.astype(np.float32), (0, 0), max(0.8, SMOOTHING * float(np.hypot(height, width))))
    mask = np.zeros((height, width), np.float32)
    for box in boxes:
        where = box.cut(height, width)
        inside = local[where]
        full = max(float(np.quantile(inside, SATURATION)), 1e-6)
        mask[where] = np.maximum(mask[where], np.minimum(inside / full, 1))
    return mask


def hard_mask(boxes: Iterable[Box], height: int, width: int) -> np.ndarray:
    """True [H, W] inside any box."""
    mask = np.zeros((height, width), bool)
    for box in boxes:
        mask[box.cut(height, width)] = True
    return mask
