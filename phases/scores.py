# SPDX-License-Identifier: Apache-2.0
"""What several views together say of each Gaussian: is it where the error is, is it to blame, does it matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diff_gaussian_rasterization.losses import photometric
from torch import Tensor

if TYPE_CHECKING:
    from scene.cameras import Camera

    from .state import TrainingState

PROBES = 100
"""Pictures of random signs, at least, over all views: the square of one alone says little."""
UNCLAMPED = 0.95
"""Factor on opacities that keeps them off the rasteriser's limit, at which they have no derivative."""


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
def removal_costs(state: TrainingState, regions: Mapping[int, Tensor] | None = None, weight: float = 0.0) -> Tensor:
    """How much the training views would change without each Gaussian: squared change of colour over all pixels, [N].

    Without it a pixel changes by minus its opacity times the image's derivative with respect to that. The sum of such
    squares is the mean square of what the adjoint makes of random signs (Hutchinson 1990), so one backward pass is an
    estimate for all Gaussians; each view has the mean of a few. Pixels in `regions`, masks uint8 [H, W] by view, count
    1 + `weight` times.
    """
    total = torch.zeros(len(state.gaussians), dtype=torch.float64, device=state.device)
    opacities = UNCLAMPED * state.gaussians.opacities
    cameras = state.scene.train_cameras
    probes = math.ceil(PROBES / len(cameras))
    for index, camera in enumerate(cameras):
        mask = camera.mask(state.device)
        worth = torch.ones(camera.height, camera.width, device=state.device) if mask is None else mask.float()
        if regions and index in regions:
            worth = worth * (1 + weight * regions[index].to(state.device) / 255)
        for _ in range(probes):
            with torch.enable_grad():
                logits = opacities.logit(eps=1e-7).requires_grad_()
                image = state.render(camera, logit_opacities=logits).image
                signs = torch.randint(2, image.shape, generator=state.generator).to(state.device) * 2 - 1
                (adjoint,) = torch.autograd.grad(image, logits, signs * worth.sqrt())
            total += (adjoint / (1 - opacities))[:, 0].double().square() / probes
    return total
