# SPDX-License-Identifier: Apache-2.0
"""What the cameras alone tell: where the subject is, which way is up, where the photographer walked.

World frame and scene units throughout; nothing assumes that world z is up, and every result turns, moves
and scales with the cameras. V is the number of cameras, M the number of points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from .cameras import Camera

Kind = Literal["orbit", "arc", "forward", "inside-out", "nadir"]

IN_FRONT = 0.8
"""Share of the cameras that must have the focus in front of them."""
CONDITION = 0.004
"""Least mean squared sine between the optical axes and their common direction: 3.6 degrees rms."""
UP_LIMIT = np.deg2rad(45)
"""The camera plane's normal refines `up` only within this angle."""
FLAT = 0.5
"""The camera centres span a plane when the third spread is below this share of the second."""
WHOLE = 0.6
"""Share of the cameras that see the subject's sphere whole."""


@dataclass(frozen=True, kw_only=True)
class Ring:
    """An ellipse that encloses the camera centres in the plane across `up`."""

    center: np.ndarray
    """[3], at the height of the mean camera."""
    axes: np.ndarray
    """[2, 3] unit vectors along the larger and the smaller semi-axis."""
    semi_axes: np.ndarray
    """[2], scene units, larger first; never zero."""


@dataclass(frozen=True, kw_only=True)
class ViewGeometry:
    """The capture as the cameras tell it."""

    kind: Kind
    """How the photographer moved: a heuristic for logs and reports; nothing but the wording hangs on it."""
    focus: np.ndarray
    """[3] the point that the optical axes meet, or the middle of what the frusta share."""
    up: np.ndarray
    """[3] unit."""
    subject_radius: float
    """Radius of the sphere round the focus that most cameras see whole and that contains none of them."""
    ring: Ring
    """Ellipse round the camera centres."""
    heights: tuple[float, float]
    """Lowest and highest camera along `up`, relative to the focus."""
    median_distance: float
    """Median distance of the cameras to the focus, D in the formulas."""
    in_front: float
    """Share of the cameras that have the focus in front of them."""
    positions: np.ndarray
    """[V, 3] camera centres."""

    def nearest_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance [M] of each point [M, 3] to the nearest camera."""
        return nearest_distance(points, self.positions)


def view_geometry(cameras: Sequence["Camera"]) -> ViewGeometry:
    """Focus, up, subject radius, ring and kind of a capture, from its training cameras.

    Raises:
        ValueError: no cameras.
    """
    if not cameras:
        raise ValueError("view_geometry: no cameras")
    positions = np.array([camera.position for camera in cameras], dtype=np.float64)
    directions = np.array([camera.viewing_direction for camera in cameras], dtype=np.float64)
    ups = np.array([camera.up for camera in cameras], dtype=np.float64)

    up, nadir = _up(positions, directions, ups)
    focus, met = _focus(cameras, positions, directions)
    distances = np.linalg.norm(positions - focus, axis=1)
    heights = (positions - focus) @ up
    return ViewGeometry(
        kind=_kind(positions, directions, focus, up, met, nadir),
        focus=focus,
        up=up,
        subject_radius=_subject_radius(cameras, focus, distances),
        ring=_ring(positions, focus, up, float(np.median(distances))),
        heights=(float(heights.min()), float(heights.max())),
        median_distance=float(np.median(distances)),
        in_front=_in_front(focus, positions, directions),
        positions=positions,
    )


def covisibility(points: np.ndarray, cameras: Sequence["Camera"]) -> tuple[np.ndarray, np.ndarray]:
    """How many cameras have each point in their image, and from how wide a spread of directions.

    Args:
        points: [M, 3], world frame.
        cameras: V cameras.

    Returns:
        Counts [M] (int), and spreads [M] in radians: twice the angle whose cosine is the length of the mean
        unit direction, which for two cameras is the angle between them. Occlusion is not considered.
    """
    points = np.asarray(points, dtype=np.float64)
    count = np.zeros(len(points), dtype=np.int64)
    total = np.zeros((len(points), 3))
    for camera in cameras:
        seen = in_image(camera, points)
        ray = points[seen] - camera.position
        total[seen] += ray / np.linalg.norm(ray, axis=1, keepdims=True)
        count += seen
    length = np.linalg.norm(total, axis=1) / np.maximum(count, 1)
    spread = np.where(count > 1, 2 * np.arccos(np.clip(length, 0, 1)), 0.0)
    return count, spread


def project(camera: "Camera", points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates [M, 2] (first pixel's centre at 0.5, 0.5) and depths [M] of points [M, 3]."""
    pose = np.asarray(camera.camera_from_world, dtype=np.float64)
    x, y, z = (points @ pose[:3, :3].T + pose[:3, 3]).T
    safe = np.where(np.abs(z) > 1e-12, z, 1e-12)
    return np.stack([camera.fx * x / safe + camera.cx, camera.fy * y / safe + camera.cy], axis=1), z


def in_image(camera: "Camera", points: np.ndarray) -> np.ndarray:
    """Whether each point [M, 3] lies in front of the camera and within its image, [M]."""
    pixels, depth = project(camera, points)
    size = (camera.width, camera.height)
    return (depth > 0) & (pixels >= 0).all(axis=1) & (pixels < size).all(axis=1)


def nearest_distance(points: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Distance [M] of each point [M, 3] to the nearest of the positions [V, 3]."""
    center = positions.mean(axis=0)  # differences of large squares lose digits far from the origin
    points, positions = np.asarray(points, dtype=np.float64) - center, positions - center
    best = np.empty(len(points))
    for start in range(0, len(points), 1 << 14):
        rows = points[start : start + (1 << 14)]
        squared = (rows**2).sum(1)[:, None] - 2 * rows @ positions.T + (positions**2).sum(1)
        best[start : start + len(rows)] = squared.min(axis=1)
    return np.sqrt(np.maximum(best, 0.0))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _in_front(focus: np.ndarray, positions: np.ndarray, directions: np.ndarray) -> float:
    return float((((focus - positions) * directions).sum(axis=1) > 0).mean())


def _up(positions: np.ndarray, directions: np.ndarray, ups: np.ndarray) -> tuple[np.ndarray, bool]:
    """Unit up, and whether the views look along it.

    In a nadir flight the image tops point where the drone flies: over many headings they cancel, and what is
    left of them lies along the views. A flight that never turns looks like a wall of cameras that face
    forward; nothing in the cameras tells the two apart, and up is then the images' own.
    """
    mean_up, mean_view = ups.mean(axis=0), directions.mean(axis=0)
    agreement = np.linalg.norm(mean_up)
    along = abs(_unit(mean_up) @ _unit(mean_view)) if agreement > 1e-3 else 1.0
    if np.linalg.norm(mean_view) > 0.8 and agreement < 0.6 and (along > 0.7 or agreement < 0.3):
        return -_unit(mean_view), True
    up = _unit(mean_up) if agreement > 1e-3 else _unit(ups[0])
    spreads, normal = _plane(positions)
    if spreads[2] < FLAT * spreads[1] and abs(normal @ up) > np.cos(UP_LIMIT):
        up = normal * np.sign(normal @ up)
    return up, False


def _plane(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spreads [3] of the centres along their principal axes, falling, and the last axis."""
    covariance = np.cov(positions.T, bias=True) if len(positions) > 1 else np.zeros((3, 3))
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values[::-1], 0)), vectors[:, 0]


def _focus(cameras: Sequence["Camera"], positions: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, bool]:
    """The point that the optical axes meet, and True; or the frusta's common region, and False."""
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    focus, condition = _meet(across, positions)
    if condition > CONDITION and _in_front(focus, positions, directions) >= IN_FRONT:
        return focus, True
    return _shared_region(cameras, positions), False


def _meet(across: np.ndarray, positions: np.ndarray, rounds: int = 50) -> tuple[np.ndarray, float]:
    """The point with the least sum of distances to lines, by reweighted least squares.

    Args:
        across: [V, 3, 3] projectors across each line.
        positions: [V, 3] a point of each line.
        rounds: Reweightings.

    Returns:
        The point, and the smallest eigenvalue of the mean projector: 0 for parallel lines.
    """
    weights = np.ones(len(positions))
    for _ in range(rounds):
        mean = np.einsum("v,vij->ij", weights, across) / weights.sum()
        pulled = np.einsum("v,vij,vj->i", weights, across, positions) / weights.sum()
        focus = np.linalg.lstsq(mean, pulled, rcond=1e-9)[0]
        distance = np.linalg.norm(np.einsum("vij,vj->vi", across, focus - positions), axis=1)
        # The floor keeps one line that passes through the point from deciding alone.
        floor = 1e-3 * np.median(np.linalg.norm(positions - focus, axis=1)) + 1e-12
        weights = 1 / np.maximum(distance, floor)
    return focus, float(np.linalg.eigvalsh(mean)[0])


def _shared_region(cameras: Sequence["Camera"], positions: np.ndarray) -> np.ndarray:
    """Middle of the place that many cameras see from different directions.

    Candidates lie on rays through every image, at depths relative to the spread of the cameras; each is
    worth (cameras that see it) x (spread of their directions), and the best place is averaged.
    """
    step = max(1, len(cameras) // 24)
    reach = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
    scale = float(np.quantile(reach, 0.9)) or 1.0
    depths = scale * np.geomspace(0.25, 40, 24)
    candidates = np.concatenate([_ray_points(camera, depths) for camera in cameras[::step]])
    count, spread = covisibility(candidates, cameras)
    worth = count * np.sin(np.minimum(spread, np.pi / 2))
    best = candidates[np.argmax(worth)]
    reach = 0.5 * np.linalg.norm(positions - best, axis=1).min()
    near = (worth >= 0.8 * worth.max()) & (np.linalg.norm(candidates - best, axis=1) <= reach)
    return candidates[near].mean(axis=0)


def _ray_points(camera: "Camera", depths: np.ndarray, grid: int = 5) -> np.ndarray:
    """World points [grid^2 len(depths), 3] on a grid of pixels at given depths."""
    u, v = np.meshgrid(*[(np.arange(grid) + 0.5) / grid] * 2)
    x = (u.ravel() * camera.width - camera.cx) / camera.fx
    y = (v.ravel() * camera.height - camera.cy) / camera.fy
    rays = np.stack([x, y, np.ones_like(x)], axis=1)
    points = (depths[:, None, None] * rays).reshape(-1, 3)
    pose = np.asarray(camera.camera_from_world)
    return (points - pose[:3, 3]) @ pose[:3, :3]


def _subject_radius(cameras: Sequence["Camera"], focus: np.ndarray, distances: np.ndarray) -> float:
    """Largest radius that `WHOLE` of the cameras see whole and that contains no camera."""
    seen = np.array([_sphere_in_frustum(camera, focus) for camera in cameras])
    radius = min(float(np.quantile(seen, 1 - WHOLE)), 0.99 * float(distances.min()))
    floor = 0.05 * float(np.median(distances))  # a focus at most images' edges still needs a region
    return max(radius, floor) if floor < distances.min() else 0.5 * max(float(distances.min()), 1e-6)


def _sphere_in_frustum(camera: "Camera", focus: np.ndarray) -> float:
    """Radius of the largest sphere round `focus` inside the viewing pyramid; negative when it is outside."""
    pose = np.asarray(camera.camera_from_world)
    point = pose[:3, :3] @ focus + pose[:3, 3]
    left, top = camera.cx / camera.fx, camera.cy / camera.fy
    right, bottom = (camera.width - camera.cx) / camera.fx, (camera.height - camera.cy) / camera.fy
    sides = _unit(np.array([[1, 0, left], [-1, 0, right], [0, 1, top], [0, -1, bottom]], dtype=np.float64))
    return float((sides @ point).min())


def _ring(positions: np.ndarray, focus: np.ndarray, up: np.ndarray, distance: float) -> Ring:
    """The smallest ellipse, in the plane across `up`, that encloses the camera centres."""
    first, second = _basis(positions - positions.mean(axis=0), up)
    plane = np.stack([first, second])
    flat = (positions - focus) @ plane.T
    center, matrix = _enclosing_ellipse(flat, floor=0.02 * (distance or 1.0))
    values, vectors = np.linalg.eigh(matrix)  # rising: the first is the longest axis
    axes = vectors.T @ plane
    axes[1] *= np.sign(np.cross(axes[0], axes[1]) @ up)
    height = ((positions - focus) @ up).mean()
    return Ring(center=focus + center @ plane + height * up, axes=axes, semi_axes=1 / np.sqrt(values))


def _basis(spread: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across `up`, the first along the largest spread of [V, 3] so that it turns with it."""
    flat = spread - (spread @ up)[:, None] * up
    first = np.linalg.svd(flat, full_matrices=False)[2][0] if np.abs(flat).max() > 1e-12 else np.zeros(3)
    if np.linalg.norm(np.cross(first, up)) < 0.5:
        first = np.eye(3)[np.argmin(np.abs(up))]
    first = _unit(first - (first @ up) * up)
    return first, np.cross(up, first)


def _enclosing_ellipse(points: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre [2] and matrix A [2, 2] of the smallest ellipse (x - c)^T A (x - c) <= 1 round points [V, 2].

    Khachiyan's algorithm. A small cross of the half-width `floor` is added, which makes centres on a line,
    or a single one, well posed; the last scaling makes every point lie inside.
    """
    cross = floor * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float64)
    points = np.concatenate([points, points.mean(axis=0) + cross])
    count = len(points)
    lifted = np.concatenate([points, np.ones((count, 1))], axis=1)
    weights = np.full(count, 1 / count)
    for _ in range(2000):
        moment = np.einsum("v,vi,vj->ij", weights, lifted, lifted)
        excess = np.einsum("vi,ij,vj->v", lifted, np.linalg.inv(moment), lifted)
        worst = int(np.argmax(excess))
        if excess[worst] < 3 * (1 + 1e-3):
            break
        step = (excess[worst] - 3) / (3 * (excess[worst] - 1))
        weights *= 1 - step
        weights[worst] += step
    center = weights @ points
    covariance = np.einsum("v,vi,vj->ij", weights, points, points) - np.outer(center, center)
    matrix = np.linalg.inv(covariance) / 2
    reach = np.einsum("vi,ij,vj->v", points - center, matrix, points - center).max()
    return center, matrix / (reach * (1 + 1e-9))


def _kind(
    positions: np.ndarray, directions: np.ndarray, focus: np.ndarray, up: np.ndarray, met: bool, nadir: bool
) -> Kind:
    if nadir:
        return "nadir"
    mean_view = float(np.linalg.norm(directions.mean(axis=0)))
    outward = float(((positions - positions.mean(axis=0)) * directions).sum(axis=1).mean())
    if not met:
        return "inside-out" if mean_view < 0.6 and outward > 0 else "forward"
    if mean_view > 0.95:
        return "forward"
    return "orbit" if _azimuth_range(positions - focus, up) >= np.deg2rad(240) else "arc"


def _azimuth_range(offsets: np.ndarray, up: np.ndarray) -> float:
    """Angle round `up` that is left when the largest gap between neighbours is taken out."""
    first, second = _basis(offsets - offsets.mean(axis=0), up)
    angles = np.sort(np.arctan2(offsets @ second, offsets @ first))
    gaps = np.diff(np.concatenate([angles, angles[:1] + 2 * np.pi]))
    return float(2 * np.pi - gaps.max())
