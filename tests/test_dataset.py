# SPDX-License-Identifier: Apache-2.0
"""A dataset becomes a scene by INRIA's rules, or ends in one line that says what to do."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scene.capture import safe_name
from scene.dataset import extent, kept_share, load_scene, training_size
from scene.summary import describe
from tests.captures import Capture, Shot, ring
from utils.errors import UserError


@pytest.fixture
def dataset(tmp_path):
    return ring(10).write_dataset(tmp_path / "capture")


def refused(*words: str, **options) -> None:
    with pytest.raises(UserError) as caught:
        load_scene(**options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def names(cameras) -> list[str]:
    return [camera.name for camera in cameras]


def test_every_eighth_name_is_held_out(dataset):
    scene = load_scene(dataset)
    assert names(scene.test_cameras) == ["00.png", "08.png"]
    assert names(scene.train_cameras) == [f"{i:02}.png" for i in (1, 2, 3, 4, 5, 6, 7, 9)]


def test_names_are_sorted_as_strings_not_as_numbers(tmp_path):
    capture = ring(11)
    for i, shot in enumerate(capture.shots):
        shot.name = f"{i}.png"
    capture.shots.reverse()
    scene = load_scene(capture.write_dataset(tmp_path))
    assert names(scene.test_cameras) == ["0.png", "7.png"]  # 0 1 10 2 3 4 5 6 7 8 9
    assert names(scene.train_cameras)[:3] == ["1.png", "10.png", "2.png"]


def test_without_holding_out_everything_is_trained(dataset):
    scene = load_scene(dataset, hold_out=False)
    assert len(scene.train_cameras) == 10
    assert scene.test_cameras == ()


def test_another_first_view_is_another_split(dataset):
    scene = load_scene(dataset, hold_out_first=3)
    assert names(scene.test_cameras) == ["03.png"] and len(scene.train_cameras) == 9


def test_a_first_view_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="--hold_out_first 5: there are 3 views"):
        load_scene(ring(3).write_dataset(tmp_path), hold_out_first=5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_views_leave_something_to_train(tmp_path, count):
    scene = load_scene(ring(count).write_dataset(tmp_path))
    assert len(scene.train_cameras) == max(1, count - 1)


def test_the_photo_of_each_camera_is_its_own(dataset):
    for camera in load_scene(dataset).cameras:
        expected = [20 * int(camera.name[:2]) / 255, 100 / 255, 50 / 255]
        np.testing.assert_allclose(camera.image().mean(dim=(1, 2)), expected, atol=1e-6)


def test_positions_and_extent_of_a_ring_are_those_of_a_ring(dataset):
    scene = load_scene(dataset, hold_out=False)
    for camera in scene.train_cameras:
        assert np.linalg.norm(camera.position) == pytest.approx(4)
        np.testing.assert_allclose(camera.viewing_direction, -camera.position / 4, atol=1e-12)
    assert scene.extent == pytest.approx(1.1 * 4)


def test_extent_is_measured_on_training_views_only(dataset):
    scene = load_scene(dataset)
    centers = np.array([camera.position for camera in scene.train_cameras])
    assert scene.extent == pytest.approx(1.1 * np.linalg.norm(centers - centers.mean(0), axis=1).max())


def test_cameras_at_one_place_have_an_extent_that_is_not_zero(tmp_path):
    scene = load_scene(Capture(shots=[Shot(f"{i}.png") for i in range(4)]).write_dataset(tmp_path))
    assert extent(scene.train_cameras) == 1.0


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((600, 400), -1, (600, 400)),
        ((1600, 1067), -1, (1600, 1067)),
        ((4946, 3286), -1, (1600, 1063)),
        ((4946, 3286), 1, (4946, 3286)),
        ((4946, 3286), 2, (2473, 1643)),
        ((4946, 3286), 4, (1236, 822)),
        ((4946, 3286), 8, (618, 411)),
        ((600, 401), 2, (300, 200)),
        ((603, 401), 2, (302, 200)),
        ((600, 400), 300, (300, 200)),
        ((600, 401), 270, (270, 180)),
        ((360, 640), 720, (720, 1280)),
        ((8000, 10), 8, (1000, 1)),
        ((8000, 10), 16, (16, 1)),
        ((8, 8), 4, (2, 2)),
    ],
)
def test_resolution_follows_inria(size, resolution, expected):
    assert training_size(*size, resolution) == expected


RESOLUTIONS = st.sampled_from([-1, 1, 2, 3, 4, 8, 270, 1600])


@given(st.integers(1, 9000), st.integers(1, 9000), RESOLUTIONS)
def test_no_side_ever_vanishes(width, height, resolution):
    assert min(training_size(width, height, resolution)) >= 1


@given(st.integers(16, 9000), st.integers(16, 9000), RESOLUTIONS)
def test_every_size_has_a_training_size_of_its_shape(width, height, resolution):
    w, h = training_size(width, height, resolution)
    assert abs(h - w * height / width) <= 1 + 0.5 * height / width


@pytest.mark.parametrize("resolution", [0, -2, -1600])
def test_a_resolution_that_means_nothing_is_refused(dataset, resolution):
    refused(f"--resolution {resolution}", source=dataset, resolution=resolution)


def test_the_principal_point_is_honoured_and_scaled(dataset):
    camera = load_scene(dataset, resolution=2).train_cameras[0]
    assert (camera.width, camera.height) == (20, 15)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (18.0, 17.5, 10.5, 7.0)
    assert (camera.source.width, camera.source.height, camera.source.fx, camera.source.fy) == (40, 30, 36.0, 35.0)


@pytest.mark.parametrize("size", [(20, 15), (80, 60)])
def test_photos_of_another_size_than_their_camera_scale_its_intrinsics(tmp_path, size):
    camera = load_scene(ring(4).write_dataset(tmp_path, size)).train_cameras[0]
    factor = size[0] / 40
    assert (camera.width, camera.height) == size
    assert (camera.fx, camera.cx, camera.cy) == (36 * factor, 21 * factor, 14 * factor)
    assert camera.image().shape == (3, size[1], size[0])


def test_another_folder_of_photos_can_be_named(dataset):
    (dataset / "images").rename(dataset / "images_2")
    assert len(load_scene(dataset, images="images_2").cameras) == 10


def test_photos_beside_the_model_are_found_too(dataset):
    for photo in (dataset / "images").iterdir():
        photo.rename(dataset / photo.name)
    assert len(load_scene(dataset).cameras) == 10


def test_missing_and_unreadable_photos_are_skipped_and_counted(dataset):
    (dataset / "images" / "03.png").unlink()
    (dataset / "images" / "05.png").write_bytes(b"no picture")
    scene = load_scene(dataset)
    assert scene.missing == 2
    assert len(scene.cameras) == 8
    assert any(
        "2 registered photos cannot be used and are skipped: '03.png' is not there" in line for line in describe(scene)
    )


def test_too_few_photos_are_refused(dataset):
    for i in range(8):
        (dataset / "images" / f"{i:02}.png").unlink()
    refused("8 of 10 registered photos", "--images", source=dataset)


def test_the_dataset_is_never_written_to(dataset):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(dataset.rglob("*"))}

    before = state()
    scene = load_scene(dataset)
    describe(scene)
    for camera in scene.cameras:
        camera.image()
    assert state() == before


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..", "a\0.png", "sub/../.."])
def test_names_that_lead_out_of_the_dataset_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="leads out of the dataset"):
        safe_name(name)
    if "\0" not in name:
        capture = ring(4)
        capture.shots[1].name = name
        capture.write_bin(tmp_path / "d" / "sparse" / "0")
        Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
        refused("leads out of the dataset", source=tmp_path / "d")


def test_a_link_that_leaves_the_dataset_is_refused_but_a_linked_folder_is_not(dataset, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (dataset / "images").rename(elsewhere)
    (dataset / "images").symlink_to(elsewhere)
    assert len(load_scene(dataset).cameras) == 10
    outside = tmp_path / "outside.png"
    (elsewhere / "04.png").rename(outside)
    (elsewhere / "04.png").symlink_to(outside)
    refused("04.png", "link", source=dataset)


def test_a_name_that_no_disk_can_hold_is_a_missing_photo(tmp_path):
    capture = ring(5)
    root = capture.write_dataset(tmp_path)
    capture.shots[2].name = "x" * 5000 + ".png"
    capture.write_bin(root / "sparse" / "0")
    assert load_scene(root).missing == 1


def test_names_that_are_not_utf8_are_found(tmp_path):
    capture = ring(4)
    root = capture.write_dataset(tmp_path)
    raw = os.fsencode(root / "images") + b"/\xff1.png"
    os.rename(os.fsencode(root / "images" / "01.png"), raw)  # noqa: PTH104 - bytes
    file = root / "sparse" / "0" / "images.bin"
    file.write_bytes(file.read_bytes().replace(b"01.png", b"\xff1.png"))
    scene = load_scene(root)
    assert scene.missing == 0
    assert scene.cameras[-1].image().shape == (3, 30, 40)


def test_one_name_twice_is_refused(dataset):
    capture = ring(10)
    capture.shots[4].name = "03.png"
    capture.write_bin(dataset / "sparse" / "0")
    refused("'03.png'", "twice", source=dataset)


def test_a_lens_that_folds_everything_is_refused_by_name(dataset):
    capture = ring(10)
    capture.cameras[1] = ("OPENCV", 40, 30, (36.0, 35.0, 20.0, 15.0, -90.0, 0.0, 0.0, 0.0))
    capture.write_bin(dataset / "sparse" / "0")
    refused("OPENCV", "'00.png'", "coefficients", source=dataset)


def test_distortion_is_undone_and_said(dataset):
    capture = ring(10)
    capture.cameras[1] = ("SIMPLE_RADIAL", 40, 30, (36.0, 20.0, 15.0, 0.3))
    capture.write_bin(dataset / "sparse" / "0")
    scene = load_scene(dataset)
    camera = scene.train_cameras[0]
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (36.0, 36.0, 20.0, 15.0)
    assert camera.mask()[0, 0] == 0 and camera.mask()[15, 20] == 1  # a pincushion lens leaves the corners empty
    assert any("SIMPLE_RADIAL" in line for line in describe(scene))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    refused("no such folder", source=tmp_path / "nowhere")


def test_a_folder_without_a_model_says_what_is_wanted(tmp_path):
    refused("sparse/0", "COLMAP", source=tmp_path)


def test_a_model_without_images_is_refused(tmp_path):
    Capture().write_bin(tmp_path / "sparse" / "0")
    refused("no registered image", source=tmp_path)


@pytest.mark.parametrize("pattern", ["{name}.png", "{stem}.png"])
@pytest.mark.parametrize(("invert", "share"), [(False, 0.75), (True, 0.25)])
def test_masks_are_found_by_name_and_say_what_is_kept(dataset, tmp_path, pattern, invert, share):
    masks = tmp_path / "masks"
    masks.mkdir()
    for photo in (dataset / "images").iterdir():
        mask = np.zeros((30, 40), np.uint8)
        mask[:, 10:] = 255
        Image.fromarray(mask).save(masks / pattern.format(name=photo.name, stem=photo.stem))
    scene = load_scene(dataset, masks=masks, invert_masks=invert)
    assert kept_share(scene.cameras) == pytest.approx(share)
    assert any(f"{share:.1%}" in line for line in describe(scene))
    mask = scene.train_cameras[0].mask()
    assert mask.shape == (30, 40)
    assert mask[0, 0] == invert
    assert load_scene(dataset, masks=masks, resolution=2).train_cameras[0].mask().shape == (15, 20)


def test_a_photo_without_mask_is_kept_whole(dataset, tmp_path):
    Image.new("L", (40, 30), 0).save(tmp_path / "03.png")
    scene = load_scene(dataset, masks=tmp_path)
    assert kept_share(scene.cameras) == pytest.approx(0.9)
    assert [camera.name for camera in scene.cameras if camera.mask() is not None] == ["03.png"]


def test_masks_inside_the_dataset_can_be_named_from_there(dataset):
    (dataset / "masks").mkdir()
    Image.new("L", (40, 30), 255).save(dataset / "masks" / "03.png.png")
    assert kept_share(load_scene(dataset, masks=Path("masks")).cameras) == 1


def test_a_mask_folder_that_is_missing_or_useless_is_refused(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    refused("--masks", "no such folder", source=dataset, masks=tmp_path / "nowhere")
    refused("--masks", "no mask for any photo", source=dataset, masks=tmp_path / "empty")


def test_the_description_names_what_was_found(dataset):
    text = "\n".join(describe(load_scene(dataset)))
    for words in ("Photos: 10, 40x30 pixels", "8 for training, 2 held out", "Points: 3", "Memory"):
        assert words in text


def test_wide_photos_are_limited_and_it_is_said(tmp_path):
    capture = ring(3)
    capture.cameras[1] = ("SIMPLE_PINHOLE", 3200, 4, (3000.0, 1600.0, 2.0))
    scene = load_scene(capture.write_dataset(tmp_path))
    assert scene.cameras[0].width == 1600
    assert any("--resolution 1" in line for line in describe(scene))


READ = {
    "banana": 15, "beach": 18, "bonsai": 146, "fox": 50, "herzjesus": 25, "lund": 19, "plush": 96, "smoke": 24,
    "robust/lego_rgba_transforms": 50, "robust/mixed_formats": 16, "robust/names_spaces_subfolders": 16,
    "robust/colmap4_rigs_frames": 11, "robust/fox_opencv_transforms": 25, "robust/gerrard_percam_simple_radial": 25,
    "robust/lund_door_text_simple_radial": 12,
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_real_captures_open(shared_scenes, name):
    scene = load_scene(shared_scenes / name, resolution=32)
    assert len(scene.cameras) == READ[name]
    assert scene.missing == 0
    assert scene.extent > 0
    for camera in scene.test_cameras[:1] + scene.train_cameras[:1]:
        assert camera.image().shape == (3, camera.height, 32)
        rotation = camera.camera_from_world[:3, :3]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


def test_points_of_a_real_capture_fall_into_its_photos(shared_scenes):
    scene = load_scene(shared_scenes / "smoke")
    points = np.c_[scene.points.xyz, np.ones(len(scene.points))]
    for camera in scene.train_cameras[::7]:
        x, y, z = (points @ camera.camera_from_world.T)[:, :3].T
        u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        inside = (z > 0) & (u > 0) & (u < camera.width) & (v > 0) & (v < camera.height)
        assert inside.mean() > 0.2
        photo = (camera.image().permute(1, 2, 0).numpy() * 255)[v[inside].astype(int), u[inside].astype(int)]
        # SfM colours are means over the photos that see the point; most of those in front look like it.
        assert np.median(np.abs(photo - scene.points.rgb[inside]).mean(axis=1)) < 40
