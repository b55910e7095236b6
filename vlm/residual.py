# SPDX-License-Identifier: Apache-2.0
"""The detector without a model: boxes round connected regions of large error. Never recorded as a VLM's finding."""

from collections.abc import Sequence

import cv2
import numpy as np
from torch import Tensor

from .acceptance import LEAST_AREA
from .defects import Box, DetectionResult, Finding, error_map

QUANTILE = 0.9
"""Of the blurred error; what lies above it forms the regions."""
FAINT = 0.02
"""Error below which nothing is called a defect."""


class ResidualDetector:
    """Boxes round the connected regions with the largest summed error."""

    name = "residual"
    model = "error map"
    judged = True

    def __init__(self, max_boxes: int) -> None:
        self._max_boxes = max_boxes

    def views(self) -> None:
        """No wish."""

    def detect(self, view: str, render: Tensor, photo: Tensor) -> DetectionResult:
        """The regions of largest error, the worst first."""
        error = error_map(render, photo).numpy()
        return DetectionResult(tuple(worst_regions(error, self._max_boxes)))


def worst_regions(error: np.ndarray, most: int) -> Sequence[Finding]:
    """Boxes round the regions of an error map [H, W] with the largest sums."""
    height, width = error.shape
    blurred = cv2.GaussianBlur(error.astype(np.float32), (0, 0), max(1.0, 0.015 * float(np.hypot(height, width))))
    high = (blurred > max(float(np.quantile(blurred, QUANTILE)), FAINT)).astype(np.uint8)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(high, connectivity=4)
    sums = np.bincount(regions.ravel(), weights=blurred.ravel(), minlength=count)
    least = LEAST_AREA * height * width
    found = [k for k in range(1, count) if stats[k, cv2.CC_STAT_WIDTH] * stats[k, cv2.CC_STAT_HEIGHT] >= least]
    worst = sorted(found, key=lambda k: -sums[k])[:most]
    return [Finding(_box(stats[k]), "residual") for k in worst]


def _box(stats: np.ndarray) -> Box:
    x, y, width, height = (float(v) for v in stats[:4])
    return Box(x, y, x + width, y + height)
