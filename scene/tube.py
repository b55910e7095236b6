# SPDX-License-Identifier: Apache-2.0
"""The oblique hollow elliptical tube: an elliptic cylinder's wall, open at both ends, and where to put it.

Tilted from up, one side of the wall passes overhead, the opposite one below, the others around, and the open
ends leave the subject in view. The placement is an optimisation: the wall shall be hit by as many as possible
of the rays that nothing explains yet, and stand in the way of hardly any ray to the subject.
World frame and scene units; R is the number of rays.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .view_geometry import ViewGeometry


@dataclass(frozen=True, kw_only=True)
class Rays:
    """Half lines with a reach: what lies beyond it does not matter."""

    origins: np.ndarray
    """[R, 3]."""
    directions: np.ndarray
    """[R, 3] unit."""
    reach: np.ndarray
    """[R], infinite for a ray that looks for anything."""

    def __len__(self) -> int:
        return len(self.origins)

    def thinned(self, count: int) -> "Rays":
        """About `count` of the rays, evenly chosen."""
        every = max(1, len(self) // count)
        return Rays(origins=self.origins[::every], directions=self.directions[::every], reach=self.reach[::every])


@dataclass(frozen=True, kw_only=True)
class Tube:
    """An elliptic cylinder's wall."""

    center: np.ndarray
    """[3]."""
    axis: np.ndarray
    """[3] unit, through both open ends."""
    across: np.ndarray
    """[2, 3] unit vectors along the semi-axes; with `axis` a right-handed frame."""
    semi_axes: np.ndarray
    """[2]."""
    half_length: float
    """From the centre to either end."""

    @property
    def perimeter(self) -> float:
        """Length of the ellipse (Ramanujan 1914, second approximation)."""
        a, b = self.semi_axes
        h = ((a - b) / (a + b)) ** 2
        return float(np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h))))

    @property
    def area(self) -> float:
        """Area of the wall."""
        return 2 * self.half_length * self.perimeter

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether each point [M, 3] is within the hollow, [M]."""
        offset = points - self.center
        flat = offset @ self.across.T / self.semi_axes
        return ((flat**2).sum(axis=1) <= 1) & (np.abs(offset @ self.axis) <= self.half_length)

    def crossings(self, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
        """Where rays cross the wall of the endless cylinder.

        Returns:
            Distances [2, R] of the nearer and the farther crossing (NaN when missed, negative behind the
            origin), and the crossings' positions [2, R] along the axis, relative to the centre.
        """
        offset = rays.origins - self.center
        start, step = offset @ self.across.T / self.semi_axes, rays.directions @ self.across.T / self.semi_axes
        a, b = (step**2).sum(axis=1), (start * step).sum(axis=1)
        root = b * b - a * ((start**2).sum(axis=1) - 1)
        width = np.sqrt(np.where(root > 0, root, np.nan))
        distance = np.stack([-b - width, -b + width]) / np.maximum(a, 1e-12)
        return distance, offset @ self.axis + distance * (rays.directions @ self.axis)

    def hit(self, rays: Rays) -> np.ndarray:
        """Whether each ray meets the wall in front of its reach, [R]."""
        return self.needed_half_length(rays) <= self.half_length

    def needed_half_length(self, rays: Rays) -> np.ndarray:
        """Half-length [R] from which on each ray meets the wall in front of its reach; infinite for never."""
        distance, height = self.crossings(rays)
        counts = (distance > 0) & (distance < rays.reach)
        return np.where(counts, np.abs(height), np.inf).min(axis=0)


@dataclass(frozen=True, kw_only=True)
class TubeBounds:
    """What keeps the placement well posed."""

    tilt: tuple[float, float] = (20.0, 70.0)
    """Angle between axis and up, degrees."""
    size: tuple[float, float] = (1.2, 10.0)
    """Semi-axes in units of the camera ring's extent in that direction."""
    length: float = 6.0
    """Largest length in units of the larger semi-axis."""
    blocked: float = 0.02
    """Largest share of subject rays with wall in front of the subject."""
    tolerance: float = 0.01
    """Hit shares this close to the best count as equal: the smallest wall wins."""
    least_ring: float = 0.25
    """The ring's extent counts as at least this share of the median camera distance: a walk has no width."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A tube and how good it is."""

    tube: Tube
    hit: float
    """Share of the unexplained rays that hit the wall."""
    blocked: float
    """Share of the subject rays with wall in front of the subject."""
    convex: bool
    """All cameras and the subject lie within the hollow: it blocks nothing by convexity."""
    upright: "Placement | None" = None
    """The best tube along up, for comparison."""

    def figures(self) -> dict[str, float]:
        """Numbers for the log."""
        tube, upright = self.tube, self.upright
        numbers = {
            "tube_hit": self.hit,
            "tube_blocked": self.blocked,
            "tube_convex": float(self.convex),
            "tube_semi_axis_1": float(tube.semi_axes[0]),
            "tube_semi_axis_2": float(tube.semi_axes[1]),
            "tube_length": 2 * tube.half_length,
        }
        if upright is not None:
            numbers |= {"tube_upright_hit": upright.hit, "tube_upright_blocked": upright.blocked}
        return numbers


@dataclass(frozen=True)
class _Pose:
    """A tube in units that the search can step through."""

    tilt: float  # degrees from up
    azimuth: float  # degrees round up
    along: float  # 0 centre of the ring ... 1 focus
    size: tuple[float, float]  # in units of the ring
    length: float  # in units of the larger semi-axis


@dataclass(frozen=True)
class _Trial:
    pose: _Pose
    hit: float
    blocked: float
    area: float


LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def place_tube(geometry: ViewGeometry, unexplained: Rays, subject: Rays, bounds: TubeBounds | None = None) -> Placement:
    """The smallest tube that is hit by (nearly) as many unexplained rays as any, and blocks hardly a subject ray.

    A grid over tilt, azimuth, place, size and length, then steps along each of them from the best, halved
    until nothing improves. When no tube keeps to the limit, the one that blocks least is returned.
    """
    bounds = bounds or TubeBounds()
    search = _Search(geometry, unexplained, subject, bounds)
    coarse = _Search(geometry, unexplained.thinned(400), subject.thinned(400), bounds)
    oblique = search.improved(coarse.best_of_grid(np.linspace(*bounds.tilt, 6)), bounds.tilt)
    upright = search.improved(coarse.best_of_grid(np.zeros(1)), (0.0, 0.0))
    return replace(search.placement(oblique), upright=search.placement(upright))


def subject_rays(geometry: ViewGeometry, count: int, generator: np.random.Generator) -> Rays:
    """Rays from the cameras to random points of the subject's ball, reaching to the ball's surface."""
    positions = geometry.positions[generator.integers(len(geometry.positions), size=count)]
    target = generator.normal(size=(count, 3))
    target *= (generator.uniform(size=count) ** (1 / 3) / np.linalg.norm(target, axis=1))[:, None]
    toward = geometry.focus + geometry.subject_radius * target - positions
    directions = toward / np.linalg.norm(toward, axis=1, keepdims=True)
    offset = positions - geometry.focus
    b = (offset * directions).sum(axis=1)
    inner = np.maximum(b * b - (offset**2).sum(axis=1) + geometry.subject_radius**2, 0)
    return Rays(origins=positions, directions=directions, reach=np.maximum(-b - np.sqrt(inner), 0))


class _Search:
    def __init__(self, geometry: ViewGeometry, unexplained: Rays, subject: Rays, bounds: TubeBounds) -> None:
        self.geometry, self.unexplained, self.subject, self.bounds = geometry, unexplained, subject, bounds

    def best_of_grid(self, tilts: np.ndarray) -> _Pose:
        return self._choose([trial for pose in self._grid(tilts) for trial in self._lengths(pose)]).pose

    def improved(self, pose: _Pose, tilt_range: tuple[float, float]) -> _Trial:
        """Steps along every quantity from a first pose, halved when none of them helps."""
        chosen = self._trial(pose)
        trials = [chosen]
        steps = np.array([5.0, 15.0, 0.25, 1.25, 1.2])
        for _ in range(4):
            for _ in range(6):
                trials += [self._trial(near) for near in self._neighbors(chosen.pose, steps, tilt_range)]
                better = self._choose(trials)
                if better == chosen:
                    break
                chosen = better
            steps = np.array([*(steps[:3] / 2), *np.sqrt(steps[3:])])
        return chosen

    def placement(self, trial: _Trial) -> Placement:
        tube = self._tube(trial.pose)
        focus, radius = self.geometry.focus, self.geometry.subject_radius
        shell = np.concatenate([np.eye(3), -np.eye(3), tube.across, -tube.across, [tube.axis, -tube.axis]])
        inside = tube.contains(np.concatenate([self.geometry.positions, focus + radius * shell])).all()
        return Placement(tube=tube, hit=trial.hit, blocked=trial.blocked, convex=bool(inside))

    def _choose(self, trials: list[_Trial]) -> _Trial:
        allowed = [trial for trial in trials if trial.blocked <= self.bounds.blocked]
        if not allowed:
            return min(trials, key=lambda trial: (trial.blocked, -trial.hit))
        best = max(trial.hit for trial in allowed)
        equal = [trial for trial in allowed if trial.hit >= best - self.bounds.tolerance]
        return min(equal, key=lambda trial: (trial.area, -trial.hit))

    def _grid(self, tilts: np.ndarray) -> Iterator[_Pose]:
        for tilt in tilts:
            for azimuth in np.arange(0, 360, 45) if tilt else (0.0,):
                for along in (0.0, 0.5, 1.0):
                    for size in np.geomspace(*self.bounds.size, 5):
                        yield _Pose(float(tilt), float(azimuth), along, (float(size), float(size)), LENGTHS[-1])

    def _neighbors(self, pose: _Pose, steps: np.ndarray, tilt_range: tuple[float, float]) -> Iterator[_Pose]:
        low, high = self.bounds.size
        for sign in (-1, 1):
            yield replace(pose, tilt=float(np.clip(pose.tilt + sign * steps[0], *tilt_range)))
            yield replace(pose, azimuth=pose.azimuth + sign * steps[1])
            yield replace(pose, along=float(np.clip(pose.along + sign * steps[2], 0, 1)))
            for k in (0, 1):
                size = list(pose.size)
                size[k] = float(np.clip(size[k] * steps[3] ** sign, low, high))
                yield replace(pose, size=(size[0], size[1]))
            yield replace(pose, length=float(np.clip(pose.length * steps[4] ** sign, 0.5, self.bounds.length)))

    def _tube(self, pose: _Pose) -> Tube:
        geometry, ring = self.geometry, self.geometry.ring
        tilt, azimuth = np.deg2rad(pose.tilt), np.deg2rad(pose.azimuth)
        lean = np.cos(azimuth) * ring.axes[0] + np.sin(azimuth) * ring.axes[1]
        level = -np.sin(azimuth) * ring.axes[0] + np.cos(azimuth) * ring.axes[1]
        axis = np.cos(tilt) * geometry.up + np.sin(tilt) * lean
        extent = [np.linalg.norm(ring.axes @ side * ring.semi_axes) for side in (level, lean)]
        extent = np.maximum(extent, self.bounds.least_ring * geometry.median_distance)
        semi_axes = extent * pose.size
        return Tube(
            center=ring.center + pose.along * (geometry.focus - ring.center),
            axis=axis,
            across=np.stack([level, np.cross(axis, level)]),
            semi_axes=semi_axes,
            half_length=0.5 * pose.length * float(semi_axes.max()),
        )

    def _trial(self, pose: _Pose) -> _Trial:
        return next(self._lengths(pose, (pose.length,)))

    def _lengths(self, pose: _Pose, lengths: tuple[float, ...] = LENGTHS) -> Iterator[_Trial]:
        """The same tube at several lengths: the crossings are computed once."""
        endless = self._tube(pose)
        needed = [np.sort(endless.needed_half_length(rays)) for rays in (self.unexplained, self.subject)]
        for length in lengths:
            if length <= self.bounds.length:
                half = 0.5 * length * float(endless.semi_axes.max())
                hit, blocked = (np.searchsorted(each, half, "right") / max(len(each), 1) for each in needed)
                area = 2 * half * endless.perimeter
                yield _Trial(replace(pose, length=length), float(hit), float(blocked), area)
