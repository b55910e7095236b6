# SPDX-License-Identifier: Apache-2.0
"""What a dataset is, in plain words: the first lines of every run."""

from collections import Counter

from .cameras import Camera
from .dataset import FEWEST_VIEWS, WIDEST, Scene, kept_share
from .photo_cache import AHEAD

NAMED = 3
"""Skipped photos that are named; the others are counted."""

SAMPLED = 40
"""Masked views that are looked at before a run begins."""


def describe(scene: Scene) -> list[str]:
    """What was found, in plain words, a line each."""
    train, test = scene.train_cameras, scene.test_cameras
    lines = [f"Dataset: {scene.source}, {scene.origin}", f"Photos: {len(train) + len(test)}, {_sizes(scene.cameras)}"]
    if scene.limited:
        lines.append(f"Photos wider than {WIDEST} pixels are made smaller; --resolution 1 keeps their size")
    if scene.lenses:
        lines.append(f"Lenses: the distortion of {', '.join(scene.lenses)} is undone")
    if scene.skipped:
        lines.append(_skipped(scene.skipped))
    lines.append(f"Views: {len(train)} for training, {len(test)} held out for testing")
    if len(train) < FEWEST_VIEWS:
        lines.append("Few views: expect little more than these pictures")
    lines.append(f"Points: {len(scene.points)}" if scene.points else "Points: none in the dataset")
    lines += _masks(scene)
    lines.append(f"Camera extent: {scene.extent:.4g} scene units")
    lines.append(_memory(scene))
    return lines


def _skipped(skipped: dict[str, str]) -> str:
    """The first photos by name and reason."""
    reasons = [f"{name!r} {reason}" for name, reason in list(skipped.items())[:NAMED]]
    others = len(skipped) - len(reasons)
    return f"Photos that cannot be used: {len(skipped)}, skipped: {'; '.join(reasons)}" + (
        f"; and {others} more" if others else ""
    )


def _masks(scene: Scene) -> list[str]:
    """How much masks, transparency and lenses leave; a few views tell when there are many."""
    masked = [camera for camera in scene.cameras if camera.photo.masked]
    if not masked:
        return []
    some = masked[:: max(1, len(masked) // SAMPLED)]
    share = (kept_share(some) * len(masked) + len(scene.cameras) - len(masked)) / len(scene.cameras)
    if share == 1:
        return []
    return [f"Masks: {'about ' * (len(some) < len(masked))}{share:.1%} of the pixels are kept"]


def _memory(scene: Scene) -> str:
    """What photos take, and whether all of them can stay."""
    wanted = sum(camera.photo.bytes for camera in scene.cameras)
    line = f"Memory for photos: {wanted / 2**20:.0f} MiB"
    if wanted <= scene.cache.budget:
        return line
    ahead = AHEAD * max(camera.photo.bytes for camera in scene.cameras)
    return (
        f"{line}, of which {(scene.cache.budget + ahead) / 2**20:.0f} MiB are used; the rest is decoded again when "
        "needed (--cache_gb)"
    )


def _sizes(cameras: tuple[Camera, ...]) -> str:
    sizes = Counter((camera.width, camera.height) for camera in cameras)
    if len(sizes) == 1:
        return "{}x{} pixels".format(*next(iter(sizes)))
    smallest, largest = min(sizes), max(sizes)
    return f"{len(sizes)} sizes from {smallest[0]}x{smallest[1]} to {largest[0]}x{largest[1]} pixels"
