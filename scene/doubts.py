# SPDX-License-Identifier: Apache-2.0
"""What is doubtful about a dataset as its poses and files tell it; nothing is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .cameras import Camera
from .dataset import Scene

FEW_VIEWS = 8
"""Training views below which little more than the photos themselves can be expected."""

FAR_AWAY = 20.0
"""Distance of a camera from the middle, in median distances, from which it hardly belongs to the capture."""

NAMED = 3
"""Views that are named in a line; the others are counted."""


@dataclass(frozen=True)
class Doubt:
    """One thing that is doubtful: a word for it, a line that says what and what to do, the views it is about."""

    kind: str
    text: str
    views: tuple[str, ...] = ()


def doubts(scene: Scene) -> list[Doubt]:
    """Everything that shows without looking at photos."""
    found = [_few_views(scene), _skipped(scene), *_places(scene.cameras), _points(scene)]
    return [doubt for doubt in found if doubt is not None]


def named(views: Sequence[str]) -> str:
    """The first views by name, and how many more."""
    listing = ", ".join(repr(view) for view in views[:NAMED])
    return listing + (f" and {len(views) - NAMED} more" if len(views) > NAMED else "")


def _few_views(scene: Scene) -> Doubt | None:
    count = len(scene.train_cameras)
    if count >= FEW_VIEWS:
        return None
    return Doubt("few views", f"only {count} views to train on: take more photos, 30 or more from all sides")


def _skipped(scene: Scene) -> Doubt | None:
    if not scene.skipped:
        return None
    reasons = [f"{name!r} {reason}" for name, reason in list(scene.skipped.items())[:NAMED]]
    others = len(scene.skipped) - len(reasons)
    text = f"{len(scene.skipped)} registered photos cannot be used and are skipped: {'; '.join(reasons)}"
    return Doubt("skipped", text + (f"; and {others} more" if others else ""), tuple(scene.skipped))


def _places(cameras: Sequence[Camera]) -> list[Doubt]:
    """Cameras at one place, and cameras far from all others."""
    positions = np.array([camera.position for camera in cameras])
    reach = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
    typical = float(np.median(reach))
    if len(cameras) > 1 and reach.max() <= 1e-9 * (1 + np.abs(positions).max()):
        text = "all cameras are at one place: nothing tells how far things are; move between the photos"
        return [Doubt("one place", text)]
    far = [camera.name for camera, away in zip(cameras, reach, strict=True) if away > FAR_AWAY * max(typical, 1e-12)]
    if len(cameras) < 4 or not far:
        return []
    text = f"{len(far)} cameras are {reach.max() / max(typical, 1e-12):.0f} times farther out than usual"
    return [Doubt("extent", f"{text}: {named(far)}; remove them, or pose the photos again", tuple(far))]


def _points(scene: Scene) -> Doubt | None:
    """Points behind all cameras say that poses and points are not of one world."""
    if scene.points is None or len(scene.points) < 10:
        return None
    some = scene.points.xyz[:: max(1, len(scene.points) // 500)]
    seen = np.zeros(len(some), bool)
    for camera in scene.cameras:
        pose = camera.camera_from_world
        seen |= some @ pose[2, :3] + pose[2, 3] > 0
    if seen.mean() > 0.5:
        return None
    return Doubt("points", f"{1 - seen.mean():.0%} of the points lie behind all cameras: they are of another model")
