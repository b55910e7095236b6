# SPDX-License-Identifier: Apache-2.0
"""The step schedule is FastGS's, scaled; gradients between steps are averaged."""

from dataclasses import replace

import pytest
import tiny
import torch

from arguments import Config, OptimConfig, RunConfig
from phases.ambient import Ambient
from phases.fastgs import FastGS
from phases.optimizer import RateFactors, StepWindows, fastgs_windows, few_views_colour


def steps_of_a_full_run() -> tuple[int, int]:
    config = Config(run=RunConfig(iterations=30_000), optim=OptimConfig())
    geometry = colour = 0
    for iteration in range(1, 30_000):
        windows = fastgs_windows(iteration, config)
        geometry += iteration % windows.geometry == 0
        colour += iteration % windows.colour == 0
    return geometry, colour


def test_a_full_run_has_the_published_number_of_steps():
    """15 000 + 157 + 156 geometry steps and 937 + 157 + 156 colour steps."""
    assert steps_of_a_full_run() == (15_313, 1_250)


def test_step_every_overrides_the_schedule():
    config = Config(optim=OptimConfig(step_every=1))
    assert fastgs_windows(29_000, config) == StepWindows(1, 1)


@pytest.mark.parametrize(("faithful", "factor"), [(False, 1.0), (True, 4.0)])
def test_gradients_of_a_window_are_averaged_or_as_published_summed(tmp_path, faithful, factor):
    state = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", optim={"fastgs_faithful": faithful}))
    rows = state.gaussians.rows
    rows["sh_dc"].grad = torch.full_like(rows["sh_dc"], 4.0)
    for iteration in (1, 2, 3, 4):
        state.optimizer.step(state.gaussians, iteration, StepWindows(4, 4))
    gradient_seen = rows["sh_dc.exp_avg"] / 0.1
    assert torch.allclose(gradient_seen, torch.full_like(gradient_seen, factor))
    assert rows["sh_dc"].grad is None


def test_a_distant_row_moves_in_proportion_to_its_reach(tmp_path):
    state = tiny.state(tmp_path / "run")
    rows = state.gaussians.rows
    rows["reach"].fill_(1.0)
    rows["reach"][0] = 10.0
    before = rows["means"].detach().clone()
    rows["means"].grad = torch.ones_like(before)
    state.optimizer.step(state.gaussians, 1, StepWindows(1, 1))
    moved = (before - rows["means"].detach())[:, 0]
    assert moved[0] / moved[1] == pytest.approx(10, rel=1e-3)


def test_the_position_rate_decays_log_linearly(tmp_path):
    optimizer = tiny.state(tmp_path / "run").optimizer
    first, middle, last = (optimizer.position_rate(i) for i in (0, 50, 100))
    assert first / last == pytest.approx(100) and middle**2 == pytest.approx(first * last)


def test_a_boost_falls_to_one_for_all_rates_but_the_positions(tmp_path):
    optimizer = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", iterations=100)).optimizer
    for iteration, factor in ((0, 4.0), (50, 2.0), (100, 1.0), (150, 1.0)):
        own, boosted = optimizer.rates(iteration), optimizer.rates(iteration, RateFactors(4.0))
        for name in own:
            assert boosted[name] / own[name] == pytest.approx(4.0 if name == "means" else factor), name


@pytest.mark.parametrize(("iterations", "boost"), [(30_000, 1), (60_000, 1), (3_750, 4), (10_607, 2), (100, 4)])
def test_phases_of_a_short_run_begin_with_higher_rates_and_plain_fastgs_does_not(tmp_path, iterations, boost):
    state = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", iterations=iterations))
    assert Ambient().rates(state).boost == pytest.approx(boost, rel=1e-3)
    assert FastGS().rates(state).boost == 1
    given = tiny.state(tmp_path / "given", tiny.config(tmp_path / "given", optim={"rate_boost": 3.0}))
    assert Ambient().rates(given).boost == FastGS().rates(given).boost == 3


def test_at_the_end_all_rates_but_the_positions_come_to_rest(tmp_path):
    optimizer = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", iterations=100)).optimizer
    for iteration, factor in ((1, 1.0), (61, 1.0), (81, 0.5), (100, 1 / 40)):
        own, resting = optimizer.rates(iteration), optimizer.rates(iteration, RateFactors(rest=0.4))
        for name in own:
            assert resting[name] / own[name] == pytest.approx(1.0 if name == "means" else factor), name


def test_a_lengthened_run_comes_to_rest_once_more_at_its_own_end(tmp_path):
    config = tiny.config(tmp_path / "run", iterations=150, schedule_iterations=100)
    optimizer = tiny.state(tmp_path / "run", config).optimizer
    for iteration, factor in ((91, 1.0), (96, 0.5), (101, 1.0), (141, 1.0), (146, 0.5)):
        own, resting = optimizer.rates(iteration), optimizer.rates(iteration, RateFactors(rest=0.1))
        assert resting["sh_dc"] / own["sh_dc"] == pytest.approx(factor)


def test_phases_come_to_rest_and_plain_fastgs_only_where_asked_to(tmp_path):
    config = tiny.config(tmp_path / "run", optim={"rate_rest": 0.2})
    assert Ambient().rates(tiny.state(tmp_path / "run", config)).rest == 0.2
    assert FastGS().rates(tiny.state(tmp_path / "plain", config)).rest == 0
    given = replace(config, given=(*config.given, "--rate_rest"))
    assert FastGS().rates(tiny.state(tmp_path / "given", given)).rest == 0.2


@pytest.mark.parametrize(("views", "factor"), [(3, 3 / 39), (13, 1 / 3), (39, 1), (1000, 1)])
def test_few_views_teach_their_view_dependent_colour_slowly(views, factor):
    assert few_views_colour(views) == pytest.approx(factor)


def test_only_the_higher_bands_are_slowed_and_only_by_phases_and_not_where_a_rate_is_given(tmp_path):
    state = tiny.state(tmp_path / "run")
    views = len(state.scene.train_cameras)
    own, slowed = (state.optimizer.rates(10, RateFactors(2.0, colour=colour)) for colour in (1.0, 0.25))
    assert slowed == own | {"sh_rest": own["sh_rest"] / 4}
    assert Ambient().rates(state).colour == few_views_colour(views) < 1 and FastGS().rates(state).colour == 1
    config = tiny.config(tmp_path / "given")
    given = replace(config, given=(*config.given, "--highfeature_lr"))
    assert Ambient().rates(tiny.state(tmp_path / "given", given)).colour == 1
