# SPDX-License-Identifier: Apache-2.0
"""The public operations: `rasterize` and `scatter`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from . import checks, native, stages
from .view import View

PARAMETERS = ("means", "quats", "scales", "opacities", "sh_dc", "sh_rest", "colors", "covs", "shs")
COLUMNS = {
    **{"means": (3,), "quats": (4,), "scales": (3,), "opacities": (1,), "sh_dc": (1, 3), "sh_rest": (None, 3)},
    **{"colors": (3,), "covs": (6,), "shs": (None, 3)},
}
MAX_SH_DEGREE = 3


@dataclass(frozen=True)
class Rasterized:
    """What one view shows. image, alpha, depth and features carry gradients."""

    image: torch.Tensor
    """[3, H, W], background included; not clamped."""
    alpha: torch.Tensor
    """[H, W]: one minus the transmittance that is left."""
    depth: torch.Tensor | None
    """[H, W]: sum of blend weight times depth, not divided by alpha; scene units."""
    median_depth: torch.Tensor | None
    """[H, W]: depth of the splat at which transmittance falls below one half; 0 where it does not."""
    features: torch.Tensor | None
    """[C, H, W], over a background of 0."""
    radii: torch.Tensor
    """[N] int32, px: three standard deviations along the longer axis; 0 where not visible."""
    counts: torch.Tensor | None
    """[N] int32: pixels of `count_mask` to which a Gaussian contributed."""
    largest_weights: torch.Tensor | None
    """[N]: largest blend weight over all pixels."""
    summed_weights: torch.Tensor | None
    """[N]: sum of blend weights over all pixels."""


@dataclass(frozen=True)
class Wants:
    """Optional outputs."""

    alpha: bool = True
    depth: bool = False
    inverse_depth: bool = False
    weights: bool = False
    count_mask: torch.Tensor | None = None


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, settings, wants, background, features, means2d, *parameters):
        gaussians = stages.Gaussians(*parameters)
        projected = stages.project(settings, gaussians)
        bins, blended = stages.bin_and_blend(
            settings,
            projected,
            background,
            features,
            want_alpha=wants.alpha,
            want_depth=wants.depth,
            want_inverse_depth=wants.inverse_depth,
            want_stats=wants.weights,
            count_mask=wants.count_mask,
        )
        ctx.settings, ctx.grid, ctx.slots = settings, bins.grid, bins.slots
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            *(blended.image, blended.alpha, blended.depth, blended.inverse_depth, blended.features),
            *(features, means2d),
            *(projected.splats, projected.radii),
            *(bins.tile_offsets, bins.entry_ids, bins.entry_slots, bins.entry_masks, bins.slot_ranges),
            *parameters,
        )
        extras = (blended.counts, blended.largest_weights, blended.summed_weights)
        fixed = (blended.median_depth, projected.radii, *extras)
        ctx.mark_non_differentiable(*(t for t in fixed if t is not None))
        return (blended.image, blended.alpha, blended.depth, blended.inverse_depth, blended.features, *fixed)

    @staticmethod
    def backward(ctx, v_image, v_alpha, v_depth, v_inverse_depth, v_features, *_):
        saved = ctx.saved_tensors
        image, alpha, depth, inverse_depth, features_out, features, means2d = saved[:7]
        projected, bins = stages.Projected(*saved[7:9]), stages.Bins(ctx.grid, *saved[9:14], ctx.slots)
        gaussians = stages.Gaussians(*saved[14:])
        given = (v_image, v_alpha, v_depth, v_inverse_depth, v_features)
        if all(v is None for v in given):
            return (None,) * (5 + len(PARAMETERS))
        slots, reached, v_inputs = stages.blend_adjoint(
            ctx.settings,
            projected,
            bins,
            features,
            stages.Blended(image, alpha, depth, inverse_depth=inverse_depth, features=features_out),
            stages.BlendGradients(*(None if v is None else v.contiguous() for v in given)),
            absolute=means2d is not None and means2d.shape[1] == 4,
        )
        inputs = dict(zip(("means2d", *PARAMETERS), (means2d, *saved[14:]), strict=True))
        needed = zip(inputs, ctx.needs_input_grad[4:], strict=True)
        plain = {"memory_format": torch.contiguous_format}  # means2d may be laid out otherwise
        wanted = {name: torch.empty_like(inputs[name], **plain) for name, needs in needed if needs}
        stages.project_adjoint(ctx.settings, gaussians, projected, bins, slots, reached, wanted)
        return (None, None, None, v_inputs, *map(wanted.get, inputs))


def rasterize(
    means: torch.Tensor,
    quats: torch.Tensor | None,
    scales: torch.Tensor | None,
    opacities: torch.Tensor,
    *,
    view: View,
    background: torch.Tensor,
    sh_dc: torch.Tensor | None = None,
    sh_rest: torch.Tensor | None = None,
    sh_degree: int = 0,
    colors: torch.Tensor | None = None,
    covs: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
    scale_modifier: float = 1.0,
    mult: float = 1.0,
    raw: bool = False,
    means2d: torch.Tensor | None = None,
    want_depth: bool = False,
    want_weights: bool = False,
    count_mask: torch.Tensor | None = None,
    threads: int = 0,
) -> Rasterized:
    """Draw Gaussians, differentiably.

    Args:
        means: [N, 3] centres in the world, float32 or float64; all other tensors have the same dtype.
        quats: [N, 4] rotations (w, x, y, z), taken as unit length unless `raw`; None with `covs`.
        scales: [N, 3] standard deviations in scene units, logarithms if `raw`; None with `covs`.
        opacities: [N, 1] or [N], in 0..1, logits if `raw`.
        view: The camera.
        background: [3] colour behind everything; gets no gradient.
        sh_dc: [N, 1, 3] constant spherical-harmonic coefficients, or give `colors`.
        sh_rest: [N, K, 3] further coefficients; only the first (sh_degree + 1)^2 - 1 are used.
        sh_degree: 0 to 3.
        colors: [N, 3] colours instead of spherical harmonics.
        covs: [N, 6] world covariances (xx, xy, xz, yy, yz, zz) instead of quats and scales.
        features: [N, C] further channels, blended like colours.
        scale_modifier: Factor on all scales.
        mult: Compact box: pairs with squared Mahalanobis distance above mult * 2 ln(255 opacity) are not drawn.
        raw: Parameters as stored by a trainer; activations and their derivatives happen inside.
        means2d: Zero leaf [N, 2], [N, 3] or [N, 4] whose gradient receives that of the projected mean in units of
            half an image (x, y), and with four columns the sums of per-pixel absolute values (columns 2, 3).
        want_depth: Also expected and median depth.
        want_weights: Also each Gaussian's largest and summed blend weight.
        count_mask: [H, W]; also count, for each Gaussian, the non-zero pixels that it contributed to.
        threads: 0 for the package's default (`set_threads`). Results do not depend on it.

    Raises:
        ValueError: Shapes, dtypes, devices or alternatives do not fit; the message names the argument.

    Source:
        Kerbl et al., "3D Gaussian Splatting", 2023; EWA projection of Zwicker et al., 2002.
    """
    if opacities.dim() == 1:
        opacities = opacities[:, None]
    tensors = (means, quats, scales, opacities, sh_dc, sh_rest, colors, covs, None)
    parameters = dict(zip(PARAMETERS, tensors, strict=True))
    check_gaussians(parameters, sh_degree)
    if colors is None and sh_dc is None:
        raise ValueError("give exactly one of sh_dc or colors; got none")
    count = len(means)
    checks.same_kind({"means": means, "background": background, "features": features, "means2d": means2d}, "means")
    checks.shape("background", background, (3,))
    checks.shape("features", features, (count, None))
    check_means2d("means2d", means2d, count)
    checks.shape("count_mask", count_mask, (view.height, view.width))

    settings = stages.Settings(view, sh_degree, float(scale_modifier), float(mult), raw, threads, native.backend(means))
    mask = None if count_mask is None else (count_mask != 0).to(torch.uint8).contiguous()
    wants = Wants(depth=want_depth, weights=want_weights, count_mask=mask)
    outputs = _Rasterize.apply(
        settings,
        wants,
        background.detach().contiguous(),
        None if features is None else features.contiguous(),
        means2d,
        *(None if p is None else p.contiguous() for p in parameters.values()),
    )
    image, alpha, depth, _, blended_features, median, radii, counts, largest, summed = outputs
    return Rasterized(
        image=image,
        alpha=alpha,
        depth=depth,
        median_depth=median,
        features=blended_features,
        radii=radii,
        counts=counts if count_mask is not None else None,
        largest_weights=largest if want_weights else None,
        summed_weights=summed if want_weights else None,
    )


def check_gaussians(
    parameters: dict[str, torch.Tensor | None], sh_degree: int, names: Mapping[str, str] | None = None
) -> None:
    """Raise ValueError where tensors of Gaussians do not fit each other; `names` are what the caller calls them."""
    names = names or {}
    checks.same_kind(parameters, "means", names)
    sh_rest, count = parameters["sh_rest"], len(parameters["means"])
    for name, value in parameters.items():
        if value is not None:
            checks.shape(names.get(name, name), value, (count, *COLUMNS[name]))
    checks.one_of(**{"quats and scales": parameters["quats"] is not None, "covs": parameters["covs"] is not None})
    if (parameters["quats"] is None) != (parameters["scales"] is None):
        raise ValueError("quats and scales come together: one of them is None")
    if parameters["colors"] is not None and parameters["sh_dc"] is not None:
        raise ValueError("give exactly one of sh_dc or colors; got sh_dc, colors")
    if parameters["colors"] is not None or (parameters["sh_dc"] is None and parameters["shs"] is None):
        return
    if not 0 <= sh_degree <= MAX_SH_DEGREE:
        raise ValueError(f"sh_degree must be 0 to {MAX_SH_DEGREE}, got {sh_degree}")
    needed = (sh_degree + 1) ** 2 - 1
    stored = 0 if sh_rest is None else sh_rest.shape[1]
    if parameters["shs"] is not None:
        stored = parameters["shs"].shape[1] - 1
    if stored < needed:
        raise ValueError(f"sh_degree {sh_degree} needs sh_rest with {needed} coefficients, got {stored}")
    if stored > (MAX_SH_DEGREE + 1) ** 2 - 1:
        raise ValueError(f"sh_rest may hold at most 15 coefficients, got {stored}")


def check_means2d(name: str, means2d: torch.Tensor | None, count: int) -> None:
    """Raise ValueError unless it is None or can receive the gradients of `count` projected means."""
    checks.shape(name, means2d, (count, None))
    if means2d is not None and not 2 <= means2d.shape[1] <= 4:
        raise ValueError(f"{name} must have 2, 3 or 4 columns, got {means2d.shape[1]}")


@torch.no_grad()
def scatter(
    values: torch.Tensor,
    means: torch.Tensor,
    quats: torch.Tensor | None,
    scales: torch.Tensor | None,
    opacities: torch.Tensor,
    *,
    view: View,
    covs: torch.Tensor | None = None,
    scale_modifier: float = 1.0,
    mult: float = 1.0,
    raw: bool = False,
    threads: int = 0,
) -> torch.Tensor:
    """Carry pixel values back to Gaussians: the adjoint of blending features.

    Args:
        values: [C, H, W], for example a mask.
        means, quats, scales, opacities, view, covs, scale_modifier, mult, raw, threads: As in `rasterize`.

    Returns:
        [N, C]: for each Gaussian the sum over pixels of its blend weight times the value.

    Raises:
        ValueError: Shapes, dtypes, devices or alternatives do not fit; the message names the argument.
    """
    if opacities.dim() == 1:
        opacities = opacities[:, None]
    tensors = (means, quats, scales, opacities, None, None, None, covs, None)
    check_gaussians(dict(zip(PARAMETERS, tensors, strict=True)), 0)
    checks.same_kind({"means": means, "values": values}, "means")
    checks.shape("values", values, (None, view.height, view.width))
    settings = stages.Settings(view, 0, float(scale_modifier), float(mult), raw, threads, native.backend(means))
    gaussians = stages.Gaussians(*(None if t is None else t.contiguous() for t in tensors))
    projected = stages.project(settings, gaussians)
    bins = stages.bin_splats(settings, projected)
    gradients = stages.BlendGradients(features=values.contiguous())
    return stages.blend_adjoint(settings, projected, bins, None, None, gradients)[2]
