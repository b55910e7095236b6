# SPDX-License-Identifier: Apache-2.0
"""The record of an inspection: `vlm/round_<k>/audit.jsonl`, an object a view, with pictures beside it.

An object holds view, detector, model, prompt, raw_answer, error, dropped, boxes [{bbox (pixels of the render), label,
severity, accepted, reason}], pictures {what: file}, and, once the round is over, what became of the errors.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from utils.atomic import write_text
from utils.pictures import to_uint8, write_png

from .acceptance import Judgement
from .defects import Box, DetectionResult

ACCEPTED, REJECTED = (40, 200, 60), (230, 50, 40)
MARGIN = 0.25
"""Surroundings shown in a crop, in parts of the box's sides."""
MOST_CROPS = 4
"""Boxes of a view whose crops are kept."""


class AuditRound:
    """One inspection's folder; what is written of it is always whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[dict[str, Any]] = []

    def add(
        self,
        view: str,
        detector: tuple[str, str],
        result: DetectionResult,
        judgements: Sequence[Judgement],
        render: Tensor,
        photo: Tensor,
    ) -> None:
        """Keep what was shown and said of a view; `detector` is its name and its model."""
        stem = f"view{len(self.records):03d}"
        boxes = [
            {
                "bbox": list(judged.finding.box.corners()),
                "label": judged.finding.label,
                "severity": judged.finding.severity,
                "accepted": judged.accepted,
                "reason": judged.reason,
            }
            for judged in judgements
        ]
        pictures = {
            "render": to_uint8(render),
            "photo": to_uint8(photo),
            "overlay": overlay(to_uint8(render), judgements),
        }
        for what, pixels in pictures.items():
            write_png(self.folder / f"{stem}_{what}.png", pixels)
        self.records.append(
            {
                "view": view,
                "detector": detector[0],
                "model": detector[1],
                "prompt": result.prompt,
                "raw_answer": result.raw_answer,
                "error": result.error,
                "dropped": list(result.dropped),
                "boxes": boxes,
                "pictures": {what: f"{stem}_{what}.png" for what in pictures},
            }
        )

    def write(self) -> None:
        """Put the records on the disk."""
        lines = (json.dumps(record) + "\n" for record in self.records)
        write_text(self.folder / "audit.jsonl", "".join(lines))

    def finish(self, afters: Mapping[str, Tensor], errors: Mapping[str, Mapping[str, float]]) -> None:
        """Add how the views [3, H, W] look after the refinement, crops before and after, and their errors."""
        for number, record in enumerate(self.records):
            after = afters.get(record["view"])
            if after is None:
                continue
            stem, pixels = f"view{number:03d}", to_uint8(after)
            before, photo = (_read(self.folder / record["pictures"][what]) for what in ("render", "photo"))
            accepted = [Box(*box["bbox"]) for box in record["boxes"] if box["accepted"]][:MOST_CROPS]
            if accepted and before is not None and photo is not None:
                write_png(self.folder / f"{stem}_after.png", pixels)
                write_png(self.folder / f"{stem}_crops.png", crops([before, pixels, photo], accepted))
                record["pictures"] |= {"after": f"{stem}_after.png", "crops": f"{stem}_crops.png"}
            record["errors"] = dict(errors.get(record["view"], {}))
        self.write()

    @classmethod
    def read(cls, folder: Path) -> "AuditRound":
        """Take up a round that has been written."""
        found = cls(folder)
        path = folder / "audit.jsonl"
        found.records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
        return found


def overlay(pixels: np.ndarray, judgements: Sequence[Judgement]) -> np.ndarray:
    """The render uint8 [H, W, 3] with accepted boxes in green and rejected ones in red."""
    drawn = pixels.copy()
    for judged in judgements:
        x0, y0, x1, y1 = (round(v) for v in judged.finding.box.corners())
        colour = ACCEPTED if judged.accepted else REJECTED
        cv2.rectangle(drawn, (x0, y0), (x1 - 1, y1 - 1), colour, 2 if judged.accepted else 1)
    return drawn


def crops(pictures: Sequence[np.ndarray], boxes: Sequence[Box], height: int = 128) -> np.ndarray:
    """A row for each box with its crop of each picture uint8 [H, W, 3], `height` pixels high."""
    rows = []
    for box in boxes:
        grown = Box(
            box.x0 - MARGIN * box.width,
            box.y0 - MARGIN * box.height,
            box.x1 + MARGIN * box.width,
            box.y1 + MARGIN * box.height,
        )
        where = grown.cut(*pictures[0].shape[:2])
        parts = [picture[where] for picture in pictures]
        width = max(1, round(parts[0].shape[1] * height / parts[0].shape[0]))
        rows.append(np.hstack([cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in parts]))
    widest = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, 2), (0, widest - row.shape[1]), (0, 0))) for row in rows])


def _read(path: Path) -> np.ndarray | None:
    """A picture that was written when the round began; None when somebody has deleted it since."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
