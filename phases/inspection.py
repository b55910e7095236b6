# SPDX-License-Identifier: Apache-2.0
"""One inspection: choose views by need, show render and photo to the detector, hold its boxes against the bar."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gaussian_renderer import scatter
from vlm.acceptance import Judgement, judge, random_acceptance
from vlm.audit import AuditRound
from vlm.defects import DefectDetector, DetectionResult, Finding
from vlm.select import Select, choose, covered_need

from .lifting import Look, Mark, look_at_view

if TYPE_CHECKING:
    from .state import TrainingState

SAMPLE = 20_000
"""Gaussians that the choice of views looks at."""


@dataclass(frozen=True)
class Inspection:
    """What an inspection found: accepted boxes, the views as they were, and figures about it."""

    marks: tuple[Mark, ...]
    looks: dict[int, Look]
    figures: dict[str, float]


def inspect(
    state: TrainingState,
    detector: DefectDetector,
    audit: AuditRound,
    select: Select,
    most_views: int,
    round_number: int,
) -> Inspection:
    """Look at up to `most_views` views through the detector and write everything down."""
    began = time.perf_counter()
    chosen, covered = choose_views(state, detector, select, most_views)
    looks = {index: look_at_view(state, index) for index in chosen}
    generator = np.random.default_rng([state.config.run.seed, round_number])
    marks: list[Mark] = []
    counts = {"views": len(chosen), "boxes": 0, "accepted": 0, "failed": 0}
    rates: list[float] = []
    for index, look in looks.items():
        result = detector.detect(look.camera.name, look.render, look.photo)
        judgements = _judgements(detector, result, look)
        accepted = [judged.finding for judged in judgements if judged.accepted]
        marks += [Mark(index, finding.box, finding.label) for finding in accepted]
        counts["boxes"] += len(judgements)
        counts["accepted"] += len(accepted)
        counts["failed"] += result.failed
        rate = random_acceptance([finding.box for finding in result.findings], look.judged_error, generator)
        rates += [] if rate is None else [rate]
        audit.add(look.camera.name, (detector.name, detector.model), result, judgements, look.render, look.photo)
    audit.write()
    figures = {**counts, "covered_need": covered, "seconds": time.perf_counter() - began}
    if rates:
        figures["random_acceptance"] = float(np.mean(rates))
    return Inspection(tuple(marks), looks, figures)


def still_wrong(state: TrainingState, marks: Sequence[Mark], looks: dict[int, Look]) -> list[Mark]:
    """Those of earlier marks whose boxes would be accepted again; the others are fixed.

    Views that are not among `looks` yet are added.
    """
    left = []
    for mark in marks:
        if mark.view not in looks:
            looks[mark.view] = look_at_view(state, mark.view)
        if judge([Finding(mark.box)], looks[mark.view].judged_error)[0].accepted:
            left.append(mark)
    return left


def choose_views(
    state: TrainingState, detector: DefectDetector, select: Select, most_views: int
) -> tuple[list[int], float]:
    """Indices of the training views to show, and the share of the need that they cover."""
    cameras = state.scene.train_cameras
    need, visibility = survey(state)
    wanted = detector.views()
    if wanted is not None:
        places = {camera.name: index for index, camera in enumerate(cameras)}
        chosen = [places[name] for name in wanted if name in places]
    else:
        poses = np.stack([camera.camera_from_world for camera in cameras])
        chosen = choose(select, need, visibility, poses, most_views)
    return chosen, covered_need(need, visibility, chosen)


@torch.no_grad()
def survey(state: TrainingState) -> tuple[np.ndarray, np.ndarray]:
    """Need [M] and visibility [V, M] of a sample of the Gaussians: the residual scattered onto them, and their
    blend weight in each view over the largest one."""
    gaussians, cameras = state.gaussians, state.scene.train_cameras
    rows = np.unique(np.linspace(0, max(len(gaussians) - 1, 0), SAMPLE).astype(np.int64))
    sample = torch.from_numpy(rows[: len(gaussians)]).to(state.device)
    need = torch.zeros(len(gaussians), dtype=torch.float64, device=state.device)
    weights = np.zeros((len(cameras), len(sample)), np.float32)
    for index, camera in enumerate(cameras):
        output, (photo, mask) = state.render(camera, want_weights=True), state.photo(camera)
        error = (output.image.clamp(0, 1) - photo).abs().mean(0)
        error = error if mask is None else error * mask
        need += scatter(camera, gaussians, error[None], mult=state.mult)[:, 0]
        weights[index] = output.summed_weights[sample].cpu().numpy()
    return need[sample].cpu().numpy(), weights / np.maximum(weights.max(0), 1e-9)


def _judgements(detector: DefectDetector, result: DetectionResult, look: Look) -> list[Judgement]:
    if detector.judged:
        return judge(result.findings, look.judged_error)
    return [Judgement(finding, True, "placebo: not held against the bar") for finding in result.findings]
