# SPDX-License-Identifier: Apache-2.0
"""Camera paths: an ellipse round the focus, a smooth way through given cameras, or a file.

A path is an array of poses `world_from_camera` [F, 4, 4] (camera axes x right, y down, z forward); the
lens comes from the caller unless the file has its own. Lengths are in scene units.

Files are JSON, in one of two formats. Ours, where only "frames" is needed and each frame has one of two forms:

    {"format": "camera-path-v1", "fps": 24, "width": 640, "height": 480, "fx": 500, "fy": 500,
     "frames": [{"position": [0, 0, -4], "look_at": [0, 0, 0], "up": [0, -1, 0]},
                {"world_from_camera": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -4], [0, 0, 0, 1]]}]}

and `nerfbaselines-v1`, which gives each frame a "pose" of 12 numbers (rows of world_from_camera) and
"intrinsics" [fx, fy, cx, cy], and the path an "image_size" [width, height].
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import UserError

Poses = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Size and intrinsics in pixels, of which a path may know only some: None leaves it to the caller."""

    width: int | None = None
    height: int | None = None
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None


@dataclass(frozen=True)
class CameraPath:
    """Poses [F, 4, 4] (world_from_camera), one lens per frame, and frames per second when the file says."""

    poses: Poses
    lenses: tuple[Lens, ...]
    fps: float | None = None


def path_of(poses: Poses) -> CameraPath:
    """Poses [F, 4, 4] as a path that leaves its lens to the caller."""
    return CameraPath(poses, (Lens(),) * len(poses))


def look_at(position: ArrayLike, target: ArrayLike, up: ArrayLike) -> Poses:
    """world_from_camera [4, 4] of a camera that looks at `target` and whose picture has `up` upwards."""
    position, target, up = (np.asarray(v, dtype=np.float64) for v in (position, target, up))
    forward = _unit(target - position)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-9 * np.linalg.norm(up):  # looking along up: any direction will do
        right = np.cross(forward, np.roll(up, 1) + 0.5)
    right = _unit(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    return pose


def ellipse(positions: ArrayLike, focus: ArrayLike, up: ArrayLike, frames: int) -> Poses:
    """A closed path round the focus that follows camera positions [V, 3] and looks at the focus.

    Where the cameras go round, it lies across `up` at their mean height, its axes along the principal axes
    of their offsets from the focus; positions spread evenly over an ellipse in angle give back that ellipse.
    Where they see the focus from one side only, the same is done round their mean, across the mean viewing
    direction, so that the path never goes where no photo was taken.
    """
    positions, focus = np.asarray(positions, dtype=np.float64), np.asarray(focus, dtype=np.float64)
    up = _unit(np.asarray(up, dtype=np.float64))
    offsets = positions - focus
    flat = offsets - np.outer(offsets @ up, up)
    if _one_sided(flat):
        center = positions.mean(0)
        normal = _unit(center - focus)
    else:
        center, normal = focus + up * (offsets @ up).mean(), up
    spread = positions - center
    spread -= np.outer(spread @ normal, normal)
    _, values, axes = np.linalg.svd(spread / np.sqrt(len(spread)), full_matrices=True)
    semi_axes = np.sqrt(2) * values[:2, None] * axes[:2]  # rms along an axis is semi-axis / sqrt(2)
    angles = 2 * np.pi * np.arange(frames) / frames
    path = center + np.outer(np.cos(angles), semi_axes[0]) + np.outer(np.sin(angles), semi_axes[1])
    return np.stack([look_at(position, focus, up) for position in path])


def interpolate(poses: ArrayLike, frames: int) -> Poses:
    """A smooth way through world_from_camera poses [V, 4, 4], in their order, from the first to the last.

    Positions follow a Catmull-Rom spline with chord-length timing, rotations the shortest arc between
    neighbours. Equal steps in time are equal steps along the chords.
    """
    poses = np.asarray(poses, dtype=np.float64)
    chords = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    keep = np.concatenate([[True], chords > 1e-9 * max(chords.max(initial=0.0), 1e-300)])
    poses = poses[keep]  # a photo taken twice from one place is one stop
    if len(poses) == 1:
        return np.repeat(poses, frames, axis=0)
    times = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1))])
    moments = np.linspace(0, times[-1], frames) if frames > 1 else times[:1]
    result = np.tile(np.eye(4), (frames, 1, 1))
    velocities = np.gradient(poses[:, :3, 3], times, axis=0)
    for k, moment in enumerate(moments):
        i = min(int(np.searchsorted(times, moment, side="right")) - 1, len(poses) - 2)
        length = times[i + 1] - times[i]
        s = (moment - times[i]) / length
        result[k, :3, 3] = _hermite(poses[i : i + 2, :3, 3], length * velocities[i : i + 2], s)
        result[k, :3, :3] = _between(poses[i, :3, :3], poses[i + 1, :3, :3], s)
    return result


def read_path(file: Path) -> CameraPath:
    """Read a camera path; UserError names the frame that is wrong."""
    try:
        content = json.loads(file.read_text())
        frames: Sequence[Any] = content["frames"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'--trajectory {file}: not a JSON camera path with "frames" ({error})') from error
    if not isinstance(frames, list) or not frames:
        raise UserError(f"--trajectory {file}: no frames")
    read = _nerfbaselines_frame if content.get("format") == "nerfbaselines-v1" else _own_frame
    poses, lenses = [], []
    for k, frame in enumerate(frames):
        try:
            pose, lens = read(content, frame)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise UserError(f"--trajectory {file}: frame {k} is not a pose ({error!r})") from error
        if not _is_rigid(pose):
            raise UserError(f"--trajectory {file}: frame {k} is not a rotation and a position")
        poses.append(pose)
        lenses.append(lens)
    fps = content.get("fps")
    if fps is not None and not (isinstance(fps, int | float) and fps > 0):
        raise UserError(f"--trajectory {file}: fps {fps!r} is not a positive number")
    return CameraPath(np.stack(poses), tuple(lenses), fps)


def _own_frame(content: dict[str, Any], frame: dict[str, Any]) -> tuple[Poses, Lens]:
    lens = {**content, **frame}
    sizes = {name: lens.get(name) for name in ("width", "height", "fx", "fy", "cx", "cy")}
    if "world_from_camera" in frame:
        pose = np.array(frame["world_from_camera"], dtype=np.float64).reshape(4, 4)
    else:
        up = frame.get("up", (0, -1, 0))
        pose = look_at(frame["position"], frame["look_at"], up)
    return pose, _lens(sizes)


def _nerfbaselines_frame(content: dict[str, Any], frame: dict[str, Any]) -> tuple[Poses, Lens]:
    pose = np.eye(4)
    pose[:3] = np.array(frame["pose"], dtype=np.float64)[:12].reshape(3, 4)
    sizes = dict(zip(("fx", "fy", "cx", "cy"), frame.get("intrinsics") or (), strict=False))
    sizes.update(zip(("width", "height"), frame.get("image_size") or content["image_size"], strict=True))
    return pose, _lens(sizes)


def _lens(sizes: dict[str, Any]) -> Lens:
    known = {name: value for name, value in sizes.items() if value is not None}
    if any(isinstance(value, bool) or not value > 0 for value in known.values()):
        raise ValueError(f"size or focal length is not positive: {known}")
    kinds = {"width": int, "height": int}
    return Lens(**{name: kinds.get(name, float)(value) for name, value in known.items()})


def _is_rigid(pose: Poses) -> bool:
    rotation = pose[:3, :3]
    return bool(
        np.isfinite(pose).all()
        and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-2)  # files are rounded to 3 decimals
        and np.linalg.det(rotation) > 0
    )


def _one_sided(flat: Poses) -> bool:
    """Whether directions [V, 3] from the focus fill less than about half a circle: their mean is long."""
    lengths = np.linalg.norm(flat, axis=1)
    usable = flat[lengths > 1e-9]
    return len(usable) > 0 and bool(np.linalg.norm((usable / lengths[lengths > 1e-9, None]).mean(0)) > 0.6)


def _hermite(ends: Poses, tangents: Poses, s: float) -> Poses:
    """Cubic from ends[0] to ends[1] with the given tangents, at s in [0, 1]."""
    return (
        (1 + 2 * s) * (1 - s) ** 2 * ends[0]
        + s * (1 - s) ** 2 * tangents[0]
        + s**2 * (3 - 2 * s) * ends[1]
        - s**2 * (1 - s) * tangents[1]
    )


def _between(start: Poses, end: Poses, s: float) -> Poses:
    """Rotation a share s of the way from `start` to `end`, round the one axis that joins them."""
    axis_angle, _ = cv2.Rodrigues(start.T @ end)
    step, _ = cv2.Rodrigues(s * axis_angle)
    return start @ step


def _unit(vector: Poses) -> Poses:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
