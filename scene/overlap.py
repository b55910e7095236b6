# SPDX-License-Identifier: Apache-2.0
"""Which views show the same things, and whether their poses agree with that: matched features and epipolar lines.

Two posed views tell for every point of one on which line of the other it must lie (Hartley and Zisserman 2004, chapter
9). Matches that some pair of poses explains, but not the given one, accuse the poses.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from .cameras import Camera
from .view_geometry import in_image, view_geometry

WIDTH = 480
"""Pixels to which views are reduced."""

FEATURES = 1200
"""Features of a view."""

NEIGHBOURS = 5
"""Views that each view is compared with because they look at the same place."""

STRANGERS = 8
"""Views that a view without any match is compared with besides."""

FEW, ENOUGH, PLAIN_SHARE = 8, 24, 0.3
"""Matches that agree with the given poses, that agree with any poses, and the share of all matches from which two views
show the same things without further questions."""

CHANCE, SURE = 0.1, 6.0
"""Share of false matches that agree with any poses (4 to 10 % on real captures), and standard deviations above it from
which the given poses are no chance: 8 of 10 matches, or 28 of 100."""

CLEAR = 0.8
"""Distance of the best match over that of the next best."""

NEAR = 3.0
"""Pixels (of `WIDTH`) from its line within which a match agrees with the poses."""

PARALLEL = 0.01
"""Sine of the angle between rays below which it does not tell where they meet."""

Verdict = Literal["nothing", "agree", "disagree"]


@dataclass(frozen=True, eq=False)
class Look:
    """A reduced view: grey levels [H, W] in 0..255, whether they count, features in pixels [F, 2], descriptors."""

    camera: Camera
    grey: np.ndarray
    kept: np.ndarray | None
    places: np.ndarray
    descriptors: np.ndarray | None


@dataclass(frozen=True)
class Pair:
    """What two views have in common, and how many matches say so; `brighter` is log2 of the first over the second."""

    first: int
    second: int
    verdict: Verdict
    matches: int
    brighter: float


def look_at_all(cameras: Sequence[Camera], threads: int = 2) -> list[Look]:
    """Every view reduced, with its features."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(_look, cameras))


def compare(looks: Sequence[Look]) -> list[Pair]:
    """All pairs of views that were compared."""
    pairs = [_pair(looks, *pair) for pair in sorted(_candidates(looks))]
    linked = {index for pair in pairs if pair.verdict != "nothing" for index in (pair.first, pair.second)}
    done = {(pair.first, pair.second) for pair in pairs}
    step = max(1, len(looks) // STRANGERS)
    more = {
        _ordered(i, j) for i in set(range(len(looks))) - linked for j in range(i % step, len(looks), step) if i != j
    }
    return pairs + [_pair(looks, *pair) for pair in sorted(more - done)]


def groups(count: int, pairs: Sequence[Pair]) -> list[list[int]]:
    """Views that are connected through what they show, the largest group first."""
    root = list(range(count))

    def find(index: int) -> int:
        while root[index] != index:
            index = root[index]
        return index

    for pair in pairs:
        if pair.verdict != "nothing":
            low, high = sorted((find(pair.first), find(pair.second)))
            root[high] = low
    members: dict[int, list[int]] = {}
    for index in range(count):
        members.setdefault(find(index), []).append(index)
    return sorted(members.values(), key=len, reverse=True)


def accused(pairs: Sequence[Pair]) -> list[int]:
    """Views whose pose disagrees with most of those that show the same things, worst first.

    A wrong pose also speaks against its innocent neighbours, so the worst view is taken out before the others are
    looked at. Matches are counted, not pairs: a neighbour with hundreds of them says more than a far view with dozens.
    One pair alone accuses nobody: repeated windows may have been taken for each other.
    """
    left = [pair for pair in pairs if pair.verdict != "nothing"]
    found: list[int] = []
    while True:
        total, against, pairs_against = Counter(), Counter(), Counter()
        for pair in left:
            wrong = pair.verdict == "disagree"
            for index in (pair.first, pair.second):
                total[index] += pair.matches
                against[index] += pair.matches * wrong
                pairs_against[index] += wrong
        shares = {index: (against[index] / total[index], against[index]) for index in total if pairs_against[index] > 1}
        worst = max(shares, key=lambda index: (shares[index], -index), default=None)
        if worst is None or shares[worst][0] <= 0.5:
            return found
        found.append(worst)
        left = [pair for pair in left if worst not in (pair.first, pair.second)]


def _look(camera: Camera) -> Look:
    small = camera.scaled(min(camera.width, WIDTH))
    rgb = (small.image().permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    mask = small.mask()
    kept = None if mask is None else mask.numpy() > 0
    small.photo.release()
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    area = None if kept is None else cv2.erode(kept.astype(np.uint8) * 255, np.ones((9, 9), np.uint8))
    found, descriptors = cv2.SIFT_create(FEATURES).detectAndCompute(grey, area)
    places = np.array([point.pt for point in found], np.float64).reshape(-1, 2) + 0.5
    return Look(small, grey, kept, places, descriptors)


def _candidates(looks: Sequence[Look]) -> set[tuple[int, int]]:
    """Pairs that look at the same place by their poses, and neighbours by name."""
    cameras = [look.camera for look in looks]
    pairs = {_ordered(i, j) for i in range(len(looks)) for j in (i + 1, i + 2) if j < len(looks)}
    for i, shared in enumerate(_shared_views(cameras)):
        order = np.argsort(-shared, kind="stable")
        pairs |= {_ordered(i, int(j)) for j in order[:NEIGHBOURS] if shared[j] > 0}
    return pairs


def _shared_views(cameras: Sequence[Camera]) -> np.ndarray:
    """How much of the place that one view shows another one shows, from a similar direction, [V, V]."""
    distance = view_geometry(cameras).median_distance
    directions = np.stack([camera.viewing_direction for camera in cameras])
    shared = np.zeros((len(cameras), len(cameras)))
    u, v = np.meshgrid([0.2, 0.5, 0.8], [0.2, 0.5, 0.8])
    for i, camera in enumerate(cameras):
        x, y = (u * camera.width - camera.cx) / camera.fx, (v * camera.height - camera.cy) / camera.fy
        rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
        points = np.concatenate([rays * (distance * near) for near in (0.5, 1, 2)])
        world = (points - camera.camera_from_world[:3, 3]) @ camera.camera_from_world[:3, :3]
        for j, other in enumerate(cameras):
            if i != j:
                shared[i, j] = in_image(other, world).mean() * max(0.0, directions[i] @ directions[j])
    return shared


def _pair(looks: Sequence[Look], i: int, j: int) -> Pair:
    first, second = _matches(looks[i], looks[j])
    near = _agree(looks[i].camera, looks[j].camera, first, second)
    by_chance = CHANCE * len(near) + SURE * np.sqrt(CHANCE * (1 - CHANCE) * len(near))
    sure = near.sum() >= max(FEW, by_chance)
    if not sure or near.mean() < PLAIN_SHARE:
        good = _of_one_geometry(first, second)
        if good.sum() >= max(ENOUGH, PLAIN_SHARE * len(first)):
            verdict: Verdict = "agree" if near[good].mean() >= 0.5 else "disagree"
            return _pair_of(looks, i, j, verdict, first[good], second[good])
    return _pair_of(looks, i, j, "agree" if sure else "nothing", first[near], second[near])


def _pair_of(looks: Sequence[Look], i: int, j: int, verdict: Verdict, a: np.ndarray, b: np.ndarray) -> Pair:
    """A pair, and the matches [M, 2] that tell what it has in common."""
    return Pair(i, j, verdict, len(a), _brighter(looks[i], looks[j], a, b))


def _of_one_geometry(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which matches [M] the most agreeable pair of poses explains."""
    if len(first) < ENOUGH:
        return np.zeros(len(first), bool)
    cv2.setRNGSeed(0)
    _, inliers = cv2.findFundamentalMat(first, second, cv2.USAC_MAGSAC, NEAR / 2, 0.999, 2000)
    return np.zeros(len(first), bool) if inliers is None else inliers.ravel() > 0


def _matches(first: Look, second: Look) -> tuple[np.ndarray, np.ndarray]:
    """Places [M, 2] of features that are each other's first choice, and clearly so (Lowe 2004, section 7.1)."""
    a, b = first.descriptors, second.descriptors
    if a is None or b is None or min(len(a), len(b)) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    distance = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * (a @ b.T), 0)
    choice = distance.argmin(1)
    best, next_best = np.partition(distance, 1, axis=1)[:, :2].T
    mutual = distance.argmin(0)[choice] == np.arange(len(a))
    chosen = mutual & (best < CLEAR**2 * next_best)
    return first.places[chosen], second.places[choice[chosen]]


def _agree(first: Camera, second: Camera, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which matches [M] the poses explain: near their line, and in front of both views."""
    relative = second.camera_from_world @ np.linalg.inv(first.camera_from_world)
    rotation, t = relative[:3, :3], relative[:3, 3]
    inverse_a, inverse_b = (np.linalg.inv(_calibration(camera)) for camera in (first, second))
    a, b = np.c_[a, np.ones(len(a))], np.c_[b, np.ones(len(b))]
    rays_a, rays_b = _unit(a @ (rotation @ inverse_a).T), _unit(b @ inverse_b.T)
    if np.linalg.norm(t) < 1e-9:  # views from one place: no line but a point
        seen = rays_a @ _calibration(second).T
        return np.linalg.norm(seen[:, :2] / seen[:, 2:] - b[:, :2], axis=1) < NEAR
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) / np.linalg.norm(t)
    fundamental = inverse_b.T @ cross @ rotation @ inverse_a
    lines_b, lines_a = a @ fundamental.T, b @ fundamental
    slope = (lines_a[:, :2] ** 2).sum(1) + (lines_b[:, :2] ** 2).sum(1)
    from_line = np.abs((b * lines_b).sum(1)) / np.sqrt(np.maximum(slope, 1e-30))
    return (from_line < NEAR) & _in_front(rays_a, rays_b, t)


def _in_front(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Whether rays x a + t and y b, [M, 3] each, meet at positive x and y; nearly parallel ones meet anywhere."""
    normal = np.cross(a, b)
    x, y = -(np.cross(t, b) * normal).sum(1), -(np.cross(t, a) * normal).sum(1)
    return ((x > 0) & (y > 0)) | (np.linalg.norm(normal, axis=1) < PARALLEL)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _brighter(first: Look, second: Look, a: np.ndarray, b: np.ndarray) -> float:
    """Median base-2 logarithm of how much brighter the first view shows the same places."""
    levels = []
    for look, places in ((first, a), (second, b)):
        smooth = cv2.blur(look.grey, (7, 7)).astype(np.float64)
        column, row = np.clip(places.astype(int), 0, np.array(smooth.shape[::-1]) - 1).T
        levels.append(smooth[row, column])
    inside = (np.minimum(*levels) > 4) & (np.maximum(*levels) < 250)  # neither black nor burnt out
    return float(np.median(np.log2(levels[0][inside] / levels[1][inside]))) if inside.sum() > 5 else 0.0


def _calibration(camera: Camera) -> np.ndarray:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])


def _ordered(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)
