# SPDX-License-Identifier: Apache-2.0
"""Every output and every gradient against float64 autograd of the reference in plain torch."""

import pytest
import torch
from diff_gaussian_rasterization import rasterize

from gaussian_renderer.reference import rasterize_reference

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
CLEAR = 1e-4  # of a cut-off: nearer pairs may be decided differently in float32


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))


def draw(function, leaves, scene, **options):
    dtype = leaves["means"].dtype
    known = ("means", "quats", "scales", "opacities")
    rest = {name: value for name, value in leaves.items() if name not in known and name != "covs"}
    covs = leaves.get("covs")
    shape = (None, None) if covs is not None else (leaves["quats"], leaves["scales"])
    return function(
        leaves["means"], *shape, leaves["opacities"], view=scene.view, background=scene.background.to(dtype),
        covs=covs, **rest, **options,
    )  # fmt: skip


def planes_of(out):
    return [p for p in (out.image, out.alpha[None], out.depth[None], out.features) if p is not None]


def gradients(out, leaves, clear):
    planes = torch.cat(planes_of(out))
    g = torch.Generator().manual_seed(9)
    weights = torch.rand(planes.shape, generator=g, dtype=torch.float64) - 0.5
    (planes * (weights * clear).to(planes.dtype)).sum().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def compare(scene, leaves, dtype, **options):
    exact = {name: leaf.detach().double().requires_grad_() for name, leaf in leaves.items()}
    expected = draw(rasterize_reference, exact, scene, **options)
    clear = expected.margin > CLEAR
    assert clear.float().mean() > 0.9
    got = draw(rasterize, leaves, scene, want_depth=True, want_weights=True, **options)
    for a, b in zip(planes_of(got), planes_of(expected), strict=True):
        assert relative(a.detach() * clear, b.detach() * clear) < TOLERANCE[dtype]
    v_got, v_expected = gradients(got, leaves, clear), gradients(expected, exact, clear)
    for name in leaves:
        assert relative(v_got[name], v_expected[name]) < TOLERANCE[dtype], name
    return got, expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_stored_parameters_get_the_true_gradient(scene_of, isa, dtype, degree):
    scene = scene_of()
    compare(scene, scene.leaves(dtype), dtype, sh_degree=degree, raw=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize(
    "options", [{}, {"mult": 0.5}, {"mult": 0.7}, {"scale_modifier": 0.6}], ids=["plain", "half", "box", "small"]
)
def test_activated_parameters_get_the_true_gradient(scene_of, isa, dtype, options):
    scene = scene_of(seed=1)
    compare(scene, scene.leaves(dtype, activate=True), dtype, sh_degree=3, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_given_colors_and_covariances_get_the_true_gradient(scene_of, isa, dtype):
    scene = scene_of(seed=2)
    leaves = scene.leaves(torch.float64, activate=True)
    factor = torch.randn(120, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 0.15
    covs = (factor @ factor.mT)[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    chosen = {"means": leaves["means"], "opacities": leaves["opacities"], "covs": covs}
    chosen["colors"] = leaves["sh_dc"][:, 0]
    chosen["features"] = leaves["features"]
    chosen = {name: value.detach().to(dtype).clone().requires_grad_() for name, value in chosen.items()}
    compare(scene, chosen, dtype, scale_modifier=1.2)


def test_saturated_opaque_splats_get_the_true_gradient(scene_of, isa):
    scene = scene_of(seed=4, size=0.1)
    scene.tensors["opacities"] += 5
    compare(scene, scene.leaves(), torch.float32, sh_degree=1, raw=True)


def test_statistics_agree_with_sums_over_the_reference_weights(scene_of, isa):
    scene = scene_of(seed=5)
    mask = torch.rand(45, 67, generator=torch.Generator().manual_seed(6)) > 0.4
    leaves = scene.leaves(torch.float64)
    expected = draw(rasterize_reference, leaves, scene, raw=True, count_mask=mask)
    got = draw(rasterize, scene.leaves(), scene, raw=True, count_mask=mask, want_weights=True, want_depth=True)
    torch.testing.assert_close(got.summed_weights.double(), expected.summed_weights, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.largest_weights.double(), expected.largest_weights, rtol=1e-4, atol=1e-4)
    clear = expected.margin > CLEAR
    differing = (got.median_depth.double() - expected.median_depth).abs() > 1e-4
    assert not bool((differing & clear).any())
    assert int((got.counts - expected.counts).abs().sum()) <= int((~clear).sum())


def test_mean_gradients_in_image_units_are_half_the_size_times_the_pixel_gradient(scene_of):
    """Moving the principal point moves every mean: the signed gradients add up to its derivative."""
    scene = scene_of(seed=7)
    leaves = scene.leaves(torch.float64)
    means2d = torch.zeros(120, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(3, 45, 67, generator=torch.Generator().manual_seed(8), dtype=torch.float64)

    def loss(shift):
        view = type(scene.view)(**{**vars(scene.view), "cx": scene.view.cx + shift, "clamp": scene.view.clamp_range})
        moved = type(scene)(scene.tensors, scene.background, view)
        return (draw(rasterize, leaves, moved, raw=True, means2d=means2d).image * weights).sum()

    loss(0.0).backward()
    # Pairs enter and leave at 1/255 while moving; the sum of those jumps is what the tolerance is for.
    numeric = (loss(1e-7) - loss(-1e-7)) / 2e-7
    torch.testing.assert_close(means2d.grad[:, 0].sum() * 2 / 67, numeric.detach(), rtol=1e-5, atol=1e-5)
    assert bool((means2d.grad[:, 2:] + 1e-12 >= means2d.grad[:, :2].abs()).all())


def test_absolute_mean_gradients_are_sums_of_per_pixel_absolute_values(scene_of, isa):
    """One pixel at a time, signed and absolute gradients are the same up to sign."""
    scene = scene_of(count=20, width=5, height=4, seed=9)

    def gradient(pixels):
        leaves = scene.leaves()
        means2d = torch.zeros(20, 4, requires_grad=True)
        image = draw(rasterize, leaves, scene, raw=True, means2d=means2d).image
        image[:, pixels].sum().backward()
        return means2d.grad

    everything = gradient(torch.ones(4, 5, dtype=torch.bool))
    total = torch.zeros(20, 2)
    for index in range(20):
        one = torch.zeros(20, dtype=torch.bool)
        one[index] = True
        single = gradient(one.reshape(4, 5))
        torch.testing.assert_close(single[:, 2:], single[:, :2].abs(), rtol=1e-4, atol=1e-6)
        total += single[:, 2:]
    torch.testing.assert_close(everything[:, 2:], total, rtol=1e-4, atol=1e-5)


def test_the_native_derivative_passes_gradcheck(scene_of):
    scene = scene_of(count=6, width=9, height=7, seed=10, size=0.15)
    leaves = scene.leaves(torch.float64)
    names = list(leaves)

    def function(*values):
        out = draw(rasterize, dict(zip(names, values, strict=True)), scene, raw=True, sh_degree=3, want_depth=True)
        return out.image, out.alpha, out.depth, out.features

    assert torch.autograd.gradcheck(function, tuple(leaves.values()), eps=1e-7, atol=1e-5)
