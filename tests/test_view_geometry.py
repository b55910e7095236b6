# SPDX-License-Identifier: Apache-2.0
"""What the cameras alone tell agrees with rigs whose geometry is known in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from scene.view_geometry import covisibility, in_image, nearest_distance, project, view_geometry
from tests.scenes import rigs

UP = np.array([0.0, 0.0, 1.0])


def inside(ring, points):
    offsets = (points - ring.center) @ ring.axes.T / ring.semi_axes
    return (offsets**2).sum(axis=1)


def test_an_orbit_meets_at_its_target_and_stands_upright():
    target = np.array([1.0, -2.0, 0.5])
    geometry = view_geometry(rigs.ring(target=target))
    assert geometry.kind == "orbit"
    np.testing.assert_allclose(geometry.focus, target, atol=1e-6)
    np.testing.assert_allclose(geometry.up, UP, atol=1e-6)
    np.testing.assert_allclose(geometry.heights, (1.0, 2.0), atol=1e-6)
    assert geometry.in_front == 1.0
    assert np.hypot(4, 1) - 1e-6 <= geometry.median_distance <= np.hypot(4, 2) + 1e-6


def test_half_an_orbit_is_an_arc_and_its_up_comes_from_the_camera_plane():
    cameras = rigs.ring(arc=np.pi, heights=(2.0,))
    tilt = np.mean([camera.up for camera in cameras], axis=0)
    assert np.degrees(np.arccos(tilt @ UP / np.linalg.norm(tilt))) > 10  # the mean camera up alone is tilted
    geometry = view_geometry(cameras)
    assert geometry.kind == "arc"
    np.testing.assert_allclose(geometry.focus, 0, atol=1e-6)
    np.testing.assert_allclose(geometry.up, UP, atol=1e-6)


def test_a_plane_that_stands_on_edge_does_not_bend_up():
    """A vertical arc of cameras: the normal of their plane is horizontal, more than 45 degrees from up."""
    angles = np.linspace(-0.6, 0.6, 12)
    cameras = [rigs.look((4 * np.cos(a), 0.0, 4 * np.sin(a)), (0, 0, 0)) for a in angles]
    geometry = view_geometry(cameras)
    assert geometry.up @ UP > np.cos(np.radians(20))


def test_forward_facing_views_fall_back_to_what_the_frusta_share():
    cameras = rigs.wall()
    geometry = view_geometry(cameras)
    assert geometry.kind == "forward"
    assert geometry.in_front == 1.0
    assert covisibility(geometry.focus[None], cameras)[0][0] >= 0.9 * len(cameras)
    assert abs(geometry.focus[0]) < 0.3 and abs(geometry.focus[2]) < 0.3
    np.testing.assert_allclose(geometry.up, UP, atol=1e-6)


def test_converging_forward_views_still_meet():
    geometry = view_geometry(rigs.wall(step=0.6, converge=True))
    np.testing.assert_allclose(geometry.focus, (0, 5, 0), atol=1e-5)


def test_a_room_seen_from_inside_has_its_focus_before_cameras_not_behind_them():
    cameras = rigs.room()
    geometry = view_geometry(cameras)
    assert geometry.kind == "inside-out"
    assert np.linalg.norm(geometry.focus) > 0.5  # the axes meet at 0, behind every camera
    assert in_image(cameras[0], geometry.focus[None])[0] or covisibility(geometry.focus[None], cameras)[0][0] >= 2
    np.testing.assert_allclose(geometry.up, UP, atol=1e-6)


def test_a_nadir_flight_has_up_against_its_views():
    cameras = rigs.lawnmower()
    geometry = view_geometry(cameras)
    assert geometry.kind == "nadir"
    np.testing.assert_allclose(geometry.up, UP, atol=1e-6)
    assert geometry.focus[2] < 6.0
    assert covisibility(geometry.focus[None], cameras)[0][0] > len(cameras) / 3


@pytest.mark.parametrize(
    "cameras",
    [rigs.ring(squash=0.6), rigs.ring(arc=np.pi), rigs.wall(), rigs.lawnmower()],
    ids=["orbit", "arc", "forward", "nadir"],
)
def test_everything_turns_moves_and_scales_with_the_world(cameras):
    rotation, scale, offset = rigs.some_rotation(), 37.0, np.array([100.0, -20.0, 7.0])
    first = view_geometry(cameras)
    second = view_geometry(rigs.moved(cameras, rotation, scale, offset))
    assert second.kind == first.kind
    np.testing.assert_allclose(second.focus, scale * rotation @ first.focus + offset, atol=1e-4 * scale)
    np.testing.assert_allclose(second.up, rotation @ first.up, atol=1e-6)
    np.testing.assert_allclose(second.subject_radius, scale * first.subject_radius, rtol=1e-5)
    np.testing.assert_allclose(second.ring.semi_axes, scale * first.ring.semi_axes, rtol=1e-4)
    np.testing.assert_allclose(second.heights, scale * np.array(first.heights), atol=1e-4 * scale)
    np.testing.assert_allclose(second.median_distance, scale * first.median_distance, rtol=1e-5)


def test_a_few_cameras_that_look_away_do_not_move_the_focus():
    cameras = rigs.ring(count=40)
    for k in (3, 11, 18, 26, 33):
        cameras[k] = rigs.look(cameras[k].position, (30.0, 5.0 * k, -20.0))
    geometry = view_geometry(cameras)
    np.testing.assert_allclose(geometry.focus, 0, atol=0.02)
    assert geometry.kind == "orbit"


def test_the_subject_sphere_is_seen_whole_by_most_and_holds_no_camera():
    cameras = rigs.ring(heights=(1.0,))
    cameras[0] = rigs.look((1.0, 0.0, 0.2), (0, 0, 0))  # a close-up
    geometry = view_geometry(cameras)
    r = geometry.subject_radius
    assert r < np.linalg.norm(cameras[0].position - geometry.focus)
    surface = np.random.default_rng(0).normal(size=(400, 3))
    surface = geometry.focus + r * surface / np.linalg.norm(surface, axis=1, keepdims=True)
    whole = np.mean([in_image(camera, surface).all() for camera in cameras])
    assert whole >= 0.6


def test_the_sphere_touches_the_edge_of_the_image():
    """Every camera of the ring sees the same sphere: its radius is distance times the half angle's sine."""
    geometry = view_geometry(rigs.ring(heights=(0.0,)))
    assert geometry.subject_radius == pytest.approx(4 * np.sin(np.arctan(50 / 130)), rel=1e-5)


def test_the_ring_is_the_smallest_ellipse_and_encloses_every_camera():
    cameras = rigs.ring(radius=4.0, squash=0.5)
    ring = view_geometry(cameras).ring
    np.testing.assert_allclose(ring.semi_axes, (4.0, 2.0), rtol=2e-2)
    assert abs(ring.axes[0] @ (1, 0, 0)) > 0.999
    positions = np.array([camera.position for camera in cameras])
    assert inside(ring, positions).max() <= 1.0


@pytest.mark.parametrize("count", [1, 2, 7])
def test_cameras_on_a_line_still_have_a_ring(count):
    geometry = view_geometry([rigs.look((x, 0, 0), (x, 5, 0)) for x in np.linspace(-1, 1, count)])
    assert (geometry.ring.semi_axes > 0).all()
    assert np.isfinite(geometry.focus).all() and geometry.subject_radius > 0
    assert inside(geometry.ring, geometry.positions).max() <= 1.0


def test_covisibility_of_two_cameras_is_their_angle():
    cameras = [rigs.look((4, 0, 0), (0, 0, 0)), rigs.look((4 * np.cos(0.7), 4 * np.sin(0.7), 0), (0, 0, 0))]
    count, spread = covisibility(np.array([[0.0, 0, 0], [8.0, 0, 0]]), cameras)
    assert count.tolist() == [2, 0]
    assert spread[0] == pytest.approx(0.7)
    assert spread[1] == 0.0


def test_projection_follows_the_pixel_convention():
    camera = rigs.look((0, -2, 0), (0, 0, 0))
    pixels, depth = project(camera, np.array([[0.0, 0, 0], [1.0, 0, 0], [0.0, 0, 1.0]]))
    np.testing.assert_allclose(pixels, [[75, 50], [140, 50], [75, -15]])
    np.testing.assert_allclose(depth, 2)


def test_nearest_distance_agrees_with_all_pairs_far_from_the_origin():
    rng = np.random.default_rng(1)
    points, positions = rng.normal(size=(50, 3)) + 1e5, rng.normal(size=(9, 3)) + 1e5
    brute = np.linalg.norm(points[:, None] - positions, axis=2).min(axis=1)
    np.testing.assert_allclose(nearest_distance(points, positions), brute, rtol=1e-6)


def test_no_cameras_is_an_error():
    with pytest.raises(ValueError, match="no cameras"):
        view_geometry([])


def test_the_principal_point_counts_for_the_subject_sphere():
    centred = rigs.ring(heights=(0.0,))
    shifted = [replace(camera, cy=30.0) for camera in centred]
    assert view_geometry(shifted).subject_radius < view_geometry(centred).subject_radius


def test_bonsai_is_an_orbit_with_its_ring_outside_the_subject(shared_scenes):
    from scene.dataset import load_scene

    scene = load_scene(shared_scenes / "bonsai", resolution=150)
    geometry = view_geometry(scene.train_cameras)
    assert geometry.kind == "orbit"
    assert geometry.in_front == 1.0
    assert 0.1 < geometry.subject_radius / geometry.median_distance < 0.6
    assert geometry.heights[0] > 0  # the photographer stands above the table
