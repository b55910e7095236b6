# SPDX-License-Identifier: Apache-2.0
"""A share of the Gaussians is left out of each training view, and of no other."""

import pytest
import tiny
import torch

from phases.ambient import Ambient
from phases.dropout import thinned, usual_dropout
from phases.fastgs import FastGS


def test_the_share_is_left_out_and_the_others_make_up_for_it():
    logits = torch.linspace(-6, 1, 4000)[:, None]
    thin = thinned(logits, 0.25, "a").sigmoid()
    left = thin > 1e-6
    assert left.float().mean() == pytest.approx(0.75, abs=0.03)
    assert torch.allclose(thin[left], logits.sigmoid()[left] / 0.75, rtol=1e-5)
    assert thin.mean() == pytest.approx(float(logits.sigmoid().mean()), rel=0.05)


def test_opacities_at_both_ends_have_finite_gradients():
    logits = torch.tensor([-200.0, -20.0, 0.0, 3.0, 30.0])[:, None].requires_grad_()
    thinned(logits, 0.1, "b").sum().backward()
    assert logits.grad.isfinite().all()


def test_gradients_are_those_of_the_opacities_divided():
    logits = torch.linspace(-3, 1, 50, dtype=torch.float64)[:, None].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: thinned(x, 0.2, "c"), logits)


def test_the_draw_depends_on_nothing_but_its_seed():
    logits = torch.zeros(1000, 1)
    torch.manual_seed(1)
    first = thinned(logits, 0.5, "1 17 view.jpg")
    torch.manual_seed(2)
    assert torch.equal(first, thinned(logits, 0.5, "1 17 view.jpg"))
    assert not torch.equal(first, thinned(logits, 0.5, "1 18 view.jpg"))


@pytest.mark.parametrize(("views", "share"), [(3, 0.25), (21, 0.25), (26, 0.0702), (35, 0.0118), (36, 0)])
def test_many_views_need_little(views, share):
    assert usual_dropout(views) == pytest.approx(share, rel=0.01)


def test_a_training_view_lacks_some_and_an_evaluated_one_nothing(tmp_path):
    state = tiny.state(tmp_path / "run")
    camera, black = state.scene.train_cameras[0], torch.zeros(3)
    whole, thin = state.render(camera), state.draw(camera, black, dropout=0.5)
    assert 0 < int(thin.visible.sum()) < int(whole.visible.sum())
    assert torch.equal(state.draw(camera, black, dropout=0.0).image, whole.image)


def test_phases_drop_by_the_number_of_views_and_plain_fastgs_only_when_asked(tmp_path):
    state = tiny.state(tmp_path / "run")
    state.iteration = 39
    assert Ambient().dropout(state) == 0, "what is left out would be grown again"
    state.iteration = 40
    assert Ambient().dropout(state) == usual_dropout(len(state.scene.train_cameras)) and FastGS().dropout(state) == 0
    given = tiny.state(tmp_path / "given", tiny.config(tmp_path / "given", optim={"dropout": 0.5}))
    given.iteration = 40
    assert Ambient().dropout(given) == FastGS().dropout(given) == 0.5
    none = tiny.state(tmp_path / "none", tiny.config(tmp_path / "none", optim={"dropout": 0.0}))
    none.iteration = 40
    assert Ambient().dropout(none) == 0
