# SPDX-License-Identifier: Apache-2.0
"""What a dataset is and what it will take, in plain words: the first lines of every run."""

from collections import Counter

import numpy as np

from arguments.fields import FULL_RUN

from .cameras import Camera
from .dataset import WIDEST, Scene, kept_share
from .doubts import doubts
from .photo_cache import AHEAD

GAUSSIANS_PER_PIXEL = 1.0
"""Most Gaussians that grow, per pixel of a view; captures differ by a factor of three."""

BYTES_PER_GAUSSIAN = 1_200
"""59 numbers, their gradients, two moments, and what a step needs besides."""

PROGRAM_BYTES = 6e8
"""torch and the rest before the first photo."""

SECONDS_PER_ITERATION, SECONDS_PER_PIXEL = 0.002, 0.5e-6
"""Of one core at 3 GHz, from 4 000 iterations of "bonsai" at 300x200 pixels."""

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
    lines.append(f"Views: {len(train)} for training, {len(test)} held out for testing")
    lines.append(f"Points: {len(scene.points)}" if scene.points else "Points: none in the dataset")
    lines += _masks(scene)
    lines.append(f"Camera extent: {scene.extent:.4g} scene units")
    if scene.zero.any():
        place = ", ".join(f"{value:g}" for value in scene.zero)
        lines.append(f"Coordinates far from zero: trained round ({place}), written back with positions as doubles")
    lines.append(_memory(scene))
    return lines + [f"Doubtful: {doubt.text}" for doubt in doubts(scene)]


def expectations(scene: Scene, iterations: int = FULL_RUN, inserted: int = 0) -> list[str]:
    """What a training run will roughly take that inserts so many Gaussians at once, beside those that grow."""
    pixels = float(np.mean([camera.width * camera.height for camera in scene.train_cameras]))
    photos = min(sum(camera.photo.bytes for camera in scene.cameras), scene.cache.budget)
    gaussians = GAUSSIANS_PER_PIXEL * pixels + inserted
    memory = PROGRAM_BYTES + photos + gaussians * BYTES_PER_GAUSSIAN
    hours = iterations * (SECONDS_PER_ITERATION + pixels * SECONDS_PER_PIXEL) / 3600
    return [
        f"Expected, roughly: {memory / 2**30:.1f} GiB of memory with {gaussians:,.0f} Gaussians at most, and "
        f"{hours:.1f} hours of one core for {iterations} iterations"
    ]


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
