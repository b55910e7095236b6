# SPDX-License-Identifier: Apache-2.0
"""What a run folder tells, read with tolerance: a missing or damaged file is an empty value, never an error."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .report_plots import Band

Json = dict[str, Any]

ROUTINE = {"checkpoint", "finished"}
"""Events that say nothing about the course of a run."""


LARGEST = 1e30
"""No figure of a run is larger; damaged files hold such, and whole numbers beyond all floats."""


@dataclass(frozen=True)
class Run:
    """One run folder."""

    path: Path
    config: Json = field(default_factory=dict)
    log: tuple[Json, ...] = ()
    results: Json = field(default_factory=dict)
    per_view: Json = field(default_factory=dict)
    protocol: Json = field(default_factory=dict)
    geometry: Json = field(default_factory=dict)
    cameras: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def tested_split(self) -> str:
        """Which views the tests during training looked at."""
        return next((str(line["split"]) for line in self.log if "split" in line), "test")

    def curve(self, *keys: str) -> list[tuple[float, float]]:
        """(iteration, value) of each log line that has one of `keys` as a number."""
        points = {}
        for line in self.log:
            value = next((number(line[key]) for key in keys if key in line), None)
            if value is not None:
                points[line["iteration"]] = value
        return sorted(points.items())

    def last(self, key: str) -> Any:
        """The last value of `key` in the log."""
        return next((line[key] for line in reversed(self.log) if key in line), None)

    @property
    def events(self) -> list[tuple[float, str]]:
        """(iteration, text) of the log's event lines, without the routine ones."""
        events = ((line["iteration"], str(line["event"])) for line in self.log if "event" in line)
        return [(at, text) for at, text in events if text not in ROUTINE]

    @cached_property
    def bands(self) -> list[Band]:
        """The phases in the order of the log; each lasts until the next begins."""
        bands: list[Band] = []
        for line in self.log:
            if "phase" not in line or "event" in line:
                continue
            name, end = str(line["phase"]), line["iteration"]
            if bands and bands[-1].name == name:
                bands[-1] = Band(name, bands[-1].start, end)
            else:
                bands.append(Band(name, bands[-1].end if bands else 0, end))
        return bands

    @property
    def method(self) -> tuple[str, Json]:
        """Name and figures of the newest entry of results.json; ("", {}) without one."""
        entries = [(name, value) for name, value in self.results.items() if isinstance(value, Mapping)]
        return max(entries, key=lambda entry: _iteration(entry[0]), default=("", {}))

    def figure(self, name: str) -> float | None:
        """A metric of results.json; PSNR of the last test in the log where there is none yet."""
        value = number(self.method[1].get(name))
        if value is None and name == "PSNR" and (tests := self.curve("psnr")):
            return tests[-1][1]
        return value

    @property
    def gaussians(self) -> float | None:
        """Number of Gaussians at the end of the log."""
        counts = self.curve("gaussians")
        return counts[-1][1] if counts else None

    @cached_property
    def stages(self) -> list[tuple[str, int, float]]:
        """(stage, iterations, seconds): training by phase, then what event lines say about themselves.

        An event line may carry its own "seconds"; stages of the same name are added up.
        """
        spent: dict[str, tuple[int, float]] = {}
        before = 0
        for line in self.log:
            rate, seconds = number(line.get("it_per_s")), number(line.get("seconds"))
            if "event" in line:
                if seconds is not None:
                    _add(spent, str(line.get("stage", line["event"])), 0, seconds)
            elif rate and rate > 1 / LARGEST:
                steps = line["iteration"] - before
                before = line["iteration"]
                if steps > 0:
                    _add(spent, f"training: {line.get('phase', 'all')}", steps, steps / rate)
        return [(name, steps, seconds) for name, (steps, seconds) in spent.items()]

    @property
    def seconds(self) -> float | None:
        """Time of the whole run: its stages together."""
        return sum(seconds for _, _, seconds in self.stages) if self.stages else None

    def views(self) -> tuple[str, Path | None]:
        """("test" or "train", folder of the newest renders), or a folder of None."""
        for split in ("test", "train"):
            folders = [path.parent for path in self.path.glob(f"{split}/ours_*/renders") if any(path.glob("*.png"))]
            if folders:
                return split, max(folders, key=lambda folder: _iteration(folder.name))
        return "test", None

    def photo_names(self, split: str, count: int) -> dict[str, str]:
        """Name of the photo behind each picture of a split: cameras.json has the held-out views first."""
        entries = self.cameras if split == "test" else self.cameras[len(self.cameras) - count :]
        names = (entry.get("img_name") if isinstance(entry, Mapping) else None for entry in entries)
        return {f"{k:05d}.png": str(name) for k, name in enumerate(names) if name}

    def settings(self) -> dict[str, str]:
        """config.json as flat names and values."""
        return dict(_flat(self.config))


def read_run(path: Path) -> Run:
    """Read what there is."""
    files = ("config", "results", "per_view", "metrics_protocol", "geometry")
    config, results, per_view, protocol, geometry = (read_object(path / f"{name}.json") for name in files)
    cameras = _content(path / "cameras.json")
    return Run(
        path,
        config,
        tuple(_lines(path / "log.jsonl")),
        results,
        per_view,
        protocol,
        geometry,
        tuple(cameras) if isinstance(cameras, list) else (),
    )


def number(value: Any) -> float | None:
    """A number that can be reckoned with, or None."""
    return float(value) if isinstance(value, int | float) and abs(value) < LARGEST else None


def _lines(path: Path) -> Iterator[Json]:
    """Log lines with an iteration, in order; a line cut off by a crash is passed over."""
    yield from (line for line in read_records(path) if number(line.get("iteration")) is not None)


def read_records(path: Path) -> list[Json]:
    """The objects of a file with one a line; lines that are none are passed over."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def read_object(path: Path) -> Json:
    """The object of a JSON file; an empty one when it is missing or something else."""
    content = _content(path)
    return content if isinstance(content, dict) else {}


def _iteration(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1


def _add(spent: dict[str, tuple[int, float]], name: str, steps: int, seconds: float) -> None:
    before = spent.get(name, (0, 0.0))
    spent[name] = (before[0] + steps, before[1] + seconds)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
