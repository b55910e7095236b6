# SPDX-License-Identifier: Apache-2.0
"""Which views to show: pure functions over arrays.

V views, M Gaussians (a sample of them will do). Need [M] is how much is wrong with a Gaussian; visibility [V, M] in
[0, 1] is a view's blend weight of it over the largest weight that any view has.
"""

from typing import Literal

import numpy as np

Select = Literal["cover", "gafs", "gafs_auto", "uniform"]

NEAR = 0.15
"""`cover` takes no view closer than this to one that it has, in the units of `pose_distances`."""
THRESHOLD = 0.5
"""The published threshold of `gafs`."""
WORTHY = 0.6
"""`gafs_auto` takes only views whose score is at least this share of the best one's."""


def choose(
    mode: Select, need: np.ndarray, visibility: np.ndarray, camera_from_world: np.ndarray, count: int
) -> list[int]:
    """At most `count` views, the most useful first.

    Args:
        mode: The rule.
        need: [M], not negative.
        visibility: [V, M].
        camera_from_world: Poses [V, 4, 4].
        count: Most views wanted.
    """
    count = min(count, len(visibility))
    if mode == "uniform":
        return uniform(len(visibility), count)
    distances = pose_distances(camera_from_world)
    if mode == "cover":
        return cover(need, visibility, distances, count)
    scores = visibility @ need
    if mode == "gafs":
        return gafs(scores, distances, count)
    return gafs_auto(scores, distances, count)


def pose_distances(camera_from_world: np.ndarray) -> np.ndarray:
    """Distances [V, V] of poses [V, 4, 4]: offset over the median distance from the middle, plus angle in radians."""
    rotations = camera_from_world[:, :3, :3]
    positions = -np.einsum("vji,vj->vi", rotations, camera_from_world[:, :3, 3])
    spread = float(np.median(np.linalg.norm(positions - positions.mean(0), axis=1)))
    offsets = np.linalg.norm(positions[:, None] - positions, axis=2) / max(spread, 1e-12)
    traces = np.einsum("vij,wij->vw", rotations, rotations)
    return offsets + np.arccos(np.clip((traces - 1) / 2, -1, 1))


def cover(need: np.ndarray, visibility: np.ndarray, distances: np.ndarray, count: int) -> list[int]:
    """Greedily the view that adds most covered need; within 1 - 1/e of the best set, near-duplicates apart."""
    covered = np.zeros(len(need))
    allowed = np.ones(len(visibility), bool)
    chosen: list[int] = []
    while len(chosen) < count and allowed.any():
        gains = np.where(allowed, np.maximum(visibility - covered, 0) @ need, -1.0)
        best = int(gains.argmax())
        if gains[best] <= 0 and chosen:
            break
        chosen.append(best)
        covered = np.maximum(covered, visibility[best])
        allowed &= distances[best] > NEAR
        allowed[best] = False
    return chosen


def gafs(scores: np.ndarray, distances: np.ndarray, count: int, threshold: float = THRESHOLD) -> list[int]:
    """Views by falling score, unless one taken already is closer than the threshold."""
    chosen: list[int] = []
    for view in np.argsort(-scores, kind="stable").tolist():
        if len(chosen) == count:
            break
        if all(distances[view, other] >= threshold for other in chosen):
            chosen.append(view)
    return chosen


def gafs_auto(scores: np.ndarray, distances: np.ndarray, count: int) -> list[int]:
    """`gafs` with the largest threshold that still gives `count` views worth showing, by bisection."""
    worthy = np.flatnonzero(scores >= WORTHY * scores.max())
    scores, distances = scores[worthy], distances[np.ix_(worthy, worthy)]
    count = min(count, len(worthy))
    low, high = 0.0, float(distances.max()) + 1e-9
    for _ in range(30):
        middle = (low + high) / 2
        if len(gafs(scores, distances, count, middle)) >= count:
            low = middle
        else:
            high = middle
    return worthy[gafs(scores, distances, count, low)].tolist()


def uniform(views: int, count: int) -> list[int]:
    """Evenly spaced views in the order of the capture."""
    return np.unique(np.linspace(0, views - 1, count).round().astype(int)).tolist() if count else []


def covered_need(need: np.ndarray, visibility: np.ndarray, chosen: list[int]) -> float:
    """Share of the need that the chosen views cover."""
    total = float(need.sum())
    return float(visibility[chosen].max(0) @ need) / total if chosen and total > 0 else 0.0
