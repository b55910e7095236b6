# SPDX-License-Identifier: Apache-2.0
"""The interface that code written for the usual CUDA package imports; behaviour as there, on CPU tensors.

Matrices are for row vectors: `p_camera = [p, 1] @ viewmatrix`, `p_clip = [p, 1] @ projmatrix`.
"""

from operator import mul
from typing import NamedTuple

import torch
from torch import nn

from . import checks, native, stages
from .ops import PARAMETERS, Wants, _Rasterize, check_gaussians, check_means2d
from .view import CLAMP_MARGIN, View

NAMES = {"means": "means3D", "quats": "rotations", "covs": "cov3D_precomp", "colors": "colors_precomp", "sh_dc": "dc"}


class GaussianRasterizationSettings(NamedTuple):
    """How to draw one view; the first twelve or thirteen fields are the usual ones."""

    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: torch.Tensor
    scale_modifier: float
    viewmatrix: torch.Tensor
    projmatrix: torch.Tensor
    sh_degree: int
    campos: torch.Tensor
    prefiltered: bool = False
    debug: bool = False
    antialiasing: bool = False
    mult: float = 1.0
    """Compact box, see `rasterize`."""
    get_flag: bool = False
    """Also return each Gaussian's number of `metric_map` pixels, as the last value."""
    metric_map: torch.Tensor | None = None
    """[H, W] or [H * W]; non-zero pixels are counted."""
    return_invdepth: bool = True
    """Return (color, radii, invdepth) as since October 2024; False: (color, radii) as before."""
    threads: int = 0


def view_of(settings: GaussianRasterizationSettings) -> View:
    """The pinhole camera that the settings describe, an off-centre projection included."""
    # projmatrix = viewmatrix @ P^T with a rigid view: its columns times the camera's z axis give column 2 of P,
    # whose first rows hold the principal point (w = z).
    z_axis = [row[2] for row in settings.viewmatrix.tolist()[:3]]
    x, y, _, w = (sum(map(mul, z_axis, column)) for column in zip(*settings.projmatrix.tolist(), strict=True))
    offset_x, offset_y = x / w, y / w
    width, height = settings.image_width, settings.image_height
    limit_x, limit_y = CLAMP_MARGIN * settings.tanfovx, CLAMP_MARGIN * settings.tanfovy
    return View(
        width=width,
        height=height,
        fx=width / (2 * settings.tanfovx),
        fy=height / (2 * settings.tanfovy),
        cx=(offset_x + 1) * width / 2,
        cy=(offset_y + 1) * height / 2,
        camera_from_world=settings.viewmatrix.detach().T,
        clamp=(-limit_x, limit_x, -limit_y, limit_y),
    )


class GaussianRasterizer(nn.Module):
    """Draws Gaussians into the view of its settings."""

    def __init__(self, raster_settings: GaussianRasterizationSettings):
        super().__init__()
        self.raster_settings = raster_settings

    @torch.no_grad()
    def markVisible(self, positions: torch.Tensor) -> torch.Tensor:  # noqa: N802
        """[N] bool: which positions [N, 3] lie beyond the near plane."""
        checks.shape("positions", positions, (None, 3))
        matrix = self.raster_settings.viewmatrix.to(positions)
        return positions @ matrix[:3, 2] + matrix[3, 2] > View.near

    def forward(
        self,
        means3D: torch.Tensor,
        means2D: torch.Tensor | None,
        opacities: torch.Tensor,
        shs: torch.Tensor | None = None,
        colors_precomp: torch.Tensor | None = None,
        scales: torch.Tensor | None = None,
        rotations: torch.Tensor | None = None,
        cov3D_precomp: torch.Tensor | None = None,
        dc: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Color [3 or C, H, W], radii [N] int32, inverse depth [1, H, W], and counts [N] int32 if asked for.

        Args:
            means3D: [N, 3].
            means2D: Zero tensor [N, 2 to 4]; its gradient is that of the projected means, see `rasterize`.
            opacities: [N, 1], activated, as scales and rotations are.
            shs: Spherical harmonics; or give `colors_precomp`.
            colors_precomp: [N, C].
            scales: [N, 3] with `rotations`; or give `cov3D_precomp`.
            rotations: [N, 4] (w, x, y, z), unit length.
            cov3D_precomp: [N, 6] (xx, xy, xz, yy, yz, zz).
            dc: [N, 1, 3] with `shs` [N, K - 1, 3]; without it `shs` is [N, K, 3].

        Raises:
            ValueError: Alternatives, shapes, dtypes or devices do not fit; the message names the argument.
        """
        settings = self.raster_settings
        if settings.antialiasing:
            raise ValueError("antialiasing=True is not supported; leave it False")
        has_sh = shs is not None or dc is not None
        checks.one_of(shs=has_sh, colors_precomp=colors_precomp is not None)
        has_shape = scales is not None or rotations is not None
        checks.one_of(**{"scales and rotations": has_shape, "cov3D_precomp": cov3D_precomp is not None})
        if has_shape and (scales is None or rotations is None):
            raise ValueError("scales and rotations come together: one of them is None")
        return self._draw(
            means2D,
            colors_precomp,
            means=means3D,
            quats=rotations,
            scales=scales,
            opacities=opacities[:, None] if opacities.dim() == 1 else opacities,
            sh_dc=dc,
            sh_rest=shs if dc is not None else None,
            shs=shs if dc is None else None,
            covs=cov3D_precomp,
        )

    def _draw(
        self, means2d: torch.Tensor | None, colors: torch.Tensor | None, **parameters: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        settings, means = self.raster_settings, parameters["means"]
        features = None
        if colors is not None:
            checks.shape("colors_precomp", colors, (len(means), None))
            if colors.shape[1] != 3:  # other channel counts go through the feature channels
                features, colors = colors, means.new_zeros(len(means), 3)
        parameters = {name: parameters.get(name) for name in PARAMETERS} | {"colors": colors}
        check_gaussians(parameters, settings.sh_degree, NAMES)
        checks.same_kind({"means3D": means, "means2D": means2d, "colors_precomp": features}, "means3D")
        check_means2d("means2D", means2d, len(means))
        checks.same_device({"bg": settings.bg, "metric_map": settings.metric_map}, "means3D", means)
        checks.shape("bg", settings.bg, (3 if features is None else features.shape[1],))
        view, background = view_of(settings), settings.bg.detach().to(means.dtype)
        mask = metric_mask(settings)
        outputs = _Rasterize.apply(
            stages.Settings(
                view,
                settings.sh_degree,
                float(settings.scale_modifier),
                float(settings.mult),
                threads=settings.threads,
                module=native.backend(means),
            ),
            Wants(alpha=features is not None, inverse_depth=settings.return_invdepth, count_mask=mask),
            background.contiguous() if features is None else means.new_zeros(3),
            None if features is None else features.contiguous(),
            means2d,
            *(None if p is None else p.contiguous() for p in parameters.values()),
        )
        image, alpha, _, inverse_depth, blended, _, radii, counts = outputs[:8]
        if features is not None:
            image = blended + (1 - alpha) * background[:, None, None]
        result = (image, radii)
        if settings.return_invdepth:
            result += (inverse_depth[None],)
        return (*result, counts) if settings.get_flag else result


def metric_mask(settings: GaussianRasterizationSettings) -> torch.Tensor | None:
    """[H, W] uint8 of the pixels to count, None where nothing is asked for."""
    if not settings.get_flag:
        return None
    if settings.metric_map is None:
        raise ValueError("get_flag=True needs metric_map, [H, W] with the pixels to count")
    height, width = settings.image_height, settings.image_width
    if settings.metric_map.numel() != height * width:
        raise ValueError(f"metric_map must have {height} x {width} pixels, got {list(settings.metric_map.shape)}")
    return (settings.metric_map.reshape(height, width) != 0).to(torch.uint8).contiguous()
