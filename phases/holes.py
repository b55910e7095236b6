# SPDX-License-Identifier: Apache-2.0
"""Holes have no Gaussian that could be refined: they get new ones, at photo-consistent depth or at their rim's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scene.depth_sweep import DepthView
from scene.gaussian_model import Label
from vlm.defects import Box
from vlm.masks import hard_mask

from .lifting import COVERED, Look, Mark
from .seeding import SEED_OPACITY, append

if TYPE_CHECKING:
    from .state import TrainingState

LEAST_PIXELS = 12
RIM = 0.25
"""Surroundings whose depth a hole borrows, in parts of the box's sides."""


def hole_masks(marks: Sequence[Mark], looks: dict[int, Look]) -> dict[int, np.ndarray]:
    """Pixels of each marked view that lie in a box and show no surface: bool [H, W] by view."""
    holes = {}
    for view in sorted({mark.view for mark in marks}):
        empty = looks[view].empty
        hole = empty & hard_mask([mark.box for mark in marks if mark.view == view], *empty.shape)
        if hole.sum() >= LEAST_PIXELS:
            holes[view] = hole
    return holes


def seed_holes(state: TrainingState, marks: Sequence[Mark], looks: dict[int, Look], most: int) -> int:
    """Put up to `most` Gaussians into the holes inside the boxes; returns how many."""
    total = sum(int(hole.sum()) for hole in hole_masks(marks, looks).values())
    if not total or not most:
        return 0
    step = max(2, int(np.ceil((total / most) ** 0.5)))
    swept = {view.index: view for view in state.depth.views} if state.config.run.seeds == "all" else {}
    parts = [_seeds(looks[mark.view], mark.box, step, swept.get(mark.view)) for mark in marks]
    points, colors, scales = (np.concatenate(arrays)[:most] for arrays in zip(*parts, strict=True))
    append(state, points, colors, scales=scales, opacity=SEED_OPACITY, label=Label.REFINED)
    return len(points)


def _seeds(look: Look, box: Box, step: int, swept: DepthView | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [M, 3], colours [M, 3] and scales [M] on a grid of every `step`-th pixel of a box's hole."""
    height, width = look.alpha.shape
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    inside = (look.empty & hard_mask([box], height, width))[rows, columns]
    rows, columns = rows[inside], columns[inside]
    depth = _photo_depth(swept, rows / height, columns / width)
    depth = np.where(depth > 0, depth, _rim_depth(look, box))
    rows, columns, depth = (array[depth > 0] for array in (rows, columns, depth))
    camera = look.camera
    rays = np.stack(
        [(columns + 0.5 - camera.cx) / camera.fx, (rows + 0.5 - camera.cy) / camera.fy, np.ones(len(rows))], axis=1
    )
    pose = camera.camera_from_world
    points = (depth[:, None] * rays - pose[:3, 3]) @ pose[:3, :3]
    return points, look.photo.numpy()[:, rows, columns].T, 0.5 * step * depth / camera.fx


def _photo_depth(swept: DepthView | None, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Accepted depth of the plane sweep at places given in parts of the image; 0 where there is none."""
    if swept is None:
        return np.zeros(len(down))
    height, width = swept.depth.shape
    return swept.depth[(down * height).astype(int), (across * width).astype(int)].astype(np.float64)


def _rim_depth(look: Look, box: Box) -> float:
    """Median depth of the surfaces round a hole; 0 without any."""
    covered = look.alpha.numpy() >= COVERED
    x, y = RIM * box.width, RIM * box.height
    where = Box(box.x0 - x, box.y0 - y, box.x1 + x, box.y1 + y).cut(*covered.shape)
    depths = look.depth.numpy()[where][covered[where]]
    return float(np.median(depths)) if len(depths) else 0.0
