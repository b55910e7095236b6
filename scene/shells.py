# SPDX-License-Identifier: Apache-2.0
"""Points on walls round the scene: tube, layers of tubes, sphere, box; evenly spaced, flat, coloured by the photos.

World frame, scene units. M is the number of points. A wall's thin axis is its normal: local z of the quaternion.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .tube import Tube
from .view_geometry import in_image, project

if TYPE_CHECKING:
    from .cameras import Camera

OVERLAP = 0.6
"""Standard deviation along the wall in units of the spacing: neighbours just overlap."""
THIN = 0.1
"""Standard deviation along the normal in units of the one along the wall."""
DENSEST = 40
"""A wall is made at most so many times denser to make up for the points that nobody sees."""


@dataclass(frozen=True, kw_only=True)
class Wall:
    """Points on a surface with their frames."""

    points: np.ndarray
    """[M, 3]."""
    normals: np.ndarray
    """[M, 3] unit."""
    tangents: np.ndarray
    """[M, 3] unit, the first direction along the wall."""
    spacing: np.ndarray
    """[M, 2] distance to the neighbours along the tangent and across it."""

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, chosen: np.ndarray) -> "Wall":
        return Wall(
            points=self.points[chosen],
            normals=self.normals[chosen],
            tangents=self.tangents[chosen],
            spacing=self.spacing[chosen],
        )

    @property
    def scales(self) -> np.ndarray:
        """Standard deviations [M, 3] along tangent, across it and along the normal."""
        along = OVERLAP * self.spacing
        return np.concatenate([along, THIN * along.min(axis=1, keepdims=True)], axis=1)

    @property
    def quats(self) -> np.ndarray:
        """Rotations [M, 4] as (w, x, y, z) whose columns are tangent, normal x tangent, normal."""
        across = np.cross(self.normals, self.tangents)
        return quaternions(np.stack([self.tangents, across, self.normals], axis=2))


def tube_wall(tube: Tube, count: int) -> Wall:
    """At most about `count` points on a tube: rings at equal distances, even arc lengths, every other ring shifted."""
    spacing = np.sqrt(tube.area / count)
    rings = max(1, round(2 * tube.half_length / spacing))
    around = max(3, round(count / rings))
    heights = tube.half_length * ((2 * np.arange(rings) + 1) / rings - 1)
    share = (np.arange(around) + 0.5 * (np.arange(rings)[:, None] % 2)) / around
    angles = _angle_at(tube.semi_axes, share.ravel())
    a, b = tube.semi_axes
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    offset = (circle * (a, b)) @ tube.across + np.repeat(heights, around)[:, None] * tube.axis
    normals = _unit((circle * (b, a)) @ tube.across)
    gaps = (tube.perimeter / around, 2 * tube.half_length / rings)
    return Wall(
        points=tube.center + offset,
        normals=normals,
        tangents=np.cross(tube.axis, normals),
        spacing=np.broadcast_to(gaps, (len(offset), 2)),
    )


def tube_layers(tube: Tube, count: int, factors: Sequence[float]) -> Wall:
    """Concentric tubes: copies of `tube` grown by each factor, an equal share of the points on each."""
    grown = [replace(tube, semi_axes=f * tube.semi_axes, half_length=f * tube.half_length) for f in factors]
    return joined([tube_wall(each, max(1, count // len(grown))) for each in grown])


def sphere_wall(center: np.ndarray, radius: float, count: int, up: np.ndarray) -> Wall:
    """Points on a sphere, along a golden spiral round `up`."""
    k = np.arange(count)
    z, turn = 1 - (2 * k + 1) / count, k * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - z * z)
    side = _unit(np.cross(up, np.eye(3)[np.argmin(np.abs(up))]))
    frame = np.stack([side, np.cross(up, side), up])
    normals = np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1) @ frame
    return _curved(center + radius * normals, normals, frame, radius * np.sqrt(4 * np.pi / count))


def box_wall(center: np.ndarray, axes: np.ndarray, half: np.ndarray, count: int) -> Wall:
    """Points on the six sides of a box with unit `axes` [3, 3] and half sides [3]."""
    spacing = np.sqrt(8 * (half[0] * half[1] + half[1] * half[2] + half[2] * half[0]) / count)
    walls = []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        u, v = (_even(half[side], spacing) for side in (i, j))
        flat = np.stack(np.meshgrid(u, v, indexing="ij"), axis=-1).reshape(-1, 2) @ axes[[i, j]]
        for sign in (-1, 1):
            normals = np.broadcast_to(sign * axes[k], flat.shape)
            walls.append(_curved(center + flat + half[k] * normals, normals, axes, spacing))
    return joined(walls)


def joined(walls: Sequence[Wall]) -> Wall:
    """Several walls as one."""
    return Wall(
        points=np.concatenate([w.points for w in walls]),
        normals=np.concatenate([w.normals for w in walls]),
        tangents=np.concatenate([w.tangents for w in walls]),
        spacing=np.concatenate([w.spacing for w in walls]),
    )


def where_wanted(make: Callable[[int], Wall], count: int, wanted: Callable[[np.ndarray], np.ndarray]) -> Wall:
    """About `count` points of a wall, all of them wanted.

    Args:
        make: Gives the wall with about that many points.
        count: Points to end with; fewer when the wanted part is too small for that.
        wanted: Mask [M] of points [M, 3], such as 'some photo shows it where the render is empty'.
    """
    density = float(count)
    for _ in range(3):
        wall = make(max(1, int(density)))
        kept = wanted(wall.points)
        density = min(density * count / max(int(kept.sum()), 1), DENSEST * count)
        if abs(int(kept.sum()) - count) <= 0.05 * count:
            break
    return wall[kept]


def photo_colors(
    points: np.ndarray, views: Iterable[tuple["Camera", np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Robust mean colour of the photos' pixels that the points fall on.

    Args:
        points: [M, 3].
        views: For each view the camera, its photo [h, w, 3] in [0, 1] and a mask [h, w] of the pixels that
            count; any resolution, coarser ones average over a neighbourhood.

    Returns:
        Colours [M, 3] in [0, 1], the mean of the middle half of the samples, grey where there are none; and
        the number of samples [M].
    """
    samples = np.stack([_sampled(points, *view) for view in views]) if points.size else np.zeros((0, 0, 3))
    count = np.isfinite(samples[..., 0]).sum(axis=0) if len(samples) else np.zeros(len(points), np.int64)
    if not len(samples):
        return np.full((len(points), 3), 0.5), count
    ordered = np.sort(samples, axis=0)  # missing ones go to the end
    place = np.arange(len(samples))[:, None]
    middle = (place >= count // 4) & (place < np.maximum(count - count // 4, 1))
    total = np.where(middle[..., None] & np.isfinite(ordered), ordered, 0).sum(axis=0)
    inner = (middle & (place < count)).sum(axis=0)
    return np.where(count[:, None] > 0, total / np.maximum(inner, 1)[:, None], 0.5), count


def times_seen(points: np.ndarray, views: Iterable[tuple["Camera", np.ndarray]]) -> np.ndarray:
    """In how many views each point [M, 3] falls on a marked pixel of the view's mask [h, w], [M]."""
    total = np.zeros(len(points), dtype=np.int64)
    for camera, mask in views:
        rows, columns, inside = _pixels(points, camera, mask.shape)
        total[inside] += mask[rows, columns] > 0
    return total


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """Unit quaternions [M, 4] as (w, x, y, z), w >= 0, of rotation matrices [M, 3, 3] (Bar-Itzhack 2000)."""
    r = rotations
    k = np.zeros((len(r), 4, 4))
    k[:, 0, 0] = r[:, 0, 0] - r[:, 1, 1] - r[:, 2, 2]
    k[:, 1, 1] = r[:, 1, 1] - r[:, 0, 0] - r[:, 2, 2]
    k[:, 2, 2] = r[:, 2, 2] - r[:, 0, 0] - r[:, 1, 1]
    k[:, 3, 3] = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    k[:, 1, 0] = r[:, 0, 1] + r[:, 1, 0]
    k[:, 2, 0] = r[:, 0, 2] + r[:, 2, 0]
    k[:, 2, 1] = r[:, 1, 2] + r[:, 2, 1]
    k[:, 3, 0] = r[:, 2, 1] - r[:, 1, 2]
    k[:, 3, 1] = r[:, 0, 2] - r[:, 2, 0]
    k[:, 3, 2] = r[:, 1, 0] - r[:, 0, 1]
    vectors = np.linalg.eigh(k)[1][:, :, -1]  # reads the lower triangle
    q = vectors[:, [3, 0, 1, 2]]
    return q * np.where(q[:, :1] < 0, -1, 1)


def _sampled(points: np.ndarray, camera: "Camera", photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colour [M, 3] of each point's pixel, NaN where the point is not seen or the pixel does not count."""
    result = np.full((len(points), 3), np.nan, np.float32)
    rows, columns, inside = _pixels(points, camera, mask.shape)
    counts = mask[rows, columns] > 0
    result[np.flatnonzero(inside)[counts]] = photo[rows[counts], columns[counts]]
    return result


def _pixels(points: np.ndarray, camera: "Camera", shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of the points inside the image at a resolution [h, w], and which points [M] those are."""
    inside = in_image(camera, points)
    pixels, _ = project(camera, points[inside])
    place = np.floor(pixels / (camera.width, camera.height) * (shape[1], shape[0])).astype(np.int64)
    place = np.minimum(place, (shape[1] - 1, shape[0] - 1))
    return place[:, 1], place[:, 0], inside


def _angle_at(semi_axes: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Ellipse parameters at which the arc length from 0 is `share` of the whole (numerically)."""
    angle = np.linspace(0, 2 * np.pi, 4097)
    middle = (angle[1:] + angle[:-1]) / 2
    pace = np.hypot(semi_axes[0] * np.sin(middle), semi_axes[1] * np.cos(middle))
    length = np.concatenate([[0], np.cumsum(pace)])
    return np.interp((share % 1) * length[-1], length, angle)


def _curved(points: np.ndarray, normals: np.ndarray, frame: np.ndarray, spacing: float) -> Wall:
    """A wall whose tangents lie as level as they can in `frame`, with one spacing."""
    tangents = np.cross(frame[2], normals)
    steep = np.linalg.norm(tangents, axis=1) < 1e-6
    tangents[steep] = np.cross(frame[0], normals[steep])
    return Wall(
        points=points,
        normals=normals,
        tangents=_unit(tangents),
        spacing=np.full((len(points), 2), spacing),
    )


def _even(half: float, spacing: float) -> np.ndarray:
    """Middles of about 2 half / spacing equal parts of [-half, half]."""
    count = max(1, round(2 * half / spacing))
    return half * ((2 * np.arange(count) + 1) / count - 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
