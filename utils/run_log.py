# SPDX-License-Identifier: Apache-2.0
"""log.jsonl: one object a line, "iteration" first."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError

CHECKPOINT = "checkpoint"
FINISHED = "finished"
"""Names in the lines that mark how far a continued run may trust the log."""


class RunLog:
    """Lines that are on the disk as soon as they are written, whatever becomes of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, iteration: int, values: Mapping[str, Any]) -> None:
        """Append a line."""
        line = {"iteration": iteration} | {name: _finite(value) for name, value in values.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); free space or mend the folder, then --resume"
            ) from error

    def read(self) -> list[dict[str, Any]]:
        """All whole lines."""
        return [line for _, line in self._lines()]

    def cut(self, iteration: int) -> dict[str, Any]:
        """Forget what came after the checkpoint of an iteration, or all for 0.

        What a phase logged on the border of its own iteration comes again when the run is continued.

        Returns:
            The last values that remain, by name.
        """
        kept, values = 0, {}
        for end, line in self._lines() if iteration else []:
            if line["iteration"] > iteration:
                break
            kept, values = end, values | line
            if line["iteration"] == iteration and CHECKPOINT in line:
                break
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(kept)
        return values

    def _lines(self) -> list[tuple[int, dict[str, Any]]]:
        """(offset of its end, object) of each whole line."""
        found, end = [], 0
        for raw in self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []:
            end += len(raw)
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError):
                break  # half a line: the process was killed while it wrote
            if not raw.endswith(b"\n") or not isinstance(line, dict) or not isinstance(line.get("iteration"), int):
                break
            found.append((end, line))
        return found


def _finite(value: Any) -> Any:
    """JSON knows no infinity and no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
