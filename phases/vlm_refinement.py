# SPDX-License-Identifier: Apache-2.0
"""Phase 2: a vision-language model compares renders with photos; what it names and the error confirms is refined.

The regions get more of the Gaussians. Each round inspects a few views, lifts the accepted boxes onto the Gaussians,
renders them as masks into every training view, and each step also looks at parts of other views round them; holes are
seeded.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from arguments import setting
from scene.cameras import Camera
from utils.atomic import write_text
from utils.pictures import write_png
from vlm import detector_kind, open_detector
from vlm.audit import AuditRound
from vlm.defects import Box
from vlm.select import Select

from .base import LEAST_MEAN_WEIGHT, Phase
from .closer_look import part_round_region
from .density import keeping
from .holes import hole_masks, seed_holes
from .inspection import inspect, still_wrong
from .lifting import Look, Mark, lift, shown, wrong_views
from .scores import removal_costs
from .state import Step, TrainingState

AGREEING = 0.4
"""Share of the views that show a Gaussian in which it must be wrong: what a few photos say against the others, such as
a shadow that moves, can be learnt by heart only."""
FAINT = 0.02
"""Largest mask value below which a view has no mask."""
WORTH = 10.0
"""By how much more than others the regions' pixels count when Gaussians have to go."""
ROOM = 0.05
"""Share of the Gaussians, the least needed, that make room for holes once the number is capped."""
SETTLE = 0.8
"""Share of a round after which it is pruned."""

Errors = dict[str, float]


@dataclass(kw_only=True)
class VlmRefinement(Phase):
    """Inspections by a vision-language model, and the refinement of what they find."""

    name: ClassVar[str] = "vlm"
    share: ClassVar[float] = 10 / 30

    select: Select = setting("cover", "How the views to inspect are chosen.")
    views: int = setting(16, "Most views per inspection.", low=1)
    rounds: int = setting(2, "Inspections, evenly spread over the phase.", low=1)
    pixels: tuple[int, int] = setting(
        (1024 * 32**2, 2048 * 32**2), "Least and most pixels of a picture shown to a local model.", low=1
    )
    boxes: int = setting(3, "Most boxes asked for in a view.", low=1)
    looks: int = setting(4, "Other views of which each step draws a part round a region.", low=0)
    weight: float = setting(8.0, "By how much more than the rest the regions count in these parts.", low=0)
    seeds: int = setting(1_000, "Most new Gaussians in holes per round.", low=0)

    _round: int = field(default=0, init=False)
    _masks: dict[int, Tensor] = field(default_factory=dict, init=False)
    """Masks uint8 [H, W] of the training views that have one, by index; in host memory, as photos are."""
    _held_out: dict[int, Tensor] = field(default_factory=dict, init=False)
    _marks: list[Mark] = field(default_factory=list, init=False)
    _before: dict[str, Errors] = field(default_factory=dict, init=False)

    # -- hooks -------------------------------------------------------------------------------------------

    def on_start(self, state: TrainingState) -> None:
        """Keep what is needed now if that falls due in this phase, not in the middle of a round; then inspect.

        What the keeping held in reserve stays where the first inspection found regions.
        """
        if self.start <= keeping(state.config)[-1] <= self.end:
            state.density.keep_needed(state)
        self._begin_round(state, 1)
        state.density.spend_reserve(state, self._masks, WORTH)

    def loss(self, state: TrainingState, step: Step) -> dict[str, Tensor]:
        """What every phase minimises, and a closer look at the regions."""
        terms = super().loss(state, step)
        if self._masks and self.looks:
            terms["regions"] = self._closer_look(state, step)
        return terms

    def _closer_look(self, state: TrainingState, step: Step) -> Tensor:
        """Mean loss of parts of other views. Adam forgets the size of a gradient, not a view more."""
        views = sorted(self._masks)
        first = step.iteration + _index(state, step.camera)  # in an epoch all are as likely
        losses = []
        for number in range(self.looks):
            index = views[(first + number * len(views) // self.looks) % len(views)]
            losses += self._part_loss(state, step, index, f"{step.camera.name} {number}").values()
        return torch.stack(losses).sum() / self.looks

    def _part_loss(self, state: TrainingState, step: Step, index: int, name: str) -> dict[str, Tensor]:
        """What every step minimises, of a part of a view; the regions count more."""
        camera, region = state.scene.train_cameras[index], self._masks[index]
        rows, columns = part_round_region(region, f"{state.config.run.seed} {step.iteration} {name}")
        output = state.draw(camera.part(rows, columns), state.fixed_background(), dropout=self.dropout(state))
        photo, mask = state.photo(camera)
        mask = None if mask is None else mask[rows, columns]
        weight = 1 + self.weight * region[rows, columns].to(state.device).float() / 255
        weight = weight if mask is None else weight * mask
        weight = weight / weight.mean().clamp_min(LEAST_MEAN_WEIGHT)
        return self.photo_terms(state, Step(step.iteration, camera, photo[:, rows, columns], mask, output), weight)

    def after_step(self, state: TrainingState) -> None:
        """The pruning of a round; the next inspection."""
        super().after_step(state)
        first, last = self._span(self._round)
        if state.iteration == first + int(SETTLE * (last - first)):
            state.density.late_prune(state)
        if state.iteration == last and self._round < self._rounds:
            self._end_round(state)
            self._begin_round(state, self._round + 1)

    def on_end(self, state: TrainingState) -> None:
        """The last round's balance."""
        self._end_round(state)

    def state_dict(self) -> dict[str, Any]:
        """The round, its masks and boxes, and the errors at its beginning."""
        return {
            "round": self._round,
            "masks": dict(self._masks),
            "held_out": dict(self._held_out),
            "marks": [[mark.view, list(mark.box.corners()), mark.label] for mark in self._marks],
            "before": {name: dict(errors) for name, errors in self._before.items()},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._round = saved["round"]
        self._masks = dict(saved["masks"])
        self._held_out = dict(saved["held_out"])
        self._marks = [Mark(view, Box(*corners), label) for view, corners, label in saved["marks"]]
        self._before = {name: dict(errors) for name, errors in saved["before"].items()}

    # -- rounds ------------------------------------------------------------------------------------------

    @property
    def _rounds(self) -> int:
        return max(1, min(self.rounds, self.length))

    def _span(self, number: int) -> tuple[int, int]:
        """First and last iteration of a round, counted from 1."""
        edges = [self.start + k * self.length // self._rounds for k in (number - 1, number)]
        return edges[0], edges[1] - 1

    def _begin_round(self, state: TrainingState, number: int) -> None:
        """Inspect, lift, seed, render the masks."""
        self._round = number
        config = state.config.detector
        options = {"max_boxes": self.boxes, "pixels": self.pixels, "seed": state.config.run.seed}
        with open_detector(config, round_number=number, **options) as detector:
            if detector is None:
                return
            folder = _folder(state, number)
            shutil.rmtree(folder, ignore_errors=True)
            audit = AuditRound(folder)
            found = inspect(state, detector, audit, self.select, self.views, number)
            judged = detector.judged
        old = still_wrong(state, self._marks, found.looks)
        fixed = len(self._marks) - len(old)
        self._marks = [*old, *found.marks]
        seeded = self._mark_scene(state, found.looks, judged=judged)
        state.density.finish(state)
        for view, mask in self._held_out.items():
            write_png(folder / "held_out" / f"{view:05d}.png", mask.numpy())
        self._before = self._errors(state, audit)
        figures = {**found.figures, "fixed": fixed, "kept": len(old), "seeds": seeded, "masked_views": len(self._masks)}
        _write_summary(folder, {"detector": detector_kind(config), "inspection": figures, "before": self._before})
        state.run.event(_told(number, figures), stage="inspection", **figures)

    def _mark_scene(self, state: TrainingState, looks: dict[int, Look], *, judged: bool = True) -> int:
        """Turn the marks into masks of all views; returns how many Gaussians were put into holes.

        Where a detector is `judged` by the photos, the photos must agree on what it marks.
        """
        holes = hole_masks(self._marks, looks)
        if holes:
            self._make_room(state)
        values = lift(state, self._marks, looks)
        if judged and values.any():
            values = values * (wrong_views(state) >= AGREEING)
        room = state.density.room(state.gaussians)
        most = self.seeds if room is None else min(self.seeds, room)
        seeded = seed_holes(state, self._marks, looks, most) if holes and most else 0
        values = torch.cat([values, values.new_ones(len(state.gaussians) - len(values))])
        self._masks = _rendered(state, state.scene.train_cameras, values)
        self._held_out = _rendered(state, state.scene.test_cameras, values)
        for view, hole in holes.items():
            mask = self._masks.get(view, torch.zeros(hole.shape, dtype=torch.uint8))
            self._masks[view] = torch.where(torch.from_numpy(hole), 255, mask).to(torch.uint8)
        return seeded

    @torch.no_grad()
    def _make_room(self, state: TrainingState) -> None:
        """Where the number of Gaussians is capped and reached, those that are needed least go."""
        room = state.density.room(state.gaussians)
        wanted = int(ROOM * len(state.gaussians))
        if room is None or room >= wanted:
            return
        state.density.keep_largest(
            state, removal_costs(state, self._masks, WORTH), len(state.gaussians) - wanted + room
        )

    def _end_round(self, state: TrainingState) -> None:
        """Set the errors against those at the round's beginning."""
        folder = _folder(state, self._round)
        if not (folder / "audit.jsonl").is_file():
            return
        audit = AuditRound.read(folder)
        after = self._errors(state, audit)
        names = {camera.name: camera for camera in state.scene.train_cameras}
        views = [record["view"] for record in audit.records if record["view"] in names]
        with torch.no_grad():
            pictures = {name: state.render(names[name]).image.clamp(0, 1) for name in views}
        audit.finish(
            pictures, {name: {"before": self._before[_view(name)], "after": after[_view(name)]} for name in views}
        )
        summary = json.loads((folder / "summary.json").read_text())
        _write_summary(folder, summary | {"after": after})
        if self._masks:
            state.run.event(_balance(self._round, self._before, after), stage="inspection")

    def _errors(self, state: TrainingState, audit: AuditRound) -> dict[str, Errors]:
        """Errors inside and outside the masks: of training views, of held-out ones, of each inspected or held out."""
        train, test = state.scene.train_cameras, state.scene.test_cameras
        inspected = {record["view"] for record in audit.records}
        errors = {"train": _inside_outside(state, train, self._masks)}
        if test:
            errors["held_out"] = _inside_outside(state, test, self._held_out)
        for index, mask in self._held_out.items():
            errors[f"held_out {index:05d}"] = _inside_outside(state, [test[index]], {0: mask})
        for index, camera in enumerate(train):
            if camera.name in inspected:
                mine = {0: self._masks[index]} if index in self._masks else {}
                errors[_view(camera.name)] = _inside_outside(state, [camera], mine)
        return errors


def _index(state: TrainingState, camera: Camera) -> int:
    return state.scene.train_cameras.index(camera)  # cameras are equal only to themselves


def _view(name: str) -> str:
    return f"view {name}"


def _folder(state: TrainingState, number: int) -> Path:
    return state.run.path / "vlm" / f"round_{number}"


def _rendered(state: TrainingState, cameras: Sequence[Camera], values: Tensor) -> dict[int, Tensor]:
    """Values [N] as masks uint8 of the views that show any, by index."""
    masks = {}
    if values.any():
        for index, camera in enumerate(cameras):
            mask = shown(state, camera, values)
            if mask.max() > FAINT:
                masks[index] = (mask * 255 + 0.5).to(torch.uint8).cpu()
    return masks


@torch.no_grad()
def _inside_outside(state: TrainingState, cameras: Sequence[Camera], masks: Mapping[int, Tensor]) -> Errors:
    """Mean absolute and mean squared error weighted by the masks, and by what they leave; 0 where there is nothing."""
    sums = torch.zeros(2, 3, dtype=torch.float64, device=state.device)
    for index, camera in enumerate(cameras):
        photo, seen = state.photo(camera)
        error = (state.render(camera).image.clamp(0, 1) - photo).abs()
        seen = torch.ones_like(error[0]) if seen is None else seen
        inside = masks[index].to(state.device).float() / 255 * seen if index in masks else torch.zeros_like(seen)
        for row, weight in enumerate((inside, seen - inside)):
            parts = (error.mean(0) * weight, error.square().mean(0) * weight, weight)
            sums[row] += torch.stack([part.sum(dtype=torch.float64) for part in parts])
    means = (sums[:, :2] / sums[:, 2:].clamp_min(1e-12)).tolist()
    (inside, inside_squared), (outside, outside_squared) = means
    return {
        "inside": inside,
        "outside": outside,
        "inside_squared": inside_squared,
        "outside_squared": outside_squared,
    }


def _write_summary(folder: Path, content: Mapping[str, Any]) -> None:
    """What a whole round comes to; without clock times, which differ from run to run."""
    figures = {name: value for name, value in content.get("inspection", {}).items() if name != "seconds"}
    write_text(folder / "summary.json", json.dumps({**content, "inspection": figures}, indent=1) + "\n")


def _told(number: int, figures: Mapping[str, float]) -> str:
    chance = figures.get("random_acceptance")
    beside = "" if chance is None else f" (at random places {chance:.0%} would be)"
    failed = f", {figures['failed']} calls failed" if figures["failed"] else ""
    return (
        f"inspection {number}: {figures['boxes']} boxes in {figures['views']} views, "
        f"{figures['accepted']} accepted{beside}, {figures['fixed']} earlier ones fixed, {figures['seeds']} seeds in "
        f"holes{failed}"
    )


def _balance(number: int, before: Mapping[str, Errors], after: Mapping[str, Errors]) -> str:
    def change(split: str, where: str) -> str:
        return f"{before[split][where]:.4f} -> {after[split][where]:.4f}"

    held_out = f"; held out {change('held_out', 'inside')}" if "held_out" in after else ""
    return f"round {number}: error inside {change('train', 'inside')}, outside {change('train', 'outside')}{held_out}"
