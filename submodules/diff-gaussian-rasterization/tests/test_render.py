# SPDX-License-Identifier: Apache-2.0
"""Closed-form pictures, the rules at their edges, sizes, crops, and independence of threads."""

import math

import pytest
import torch
from diff_gaussian_rasterization import View, rasterize, resolve_threads, scatter, set_threads

GREY = (0.2, 0.4, 0.6)


def front_view(width=33, height=21, focal=40.0, **options):
    """A camera at the origin that looks along z, its principal point on a pixel's centre."""
    return View(width, height, focal, focal, width // 2 + 0.5, height // 2 + 0.5, torch.eye(4), **options)


def sphere(depth=4.0, size=0.2, opacity=0.8, at=(0.0, 0.0), dtype=torch.float32):
    """One round Gaussian."""
    return {
        "means": torch.tensor([[at[0], at[1], depth]], dtype=dtype),
        "quats": torch.tensor([[1.0, 0, 0, 0]], dtype=dtype),
        "scales": torch.full((1, 3), size, dtype=dtype),
        "opacities": torch.tensor([[opacity]], dtype=dtype),
        "colors": torch.tensor([[0.9, 0.5, 0.1]], dtype=dtype),
    }


def stack(*splats):
    return {name: torch.cat([s[name] for s in splats]) for name in splats[0]}


def draw(splats, view, background=GREY, **options):
    means = splats["means"]
    known = {name: splats[name] for name in splats if name in ("colors", "sh_dc", "sh_rest", "features")}
    return rasterize(
        means, splats["quats"], splats["scales"], splats["opacities"], view=view,
        background=torch.tensor(background, dtype=means.dtype), **known, **options,
    )  # fmt: skip


def draw_scene(scene, view=None, dtype=torch.float32, leaves=None, **options):
    t = leaves or scene.leaves(dtype)
    return rasterize(
        t["means"], t["quats"], t["scales"], t["opacities"], sh_dc=t["sh_dc"], sh_rest=t["sh_rest"], sh_degree=3,
        view=view or scene.view, background=scene.background.to(dtype), raw=True, **options,
    )  # fmt: skip


def test_the_centre_of_a_sphere_has_its_opacity_and_color(isa):
    out = draw(sphere(), front_view(), want_depth=True)
    expected = 0.8 * torch.tensor([0.9, 0.5, 0.1]) + 0.2 * torch.tensor(GREY)
    torch.testing.assert_close(out.image[:, 10, 16], expected, rtol=1e-5, atol=1e-6)
    assert out.alpha[10, 16].item() == pytest.approx(0.8, rel=1e-5)
    assert out.depth[10, 16].item() == pytest.approx(0.8 * 4, rel=1e-5)
    assert out.median_depth[10, 16].item() == 4


def test_a_sphere_falls_off_as_the_projected_gaussian(isa):
    out = draw(sphere(), front_view())
    variance = (40 * 0.2 / 4) ** 2 + 0.3
    for offset in (1, 2, 3):
        expected = 0.8 * math.exp(-0.5 * offset**2 / variance)
        assert out.alpha[10, 16 + offset].item() == pytest.approx(expected, rel=1e-5)
        assert out.alpha[10 - offset, 16].item() == pytest.approx(expected, rel=1e-5)


def test_the_radius_is_three_standard_deviations_rounded_up(isa):
    assert draw(sphere(), front_view()).radii.tolist() == [math.ceil(3 * math.sqrt(4.3))]


def test_the_nearer_of_two_spheres_covers_the_other(isa):
    far = sphere(depth=5.0)
    far["colors"] = torch.tensor([[0.0, 0.0, 1.0]])
    for order in ((far, sphere()), (sphere(), far)):
        out = draw(stack(*order), front_view(), background=(0, 0, 0))
        expected = 0.8 * torch.tensor([0.9, 0.5, 0.1]) + 0.2 * 0.8 * torch.tensor([0.0, 0.0, 1.0])
        torch.testing.assert_close(out.image[:, 10, 16], expected, rtol=1e-5, atol=1e-6)


def test_equal_depths_are_drawn_in_order_of_index(isa):
    splats = stack(*[sphere(opacity=0.5)] * 3)
    splats["colors"] = torch.eye(3)
    out = draw(splats, front_view(), background=(0, 0, 0))
    torch.testing.assert_close(out.image[:, 10, 16], torch.tensor([0.5, 0.25, 0.125]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("opacity", "visible"), [(0.0, False), (1 / 255, False), (1 / 255 + 1e-6, True), (1.0, True)])
def test_opacities_up_to_the_cut_off_draw_nothing(isa, dtype, opacity, visible):
    out = draw(sphere(opacity=opacity, dtype=dtype), front_view())
    assert (out.radii[0] > 0) == visible
    assert bool(out.alpha.max() > 0) == visible
    assert torch.isfinite(out.image).all()


def test_full_opacity_is_held_at_99_percent_and_gets_no_gradient_there(isa):
    splats = sphere(opacity=1.0, size=1.0)
    splats["opacities"].requires_grad_()
    out = draw(splats, front_view())
    assert out.alpha.max().item() == pytest.approx(0.99)
    out.alpha[10, 16].backward()
    assert splats["opacities"].grad.item() == 0


def test_a_pixel_stops_before_the_splat_that_would_darken_it_too_much(isa):
    splats = stack(*[sphere(depth=4.0 + i, opacity=0.9, size=2.0) for i in range(6)])
    out = draw(splats, front_view(), count_mask=torch.ones(21, 33))
    # 0.1^4 = 1e-4 is not below the stop in exact arithmetic; float32 decides it either way, 0.1^5 is below.
    assert out.alpha[10, 16].item() in (pytest.approx(1 - 1e-3, abs=1e-5), pytest.approx(1 - 1e-4, abs=1e-5))
    assert out.counts[0] > 0
    assert out.counts[5] < out.counts[0]


@pytest.mark.parametrize("depth", [-3.0, 0.0, 0.1, 0.2])
def test_splats_behind_on_or_too_near_the_camera_are_not_drawn_and_get_zero_gradient(isa, depth):
    splats = sphere(depth=depth)
    leaves = {name: value.requires_grad_() for name, value in splats.items()}
    out = draw(leaves, front_view())
    assert out.radii.tolist() == [0]
    (out.image.sum() + out.alpha.sum()).backward()
    assert all(torch.equal(leaf.grad, torch.zeros_like(leaf)) for leaf in leaves.values())


def test_splats_far_beside_the_view_are_not_drawn(isa):
    assert draw(sphere(at=(50.0, 0.0)), front_view()).radii.tolist() == [0]


def test_a_huge_splat_beside_the_view_stays_finite(isa):
    leaves = {name: value.requires_grad_() for name, value in sphere(at=(3.0, 0.5), size=3.0, depth=0.5).items()}
    out = draw(leaves, front_view())
    out.image.square().sum().backward()
    assert torch.isfinite(out.image).all()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())


@pytest.mark.parametrize("length", [1e9, 1e11, 1e14])
def test_an_endless_needle_is_not_drawn(isa, length):
    """Its radius in pixels is no int32."""
    splats = sphere()
    splats["scales"] = torch.tensor([[length, 0.0, 0.0]])
    out = draw(splats, front_view())
    assert out.radii.tolist() == [0] and not out.alpha.any()


@pytest.mark.parametrize("scales", [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 0.0), (1e3, 1e-6, 1e-6)])
def test_degenerate_covariances_draw_a_finite_picture(isa, scales):
    splats = sphere()
    splats["scales"] = torch.tensor([scales])
    splats["quats"] = torch.nn.functional.normalize(torch.tensor([[0.9, 0.1, -0.2, 0.35]]), dim=-1)
    leaves = {name: value.requires_grad_() for name, value in splats.items()}
    out = draw(leaves, front_view())
    out.image.square().sum().backward()
    assert torch.isfinite(out.image).all()
    assert out.alpha.max() > 0.1
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves.values())


@pytest.mark.parametrize("name", ["means", "scales", "quats", "opacities"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parameters_that_are_not_finite_do_not_spoil_the_picture(isa, name, value):
    splats = stack(sphere(), sphere(at=(0.3, 0.1)))
    splats[name][1, 0] = value
    out = draw(splats, front_view())
    assert torch.isfinite(out.image).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_gaussians_gives_outputs_and_gradients(scene_of, isa, count):
    scene = scene_of(count=count)
    leaves = scene.leaves()
    mask = torch.ones(45, 67)
    out = draw_scene(scene, leaves=leaves, features=leaves["features"], want_depth=True, want_weights=True,
                     count_mask=mask)  # fmt: skip
    (out.image.sum() + out.alpha.sum() + out.depth.sum() + out.features.sum()).backward()
    assert out.radii.shape == out.counts.shape == out.summed_weights.shape == (count,)
    assert leaves["sh_rest"].grad.shape == (count, 15, 3)
    if count == 0:
        assert torch.equal(out.image, scene.background.float()[:, None, None].expand(3, 45, 67))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 50), (31, 15), (32, 16), (33, 17), (64, 32), (65, 100)])
def test_any_image_size_gives_the_same_pixels_as_a_larger_one(scene_of, isa, width, height):
    scene = scene_of(width=65, height=100)
    whole = draw_scene(scene).image
    view = View(**{**vars(scene.view), "width": width, "height": height, "clamp": scene.view.clamp_range})
    torch.testing.assert_close(draw_scene(scene, view).image, whole[:, :height, :width], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (13, 9), (32, 16), (40, 31)])
@pytest.mark.parametrize("mult", [1.0, 0.5])
def test_a_crop_of_the_view_is_a_crop_of_the_picture(scene_of, isa, x, y, mult):
    scene = scene_of(width=80, height=61, count=300, seed=3)
    whole = draw_scene(scene, dtype=torch.float64, mult=mult).image
    v = scene.view
    view = View(20, 17, v.fx, v.fy, v.cx - x, v.cy - y, v.camera_from_world, clamp=v.clamp_range)
    cropped = draw_scene(scene, view, torch.float64, mult=mult).image
    torch.testing.assert_close(cropped, whole[:, y : y + 17, x : x + 20], rtol=0, atol=1e-9)


def run(scene, threads, mult=1.0):
    leaves = scene.leaves()
    means2d = torch.zeros(len(leaves["means"]), 4, requires_grad=True)
    out = draw_scene(scene, leaves=leaves, threads=threads, mult=mult, means2d=means2d)
    out.image.backward(torch.linspace(-1, 1, out.image.numel()).reshape(out.image.shape))
    grads = [leaf.grad for name, leaf in leaves.items() if name != "features"]
    return [out.image, out.alpha, out.radii, means2d.grad, *grads]


@pytest.mark.parametrize("mult", [1.0, 0.5])
def test_outputs_and_gradients_are_the_same_bytes_for_any_number_of_threads(scene_of, isa, mult):
    scene = scene_of(count=2000, width=150, height=110, seed=11)
    one = run(scene, 1, mult)
    for threads in (2, 4):
        assert all(torch.equal(a, b) for a, b in zip(one, run(scene, threads, mult), strict=True))


def test_statistics_and_features_are_the_same_bytes_for_any_number_of_threads(scene_of, isa):
    scene = scene_of(count=500, seed=12)
    leaves = scene.leaves()
    values = torch.rand(4, 45, 67)

    def outputs(threads):
        out = draw_scene(scene, leaves=leaves, threads=threads, features=leaves["features"], want_depth=True,
                         want_weights=True, count_mask=values[0] > 0.5)  # fmt: skip
        shape = (leaves[name] for name in ("means", "quats", "scales", "opacities"))
        scattered = scatter(values, *shape, view=scene.view, raw=True, threads=threads)
        chosen = (out.features, out.depth, out.median_depth, out.counts, out.summed_weights, out.largest_weights)
        return [*chosen, scattered]

    one = outputs(1)
    assert all(torch.equal(a, b) for a, b in zip(one, outputs(3), strict=True))


def test_instruction_sets_agree_closely(scene_of, monkeypatch):
    scene = scene_of(count=400, seed=13)
    monkeypatch.setenv("DGR_ISA", "portable")
    expected = draw_scene(scene).image
    monkeypatch.delenv("DGR_ISA")
    torch.testing.assert_close(draw_scene(scene).image, expected, rtol=0, atol=5e-3)
    assert (draw_scene(scene).image - expected).abs().mean() < 1e-6


def test_scatter_is_the_adjoint_of_features(scene_of, isa):
    scene = scene_of(seed=14)
    leaves = scene.leaves(torch.float64)
    shape = [leaves[name] for name in ("means", "quats", "scales", "opacities")]
    values = torch.rand(5, 45, 67, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = draw_scene(scene, dtype=torch.float64, leaves=leaves, features=leaves["features"])
    there = (out.features * values).sum()
    back = (leaves["features"] * scatter(values, *shape, view=scene.view, raw=True)).sum()
    torch.testing.assert_close(there, back, rtol=1e-12, atol=0)


def test_scatter_of_ones_is_the_summed_weight(scene_of, isa):
    scene = scene_of(seed=15)
    leaves = scene.leaves()
    shape = [leaves[name] for name in ("means", "quats", "scales", "opacities")]
    sums = scatter(torch.ones(1, 45, 67), *shape, view=scene.view, raw=True)[:, 0]
    weights = draw_scene(scene, leaves=leaves, want_weights=True).summed_weights
    torch.testing.assert_close(sums, weights, rtol=1e-5, atol=1e-6)


def test_the_fast_and_the_full_kernels_draw_the_same_bytes(scene_of, isa):
    scene = scene_of(count=300, seed=16)
    fast, full = draw_scene(scene), draw_scene(scene, want_depth=True, want_weights=True)
    assert torch.equal(fast.image, full.image)
    assert torch.equal(fast.alpha, full.alpha)


def test_the_default_number_of_threads_can_be_set():
    before = resolve_threads(0)
    set_threads(3)
    assert resolve_threads(0) == 3
    assert resolve_threads(2) == 2
    set_threads(0)
    assert resolve_threads(0) == before


def test_an_unknown_instruction_set_is_an_error_that_names_it(scene_of, monkeypatch):
    monkeypatch.setenv("DGR_ISA", "avx1024")
    with pytest.raises(ValueError, match="avx1024"):
        draw_scene(scene_of(count=3))


def test_wrong_arguments_are_errors_that_name_them(scene_of):
    splats, view = sphere(), front_view()
    with pytest.raises(ValueError, match="colors must have shape"):
        draw({**splats, "colors": torch.zeros(2, 3)}, view)
    with pytest.raises(ValueError, match=r"quats is torch\.float64, means is torch\.float32"):
        draw({**splats, "quats": splats["quats"].double()}, view)
    with pytest.raises(ValueError, match="sh_dc or colors"):
        draw({name: value for name, value in splats.items() if name != "colors"}, view)
    with pytest.raises(ValueError, match="sh_degree 3 needs sh_rest with 15"):
        without = {name: value for name, value in splats.items() if name != "colors"}
        draw({**without, "sh_dc": torch.zeros(1, 1, 3)}, view, sh_degree=3)
    with pytest.raises(ValueError, match="count_mask must have shape"):
        draw(splats, view, count_mask=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="means2d"):
        draw(splats, view, means2d=torch.zeros(1, 5))
