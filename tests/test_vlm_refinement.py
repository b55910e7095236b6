# SPDX-License-Identifier: Apache-2.0
"""Phase 2 on a tiny world with a known defect: found, carried into every view, refined, written down, resumable."""

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tiny
import torch

from arguments import DetectorConfig
from phases.closer_look import part_round_region
from phases.holes import hole_masks, seed_holes
from phases.inspection import choose_views, still_wrong, survey
from phases.lifting import Mark, lift, look_at_view, shown
from phases.schedule import PhaseSchedule
from phases.state import Step
from phases.vlm_refinement import VlmRefinement
from scene.gaussian_model import Label
from scene.photos import Photo
from train import train_step
from vlm.defects import Box
from vlm.residual import ResidualDetector

DEFECT = slice(0, 12)
"""Gaussians of the ball that have a wrong colour; they lie together."""


def damaged(path, detector: str = "residual", iterations: int = 30, **options):
    """A state whose Gaussians are the world's, but for a patch of the ball that is of another colour."""
    settings = replace(
        tiny.config(path, iterations=iterations, optim={"keep_share": 1.0}),
        detector=DetectorConfig(detector=detector, **options),
    )
    state = tiny.state(path, settings)
    world = {name: value.detach().clone() for name, value in tiny.world().parameters().items()}
    order = torch.cat([world["means"][:80, 0].argsort(descending=True), torch.arange(80, 240)])
    world = {name: value[order] for name, value in world.items()}
    world["sh_dc"][DEFECT] = torch.tensor([1.7, -1.7, 1.7])
    state.gaussians.rows.gather_append(torch.zeros(0, dtype=torch.int64), world)
    state.density.update_reach(state.gaussians)  # rows stay where they are: tests find them by number
    return state


def phase(length: int = 30, **settings) -> VlmRefinement:
    vlm = VlmRefinement(**({"views": 4, "rounds": 2} | settings))
    vlm.start, vlm.length = 1, length
    return vlm


def run(state, vlm, until: int | None = None):
    for _ in PhaseSchedule([vlm]).steps(state):
        train_step(state, vlm)
        if state.iteration == until:
            break


def summary(path, number: int = 1) -> dict:
    return json.loads((path / "vlm" / f"round_{number}" / "summary.json").read_text())


def records(path, number: int = 1) -> list[dict]:
    return [json.loads(line) for line in (path / "vlm" / f"round_{number}" / "audit.jsonl").read_text().splitlines()]


@pytest.fixture
def state(tmp_path):
    return damaged(tmp_path / "run")


def seen_defect(state, index: int) -> torch.Tensor:
    """Where a view really shows the damaged Gaussians, [H, W] bool."""
    values = torch.zeros(len(state.gaussians))
    values[DEFECT] = 1
    return shown(state, state.scene.train_cameras[index], values) > 0.3


def boxed(state, index: int) -> Mark:
    rows, columns = torch.nonzero(seen_defect(state, index), as_tuple=True)
    return Mark(index, Box(float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1))


def views_of_the_defect(state) -> list[int]:
    pixels = [int(seen_defect(state, k).sum()) for k in range(len(state.scene.train_cameras))]
    return sorted(range(len(pixels)), key=lambda k: -pixels[k])


def test_need_lies_where_the_error_is(state):
    need, visibility = survey(state)
    assert need[DEFECT].mean() > 5 * need[80:].mean()
    assert visibility.shape == (9, len(need)) and visibility.max() == 1


def test_what_masks_hide_is_neither_needed_nor_shown_nor_accepted(tmp_path, state):
    bare, _ = survey(state)
    hidden, cameras = [], []
    for index, camera in enumerate(state.scene.train_cameras):
        hidden.append(cv2.dilate(seen_defect(state, index).numpy().astype(np.uint8), np.ones((9, 9))) > 0)
        rgb = (camera.image().permute(1, 2, 0) * 255 + 0.5).to(torch.uint8).numpy()
        cameras.append(replace(camera, photo=Photo.in_memory(rgb, ~hidden[-1])))
    state.scene = replace(state.scene, train_cameras=tuple(cameras))
    need, _ = survey(state)
    assert need[DEFECT].mean() < 0.1 * bare[DEFECT].mean()
    for index in range(len(cameras)):
        look = look_at_view(state, index)
        assert torch.equal(look.photo[:, hidden[index]], look.render[:, hidden[index]])
    phase(rounds=1).on_start(state)
    places = {camera.name: index for index, camera in enumerate(cameras)}
    for record in records(tmp_path / "run"):
        boxes = [Box(*box["bbox"]) for box in record["boxes"] if box["accepted"]]
        assert not any(hidden[places[record["view"]]][box.cut(36, 48)].mean() > 0.5 for box in boxes)


def test_the_first_view_shown_sees_the_defect(state):
    chosen, covered = choose_views(state, ResidualDetector(3), "cover", 2)
    assert seen_defect(state, chosen[0]).sum() > 0 and covered > 0.3


def test_boxes_of_two_views_single_out_the_defect_in_3d(state):
    views = views_of_the_defect(state)[:2]
    values = lift(state, [boxed(state, k) for k in views], {k: look_at_view(state, k) for k in views})
    assert values[DEFECT].max() > 0.6
    front = values[:80]
    assert front[DEFECT].mean() > 4 * front[40:].mean()
    assert values[80:].max() < 0.35, "the wall behind the box came along"


def test_views_are_chosen_in_a_scene_that_has_become_empty(state):
    state.gaussians.keep(torch.zeros(len(state.gaussians), dtype=torch.bool))
    need, visibility = survey(state)
    assert need.shape == (0,) and visibility.shape == (len(state.scene.train_cameras), 0)
    chosen, _ = choose_views(state, SimpleNamespace(views=lambda: None), "cover", 3)
    assert len(chosen) <= 3


def test_what_one_photo_says_against_all_others_is_not_refined(state):
    witness = views_of_the_defect(state)[0]
    alone = [
        camera if index == witness else tiny.photographed(camera, state.gaussians)
        for index, camera in enumerate(state.scene.train_cameras)
    ]
    masked, where = {}, seen_defect(state, witness)
    for name, cameras in (("all", state.scene.train_cameras), ("one", tuple(alone))):
        state.scene = replace(state.scene, train_cameras=cameras)
        vlm = phase()
        vlm._marks = [boxed(state, witness)]
        vlm._mark_scene(state, {witness: look_at_view(state, witness)})
        masked[name] = vlm._masks[witness][where].float().mean() / 255 if witness in vlm._masks else 0.0
    assert masked["all"] > 0.2 and masked["one"] < masked["all"] / 4


def test_masks_reach_views_that_nobody_inspected(state):
    first, second, unseen = views_of_the_defect(state)[:3]
    looks = {k: look_at_view(state, k) for k in (first, second)}
    values = lift(state, [boxed(state, first), boxed(state, second)], looks)
    mask, truth = shown(state, state.scene.train_cameras[unseen], values), seen_defect(state, unseen)
    assert mask[truth].mean() > 5 * mask[~truth].mean()


def test_holes_are_seeded_at_the_depth_round_them(state):
    keep = torch.ones(len(state.gaussians), dtype=torch.bool)
    keep[80:] = False
    state.gaussians.keep(keep)
    state.density.finish(state)
    index = views_of_the_defect(state)[0]
    looks, marks = {index: look_at_view(state, index)}, [Mark(index, Box(16, 6, 32, 30))]
    assert hole_masks(marks, looks)[index].any()
    masked = {index: replace(looks[index], seen=np.zeros_like(looks[index].seen))}
    assert not hole_masks(marks, masked), "where the photo is masked out there is no hole"
    before = len(state.gaussians)
    count = seed_holes(state, marks, looks, 50)
    assert 0 < count <= 50 and len(state.gaussians) == before + count
    assert (state.gaussians.labels[before:] == Label.REFINED).all()
    camera = state.scene.train_cameras[index]
    pose = torch.from_numpy(camera.camera_from_world).float()
    there = state.gaussians.means.detach()[before:] @ pose[:3, :3].T + pose[:3, 3]
    assert (there[:, 2] > 2).all() and (there[:, 2] < 5).all()
    u = camera.fx * there[:, 0] / there[:, 2] + camera.cx
    assert (u > 16).all() and (u < 32).all()


def test_refining_lowers_the_error_inside(tmp_path):
    state = damaged(tmp_path / "run", iterations=80)
    run(state, phase(rounds=1, length=80))
    figures = summary(tmp_path / "run")
    before, after = figures["before"]["train"], figures["after"]["train"]
    assert figures["inspection"]["accepted"] > 0 and before["inside"] > 3 * before["outside"]
    assert after["inside"] < 0.85 * before["inside"]
    assert figures["after"]["held_out"]["inside"] < figures["before"]["held_out"]["inside"]
    assert "seconds" not in figures["inspection"]
    masks = [cv2.imread(str(path), 0) for path in (tmp_path / "run" / "vlm" / "round_1" / "held_out").iterdir()]
    assert masks and all(mask.max() > 0 for mask in masks)
    assert sum(name.startswith("held_out 0") for name in figures["before"]) == len(masks)


def test_every_box_is_written_down_with_its_verdict(tmp_path, state):
    run(state, phase())
    for number in (1, 2):
        for record in records(tmp_path / "run", number):
            assert record["detector"] == "residual" and "VLM" not in record["model"]
            assert all(isinstance(box["accepted"], bool) and box["reason"] for box in record["boxes"])
            assert all(
                (tmp_path / "run" / "vlm" / f"round_{number}" / f).is_file() for f in record["pictures"].values()
            )


def test_a_part_lies_round_a_pixel_of_the_region_and_in_the_view():
    mask = torch.zeros(36, 48, dtype=torch.uint8)
    mask[2, 3] = mask[30, 40] = 100
    parts = [part_round_region(mask, str(number)) for number in range(20)]
    places = {(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in parts}
    assert places == {(0, 18, 0, 24), (18, 36, 24, 48)}


def test_a_part_of_a_view_shows_what_the_whole_one_does(state):
    camera = state.scene.train_cameras[1]
    rows, columns = slice(5, 23), slice(17, 41)
    with torch.no_grad():
        whole, part = state.render(camera).image, state.render(camera.part(rows, columns)).image
    torch.testing.assert_close(part, whole[:, rows, columns], atol=1e-5, rtol=0)


def test_a_closer_look_counts_the_regions_more_than_the_rest(state, monkeypatch):
    vlm, camera = phase(weight=3.0, looks=1), state.scene.train_cameras[2]
    vlm._masks = {2: torch.zeros(36, 48, dtype=torch.uint8)}
    vlm._masks[2][18, 24] = 255
    drawn = torch.ones(3, 18, 24, requires_grad=True)
    monkeypatch.setattr(state, "draw", lambda view, background, dropout: SimpleNamespace(image=drawn))
    monkeypatch.setattr(vlm, "photo_terms", lambda state, look, weight: {"": (weight * look.output.image).mean()})
    vlm._closer_look(state, SimpleNamespace(iteration=1, camera=camera)).backward()
    assert drawn.grad[0, 9, 12].item() == pytest.approx(4 * drawn.grad[0, 0, 0].item())
    assert drawn.grad.mean().item() == pytest.approx(1 / drawn.numel()), "one view's weight in all"


def test_a_closer_look_minimises_what_every_step_does(state):
    """With no more weight inside than outside it is those parts' mean loss."""
    vlm, camera = phase(weight=0.0, looks=3), state.scene.train_cameras[2]
    vlm._masks = {2: torch.zeros(36, 48, dtype=torch.uint8)}
    vlm._masks[2][18, 24] = 255
    state.iteration = state.config.run.iterations
    cut = (slice(9, 27), slice(12, 36))
    output = state.draw(camera.part(*cut), state.fixed_background(), dropout=vlm.dropout(state))
    terms = vlm.photo_terms(state, Step(1, camera, camera.image()[:, *cut], None, output), None)
    assert set(terms) == {"image", "squares"}
    look = vlm._closer_look(state, SimpleNamespace(iteration=1, camera=camera))
    assert look.item() == pytest.approx(sum(terms.values()).item(), rel=1e-5)


def test_every_view_with_regions_is_looked_at(state, monkeypatch):
    vlm, looks = phase(looks=2), Counter()
    vlm._masks = {index: torch.full((36, 48), 255, dtype=torch.uint8) for index in (0, 3, 5)}

    def draw(view, background, dropout):
        looks[view.name] += 1
        return SimpleNamespace(image=torch.zeros(3, view.height, view.width))

    monkeypatch.setattr(state, "draw", draw)
    for iteration in range(90):
        [(camera, _)] = state.next_views()
        vlm._closer_look(state, SimpleNamespace(iteration=iteration, camera=camera))
    assert set(looks) == {state.scene.train_cameras[index].name for index in vlm._masks}
    assert sum(looks.values()) == 180 and min(looks.values()) > 30


def test_without_a_detector_nothing_is_weighted_or_recorded(tmp_path):
    state = damaged(tmp_path / "run", "none")
    vlm = phase()
    run(state, vlm)
    assert not vlm._masks and not (tmp_path / "run" / "vlm").exists()


def test_a_placebo_refines_as_many_boxes_elsewhere(tmp_path):
    run(damaged(tmp_path / "placebo", "placebo"), phase())
    run(damaged(tmp_path / "run"), phase())
    placebo, real = summary(tmp_path / "placebo")["inspection"], summary(tmp_path / "run")["inspection"]
    assert placebo["accepted"] == real["accepted"]
    assert {r["detector"] for r in records(tmp_path / "placebo")} == {"placebo"}


@pytest.mark.parametrize("detector", ["residual", "placebo"])
def test_a_replay_is_the_same_run(tmp_path, detector):
    first = damaged(tmp_path / "first", detector)
    run(first, phase())
    again = damaged(tmp_path / "again", "replay", vlm_replay=tmp_path / "first")
    run(again, phase())
    for name, value in first.gaussians.parameters().items():
        assert torch.equal(value, again.gaussians.parameters()[name]), name


@pytest.mark.parametrize("at", [7, 15, 24])
def test_a_run_that_is_resumed_ends_in_the_same_bits(tmp_path, at):
    whole = damaged(tmp_path / "whole")
    run(whole, phase())
    part, vlm = damaged(tmp_path / "part"), phase()
    run(part, vlm, until=at)
    saved = {"state": part.state_dict(), "phase": vlm.state_dict()}
    torch.save(saved, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    resumed, vlm = (
        tiny.state(
            tmp_path / "other", replace(part.config, run=replace(part.config.run, model_path=tmp_path / "other"))
        ),
        phase(),
    )
    (tmp_path / "part" / "vlm").rename(tmp_path / "other" / "vlm")
    resumed.load_state_dict(saved["state"])
    vlm.load_state_dict(saved["phase"])
    run(resumed, vlm)
    for name, value in whole.gaussians.parameters().items():
        assert torch.equal(value, resumed.gaussians.parameters()[name]), name
    for number in (1, 2):
        assert records(tmp_path / "other", number) == records(tmp_path / "whole", number)
        assert summary(tmp_path / "other", number) == summary(tmp_path / "whole", number)


def test_regions_that_are_fixed_leave_the_list(state):
    mark = boxed(state, views_of_the_defect(state)[0])
    assert still_wrong(state, [mark], {}) == [mark]
    world = tiny.world()
    with torch.no_grad():
        state.gaussians.sh_dc[:80] = world.sh_dc[world.means[:80, 0].argsort(descending=True)]
    assert still_wrong(state, [mark], {}) == []


class Silent:
    """A detector that finds nothing, or whose calls fail."""

    name, model, judged = "qwen", "none", True

    def __init__(self, error: str) -> None:
        self.error = error

    def views(self):
        return None

    def detect(self, view, render, photo):
        from vlm.defects import DetectionResult

        return DetectionResult(error=self.error)


@pytest.mark.parametrize("error", ["", "out of memory"])
def test_an_empty_round_is_a_round_and_a_failed_call_is_reported(tmp_path, state, monkeypatch, error):
    from contextlib import nullcontext

    monkeypatch.setattr("phases.vlm_refinement.open_detector", lambda *_, **__: nullcontext(Silent(error)))
    run(state, phase())
    assert summary(tmp_path / "run")["inspection"]["failed"] == (4 if error else 0)
    assert summary(tmp_path / "run")["inspection"]["accepted"] == 0
    assert {record["error"] for record in records(tmp_path / "run")} == {error}


def test_the_number_of_gaussians_stays_within_the_cap(tmp_path):
    state = damaged(tmp_path / "run")
    state.density.target = len(state.gaussians)
    run(state, phase())
    assert len(state.gaussians) <= state.density.target + phase().seeds
    assert np.isfinite(state.gaussians.means.detach().numpy()).all()
