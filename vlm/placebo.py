# SPDX-License-Identifier: Apache-2.0
"""The control: as many boxes of the same sizes as another detector's accepted ones, at random places.

What refining these gains is what any extra weight would gain; they are not held against the bar.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from .acceptance import judge, moved_at_random
from .defects import DefectDetector, DetectionResult, Finding, error_map


class PlaceboDetector:
    """Another detector's accepted boxes, moved."""

    name = "placebo"
    judged = False

    def __init__(self, other: DefectDetector, seed: int) -> None:
        self._other, self._seed = other, seed
        self.model = f"random places, sizes of {other.name}"

    def views(self) -> Sequence[str] | None:
        """The other's wish."""
        return self._other.views()

    def detect(self, view: str, render: Tensor, photo: Tensor) -> DetectionResult:
        """Ask the other, keep what would have been accepted, move it."""
        result = self._other.detect(view, render, photo)
        error = error_map(render, photo).numpy()
        digest = hashlib.sha256(view.encode()).digest()
        generator = np.random.default_rng([self._seed, int.from_bytes(digest[:8], "little")])
        moved = tuple(
            Finding(moved_at_random(judged.finding.box, error.shape, generator), "placebo")
            for judged in judge(result.findings, error)
            if judged.accepted
        )
        return replace(result, findings=moved)
