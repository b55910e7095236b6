# SPDX-License-Identifier: Apache-2.0
"""What several views together say of each Gaussian: is it where the error is, is it to blame, does it matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from diff_gaussian_rasterization.losses import photometric
from torch import Tensor

from gaussian_renderer import scatter

if TYPE_CHECKING:
    from scene.cameras import Camera

    from .state import TrainingState

PLAIN = 0.3
"""Worth of a pixel without detail, where the mean of the detail is 1."""
DETAIL_WIDTH = 0.01
"""Standard deviation of what counts as a pixel's surroundings, in longer sides of the photo."""


@dataclass(frozen=True)
class Scores:
    """Importance [N]: wrong pixels touched per view. Blame [N] in [0, 1]: the same weighted by the views' loss."""

    importance: Tensor
    blame: Tensor


def where_seen(photo: Tensor, mask: Tensor | None, image: Tensor) -> Tensor:
    """The photo [3, H, W], and the render itself where the photo is masked.

    SSIM's windows reach over a mask's edge; what lies beneath the mask must not be seen through them.
    """
    return photo if mask is None else torch.where(mask > 0, photo, image.detach())


def normalised(values: Tensor) -> Tensor:
    """Stretched to [0, 1]; a constant becomes 0."""
    if not values.numel():
        return values
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)


@torch.no_grad()
def score_gaussians(state: TrainingState, views: int) -> Scores:
    """FastGS's multi-view scores from `views` training views drawn at random (fewer where there are fewer)."""
    cameras = state.scene.train_cameras
    chosen = torch.randperm(len(cameras), generator=state.generator)[:views].tolist()
    hits, blamed = torch.zeros(2, len(state.gaussians), device=state.device)
    for index in chosen:
        counts, loss = _wrong_pixels(state, cameras[index])
        hits += counts
        blamed += loss * counts
    return Scores((hits / len(chosen)).floor(), normalised(blamed))


def _wrong_pixels(state: TrainingState, camera: Camera) -> tuple[Tensor, float]:
    """Blends of each Gaussian with the view's wrong pixels [N], and the view's loss."""
    photo, mask = state.photo(camera)
    image = state.render(camera).image
    weight = None if mask is None else mask / mask.mean().clamp_min(1e-6)
    loss = photometric(image, where_seen(photo, mask, image), weight, state.config.optim.lambda_dssim).item()
    error = (image - photo).abs().mean(0)
    wrong = normalised(error if mask is None else error * mask) > state.config.optim.loss_thresh
    return state.render(camera, count_mask=wrong).counts.float(), loss


@torch.no_grad()
def contributions(state: TrainingState, regions: Mapping[int, Tensor] | None = None, weight: float = 0.0) -> Tensor:
    """What each Gaussian gives to the training views: its blend weights in all pixels times their worth, [N].

    Pixels in `regions`, masks uint8 [H, W] by view, are worth 1 + `weight` times as much.
    """
    total = torch.zeros(len(state.gaussians), dtype=torch.float64, device=state.device)
    for index, camera in enumerate(state.scene.train_cameras):
        worth, mask = PLAIN + detail(camera.image()), camera.mask()
        if regions and index in regions:
            worth = worth * (1 + weight * regions[index] / 255)
        worth = (worth if mask is None else worth * mask).to(state.device)
        total += scatter(camera, state.gaussians, worth[None], mult=state.config.pipeline.mult)[:, 0]
    return total


def detail(photo: Tensor) -> Tensor:
    """How far each pixel of a photo [3, H, W] is from its surroundings' brightness, over the mean of that; [H, W].

    A plain surface is drawn as well by fewer Gaussians: what overlaps it takes the place of one that goes.
    """
    grey = photo.mean(0).numpy()
    fine = torch.from_numpy(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), DETAIL_WIDTH * max(grey.shape))))
    return fine / fine.mean().clamp_min(1e-6)
