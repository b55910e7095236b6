# SPDX-License-Identifier: Apache-2.0
"""Gaussians left out at random, so that a few photos are not learnt by heart.

A needle that only one photo has asked for hides what the others would have said behind it, until it is left out. The
rest is made more opaque by as much. Source of the idea: Park et al., DropGaussian, CVPR 2025, for very few views.
"""

from zlib import crc32

import torch
from torch import Tensor

MOST_DROPPED = 0.25
FEW_VIEWS = 16.7
"""The share is the sixth power of this over the number of views: with 21 a quarter pays, with 43 a fiftieth costs."""
LEAST_DROPPED = 0.01
"""A smaller share is not worth its draw."""
NOT_THERE = -20.0
"""Logit of an opacity at which a Gaussian is not drawn."""
OPAQUE = 0.999


def usual_dropout(views: int) -> float:
    """Share of the Gaussians to leave out when training on so many views; none from 36 on."""
    share = min(MOST_DROPPED, (FEW_VIEWS / max(views, 1)) ** 6)
    return share if share >= LEAST_DROPPED else 0.0


def thinned(logit_opacities: Tensor, share: float, seed: str) -> Tensor:
    """Opacities of which a share is left out at random and the others are divided by what remains.

    Args:
        logit_opacities: [N, 1].
        share: Of the Gaussians, 0 to 1.
        seed: Names the draw; it depends on nothing else.

    Returns:
        Logits [N, 1], differentiable.
    """
    generator = torch.Generator().manual_seed(crc32(seed.encode()))
    left_out = torch.rand(len(logit_opacities), 1, generator=generator) < share
    left_out = left_out.to(logit_opacities.device, non_blocking=True)  # else the host would wait for a card
    opacities = (logit_opacities.clamp(min=NOT_THERE).sigmoid() / (1 - share)).clamp(max=OPAQUE)
    return torch.where(left_out, NOT_THERE, opacities.logit())
