# SPDX-License-Identifier: Apache-2.0
"""Unusual but valid captures train to a sensible model or end in a clear line; never in NaN or a traceback."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from scene.model_folder import load_model
from tests.captures import Capture, Shot, ring
from utils.command import run_command

SHORT = ("--iterations", "12", "--num_points", "30", "--vlm_views", "2", "--quiet", "--threads", "1")


def capture(count: int, size: tuple[int, int] = (24, 18), **shot: object) -> Capture:
    """A ring of views of one size, each changed in the same way."""
    found = ring(count)
    width, height = size
    found.cameras = {1: ("PINHOLE", width, height, (0.9 * width, 0.9 * width, width / 2, height / 2))}
    found.shots = [
        Shot(one.name, 1, **({"quaternion": one.quaternion, "translation": one.translation} | shot))
        for one in found.shots
    ]
    return found


def apart(count: int = 6) -> Capture:
    """Cameras on a circle that all look outwards."""
    found = capture(count)
    found.shots = [Shot(one.name, 1, one.quaternion, (0.0, 0.0, -4.0)) for one in found.shots]
    return found


def photograph(source: Path, value: int | None = None) -> None:
    """Noise, or one grey level, instead of the photos."""
    rng = np.random.default_rng(0)
    for path in sorted((source / "images").iterdir()):
        with Image.open(path) as image:
            shape = (image.height, image.width, 3)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
        Image.fromarray(pixels).save(path)


def trained(source: Path, folder: Path, *options: str) -> int:
    """Train; a model that comes out has to be finite, and so has every figure in the log."""
    code = run_command(train.main, ["-s", str(source), "-m", str(folder), *SHORT, *options])
    if code == 0:
        model = load_model(folder)
        assert len(model.splats) and all(np.isfinite(array).all() for array in model.splats.parameters().values())
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert all(line["loss"] is not None for line in lines if "loss" in line)
    return code


@pytest.mark.parametrize(
    "views",
    [
        pytest.param(capture(1), id="one view"),
        pytest.param(capture(2), id="two views"),
        pytest.param(capture(3), id="three views"),
        pytest.param(capture(6, translation=(0.0, 0.0, 0.0)), id="all cameras in one place"),
        pytest.param(capture(6, quaternion=(1.0, 0.0, 0.0, 0.0), translation=(0.0, 0.0, 4.0)), id="one view six times"),
        pytest.param(apart(), id="all looking away from each other"),
        pytest.param(capture(4, (8, 8)), id="photos of 8x8 pixels"),
        pytest.param(capture(4, (1, 1)), id="photos of one pixel"),
        pytest.param(capture(4, (8000, 10)), id="photos of 8000x10 pixels"),
        pytest.param(capture(4, (10, 400)), id="photos of 10x400 pixels"),
    ],
)
def test_unusual_cameras_train(views, tmp_path):
    source = views.write_dataset(tmp_path / "data")
    photograph(source)
    assert trained(source, tmp_path / "M", "--resolution", "1") == 0


@pytest.mark.parametrize("level", [0, 255, 128])
def test_photos_of_one_colour_train(tmp_path, level):
    source = capture(5).write_dataset(tmp_path / "data")
    photograph(source, level)
    assert trained(source, tmp_path / "M") == 0


@pytest.mark.parametrize("hidden", [1, 4, 5])
def test_views_that_are_masked_completely_train(tmp_path, hidden):
    source = capture(5).write_dataset(tmp_path / "data")
    photograph(source)
    (source / "masks").mkdir()
    for k in range(5):
        Image.new("L", (24, 18), 0 if k < hidden else 255).save(source / "masks" / f"{k:02}.png")
    assert trained(source, tmp_path / "M", "--masks", "masks") in ((0,) if hidden < 5 else (0, 2))


def test_all_points_in_one_place_train(tmp_path):
    views = capture(5)
    views.points = [((0.1, 0.2, 0.3), (9, 9, 9), []) for _ in range(20)]
    source = views.write_dataset(tmp_path / "data")
    photograph(source)
    assert trained(source, tmp_path / "M", "--init", "sfm") == 0


def test_one_point_trains(tmp_path):
    source = capture(5).write_dataset(tmp_path / "data")
    photograph(source)
    assert trained(source, tmp_path / "M", "--num_points", "1") == 0
