# SPDX-License-Identifier: Apache-2.0
"""What a phase's loss is made of, and when."""

from dataclasses import replace

import pytest
import tiny
import torch

from arguments import OptimConfig
from phases.ambient import Ambient
from phases.fastgs import FastGS
from phases.state import Step

WEIGHT = OptimConfig().lambda_square


def a_step(state, mask=None):
    camera = state.scene.train_cameras[0]
    photo, _ = state.photo(camera)
    return Step(state.iteration, camera, photo, mask, state.render(camera, count_mask=mask))


def test_squared_errors_count_from_the_keeping_on_and_in_plain_fastgs_only_when_asked(tmp_path):
    state = tiny.state(tmp_path / "run")
    state.iteration = 39
    assert "squares" not in Ambient().loss(state, a_step(state)), "densification goes by the size of gradients"
    state.iteration = 40
    assert Ambient().square(state) == WEIGHT and "squares" not in FastGS().loss(state, a_step(state))
    config = replace(tiny.config(tmp_path / "given", optim={"lambda_square": 2.0}), given=("--lambda_square",))
    given = tiny.state(tmp_path / "given", config)
    given.iteration = 40
    assert Ambient().square(given) == FastGS().square(given) == 2
    none = tiny.state(tmp_path / "none", tiny.config(tmp_path / "none", optim={"lambda_square": 0.0}))
    none.iteration = 40
    assert "squares" not in Ambient().loss(none, a_step(none))


def test_squared_errors_are_of_the_pixels_that_count(tmp_path):
    state = tiny.state(tmp_path / "run")
    state.iteration = 40
    step = a_step(state)
    squares = (step.output.image - step.target).square().mean(0)
    assert Ambient().loss(state, step)["squares"].item() == pytest.approx(WEIGHT * squares.mean().item(), rel=1e-6)
    left = torch.zeros_like(squares)
    left[:, : left.shape[1] // 2] = 1
    masked = Ambient().loss(state, a_step(state, left))["squares"].item()
    assert masked == pytest.approx(WEIGHT * squares[left > 0].mean().item(), rel=1e-5)


def test_the_opacity_of_what_is_in_view_counts_from_the_keeping_on(tmp_path):
    state = tiny.state(tmp_path / "run")
    state.iteration = 39
    assert "opacity" not in Ambient().loss(state, a_step(state)), "what is to be grown must not fade"
    state.iteration = 40
    with torch.no_grad():
        state.gaussians.means[::2] = torch.from_numpy(state.scene.train_cameras[0].position).float()  # in no view
    step = a_step(state)
    assert 0 < step.output.visible.sum() < len(state.gaussians)
    term = Ambient().loss(state, step)["opacity"]
    (gradient,) = torch.autograd.grad(term, state.gaussians.logit_opacities)
    assert torch.equal(gradient[:, 0] > 0, step.output.visible), "nothing could weigh against it elsewhere"
    weight = OptimConfig().opacity_reg / len(state.gaussians)
    assert term.item() == pytest.approx(weight * state.gaussians.opacities[step.output.visible].sum().item(), rel=1e-5)


def test_opacities_beneath_a_mask_do_not_count(tmp_path):
    state = tiny.state(tmp_path / "run")
    state.iteration = 40
    mask = torch.zeros_like(a_step(state).target[0])
    mask[: mask.shape[0] // 3] = 1
    step = a_step(state, mask)
    (gradient,) = torch.autograd.grad(Ambient().loss(state, step)["opacity"], state.gaussians.logit_opacities)
    assert torch.equal(gradient[:, 0] > 0, step.output.counts > 0)
    assert 0 < (step.output.counts > 0).sum() < step.output.visible.sum()


def test_plain_fastgs_has_the_opacity_term_only_when_asked(tmp_path):
    config = replace(tiny.config(tmp_path / "given", optim={"opacity_reg": 0.5}), given=("--opacity_reg",))
    given = tiny.state(tmp_path / "given", config)
    none = tiny.state(tmp_path / "none", tiny.config(tmp_path / "none", optim={"opacity_reg": 0.0}))
    for state in (given, none):
        state.iteration = 40
    assert Ambient().opacity_reg(given) == FastGS().opacity_reg(given) == 0.5
    assert "opacity" not in Ambient().loss(none, a_step(none)) and FastGS().opacity_reg(none) == 0
