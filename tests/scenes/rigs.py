# SPDX-License-Identifier: Apache-2.0
"""Cameras in closed form: rings, arcs, grids, rooms; z is up unless a rig is turned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class RigCamera:
    """A posed camera whose photo is an array [H, W, 3] in [0, 1], or none."""

    name: str
    width: int = 150
    height: int = 100
    fx: float = 130.0
    fy: float = 130.0
    cx: float = 75.0
    cy: float = 50.0
    camera_from_world: np.ndarray
    photo: np.ndarray | None = None
    seen: np.ndarray | None = None

    @property
    def position(self) -> np.ndarray:
        return -self.camera_from_world[:3, :3].T @ self.camera_from_world[:3, 3]

    @property
    def viewing_direction(self) -> np.ndarray:
        return self.camera_from_world[2, :3]

    @property
    def up(self) -> np.ndarray:
        return -self.camera_from_world[1, :3]

    def image(self) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.photo.transpose(2, 0, 1), dtype=np.float32))

    def mask(self) -> torch.Tensor | None:
        return None if self.seen is None else torch.from_numpy(self.seen.astype(np.float32))


def look(position, target, up=(0.0, 0.0, 1.0), name="view") -> RigCamera:
    """A camera at `position` that looks at `target` with its image's top towards `up`."""
    position, target, up = (np.asarray(v, dtype=np.float64) for v in (position, target, up))
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z])
    pose[:3, 3] = -pose[:3, :3] @ position
    return RigCamera(name=name, camera_from_world=pose)


def ring(
    count=24, radius=4.0, heights=(1.0, 2.0), target=(0.0, 0.0, 0.0), arc=2 * np.pi, squash=1.0
) -> list[RigCamera]:
    """Cameras on an ellipse round the target, looking at it, at the given heights in turn."""
    target = np.asarray(target, dtype=np.float64)
    cameras = []
    for k in range(count):
        angle = arc * (k / count if arc > 6 else k / (count - 1))
        offset = (radius * np.cos(angle), squash * radius * np.sin(angle), heights[k % len(heights)])
        cameras.append(look(target + offset, target, name=f"{k:03d}"))
    return cameras


def wall(columns=5, rows=3, step=0.3, distance=5.0, converge=False) -> list[RigCamera]:
    """A grid of cameras in the plane y = 0 that face +y."""
    places = [
        (step * (i - (columns - 1) / 2), 0.0, step * (j - (rows - 1) / 2)) for j in range(rows) for i in range(columns)
    ]
    return [
        look(p, (0, distance, 0) if converge else (p[0], distance, p[2]), name=f"{k:03d}") for k, p in enumerate(places)
    ]


def room(count=16, radius=0.5) -> list[RigCamera]:
    """An inside-out capture: cameras on a small circle that look away from its centre."""
    angles = 2 * np.pi * np.arange(count) / count
    return [
        look((radius * np.cos(a), radius * np.sin(a), 0.1 * (k % 2)), (9 * np.cos(a), 9 * np.sin(a), 0.1 * (k % 2)))
        for k, a in enumerate(angles)
    ]


def lawnmower(columns=5, rows=4, step=1.0, height=6.0) -> list[RigCamera]:
    """A nadir flight in lanes: the camera looks straight down, the drone turns at the end of each lane."""
    cameras = []
    for j in range(rows):
        for i in range(columns):
            heading = (1.0, 0.0, 0.0) if j % 2 == 0 else (-1.0, 0.0, 0.0)
            place = np.array([step * i, step * j, height])
            cameras.append(look(place, place - (0, 0, 1), up=heading, name=f"{j}{i}"))
    return cameras


def moved(cameras: Sequence[RigCamera], rotation=None, scale: float = 1.0, offset=(0.0, 0.0, 0.0)) -> list[RigCamera]:
    """The same cameras in another world: x' = scale * rotation x + offset."""
    rotation = np.eye(3) if rotation is None else rotation
    result = []
    for camera in cameras:
        pose = np.eye(4)
        pose[:3, :3] = camera.camera_from_world[:3, :3] @ rotation.T
        position = scale * rotation @ camera.position + np.asarray(offset)
        pose[:3, 3] = -pose[:3, :3] @ position
        result.append(replace(camera, camera_from_world=pose))
    return result


def some_rotation(seed=0) -> np.ndarray:
    """A rotation with no axis near a world axis."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def photographed(cameras: Sequence[RigCamera], shade: Callable) -> tuple[list[RigCamera], list[np.ndarray]]:
    """The cameras with their photos, and the true depth maps; `shade(origin, rays) -> (rgb, distance)`.

    Rays [H, W, 3] have length 1 along the optical axis, so that distances along them are depths.
    """
    shots, depths = [], []
    for camera in cameras:
        u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1)
        rgb, depth = shade(camera.position, rays @ camera.camera_from_world[:3, :3])
        shots.append(replace(camera, photo=rgb))
        depths.append(depth)
    return shots, depths
