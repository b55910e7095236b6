# SPDX-License-Identifier: Apache-2.0
"""transforms.json of nerfstudio and Blender give the same views as COLMAP's model of the same capture."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scene.dataset import Scene, load_scene
from scene.ply import write_points
from tests.captures import Capture, opengl_pose, ring, transforms
from utils.errors import UserError


@pytest.fixture
def capture() -> Capture:
    made = ring(10)
    for i, shot in enumerate(made.shots):  # nothing is symmetric
        shot.translation = (0.3 * i, -0.1 * i, 4.0)
    return made


@pytest.fixture
def dataset(tmp_path, capture) -> Path:
    capture.write_dataset(tmp_path / "capture")
    return tmp_path / "capture"


def write(dataset: Path, content: dict, name: str = "transforms.json") -> Path:
    (dataset / name).write_text(json.dumps(content))
    return dataset


def read(dataset: Path, **options) -> Scene:
    return load_scene(dataset, layout="transforms", **options)


def refused(dataset: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(dataset)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def same_views(one: Scene, other: Scene, atol: float = 1e-12) -> None:
    for name in ("train_cameras", "test_cameras"):
        pairs = list(zip(getattr(one, name), getattr(other, name), strict=True))
        for first, second in pairs:
            assert second.name.endswith(first.name)
            np.testing.assert_allclose(first.camera_from_world, second.camera_from_world, atol=atol)
            assert (first.fx, first.fy, first.cx, first.cy) == (second.fx, second.fy, second.cx, second.cy)
            assert torch.equal(first.image(), second.image())


def test_poses_and_intrinsics_are_those_of_colmap(dataset, capture):
    write(dataset, transforms(capture))
    same_views(load_scene(dataset), read(dataset))


def test_colmap_wins_unless_the_other_is_asked_for(dataset, capture):
    write(dataset, transforms(capture))
    assert "COLMAP" in load_scene(dataset).origin
    assert read(dataset).origin == "transforms.json"
    (dataset / "sparse" / "0" / "images.bin").unlink()
    assert load_scene(dataset).origin == "transforms.json"
    with pytest.raises(UserError, match="no sparse/0"):
        load_scene(dataset, layout="colmap")


def test_what_nerfstudio_did_to_the_world_is_undone(dataset, capture):
    content = transforms(capture)
    applied = np.array([[1.0, 0, 0, 0.5], [0, 0, 1, -2], [0, -1, 0, 3], [0, 0, 0, 1]])
    for frame in content["frames"]:
        moved = applied @ np.array(frame["transform_matrix"])
        moved[:3, 3] *= 2.5
        frame["transform_matrix"] = moved.tolist()
    points = np.array([[1.0, 2, 3], [-1, 0, 4]])
    content |= {"applied_transform": applied[:3].tolist(), "applied_scale": 2.5, "ply_file_path": "points.ply"}
    moved = (points @ applied[:3, :3].T + applied[:3, 3]) * 2.5
    write_points(dataset / "points.ply", moved, np.full((2, 3), 9, np.uint8))
    scene = read(write(dataset, content))
    same_views(load_scene(dataset, layout="colmap"), scene)
    np.testing.assert_allclose(scene.points.xyz, points, atol=1e-5)


def test_intrinsics_of_a_frame_override_those_of_the_file(dataset, capture):
    content = transforms(capture)
    content["frames"][3] |= {"fl_x": 50.0, "cx": 19.0, "k1": 0.1}
    cameras = {camera.name: camera for camera in read(write(dataset, content)).cameras}
    assert (cameras["images/03.png"].fx, cameras["images/03.png"].fy, cameras["images/03.png"].cx) == (50.0, 35.0, 19.0)
    assert cameras["images/02.png"].fx == 36.0
    assert cameras["images/03.png"].photo.masked and not cameras["images/02.png"].photo.masked


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({"k1": 0.1, "p2": 0.01}, "OPENCV"),
        ({"k1": 0.1, "k3": 0.01}, "FULL_OPENCV"),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.01}, "OPENCV_FISHEYE"),
        ({"is_fisheye": True}, "OPENCV_FISHEYE"),
        ({"camera_model": "PINHOLE", "k1": 0.1}, None),
        ({}, None),
    ],
)
def test_distortion_is_read(dataset, capture, changes, model):
    assert read(write(dataset, transforms(capture) | changes)).lenses == (() if model is None else (model,))


def test_focal_lengths_can_be_angles_and_the_size_the_photos(dataset, capture):
    content = transforms(capture) | {"camera_angle_x": 2 * math.atan(20 / 36)}
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del content[key]
    camera = read(write(dataset, content)).cameras[0]
    assert (camera.width, camera.height, camera.cx, camera.cy) == (40, 30, 20.0, 15.0)
    assert camera.fx == pytest.approx(36) and camera.fy == pytest.approx(36)


def test_masks_of_frames_are_used_in_both_polarities(dataset, capture):
    content = transforms(capture)
    mask = np.zeros((30, 40), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(dataset / "m.png")
    content["frames"][2]["mask_path"] = "./m.png"
    for invert, kept in ((False, 400), (True, 800)):
        cameras = read(write(dataset, content), invert_masks=invert).cameras
        masks = {camera.name: camera.mask() for camera in cameras}
        assert masks.pop("images/02.png").sum() == kept
        assert all(mask is None for mask in masks.values())
    assert all(camera.mask() is None for camera in read(dataset, masks=Path("none")).cameras)


@pytest.mark.parametrize("changes", [{}, {"camera_model": "OPENCV_FISHEYE", "k1": 1e-9}, {"resolution": 2}])
def test_only_the_circle_of_a_fisheye_counts(dataset, capture, changes):
    step = changes.pop("resolution", 1)
    content = transforms(capture) | {"fisheye_crop_radius": 9.0, **changes}
    camera = read(write(dataset, content), resolution=step, masks=Path("none")).cameras[0]
    x, y = (step * (np.arange(n // step) + 0.5) for n in (40, 30))
    circle = np.hypot(x - 21, y[:, None] - 14) <= 9  # round the principal point
    np.testing.assert_array_equal(camera.mask().numpy() > 0, circle)


def names(cameras) -> list[str]:
    return [camera.name.removeprefix("images/").removesuffix(".png") for camera in cameras]


@pytest.mark.parametrize(
    ("lists", "train", "test"),
    [
        ({}, "12345679", "08"),
        ({"train": "0123", "val": "456789"}, "0123", "456789"),
        ({"train": "0123", "val": "4567", "test": "89"}, "0123", "89"),
        ({"train": "0123", "test": "4"}, "0123", "456789"),
        ({"test": "37"}, "01245689", "37"),
    ],
)
def test_lists_of_views_are_followed(dataset, capture, lists, train, test):
    content = transforms(capture)
    content |= {f"{split}_filenames": [f"images/0{i}.png" for i in which] for split, which in lists.items()}
    scene = read(write(dataset, content))
    assert names(scene.train_cameras) == [f"0{i}" for i in train]
    assert names(scene.test_cameras) == [f"0{i}" for i in test]
    everything = read(dataset, hold_out=False)
    assert len(everything.train_cameras) == len(train) + len(test)


@pytest.fixture
def blender(tmp_path, capture) -> Path:
    """Blender's layout: names without extension, angle instead of focal length, transparent photos."""
    for split, shots in (("train", capture.shots[:7]), ("test", capture.shots[7:])):
        (tmp_path / split).mkdir()
        frames = []
        for shot in shots:
            rgba = np.full((30, 40, 4), 200, np.uint8)
            rgba[:15, :, 3] = 0
            Image.fromarray(rgba).save(tmp_path / split / shot.name)
            name = f"./{split}/{shot.name.removesuffix('.png')}"
            frames.append({"file_path": name, "rotation": 0.01, "transform_matrix": opengl_pose(shot).tolist()})
        write(tmp_path, {"camera_angle_x": 0.7, "frames": frames}, f"transforms_{split}.json")
    return tmp_path


def test_blenders_layout_is_read_with_its_own_test_views(blender):
    scene = load_scene(blender)
    assert len(scene.train_cameras) == 7 and len(scene.test_cameras) == 3
    assert scene.test_cameras[0].name == "test/07.png"
    assert scene.train_cameras[0].fx == pytest.approx(20 / math.tan(0.35))
    assert len(load_scene(blender, hold_out=False).train_cameras) == 10


def test_another_split_than_the_datasets_own_is_refused(blender):
    with pytest.raises(UserError, match="--hold_out_first 2: the dataset says which views are held out"):
        load_scene(blender, hold_out_first=2)


def test_blenders_transparency_is_background_to_be_trained(blender):
    camera = load_scene(blender, white_background=True).train_cameras[0]
    assert camera.mask() is None
    assert camera.image()[:, :15].min() == 1
    assert load_scene(blender).train_cameras[0].image()[:, :15].max() == 0
    assert load_scene(blender, alpha="mask").train_cameras[0].mask().mean() == 0.5


def test_missing_photos_are_counted(dataset, capture):
    write(dataset, transforms(capture))
    (dataset / "images" / "04.png").unlink()
    assert read(dataset).skipped == {"images/04.png": "is not there"}


def test_the_same_real_capture_gives_the_same_views_from_both(shared_scenes):
    folder = shared_scenes / "robust" / "fox_opencv_transforms"
    scene = load_scene(folder, layout="transforms", resolution=60)
    same_views(load_scene(folder, resolution=60), scene, atol=1e-5)
    assert scene.missing == 42
    lego = shared_scenes / "robust" / "lego_rgba_transforms"
    by_name = {camera.name: camera for camera in load_scene(lego, layout="transforms").cameras}
    for camera in load_scene(lego).cameras:
        other = by_name[camera.name]
        np.testing.assert_allclose(camera.camera_from_world, other.camera_from_world, atol=1e-5)
        assert (camera.fx, camera.cx) == pytest.approx((other.fx, other.cx))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"frames": 3}, "no list of frames"),
        ({"fl_x": float("nan")}, "fl_x"),
        ({"fl_x": -3}, "fl_x"),
        ({"w": 1e12}, "w is"),
        ({"applied_scale": 0}, "applied_scale"),
        ({"fisheye_crop_radius": 0}, "fisheye_crop_radius"),
        ({"applied_transform": [[1, 0, 0, 0]] * 3}, "applied_transform"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        ({"train_filenames": [3]}, "train_filenames"),
    ],
)
def test_damage_is_one_line_that_names_it(dataset, capture, changes, word):
    refused(write(dataset, transforms(capture) | changes), "transforms.json", word)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"file_path": None}, "frame 2 has no file_path"),
        ({"file_path": "../../secret.png"}, "leads out"),
        ({"file_path": "/etc/passwd"}, "leads out"),
        ({"mask_path": "../m.png"}, "leads out"),
        ({"transform_matrix": [[1, 2], [3, 4]]}, "frame 2"),
        ({"transform_matrix": [[math.inf] * 4] * 4}, "frame 2"),
        ({"transform_matrix": (np.eye(4) * [1, 1, -1, 1]).tolist()}, "no rotation"),
        ({"transform_matrix": "x"}, "frame 2"),
        ({"file_path": "images/03.png"}, "twice"),
    ],
)
def test_a_damaged_frame_is_one_line_that_names_it(dataset, capture, changes, word):
    content = transforms(capture)
    content["frames"][2] |= changes
    refused(write(dataset, content), word)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "null"])
def test_what_is_no_json_is_one_line(dataset, text):
    (dataset / "transforms.json").write_text(text)
    refused(dataset, "transforms.json")
