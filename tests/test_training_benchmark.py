# SPDX-License-Identifier: Apache-2.0
"""The training benchmark times what training does."""

import numpy as np
import pytest
import tiny
import torch

from benchmarks import training
from scene.gaussian_model import PARAMETERS
from scene.points import PointCloud
from train import train_step


def test_the_timed_step_is_the_step_of_training_bit_for_bit(tmp_path):
    timed, plain = tiny.state(tmp_path / "timed"), tiny.state(tmp_path / "plain")
    clock = training.Clock()
    for _ in range(20):
        training.step(timed, training.Steady(), clock)
        train_step(plain, training.Steady())
    for name in PARAMETERS:
        assert torch.equal(timed.gaussians.rows[name], plain.gaussians.rows[name])
    assert {name: len(seconds) for name, seconds in clock.seconds.items()} == dict.fromkeys(training.STAGES, 20)


def test_no_number_of_steps_densifies():
    events = training.Steady().events(None)
    assert not any(iteration in events.densify for iteration in range(1, 40_000))


def test_the_jitter_repeats_the_points_and_moves_only_the_copies():
    rng = np.random.default_rng(3)
    points = PointCloud(rng.normal(size=(40, 3)), rng.integers(0, 256, (40, 3)).astype(np.uint8))
    more = training.jittered(points, 100, seed=0)
    assert len(more) == 100
    assert np.array_equal(more.xyz[:40], points.xyz)
    assert np.array_equal(more.rgb[40:80], points.rgb)
    moved = more.xyz[40:80] - points.xyz
    assert np.abs(moved).min() > 0 and np.abs(moved).max() < 0.05
    assert np.array_equal(more.xyz, training.jittered(points, 100, seed=0).xyz)


def test_the_rulers_scene_has_header_view_and_activated_parameters(tmp_path):
    gaussians, camera = tiny.world(), tiny.camera((4, 0, 1))
    training.write_ruler_scene(tmp_path / "s.bin", gaussians, camera)
    data = (tmp_path / "s.bin").read_bytes()
    count = len(gaussians)
    assert len(data) == 4 * (3 + 4 + 16 + count * (3 + 3 + 4 + 1 + 48))
    assert np.frombuffer(data, np.int32, 3).tolist() == [count, 48, 36]
    scales = np.frombuffer(data, np.float32, 3 * count, offset=4 * (23 + 3 * count))
    assert scales.reshape(count, 3) == pytest.approx(gaussians.scales.detach().numpy())


def test_the_table_has_every_stage_and_the_ratio_to_the_ruler():
    result = {
        "gaussians": 5,
        "threads": 1,
        "mult": 0.5,
        "load": 0.0,
        "steps_per_cpu_second": 50.0,
        "steps_per_second": 49.0,
        "stages_ms": dict.fromkeys(training.STAGES, 2.0),
        "ruler_ms": {"render": 1.0, "backward": 4.0},
    }
    table = training.report(result)
    assert all(name in table for name in training.STAGES)
    assert "2.00\n" in table  # render: 2 ms to the ruler's 1 ms
    assert "0.50\n" in table
