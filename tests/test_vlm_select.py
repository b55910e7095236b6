# SPDX-License-Identifier: Apache-2.0
"""The views that are shown cover what is wrong and do not repeat one another."""

import numpy as np
import pytest

from vlm.select import choose, cover, covered_need, gafs, gafs_auto, pose_distances, uniform


def orbit(count: int) -> np.ndarray:
    """Poses on a circle of radius 3 that look at the middle."""
    poses = np.zeros((count, 4, 4))
    for k, angle in enumerate(2 * np.pi * np.arange(count) / count):
        forward = -np.array([np.cos(angle), np.sin(angle), 0])
        right = np.cross(forward, [0, 0, 1.0])
        rotation = np.stack([right, np.cross(forward, right), forward])
        poses[k] = np.eye(4)
        poses[k, :3, :3], poses[k, :3, 3] = rotation, -rotation @ (-3 * forward)
    return poses


def scattered(views: int, gaussians: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.exponential(size=gaussians), rng.random((views, gaussians)) * (rng.random((views, gaussians)) < 0.2)


def test_distances_are_those_of_an_orbit():
    distances = pose_distances(orbit(8))
    np.testing.assert_allclose(np.diag(distances), 0, atol=1e-6)
    np.testing.assert_allclose(distances[0, 2], np.sqrt(2) + np.pi / 2)
    np.testing.assert_allclose(distances[0, 4], 2 + np.pi)


def test_distances_do_not_depend_on_the_unit_of_length():
    poses = orbit(8)
    poses[:, :3, 3] *= 50
    np.testing.assert_allclose(pose_distances(poses), pose_distances(orbit(8)), atol=1e-6)


def test_cover_is_within_its_bound_of_the_best_set():
    from itertools import combinations

    need, visibility = scattered(9, 40, 1)
    far = np.full((9, 9), 1.0)
    value = covered_need(need, visibility, cover(need, visibility, far, 3))
    best = max(covered_need(need, visibility, list(views)) for views in combinations(range(9), 3))
    assert value >= (1 - 1 / np.e) * best


def test_cover_beats_the_top_scores_where_need_is_in_two_places():
    need = np.ones(20)
    visibility = np.zeros((6, 20))
    visibility[:4, :12] = 1.0
    visibility[4:, 12:] = 1.0
    chosen = cover(need, visibility, np.full((6, 6), 1.0), 2)
    assert covered_need(need, visibility, chosen) == 1.0
    assert covered_need(need, visibility, [0, 1]) == pytest.approx(0.6)


def test_cover_takes_no_near_duplicate():
    need, visibility = np.ones(4), np.eye(4)
    distances = np.full((4, 4), 1.0)
    distances[0, 1] = distances[1, 0] = 0.1
    assert not {0, 1} <= set(cover(need, visibility, distances, 4))


def test_gafs_keeps_its_distance_and_follows_the_score():
    distances = pose_distances(orbit(40))
    scores = np.linspace(1, 0, 40)
    chosen = gafs(scores, distances, 6)
    apart = distances[np.ix_(chosen, chosen)] + 10 * np.eye(len(chosen))
    assert chosen[0] == 0 and apart.min() >= 0.5
    assert (np.diff(scores[chosen]) < 0).all()


def test_gafs_auto_finds_the_threshold_that_still_gives_enough():
    chosen = gafs_auto(np.ones(40), pose_distances(orbit(40)), 4)
    assert len(chosen) == 4
    gaps = np.diff(sorted([*chosen, chosen[0] + 40])) if chosen else []
    assert min(np.diff(sorted(chosen))) >= 8 and max(gaps) >= 8


def test_gafs_auto_shows_nothing_that_is_not_worth_it():
    scores = np.array([1.0, 0.9, 0.7, 0.1, 0.1])
    assert set(gafs_auto(scores, np.ones((5, 5)), 5)) <= {0, 1, 2}


@pytest.mark.parametrize("mode", ["cover", "gafs", "gafs_auto", "uniform"])
@pytest.mark.parametrize(("views", "count"), [(1, 16), (3, 16), (30, 5)])
def test_every_rule_gives_different_views_and_never_too_many(mode, views, count):
    need, visibility = scattered(views, 50, 3)
    chosen = choose(mode, need, visibility, orbit(views), count)
    assert 1 <= len(chosen) <= min(views, count) and len(set(chosen)) == len(chosen)
    assert all(0 <= view < views for view in chosen)


def test_a_scene_without_any_error_has_views_all_the_same():
    assert len(choose("cover", np.zeros(5), np.ones((4, 5)), orbit(4), 2)) >= 1


def test_uniform_spans_the_capture():
    assert uniform(100, 3) == [0, 50, 99] and uniform(2, 2) == [0, 1]
