# SPDX-License-Identifier: Apache-2.0
"""Defects are planted where they are said to be, and a detector that sees the error finds them."""

import numpy as np
import pytest
import tiny
import torch

from benchmarks.detection import KINDS, World, plant, score
from vlm.residual import ResidualDetector


@pytest.fixture(scope="module")
def trials():
    world = World(tiny.world(), tiny.scene().train_cameras, torch.zeros(3), 1.0)
    return world, list(plant(world, 8, seed=0))


def test_every_kind_changes_the_picture_inside_its_box(trials):
    world, planted = trials
    cameras = {camera.name: camera for camera in world.cameras}
    assert [trial.kind for trial in planted] == 2 * list(KINDS)
    for trial in planted:
        change = (trial.damaged - world.draw(cameras[trial.view])).abs().mean(0).numpy()
        inside = np.zeros(change.shape, bool)
        inside[trial.truth.cut(*change.shape)] = True
        assert change[inside].mean() > 4 * change[~inside].mean()


def test_the_error_map_finds_most_of_them_and_no_detector_none(trials):
    _, planted = trials
    found = score(ResidualDetector(3), planted, 0)
    assert found["recall"] >= 0.75 and found["iou"] > 2 * found["chance"]
    blind = score(ResidualDetector(0), planted, 0)
    assert blind["recall"] == blind["boxes"] == 0
