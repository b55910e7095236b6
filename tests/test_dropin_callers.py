# SPDX-License-Identifier: Apache-2.0
"""The drop-in rasteriser under training steps as other projects write them, from their documented call conventions.

Nothing of ours but the packages that they import: `diff_gaussian_rasterization`, `fused_ssim`, `simple_knn`. All on
CPU tensors.
"""

import math

import pytest
import torch
from diff_gaussian_rasterization import (
    GaussianRasterizationSettings,
    GaussianRasterizer,
    View,
    rasterize,
)
from fused_ssim import fused_ssim
from simple_knn._C import distCUDA2
from torch import Tensor, nn

WIDTH, HEIGHT, FOCAL = 64, 48, 60.0
COUNT = 150
HASTE = 4
"""Factor on the usual learning rates, for runs of 60 steps."""


def pose(angle: float) -> Tensor:
    """World to camera of a camera on a circle round the origin, y down."""
    c, s = math.cos(angle), math.sin(angle)
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    matrix[2, 3] = 4.0
    return matrix


def target_of(camera: Tensor, points: Tensor, colors: Tensor) -> Tensor:
    """A photo of opaque balls."""
    count = len(points)
    return rasterize(
        points,
        torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4).contiguous(),
        torch.full((count, 3), 0.2),
        torch.full((count, 1), 0.95),
        view=view_of(camera),
        background=torch.zeros(3),
        colors=colors,
    ).image


def view_of(camera: Tensor) -> View:
    return View(width=WIDTH, height=HEIGHT, fx=FOCAL, fy=FOCAL, cx=WIDTH / 2, cy=HEIGHT / 2, camera_from_world=camera)


@pytest.fixture(scope="module")
def capture() -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Points, their colours, and three cameras with photos of them."""
    generator = torch.Generator().manual_seed(5)
    points = torch.randn(COUNT, 3, generator=generator) * 0.6
    colors = torch.rand(COUNT, 3, generator=generator)
    cameras = [pose(angle) for angle in (0.0, 0.7, -0.9)]
    return points, colors, [(camera, target_of(camera, points, colors)) for camera in cameras]


# 3DGS


class ThreeDGS:
    """Parameters, optimiser and densification statistics as 3DGS keeps them."""

    def __init__(self, points: Tensor, colors: Tensor):
        spread = distCUDA2(points).clamp_min(1e-7).sqrt().log()
        raw = {
            "xyz": points,
            "f_dc": ((colors - 0.5) / 0.28209479177387814)[:, None, :],
            "f_rest": torch.zeros(len(points), 15, 3),
            "scaling": spread[:, None].repeat(1, 3),
            "rotation": torch.tensor([[1.0, 0, 0, 0]]).repeat(len(points), 1),
            "opacity": torch.full((len(points), 1), 0.1).logit(),
        }
        rates = {"xyz": 1.6e-4, "f_dc": 2.5e-3, "f_rest": 1.25e-4, "scaling": 5e-3, "rotation": 1e-3, "opacity": 2.5e-2}
        self.raw = {name: nn.Parameter(value.clone()) for name, value in raw.items()}
        groups = [{"params": [leaf], "lr": HASTE * rates[name], "name": name} for name, leaf in self.raw.items()]
        self.optimizer = torch.optim.Adam(groups, lr=0.0, eps=1e-15)
        self.gradient_sum, self.seen = torch.zeros(len(points), 1), torch.zeros(len(points), 1)
        self.largest_radius = torch.zeros(len(points))


def usual_settings(camera: Tensor, **changes) -> GaussianRasterizationSettings:
    """As 3DGS builds them from fields of view: matrices for row vectors, near 0.01, far 100."""
    near, far = 0.01, 100.0
    tanx, tany = WIDTH / (2 * FOCAL), HEIGHT / (2 * FOCAL)
    projection = torch.zeros(4, 4)
    projection[0, 0], projection[1, 1] = 1 / tanx, 1 / tany
    projection[2, 2], projection[2, 3], projection[3, 2] = far / (far - near), -far * near / (far - near), 1.0
    world_view = camera.transpose(0, 1)
    full = world_view.unsqueeze(0).bmm(projection.transpose(0, 1).unsqueeze(0)).squeeze(0)
    usual = {
        "image_height": HEIGHT,
        "image_width": WIDTH,
        "tanfovx": tanx,
        "tanfovy": tany,
        "bg": torch.zeros(3),
        "scale_modifier": 1.0,
        "viewmatrix": world_view,
        "projmatrix": full,
        "sh_degree": 3,
        "campos": world_view.inverse()[3, :3],
        "prefiltered": False,
        "debug": False,
        "antialiasing": False,
    }
    return GaussianRasterizationSettings(**(usual | changes))


def loss_of(image: Tensor, photo: Tensor) -> Tensor:
    return 0.8 * (image - photo).abs().mean() + 0.2 * (1 - fused_ssim(image.unsqueeze(0), photo.unsqueeze(0)))


def step_3dgs(model: ThreeDGS, camera: Tensor, photo: Tensor, *, split: bool, old: bool) -> float:
    """One iteration: render with a retained screen-space tensor, loss, backward, statistics, optimiser."""
    raw = model.raw
    screenspace = torch.zeros_like(raw["xyz"], dtype=raw["xyz"].dtype, requires_grad=True) + 0
    screenspace.retain_grad()
    settings = usual_settings(camera)
    if old:  # before October 2024: no antialiasing field, and two return values
        fields = settings._asdict()
        del fields["antialiasing"]
        settings = GaussianRasterizationSettings(**(fields | {"return_invdepth": False}))
    rasterizer = GaussianRasterizer(raster_settings=settings)
    color = {"shs": torch.cat((raw["f_dc"], raw["f_rest"]), dim=1)}
    if split:
        color = {"dc": raw["f_dc"], "shs": raw["f_rest"]}
    drawn = rasterizer(
        means3D=raw["xyz"],
        means2D=screenspace,
        colors_precomp=None,
        opacities=torch.sigmoid(raw["opacity"]),
        scales=torch.exp(raw["scaling"]),
        rotations=nn.functional.normalize(raw["rotation"]),
        cov3D_precomp=None,
        **color,
    )
    image, radii = drawn if old else drawn[:2]
    visible = (radii > 0).nonzero()
    loss = loss_of(image, photo)
    loss.backward()
    with torch.no_grad():
        mask = radii > 0
        model.largest_radius[mask] = torch.max(model.largest_radius[mask], radii[mask])
        model.gradient_sum[visible] += screenspace.grad[visible, :2].norm(dim=-1, keepdim=True)
        model.seen[visible] += 1
        model.optimizer.step()
        model.optimizer.zero_grad(set_to_none=True)
    return loss.item()


@pytest.mark.parametrize(("split", "old"), [(False, False), (True, False), (False, True)])
def test_the_training_step_of_3dgs_learns_the_photos(capture, split, old):
    points, colors, views = capture
    model = ThreeDGS(points, torch.full_like(colors, 0.5))
    losses = [step_3dgs(model, *views[k % 3], split=split, old=old) for k in range(60)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    average = (model.gradient_sum / model.seen.clamp_min(1)).squeeze(1)
    assert ((average > 0) == (model.seen.squeeze(1) > 0)).float().mean() > 0.95
    assert bool((average > 2e-4).any())
    assert not bool((average > 2e-4).all())
    assert model.largest_radius.max() >= 1
    assert GaussianRasterizer(usual_settings(views[0][0])).markVisible(model.raw["xyz"]).all()


def test_the_precomputed_alternatives_of_3dgs_draw_the_same(capture):
    """--convert_SHs_python and --compute_cov3D_python: colours and covariances come from the caller."""
    points, colors, views = capture
    scales, rotations = torch.full((COUNT, 3), 0.1), torch.tensor([[1.0, 0, 0, 0]]).repeat(COUNT, 1)
    rasterizer = GaussianRasterizer(usual_settings(views[1][0]))
    common = {"means3D": points, "means2D": torch.zeros_like(points), "opacities": torch.full((COUNT, 1), 0.7)}
    shs = torch.zeros(COUNT, 16, 3)
    shs[:, 0] = (colors - 0.5) / 0.28209479177387814
    usual = rasterizer(shs=shs, scales=scales, rotations=rotations, **common)[0]
    covariance = torch.tensor([0.01, 0, 0, 0.01, 0, 0.01]).repeat(COUNT, 1)
    other = rasterizer(shs=None, colors_precomp=colors, cov3D_precomp=covariance, **common)[0]
    torch.testing.assert_close(usual, other, rtol=0, atol=2e-5)


def test_counts_of_a_metric_map_are_what_fastgs_scores_with(capture):
    """FastGS: a second pass with get_flag counts in how many bad pixels each Gaussian takes part."""
    points, colors, views = capture
    camera, photo = views[0]
    model = ThreeDGS(points, colors)
    bad = torch.zeros(HEIGHT * WIDTH, dtype=torch.int32)
    bad[: HEIGHT * WIDTH // 2] = 1
    rasterizer = GaussianRasterizer(usual_settings(camera, mult=0.5, get_flag=True, metric_map=bad))
    image, radii, _, counts = rasterizer(
        means3D=model.raw["xyz"],
        means2D=torch.zeros(COUNT, 4, requires_grad=True),
        dc=model.raw["f_dc"],
        shs=model.raw["f_rest"],
        opacities=model.raw["opacity"].sigmoid(),
        scales=model.raw["scaling"].exp(),
        rotations=model.raw["rotation"],
    )
    assert image.shape == photo.shape
    assert counts.dtype == torch.int32
    assert counts.shape == (COUNT,)
    assert not counts[radii == 0].any()
    below = points[:, 1] > 1.0  # y down: the lower half of the picture is not in the map
    assert counts[below].sum() < 0.1 * counts.sum()


# LangSplat


@pytest.mark.parametrize("channels", [1, 3, 8, 16])
def test_language_features_are_learnt_on_a_frozen_scene(capture, channels):
    """LangSplat: geometry and opacity stay, N latents are drawn like colours and pulled to the maps of the views."""
    points, _, views = capture
    generator = torch.Generator().manual_seed(channels)
    truth = torch.randn(COUNT, channels, generator=generator)
    latents = nn.Parameter(torch.zeros(COUNT, channels))
    optimizer = torch.optim.Adam([latents], lr=0.05, eps=1e-15)
    geometry = {
        "means3D": nn.Parameter(points.clone()),
        "opacities": nn.Parameter(torch.full((COUNT, 1), 0.9)),
        "scales": torch.full((COUNT, 3), 0.12),
        "rotations": torch.tensor([[1.0, 0, 0, 0]]).repeat(COUNT, 1),
    }

    def draw(camera: Tensor, features: Tensor) -> Tensor:
        fixed = {name: value.detach() for name, value in geometry.items()}
        rasterizer = GaussianRasterizer(usual_settings(camera, bg=torch.zeros(channels)))
        return rasterizer(means2D=torch.zeros_like(points), colors_precomp=features, **fixed)[0]

    maps = [(camera, draw(camera, truth)) for camera, _ in views]
    losses = []
    for k in range(90):
        camera, wanted = maps[k % 3]
        drawn = draw(camera, latents)
        assert drawn.shape == (channels, HEIGHT, WIDTH)
        seen = (wanted.abs().sum(0) > 0).float()
        loss = ((drawn - wanted).abs() * seen).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.15 * sum(losses[:3])
    assert all(value.grad is None for value in geometry.values() if value.requires_grad)


def test_colour_and_features_come_from_two_calls_over_the_same_geometry(capture):
    """Each of nine channels drawn together is what it is when drawn as a part of three."""
    points, _, views = capture
    features = torch.rand(COUNT, 9, generator=torch.Generator().manual_seed(1))
    shape = {
        "means3D": points,
        "means2D": None,
        "opacities": torch.full((COUNT, 1), 0.5),
        "scales": torch.full((COUNT, 3), 0.15),
        "rotations": torch.tensor([[1.0, 0, 0, 0]]).repeat(COUNT, 1),
    }
    camera = views[2][0]
    whole = GaussianRasterizer(usual_settings(camera, bg=torch.ones(9)))(colors_precomp=features, **shape)[0]
    for first in (0, 3, 6):
        part = features[:, first : first + 3].contiguous()
        three = GaussianRasterizer(usual_settings(camera, bg=torch.ones(3)))(colors_precomp=part, **shape)[0]
        torch.testing.assert_close(whole[first : first + 3], three, rtol=0, atol=1e-5)


# gsplat


def rasterization(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    sh_degree: int | None = None,
) -> tuple[Tensor, Tensor, dict]:
    """gsplat's call in terms of `rasterize`: [C, H, W, X] colours, [C, H, W, 1] alphas, and its `info`.

    `info["means2d"]` [C, N, 2] receives gradients in pixels, as its strategies expect.
    """
    leaf = torch.zeros(len(viewmats), len(means), 2, requires_grad=True)
    to_ndc = torch.tensor([2 / width, 2 / height])
    images, alphas, radii = [], [], []
    for index, (camera, intrinsics) in enumerate(zip(viewmats, Ks, strict=True)):
        fx, fy, cx, cy = (intrinsics[i, j].item() for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        sh = {"sh_dc": colors[:, :1], "sh_rest": colors[:, 1:].contiguous(), "sh_degree": sh_degree}
        drawn = rasterize(
            means,
            nn.functional.normalize(quats, dim=-1),
            scales,
            opacities[:, None],
            view=View(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, camera_from_world=camera),
            background=torch.zeros(3),
            means2d=torch.cat([leaf[index] * to_ndc, torch.zeros(len(means), 2)], dim=1),
            **({"colors": colors} if sh_degree is None else sh),
        )
        images.append(drawn.image.permute(1, 2, 0))
        alphas.append(drawn.alpha[..., None])
        radii.append(drawn.radii[:, None].expand(-1, 2))
    info = {"means2d": leaf, "radii": torch.stack(radii), "width": width, "height": height}
    return torch.stack(images), torch.stack(alphas), info | {"n_cameras": len(viewmats), "gaussian_ids": None}


def splats_of(points: Tensor, colors: Tensor) -> tuple[nn.ParameterDict, dict[str, torch.optim.Optimizer]]:
    """Parameters and one optimiser each, as gsplat's documentation asks for."""
    values = {
        "means": points.clone(),
        "scales": distCUDA2(points).sqrt().log()[:, None].repeat(1, 3),
        "quats": torch.rand(len(points), 4, generator=torch.Generator().manual_seed(0)),
        "opacities": torch.full((len(points),), 0.1).logit(),
        "sh0": ((colors - 0.5) / 0.28209479177387814)[:, None, :],
        "shN": torch.zeros(len(points), 15, 3),
    }
    rates = {"means": 1.6e-4, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "sh0": 2.5e-3, "shN": 1.25e-4}
    params = nn.ParameterDict({name: nn.Parameter(value) for name, value in values.items()})
    return params, {name: torch.optim.Adam([params[name]], lr=HASTE * rate, eps=1e-15) for name, rate in rates.items()}


def step_gsplat(params, optimizers, camera: Tensor, photo: Tensor, *, before=None, after=None) -> float:
    """One iteration of gsplat's example; `before` and `after` are its strategy's two hooks."""
    intrinsics = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    renders, alphas, info = rasterization(
        params["means"],
        params["quats"],
        params["scales"].exp(),
        params["opacities"].sigmoid(),
        torch.cat([params["sh0"], params["shN"]], 1),
        viewmats=camera[None],
        Ks=intrinsics[None],
        width=WIDTH,
        height=HEIGHT,
        sh_degree=3,
    )
    assert renders.shape == (1, HEIGHT, WIDTH, 3)
    assert alphas.shape == (1, HEIGHT, WIDTH, 1)
    if before is not None:
        before(info)
    image, wanted = renders.permute(0, 3, 1, 2), photo[None]
    loss = 0.8 * (image - wanted).abs().mean() + 0.2 * (1 - fused_ssim(image, wanted, padding="valid"))
    loss.backward()
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if after is not None:
        after(info)
    return loss.item()


def test_the_training_step_of_gsplat_learns_the_photos(capture):
    points, colors, views = capture
    params, optimizers = splats_of(points, torch.full_like(colors, 0.5))
    losses = [step_gsplat(params, optimizers, *views[k % 3]) for k in range(60)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_pixel_gradients_of_gsplat_are_the_ndc_gradients_of_3dgs(capture):
    points, colors, views = capture
    camera, photo = views[0]
    params, optimizers = splats_of(points, colors)
    found = {}
    step_gsplat(params, optimizers, camera, photo, after=lambda info: found.update(grad=info["means2d"].grad[0]))
    params, _ = splats_of(points, colors)
    leaf = torch.zeros(COUNT, 3, requires_grad=True)
    image = GaussianRasterizer(usual_settings(camera))(
        means3D=params["means"],
        means2D=leaf,
        shs=torch.cat([params["sh0"], params["shN"]], 1),
        opacities=params["opacities"].sigmoid()[:, None],
        scales=params["scales"].exp(),
        rotations=nn.functional.normalize(params["quats"], dim=-1),
    )[0]
    loss = 0.8 * (image - photo).abs().mean()
    loss = loss + 0.2 * (1 - fused_ssim(image[None], photo[None], padding="valid"))
    loss.backward()
    ndc = found["grad"] * torch.tensor([WIDTH / 2, HEIGHT / 2])
    torch.testing.assert_close(ndc, leaf.grad[:, :2], rtol=1e-4, atol=1e-7)
    assert ndc.abs().max() > 1e-5


@pytest.mark.filterwarnings("ignore")
def test_the_default_strategy_of_gsplat_densifies_from_our_gradients(capture):
    gsplat = pytest.importorskip("gsplat", reason="gsplat is not installed here")
    points, colors, views = capture
    params, optimizers = splats_of(points[:60], colors[:60])
    strategy = gsplat.DefaultStrategy(refine_start_iter=5, refine_every=10, reset_every=1000, verbose=False)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    counts, losses = [], []
    for step in range(60):
        hooks = (params, optimizers, state, step)
        loss = step_gsplat(
            params,
            optimizers,
            *views[step % 3],
            before=lambda info, hooks=hooks: strategy.step_pre_backward(*hooks, info),
            after=lambda info, hooks=hooks: strategy.step_post_backward(*hooks, info, packed=False),
        )
        losses.append(loss)
        counts.append(len(params["means"]))
    assert counts[-1] > 60
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    for name, optimizer in optimizers.items():
        assert optimizer.state[params[name]]["exp_avg"].shape == params[name].shape
