# SPDX-License-Identifier: Apache-2.0
"""Phase 1 puts surroundings where the render is empty, in the photos' colours, and keeps FastGS's events away."""

import json

import numpy as np
import pytest
import torch

from phases.ambient import Ambient
from phases.density import keeping
from phases.fastgs import FastGS
from phases.state import Step
from scene.gaussian_model import Label
from scene.view_geometry import in_image
from tests import tiny
from tests.scenes.ball_depth import depth_of_the_ball


def make(tmp_path, optim=None, **run):
    state = tiny.state(tmp_path, tiny.config(tmp_path, optim=optim, **run))
    state.__dict__["depth"] = depth_of_the_ball(state)
    state.iteration = 10
    return state


def phase(**values) -> Ambient:
    made = Ambient(**({"densify_after": 10, "reset_after": 30, "reset_until": 80, "snapshot_every": 5} | values))
    made.start, made.length = 11, 80
    return made


def records(state) -> list[dict]:
    return [json.loads(line) for line in (state.run.path / "log.jsonl").read_text().splitlines()]


def ambient_rows(state) -> torch.Tensor:
    return state.gaussians.labels == Label.AMBIENT


def test_the_tube_goes_in_with_its_figures_logged(tmp_path):
    state = make(tmp_path, seeds="none")
    before = len(state.gaussians)
    phase(points=300).on_start(state)
    fresh = ambient_rows(state)
    assert 0.8 * 300 <= int(fresh.sum()) <= 1.2 * 300
    assert not fresh[:before].any()
    torch.testing.assert_close(state.gaussians.opacities.detach()[fresh], torch.full((int(fresh.sum()), 1), 0.1))
    figures = next(record for record in records(state) if "tube_hit" in record)
    assert {"tube_hit", "tube_blocked", "tube_upright_hit", "tube_upright_blocked", "tube_convex"} <= set(figures)
    assert figures["tube_hit"] > 0.9 and figures["tube_blocked"] <= 0.02


def test_the_wall_is_flat_and_outside_the_camera_ring(tmp_path):
    state = make(tmp_path, seeds="none")
    phase(points=300).on_start(state)
    fresh = ambient_rows(state)
    scales = state.gaussians.scales.detach()[fresh]
    assert (scales[:, 2] < 0.2 * scales[:, :2].amin(1)).all()
    offset = state.gaussians.means.detach()[fresh].double().numpy() - state.geometry.focus
    assert np.linalg.norm(offset, axis=1).min() > state.geometry.ring.semi_axes.min()


def test_every_wall_point_is_seen_by_some_camera(tmp_path):
    state = make(tmp_path, seeds="none")
    phase(points=300).on_start(state)
    points = state.gaussians.means.detach()[ambient_rows(state)].double().numpy()
    seen = np.any([in_image(camera, points) for camera in state.scene.train_cameras], axis=0)
    assert seen.all()


def test_the_wall_stands_in_four_sizes_round_one_axis(tmp_path):
    state = make(tmp_path, seeds="none")
    phase(points=400).on_start(state)
    tube = next(record["tube"] for record in records(state) if "tube" in record)
    offset = state.gaussians.means.detach()[ambient_rows(state)].double().numpy() - np.array(tube["center"])
    sizes = np.linalg.norm(offset @ np.array(tube["across"]).T / tube["semi_axes"], axis=1)
    assert set(np.round(sizes, 3)) == {1.0, 2.0, 4.0, 10.0}


@pytest.mark.parametrize("shape", ["tube", "sphere", "box"])
def test_other_shapes_are_there_for_comparison(tmp_path, shape):
    state = make(tmp_path, seeds="none")
    phase(points=200, shape=shape).on_start(state)
    assert 100 <= int(ambient_rows(state).sum()) <= 260


def test_no_shape_puts_nothing_round_the_scene(tmp_path):
    state = make(tmp_path, seeds="none")
    before = len(state.gaussians)
    phase(shape="none").on_start(state)
    assert len(state.gaussians) == before


def test_seeds_go_where_the_render_is_empty_or_wrong_and_the_wall_takes_the_rest(tmp_path):
    state = make(tmp_path)
    before = len(state.gaussians)
    phase(seeds=500, points=100).on_start(state)
    events = [record for record in records(state) if "event" in record]
    seeded = next(record["seeds"] for record in events if "seeds" in record)
    assert 0 < seeded <= 500
    assert len(state.gaussians) > before
    far = state.gaussians.means.detach()[before : before + seeded].norm(dim=1)
    assert (far > 5).any()  # the wall at depth 14 that the sweep knew
    assert ambient_rows(state)[before:].all()


def test_seeds_of_the_main_region_only_leave_the_ambient_phase_without(tmp_path):
    state = make(tmp_path, seeds="main")
    phase(shape="none").on_start(state)
    assert not ambient_rows(state).any()


def test_an_opaque_render_needs_no_wall(tmp_path):
    state = make(tmp_path, seeds="none")
    with torch.no_grad():
        state.gaussians.log_scales.fill_(3.0)
        state.gaussians.logit_opacities.fill_(6.0)
    phase(points=300).on_start(state)
    assert not ambient_rows(state).any()


def test_labels_survive_densification(tmp_path):
    state = make(tmp_path, seeds="none")
    phase(points=300).on_start(state)
    subjects, before = int((~ambient_rows(state)).sum()), int(ambient_rows(state).sum())
    rows = state.gaussians.rows
    rows["seen"].fill_(1)
    rows["grad_sum"].copy_(ambient_rows(state).float())
    rows["abs_grad_sum"].copy_(ambient_rows(state).float())
    state.density.grow(state, torch.ones(len(state.gaussians), dtype=torch.bool))
    assert int((~ambient_rows(state)).sum()) == subjects
    assert int(ambient_rows(state).sum()) == 2 * before


def test_pictures_are_taken_at_the_insertion_and_three_times_after(tmp_path):
    state = make(tmp_path, seeds="none")
    settings = phase(points=50)
    settings.on_start(state)
    for iteration in range(11, 40):
        state.iteration = iteration
        settings.after_step(state)
    names = {path.stem.split("_", 1)[1] for path in (state.run.path / "snapshots").glob("*.png")}
    assert names == {"ambient_before", "ambient_insertion", "ambient_1", "ambient_2", "ambient_3"}


def test_events_follow_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr("phases.density.RECOVERY", 0)
    late = {"keep_from": 0.9, "keep_at": 0.95}
    state = make(tmp_path, optim={"opacity_reset_interval": 15, "late_prune_interval": 30, **late})
    settings = phase(reset_after=30, reset_until=80)
    events = settings.events(state)
    assert [i for i in range(1, 100) if i in events.densify] == [30, 40, 50]
    assert [i for i in range(1, 100) if i in events.reset_opacity] == [45, 60, 75]
    assert [i for i in range(1, 100) if i in events.late_prune] == [90]


def test_the_last_opacity_reset_leaves_time_to_recover_before_the_keeping(tmp_path):
    state = make(tmp_path, iterations=30_000, optim={"opacity_reset_interval": 3_000, "densify_until_iter": 15_000})
    assert keeping(state.config)[0] == 12_000
    settings = phase(reset_after=0, reset_until=12_000)
    settings.length = 30_000
    for events in (settings.events(state), FastGS().events(state)):
        assert [i for i in range(3_000, 30_000, 3_000) if i in events.reset_opacity] == [3_000, 6_000, 9_000]


def test_every_iteration_steps_while_the_scene_grows(tmp_path):
    state = make(tmp_path)
    settings = phase()
    state.iteration = 50
    assert settings.windows(state).geometry == 1 and settings.windows(state).colour == 1


def test_sh_degrees_follow_each_other(tmp_path):
    state, settings = make(tmp_path), phase()
    degrees = []
    for state.iteration in (11, 30, 31, 51):
        degrees.append(settings.sh_degree(state))
    assert degrees == [1, 1, 2, 3]


def test_what_shines_through_costs_only_where_the_photo_counts(tmp_path):
    state = make(tmp_path)
    camera = state.scene.train_cameras[0]
    output = state.render(camera)
    terms = phase(opaque=0.5).loss(state, Step(11, camera, camera.image(), None, output))
    torch.testing.assert_close(terms["holes"], 0.5 * (1 - output.alpha).mean())
    blind = torch.zeros(camera.height, camera.width)
    assert phase(opaque=0.5).loss(state, Step(11, camera, camera.image(), blind, output))["holes"] == 0
    assert "holes" not in phase(opaque=0).loss(state, Step(11, camera, camera.image(), None, output))
