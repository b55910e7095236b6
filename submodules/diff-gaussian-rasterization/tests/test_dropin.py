# SPDX-License-Identifier: Apache-2.0
"""Code written for the usual CUDA package works unchanged."""

import math

import pytest
import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, View, rasterize

WIDTH, HEIGHT = 60, 44


def projection_of(view):
    """Row-vector view and full projection as the usual callers build them, near 0.01 and far 100."""
    near, far = 0.01, 100.0
    p = torch.zeros(4, 4, dtype=torch.float64)
    p[0, 0], p[1, 1] = 2 * view.fx / view.width, 2 * view.fy / view.height
    p[0, 2], p[1, 2] = (2 * view.cx - view.width) / view.width, (2 * view.cy - view.height) / view.height
    p[2, 2], p[2, 3], p[3, 2] = far / (far - near), -far * near / (far - near), 1.0
    viewmatrix = view.camera_from_world.double().T
    return viewmatrix, viewmatrix @ p.T


def settings_of(view, dtype=torch.float32, **changes):
    viewmatrix, projmatrix = projection_of(view)
    usual = GaussianRasterizationSettings(
        image_height=view.height,
        image_width=view.width,
        tanfovx=view.width / (2 * view.fx),
        tanfovy=view.height / (2 * view.fy),
        bg=torch.tensor([0.1, 0.2, 0.3], dtype=dtype),
        scale_modifier=1.0,
        viewmatrix=viewmatrix.to(dtype),
        projmatrix=projmatrix.to(dtype),
        sh_degree=3,
        campos=view.position.to(dtype),
        prefiltered=False,
        debug=False,
    )
    return usual._replace(**changes)


@pytest.fixture
def scene(scene_of):
    return scene_of(count=80, width=WIDTH, height=HEIGHT, seed=21)


def clamped_as_usual(view):
    """The same view with the clamp range that follows from tanfov alone."""
    tanx, tany = 1.3 * view.width / (2 * view.fx), 1.3 * view.height / (2 * view.fy)
    return View(**{**vars(view), "clamp": (-tanx, tanx, -tany, tany)})


def usual_inputs(scene, dtype=torch.float32):
    leaves = scene.leaves(dtype, activate=True)
    shs = torch.cat([leaves["sh_dc"], leaves["sh_rest"]], 1).detach().clone().requires_grad_()
    means2d = torch.zeros_like(leaves["means"], requires_grad=True)
    return {
        "means3D": leaves["means"], "means2D": means2d, "opacities": leaves["opacities"], "shs": shs,
        "scales": leaves["scales"], "rotations": leaves["quats"],
    }  # fmt: skip


def test_positional_and_keyword_callers_get_color_radii_and_inverse_depth(scene):
    inputs = usual_inputs(scene)
    color, radii, invdepth = GaussianRasterizer(raster_settings=settings_of(scene.view))(**inputs)
    assert (color.shape, radii.shape, invdepth.shape) == ((3, HEIGHT, WIDTH), (80,), (1, HEIGHT, WIDTH))
    assert radii.dtype == torch.int32
    means3d, means2d, opacities, shs, scales, rotations = inputs.values()
    again = GaussianRasterizer(settings_of(scene.view))(means3d, means2d, opacities, shs, None, scales, rotations)
    assert torch.equal(again[0], color)


def test_the_older_arity_is_a_setting(scene):
    result = GaussianRasterizer(settings_of(scene.view, return_invdepth=False))(**usual_inputs(scene))
    assert len(result) == 2


def test_it_draws_what_rasterize_draws_with_the_same_gradients(scene):
    view = clamped_as_usual(scene.view)
    inputs = usual_inputs(scene, torch.float64)
    color, radii, _ = GaussianRasterizer(settings_of(scene.view, torch.float64))(**inputs)
    weights = torch.rand(color.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (color * weights).sum().backward()
    t = scene.leaves(torch.float64, activate=True)
    means2d = torch.zeros(80, 4, dtype=torch.float64, requires_grad=True)
    out = rasterize(
        t["means"], t["quats"], t["scales"], t["opacities"], view=view, means2d=means2d, sh_degree=3,
        background=torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), sh_dc=t["sh_dc"], sh_rest=t["sh_rest"],
    )  # fmt: skip
    (out.image * weights).sum().backward()
    torch.testing.assert_close(color, out.image, rtol=0, atol=1e-9)
    assert torch.equal(radii, out.radii)
    names = {"means3D": "means", "opacities": "opacities", "scales": "scales", "rotations": "quats"}
    for usual, ours in names.items():
        torch.testing.assert_close(inputs[usual].grad, t[ours].grad, rtol=1e-6, atol=1e-9)
    sh = torch.cat([t["sh_dc"].grad, t["sh_rest"].grad], 1)
    torch.testing.assert_close(inputs["shs"].grad, sh, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(inputs["means2D"].grad[:, :2], means2d.grad[:, :2], rtol=1e-6, atol=1e-9)
    assert torch.equal(inputs["means2D"].grad[:, 2], torch.zeros(80, dtype=torch.float64))


def test_a_non_leaf_with_retain_grad_receives_the_mean_gradient(scene):
    inputs = usual_inputs(scene)
    inputs["means2D"] = torch.zeros(80, 3, requires_grad=True) + 0
    inputs["means2D"].retain_grad()
    GaussianRasterizer(settings_of(scene.view))(**inputs)[0].sum().backward()
    assert inputs["means2D"].grad.abs().sum() > 0


def test_the_mean_gradient_does_not_depend_on_the_layout_of_its_leaf(scene):
    gradients = []
    for leaf in (torch.zeros(80, 3), torch.zeros(3, 80).T):
        inputs = usual_inputs(scene) | {"means2D": leaf.requires_grad_()}
        GaussianRasterizer(settings_of(scene.view))(**inputs)[0].sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients) and gradients[0].any()


def test_an_extended_leaf_receives_absolute_gradients_too(scene):
    inputs = usual_inputs(scene)
    inputs["means2D"] = torch.zeros(80, 4, requires_grad=True)
    color = GaussianRasterizer(settings_of(scene.view))(**inputs)[0]
    (color * torch.rand(color.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    gradient = inputs["means2D"].grad
    signed, absolute = gradient[:, :2].abs(), gradient[:, 2:]
    assert bool((absolute >= signed * (1 - 1e-6)).all())
    assert absolute.sum() > signed.sum()


def test_inverse_depth_is_the_weighted_sum_and_its_gradient_is_true(scene_of):
    scene = scene_of(count=5, width=9, height=7, seed=22, size=0.2)
    inputs = usual_inputs(scene, torch.float64)
    rasterizer = GaussianRasterizer(settings_of(scene.view, torch.float64))
    names = [name for name in inputs if name != "means2D"]

    def function(*values):
        return rasterizer(means2D=None, **dict(zip(names, values, strict=True)))[2]

    assert torch.autograd.gradcheck(function, tuple(inputs[name] for name in names), eps=1e-7, atol=1e-5)
    shape = (inputs["means3D"], inputs["rotations"], inputs["scales"], inputs["opacities"])
    z = inputs["means3D"] @ scene.view.camera_from_world[2, :3] + scene.view.camera_from_world[2, 3]
    out = rasterize(
        *shape, view=clamped_as_usual(scene.view), background=scene.background,
        colors=torch.zeros_like(inputs["means3D"]), features=1 / z[:, None],
    )  # fmt: skip
    torch.testing.assert_close(rasterizer(**inputs)[2], out.features, rtol=1e-9, atol=1e-12)


def test_dc_beside_shs_is_the_same_as_both_in_one(scene):
    inputs = usual_inputs(scene)
    rasterizer = GaussianRasterizer(settings_of(scene.view))
    whole = rasterizer(**inputs)[0]
    shs = inputs.pop("shs").detach()
    assert torch.equal(rasterizer(dc=shs[:, :1], shs=shs[:, 1:], **inputs)[0], whole)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_precomputed_colors_may_have_any_number_of_channels(scene, channels):
    inputs = usual_inputs(scene)
    del inputs["shs"]
    colors = torch.rand(80, channels, generator=torch.Generator().manual_seed(3))
    background = torch.linspace(0.1, 0.5, channels)
    rasterizer = GaussianRasterizer(settings_of(scene.view, bg=background))
    color = rasterizer(colors_precomp=colors, **inputs)[0]
    alone = [
        GaussianRasterizer(settings_of(scene.view, bg=background[c : c + 1].expand(3)))(
            colors_precomp=colors[:, c : c + 1].expand(80, 3).contiguous(), **inputs
        )[0][0]
        for c in range(channels)
    ]
    torch.testing.assert_close(color, torch.stack(alone), rtol=1e-5, atol=1e-6)


def test_precomputed_covariances_draw_what_scales_and_rotations_draw(scene):
    from gaussian_renderer.reference import world_covariances

    inputs = usual_inputs(scene)
    rasterizer = GaussianRasterizer(settings_of(scene.view))
    expected = rasterizer(**inputs)[0]
    covs = world_covariances(inputs.pop("rotations"), inputs.pop("scales")).detach()
    packed = covs[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    torch.testing.assert_close(rasterizer(cov3D_precomp=packed, **inputs)[0], expected, rtol=1e-3, atol=2e-4)


def test_counts_are_one_more_value_with_get_flag(scene):
    everywhere = torch.ones(HEIGHT, WIDTH, dtype=torch.int32)
    settings = settings_of(scene.view, get_flag=True, metric_map=everywhere)
    *_, counts = GaussianRasterizer(settings)(**usual_inputs(scene))
    *_, half = GaussianRasterizer(settings._replace(metric_map=everywhere.tril().flatten()))(**usual_inputs(scene))
    assert counts.dtype == torch.int32
    assert 0 < half.sum() < counts.sum()


def test_a_smaller_mult_draws_fewer_pixels(scene):
    full = GaussianRasterizer(settings_of(scene.view))(**usual_inputs(scene))[0]
    boxed = GaussianRasterizer(settings_of(scene.view, mult=0.5))(**usual_inputs(scene))[0]
    assert not torch.equal(full, boxed)
    assert (full - boxed).abs().max() < 0.5


def test_mark_visible_tells_what_lies_beyond_the_near_plane():
    view = View(WIDTH, HEIGHT, 50, 50, WIDTH / 2, HEIGHT / 2, torch.eye(4))
    positions = torch.tensor([[0, 0, 1.0], [0, 0, 0.1], [0, 0, -1.0], [100.0, 0, 1.0]])
    assert GaussianRasterizer(settings_of(view)).markVisible(positions).tolist() == [True, False, False, True]


def test_an_off_centre_projection_moves_the_picture():
    splat = {
        "means3D": torch.tensor([[0.0, 0, 4]]), "means2D": None, "opacities": torch.tensor([[0.9]]),
        "colors_precomp": torch.ones(1, 3), "scales": torch.full((1, 3), 0.05),
        "rotations": torch.tensor([[1.0, 0, 0, 0]]),
    }  # fmt: skip
    view = View(WIDTH, HEIGHT, 50.0, 50.0, 20.5, 11.5, torch.eye(4))
    color = GaussianRasterizer(settings_of(view, bg=torch.zeros(3)))(**splat)[0][0]
    assert divmod(int(color.argmax()), WIDTH) == (11, 20)
    assert color.max().item() == pytest.approx(0.9, abs=1e-4)


def test_a_missing_or_doubled_alternative_is_an_error_that_says_so(scene):
    inputs, settings = usual_inputs(scene), settings_of(scene.view)
    rasterizer = GaussianRasterizer(settings)
    with pytest.raises(ValueError, match="exactly one of shs or colors_precomp; got shs, colors_precomp"):
        rasterizer(colors_precomp=torch.zeros(80, 3), **inputs)
    with pytest.raises(ValueError, match="exactly one of shs or colors_precomp; got none"):
        rasterizer(**{**inputs, "shs": None})
    with pytest.raises(ValueError, match="scales and rotations or cov3D_precomp; got scales and rotations, cov3D"):
        rasterizer(cov3D_precomp=torch.zeros(80, 6), **inputs)
    with pytest.raises(ValueError, match="scales and rotations come together"):
        rasterizer(**{**inputs, "scales": None})
    with pytest.raises(ValueError, match="rotations must have shape"):
        rasterizer(**{**inputs, "rotations": torch.zeros(80, 3)})
    with pytest.raises(ValueError, match="means2D must have 2, 3 or 4 columns, got 5"):
        rasterizer(**{**inputs, "means2D": torch.zeros(80, 5)})
    with pytest.raises(ValueError, match=r"cov3D_precomp is torch\.float64, means3D is torch\.float32"):
        bad = {**inputs, "scales": None, "rotations": None}
        rasterizer(cov3D_precomp=torch.zeros(80, 6, dtype=torch.float64), **bad)
    with pytest.raises(ValueError, match="metric_map"):
        GaussianRasterizer(settings._replace(get_flag=True))(**inputs)
    with pytest.raises(ValueError, match="bg is on meta, means3D on cpu"):
        GaussianRasterizer(settings._replace(bg=torch.zeros(3, device="meta")))(**inputs)
    with pytest.raises(ValueError, match=r"bg must have shape \[3\], got \[1\]"):
        GaussianRasterizer(settings._replace(bg=torch.zeros(1)))(**inputs)
    with pytest.raises(ValueError, match=r"bg must have shape \[8\], got \[3\]"):
        rasterizer(**{**inputs, "shs": None}, colors_precomp=torch.zeros(80, 8))
    with pytest.raises(ValueError, match="metric_map is on meta, means3D on cpu"):
        there = torch.zeros(HEIGHT, WIDTH, device="meta")
        GaussianRasterizer(settings._replace(get_flag=True, metric_map=there))(**inputs)
    with pytest.raises(ValueError, match="antialiasing"):
        GaussianRasterizer(settings._replace(antialiasing=True))(**inputs)


def test_the_mean_gradient_is_the_pixel_gradient_times_half_the_image(scene_of):
    """A lone splat: moving its mean in the world by dx moves the picture by fx dx / z."""
    view = View(WIDTH, HEIGHT, 50.0, 50.0, 30.0, 22.0, torch.eye(4, dtype=torch.float64))
    means = torch.tensor([[0.1, 0.05, 4.0]], dtype=torch.float64, requires_grad=True)
    means2d = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    color = GaussianRasterizer(settings_of(view, torch.float64))(
        means, means2d, torch.tensor([[0.7]], dtype=torch.float64),
        colors_precomp=torch.ones(1, 3, dtype=torch.float64), cov3D_precomp=torch.tensor(
            [[0.05, 0, 0, 0.05, 0, 0]], dtype=torch.float64),
    )[0]  # fmt: skip
    ramp = torch.arange(WIDTH, dtype=torch.float64)
    (color * ramp).sum().backward()
    pixel = means2d.grad[0, 0].item() * 2 / WIDTH
    assert not math.isclose(pixel, 0)
    # A flat covariance leaves the slope's clamp and J's dependence on x in the mean's own gradient.
    assert means.grad[0, 0].item() == pytest.approx(pixel * 50 / 4, rel=2e-2)
