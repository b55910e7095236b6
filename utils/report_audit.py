# SPDX-License-Identifier: Apache-2.0
"""The part of the report about phase 2: what the detector was shown, what it said, what became of it.

A round's folder holds audit.jsonl, an object a view: view, detector, model, prompt, raw_answer, error,
boxes [{bbox (corners in pixels of the render), label, accepted, reason}], pictures {what: file of this folder},
errors {before, after: {inside, outside}}; and summary.json: inspection {views, boxes, accepted, failed,
covered_need, random_acceptance, ...}, before and after {train, held_out: {inside, outside}}. Anything may be missing,
and all of it is text from outside.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .report_data import Json, Run, number, read_object, read_records
from .report_html import Markup, join, section, table, tag
from .report_pictures import SMALL, boxes, figure, load

MOST_VIEWS = 24
"""Views shown per inspection; the rest is in audit.jsonl."""
PICTURES = {"render": "Render", "photo": "Photo", "after": "Render after the round", "crops": "Before, after, photo"}


def inspections(run: Run) -> Markup:
    """The section about all rounds; nothing where there was none."""
    folders = [path for path in (run.path / "vlm").glob("round_*") if path.is_dir()]
    folders.sort(key=lambda path: (len(path.name), path.name))
    note = (
        "What the detector was shown, what it answered, and which boxes were accepted (solid) or rejected (dashed). "
        "Its words are quoted as they came."
    )
    return section("Inspections of phase 2", *(_round(folder) for folder in folders), note=note)


def _round(folder: Path) -> Markup:
    records = read_records(folder / "audit.jsonl")
    if not records:
        return Markup("")
    summary = read_object(folder / "summary.json")
    detectors = sorted({f"{r.get('detector', '?')} {r.get('model') or ''}".strip() for r in records})
    telling = [record for record in records if _boxes(record) or record.get("error")]
    telling.sort(key=lambda record: -sum(bool(box.get("accepted")) for box in _boxes(record)))
    silent = [record for record in records if record not in telling]
    prompts = {str(record.get("prompt") or "") for record in records}
    common = prompts.pop() if len(prompts) == 1 else ""
    views = [_view(folder, record, common, unfolded=k == 0) for k, record in enumerate(telling[:MOST_VIEWS])]
    left = len(telling) - len(views)
    return join(
        [
            tag("h3", folder.name.replace("_", " ").capitalize(), " ", tag("small", ", ".join(detectors))),
            tag("p", _balance(records, _object(summary, "inspection")), class_="soft"),
            _errors(summary),
            _quoted("Asked of every view", common),
            *views,
            tag("p", f"{left} more views in {folder.name}/audit.jsonl", class_="soft") if left else "",
            _silent_views(folder, silent),
        ]
    )


def _balance(records: Sequence[Json], figures: Mapping[str, Any]) -> str:
    """The round in one sentence; the chance level stands beside the model's rate."""
    found = [box for record in records for box in _boxes(record)]
    accepted = sum(bool(box.get("accepted")) for box in found)
    failed = sum(bool(record.get("error")) for record in records)
    parts = [_counted(len(records), "view"), _counted(len(found), "box", "boxes"), f"{accepted} accepted"]
    if found:
        parts[-1] += f" ({accepted / len(found):.0%})"
    parts += [f"{_counted(failed, 'call')} failed"] if failed else []
    shares = (
        ("random_acceptance", "of boxes of the same area at random places {:.0%} would be accepted"),
        ("covered_need", "the views cover {:.0%} of the need"),
    )
    parts += [words.format(value) for name, words in shares if (value := number(figures.get(name))) is not None]
    return ", ".join(parts)


def _errors(summary: Mapping[str, Any]) -> Markup:
    """Mean absolute error inside and outside the masks, before and after the round."""
    before, after = _object(summary, "before"), _object(summary, "after")
    rows = []
    for split, name in (("train", "Training views"), ("held_out", "Held-out views")):
        for part in ("inside", "outside"):
            values = [number(_object(side, split).get(part)) for side in (before, after)]
            if None not in values:
                rows.append((f"{name}, {part} the masks", *(f"{value:.4f}" for value in values), _change(*values)))
    return table(("Mean absolute error", "Before", "After", "Change"), rows) if rows else Markup("")


def _silent_views(folder: Path, records: Sequence[Json]) -> Markup:
    """Views of which the detector said that all is well, side by side: render, photo."""
    if not records:
        return Markup("")
    pictures = [
        picture
        for record in records[:MOST_VIEWS]
        for picture in _pictures(folder, record, (), {"render": str(record.get("view", "?")), "photo": "Photo"})
    ]
    title = f"{_counted(len(records), 'view')} with nothing marked"
    return tag("details", tag("summary", title), tag("div", *pictures, class_="several"))


def _view(folder: Path, record: Json, common_prompt: str, *, unfolded: bool) -> Markup:
    found = _boxes(record)
    accepted = sum(bool(box.get("accepted")) for box in found)
    counts = f"{_counted(len(found), 'box', 'boxes')}, {accepted} accepted"
    if record.get("error"):
        counts = f"failed: {record['error']}"
    sides = [_object(_object(record, "errors"), side) for side in ("before", "after")]
    inside = [number(side.get("inside")) for side in sides]
    if None not in inside and inside[0]:
        counts += f" · error inside {inside[0]:.3f} → {inside[1]:.3f} ({_change(*inside)})"
    return tag(
        "details",
        tag("summary", str(record.get("view", "?")), " ", tag("small", counts)),
        tag("div", *_pictures(folder, record, found, PICTURES), class_="several"),
        tag("ul", *map(_box_line, found), class_="boxes") if found else "",
        _quoted("Asked", record.get("prompt") if not common_prompt else None),
        _quoted("Answered", record.get("raw_answer")),
        open="" if unfolded else None,
    )


def _pictures(folder: Path, record: Json, found: Sequence[Json], captions: Mapping[str, str]) -> list[Markup]:
    names = _object(record, "pictures")
    shown = []
    for what, caption in captions.items():
        if what not in names:
            continue
        pixels = load(folder / Path(str(names[what])).name)  # only files of this very folder
        if pixels is not None:
            drawn = boxes(_corners(found, pixels)) if what == "render" else ()
            shown.append(figure(pixels, caption, *drawn, widest=SMALL))
    return shown


def _corners(found: Sequence[Json], pixels: np.ndarray) -> list[tuple[tuple[float, ...], bool, str]]:
    """The boxes that are four numbers, kept within sight of the picture."""
    height, width = pixels.shape[:2]
    limits = np.array([width, height, width, height])
    corners = []
    for box in found:
        numbers = [number(value) for value in _list(box.get("bbox"))]
        if len(numbers) == 4 and None not in numbers:
            place = tuple(np.clip(numbers, 0, limits).tolist())
            corners.append((place, bool(box.get("accepted")), str(box.get("reason", ""))))
    return corners


def _box_line(box: Json) -> Markup:
    word = tag("b", "accepted", class_="good") if box.get("accepted") else tag("b", "rejected", class_="bad")
    numbers = [number(value) for value in _list(box.get("bbox"))]
    place = ", ".join("?" if value is None else f"{value:.0f}" for value in numbers)
    label = f"“{box['label']}” " if box.get("label") else ""
    return tag("li", word, f" [{place}] {label}", tag("span", box.get("reason", ""), class_="soft"))


def _quoted(title: str, text: Any) -> Markup:
    return join([tag("div", title, class_="caption"), tag("pre", text)]) if text else Markup("")


def _change(before: float, after: float) -> str:
    return f"{after / before - 1:+.0%}" if before > 0 else "–"


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _boxes(record: Json) -> list[Json]:
    return [box for box in _list(record.get("boxes")) if isinstance(box, dict)]


def _object(container: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = container.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
