# SPDX-License-Identifier: Apache-2.0
"""A camera puts points where closed forms say, at every resolution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene.cameras import Camera, SourceSize, look_at
from scene.photos import Photo
from utils.errors import UserError

coordinates = st.floats(-50, 50)


def camera(camera_from_world=None, **changes) -> Camera:
    settings = {"name": "a", "width": 80, "height": 60, "fx": 70.0, "fy": 72.0, "cx": 41.0, "cy": 28.0}
    settings |= {"source": SourceSize(80, 60, 70.0, 72.0)} | changes
    return Camera(camera_from_world=np.eye(4) if camera_from_world is None else camera_from_world, **settings)


def pixel(view: Camera, point) -> np.ndarray:
    x, y, z = (view.camera_from_world @ [*point, 1])[:3]
    return np.array([view.fx * x / z + view.cx, view.fy * y / z + view.cy])


def test_an_unmoved_camera_looks_along_z_with_y_down():
    view = camera()
    np.testing.assert_array_equal(view.position, [0, 0, 0])
    np.testing.assert_array_equal(view.viewing_direction, [0, 0, 1])
    np.testing.assert_array_equal(view.up, [0, -1, 0])


def test_the_axis_falls_on_the_principal_point_not_on_the_middle():
    np.testing.assert_allclose(pixel(camera(), (0, 0, 5)), [41.0, 28.0])


@given(st.tuples(coordinates, coordinates, coordinates), st.tuples(coordinates, coordinates, coordinates))
def test_look_at_stands_where_it_should_and_sees_its_target_in_the_centre(position, target):
    forward = np.subtract(target, position)
    if np.linalg.norm(np.cross(forward, [0, 0, 1])) < 1e-2:
        return
    view = camera(look_at(np.array(position), np.array(target), np.array([0, 0, 1])))
    np.testing.assert_allclose(view.position, position, atol=1e-9)
    np.testing.assert_allclose(view.viewing_direction, forward / np.linalg.norm(forward), atol=1e-9)
    np.testing.assert_allclose(pixel(view, target), [41.0, 28.0], atol=1e-6)
    assert np.linalg.det(view.camera_from_world[:3, :3]) == pytest.approx(1)
    assert view.up[2] > 0


@pytest.mark.parametrize("width", [20, 40, 79, 160])
def test_a_scaled_camera_sees_the_same_at_scaled_pixels(width):
    view = camera(look_at(np.array([3.0, -2, 1]), np.zeros(3), np.array([0.0, 0, 1])))
    small = view.scaled(width)
    factor = np.array([small.width / view.width, small.height / view.height])
    np.testing.assert_allclose(pixel(small, (0.3, 0.2, -0.1)), pixel(view, (0.3, 0.2, -0.1)) * factor)
    assert (small.width, small.height) == (width, round(60 * width / 80))
    assert small.source == view.source


def test_a_scaled_camera_has_a_scaled_photo():
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[:, 40:] = 255
    small = camera(photo=Photo.in_memory(rgb)).scaled(8)
    assert small.image().shape == (3, 6, 8)
    assert small.image()[:, :, 0].max() == 0
    assert small.image()[:, :, -1].min() == 1


def test_a_camera_without_photo_says_so():
    with pytest.raises(UserError, match="'a' has no photo"):
        camera().image()


def test_cameras_can_be_keys():
    first, second = camera(), camera()
    assert {first: 1, second: 2}[first] == 1


def test_the_view_of_the_rasteriser_carries_the_same_numbers():
    pytest.importorskip("diff_gaussian_rasterization", reason="the native package is not built")
    pose = look_at(np.array([3.0, -2, 1]), np.zeros(3), np.array([0.0, 0, 1]))
    view = camera(pose).view
    assert (view.width, view.height, view.fx, view.fy, view.cx, view.cy) == (80, 60, 70.0, 72.0, 41.0, 28.0)
    np.testing.assert_allclose(view.camera_from_world.numpy(), pose, rtol=1e-6, atol=1e-6)
