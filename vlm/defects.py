# SPDX-License-Identifier: Apache-2.0
"""What a detector of defects is, and what it says.

Pictures are CHW float32 in [0, 1]. Boxes are in pixels of the rendering, the first pixel spanning [0, 1); right and
bottom are exclusive. A detector that fails says so in `DetectionResult.error`; a detector that finds nothing gives
no findings and no error. The one is never taken for the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: left, top, right, bottom."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Pixels across."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Pixels down."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Pixels inside."""
        return self.width * self.height

    def corners(self) -> tuple[float, float, float, float]:
        """As four numbers."""
        return self.x0, self.y0, self.x1, self.y1

    def cut(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the pixels of an image [H, W] whose centres lie inside; one at least."""
        left, top = (min(max(round(v), 0), size - 1) for v, size in ((self.x0, width), (self.y0, height)))
        right, bottom = min(round(self.x1), width), min(round(self.y1), height)
        return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


@dataclass(frozen=True)
class Finding:
    """One region that a detector calls worse than the photo."""

    box: Box
    label: str = ""
    severity: int = 1
    """1 to 3."""


@dataclass(frozen=True)
class DetectionResult:
    """What a detector said of one view."""

    findings: tuple[Finding, ...] = ()
    dropped: tuple[str, ...] = ()
    """Reasons why parts of the answer are no boxes at all."""
    prompt: str = ""
    raw_answer: str = ""
    error: str = ""
    """Why there is no answer; empty when there is one."""

    @property
    def failed(self) -> bool:
        """Whether nothing is known about the view."""
        return bool(self.error)


class DefectDetector(Protocol):
    """Anything that compares a rendering with its photo."""

    name: str
    """The value of `--detector` that it stands for."""
    model: str
    """Who answers, for the audit."""
    judged: bool
    """Whether its boxes must pass the bar; a placebo's must not."""

    def views(self) -> Sequence[str] | None:
        """Names of the views it wants to see, or None when it leaves the choice to others."""

    def detect(self, view: str, render: Tensor, photo: Tensor) -> DetectionResult:
        """Look at a view: rendering and photo [3, H, W]."""


def error_map(render: Tensor, photo: Tensor) -> Tensor:
    """Mean absolute error over the channels, [H, W]."""
    return (render - photo).abs().mean(0)
