# SPDX-License-Identifier: Apache-2.0
"""The CUDA kernels, executed on the host, draw and differentiate as the CPU backend and float64 autograd do."""

import itertools

import pytest
import torch
from diff_gaussian_rasterization import GaussianRasterizationSettings, GaussianRasterizer, losses, ops, optim, stages

from gaussian_renderer.reference import rasterize_reference
from scene.rows import Rows

SCENES = {
    "an image of partial tiles": (120, 67, 45, 0.06, 0, 0.0),
    "more entries in a tile than a block holds": (420, 40, 33, 0.3, 1, -1.0),
    "pixels that stop early": (400, 37, 20, 0.4, 2, 4.0),
    "splats larger than the image": (20, 70, 50, 1.5, 3, 0.0),
    "one Gaussian": (1, 20, 20, 0.2, 4, 1.0),
}


def draw(scene, leaves, *, everything=True, mult=0.5, dtype=torch.float32):
    """All outputs and, after a backward pass of a loss on each, all gradients."""
    height, width = scene.view.height, scene.view.width
    g = torch.Generator().manual_seed(9)
    features = scene.features.to(dtype).clone().requires_grad_()
    means2d = torch.zeros(len(leaves["means"]), 4, dtype=dtype, requires_grad=True)
    out = ops.rasterize(
        **leaves,
        view=scene.view,
        background=scene.background.to(dtype),
        sh_degree=3,
        raw=True,
        mult=mult,
        means2d=means2d,
        features=features if everything else None,
        want_depth=everything,
        want_weights=everything,
        count_mask=torch.rand(height, width, generator=g) > 0.5,
    )
    differentiable = [out.image, out.alpha, out.depth, out.features] if everything else [out.image]
    terms = [(t * torch.randn(t.shape, generator=g, dtype=torch.float64).to(dtype)).mean() for t in differentiable]
    torch.stack(terms).sum().backward()
    results = {name: value.detach() for name, value in vars(out).items() if value is not None}
    gradients = {f"v_{name}": value.grad for name, value in leaves.items()}
    if everything:
        gradients["v_features"] = features.grad
    return results | gradients | {"v_means2d": means2d.grad}


def assert_near(given, expected, relative=2e-5):
    """Equal integers; floats whose difference is small against the whole array."""
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        if not value.dtype.is_floating_point:
            assert torch.equal(given[name], value), name
            continue
        difference = (given[name].double() - value.double()).norm()
        assert difference <= relative * value.double().norm() + 1e-9, f"{name}: {difference} of {value.norm()}"


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("everything", [False, True])
def test_images_counts_and_gradients_are_those_of_the_cpu(name, everything, scene_of, on_cuda):
    scene = scene_of(*SCENES[name])
    expected = draw(scene, scene.leaves(), everything=everything)
    assert_near(on_cuda(lambda: draw(scene, scene.leaves(), everything=everything)), expected)
    assert name == "one Gaussian" or expected["image"].std() > 0.05


def test_the_full_footprint_is_drawn_as_on_the_cpu(scene_of, on_cuda):
    scene = scene_of(150, 50, 41, 0.15, 5)
    assert_near(
        on_cuda(lambda: draw(scene, scene.leaves(), mult=1.0)), draw(scene, scene.leaves(), mult=1.0), relative=5e-5
    )


def test_gradients_are_those_of_float64_autograd(scene_of, on_cuda):
    scene = scene_of(40, 23, 19, 0.2, 6)
    leaves, exact = scene.leaves(), scene.leaves(torch.float64)
    reference = rasterize_reference(
        **exact, view=scene.view, background=scene.background, sh_degree=3, raw=True, mult=0.5
    )
    assert reference.margin.min() > 1e-5, "a pair is too near a cut-off for float32 to decide alike"
    weights = torch.randn(3, 19, 23, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (reference.image * weights).sum().backward()

    def render():
        return ops.rasterize(
            **leaves, view=scene.view, background=scene.background.float(), sh_degree=3, raw=True, mult=0.5
        )

    image = on_cuda(render).image
    on_cuda(lambda: (image * weights.float()).sum().backward())
    assert_near({"image": image.detach()}, {"image": reference.image.detach()})
    assert_near({k: v.grad for k, v in leaves.items()}, {k: v.grad for k, v in exact.items()}, relative=1e-4)


def test_covariances_and_colors_are_drawn_as_on_the_cpu(scene_of, on_cuda):
    scene = scene_of(80, 31, 47, 0.1, 7)
    leaves = scene.leaves()
    g = torch.Generator().manual_seed(8)
    roots = 0.3 * torch.randn(80, 3, 3, generator=g)
    covs = (roots @ roots.mT).reshape(80, 9)[:, [0, 1, 2, 4, 5, 8]]

    def render():
        tensors = {"means": leaves["means"], "covs": covs, "colors": leaves["sh_dc"][:, 0].abs()}
        own = {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}
        out = ops.rasterize(
            own["means"], None, None, leaves["opacities"].detach().sigmoid(), covs=own["covs"], colors=own["colors"],
            view=scene.view, background=scene.background.float(),
        )  # fmt: skip
        out.image.square().sum().backward()
        return {"image": out.image.detach()} | {name: value.grad for name, value in own.items()}

    assert_near(on_cuda(render), render())


def test_the_drop_in_interface_gives_what_it_gives_on_the_cpu(scene_of, on_cuda):
    scene = scene_of(60, 33, 29, 0.15, 8)
    t = {name: value.detach() for name, value in scene.leaves().items()}
    world = scene.view.camera_from_world.float().T
    projection = torch.zeros(4, 4)
    projection[0, 0], projection[1, 1] = 2 * 0.9, 2 * 0.945 * 33 / 29
    projection[2, 2], projection[3, 2], projection[2, 3] = 1.0001, -0.01, 1
    settings = GaussianRasterizationSettings(
        29, 33, 1 / 1.8, 29 / 33 / 1.89, torch.ones(3), 1.0, world, world @ projection, 3,
        torch.linalg.inv(world)[3, :3],
    )  # fmt: skip

    def render():
        color, radii, inverse_depth = GaussianRasterizer(settings)(
            t["means"], None, t["opacities"].sigmoid(), dc=t["sh_dc"], shs=t["sh_rest"], scales=t["scales"].exp(),
            rotations=torch.nn.functional.normalize(t["quats"]),
        )  # fmt: skip
        return {"color": color, "radii": radii, "inverse_depth": inverse_depth}

    assert_near(on_cuda(render), render())


def test_scatter_gives_what_it_gives_on_the_cpu(scene_of, on_cuda):
    scene = scene_of(70, 45, 30, 0.15, 9)
    t = {name: value.detach() for name, value in scene.leaves().items()}
    values = torch.rand(4, 30, 45, generator=torch.Generator().manual_seed(2))

    def carry():
        shapes = (t["means"], t["quats"], t["scales"], t["opacities"])
        return {"sums": ops.scatter(values, *shapes, view=scene.view, raw=True)}

    assert_near(on_cuda(carry), carry())


@pytest.mark.parametrize("count", [0, 3])
def test_a_view_with_nothing_in_it_is_background(count, scene_of, on_cuda):
    scene = scene_of(20, 18, 17, 0.1, 10)
    leaves = {name: value.detach()[:count].clone() for name, value in scene.leaves().items()}
    leaves["opacities"] -= 50
    for value in leaves.values():
        value.requires_grad_()

    def render():
        out = ops.rasterize(**leaves, view=scene.view, background=scene.background.float(), sh_degree=3, raw=True)
        out.image.sum().backward()
        return out

    out = on_cuda(render)
    assert torch.equal(out.image, scene.background.float()[:, None, None].expand(3, 17, 18))
    assert not out.alpha.any() and not out.radii.any()
    assert all(not value.grad.any() for value in leaves.values())


def test_a_second_run_gives_the_same_bytes(scene_of, on_cuda):
    scene = scene_of(*SCENES["more entries in a tile than a block holds"])
    first, second = (on_cuda(lambda: draw(scene, scene.leaves())) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_entries_of_a_tile_are_in_depth_order_and_slots_are_the_gaussians_own(scene_of, on_cuda):
    scene = scene_of(200, 90, 70, 0.1, 11)
    scene.tensors["means"][100:150] = scene.tensors["means"][50:100]  # equal depths
    t = {name: value.detach() for name, value in scene.leaves().items()}
    gaussians = stages.Gaussians(
        t["means"], t["quats"], t["scales"], t["opacities"], t["sh_dc"], t["sh_rest"], *[None] * 2
    )

    def bins():
        settings = stages.Settings(scene.view, 3, mult=0.5, raw=True, module=stages.native.backend(t["means"]))
        projected = stages.project(settings, gaussians)
        return projected, stages.bin_splats(settings, projected)

    projected, binned = on_cuda(bins)
    offsets, ids, depths = binned.tile_offsets.tolist(), binned.entry_ids.tolist(), projected.splats[:, 10].tolist()
    assert offsets[0] == 0 and offsets[-1] == len(ids) == binned.slots > 200
    for start, end in itertools.pairwise(offsets):
        keys = [(depths[i], i) for i in ids[start:end]]
        assert keys == sorted(keys)
    owners = dict(zip(binned.entry_slots.tolist(), ids, strict=True))
    for gaussian, (first, count) in enumerate(binned.slot_ranges.tolist()):
        assert all(owners[slot] == gaussian for slot in range(first, first + count))
        assert count or projected.radii[gaussian] == 0 or gaussian not in ids


@pytest.mark.parametrize(
    ("width", "height", "weighted"), [(37, 21, True), (64, 16, False), (5, 3, True), (33, 40, False)]
)
def test_the_loss_and_its_gradient_are_those_of_the_cpu(width, height, weighted, on_cuda):
    g = torch.Generator().manual_seed(width)
    image, target = (torch.rand(3, height, width, generator=g) for _ in range(2))
    weight = torch.rand(height, width, generator=g) if weighted else None

    def loss():
        own = image.clone().requires_grad_()
        value = losses.photometric(own, target, weight)
        value.backward()
        return {"value": value.detach(), "gradient": own.grad, "similarity": losses.ssim(image, target)}

    assert_near(on_cuda(loss), loss())


def test_a_step_of_adam_for_several_groups_gives_the_bytes_of_the_cpu(on_cuda):
    def stepped():
        g = torch.Generator().manual_seed(3)
        groups = []
        for k, shape in enumerate([(50, 3), (50, 15, 3), (50, 1), (0, 3)]):
            param, grad, mean = (torch.randn(shape, generator=g) for _ in range(3))
            lr = torch.rand(50, generator=g) if k == 1 else 0.01 * (k + 1)
            groups.append(optim.Group(param, grad, mean, torch.rand(shape, generator=g), lr, step=7 + k))
        optim.adam_steps(groups)
        return [tensor for group in groups for tensor in (group.param, group.exp_avg, group.exp_avg_sq)]

    for own, theirs in zip(on_cuda(stepped), stepped(), strict=True):
        assert torch.equal(own, theirs)


@pytest.mark.parametrize(("keep", "count"), [([4, 0, 3, 3], 0), ([1], 3), ([], 2), ([], 0), ([2, 1], 5)])
def test_all_columns_of_rows_are_gathered_and_appended_at_once(keep, count, on_cuda):
    def moved():
        rows = Rows()
        rows.add("means", torch.arange(15.0).view(5, 3), requires_grad=True)
        rows.add("sh_rest", torch.arange(225.0).view(5, 15, 3))
        rows.add("label", torch.arange(5, dtype=torch.uint8))
        rows.add("birth", torch.arange(5, dtype=torch.int32), fill=-7)
        rows.add("reach", torch.arange(5.0), fill=1.5)
        rows["means"].grad = -torch.arange(15.0).view(5, 3)
        fresh = {"means": torch.rand(3, 5, generator=torch.Generator().manual_seed(1)).T[:count], "label": [9] * count}
        fresh["label"] = torch.tensor(fresh["label"], dtype=torch.uint8)
        rows.gather_append(torch.tensor(keep, dtype=torch.int64), fresh)
        assert rows["means"].requires_grad and len(rows) == len(keep) + count
        return rows.state_dict()

    own, theirs = on_cuda(moved), moved()
    assert own.keys() == theirs.keys() and "means.grad" in own
    assert all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.mark.parametrize("entries", [0, 5, 100, 20_000])
def test_a_wrong_guess_at_the_number_of_entries_costs_time_and_changes_nothing(entries, scene_of, on_cuda, monkeypatch):
    scene = scene_of(*SCENES["more entries in a tile than a block holds"])
    expected = on_cuda(lambda: draw(scene, scene.leaves()))
    counted = scene.view.room.entries
    scene.view.room.entries = entries
    blends, blend = [], stages.blend
    monkeypatch.setattr(stages, "blend", lambda *args, **wants: blends.append(args) or blend(*args, **wants))
    given = on_cuda(lambda: draw(scene, scene.leaves()))
    assert all(torch.equal(given[name], expected[name]) for name in expected)
    assert len(blends) == 1 + (entries < 1000) and scene.view.room.entries == counted > 1000


PLANTED = {
    1: ("blend reads a batch of splats before all of it is copied", "no barrier in between|unwritten"),
    2: ("the ring takes a pixel over that may not have been handed over", "no barrier in between"),
    3: ("the ring hands pixels over one place too far", "out of bounds|no barrier in between|unwritten"),
    4: ("a shuffle's mask leaves out the last lane", "not in its own mask"),
    5: ("lanes outside the image leave before a barrier", "divergence"),
}


@pytest.mark.parametrize("bug", PLANTED, ids=[what for what, _ in PLANTED.values()])
def test_a_planted_bug_is_caught(bug, scene_of, cuda_on_host, on_cuda):
    scene = scene_of(*SCENES["more entries in a tile than a block holds"])
    cuda_on_host.plant(bug)
    try:
        with pytest.raises(RuntimeError, match=PLANTED[bug][1]):
            on_cuda(lambda: draw(scene, scene.leaves(), everything=False))
    finally:
        cuda_on_host.plant(0)
    on_cuda(lambda: draw(scene, scene.leaves(), everything=False))  # the machine is as new
