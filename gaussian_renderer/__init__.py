# SPDX-License-Identifier: Apache-2.0
"""Cameras and Gaussians in, images out: `project -> bin -> blend`.

The work is done by the native package; `reference.py` says the same in plain torch.
"""

from dataclasses import dataclass

import torch
from diff_gaussian_rasterization import rasterize
from diff_gaussian_rasterization import scatter as _scatter
from torch import Tensor

from scene.cameras import Camera
from scene.gaussian_model import GaussianModel

COMPACT_BOX = 0.5
"""FastGS's `mult`."""


@dataclass(frozen=True)
class RenderOutput:
    """One view.

    image [3, H, W] is not clamped; alpha [H, W] in [0, 1]; depth [H, W] is sum(weight * z), median_depth [H, W]
    that of the Gaussian where transmittance falls below one half; features [C, H, W]; means2d [N, 4] receives
    the signed (0:2) and absolute (2:4) gradient of the projected centre in NDC; radii int32 [N] is 0 where
    invisible; counts int32 [N] are blends with marked pixels; largest_weights, summed_weights [N] blend weights.
    """

    image: Tensor
    alpha: Tensor
    means2d: Tensor
    radii: Tensor
    depth: Tensor | None = None
    median_depth: Tensor | None = None
    features: Tensor | None = None
    counts: Tensor | None = None
    largest_weights: Tensor | None = None
    summed_weights: Tensor | None = None

    @property
    def visible(self) -> Tensor:
        """Which Gaussians touch the view, bool [N]."""
        return self.radii > 0


def render(
    camera: Camera,
    gaussians: GaussianModel,
    background: Tensor,
    *,
    mult: float = COMPACT_BOX,
    sh_degree: int | None = None,
    scale_modifier: float = 1.0,
    logit_opacities: Tensor | None = None,
    features: Tensor | None = None,
    want_depth: bool = False,
    want_weights: bool = False,
    count_mask: Tensor | None = None,
) -> RenderOutput:
    """Draw the Gaussians as the camera sees them; differentiable in all parameters and features.

    Args:
        camera: Where to stand.
        gaussians: What to draw.
        background: Colour [3] behind everything.
        mult: Compact-box factor; 1 draws the full footprint.
        sh_degree: Default: the model's active degree.
        scale_modifier: Factor on all scales.
        logit_opacities: Others [N, 1] than the model's own.
        features: N-channel values [N, C] to blend beside the colours.
        want_depth: Also expected and median depth.
        want_weights: Also the largest and the summed blend weight of each Gaussian.
        count_mask: Pixels [H, W]; counts the blends of each Gaussian with the non-zero ones.
    """
    means2d = torch.zeros(len(gaussians), 4, device=gaussians.device, requires_grad=torch.is_grad_enabled())
    drawn = rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.log_scales,
        gaussians.logit_opacities if logit_opacities is None else logit_opacities,
        raw=True,
        sh_dc=gaussians.sh_dc,
        sh_rest=gaussians.sh_rest,
        sh_degree=gaussians.sh_degree if sh_degree is None else sh_degree,
        view=camera.view,
        background=background,
        scale_modifier=scale_modifier,
        mult=mult,
        means2d=means2d,
        features=features,
        want_depth=want_depth,
        want_weights=want_weights,
        count_mask=count_mask,
    )
    return RenderOutput(
        image=drawn.image,
        alpha=drawn.alpha,
        means2d=means2d,
        radii=drawn.radii,
        depth=drawn.depth,
        median_depth=drawn.median_depth,
        features=drawn.features,
        counts=drawn.counts,
        largest_weights=drawn.largest_weights,
        summed_weights=drawn.summed_weights,
    )


@torch.no_grad()
def scatter(camera: Camera, gaussians: GaussianModel, values: Tensor, *, mult: float = COMPACT_BOX) -> Tensor:
    """Carry pixel values onto Gaussians, the adjoint of rendering features.

    Args:
        camera: The view that the values belong to.
        gaussians: Who receives.
        values: Per-pixel values [C, H, W].
        mult: Compact-box factor.

    Returns:
        [N, C]: for each Gaussian the sum over pixels of blend weight times value.
    """
    return _scatter(
        values,
        gaussians.means,
        gaussians.quats,
        gaussians.log_scales,
        gaussians.logit_opacities,
        raw=True,
        view=camera.view,
        mult=mult,
    )
