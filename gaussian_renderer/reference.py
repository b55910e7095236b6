# SPDX-License-Identifier: Apache-2.0
"""The rasteriser in plain torch: slow, any dtype, differentiable by autograd. The oracle of the native one.

It imports no native code. Every function is one step of the maths, over all Gaussians and all pixels at once, so
memory grows with N * H * W: use it for a few hundred Gaussians on small images.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ALPHA_MIN = 1 / 255
ALPHA_MAX = 0.99
TRANSMITTANCE_STOP = 1e-4
DILATION = 0.3  # px^2

SH_0 = 0.28209479177387814
SH_1 = 0.4886025119029199
SH_2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
SH_3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


class PinholeView(Protocol):
    """The attributes of `diff_gaussian_rasterization.View` that are read here."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    near: float
    camera_from_world: Tensor
    clamp_range: tuple[float, float, float, float]


@dataclass(frozen=True)
class Reference:
    """As `diff_gaussian_rasterization.Rasterized`, and `margin`: how near the closest decision was to its cut-off.

    `margin` is [H, W], relative: where it is far above rounding, float32 must decide alike.
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor
    median_depth: Tensor
    features: Tensor | None
    counts: Tensor
    largest_weights: Tensor
    summed_weights: Tensor
    weights: Tensor  # [N, H, W]
    margin: Tensor


def rotation_matrices(quats: Tensor) -> Tensor:
    """[N, 4] (w, x, y, z), taken as unit length -> [N, 3, 3]."""
    w, x, y, z = quats.unbind(-1)
    rows = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def world_covariances(quats: Tensor, scales: Tensor) -> Tensor:
    """R diag(s)^2 R^T, [N, 3, 3]."""
    factor = rotation_matrices(quats) * scales[:, None, :]
    return factor @ factor.mT


def unpack_covariances(covs: Tensor) -> Tensor:
    """[N, 6] (xx, xy, xz, yy, yz, zz) -> [N, 3, 3]."""
    return covs[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics at unit vectors [N, 3] -> [N, (degree + 1)^2]."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    basis = [torch.full_like(x, SH_0)]
    if degree >= 1:
        basis += [-SH_1 * y, SH_1 * z, -SH_1 * x]
    if degree >= 2:
        a, b, c = SH_2
        basis += [a * x * y, -a * y * z, b * (2 * zz - xx - yy), -a * x * z, c * (xx - yy)]
    if degree >= 3:
        a, b, c, d, e = SH_3
        basis += [-a * y * (3 * xx - yy), b * x * y * z, -c * y * (4 * zz - xx - yy)]
        basis += [d * z * (2 * zz - 3 * xx - 3 * yy), -c * x * (4 * zz - xx - yy)]
        basis += [e * z * (xx - yy), -a * x * (xx - 3 * yy)]
    return torch.stack(basis, -1)


def sh_colors(means: Tensor, position: Tensor, coefficients: Tensor, degree: int) -> Tensor:
    """Colours seen from `position`; coefficients [N, >= (degree + 1)^2, 3]."""
    directions = torch.nn.functional.normalize(means - position, dim=-1)
    basis = sh_basis(directions, degree)
    return (0.5 + (basis[:, :, None] * coefficients[:, : basis.shape[1]]).sum(1)).clamp(min=0)


def project(means: Tensor, covs: Tensor, view: PinholeView) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel positions [N, 2], dilated pixel covariances [N, 2, 2] and depths [N]."""
    matrix = view.camera_from_world.to(means)
    rotation, translation = matrix[:3, :3], matrix[:3, 3]
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    safe_z = torch.where(z > view.near, z, 1)
    xmin, xmax, ymin, ymax = view.clamp_range
    slope_x, slope_y = (x / safe_z).clamp(xmin, xmax), (y / safe_z).clamp(ymin, ymax)
    zero = torch.zeros_like(x)
    jacobian = torch.stack(
        [
            torch.stack([view.fx / safe_z, zero, -view.fx * slope_x / safe_z], -1),
            torch.stack([zero, view.fy / safe_z, -view.fy * slope_y / safe_z], -1),
        ],
        -2,
    )
    affine = jacobian @ rotation
    shadows = affine @ covs @ affine.mT + DILATION * torch.eye(2).to(means)
    pixels = torch.stack([view.fx * x / safe_z + view.cx, view.fy * y / safe_z + view.cy], -1)
    return pixels, shadows, z


def opacities_at_pixels(
    pixels: Tensor, shadows: Tensor, opacities: Tensor, view: PinholeView, mult: float
) -> tuple[Tensor, Tensor]:
    """Alpha of every pair [N, H, W], 0 where it is not drawn, and the pair's relative distance from a cut-off."""
    ys = torch.arange(view.height).to(pixels) + 0.5
    xs = torch.arange(view.width).to(pixels) + 0.5
    dx = xs[None, None, :] - pixels[:, 0, None, None]
    dy = ys[None, :, None] - pixels[:, 1, None, None]
    a, b, c = (shadows[:, i, j, None, None] for i, j in ((0, 0), (0, 1), (1, 1)))
    squared = (c * dx * dx - 2 * b * dx * dy + a * dy * dy) / (a * c - b * b)  # Mahalanobis distance
    opacity = opacities[:, None, None]
    unclamped = opacity * torch.exp(-0.5 * squared)
    limit = mult * 2 * torch.log(255 * opacity.clamp(min=ALPHA_MIN))
    drawn = (unclamped >= ALPHA_MIN) & (squared <= limit)
    margin = torch.minimum((unclamped / ALPHA_MIN - 1).abs(), (unclamped / ALPHA_MAX - 1).abs())
    margin = torch.minimum(margin, (squared - limit).abs())
    return torch.where(drawn, unclamped.clamp(max=ALPHA_MAX), 0), margin


def blend_weights(alphas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Front-to-back weights [N, H, W] of sorted alphas, the transmittance left [H, W], and the decisions' margin.

    A pixel stops before the pair that would take its transmittance below the stop.
    """
    transmittance = torch.ones_like(alphas[0]) if len(alphas) else alphas.new_ones(alphas.shape[1:])
    going = torch.ones_like(transmittance, dtype=torch.bool)
    margin = torch.full_like(transmittance, math.inf)
    weights = []
    for alpha in alphas:
        after = transmittance * (1 - alpha)
        pending = going & (alpha > 0)
        margin = torch.where(pending, torch.minimum(margin, (after / TRANSMITTANCE_STOP - 1).abs()), margin)
        going = going & ~(pending & (after < TRANSMITTANCE_STOP))
        drawn = going & (alpha > 0)
        weights.append(torch.where(drawn, transmittance * alpha, 0))
        transmittance = torch.where(drawn, after, transmittance)
    return torch.stack(weights) if weights else alphas, transmittance, margin


def rasterize_reference(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    opacities: Tensor,
    *,
    view: PinholeView,
    background: Tensor,
    sh_dc: Tensor | None = None,
    sh_rest: Tensor | None = None,
    sh_degree: int = 0,
    colors: Tensor | None = None,
    covs: Tensor | None = None,
    features: Tensor | None = None,
    scale_modifier: float = 1.0,
    mult: float = 1.0,
    raw: bool = False,
    count_mask: Tensor | None = None,
) -> Reference:
    """Draw Gaussians; arguments as in `diff_gaussian_rasterization.rasterize`."""
    opacities = opacities.reshape(-1)
    if raw:
        opacities = opacities.sigmoid()
        quats, scales = torch.nn.functional.normalize(quats, dim=-1), scales.exp()
    if covs is None:
        world = world_covariances(quats, scales * scale_modifier)
    else:
        world = unpack_covariances(covs) * scale_modifier**2
    pixels, shadows, depths = project(means, world, view)
    if colors is None:
        matrix = view.camera_from_world.to(means)
        position = -(matrix[:3, :3].T @ matrix[:3, 3])
        coefficients = sh_dc if sh_rest is None else torch.cat([sh_dc, sh_rest], 1)
        colors = sh_colors(means, position, coefficients, sh_degree)

    visible = (depths.detach() > view.near) & (opacities.detach() > ALPHA_MIN)
    ids = torch.nonzero(visible).flatten()
    ids = ids[torch.sort(depths.detach()[ids], stable=True).indices]
    alphas, pair_margin = opacities_at_pixels(pixels[ids], shadows[ids], opacities[ids], view, mult)
    sorted_weights, left, stop_margin = blend_weights(alphas)
    weights = torch.zeros(len(means), view.height, view.width).to(means).index_copy(0, ids, sorted_weights)

    def blend(values: Tensor) -> Tensor:
        return torch.einsum("nhw,nc->chw", weights, values)

    transmittances = 1 - sorted_weights.detach().cumsum(0)
    crossed = (transmittances < 0.5) & (transmittances + sorted_weights.detach() >= 0.5)
    mask = torch.ones_like(left, dtype=torch.bool) if count_mask is None else count_mask != 0
    return Reference(
        image=blend(colors) + left * background[:, None, None],
        alpha=1 - left,
        depth=blend(depths[:, None])[0],
        median_depth=(crossed * depths.detach()[ids, None, None]).sum(0),
        features=None if features is None else blend(features),
        counts=((weights > 0) & mask).sum((1, 2)).int(),
        largest_weights=weights.detach().amax((1, 2)) if weights.numel() else opacities.detach(),
        summed_weights=weights.detach().sum((1, 2)),
        weights=weights.detach(),
        margin=torch.minimum(stop_margin, pair_margin.amin(0)).detach() if len(ids) else stop_margin,
    )
