# SPDX-License-Identifier: Apache-2.0
"""Which boxes count: the bar that tells a finding from a hallucination.

Pixel error is skewed, its mean lies far above its median, so the bar compares the median inside a box with a
quantile of the whole view. A box at random passes it seldom, which `random_acceptance` measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .defects import Box, Finding

ERROR_QUANTILE = 0.7
LEAST_AREA, MOST_AREA = 0.0005, 0.6
"""Shares of the image."""


@dataclass(frozen=True)
class Judgement:
    """A finding, whether it counts, and why."""

    finding: Finding
    accepted: bool
    reason: str


def judge(findings: Sequence[Finding], error: np.ndarray) -> list[Judgement]:
    """Hold findings against the error map [H, W] of their view; pixels that do not count are NaN."""
    bar = error_bar(error)
    return [Judgement(finding, *_verdict(finding.box, error, bar)) for finding in findings]


def error_bar(error: np.ndarray) -> float:
    """Error that the median inside a box must exceed; infinite where no pixel counts."""
    counted = error[~np.isnan(error)]
    return float(np.quantile(counted, ERROR_QUANTILE)) if counted.size else np.inf


def random_acceptance(
    boxes: Sequence[Box], error: np.ndarray, generator: np.random.Generator, draws: int = 20
) -> float | None:
    """Share of boxes of the same sizes at random places that would be accepted; None without boxes."""
    bar = error_bar(error)
    moved = [moved_at_random(box, error.shape, generator) for box in boxes for _ in range(draws)]
    return sum(_verdict(box, error, bar)[0] for box in moved) / len(moved) if moved else None


def moved_at_random(box: Box, shape: tuple[int, ...], generator: np.random.Generator) -> Box:
    """A box of the same size anywhere in an image [H, W]."""
    height, width = shape
    x, y = generator.uniform(0, max(width - box.width, 0)), generator.uniform(0, max(height - box.height, 0))
    return Box(x, y, x + box.width, y + box.height)


def _verdict(box: Box, error: np.ndarray, bar: float) -> tuple[bool, str]:
    height, width = error.shape
    share = box.area / (height * width)
    if not LEAST_AREA <= share <= MOST_AREA:
        return False, f"area {share:.2%} of the image is not within {LEAST_AREA:.2%} to {MOST_AREA:.0%}"
    held = error[box.cut(height, width)]
    counted = held[~np.isnan(held)]
    if not counted.size:
        return False, "masked out in the photo"
    inside = float(np.median(counted))
    if inside > bar:
        return True, f"median error {inside:.4f} above {bar:.4f}"
    return False, f"median error {inside:.4f} not above {bar:.4f}"
