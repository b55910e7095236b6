# SPDX-License-Identifier: Apache-2.0
"""From points to Gaussians: random starts, SfM points, seeds, the wall of the tube."""

import torch
from simple_knn import distCUDA2
from torch import Tensor

from .gaussian_model import SH_C0


def gaussians_at(
    points: Tensor,
    colors: Tensor,
    *,
    scales: Tensor | None = None,
    quats: Tensor | None = None,
    opacity: float = 0.1,
    max_sh_degree: int = 3,
) -> dict[str, Tensor]:
    """Stored-space parameters of Gaussians at given points.

    Args:
        points: Centres [N, 3], world frame.
        colors: RGB in [0, 1], [N, 3].
        scales: Standard deviations [N] or [N, 3]; default the root mean squared distance to the three
            nearest neighbours (Kerbl et al. 2023, section 5.1).
        quats: Rotations [N, 4], default identity.
        opacity: One opacity for all.
        max_sh_degree: Decides the number of SH coefficients.
    """
    points = points.float()
    count = len(points)
    if scales is None:
        scales = distCUDA2(points).clamp_min(1e-7).sqrt()
    if scales.ndim == 1:
        scales = scales[:, None].expand(count, 3)
    if quats is None:
        quats = torch.tensor([1.0, 0, 0, 0]).expand(count, 4)
    logit = torch.logit(torch.tensor(float(opacity)))
    return {
        "means": points.contiguous(),
        "log_scales": scales.float().log().contiguous(),
        "quats": quats.float().contiguous(),
        "logit_opacities": logit.expand(count, 1).contiguous(),
        "sh_dc": ((colors.float() - 0.5) / SH_C0)[:, None, :].contiguous(),
        "sh_rest": torch.zeros(count, (max_sh_degree + 1) ** 2 - 1, 3),
    }


def random_points(count: int, center: Tensor, half_side: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Uniform points [N, 3] in a cube round `center`, and uniform colours [N, 3]."""
    points = center + half_side * (2 * torch.rand(count, 3, generator=generator) - 1)
    return points, torch.rand(count, 3, generator=generator)
