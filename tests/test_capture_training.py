# SPDX-License-Identifier: Apache-2.0
"""How a capture is stored, described and kept in memory does not change what is trained from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.captures import transforms
from tests.scenes.small_capture import capture_of, small_ring, write_capture
from utils.command import run_command

FEW = ("--iterations", 14, "--num_points", 60, "--phases", "none", "--quiet", "--test_iterations", "--save_iterations")
EVENTS = ("--densify_from_iter", 2, "--densification_interval", 4)


def trained(capture: Path, folder: Path, *words) -> bytes:
    """The model's bytes after a few iterations."""
    assert run_command(train.main, [str(w) for w in ("-s", capture, "-m", folder, *FEW, *EVENTS, *words)]) == 0
    return (folder / "point_cloud" / "iteration_14" / "point_cloud.ply").read_bytes()


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    return write_capture(tmp_path_factory.mktemp("capture"))


@pytest.fixture(scope="module")
def expected(capture, tmp_path_factory) -> bytes:
    return trained(capture, tmp_path_factory.mktemp("model") / "M")


@pytest.mark.parametrize("options", [("--cache_gb", 0), ("--cache_gb", 2e-5, "--threads", 3)])
def test_the_cache_does_not_change_a_byte(capture, expected, tmp_path, options):
    assert trained(capture, tmp_path / "M", *options) == expected


def test_the_same_capture_as_transforms_gives_the_same_model(capture, expected, tmp_path):
    content = transforms(capture_of(small_ring()))
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(capture / "images")
    model = trained(tmp_path, tmp_path.parent / "M")
    assert len(model) == len(expected)
    # Poses went through another matrix and back: the last bits differ.
    numbers = [np.frombuffer(data.partition(b"end_header\n")[2], "<f4") for data in (model, expected)]
    np.testing.assert_allclose(*numbers, atol=2e-3)


@pytest.mark.parametrize("words", [(), ("--opacity_reg", 0.02)])
def test_masked_pixels_teach_nothing(capture, tmp_path, words):
    """Whatever lies under a mask, the model is the same to the last bit."""
    models = []
    for name, color in (("black", (0, 0, 0)), ("pink", (255, 0, 255))):
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        (root / "sparse").symlink_to(capture / "sparse")
        for photo in (capture / "images").iterdir():
            with Image.open(photo) as image:
                painted = np.array(image)
            painted[:, 30:] = color
            Image.fromarray(painted).save(root / "images" / photo.name)
            mask = np.full(painted.shape[:2], 255, np.uint8)
            mask[:, 30:] = 0
            Image.fromarray(mask).save(root / "masks" / photo.name)
        models.append(trained(root, tmp_path / f"model of {name}", *words))
        log = (tmp_path / f"model of {name}" / "log.jsonl").read_text()
        assert ("loss_opacity" in log) == bool(words), "what the unmasked pixels show has the term"
    assert models[0] == models[1]
