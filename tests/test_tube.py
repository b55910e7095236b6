# SPDX-License-Identifier: Apache-2.0
"""The tube stands where it is hit by what is unexplained and leaves the subject in view."""

from dataclasses import replace

import numpy as np
import pytest

from scene.tube import Placement, Rays, Tube, TubeBounds, place_tube, subject_rays
from scene.view_geometry import view_geometry
from tests.scenes import rigs


def a_tube(**changes) -> Tube:
    values = {
        "center": np.zeros(3),
        "axis": np.array([0.0, 0, 1]),
        "across": np.eye(3)[:2],
        "semi_axes": np.array([2.0, 1.0]),
        "half_length": 3.0,
    }
    return Tube(**(values | changes))


def rays(origins, directions, reach=np.inf) -> Rays:
    origins, directions = np.atleast_2d(origins).astype(float), np.atleast_2d(directions).astype(float)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return Rays(origins=origins, directions=directions, reach=np.full(len(origins), float(reach)))


def image_rays(cameras, seed=0, each=60, away_from=None) -> Rays:
    """Rays through random pixels, those left out that meet the ball (centre, radius)."""
    rng = np.random.default_rng(seed)
    origins, directions = [], []
    for camera in cameras:
        u, v = rng.uniform(0, camera.width, each), rng.uniform(0, camera.height, each)
        local = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(each)], axis=1)
        directions.append(local @ camera.camera_from_world[:3, :3])
        origins.append(np.repeat(camera.position[None], each, axis=0))
    made = rays(np.concatenate(origins), np.concatenate(directions))
    if away_from is None:
        return made
    offset = made.origins - away_from[0]
    along = (offset * made.directions).sum(axis=1)
    misses = (offset**2).sum(axis=1) - along**2 > away_from[1] ** 2
    return Rays(origins=made.origins[misses], directions=made.directions[misses], reach=made.reach[misses])


def placed(cameras, bounds=None, geometry=None) -> Placement:
    geometry = geometry or view_geometry(cameras)
    unexplained = image_rays(cameras, away_from=(geometry.focus, geometry.subject_radius))
    return place_tube(geometry, unexplained, subject_rays(geometry, 800, np.random.default_rng(1)), bounds)


def test_crossings_of_a_known_cylinder():
    tube = a_tube()
    distance, height = tube.crossings(rays([[0, 0, 0], [-5, 0, 1]], [[1, 0, 0], [1, 0, 0]]))
    np.testing.assert_allclose(distance, [[-2, 3], [2, 7]])
    np.testing.assert_allclose(height, [[0, 1], [0, 1]])


def test_rays_leave_through_the_open_ends():
    tube = a_tube()
    assert not tube.hit(rays([0, 0, 0], [0, 0, 1]))[0]
    assert not tube.hit(rays([0, 0, 0], [0.3, 0, 1]))[0]
    assert tube.hit(rays([0, 0, 0], [1, 0, 1]))[0]


def test_wall_beyond_the_reach_does_not_block():
    tube = a_tube()
    assert tube.hit(rays([-5, 0, 0], [1, 0, 0], reach=4))[0]
    assert not tube.hit(rays([-5, 0, 0], [1, 0, 0], reach=2))[0]


def test_area_and_hollow_of_a_round_tube():
    tube = a_tube(semi_axes=np.array([2.0, 2.0]))
    assert tube.area == pytest.approx(2 * np.pi * 2 * 6)
    assert tube.contains(np.array([[1.9, 0, 2.9], [2.1, 0, 0], [0, 0, 3.1]])).tolist() == [True, False, False]


def test_subject_rays_end_on_the_ball():
    geometry = view_geometry(rigs.ring())
    toward = subject_rays(geometry, 300, np.random.default_rng(0))
    ends = toward.origins + toward.reach[:, None] * toward.directions
    distance = np.linalg.norm(ends - geometry.focus, axis=1)
    np.testing.assert_allclose(distance, geometry.subject_radius, rtol=1e-6)


def test_an_orbit_gets_a_tube_that_contains_everything_and_blocks_nothing():
    result = placed(rigs.ring())
    assert result.convex
    assert result.blocked == 0
    assert result.hit > 0.9
    figures = result.figures()
    assert figures["tube_convex"] == 1 and figures["tube_hit"] == result.hit
    assert {"tube_upright_hit", "tube_upright_blocked", "tube_blocked"} <= set(figures)


def test_the_tube_is_oblique_and_within_its_bounds():
    geometry = view_geometry(rigs.ring())
    tube = placed(rigs.ring()).tube
    tilt = np.degrees(np.arccos(tube.axis @ geometry.up))
    assert 20 - 1e-6 <= tilt <= 70 + 1e-6
    assert (tube.semi_axes >= 1.2 * geometry.ring.semi_axes.min() - 1e-9).all()
    assert (tube.semi_axes <= 10 * geometry.ring.semi_axes.max() + 1e-9).all()
    assert 2 * tube.half_length <= 6 * tube.semi_axes.max() + 1e-9
    np.testing.assert_allclose(
        np.vstack([tube.across, tube.axis]) @ np.vstack([tube.across, tube.axis]).T, np.eye(3), atol=1e-12
    )


def test_looking_down_an_oblique_tube_beats_an_upright_one():
    """Seen from a plane through a long lens, the ground is where an upright tube is open."""
    cameras = [replace(camera, fx=800.0, fy=800.0) for camera in rigs.lawnmower()]
    result = placed(cameras)
    assert result.upright is not None
    assert result.hit > result.upright.hit + 0.1


def outside_cameras():
    """An orbit whose ring is told to be a third as wide: most tubes stand between camera and subject."""
    cameras = rigs.ring(heights=(0.5, 1.0))
    geometry = view_geometry(cameras)
    ring = replace(geometry.ring, semi_axes=geometry.ring.semi_axes / 3)
    return cameras, replace(geometry, ring=ring)


def test_with_cameras_outside_the_limit_binds():
    cameras, geometry = outside_cameras()
    free = placed(cameras, TubeBounds(blocked=1.0, least_ring=0.0), geometry)
    bound = placed(cameras, TubeBounds(least_ring=0.0), geometry)
    assert free.blocked > 0.5  # the smallest tube that is hit stands in front of the subject
    assert bound.blocked <= 0.02
    assert bound.hit > 0.7
    assert not free.convex


def test_of_nearly_equal_tubes_the_smallest_wall_is_taken():
    small = placed(rigs.ring(), TubeBounds(tolerance=0.05)).tube
    best = placed(rigs.ring(), TubeBounds(tolerance=0.0)).tube
    assert small.area < best.area


@pytest.mark.parametrize("cameras", [rigs.wall(), rigs.ring(arc=np.pi), rigs.room()], ids=["wall", "arc", "room"])
def test_other_captures_get_a_tube_that_leaves_the_subject_in_view(cameras):
    result = placed(cameras)
    assert result.blocked <= 0.02
    assert result.hit > 0.8


def test_the_placement_turns_and_scales_with_the_world():
    first = placed(rigs.ring(squash=0.7))
    second = placed(rigs.moved(rigs.ring(squash=0.7), rigs.some_rotation(), 20.0, (5.0, 0.0, 1.0)))
    assert second.hit == pytest.approx(first.hit, abs=0.02)
    assert second.tube.area == pytest.approx(400 * first.tube.area, rel=0.15)


def test_nothing_unexplained_gives_the_smallest_tube():
    geometry = view_geometry(rigs.ring())
    nothing = rays(np.zeros((0, 3)), np.zeros((0, 3)))
    result = place_tube(geometry, nothing, subject_rays(geometry, 200, np.random.default_rng(0)))
    assert result.hit == 0.0
    assert result.tube.area > 0
