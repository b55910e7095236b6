# SPDX-License-Identifier: Apache-2.0
"""What several views together say of each Gaussian: is it where the error is, is it to blame, does it matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diff_gaussian_rasterization.losses import photometric
from torch import Tensor

from gaussian_renderer import scatter

if TYPE_CHECKING:
    from scene.cameras import Camera

    from .state import TrainingState


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
    hits = torch.zeros(len(state.gaussians))
    blamed = torch.zeros(len(state.gaussians))
    for index in chosen:
        counts, loss = _wrong_pixels(state, cameras[index])
        hits += counts
        blamed += loss * counts
    return Scores((hits / len(chosen)).floor(), normalised(blamed))


def _wrong_pixels(state: TrainingState, camera: Camera) -> tuple[Tensor, float]:
    """Blends of each Gaussian with the view's wrong pixels [N], and the view's loss."""
    photo, mask = camera.image(), camera.mask()
    image = state.render(camera).image
    weight = None if mask is None else mask / mask.mean().clamp_min(1e-6)
    loss = photometric(image, where_seen(photo, mask, image), weight, state.config.optim.lambda_dssim).item()
    error = (image - photo).abs().mean(0)
    wrong = normalised(error if mask is None else error * mask) > state.config.optim.loss_thresh
    return state.render(camera, count_mask=wrong).counts.float(), loss


@torch.no_grad()
def blend_weights(state: TrainingState) -> Tensor:
    """Blend weight of each Gaussian summed over all pixels of all training views that count, [N]."""
    total = torch.zeros(len(state.gaussians), dtype=torch.float64)
    for camera in state.scene.train_cameras:
        mask = camera.mask()
        if mask is None:
            total += state.render(camera, want_weights=True).summed_weights
        else:
            total += scatter(camera, state.gaussians, mask[None], mult=state.config.pipeline.mult)[:, 0]
    return total
