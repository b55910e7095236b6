# SPDX-License-Identifier: Apache-2.0
"""New Gaussians at photo-consistent depth, and pictures of how things stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scene.depth_sweep import seeds
from scene.gaussian_model import Label
from scene.initialization import gaussians_at

if TYPE_CHECKING:
    from .state import TrainingState

SEED_OPACITY = 0.3
USUAL_PIXELS = 100_000
"""The default numbers of seeds are for photos of so many pixels or fewer."""
MOST_TIMES = 4.0
"""How many times as many larger photos may get; more was not tried."""


def seed_count(state: TrainingState, flag: str, count: int) -> int:
    """How many seeds: `count` if the `flag` gave it, else in proportion to the pixels, which show finer texture."""
    if flag in state.config.given:
        return count
    camera = state.scene.train_cameras[0]
    return round(count * min(MOST_TIMES, max(1.0, camera.width * camera.height / USUAL_PIXELS)))


def numpy_generator(state: TrainingState) -> np.random.Generator:
    """A numpy generator that continues the run's own."""
    return np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=state.generator)))


def insert_seeds(
    state: TrainingState,
    count: int,
    *,
    label: Label,
    weight: Mapping[int, np.ndarray] | None = None,
    inside: Callable[[np.ndarray], np.ndarray] | None = None,
) -> int:
    """Append up to `count` Gaussians at accepted pixels of the plane sweep; returns how many.

    Args:
        state: The run.
        count: Gaussians wanted.
        label: Their origin.
        weight: Worth of the pixels by index of the training camera, [h, w] of any resolution.
        inside: Which world points [K, 3] may be used.
    """
    chosen = seeds(state.depth, count, numpy_generator(state), weight=weight, inside=inside)
    append(state, chosen.points, chosen.colors, scales=chosen.scales, opacity=SEED_OPACITY, label=label)
    state.run.event(f"{len(chosen)} seeds at photo-consistent depth", seeds=len(chosen), label=label.name.lower())
    return len(chosen)


def append(
    state: TrainingState,
    points: np.ndarray,
    colors: np.ndarray,
    *,
    scales: np.ndarray,
    opacity: float,
    label: Label,
    quats: np.ndarray | None = None,
) -> None:
    """Append Gaussians at points [M, 3] with colours [M, 3] in [0, 1], scales [M] or [M, 3], quaternions [M, 4]."""
    if not len(points):
        return

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))

    parameters = gaussians_at(
        tensor(points),
        tensor(colors),
        scales=tensor(scales),
        quats=None if quats is None else tensor(quats),
        opacity=opacity,
        max_sh_degree=state.gaussians.max_sh_degree,
    )
    state.gaussians.append(parameters, label=label, birth=state.iteration)
    state.density.update_reach(state.gaussians)


@torch.no_grad()
def snapshot(state: TrainingState, name: str) -> None:
    """A picture from the middle held-out view (without one, the middle training view)."""
    views = state.scene.test_cameras or state.scene.train_cameras
    state.run.snapshot(name, state.render(views[len(views) // 2]).image.clamp(0, 1))
