# SPDX-License-Identifier: Apache-2.0
"""From the text of an answer to boxes.

The text comes from a language model and is not trusted: fences, prose round the JSON, one object for a list,
`bbox` for `bbox_2d`, bare coordinates, single quotes, trailing commas, answers cut off in the middle, swapped
corners, numbers that are none. Nothing in it is executed, and no input raises.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .defects import Box, DetectionResult, Finding

FULL = 1000.0
"""Qwen3-VL's coordinates run from 0 to this over the picture as given, whatever it was resized to."""
SLACK = 0.1
"""How far outside the picture, in parts of it, a corner may lie before the box is no box of this picture."""
LONGEST = 50_000
"""Characters of an answer that are looked at."""
MOST = 64
"""Boxes taken from one answer: models that loop repeat themselves without end."""
KEYS = ("bbox_2d", "bbox", "box_2d", "box")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class BoxFrame:
    """The three frames a box can be in: 0-1000, pixels of the resized picture, pixels of the picture itself.

    All three have their origin in the top left corner of the top left pixel.
    """

    width: int
    height: int
    resized_width: int
    resized_height: int

    @classmethod
    def of(cls, width: int, height: int) -> "BoxFrame":
        """A picture that is shown at its own size."""
        return cls(width, height, width, height)

    def from_relative(self, box: Box) -> Box:
        """0-1000 to pixels."""
        return _scaled(box, self.width / FULL, self.height / FULL)

    def to_relative(self, box: Box) -> Box:
        """Pixels to 0-1000."""
        return _scaled(box, FULL / self.width, FULL / self.height)

    def from_resized(self, box: Box) -> Box:
        """Pixels of the resized picture to pixels."""
        return _scaled(box, self.width / self.resized_width, self.height / self.resized_height)

    def to_resized(self, box: Box) -> Box:
        """Pixels to pixels of the resized picture."""
        return _scaled(box, self.resized_width / self.width, self.resized_height / self.height)


@dataclass(frozen=True)
class Answer:
    """What could be read: findings in pixels, reasons for what was dropped, and whether it was an answer at all."""

    findings: tuple[Finding, ...]
    dropped: tuple[str, ...]
    readable: bool
    """An empty list is readable and says that all is well; a refusal is not."""

    def result(self, prompt: str, text: str) -> DetectionResult:
        """As what came of asking a model: the prompt, and the text that this was read from."""
        error = "" if self.readable else "the answer holds no JSON"
        return DetectionResult(self.findings, self.dropped, prompt=prompt, raw_answer=text, error=error)


def parse_answer(text: str, frame: BoxFrame) -> Answer:
    """Read the boxes of an answer in 0-1000 coordinates; never raises.

    Args:
        text: Whatever the model said.
        frame: Of the picture that it was shown first.
    """
    body = re.sub(r"<think>.*?(?:</think>|\Z)", "", text[:LONGEST], flags=re.DOTALL)
    items = _json_items(body)
    if items is None:
        items = list(_scraped_items(body)) or None
    if items is None:
        return Answer((), (), readable=False)
    findings, dropped = [], []
    for item in items[:MOST]:
        read = _finding(item, frame)
        (findings if isinstance(read, Finding) else dropped).append(read)
    if len(items) > MOST:
        dropped.append(f"{len(items) - MOST} more than the {MOST} boxes that are read")
    return Answer(tuple(dict.fromkeys(findings)), tuple(dropped), readable=True)


def _json_items(body: str) -> list[Any] | None:
    """The first JSON value in the text that is a list of boxes, or None."""
    decoder = json.JSONDecoder()
    for start in [m.start() for m in re.finditer(r"[\[{]", body)][:200]:
        try:
            value, _ = decoder.raw_decode(body, start)
        except (ValueError, RecursionError):
            continue
        items = _as_items(value)
        if items is not None:
            return items
    return None


def _as_items(value: Any) -> list[Any] | None:
    """A decoded value as a list of items, if that is what it is."""
    if isinstance(value, dict):
        if any(key in value for key in KEYS):
            return [value]
        inner = [v for v in value.values() if isinstance(v, list)]
        return _as_items(inner[0]) if len(inner) == 1 else None
    if not isinstance(value, list):
        return None
    if _four_numbers(value) is not None:
        return [value]
    if all(isinstance(v, dict) for v in value) or all(_four_numbers(v) is not None for v in value):
        return value
    return None


def _scraped_items(body: str) -> Iterator[dict[str, Any]]:
    """Boxes with a key in text that is not JSON, in particular in a list that was cut off."""
    box = re.compile(rf"\b(?:{'|'.join(KEYS)})\b['\"]?\s*[:=]\s*[\[(]\s*({NUMBER}(?:\s*,\s*{NUMBER}){{3}})\s*[\])]")
    matches = list(box.finditer(body))
    ends = [*(match.start() for match in matches[1:]), len(body)]
    for match, end in zip(matches, ends, strict=False):
        rest = body[match.end() : end].partition("}")[0]
        label = re.search(r"label['\"]?\s*[:=]\s*['\"]([^'\"]{0,80})['\"]", rest)
        severity = re.search(r"severity['\"]?\s*[:=]\s*['\"]?(\d)", rest)
        yield {
            "bbox_2d": [float(v) for v in re.findall(NUMBER, match.group(1))],
            "label": label.group(1) if label else "",
            "severity": int(severity.group(1)) if severity else 1,
        }


def _four_numbers(value: Any) -> list[float] | None:
    """Four finite numbers, or None."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return None
    try:
        numbers = [float(v) for v in value]
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _finding(item: Any, frame: BoxFrame) -> Finding | str:
    """A finding in pixels, or why it is none."""
    fields = item if isinstance(item, dict) else {"bbox_2d": item}
    raw = next((fields[key] for key in KEYS if key in fields), None)
    numbers = _four_numbers(raw)
    if numbers is None:
        return f"not four numbers: {_brief(raw)}"
    if min(numbers) < -SLACK * FULL or max(numbers) > (1 + SLACK) * FULL:
        return f"outside 0-1000: {_brief(raw)}"
    x0, y0, x1, y1 = (min(max(v, 0.0), FULL) for v in numbers)
    relative = Box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if relative.area <= 0:
        return f"empty: {_brief(raw)}"
    label = fields.get("label", "")
    return Finding(
        frame.from_relative(relative), label[:80] if isinstance(label, str) else "", _severity(fields.get("severity"))
    )


def _severity(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:3])
    return min(max(value, 1), 3) if isinstance(value, int) and not isinstance(value, bool) else 1


def _brief(value: Any) -> str:
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        return "a number too long"


def _scaled(box: Box, across: float, down: float) -> Box:
    return Box(box.x0 * across, box.y0 * down, box.x1 * across, box.y1 * down)
