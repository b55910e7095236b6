# SPDX-License-Identifier: Apache-2.0
"""Measure a model directory on pairs it was never trained on, through the very code that phase 2 uses.

    python -m vlm.embedded.measure [MODEL_DIR] [--photos DIR...] [--pairs 200]

Without --photos the photos are invented ones of another seed; with it, defects are planted into crops of real ones.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from ..acceptance import moved_at_random
from ..defects import Box
from ..prompts import KINDS
from ..qwen import QwenDetector, open_qwen
from . import MODEL_DIR, NAME
from .pictures import Pair, PairMaker

SIZES = ((128, 96), (96, 128), (128, 128), (256, 192), (300, 200))
"""Width and height of the pictures shown, px."""


@dataclass
class Tally:
    """What came of a set of pairs."""

    pairs: int = 0
    valid: int = 0
    boxes: int = 0
    hits: int = 0
    """Boxes given that overlap a defect with IoU of at least one half."""
    labels: int = 0
    """Defects whose best box has the right label."""
    best: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """IoU of the best box for each defect, by kind."""
    chance: list[float] = field(default_factory=list)
    """The same for one box of the right size at a random place."""

    def report(self) -> str:
        """The figures in a few lines."""
        every = [value for values in self.best.values() for value in values]
        if not every:
            return f"{self.pairs} clean pairs: valid JSON {self.valid / self.pairs:.3f}, {self.boxes} false boxes"
        kinds = ", ".join(f"{kind} {np.mean(values):.2f}" for kind, values in self.best.items() if values)
        return (
            f"{self.pairs} pairs, {len(every)} defects: valid JSON {self.valid / self.pairs:.3f}, "
            f"mean IoU {np.mean(every):.3f} (chance {np.mean(self.chance):.3f}), "
            f"IoU >= 0.5 {np.mean(np.array(every) >= 0.5):.3f}, boxes that hit {self.hits / max(self.boxes, 1):.3f}, "
            f"right label {self.labels / len(every):.3f}; by kind {kinds}"
        )


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = sum((r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)) - width * height
    return width * height / union if union > 0 else 0.0


def tally(detector: QwenDetector, pairs: Iterator[Pair], seed: int = 0) -> Tally:
    """Ask about every pair."""
    rng, counts = np.random.default_rng(seed), Tally()
    for pair in pairs:
        render, photo = (torch.from_numpy(p).permute(2, 0, 1).contiguous() for p in (pair.render, pair.photo))
        result = detector.detect("pair", render, photo)
        given = [(finding.box.corners(), finding.label) for finding in result.findings]
        counts.pairs += 1
        counts.valid += not result.failed and not result.dropped
        counts.boxes += len(given)
        counts.hits += sum(any(iou(box, truth) >= 0.5 for truth in pair.boxes) for box, _ in given)
        for truth, kind in zip(pair.boxes, pair.kinds, strict=True):
            best, label = max(((iou(box, truth), label) for box, label in given), default=(0.0, ""))
            counts.best[kind].append(best)
            counts.labels += label == kind
            place = moved_at_random(Box(*map(float, truth)), pair.photo.shape[:2], rng)
            counts.chance.append(iou(place.corners(), truth))
    return counts


def invented(maker: PairMaker, pairs: int, defects: int | None) -> Iterator[Pair]:
    """Pairs from invented photos in all sizes."""
    for k in range(pairs):
        width, height = SIZES[k % len(SIZES)]
        yield maker.pair(height, width, defects)


def planted(maker: PairMaker, photos: Sequence[Path], pairs: int, defects: int) -> Iterator[Pair]:
    """Pairs from crops of real photos with planted defects."""
    for k in range(pairs):
        pixels = cv2.cvtColor(cv2.imread(str(photos[k * len(photos) // pairs]), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        width, height = 300, round(300 * pixels.shape[0] / pixels.shape[1])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        yield maker.spoil(small.astype(np.float32) / 255, defects)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=f"Measure the {NAME}.")
    parser.add_argument("model", type=Path, nargs="?", default=MODEL_DIR)
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--pairs", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    maker = PairMaker(seed=12345, pool=1 if given.photos else 40)
    photos = sorted(p for folder in given.photos for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png"))
    with open_qwen(given.model, name=NAME) as detector:
        for defects in (1, 2, 0):
            source = planted(maker, photos, given.pairs, defects) if photos else invented(maker, given.pairs, defects)
            print(f"{defects} defects planted: {tally(detector, source).report()}", flush=True)


if __name__ == "__main__":
    main()
