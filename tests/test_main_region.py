# SPDX-License-Identifier: Apache-2.0
"""Phase 0 looks at the subject, pulls Gaussians into its region, seeds it and cleans up behind itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phases.main_region import MainRegion, region_weight, relative_radius
from phases.seeding import seed_count
from phases.state import Step
from scene.gaussian_model import Label
from scene.view_geometry import project
from tests import tiny
from tests.scenes.ball_depth import depth_of_the_ball


@pytest.fixture
def state(tmp_path):
    made = tiny.state(tmp_path)
    made.__dict__["depth"] = depth_of_the_ball(made)
    return made


def phase(**values) -> MainRegion:
    made = MainRegion(**values)
    made.start, made.length = 1, 40
    return made


def step(state, iteration=1, mask=None) -> Step:
    camera = state.scene.train_cameras[0]
    output = state.render(camera)
    return Step(iteration, camera, camera.image(), mask, output)


def test_pixels_of_the_ball_have_full_weight_and_others_less(state):
    camera, geometry = state.scene.train_cameras[0], state.geometry
    weight = region_weight(camera, geometry, 0.5)
    assert weight.shape == (camera.height, camera.width)
    rng = np.random.default_rng(0)
    inside = geometry.focus + 0.95 * geometry.subject_radius * rng.uniform(-0.57, 0.57, (200, 3))
    pixels = np.floor(project(camera, inside)[0]).astype(int)
    assert (weight[pixels[:, 1], pixels[:, 0]] > 0.99).all()
    assert 0 < weight[0, 0] < 0.9
    assert weight.max() == 1.0


def test_the_weight_falls_off_steadily_with_the_angle(state):
    camera = state.scene.train_cameras[0]
    row = region_weight(camera, state.geometry, 0.2)[camera.height // 2]
    right = row[camera.width // 2 :]
    assert (right[1:] - right[:-1] <= 1e-6).all()
    narrow, wide = (region_weight(camera, state.geometry, f).mean() for f in (0.1, 1.0))
    assert narrow < wide


def test_the_weight_of_a_view_has_mean_one_and_masks_are_honoured(state):
    mask = torch.ones(36, 48)
    mask[:, :20] = 0
    weight = phase().pixel_weight(state, step(state, mask=mask))
    assert weight.mean().item() == pytest.approx(1.0, abs=1e-5)
    assert not weight[:, :20].any()


def test_a_view_that_turns_its_back_hardly_counts(state):
    away = tiny.camera((4, 0, 1), target=(9, 0, 1))
    looking = Step(1, away, torch.zeros(3, 36, 48), None, None)
    assert phase().pixel_weight(state, looking).mean() < 0.05


def test_the_penalty_is_free_of_units_and_nothing_inside(state):
    geometry = state.geometry
    direction = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    focus = torch.as_tensor(geometry.focus, dtype=torch.float32)
    means = focus + 2.5 * geometry.subject_radius * direction
    scaled = replace(geometry, focus=100 * geometry.focus, subject_radius=100 * geometry.subject_radius)
    torch.testing.assert_close(relative_radius(means, geometry), torch.full((50,), 2.5))
    torch.testing.assert_close(relative_radius(100 * means, scaled), torch.full((50,), 2.5))

    gaussians = state.gaussians
    with torch.no_grad():
        gaussians.means.copy_(
            focus + 0.5 * geometry.subject_radius * gaussians.means / gaussians.means.norm(dim=1, keepdim=True)
        )
    assert phase().loss(state, step(state))["region"].item() == 0.0


def test_the_penalty_pulls_stray_gaussians_towards_the_focus(state):
    with torch.no_grad():
        state.gaussians.means[0] = torch.tensor([9.0, 0, 0])
    terms = phase().loss(state, step(state))
    expected = (relative_radius(state.gaussians.means, state.geometry) - 1).relu().square().mean() * 0.1
    torch.testing.assert_close(terms["region"], expected)
    terms["region"].backward()
    assert state.gaussians.means.grad[0, 0] > 0  # the step goes against it


def test_seeds_come_half_way_inside_the_region(state):
    settings, before = phase(seeds=60, behind=0), len(state.gaussians)
    for iteration in (19, 20, 21, 22):
        state.iteration = iteration
        settings.after_step(state)
        assert len(state.gaussians) == before + (60 if iteration >= 21 else 0)
    fresh = slice(before, None)
    assert (relative_radius(state.gaussians.means.detach()[fresh], state.geometry) < 1.2).all()
    assert (state.gaussians.labels[fresh] == Label.SUBJECT).all()
    torch.testing.assert_close(state.gaussians.opacities.detach()[fresh], torch.full((60, 1), 0.3))
    assert (state.gaussians.births[fresh] == 21).all()


def test_what_shows_behind_the_subject_is_seeded_as_surroundings_and_not_pulled(state):
    before = len(state.gaussians)
    state.iteration = 21
    phase(seeds=0, behind=40).after_step(state)
    fresh = slice(before, None)
    assert len(state.gaussians) > before
    assert (state.gaussians.labels[fresh] == Label.AMBIENT).all()
    assert (relative_radius(state.gaussians.means.detach()[fresh], state.geometry) > 1.2).all()
    phase().loss(state, step(state))["region"].backward()
    assert not state.gaussians.means.grad[fresh].any()


def test_no_seeds_when_none_are_wanted(tmp_path):
    state = tiny.state(tmp_path, tiny.config(tmp_path, seeds="none"))
    before = len(state.gaussians)
    state.iteration = 21
    phase(seeds=60).after_step(state)
    assert len(state.gaussians) == before


def test_the_end_drops_giants_and_the_unseen_and_keeps_the_rest(state):
    gaussians = state.gaussians
    with torch.no_grad():
        gaussians.means.uniform_(-0.3, 0.3)
        gaussians.log_scales.fill_(-3.0)
        gaussians.log_scales[3] = 1.0  # a giant
        gaussians.means[5] = torch.tensor([0.0, 0, 60.0])  # over everybody's head
    before = len(gaussians)
    phase().on_end(state)
    assert len(gaussians) == before - 2
    assert gaussians.log_scales.max() < 0 and gaussians.means[:, 2].max() < 1
    assert list((state.run.path / "snapshots").glob("*main_end.png"))


def test_densification_is_for_the_region_and_nothing_is_reset_or_pruned_late(state):
    settings = phase()
    events = settings.events(state)
    assert 20 in events.densify and 10 not in events.densify and 50 not in events.densify
    assert not any(iteration in events.reset_opacity or iteration in events.late_prune for iteration in range(1, 100))
    assert events.keep == ()
    with torch.no_grad():
        state.gaussians.means[0] = torch.as_tensor(state.geometry.focus, dtype=torch.float32)
        state.gaussians.means[1] = 12.0
    factor = events.importance(state.gaussians)
    assert factor[0] == 1.0 and factor[1] < 1e-3


def test_colour_is_constant_first_then_of_degree_one(state):
    settings = phase(sh_from=30)
    state.iteration = 29
    assert settings.sh_degree(state) == 0
    state.iteration = 30
    assert settings.sh_degree(state) == 1


@pytest.mark.parametrize(("width", "height", "expected"), [(64, 48, 60), (400, 350, 84), (4000, 3000, 240)])
def test_large_photos_get_more_seeds_up_to_four_times(state, width, height, expected):
    cameras = [replace(camera, width=width, height=height) for camera in state.scene.train_cameras]
    state.scene = replace(state.scene, train_cameras=cameras)
    assert seed_count(state, "--main_seeds", 60) == expected
    state.config = replace(state.config, given=("--main_seeds",))
    assert seed_count(state, "--main_seeds", 60) == 60
