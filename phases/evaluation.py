# SPDX-License-Identifier: Apache-2.0
"""How good the present Gaussians are on a set of views, without going through files."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import torch

from scene.cameras import Camera

from .state import TrainingState


@dataclass(frozen=True)
class Evaluation:
    """Means over views: absolute error, PSNR in dB, share of pixels with alpha above 0.9."""

    l1: float
    psnr: float
    coverage: float


@torch.no_grad()
def evaluate(state: TrainingState, cameras: Sequence[Camera]) -> Evaluation:
    """Render the views and compare them with their photos where those are not masked out."""
    totals = torch.zeros(3, dtype=torch.float64)
    for camera in cameras:
        output, (photo, mask) = state.render(camera), state.photo(camera)
        difference = output.image.clamp(0, 1) - photo
        if mask is not None:
            difference, share = difference * mask, mask.mean().item() or 1.0
        else:
            share = 1.0
        squared = difference.double().square().mean().item() / share
        totals += torch.tensor(
            [
                difference.double().abs().mean().item() / share,
                -10 * log10(max(squared, 1e-10)),
                (output.alpha > 0.9).double().mean().item(),
            ],
            dtype=torch.float64,
        )
    return Evaluation(*(totals / max(1, len(cameras))).tolist())
