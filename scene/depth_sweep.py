# SPDX-License-Identifier: Apache-2.0
"""Depth of the photos from the photos: plane sweep, acceptance, seeds.

A plane parallel to the image of a reference view is swept through inverse depth; at each step the
neighbouring photos are warped onto it by a homography and compared with the reference by zero-mean
normalised cross-correlation in small windows. A depth counts when it is clearly the best and another view's
sweep agrees. Frames: world as in the cameras; depth is the z of the reference camera, in scene units; images
are HxW grey or HxWx3 in [0, 1] at the sweep's own resolution, the first pixel's centre at (0.5, 0.5).

Source: Collins, "A space-sweep approach to true multi-image matching", CVPR 1996.
"""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .view_geometry import ViewGeometry

if TYPE_CHECKING:
    from .cameras import Camera

FORMAT = 1
"""Raised whenever the same photos and settings would give another result: old caches are then ignored."""
UNSEEN = -1.0
"""Score of a window that the mask or an image's border cuts."""
STRIP = 8
"""Planes worked on together: their buffers stay in the second-level cache."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """How depth is searched and when it is believed; lengths in units of the median camera distance D."""

    views: int = 64
    """Most reference views, evenly chosen."""
    pixels: int = 15_000
    """Pixels of a view; the photos are reduced to that area."""
    planes: int = 96
    """Depths tried, even in inverse depth."""
    near: float = 0.25
    """Nearest plane."""
    far: float = 40.0
    """Farthest plane."""
    neighbors: int = 4
    """Other photos compared with a reference view."""
    voters: int = 2
    """The best so many of them count, so that an occluded one does not vote."""
    window: int = 7
    """Side of the correlation window, px."""
    angle: float = 40.0
    """Largest angle between viewing directions, degrees."""
    baseline: float = 0.15
    """Wanted distance between the centres of a reference view and a neighbour."""
    least_baseline: float = 0.04
    """Smallest such distance."""
    score: float = 0.75
    """Smallest accepted correlation."""
    margin: float = 0.04
    """How much better than any plane further than `margin_steps` away."""
    margin_steps: int = 4
    """Neighbourhood of the best plane that does not compete with it."""
    texture: float = 0.012
    """Smallest standard deviation of grey in a window."""
    core_texture: float = 0.006
    """The same in the middle 3x3: else an object's outline lends its depth to the plain wall behind it."""
    agreement: float = 0.03
    """Relative difference up to which another view's depth agrees."""


@dataclass(frozen=True, kw_only=True)
class DepthView:
    """One reference view at the sweep's resolution."""

    index: int
    """Position of the view in the cameras that were swept."""
    intrinsics: np.ndarray
    """[fx, fy, cx, cy] in px."""
    camera_from_world: np.ndarray
    """[4, 4]."""
    depth: np.ndarray
    """[H, W] float32, 0 where none was accepted."""
    rgb: np.ndarray
    """[H, W, 3] uint8."""

    def points(self) -> np.ndarray:
        """World positions [K, 3] of the accepted pixels, in scan order."""
        v, u = np.nonzero(self.depth)
        fx, fy, cx, cy = self.intrinsics
        z = self.depth[v, u].astype(np.float64)
        rays = np.stack([(u + 0.5 - cx) / fx, (v + 0.5 - cy) / fy, np.ones(len(u))], axis=1)
        return (z[:, None] * rays - self.camera_from_world[:3, 3]) @ self.camera_from_world[:3, :3]


@dataclass(frozen=True, kw_only=True)
class DepthMaps:
    """The accepted depths of all reference views."""

    views: tuple[DepthView, ...]
    seconds: float
    """Time of the sweep; 0 when it came from the cache."""

    @property
    def accepted(self) -> float:
        """Share of the pixels that have a depth."""
        pixels = sum(view.depth.size for view in self.views)
        return sum(np.count_nonzero(view.depth) for view in self.views) / max(pixels, 1)

    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All accepted pixels as points.

        Returns:
            World positions [K, 3]; RGB [K, 3] in [0, 1]; size of a pixel at the point [K], scene units; and
            which of `views` each is from [K].
        """
        if not self.views:
            return np.zeros((0, 3)), np.zeros((0, 3), np.float32), np.zeros(0), np.zeros(0, np.int64)
        accepted = [view.depth > 0 for view in self.views]
        return (
            np.concatenate([view.points() for view in self.views]),
            np.concatenate([view.rgb[a] for view, a in zip(self.views, accepted, strict=True)]) / np.float32(255),
            np.concatenate(
                [view.depth[a] / view.intrinsics[0] for view, a in zip(self.views, accepted, strict=True)]
            ).astype(np.float64),
            np.repeat(np.arange(len(self.views)), [a.sum() for a in accepted]),
        )


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Points on surfaces, ready to become Gaussians."""

    points: np.ndarray
    """[M, 3] world."""
    colors: np.ndarray
    """[M, 3] in [0, 1]."""
    scales: np.ndarray
    """[M] standard deviations, scene units."""
    views: np.ndarray
    """[M] index of the camera whose pixel each is."""

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class _Shot:
    """What the sweep keeps of a photo."""

    grey: np.ndarray  # [H, W] float32, mean about 0
    seen: np.ndarray  # [H, W] uint8, 1 where the mask lets one look
    rgb: np.ndarray  # [H, W, 3] uint8
    intrinsics: np.ndarray  # fx fy cx cy
    camera_from_world: np.ndarray

    @property
    def position(self) -> np.ndarray:
        return -self.camera_from_world[:3, :3].T @ self.camera_from_world[:3, 3]

    @property
    def pixel_from_ray(self) -> np.ndarray:
        """Intrinsic matrix for OpenCV, whose first pixel's centre is at (0, 0)."""
        fx, fy, cx, cy = self.intrinsics
        return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])


@dataclass(frozen=True)
class _Reference:
    """A reference view with the statistics of its windows, each [H, W]."""

    grey: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def sweep(
    cameras: Sequence["Camera"],
    geometry: ViewGeometry,
    settings: SweepSettings | None = None,
    *,
    threads: int = 0,
    cache: Path | None = None,
) -> DepthMaps:
    """Depth maps of evenly chosen views; the same bits for any number of threads.

    Args:
        cameras: Training cameras with their photos and masks.
        geometry: Of the same cameras; gives the unit of length.
        settings: Default `SweepSettings()`.
        threads: Worker threads, a view each; 0 takes all cores.
        cache: An .npz beside the run. Read when it was written for the same photos, cameras and settings,
            else written.
    """
    settings = settings or SweepSettings()
    started = time.perf_counter()
    with _one_thread_of_opencv(), ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        shots = list(pool.map(lambda camera: _shot(camera, settings.pixels), cameras))
        key = _key(shots, geometry, settings)
        if cache is not None and (found := _read(cache, key)) is not None:
            return found
        links = _links(shots, geometry.median_distance, settings)
        chosen = _evenly(len(shots), settings.views)
        jobs = [(shots[i], [shots[j] for j in links[i][: settings.neighbors]]) for i in chosen]
        unit = geometry.median_distance
        found = list(pool.map(lambda job: _sweep_view(*job, unit=unit, settings=settings), jobs))
        depths = dict(zip(chosen, found, strict=True))
        agreed = list(pool.map(lambda i: _agreed(i, depths, shots, links[i], settings.agreement), chosen))
    maps = DepthMaps(
        views=tuple(_view(i, shots[i], depth) for i, depth in zip(chosen, agreed, strict=True)),
        seconds=time.perf_counter() - started,
    )
    if cache is not None:
        _write(cache, key, maps)
    return maps


def seeds(
    maps: DepthMaps,
    count: int,
    generator: np.random.Generator,
    *,
    weight: Mapping[int, np.ndarray] | None = None,
    inside: Callable[[np.ndarray], np.ndarray] | None = None,
    scale_cap: float = 0.04,
) -> Seeds:
    """A weighted choice of accepted pixels, at most one in each voxel.

    Voxels have equal size in pixels of the view that saw the point; the largest size that leaves `count`
    points is taken, so that few seeds are spread wide and many lie close.

    Args:
        maps: Where depth is known.
        count: Seeds wanted; fewer come back when there are fewer.
        generator: Source of the choice.
        weight: Relative worth of the pixels by camera index, [h, w] of any resolution; views that are
            absent and pixels at 0 give no seeds. Default: all alike.
        inside: Keeps points [K, 3] by returning a mask [K].
        scale_cap: Largest scale, as a share of the view's width at the point's depth.
    """
    points, colors, footprint, view = maps.points()
    worth = _worth(maps, weight)
    usable = worth > 0
    if inside is not None:
        usable[usable] = inside(points[usable])
    # Exponential keys: the k smallest are a weighted draw of k without replacement (Efraimidis, Spirakis 2006).
    keys = generator.exponential(size=len(points)) / np.maximum(worth, 1e-30)
    order = np.flatnonzero(usable)
    order = order[np.argsort(keys[order], kind="stable")]
    chosen = _thinned(points[order], footprint[order], count)
    picked = order[chosen[:count]]
    width = np.array([v.depth.shape[1] for v in maps.views], dtype=np.float64)[view[picked]]
    cameras = np.array([v.index for v in maps.views], dtype=np.int64)[view[picked]]
    scales = np.minimum(neighbor_distance(points[picked]), scale_cap * width * footprint[picked])
    return Seeds(points=points[picked], colors=colors[picked], scales=scales, views=cameras)


def neighbor_distance(points: np.ndarray) -> np.ndarray:
    """Root mean squared distance [M] of each point [M, 3] to its three nearest neighbours.

    Infinite with fewer than four points, so that whatever caps it decides.
    """
    import torch
    from simple_knn import distCUDA2

    if len(points) < 4:
        return np.full(len(points), np.inf)
    center = points.mean(axis=0)  # float32 is too coarse far from the origin
    return distCUDA2(torch.from_numpy((points - center).astype(np.float32))).sqrt().numpy().astype(np.float64)


def _worth(maps: DepthMaps, weight: Mapping[int, np.ndarray] | None) -> np.ndarray:
    """Weight [K] of every accepted pixel, in the order of `DepthMaps.points`."""
    parts = []
    for view in maps.views:
        accepted = view.depth > 0
        if weight is None:
            parts.append(np.ones(int(accepted.sum())))
        elif (given := weight.get(view.index)) is None:
            parts.append(np.zeros(int(accepted.sum())))
        else:
            size = view.depth.shape[::-1]
            map_ = cv2.resize(np.asarray(given, dtype=np.float32), size, interpolation=cv2.INTER_AREA)
            parts.append(map_[accepted].astype(np.float64))
    return np.concatenate(parts) if parts else np.zeros(0)


def _thinned(points: np.ndarray, footprint: np.ndarray, count: int) -> np.ndarray:
    """First point of every voxel, in order; the coarsest voxels that leave `count` points, else the finest."""
    kept = np.arange(len(points))
    for side in 2.0 ** np.arange(5, 0.4, -0.5):  # px: 32 ... 1.4
        kept = _first_in_voxel(points, side * footprint)
        if len(kept) >= count:
            break
    return kept


def _first_in_voxel(points: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Rows that come first in their voxel, rising; sides [K] are rounded to powers of sqrt(2)."""
    if not len(points):
        return np.zeros(0, np.int64)
    octave = np.round(2 * np.log2(side)).astype(np.int64)
    cell = np.floor((points - points.mean(axis=0)) / 2.0 ** (octave[:, None] / 2)).astype(np.int64)
    _, first = np.unique(np.concatenate([cell, octave[:, None]], axis=1), axis=0, return_index=True)
    return np.sort(first)


@contextmanager
def _one_thread_of_opencv() -> Iterator[None]:
    """OpenCV's own threads would fight with ours."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _shot(camera: "Camera", pixels: int) -> _Shot:
    """A photo reduced to about `pixels` pixels; a reduced pixel is seen when all of its photo pixels are."""
    reduction = min(1.0, (pixels / (camera.width * camera.height)) ** 0.5)
    width, height = max(8, round(camera.width * reduction)), max(8, round(camera.height * reduction))
    photo = np.ascontiguousarray(camera.image().numpy().transpose(1, 2, 0), dtype=np.float32)
    rgb = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    mask = camera.mask()
    seen = np.ones((height, width), np.uint8)
    if mask is not None:
        whole = cv2.resize(mask.numpy().astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        seen = (whole > 0.999).astype(np.uint8)
    across, down = width / camera.width, height / camera.height
    return _Shot(
        grey=rgb @ np.array([0.299, 0.587, 0.114], np.float32) - np.float32(0.5),
        seen=seen,
        rgb=np.round(255 * rgb).clip(0, 255).astype(np.uint8),
        intrinsics=np.array([camera.fx * across, camera.fy * down, camera.cx * across, camera.cy * down]),
        camera_from_world=np.asarray(camera.camera_from_world, dtype=np.float64),
    )


def _evenly(total: int, count: int) -> list[int]:
    """At most `count` of range(total), evenly spaced."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(int)).tolist()


def _links(shots: list[_Shot], unit: float, settings: SweepSettings) -> list[list[int]]:
    """For every view the others that look the same way from a fair distance, best baseline first."""
    positions = np.array([shot.position for shot in shots])
    directions = np.array([shot.camera_from_world[2, :3] for shot in shots])
    baselines = np.linalg.norm(positions[:, None] - positions, axis=2) / unit
    similar = directions @ directions.T > np.cos(np.deg2rad(settings.angle))
    usable = similar & (baselines >= settings.least_baseline)
    cost = np.abs(np.log(np.maximum(baselines, 1e-9) / settings.baseline))
    return [[int(j) for j in np.argsort(cost[i], kind="stable") if usable[i, j]] for i in range(len(shots))]


def _sweep_view(shot: _Shot, others: list[_Shot], *, unit: float, settings: SweepSettings) -> np.ndarray:
    """Depth [H, W] of one view where its own scores are convincing, else 0."""
    inverse = np.linspace(1 / settings.near, 1 / settings.far, settings.planes) / unit
    if len(others) < settings.voters:
        return np.zeros(shot.grey.shape, np.float32)
    scores, textured = _scores(shot, others, inverse, settings)
    best = scores.argmax(axis=0)
    peak = np.take_along_axis(scores, best[None], axis=0)[0]
    rival = _best_elsewhere(scores, best, settings.margin_steps)
    inner = (best > 0) & (best < settings.planes - 1)
    accepted = textured & inner & (peak > settings.score) & (peak - rival > settings.margin)
    depth = 1 / (inverse[best] + _sub_plane(scores, best) * (inverse[1] - inverse[0]))
    return np.where(accepted, depth, 0).astype(np.float32)


def _scores(
    shot: _Shot, others: list[_Shot], inverse: np.ndarray, settings: SweepSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Mean correlation of the best `voters` neighbours [P, H, W], and where the reference is textured."""
    height, width = shot.grey.shape
    side = (settings.window, settings.window)
    mean = cv2.blur(shot.grey, side)
    variance = cv2.blur(shot.grey * shot.grey, side) - mean * mean
    textured = (variance > settings.texture**2) & _whole(shot.seen, settings.window)
    textured &= _core_deviation(shot.grey) > settings.core_texture
    reference = _Reference(shot.grey, mean, np.sqrt(np.maximum(variance, settings.texture**2)))
    least = (0.25 * settings.texture) ** 2  # a flatter neighbour correlates with anything
    maps = [_homographies(shot, other, inverse) for other in others]
    scores = np.empty((len(inverse), height, width), np.float32)
    warped = np.empty((STRIP, height, width), np.float32)
    seen = np.empty((STRIP, height, width), np.uint8)
    for start in range(0, len(inverse), STRIP):
        count = min(STRIP, len(inverse) - start)
        top = np.full((settings.voters, count, height, width), UNSEEN, np.float32)
        for other, homographies in zip(others, maps, strict=True):
            for k in range(count):
                _warp(other, homographies[start + k], warped[k], seen[k])
            _rank(_correlation(warped[:count], seen[:count], reference, least, side), top)
        # With too few voters that see the window the last of them is UNSEEN.
        scores[start : start + count] = np.where(top[-1] > UNSEEN, top.mean(axis=0), UNSEEN)
    return scores, textured


def _homographies(shot: _Shot, other: _Shot, inverse: np.ndarray) -> np.ndarray:
    """[P, 3, 3] maps from a reference pixel to the other photo's, through the planes at 1 / inverse."""
    relative = other.camera_from_world @ np.linalg.inv(shot.camera_from_world)
    at_infinity = other.pixel_from_ray @ relative[:3, :3] @ np.linalg.inv(shot.pixel_from_ray)
    epipole = other.pixel_from_ray @ relative[:3, 3]
    return at_infinity + inverse[:, None, None] * np.outer(epipole, (0, 0, 1))


def _warp(other: _Shot, homography: np.ndarray, grey: np.ndarray, seen: np.ndarray) -> None:
    """Fill `grey` and `seen` [H, W] with the other photo as the reference would see it on a plane."""
    size = grey.shape[::-1]
    cv2.warpPerspective(other.grey, homography, size, dst=grey, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    cv2.warpPerspective(other.seen, homography, size, dst=seen, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)


def _correlation(
    warped: np.ndarray, seen: np.ndarray, reference: "_Reference", least: float, side: tuple[int, int]
) -> np.ndarray:
    """Zero-mean normalised cross-correlation [S, H, W] of warped images with the reference.

    The planes of a strip are filtered as one tall image; what a window takes from the plane above or below
    is within reach of the reference's border and never used.
    """
    tall = (-1, warped.shape[2])

    def smooth(stack: np.ndarray) -> np.ndarray:
        return cv2.blur(stack.reshape(tall), side).reshape(stack.shape)

    mean_warped = smooth(warped)
    result = smooth(warped * reference.grey)
    result -= mean_warped * reference.mean
    spread = smooth(warped * warped)
    mean_warped *= mean_warped
    spread -= mean_warped
    np.maximum(spread, least, out=spread)
    np.sqrt(spread, out=spread)
    spread *= reference.deviation
    result /= spread
    whole = cv2.erode(seen.reshape(tall), np.ones(side, np.uint8)).reshape(seen.shape)
    result[whole == 0] = UNSEEN
    return result


def _rank(score: np.ndarray, top: np.ndarray) -> None:
    """Insert `score` into the falling lists `top` [voters, ...], elementwise and in place."""
    for place in top:
        higher = np.maximum(place, score)
        score = np.minimum(place, score)
        place[:] = higher


def _whole(seen: np.ndarray, window: int) -> np.ndarray:
    """Pixels whose window lies inside the image and is seen throughout."""
    return cv2.erode(seen, np.ones((window, window), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def _core_deviation(grey: np.ndarray) -> np.ndarray:
    """Standard deviation [H, W] in 3x3 windows."""
    mean = cv2.blur(grey, (3, 3))
    return np.sqrt(np.maximum(cv2.blur(grey * grey, (3, 3)) - mean * mean, 0))


def _best_elsewhere(scores: np.ndarray, best: np.ndarray, steps: int) -> np.ndarray:
    """Highest score [H, W] of any plane further than `steps` from the best one."""
    count = len(scores)
    below = np.maximum.accumulate(scores, axis=0)
    above = np.maximum.accumulate(scores[::-1], axis=0)[::-1]
    low, high = best - steps - 1, best + steps + 1
    lower = np.take_along_axis(below, np.maximum(low, 0)[None], axis=0)[0]
    upper = np.take_along_axis(above, np.minimum(high, count - 1)[None], axis=0)[0]
    return np.maximum(np.where(low >= 0, lower, UNSEEN), np.where(high < count, upper, UNSEEN))


def _sub_plane(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Offset [H, W] in (-0.5, 0.5) planes of the parabola's top through the best plane and its neighbours."""
    at = np.clip(best, 1, len(scores) - 2)
    before, middle, after = (np.take_along_axis(scores, (at + k)[None], axis=0)[0] for k in (-1, 0, 1))
    curvature = before - 2 * middle + after
    offset = 0.5 * (before - after) / np.where(curvature < -1e-6, curvature, -1e-6)
    known = (before > UNSEEN) & (after > UNSEEN) & (curvature < -1e-6)
    return np.where(known, np.clip(offset, -0.5, 0.5), 0.0)


def _agreed(
    index: int, depths: dict[int, np.ndarray], shots: list[_Shot], linked: list[int], tolerance: float
) -> np.ndarray:
    """The depth [H, W] of a view where at least one of the linked views found the same surface, else 0."""
    depth = depths[index]
    view = _view(index, shots[index], depth)
    points = view.points()
    agrees = np.zeros(len(points), dtype=bool)
    for other in linked:
        if other in depths:
            agrees |= _finds(shots[other], depths[other], points, tolerance)
    result = np.zeros_like(depth)
    rows = np.flatnonzero(depth)[agrees]
    result.flat[rows] = depth.flat[rows]
    return result


def _finds(shot: _Shot, depth: np.ndarray, points: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether a view's own depth at each point's pixel is the point's, [K]."""
    x, y, z = (points @ shot.camera_from_world[:3, :3].T + shot.camera_from_world[:3, 3]).T
    fx, fy, cx, cy = shot.intrinsics
    safe = np.where(z > 1e-9, z, 1.0)
    u, v = np.floor(fx * x / safe + cx), np.floor(fy * y / safe + cy)
    height, width = depth.shape
    within = (z > 1e-9) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    found = np.zeros(len(points), dtype=np.float64)
    found[within] = depth[v[within].astype(int), u[within].astype(int)]
    return within & (found > 0) & (np.abs(found - z) < tolerance * z)


def _view(index: int, shot: _Shot, depth: np.ndarray) -> DepthView:
    return DepthView(
        index=index,
        intrinsics=shot.intrinsics,
        camera_from_world=shot.camera_from_world,
        depth=depth,
        rgb=shot.rgb,
    )


def _key(shots: list[_Shot], geometry: ViewGeometry, settings: SweepSettings) -> str:
    """Digest of everything that the depth maps depend on."""
    digest = hashlib.sha256(f"{FORMAT} {cv2.__version__} {sorted(asdict(settings).items())}".encode())
    digest.update(np.float64(geometry.median_distance).tobytes())
    for shot in shots:
        for array in (shot.rgb, shot.seen, shot.intrinsics, shot.camera_from_world):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _write(path: Path, key: str, maps: DepthMaps) -> None:
    """All views in one .npz, written aside and renamed."""
    arrays: dict[str, np.ndarray] = {"key": np.array(key), "index": np.array([v.index for v in maps.views])}
    for k, view in enumerate(maps.views):
        arrays |= {
            f"depth_{k}": view.depth,
            f"rgb_{k}": view.rgb,
            f"intrinsics_{k}": view.intrinsics,
            f"pose_{k}": view.camera_from_world,
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial.npz")
    np.savez_compressed(aside, **arrays)
    aside.replace(path)


def _read(path: Path, key: str) -> DepthMaps | None:
    """The cached maps, or None when there are none for this key."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                return None
            views = tuple(
                DepthView(
                    index=int(index),
                    intrinsics=saved[f"intrinsics_{k}"],
                    camera_from_world=saved[f"pose_{k}"],
                    depth=saved[f"depth_{k}"],
                    rgb=saved[f"rgb_{k}"],
                )
                for k, index in enumerate(saved["index"])
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # absent or damaged: it is only a cache
    return DepthMaps(views=views, seconds=0.0)
