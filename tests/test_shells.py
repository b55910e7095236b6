# SPDX-License-Identifier: Apache-2.0
"""Walls are evenly spaced, flat along their surface, seen, and coloured by the photos."""

from dataclasses import replace

import numpy as np
import pytest

from scene.shells import (
    box_wall,
    joined,
    photo_colors,
    quaternions,
    sphere_wall,
    times_seen,
    tube_layers,
    tube_wall,
    where_wanted,
)
from scene.tube import Tube
from tests.scenes import rigs

UP = np.array([0.0, 0.0, 1.0])
TUBE = Tube(center=np.array([1.0, 2, 3]), axis=UP, across=np.eye(3)[:2], semi_axes=np.array([4.0, 1.0]), half_length=3)
WALLS = {
    "tube": tube_wall(TUBE, 800),
    "sphere": sphere_wall(np.ones(3), 2.0, 800, UP),
    "box": box_wall(np.ones(3), np.eye(3), np.array([1.0, 2.0, 3.0]), 800),
}


def rotation(q):
    w, x, y, z = q.T
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        axis=1,
    )


def nearest(points):
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    return (distance + 1e9 * np.eye(len(points))).min(axis=1)


def test_tube_points_lie_on_the_ellipse_within_the_length():
    offset = WALLS["tube"].points - TUBE.center
    np.testing.assert_allclose((offset[:, 0] / 4) ** 2 + offset[:, 1] ** 2, 1)
    assert np.abs(offset[:, 2]).max() < 3


@pytest.mark.parametrize("name", WALLS)
def test_points_are_about_as_many_as_wanted_and_evenly_spaced(name):
    wall = WALLS[name]
    assert 0.9 * 800 <= len(wall) <= 1.1 * 800
    gaps = nearest(wall.points)
    assert gaps.min() > 0.5 * np.median(gaps)
    assert gaps.max() < 1.6 * np.median(gaps)


@pytest.mark.parametrize("name", WALLS)
def test_gaussians_are_flat_along_the_wall(name):
    wall = WALLS[name]
    frames = rotation(wall.quats)
    np.testing.assert_allclose(frames[:, :, 2], wall.normals, atol=1e-9)
    np.testing.assert_allclose(frames[:, :, 0], wall.tangents, atol=1e-9)
    np.testing.assert_allclose((wall.normals * wall.tangents).sum(axis=1), 0, atol=1e-9)
    assert (wall.scales[:, 2] <= 0.11 * wall.scales[:, :2].min(axis=1)).all()


@pytest.mark.parametrize("name", WALLS)
def test_neighbours_just_overlap(name):
    wall = WALLS[name]
    reach = wall.scales[:, :2].min(axis=1)
    assert np.median(nearest(wall.points) / reach) == pytest.approx(1.6, abs=0.5)


def test_normals_are_across_the_surface():
    wall = WALLS["tube"]
    moved = wall.points + 1e-4 * wall.tangents - TUBE.center
    np.testing.assert_allclose((moved[:, 0] / 4) ** 2 + moved[:, 1] ** 2, 1, atol=1e-5)
    outward = wall.points + 0.1 * wall.normals
    assert not TUBE.contains(outward).any()


def test_layers_are_concentric_tubes():
    wall = tube_layers(TUBE, 900, (1.0, 2.0, 4.0))
    offset = (wall.points - TUBE.center)[:, :2] / TUBE.semi_axes
    radius = np.sqrt((offset**2).sum(axis=1))
    assert sorted(set(radius.round(6))) == [1.0, 2.0, 4.0]
    assert np.bincount(np.log2(radius).round().astype(int)).min() > 250


def test_a_wall_is_made_denser_until_enough_points_are_wanted():
    def upper(points):
        return points[:, 2] > TUBE.center[2] + 1.5

    wall = where_wanted(lambda n: tube_wall(TUBE, n), 500, upper)
    assert upper(wall.points).all()
    assert len(wall) == pytest.approx(500, rel=0.1)


def test_a_wall_that_nobody_wants_is_empty():
    wall = where_wanted(lambda n: tube_wall(TUBE, n), 100, lambda points: np.zeros(len(points), bool))
    assert len(wall) == 0 and wall.quats.shape == (0, 4) and wall.scales.shape == (0, 3)


def test_quaternions_invert_rotations():
    frames = np.stack([rigs.some_rotation(seed) for seed in range(20)] + [np.eye(3), np.diag([-1.0, -1, 1])])
    np.testing.assert_allclose(rotation(quaternions(frames)), frames, atol=1e-12)


def views(values, mask_values=None):
    """Cameras in a row that all see the origin; photo k has one colour."""
    cameras = [rigs.look((0.1 * k, -4, 0), (0.1 * k, 0, 0)) for k in range(len(values))]
    masks = mask_values if mask_values is not None else [1] * len(values)
    return [
        (camera, np.full((10, 15, 3), value), np.full((10, 15), mask))
        for camera, value, mask in zip(cameras, values, masks, strict=True)
    ]


def test_colour_is_robust_against_a_few_photos_that_see_something_else():
    colors, count = photo_colors(np.zeros((1, 3)), views([0.4, 0.4, 0.4, 0.42, 0.38, 1.0, 0.0, 0.4]))
    assert count[0] == 8
    np.testing.assert_allclose(colors[0], 0.4, atol=0.02)


def test_only_pixels_that_count_give_colour():
    colors, count = photo_colors(np.zeros((1, 3)), views([0.9, 0.1, 0.9, 0.1], [0, 1, 0, 1]))
    assert count[0] == 2
    np.testing.assert_allclose(colors[0], 0.1)


def test_a_point_that_no_photo_shows_is_grey():
    colors, count = photo_colors(np.array([[0.0, -9, 0]]), views([0.9]))
    assert count[0] == 0
    np.testing.assert_allclose(colors[0], 0.5)


def test_the_colour_is_that_of_the_pixel_whatever_the_resolution():
    camera = rigs.look((0, -4, 0), (0, 0, 0))
    for height, width in ((100, 150), (20, 30)):
        photo = np.zeros((height, width, 3))
        photo[:, width // 2 :] = (1.0, 0.5, 0.25)
        colors, _ = photo_colors(np.array([[0.5, 0, 0], [-0.5, 0, 0]]), [(camera, photo, np.ones((height, width)))])
        np.testing.assert_allclose(colors, [(1.0, 0.5, 0.25), (0, 0, 0)])


def test_times_seen_counts_marked_pixels():
    marked = [(camera, mask) for camera, _, mask in views([0, 0, 0], [1, 0, 1])]
    assert times_seen(np.array([[0.0, 0, 0], [0, -9, 0]]), marked).tolist() == [2, 0]


def test_walls_join():
    wall = joined([WALLS["tube"], WALLS["box"]])
    assert len(wall) == len(WALLS["tube"]) + len(WALLS["box"])
    assert len(wall[np.arange(3)]) == 3
    assert replace(wall, points=wall.points + 1).points.shape == wall.points.shape
