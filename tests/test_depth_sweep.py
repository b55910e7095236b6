# SPDX-License-Identifier: Apache-2.0
"""Depth found by the sweep is the depth of ray-cast scenes, and is not invented where there is none to find."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from scene.depth_sweep import SweepSettings, seeds, sweep
from scene.view_geometry import view_geometry
from tests.scenes import raycast, rigs

BALL = raycast.sphere((0, 0, 0), 0.8, raycast.solid_texture(1))
ROOM = raycast.room((6, 6, 3), raycast.solid_texture(3, finest=3))
PLAIN_ROOM = raycast.room((6, 6, 3), raycast.plain())
GROUND = raycast.plane((0, 0, -0.8), (0, 0, 1), raycast.solid_texture(2, finest=4))
SETTINGS = SweepSettings(pixels=6_144, planes=64)


def capture(*shapes, count=12):
    """Twelve small photos on an arc about two wanted baselines long per step, and their true depths."""
    cameras = [
        replace(camera, width=96, height=64, fx=84.0, fy=84.0, cx=48.0, cy=32.0)
        for camera in rigs.ring(count=count, radius=4.0, heights=(1.0, 1.3), arc=np.pi * 0.7)
    ]
    return rigs.photographed(cameras, raycast.supersampled(raycast.scene(*shapes), 1 / 84))


@pytest.fixture(scope="module")
def ball_in_room():
    photos, depths = capture(BALL, ROOM)
    return photos, depths, sweep(photos, view_geometry(photos), SETTINGS, threads=2)


def test_depth_is_accurate_and_dense_in_a_textured_room(ball_in_room):
    _, truth, maps = ball_in_room
    errors = np.concatenate(
        [np.abs(v.depth - truth[v.index])[v.depth > 0] / truth[v.index][v.depth > 0] for v in maps.views]
    )
    assert maps.accepted > 0.3
    assert np.median(errors) < 0.012
    assert (errors > 0.1).mean() < 0.03


def test_points_lie_on_the_surfaces(ball_in_room):
    _, _, maps = ball_in_room
    points, colors, footprint, view = maps.points()
    to_ball = np.abs(np.linalg.norm(points, axis=1) - 0.8)
    to_wall = np.abs(np.abs(points) - (6, 6, 3)).min(axis=1)
    assert np.median(np.minimum(to_ball, to_wall)) < 0.06
    assert len(points) == len(colors) == len(footprint) == len(view)
    assert colors.min() >= 0 and colors.max() <= 1


def test_the_sky_gets_no_depth():
    photos, truth = capture(BALL, GROUND)
    maps = sweep(photos, view_geometry(photos), SETTINGS)
    sky = [(v.depth > 0) & ~np.isfinite(truth[v.index]) for v in maps.views]
    pixels = sum(int((~np.isfinite(truth[v.index])).sum()) for v in maps.views)
    assert pixels > 2_000
    assert sum(int(s.sum()) for s in sky) < 0.01 * pixels


def test_a_wall_without_texture_gets_no_depth_but_a_rim_along_outlines():
    """A correlation window that touches the ball carries the ball's depth; nothing else may be believed."""
    photos, truth = capture(BALL, PLAIN_ROOM)
    maps = sweep(photos, view_geometry(photos), SETTINGS)
    wall = [(truth[v.index] > 4.5).astype(np.uint8) for v in maps.views]
    away = [cv2.distanceTransform(w, cv2.DIST_L2, 5) > 2.5 for w in wall]
    assert sum(int((v.depth > 0)[a].sum()) for v, a in zip(maps.views, away, strict=True)) == 0
    assert maps.accepted > 0.08  # the ball itself


def test_noise_has_no_depth():
    rng = np.random.default_rng(0)
    photos = [replace(c, photo=rng.uniform(size=(c.height, c.width, 3))) for c in capture(BALL)[0]]
    assert sweep(photos, view_geometry(photos), SETTINGS).accepted < 0.01


def test_any_number_of_threads_gives_the_same_bits(ball_in_room):
    photos, _, two = ball_in_room
    one = sweep(photos, view_geometry(photos), SETTINGS, threads=1)
    for a, b in zip(one.views, two.views, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)


def test_depth_scales_with_the_world(ball_in_room):
    photos, _, maps = ball_in_room
    grown = rigs.moved(photos, rigs.some_rotation(), 50.0, (3.0, 2.0, 1.0))
    other = sweep(grown, view_geometry(grown), SETTINGS)
    both = [(a.depth > 0) & (b.depth > 0) for a, b in zip(maps.views, other.views, strict=True)]
    assert sum(b.sum() for b in both) > 0.95 * sum((v.depth > 0).sum() for v in maps.views)
    for a, b, known in zip(maps.views, other.views, both, strict=True):
        assert np.median(np.abs(b.depth[known] / (50 * a.depth[known]) - 1)) < 1e-4


def test_masked_pixels_are_neither_seen_nor_used(ball_in_room):
    photos, _, _ = ball_in_room
    seen = np.ones((64, 96))
    seen[:, :48] = 0
    masked = [replace(camera, seen=seen, photo=np.where(seen[..., None] > 0, camera.photo, 0)) for camera in photos]
    maps = sweep(masked, view_geometry(masked), SETTINGS)
    assert maps.accepted > 0.05
    for view in maps.views:
        assert not view.depth[:, : view.depth.shape[1] // 2].any()


def test_the_principal_point_is_honoured(ball_in_room):
    """The right part of every photo, with its principal point moved along, has the same depths."""
    photos, truth, _ = ball_in_room
    cut = [replace(c, photo=c.photo[:, 24:], width=72, cx=c.cx - 24) for c in photos]
    maps = sweep(cut, view_geometry(photos), SETTINGS)
    errors = np.concatenate([np.abs(v.depth / truth[v.index][:, 24:] - 1)[v.depth > 0] for v in maps.views])
    assert maps.accepted > 0.25
    assert np.median(errors) < 0.012


def test_few_views_and_a_single_one_give_few_depths_or_none(ball_in_room):
    photos, _, _ = ball_in_room
    assert sweep(photos[:1], view_geometry(photos[:1]), SETTINGS).accepted == 0.0
    assert sweep(photos[:2], view_geometry(photos[:2]), SETTINGS).accepted == 0.0


def test_the_cache_is_read_only_for_the_same_photos_and_settings(ball_in_room, tmp_path):
    photos, _, _ = ball_in_room
    geometry = view_geometry(photos)
    few = replace(SETTINGS, views=3)
    first = sweep(photos, geometry, few, cache=tmp_path / "depth.npz")
    second = sweep(photos, geometry, few, cache=tmp_path / "depth.npz")
    assert first.seconds > 0 and second.seconds == 0
    for a, b in zip(first.views, second.views, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)
        np.testing.assert_array_equal(a.rgb, b.rgb)
    assert sweep(photos, geometry, replace(few, planes=32), cache=tmp_path / "depth.npz").seconds > 0
    (tmp_path / "depth.npz").write_bytes(b"PK\x03\x04 not an archive")
    assert sweep(photos, geometry, few, cache=tmp_path / "depth.npz").seconds > 0


def test_seeds_are_distinct_points_of_the_maps_with_capped_scales(ball_in_room):
    _, _, maps = ball_in_room
    chosen = seeds(maps, 500, np.random.default_rng(0))
    assert len(chosen) == 500
    assert len(np.unique(chosen.points.round(9), axis=0)) == 500
    every = {tuple(p) for p in maps.points()[0]}
    assert all(tuple(p) in every for p in chosen.points)
    cameras = {v.index: v for v in maps.views}
    for point, scale, view in zip(chosen.points, chosen.scales, chosen.views, strict=True):
        pose, intrinsics = cameras[view].camera_from_world, cameras[view].intrinsics
        depth = pose[2, :3] @ point + pose[2, 3]
        assert 0 < scale <= 0.04 * 96 * depth / intrinsics[0] * 1.01


def test_seeds_spread_over_the_scene_instead_of_crowding(ball_in_room):
    """The voxels keep overlapping views from seeding one surface many times over."""
    _, _, maps = ball_in_room
    points = maps.points()[0]
    chosen = seeds(maps, 300, np.random.default_rng(0)).points
    crowd = points[np.random.default_rng(0).choice(len(points), 300, replace=False)]

    def gap(cloud):
        distance = np.linalg.norm(cloud[:, None] - cloud, axis=2) + 1e9 * np.eye(len(cloud))
        return np.quantile(distance.min(axis=1), 0.1)

    assert gap(chosen) > 1.5 * gap(crowd)


def test_weights_and_the_region_decide_where_seeds_go(ball_in_room):
    _, _, maps = ball_in_room
    left = np.zeros((64, 96))
    left[:, :48] = 1.0
    index = maps.views[4].index
    chosen = seeds(maps, 200, np.random.default_rng(0), weight={index: left})
    assert len(chosen) > 20 and set(chosen.views) == {index}
    view = maps.views[4]
    x, _, z = (chosen.points @ view.camera_from_world[:3, :3].T + view.camera_from_world[:3, 3]).T
    assert (view.intrinsics[0] * x / z + view.intrinsics[2] <= view.depth.shape[1] / 2 + 1).all()

    def near(points):
        return np.linalg.norm(points, axis=1) < 1.0

    assert near(seeds(maps, 200, np.random.default_rng(0), inside=near).points).all()
    assert len(seeds(maps, 200, np.random.default_rng(0), weight={})) == 0


def test_seeds_are_repeatable(ball_in_room):
    _, _, maps = ball_in_room
    a, b = (seeds(maps, 100, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a.points, b.points)
    np.testing.assert_array_equal(a.scales, b.scales)


def test_half_of_bonsai_gets_a_depth_near_the_points_of_sfm(shared_scenes):
    from scene.dataset import load_scene

    scene = load_scene(shared_scenes / "bonsai", resolution=150)
    maps = sweep(scene.train_cameras, view_geometry(scene.train_cameras), SweepSettings(views=12, planes=64))
    assert maps.accepted > 0.1
    points = maps.points()[0][::20]
    distance = np.sqrt(
        ((points[:, None].astype(np.float32) - scene.points.xyz[None].astype(np.float32)) ** 2).sum(-1).min(axis=1)
    )
    depth = np.linalg.norm(points - np.mean([c.position for c in scene.train_cameras], axis=0), axis=1)
    assert np.median(distance / depth) < 0.03
