# SPDX-License-Identifier: Apache-2.0
"""The named tensors between the stages: projected rows, bins and their masks, against brute force."""

import itertools

import numpy as np
import pytest
import torch
from diff_gaussian_rasterization import stages

X, Y, L1, L2, L3, LOG2_OPACITY, LOG2_CUT = range(7)
RED, DEPTH = 7, 10


def stages_of(scene, mult=1.0, threads=1, dtype=torch.float32):
    t = {name: value.detach() for name, value in scene.leaves(dtype).items()}
    settings = stages.Settings(scene.view, 3, 1.0, mult, True, threads)
    order = ("means", "quats", "scales", "opacities", "sh_dc", "sh_rest")
    gaussians = stages.Gaussians(*(t[name] for name in order), None, None)
    projected = stages.project(settings, gaussians)
    return settings, projected, stages.bin_splats(settings, projected)


def drawn_pairs(projected, view):
    """[N, H, W] bool: pairs that pass the cut, from the projected rows alone, in float64."""
    rows = projected.splats.double()[:, :, None, None]
    dx = torch.arange(view.width).double()[None, None, :] + 0.5 - rows[:, X]
    dy = torch.arange(view.height).double()[None, :, None] + 0.5 - rows[:, Y]
    p, s = rows[:, L1] * dx + rows[:, L2] * dy, rows[:, L3] * dy
    inside = rows[:, LOG2_OPACITY] - p * p - s * s >= rows[:, LOG2_CUT]
    return inside & (projected.radii > 0)[:, None, None]


def binned_pairs(projected, bins):
    """[N, H, W] bool: pairs whose block is listed."""
    grid = bins.grid
    covered = np.zeros((len(projected.radii), grid.height, grid.width), bool)
    across = -(-grid.width // grid.tile_width)
    block_height = grid.tile_height // 8
    offsets, ids = bins.tile_offsets.tolist(), bins.entry_ids.tolist()
    masks = bins.entry_masks.numpy().view(np.uint64)
    for tile in range(grid.tiles):
        for entry in range(offsets[tile], offsets[tile + 1]):
            for bit in range(64):
                if masks[entry] >> np.uint64(bit) & np.uint64(1):
                    x = tile % across * grid.tile_width + bit % 8 * 4
                    y = tile // across * grid.tile_height + bit // 8 * block_height
                    covered[ids[entry], y : y + block_height, x : x + 4] = True
    return torch.from_numpy(covered)


@pytest.mark.parametrize("mult", [1.0, 0.7, 0.5])
@pytest.mark.parametrize("size", [0.02, 0.3])
def test_bins_hold_every_pair_that_is_drawn_and_few_others(scene_of, isa, mult, size):
    scene = scene_of(count=100, width=90, height=70, seed=1, size=size)
    _, projected, bins = stages_of(scene, mult)
    drawn, binned = drawn_pairs(projected, scene.view), binned_pairs(projected, bins)
    assert not bool((drawn & ~binned).any())
    assert binned.sum() < 3 * drawn.sum() + 32 * len(drawn)


def test_entries_of_a_tile_are_in_order_of_depth_then_index(scene_of, isa):
    scene = scene_of(count=300, seed=2)
    scene.tensors["means"][100:200] = scene.tensors["means"][:100]
    _, projected, bins = stages_of(scene)
    offsets, ids = bins.tile_offsets.tolist(), bins.entry_ids.tolist()
    depths = projected.splats[:, DEPTH].tolist()
    for start, end in itertools.pairwise(offsets):
        keys = [(depths[i], i) for i in ids[start:end]]
        assert keys == sorted(keys)
    assert offsets[-1] == len(ids)


def test_each_gaussians_slots_are_exactly_its_entries(scene_of, isa):
    _, projected, bins = stages_of(scene_of(count=200, seed=3))
    ids = bins.entry_ids.tolist()
    slots = bins.entry_slots.tolist()
    assert len(set(slots)) == len(slots)
    assert max(slots) < bins.slots
    for gaussian, (first, count) in enumerate(bins.slot_ranges.tolist()):
        own = [slot for slot, owner in zip(slots, ids, strict=True) if owner == gaussian]
        assert sorted(own) == list(range(first, first + count))
        if projected.radii[gaussian] == 0:
            assert count == 0


def test_bins_do_not_depend_on_threads(scene_of, isa):
    scene = scene_of(count=1000, seed=4)
    one, three = stages_of(scene)[2], stages_of(scene, threads=3)[2]
    assert torch.equal(one.tile_offsets, three.tile_offsets)
    assert torch.equal(one.entry_ids, three.entry_ids)
    assert torch.equal(one.entry_masks, three.entry_masks)


def test_whitening_is_the_root_of_the_inverse_covariance(scene_of, isa):
    from gaussian_renderer.reference import project, world_covariances

    scene = scene_of(seed=5)
    t = scene.leaves(torch.float64, activate=True)
    pixels, shadows, _ = project(t["means"], world_covariances(t["quats"], t["scales"]), scene.view)
    _, projected, _ = stages_of(scene)
    seen = projected.radii > 0
    rows = projected.splats[seen].double()
    zero = torch.zeros_like(rows[:, L1])
    root = torch.stack([rows[:, L1], rows[:, L2], zero, rows[:, L3]], -1).reshape(-1, 2, 2)
    inverse = 2 * np.log(2) * root.mT @ root
    torch.testing.assert_close(inverse, torch.linalg.inv(shadows[seen]).detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(rows[:, [X, Y]], pixels[seen].detach(), rtol=1e-5, atol=1e-4)


def test_each_gaussian_contributes_to_the_counted_pixels_of_a_naive_loop(scene_of, isa):
    scene = scene_of(count=60, width=23, height=18, seed=6)
    mask = torch.rand(18, 23, generator=torch.Generator().manual_seed(7)) > 0.5
    settings, projected, bins = stages_of(scene, mult=0.5)
    background = torch.zeros(3)
    counts = stages.blend(settings, projected, bins, background, count_mask=mask.to(torch.uint8)).counts
    rows = projected.splats.double().numpy()
    order = sorted(np.flatnonzero(projected.radii.numpy() > 0), key=lambda i: (rows[i, DEPTH], i))
    expected = np.zeros(60, int)
    close_calls = 0
    for y, x in np.ndindex(18, 23):
        left = 1.0
        for i in order:
            dx, dy = x + 0.5 - rows[i, X], y + 0.5 - rows[i, Y]
            q = rows[i, LOG2_OPACITY] - (rows[i, L1] * dx + rows[i, L2] * dy) ** 2 - (rows[i, L3] * dy) ** 2
            close_calls += abs(q - rows[i, LOG2_CUT]) < 1e-4
            if q < rows[i, LOG2_CUT]:
                continue
            after = left * (1 - min(0.99, 2**q))
            if after < 1e-4:
                break
            expected[i] += bool(mask[y, x])
            left = after
    assert np.abs(counts.numpy() - expected).sum() <= close_calls
    assert expected.sum() > 100


def gradient_of_rows(projected, bins, slots, reached):
    """[N, 16]: dL/d(row) from the slots' sums of v = dL/d ln(alpha), by the chain rule of csrc/splat.h."""
    gradient = torch.zeros_like(projected.splats)
    for gaussian, (first, count) in enumerate(bins.slot_ranges.tolist()):
        if projected.radii[gaussian] == 0:
            continue
        own = slots[first : first + count][reached[first : first + count] > 0].sum(0)
        v, vp, vs, vpp, vps, vss = own[:6].tolist()
        l1, l2, l3 = projected.splats[gaussian, L1 : L3 + 1].tolist()
        row = [l1 * vp, l2 * vp + l3 * vs, -(vpp - vps * l2 / l3) / l1, -vps / l3, -vss / l3]
        gradient[gaussian, : L3 + 1] = 2 * np.log(2) * torch.tensor(row, dtype=torch.float64)
        gradient[gaussian, LOG2_OPACITY] = np.log(2) * v
        gradient[gaussian, RED : RED + 3] = own[6:9]
    return gradient


def test_the_adjoint_of_blending_is_its_derivative(scene_of):
    """<adjoint(g), u> = <g, d blend(u)>, the latter by central differences of the rows."""
    scene = scene_of(count=30, width=40, height=30, seed=8)
    settings, projected, bins = stages_of(scene, dtype=torch.float64)
    background = torch.zeros(3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(9)
    g = torch.randn(3, 30, 40, generator=generator, dtype=torch.float64)
    blended = stages.blend(settings, projected, bins, background)
    slots, reached, _ = stages.blend_adjoint(settings, projected, bins, None, blended, stages.BlendGradients(image=g))
    gradient = gradient_of_rows(projected, bins, slots, reached)
    for columns in ([X, Y], [L1, L2, L3], [LOG2_OPACITY], [RED, RED + 1, RED + 2]):
        step = torch.zeros_like(gradient)
        step[:, columns] = torch.randn(len(step), len(columns), generator=generator, dtype=torch.float64)
        images = [
            stages.blend(
                settings, stages.Projected(projected.splats + e * step, projected.radii), bins, background
            ).image
            for e in (1e-7, -1e-7)
        ]
        moved = ((images[0] - images[1]) * g).sum() / 2e-7
        torch.testing.assert_close((gradient * step).sum(), moved, rtol=1e-5, atol=1e-5)


def test_the_adjoint_of_projecting_is_its_derivative(scene_of):
    """<adjoint(slots), u> = <dL/d(rows), d project(u)>, the latter by central differences of the parameters."""
    scene = scene_of(count=30, width=40, height=30, seed=8)
    settings, projected, bins = stages_of(scene, dtype=torch.float64)
    generator = torch.Generator().manual_seed(10)
    slots = torch.zeros(bins.slots, stages.SLOT_FIELDS, dtype=torch.float64)
    slots[:, :9] = torch.randn(bins.slots, 9, generator=generator, dtype=torch.float64)
    reached = torch.ones(bins.slots, dtype=torch.uint8)
    gradient = gradient_of_rows(projected, bins, slots, reached)
    order = ("means", "quats", "scales", "opacities", "sh_dc", "sh_rest")
    leaves = scene.leaves(torch.float64)
    parameters = {name: leaves[name].detach() for name in order}
    wanted = {name: torch.zeros_like(value) for name, value in parameters.items()}
    gaussians = stages.Gaussians(*parameters.values(), None, None)
    stages.project_adjoint(settings, gaussians, projected, bins, slots, reached, wanted)
    seen = (projected.radii > 0)[:, None]
    for name in order:
        step = torch.randn(parameters[name].shape, generator=generator, dtype=torch.float64)
        rows = [
            stages.project(
                settings, stages.Gaussians(*(parameters | {name: parameters[name] + e * step}).values(), None, None)
            ).splats
            for e in (1e-7, -1e-7)
        ]
        moved = (torch.where(seen, (rows[0] - rows[1]) * gradient, 0)).sum() / 2e-7
        torch.testing.assert_close((wanted[name] * step).sum(), moved, rtol=1e-5, atol=1e-5)
