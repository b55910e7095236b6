# SPDX-License-Identifier: Apache-2.0
"""COLMAP models are read as they were written, and damaged ones are refused in one line."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from scene.colmap import find_model, read_model, rotation_matrix
from scene.lens import LARGEST_SIDE
from tests.captures import Capture, Shot, ring
from utils.errors import UserError


@pytest.fixture
def capture() -> Capture:
    made = ring(5)
    made.cameras[7] = ("SIMPLE_PINHOLE", 64, 48, (50.5, 32.0, 24.0))
    made.shots[3].camera = 7
    made.shots[1].observations = [(1.5, 2.5, 3), (4.0, 5.0, -1)]
    return made


def refused(folder, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("write", [Capture.write_bin, Capture.write_txt], ids=["binary", "text"])
def test_a_model_is_read_as_it_was_written(tmp_path, capture, write):
    model = read_model(write(capture, tmp_path))
    assert model.cameras.keys() == {1, 7}
    assert model.cameras[1].pinhole == (36.0, 35.0, 21.0, 14.0)
    assert model.cameras[7].pinhole == (50.5, 50.5, 32.0, 24.0)
    assert [image.name for image in model.images] == [shot.name for shot in capture.shots]
    assert [image.camera_id for image in model.images] == [1, 1, 1, 7, 1]
    for image, shot in zip(model.images, capture.shots, strict=True):
        np.testing.assert_array_equal(image.translation, shot.translation)
        np.testing.assert_allclose(image.rotation, rotation_matrix(np.array(shot.quaternion)), atol=1e-15)
    np.testing.assert_array_equal(model.points.xyz, [xyz for xyz, _, _ in capture.points])
    np.testing.assert_array_equal(model.points.rgb, [rgb for _, rgb, _ in capture.points])


@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 1e-3))
def test_rotations_agree_with_scipy_for_quaternions_of_any_length(q):
    expected = Rotation.from_quat([*q[1:], q[0]]).as_matrix()
    np.testing.assert_allclose(rotation_matrix(np.array(q)), expected, atol=1e-12)


NAMES = [
    "with blanks (copy).v2.jpg",
    "sub/folder/a.jpg",
    "Größe №2 雪.jpg",
    "UPPER.JPG",
    "a.b.c.jpeg",
    "# no comment.png",
]


@pytest.mark.parametrize("write", [Capture.write_bin, Capture.write_txt], ids=["binary", "text"])
def test_names_are_the_rest_of_the_line(tmp_path, write):
    model = read_model(write(Capture(shots=[Shot(name) for name in NAMES]), tmp_path))
    assert [image.name for image in model.images] == NAMES


def test_binary_wins_over_text(tmp_path, capture):
    capture.write_bin(tmp_path)
    Capture(shots=[Shot("text.jpg")]).write_txt(tmp_path)
    assert len(read_model(tmp_path).images) == 5


def test_text_without_observations_or_with_foreign_line_ends_is_read(tmp_path, capture):
    capture.write_txt(tmp_path)
    for stem in ("cameras", "images", "points3D"):
        file = tmp_path / f"{stem}.txt"
        file.write_bytes(b"\n  \n" + file.read_bytes().replace(b"\n", b"\r\n"))
    model = read_model(tmp_path)
    assert [image.name for image in model.images] == [shot.name for shot in capture.shots]
    assert len(model.points) == 3


@pytest.mark.parametrize("points", [None, b"", struct.pack("<Q", 0)], ids=["absent", "empty text", "no points"])
def test_points_are_optional(tmp_path, capture, points):
    capture.write_bin(tmp_path)
    (tmp_path / "points3D.bin").unlink()
    if points == b"":
        (tmp_path / "points3D.txt").write_bytes(b"# 3D point list\n")
    elif points:
        (tmp_path / "points3D.bin").write_bytes(points)
    assert read_model(tmp_path).points is None


def test_points_that_are_not_numbers_are_left_out(tmp_path, capture):
    capture.points.append(((float("nan"), 0.0, 0.0), (0, 0, 0), []))
    capture.points.append(((float("inf"), 0.0, 0.0), (0, 0, 0), []))
    capture.points.append(((0.0, -1e200, 0.0), (0, 0, 0), []))
    for write in (Capture.write_bin, Capture.write_txt):
        assert len(read_model(write(capture, tmp_path / write.__name__)).points) == 3


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_the_model_is_found_where_tools_put_it(tmp_path, capture, place):
    folder = capture.write_bin(tmp_path / place)
    assert find_model(tmp_path) == folder


def test_no_model_is_no_place(tmp_path):
    assert find_model(tmp_path) is None
    refused(tmp_path, "no cameras and images")


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D"])
def test_a_binary_file_cut_anywhere_is_refused(tmp_path, capture, stem):
    file = capture.write_bin(tmp_path) / f"{stem}.bin"
    whole = file.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        file.write_bytes(whole[:length])
        refused(tmp_path, str(file), "damaged")


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("count", [2**64 - 1, 2**63, 2**40, 10_000])
def test_a_count_that_the_file_cannot_hold_is_refused(tmp_path, capture, stem, count):
    file = capture.write_bin(tmp_path) / f"{stem}.bin"
    file.write_bytes(struct.pack("<Q", count) + file.read_bytes()[8:])
    refused(tmp_path, str(file), str(count))


def test_an_inner_count_that_the_file_cannot_hold_is_refused(tmp_path, capture):
    file = capture.write_bin(tmp_path) / "points3D.bin"
    data = bytearray(file.read_bytes())
    data[8 + 43 : 8 + 51] = struct.pack("<Q", 2**61)
    file.write_bytes(data)
    refused(tmp_path, "points3D.bin", str(2**61))


@pytest.mark.parametrize(
    "camera",
    [
        ("PINHOLE", 0, 30, (36.0, 35.0, 20.0, 15.0)),
        ("PINHOLE", 40, LARGEST_SIDE + 1, (36.0, 35.0, 20.0, 15.0)),
        ("PINHOLE", 40, 30, (0.0, 35.0, 20.0, 15.0)),
        ("PINHOLE", 40, 30, (36.0, -1.0, 20.0, 15.0)),
        ("PINHOLE", 40, 30, (36.0, float("nan"), 20.0, 15.0)),
        ("SIMPLE_PINHOLE", 40, 30, (float("inf"), 20.0, 15.0)),
    ],
    ids=str,
)
def test_impossible_cameras_are_refused(tmp_path, capture, camera):
    capture.cameras[1] = camera
    for write in (Capture.write_bin, Capture.write_txt):
        refused(write(capture, tmp_path / write.__name__), "cameras.", "damaged")


def test_a_camera_model_that_does_not_exist_is_refused(tmp_path, capture):
    file = capture.write_bin(tmp_path) / "cameras.bin"
    data = bytearray(file.read_bytes())
    data[12:16] = struct.pack("<i", 99)
    file.write_bytes(data)
    refused(tmp_path, "model 99")


@pytest.mark.parametrize(
    "change",
    [
        {"quaternion": (0.0, 0.0, 0.0, 0.0)},
        {"quaternion": (float("nan"), 0.0, 0.0, 1.0)},
        {"quaternion": (1e200, 0.0, 0.0, 1e200)},
        {"translation": (0.0, float("inf"), 0.0)},
        {"translation": (0.0, 1e300, 0.0)},
    ],
    ids=str,
)
def test_impossible_poses_are_refused(tmp_path, capture, change):
    capture.shots[2] = Shot("bad.png", **change)
    for write in (Capture.write_bin, Capture.write_txt):
        refused(write(capture, tmp_path / write.__name__), "bad.png")


def test_an_image_of_an_unknown_camera_is_refused(tmp_path, capture):
    capture.shots[2].camera = 3
    refused(capture.write_bin(tmp_path), "camera 3")


@pytest.mark.parametrize(
    ("stem", "line"),
    [
        ("cameras", "1 PINHOLE 40 30 1 2 3"),
        ("cameras", "1 PERIFOCAL 40 30 1 2 3 4"),
        ("cameras", "one PINHOLE 40 30 1 2 3 4"),
        ("cameras", "1 PINHOLE 40 30 1 2 3 four"),
        ("images", "1 1 0 0 0 0 0 0 1"),
        ("images", "1 1 0 0 zero 0 0 0 1 a.jpg"),
        ("points3D", "1 0 0 0"),
        ("points3D", "1 0 0 0 red 0 0 0"),
    ],
)
def test_text_that_makes_no_sense_is_refused_with_its_line(tmp_path, capture, stem, line):
    (capture.write_txt(tmp_path) / f"{stem}.txt").write_text(f"# comment\n{line}\n")
    refused(tmp_path, f"{stem}.txt", "line 2")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_byte_gives_more_than_one_line(tmp_path, data):
    folder = ring(4).write_bin(tmp_path)
    file = folder / data.draw(st.sampled_from(["cameras.bin", "images.bin", "points3D.bin"]))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        model = read_model(folder)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.isfinite(image.rotation).all() for image in model.images)


def test_the_output_of_colmap_with_rigs_and_frames_is_read_to_the_last_image(shared_scenes):
    model = read_model(shared_scenes / "robust" / "colmap4_rigs_frames" / "sparse" / "0")
    assert [model.cameras[image.camera_id].model for image in model.images] == ["SIMPLE_RADIAL"] * len(model.images)
    assert model.images[0].name.startswith("kermit")
    assert len(model.points) > 100


def test_text_and_binary_of_one_capture_agree(shared_scenes):
    root = shared_scenes / "robust" / "names_spaces_subfolders"
    binary, text = (read_model(root / folder / "0") for folder in ("sparse", "sparse_txt"))
    assert {image.name for image in binary.images} == {image.name for image in text.images}
    poses = {image.name: image for image in text.images}
    for image in binary.images:
        np.testing.assert_allclose(image.rotation, poses[image.name].rotation, atol=1e-9)
        np.testing.assert_allclose(image.translation, poses[image.name].translation, atol=1e-9)
    assert len(binary.points) == len(text.points)
