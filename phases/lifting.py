# SPDX-License-Identifier: Apache-2.0
"""From boxes in a few views to values of Gaussians, and from these to masks in every view.

The adjoint of rendering carries a mask onto the Gaussians: a Gaussian's value is its blend weight inside the mask
over its whole blend weight, both summed over the views that speak of the defect. Rendering the values gives masks
that agree between views, for views too that nobody inspected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from gaussian_renderer import scatter
from scene.cameras import Camera
from vlm.defects import Box
from vlm.masks import hard_mask, soft_mask

from .scores import where_seen

if TYPE_CHECKING:
    from .state import TrainingState

COVERED = 0.5
"""Accumulated alpha from which a pixel shows a surface."""
GATE = 0.55
"""Half depth of what a box holds, in parts of its width in the world."""
SAME = 0.3
"""Mean value of a region inside a new box from which the box speaks of the same region."""
LARGE = 0.8
"""Quantile of a view's error from which it is large, after a blur by `BLUR` longer sides."""
BLUR = 2 / 300
WITNESS = 0.5
"""Blend weight in pixels from which a view says whether a Gaussian is wrong."""
LEAST_WEIGHT = 0.05
"""Blend weight in pixels below which a view has not seen a Gaussian."""


@dataclass(frozen=True)
class Look:
    """A training view as it stands: pictures [3, H, W], alpha and expected depth [H, W], error map [H, W].

    All in host memory, where pictures are shown and boxes are judged.
    """

    index: int
    camera: Camera
    render: Tensor
    photo: Tensor
    alpha: Tensor
    depth: Tensor
    error: np.ndarray
    seen: np.ndarray
    """Where the photo counts, bool [H, W]."""

    @property
    def empty(self) -> np.ndarray:
        """Where the photo counts and no surface is shown, bool [H, W]."""
        return self.seen & (self.alpha.numpy() < COVERED)

    @property
    def judged_error(self) -> np.ndarray:
        """The error map with NaN where the photo does not count."""
        return np.where(self.seen, self.error, np.nan)


@dataclass(frozen=True)
class Mark:
    """An accepted box of a training view."""

    view: int
    box: Box
    label: str = ""


@dataclass
class _Region:
    """A defect in 3D: blend weights [N] inside its masks and in all, over the views that speak of it."""

    inside: Tensor
    total: Tensor
    views: set[int] = field(default_factory=set)

    @property
    def value(self) -> Tensor:
        return torch.where(self.total > LEAST_WEIGHT, self.inside / self.total.clamp_min(1e-9), 0).clamp(max=1)

    def join(self, view: int, inside: Tensor, total: Tensor) -> None:
        self.inside = self.inside + inside
        if view not in self.views:
            self.total = self.total + total
            self.views.add(view)


@torch.no_grad()
def look_at_view(state: TrainingState, index: int) -> Look:
    """Render a training view; where its photo is masked out, the render is right."""
    camera = state.scene.train_cameras[index]
    output = state.render(camera, want_depth=True)
    alpha, depth = output.alpha.cpu(), output.depth.cpu()
    render, photo, mask = output.image.clamp(0, 1).cpu(), camera.image(), camera.mask()
    if mask is not None:
        photo = torch.where(mask > 0, photo, render)
    depth = depth / alpha.clamp_min(1e-6)
    error = (render - photo).abs().mean(0).numpy()
    seen = np.ones(error.shape, bool) if mask is None else (mask > 0).numpy()
    return Look(index, camera, render, photo, alpha, depth, error, seen)


@torch.no_grad()
def lift(state: TrainingState, marks: Sequence[Mark], looks: dict[int, Look]) -> Tensor:
    """Value in [0, 1] of every Gaussian [N]: how much of it the marked regions hold."""
    regions: list[_Region] = []
    count = len(state.gaussians)
    for mark in marks:
        look = looks[mark.view]
        gate = depth_gate(look, mark.box)
        if gate is None:
            continue
        mask = torch.from_numpy(soft_mask([mark.box], look.error)) * gate
        inside, total = carried(state, look.camera, mask)
        agreement = _shown_inside(state, look, [region.value for region in regions], mark.box, gate)
        found = [region for region, value in zip(regions, agreement, strict=True) if value > SAME]
        if not found:
            regions.append(_Region(*torch.zeros(2, count, device=state.device)))
            found = regions[-1:]
        found[0].join(mark.view, inside, total)
    if not regions:
        return torch.zeros(count, device=state.device)
    return torch.stack([region.value for region in regions]).amax(0)


def depth_gate(look: Look, box: Box) -> Tensor | None:
    """Pixels [H, W] at the depth of what the box is about; None where there is no surface in it.

    Pixels count whose depth is within GATE widths of the box, in the world, of the median depth of its central half.
    """
    height, width = look.alpha.shape
    covered = look.alpha >= COVERED
    center = Box(box.x0 + box.width / 4, box.y0 + box.height / 4, box.x1 - box.width / 4, box.y1 - box.height / 4).cut(
        height, width
    )
    depths = look.depth[center][covered[center]]
    if not len(depths):
        depths = look.depth[box.cut(height, width)][covered[box.cut(height, width)]]
    if not len(depths):
        return None
    middle = depths.median()
    reach = GATE * (box.width + box.height) / 2 / look.camera.fx * middle
    return covered & ((look.depth - middle).abs() < reach)


def carried(state: TrainingState, camera: Camera, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Blend weight of each Gaussian inside a mask [H, W], and in all, each [N]."""
    values = torch.stack([mask.float(), torch.ones_like(mask, dtype=torch.float32)]).to(state.device)
    weights = scatter(camera, state.gaussians, values, mult=state.mult)
    return weights[:, 0], weights[:, 1]


@torch.no_grad()
def wrong_views(state: TrainingState) -> Tensor:
    """Of the training views that show a Gaussian, the share in which most of it lies where the error is large; [N]."""
    shows, wrong = torch.zeros(2, len(state.gaussians), device=state.device)
    for camera in state.scene.train_cameras:
        image, (photo, mask) = state.render(camera).image.clamp(0, 1), state.photo(camera)
        error = (image - where_seen(photo, mask, image)).abs().mean(0).cpu().numpy()
        error = cv2.GaussianBlur(error, (0, 0), BLUR * max(error.shape))
        inside, total = carried(state, camera, torch.from_numpy(error > np.quantile(error, LARGE)))
        seen = total > WITNESS
        shows, wrong = shows + seen, wrong + (seen & (inside > total / 2))
    return wrong / shows.clamp_min(1)


@torch.no_grad()
def shown(state: TrainingState, camera: Camera, values: Tensor) -> Tensor:
    """Values [N] as the camera sees them: [H, W]."""
    return state.render(camera, features=values[:, None].contiguous()).features[0].clamp(0, 1)


def _shown_inside(
    state: TrainingState, look: Look, values: Sequence[Tensor], box: Box, gate: Tensor
) -> Sequence[float]:
    """Mean of each of the values [N] that a view shows inside a box, where the gate is open; rendered at once."""
    where = torch.from_numpy(hard_mask([box], *look.alpha.shape)) & gate
    if not values or not where.any():
        return [0.0] * len(values)
    pictures = state.render(look.camera, features=torch.stack([*values], dim=1)).features
    return pictures.cpu()[:, where].clamp(0, 1).mean(1).tolist()
