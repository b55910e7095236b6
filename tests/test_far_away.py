# SPDX-License-Identifier: Apache-2.0
"""A capture in UTM coordinates is trained as if it lay at zero; what is written or asked for lies where it lies."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import render
import train
from scene import export
from scene.dataset import load_scene
from scene.ply import read_gaussians, read_points
from scene.ply_container import read_vertices
from tests.scenes.rigs import moved
from tests.scenes.small_capture import small_ring, write_capture
from utils.command import run_command

UTM = np.array([500_000.0, 5_400_000.0, 300.0])
FEW = ("--iterations", 12, "--num_points", 60, "--phases", "none", "--quiet", "--test_iterations", "--save_iterations")


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> tuple[Path, Path]:
    """The same capture at zero and far away."""
    folder = tmp_path_factory.mktemp("captures")
    near = write_capture(folder / "near")
    write_capture(folder / "far", moved(small_ring(), offset=UTM), finest=None)
    (folder / "far" / "images").symlink_to(near / "images")
    return near, folder / "far"


def run(program, *words) -> int:
    return run_command(program.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def models(captures, tmp_path_factory) -> tuple[Path, Path]:
    folders = []
    for name, capture in zip(("near", "far"), captures, strict=True):
        folder = tmp_path_factory.mktemp("models") / name
        assert run(train, "-s", capture, "-m", folder, *FEW) == 0
        folders.append(folder)
    return tuple(folders)


def test_a_far_scene_has_a_zero_of_its_own_and_a_near_one_has_not(captures):
    near, far = (load_scene(capture) for capture in captures)
    assert not near.zero.any()
    np.testing.assert_allclose(far.zero, UTM, atol=1000)
    for one, other in zip(near.cameras, far.cameras, strict=True):
        np.testing.assert_allclose(other.position + far.zero - UTM, one.position, atol=1e-7)
    assert far.extent == pytest.approx(near.extent, abs=1e-7)


def test_a_view_less_does_not_move_zero(captures):
    far = load_scene(captures[1])
    positions = [camera.position for camera in far.cameras]
    assert np.linalg.norm(np.mean(positions, axis=0)) < 1000 * far.extent
    np.testing.assert_array_equal(far.zero, np.round(far.zero))


def model_ply(folder: Path) -> Path:
    return folder / "point_cloud" / "iteration_12" / "point_cloud.ply"


def test_positions_are_written_in_the_world_without_loss(models):
    near, far = (read_gaussians(model_ply(folder)) for folder in models)
    assert near.tags.get("origin") is None
    _, rows = read_vertices(model_ply(models[1]))
    world = np.stack([rows[axis] for axis in "xyz"], axis=1)
    assert world.dtype == np.float64
    # The same random numbers, the same steps, but for what float32 rounds differently.
    assert len(near.means) == len(far.means)
    np.testing.assert_allclose(world - UTM, near.means, atol=0.02)
    np.testing.assert_allclose(far.log_scales, near.log_scales, atol=0.05)
    np.testing.assert_allclose(far.means + np.array(far.tags["origin"]), world, atol=1e-9)


def test_cameras_and_starting_points_are_written_in_the_world(models):
    near, far = (json.loads((folder / "cameras.json").read_text()) for folder in models)
    for one, other in zip(near, far, strict=True):
        np.testing.assert_allclose(np.array(other["position"]) - UTM, one["position"], atol=1e-6)
        np.testing.assert_allclose(other["rotation"], one["rotation"], atol=1e-9)
    start = [read_points(folder / "input.ply").xyz for folder in models]
    np.testing.assert_allclose(start[1] - UTM, start[0], atol=1e-3)


def plain(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, np.float64) / 255


def pictures(folder: Path) -> np.ndarray:
    return np.stack([plain(path) for path in sorted(folder.glob("**/renders/*.png"))])


def test_renders_look_the_same_from_the_run_and_from_its_files(models, tmp_path):
    for folder in models:
        assert run(render, "-m", folder, "--quiet", "--skip_train") == 0
    near, far = (pictures(folder / "test") for folder in models)
    assert np.abs(near - far).mean() < 0.01
    words = ("--ply", model_ply(models[1]), "--cameras", models[1] / "cameras.json", "--output", tmp_path, "--quiet")
    assert run(render, *words) == 0
    assert np.abs(pictures(tmp_path)[[0, 8]] - far).max() <= 2 / 255


def test_a_camera_path_of_a_file_lies_in_the_world(models, tmp_path):
    entry, *_ = json.loads((models[1] / "cameras.json").read_text())
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = entry["rotation"], entry["position"]
    (tmp_path / "path.json").write_text(json.dumps({"frames": [{"world_from_camera": pose.tolist()}]}))
    ways = (
        ("--ply", model_ply(models[1]), "--cameras", models[1] / "cameras.json", "--output", tmp_path / "from a file"),
        ("-m", models[1]),
    )
    for way in ways:
        assert run(render, *way, "--trajectory", tmp_path / "path.json", "--quiet") == 0
    assert run(render, "-m", models[1], "--skip_train", "--quiet") == 0
    view = plain(models[1] / "test" / "ours_12" / "renders" / "00000.png")
    for folder in (tmp_path / "from a file", models[1] / "trajectory" / "ours_12"):
        assert np.abs(plain(folder / "renders" / "00000.png") - view).max() <= 2 / 255


def test_a_box_to_crop_to_lies_in_the_world(models, tmp_path):
    box = np.array([-0.8, -0.7, -0.6, 0.7, 0.8, 0.9])
    means = read_gaussians(model_ply(models[0])).means
    wanted = ((means >= box[:3]) & (means <= box[3:])).all(axis=1).sum()
    assert 5 < wanted < len(means) - 5
    words = (models[1], "--format", "ply", "--output", tmp_path / "a.ply", "--quiet", "--crop")
    assert run(export, *words, *(box + np.tile(UTM, 2))) == 0
    assert abs(len(read_gaussians(tmp_path / "a.ply").means) - wanted) <= 2


@pytest.mark.parametrize("kind", ["splat", "spz", "sog", "glb"])
def test_a_format_without_doubles_says_what_its_positions_are_relative_to(models, tmp_path, capsys, kind):
    far = models[1]
    for model in models:
        assert run(export, model, "--format", kind, "--output", tmp_path / f"a.{kind}", "--quiet") == 0
    origin = read_gaussians(model_ply(far)).tags["origin"]
    said = [line for line in capsys.readouterr().err.splitlines() if "relative to" in line]
    assert len(said) == 1 and " ".join(f"{value:.0f}" for value in origin) in said[0]


def test_the_page_begins_before_the_scene(models):
    starts = [export.starting_view(export.open_source(model)) for model in models]
    np.testing.assert_allclose(starts[1].position + read_gaussians(model_ply(models[1])).tags["origin"] - UTM,
                               starts[0].position, atol=1e-6)  # fmt: skip


def test_a_far_run_can_begin_with_a_far_model(captures, models, tmp_path):
    words = ("-s", captures[1], "-m", tmp_path / "M", *FEW, "--iterations", 1, "--init", model_ply(models[1]))
    assert run(train, *words) == 0
    start = read_points(tmp_path / "M" / "input.ply").xyz
    assert np.abs(start - UTM).max() < 100
