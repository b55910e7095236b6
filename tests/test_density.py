# SPDX-License-Identifier: Apache-2.0
"""Densification and pruning do what FastGS says, to the right rows."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from simple_knn import along_a_curve

from phases.density import Events, keeping, rotate
from phases.lifting import carried
from phases.scores import normalised, removal_costs, score_gaussians
from scene.gaussian_model import Label
from scene.photos import Photo


@pytest.fixture
def state(tmp_path):
    return tiny.state(tmp_path / "run")


def mark(state, *, gradient=0.0, absolute=0.0):
    state.gaussians.rows["seen"].fill_(1)
    state.gaussians.rows["grad_sum"].fill_(gradient)
    state.gaussians.rows["abs_grad_sum"].fill_(absolute)


def test_small_rows_with_a_large_gradient_are_cloned_exactly(state):
    model = state.gaussians
    model.rows["log_scales"].detach().fill_(-20)
    before = model.means.detach().clone()
    mark(state, gradient=1.0)
    state.density.grow(state, torch.arange(len(model)) < 3)
    assert len(model) == len(before) + 3
    assert torch.equal(model.means.detach(), torch.cat([before, before[:3]]))


def test_large_rows_with_a_large_absolute_gradient_become_two_smaller_ones(state):
    model = state.gaussians
    parents = model.means.detach().clone()
    model.rows["log_scales"].detach().fill_(0.0)
    mark(state, absolute=1.0)
    state.density.grow(state, torch.arange(len(model)) < 2)
    children = model.log_scales.detach()[-4:]
    assert len(model) == len(parents) + 2
    assert torch.allclose(children, torch.log(torch.tensor(1 / 1.6)).expand(4, 3))
    assert not (model.means.detach()[:, None] == parents[None, :2]).all(-1).any()


def test_rows_that_changed_are_brought_into_the_order_of_a_curve(state):
    model = state.gaussians

    def colours():
        return dict(zip(map(tuple, model.means.tolist()), model.sh_dc.flatten(1).tolist(), strict=True))

    before = colours()
    state.density.finish(state)
    assert (along_a_curve(model.means.detach()).diff() >= 0).all()
    assert before == colours() and len(before) == len(model)


def test_rows_that_are_not_wanted_stay_alone(state):
    before = len(state.gaussians)
    mark(state, gradient=1.0, absolute=1.0)
    state.density.grow(state, torch.zeros(before, dtype=torch.bool))
    assert len(state.gaussians) == before


def test_labels_and_births_survive_clone_split_and_prune(state):
    model = state.gaussians
    count = len(model)
    model.rows["label"].copy_(torch.arange(count) % 3)
    model.rows["birth"].copy_(torch.arange(count))
    model.rows["sh_dc"].detach()[:, 0, 0] = torch.arange(count)
    model.rows["log_scales"].detach()[: count // 2] = -20
    mark(state, gradient=1.0, absolute=1.0)
    state.density.grow(state, torch.arange(count) % 5 != 0)
    model.keep(torch.rand(len(model), generator=state.generator) > 0.3)
    ancestor = model.sh_dc.detach()[:, 0, 0]
    assert torch.equal(model.labels.float(), ancestor % 3)
    assert torch.equal(model.births.float(), ancestor)


def test_new_rows_have_no_momentum_and_old_rows_keep_theirs(state):
    model = state.gaussians
    model.rows["means.exp_avg"].fill_(3.0)
    model.rows["log_scales"].detach().fill_(-20)
    count = len(model)
    mark(state, gradient=1.0)
    state.density.grow(state, torch.ones(count, dtype=torch.bool))
    assert (model.rows["means.exp_avg"][:count] == 3).all()
    assert (model.rows["means.exp_avg"][count:] == 0).all()


def test_half_of_the_faint_go_and_they_are_the_most_blamed(state):
    model = state.gaussians
    state.iteration = 50
    model.rows["logit_opacities"].detach()[:10] = -9.0
    blame = torch.linspace(0, 1, len(model))
    model.rows["blame"].copy_(blame)
    model.rows["sh_dc"].detach()[:, 0, 0] = torch.arange(len(model))
    state.density._prune(state, blame, len(model))
    gone = set(range(100)) - set(model.sh_dc.detach()[:, 0, 0].int().tolist())
    assert gone == {5, 6, 7, 8, 9}


def test_of_equal_blame_the_fainter_go_wherever_their_rows_are(state):
    model = state.gaussians
    order = torch.randperm(len(model), generator=torch.Generator().manual_seed(0)).float()
    model.rows["logit_opacities"].detach()[:, 0] = -20 - order
    state.iteration = 10_000
    state.density._prune(state, torch.zeros(len(model)), len(model))
    assert model.logit_opacities.min() == -20 - (len(order) // 2 - 1)


def test_young_rows_are_not_pruned_for_being_faint(state):
    state.iteration = 50
    model = state.gaussians
    model.rows["logit_opacities"].detach().fill_(-3.0)
    model.rows["birth"].fill_(49)
    state.density.late_prune(state)
    assert len(model) >= 99  # the most blamed row goes whatever its age


def test_the_keeping_goes_down_in_equal_proportions_to_the_share_of_what_is_there(tmp_path):
    state = tiny.state(
        tmp_path / "run", tiny.config(tmp_path / "run", optim={"keep_share": 0.16}, phases="main,ambient")
    )
    events, counts = Events(keep=(3, 5, 7, 9)), []
    state.gaussians.keep(torch.arange(100) < 50)  # what went before the keeping began does not count
    for state.iteration in range(1, 11):
        state.density.after_step(state, events)
        counts.append(len(state.gaussians))
    assert counts == [50, 50, 32, 32, 20, 20, 13, 13, 8, 8]
    assert state.density.room(state.gaussians) == 0


def test_a_checkpoint_from_when_the_peak_was_remembered_keeps_its_share_of_that(tmp_path):
    state = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", optim={"keep_share": 0.25}))
    state.density.load_state_dict({"peak": 160, "target": None})
    state.density.keep_needed(state)
    assert len(state.gaussians) == 40


def test_a_keeping_that_cannot_begin_earlier_happens_at_once(tmp_path):
    spread = tiny.config(tmp_path / "run", iterations=1000, optim={"keep_from": 0.4, "keep_at": 0.55})
    at_once = tiny.config(tmp_path / "run", iterations=1000, optim={"keep_from": 0.4, "keep_at": 0.3})
    assert keeping(spread) == (400, 450, 500, 550)
    assert keeping(at_once) == (300,)


def test_keeping_takes_what_the_views_need_most(tmp_path):
    state = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", optim={"cap_max": 30}, phases="main,ambient"))
    model = state.gaussians
    model.rows["logit_opacities"].detach()[::2] = -9.0
    state.density.keep_needed(state)
    assert len(model) == 30
    assert (model.opacities > 0.05).all()


def test_what_is_held_in_reserve_stays_where_the_regions_are(tmp_path):
    left = {}
    for weight in (0.0, 30.0):
        state = tiny.state(tmp_path / f"run {weight}", tiny.config(tmp_path / f"run {weight}", optim={"cap_max": 30}))
        state.density.keep_needed(state)
        assert len(state.gaussians) == 48 and state.density.room(state.gaussians) == 0
        regions = {}
        for index, camera in enumerate(state.scene.train_cameras):
            regions[index] = torch.zeros(camera.height, camera.width, dtype=torch.uint8)
            regions[index][:, : camera.width // 3] = 255
        state.density.spend_reserve(state, regions, weight)
        assert len(state.gaussians) == 30 and state.density.room(state.gaussians) == 0
        views = state.scene.train_cameras
        left[weight] = sum(carried(state, views[k], mask / 255)[0].sum() for k, mask in regions.items())
        state.density.spend_reserve(state, regions, weight)
        assert len(state.gaussians) == 30, "there is one reserve"
    assert left[30.0] > 1.02 * left[0.0]


@pytest.mark.parametrize(
    ("phases", "iterations", "held"), [("main,ambient,vlm", None, 48), ("main,ambient,vlm", 0, 30), ("main", None, 30)]
)
def test_nothing_is_held_in_reserve_where_nothing_will_be_inspected(tmp_path, phases, iterations, held):
    config = tiny.config(tmp_path / "run", optim={"cap_max": 30}, phases=phases)
    config.phases["vlm"]["iterations"] = iterations
    state = tiny.state(tmp_path / "run", config)
    state.density.keep_needed(state)
    assert len(state.gaussians) == held


def squared_changes(state, worth):
    """What each Gaussian's absence does to the views, by drawing them without it."""
    changes = torch.zeros(len(state.gaussians))
    with torch.no_grad():
        logits = state.gaussians.logit_opacities.detach()
        for camera in state.scene.train_cameras:
            whole = state.render(camera).image
            for index in range(len(changes)):
                without = logits.clone()
                without[index] = -20
                change = state.render(camera, logit_opacities=without).image - whole
                changes[index] += (change.square() * worth(camera)).sum()
    return changes


@pytest.mark.parametrize("weight", [0.0, 10.0])
def test_a_removal_costs_the_squared_change_of_all_views_and_that_of_regions_more(state, monkeypatch, weight):
    monkeypatch.setattr("phases.scores.PROBES", 1000)
    monkeypatch.setattr("phases.scores.UNCLAMPED", 1.0)
    state.gaussians.rows["logit_opacities"].detach().clamp_(max=1.0)
    camera = state.scene.train_cameras[0]
    left = torch.zeros(camera.height, camera.width)
    left[:, : camera.width // 2] = 1
    expected = squared_changes(state, lambda view: 1 + weight * left * (view is camera))
    assert (expected > 0).sum() > 50
    costs = removal_costs(state, {0: (255 * left).to(torch.uint8)}, weight).float()
    torch.testing.assert_close(costs, expected, rtol=0.3, atol=1e-3 * expected.max().item())


def test_what_photos_mask_out_may_change_for_nothing(state, monkeypatch):
    monkeypatch.setattr("phases.scores.PROBES", 1000)
    monkeypatch.setattr("phases.scores.UNCLAMPED", 1.0)
    state.gaussians.rows["logit_opacities"].detach().clamp_(max=1.0)
    masked = []
    for camera in state.scene.train_cameras:
        counts = np.zeros((camera.height, camera.width), bool)
        counts[:, : camera.width // 3] = True
        rgb = (camera.image().permute(1, 2, 0) * 255 + 0.5).to(torch.uint8).numpy()
        masked.append(replace(camera, photo=Photo.in_memory(rgb, counts)))
    state.scene = replace(state.scene, train_cameras=tuple(masked))
    expected = squared_changes(state, lambda view: view.mask())
    costs = removal_costs(state).float()
    torch.testing.assert_close(costs, expected, rtol=0.3, atol=1e-3 * expected.max().item())


def test_where_nothing_is_shown_a_removal_costs_nothing(state):
    state.gaussians.rows["means"].detach().fill_(500.0)
    assert (removal_costs(state) == 0).all()
    state.gaussians.keep(torch.zeros(len(state.gaussians), dtype=torch.bool))
    assert len(removal_costs(state)) == 0


def test_a_cap_is_never_exceeded_by_more_than_the_factor_of_two(tmp_path):
    state = tiny.state(tmp_path / "run", tiny.config(tmp_path / "run", optim={"cap_max": 60}))
    mark(state, gradient=1.0, absolute=1.0)
    state.density.grow(state, torch.ones(100, dtype=torch.bool))
    assert len(state.gaussians) == 120
    state.density.target = 60
    assert state.density.room(state.gaussians) == 0


def test_importance_falls_on_what_covers_the_error(state):
    """A Gaussian far outside every view can cover no wrong pixel."""
    model = state.gaussians
    model.rows["means"].detach()[0] = torch.tensor([0.0, 0, 500])
    scores = score_gaussians(state, 10)
    assert scores.importance[0] == 0
    assert scores.importance.max() > 5
    assert scores.blame.min() >= 0 and scores.blame.max() <= 1


def test_scores_of_fewer_views_than_asked_for_are_finite(tmp_path):
    state = tiny.state(tmp_path / "run", world_of=tiny.scene(4))
    assert torch.isfinite(score_gaussians(state, 10).blame).all()


def test_a_constant_error_map_is_not_divided_by_zero():
    assert torch.equal(normalised(torch.full((4,), 0.3)), torch.zeros(4))


def test_opacity_reset_caps_and_forgets(state):
    model = state.gaussians
    model.rows["logit_opacities"].detach().fill_(4.0)
    model.rows["logit_opacities.exp_avg"].fill_(1.0)
    state.density.limit_opacity(state, 0.01)
    assert torch.allclose(model.opacities, torch.tensor(0.01))
    assert (model.rows["logit_opacities.exp_avg"] == 0).all()


def test_distance_limits_scale_with_the_scene_and_faithful_ones_do_not_depend_on_distance(tmp_path):
    ours = tiny.state(tmp_path / "a")
    far = torch.tensor([[0.0, 0, 40], [0, 0, 400]])
    relative = ours.density.relative_distance(far)
    assert relative[1] / relative[0] > 9
    settings = tiny.config(tmp_path / "b", optim={"fastgs_faithful": True})
    assert torch.equal(tiny.state(tmp_path / "b", settings).density.relative_distance(far), torch.ones(2))


def test_rotation_by_quaternion_agrees_with_its_matrix(rng):
    from gaussian_renderer.reference import rotation_matrices

    quats, vectors = torch.randn(20, 4, generator=rng), torch.randn(20, 3, generator=rng)
    want = torch.einsum("nij,nj->ni", rotation_matrices(torch.nn.functional.normalize(quats, dim=1)), vectors)
    torch.testing.assert_close(rotate(quats, vectors), want)


def test_appended_rows_carry_their_label(state):
    from scene.initialization import gaussians_at

    points = torch.randn(5, 3, generator=state.generator)
    state.gaussians.append(gaussians_at(points, torch.rand(5, 3)), label=Label.AMBIENT, birth=7)
    assert state.gaussians.labels[-5:].tolist() == [1] * 5 and state.gaussians.births[-1] == 7
