# SPDX-License-Identifier: Apache-2.0
"""A recorded audit as a detector: the same views, the same boxes, so the same run without the model."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.errors import UserError

from .defects import Box, DetectionResult, Finding

ADVICE = "point --vlm_replay at a run whose phase 2 has been recorded"


def audit_file(run: Path, round_number: int) -> Path:
    """Where a run records an inspection."""
    return run / "vlm" / f"round_{round_number}" / "audit.jsonl"


class ReplayDetector:
    """Gives back what was recorded in one inspection of another run."""

    name = "replay"

    def __init__(self, run: Path, round_number: int) -> None:
        self._records = {record["view"]: record for record in read_records(audit_file(run, round_number))}
        detectors = {str(record.get("detector", "")) for record in self._records.values()}
        models = {str(record.get("model", "")) for record in self._records.values()}
        self.judged = detectors != {"placebo"}
        self.model = f"{', '.join(sorted(detectors | models))} as recorded in {run.name}/vlm/round_{round_number}"

    def views(self) -> list[str]:
        """The recorded views, in their order."""
        return list(self._records)

    def detect(self, view: str, render: Tensor, photo: Tensor) -> DetectionResult:
        """The recorded answer; a view that was not recorded, or whose call failed, has none."""
        record = self._records.get(view)
        if record is None:
            return DetectionResult(error="not recorded")
        return DetectionResult(
            tuple(_finding(box) for box in record.get("boxes", ())),
            dropped=tuple(str(reason) for reason in record.get("dropped", ())),
            prompt=str(record.get("prompt", "")),
            raw_answer=str(record.get("raw_answer", "")),
            error=str(record.get("error", "")),
        )


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of an inspection.

    Raises:
        UserError: there is no such file, or it is not an audit.
    """
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no recorded inspection; {ADVICE}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable ({error}); {ADVICE}") from error
    for number, record in enumerate(records, 1):
        if not (isinstance(record, dict) and isinstance(record.get("view"), str) and _boxes_are_sound(record)):
            raise UserError(f"{path}: line {number} is no record of a view; {ADVICE}")
    return records


def _boxes_are_sound(record: dict[str, Any]) -> bool:
    boxes = record.get("boxes", [])
    return isinstance(boxes, list) and all(
        isinstance(box, dict)
        and isinstance(corners := box.get("bbox"), list)
        and len(corners) == 4
        and all(isinstance(v, int | float) and abs(v) < 1e9 for v in corners)
        and corners[0] < corners[2]
        and corners[1] < corners[3]
        for box in boxes
    )


def _finding(box: dict[str, Any]) -> Finding:
    severity = box.get("severity", 1)
    corners = (float(v) for v in box["bbox"])
    return Finding(Box(*corners), str(box.get("label", "")), severity if severity in (1, 2, 3) else 1)
