# SPDX-License-Identifier: Apache-2.0
"""Camera paths go where their geometry says, and a video holds the frames that went in."""

import json

import cv2
import numpy as np
import pytest

from utils.errors import UserError
from utils.trajectory import ellipse, interpolate, look_at, read_path
from utils.video import write_video


def circle(count: int, a: float, b: float, height: float = 0.0) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    return np.stack([a * np.cos(angles), b * np.sin(angles), np.full(count, height)], axis=1)


def tilted_world(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return rotation * np.linalg.det(rotation), rng.normal(size=3)


def test_look_at_puts_the_target_on_the_axis_and_up_upwards():
    pose = look_at([1, 2, 3], [4, -1, 2], [0, 0, 1])
    target = np.linalg.inv(pose) @ [4, -1, 2, 1]
    above = np.linalg.inv(pose) @ [4, -1, 2.1, 1]
    np.testing.assert_allclose(target[:2], 0, atol=1e-12)
    assert target[2] > 0
    assert above[1] < 0, "y points down in the picture"
    np.testing.assert_allclose(np.linalg.det(pose[:3, :3]), 1)


def test_look_at_survives_looking_along_up():
    pose = look_at([0, 0, 5], [0, 0, 0], [0, 0, 1])
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)


def test_cameras_on_an_ellipse_give_back_that_ellipse():
    rotation, shift = tilted_world(0)
    cameras = circle(16, 3.0, 2.0, height=0.7) @ rotation.T + shift
    path = ellipse(cameras, shift, rotation[:, 2], frames=40)
    local = (path[:, :3, 3] - shift) @ rotation
    np.testing.assert_allclose((local[:, 0] / 3) ** 2 + (local[:, 1] / 2) ** 2, 1, rtol=1e-9)
    np.testing.assert_allclose(local[:, 2], 0.7, atol=1e-9)


def test_every_frame_of_the_ellipse_looks_at_the_focus():
    focus = np.array([0.3, -0.2, 0.1])
    for pose in ellipse(circle(12, 2, 2, 1.0), focus, [0, 0, 1], frames=7):
        seen = np.linalg.inv(pose) @ [*focus, 1]
        np.testing.assert_allclose(seen[:2], 0, atol=1e-9)
        assert seen[2] > 0


def test_a_forward_facing_capture_stays_on_its_own_side():
    rng = np.random.default_rng(1)
    cameras = np.array([0, 0, -5.0]) + rng.uniform(-1, 1, (30, 3)) * [1.0, 0.5, 0.05]
    path = ellipse(cameras, [0, 0, 0], [0, -1, 0], frames=36)[:, :3, 3]
    assert (path[:, 2] < -4).all()
    assert np.ptp(path[:, 0]) > np.ptp(path[:, 1]) > 0.2


def test_the_way_through_the_cameras_meets_its_first_and_last():
    poses = np.stack([look_at(p, [0, 0, 0], [0, 0, 1]) for p in circle(9, 2, 1, 0.5)])
    path = interpolate(poses, frames=31)
    np.testing.assert_allclose(path[[0, -1]], poses[[0, -1]], atol=1e-9)


def test_the_way_through_evenly_spaced_cameras_meets_each_of_them():
    poses = np.stack([look_at(p, [0, 0, 0], [0, 0, 1]) for p in circle(8, 2, 2)])
    path = interpolate(poses, frames=7 * 5 + 1)
    np.testing.assert_allclose(path[::5], poses, atol=1e-9)


def test_on_a_straight_line_the_way_is_the_line_at_constant_speed():
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = [0, 1, 4, 6]
    path = interpolate(poses, frames=13)
    np.testing.assert_allclose(path[:, :3, 3], np.stack([np.linspace(0, 6, 13), *np.zeros((2, 13))], 1), atol=1e-9)


def test_half_way_between_two_headings_is_the_mean_heading():
    start, end = np.eye(4), np.eye(4)
    end[:3, :3] = cv2.Rodrigues(np.array([0, 1.2, 0]))[0]
    end[0, 3] = 1
    middle = interpolate(np.stack([start, end]), frames=3)[1]
    np.testing.assert_allclose(cv2.Rodrigues(middle[:3, :3])[0].ravel(), [0, 0.6, 0], atol=1e-9)


def test_one_camera_or_the_same_camera_twice_is_a_still():
    for count in (1, 2):
        assert interpolate(np.tile(np.eye(4), (count, 1, 1)), frames=4).shape == (4, 4, 4)


def test_our_file_format_takes_both_forms_of_a_frame(tmp_path):
    wanted = look_at([0, 0, -4], [0, 0, 0], [0, -1, 0])
    frames = [{"position": [0, 0, -4], "look_at": [0, 0, 0]}, {"world_from_camera": wanted.tolist(), "fx": 90}]
    file = tmp_path / "path.json"
    file.write_text(json.dumps({"fps": 12, "width": 64, "height": 48, "frames": frames}))
    path = read_path(file)
    np.testing.assert_allclose(path.poses, np.stack([wanted, wanted]))
    assert path.fps == 12
    assert [lens.fx for lens in path.lenses] == [None, 90.0]
    assert {(lens.width, lens.height) for lens in path.lenses} == {(64, 48)}


def test_a_nerfbaselines_path_is_read(tmp_path):
    pose = look_at([1, 2, 3], [0, 0, 0], [0, 0, 1])
    frame = {"pose": pose[:3].ravel().round(4).tolist(), "intrinsics": [60, 61, 32, 24], "appearance_weights": []}
    file = tmp_path / "path.json"
    content = {"format": "nerfbaselines-v1", "camera_model": "pinhole", "image_size": [64, 48], "fps": 3}
    file.write_text(json.dumps({**content, "frames": [frame] * 2}))
    path = read_path(file)
    np.testing.assert_allclose(path.poses[1], pose, atol=1e-4)
    lens = path.lenses[0]
    assert (lens.width, lens.height, lens.fx, lens.fy, lens.cx, lens.cy) == (64, 48, 60, 61, 32, 24)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"frames": []}',
        '{"frames": [{"position": [0, 0, 1]}]}',
        '{"frames": [{"world_from_camera": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 9, 0], [0, 0, 0, 1]]}]}',
        '{"frames": [{"position": [0, 0, 1], "look_at": [0, 0, 0], "fx": -3}]}',
        '{"fps": "fast", "frames": [{"position": [0, 0, 1], "look_at": [0, 0, 0]}]}',
        '{"format": "nerfbaselines-v1", "frames": [{"pose": [1, 2]}]}',
    ],
)
def test_a_broken_path_file_is_named(tmp_path, content):
    file = tmp_path / "broken.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"--trajectory .*broken\.json"):
        read_path(file)


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_a_video_reads_back_frame_by_frame(tmp_path, size):
    levels = [20, 120, 220]
    frames = (np.dstack([np.full(size, v), np.full(size, 60), np.full(size, 255 - v)]).astype(np.uint8) for v in levels)
    file = tmp_path / "new" / "out.mp4"
    assert write_video(file, frames, fps=10) == 3
    video = cv2.VideoCapture(str(file))
    read = []
    while (got := video.read())[0]:
        read.append(got[1][:, :, ::-1].mean((0, 1)))
    assert video.get(cv2.CAP_PROP_FPS) == 10
    np.testing.assert_allclose(read, [[v, 60, 255 - v] for v in levels], atol=8)  # lossy codec
    assert [path.name for path in file.parent.iterdir()] == ["out.mp4"], "nothing unfinished is left"


def test_a_video_needs_frames_and_a_name_it_can_have(tmp_path):
    with pytest.raises(UserError, match="mp4"):
        write_video(tmp_path / "out.avi", [], fps=10)
    with pytest.raises(UserError, match="no frames"):
        write_video(tmp_path / "out.mp4", [], fps=10)
    assert not list(tmp_path.iterdir())
