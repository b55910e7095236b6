# SPDX-License-Identifier: Apache-2.0
"""A value that is not finite ends the run at once, with iteration and name; the last checkpoint stays good."""

import pytest
import torch

import train
from phases.milestones import Milestones
from phases.schedule import schedule
from tests import tiny
from utils import checkpoint
from utils.errors import UserError
from utils.finite import check_finite

PLAIN = {"iterations": 12, "phases": "none", "checkpoint_every": 5}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor([0.0, float("nan")])])
def test_what_is_not_finite_is_named(value):
    with pytest.raises(UserError, match=r"iteration 7: .*\bb\b.*(nan|inf|not finite)"):
        check_finite(7, {"a": 1.0, "n": None, "b": value})


def test_large_values_and_whole_numbers_pass():
    check_finite(
        1,
        {"sum overflows": torch.full((9,), 3e38), "labels": torch.ones(3, dtype=torch.uint8), "empty": torch.zeros(0)},
    )


@pytest.mark.parametrize(
    ("name", "at", "said"),
    [
        ("means", 8, "iteration 10: 3 of .* values of means are not finite"),
        ("sh_rest.exp_avg", 8, "iteration 10: 45 of .* values of sh_rest are not finite"),
    ],
)
def test_a_run_stops_and_its_last_checkpoint_is_good(tmp_path, monkeypatch, name, at, said):
    settings = tiny.config(tmp_path / "M", data={"source": tmp_path / "S"}, **PLAIN)
    state = tiny.state(tmp_path / "M", settings)
    plan = schedule(settings, {})
    milestones = Milestones(state, plan)
    with pytest.raises(UserError, match=said):
        for phase in plan.steps(state):
            losses = train.train_step(state, phase)
            if state.iteration == at:
                state.gaussians.rows[name].detach()[0] = float("nan")
            milestones.after_step(phase, losses)
    newest, *_ = checkpoint.checkpoints(tmp_path / "M").values()
    saved = checkpoint.load(newest)
    assert saved.iteration == 5
    assert all(rows.isfinite().all() for rows in saved.payload["state"]["rows"].values())


def test_a_loss_that_is_not_finite_moves_nothing(tmp_path):
    settings = tiny.config(tmp_path / "M", **PLAIN)
    state = tiny.state(tmp_path / "M", settings)
    (phase,) = schedule(settings, {}).phases
    before = state.gaussians.means.detach().clone()
    phase.loss = lambda *_: {"image": state.gaussians.means.sum() * float("inf")}
    with pytest.raises(UserError, match="iteration 1: loss image is"):
        train.train_step(state, phase)
    assert torch.equal(state.gaussians.means.detach(), before)


def test_a_gradient_that_is_not_finite_moves_nothing(tmp_path):
    settings = tiny.config(tmp_path / "M", **PLAIN)
    state = tiny.state(tmp_path / "M", settings)
    (phase,) = schedule(settings, {}).phases
    before = state.gaussians.log_scales.detach().clone()
    phase.loss = lambda *_: {"image": (state.gaussians.log_scales * 0).pow(0.5).sum()}
    with pytest.raises(UserError, match=r"iteration 1: .* values of gradient of log_scales"):
        train.train_step(state, phase)
    assert torch.equal(state.gaussians.log_scales.detach(), before)
