# SPDX-License-Identifier: Apache-2.0
"""Phase 0: the main subject first, and nothing else.

The subject is the ball round the point that the cameras look at (`scene.view_geometry`). The photos count
inside its projection and fall off smoothly outside; Gaussians that stray from the ball are pulled back; half
way through, seeds are placed on surfaces that the plane sweep found inside it, and some on those that show
behind it, so that the subject's Gaussians need not imitate its background.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from arguments import setting
from scene.cameras import Camera
from scene.gaussian_model import GaussianModel, Label
from scene.photo_cache import HOST
from scene.view_geometry import ViewGeometry, covisibility

from .base import LEAST_MEAN_WEIGHT, Phase
from .density import Events
from .every import Every
from .seeding import insert_seeds, seed_count, snapshot
from .state import Step, TrainingState


@dataclass(kw_only=True)
class MainRegion(Phase):
    """Photometric loss weighted by the projected main region, and a pull back into it."""

    name: ClassVar[str] = "main"
    share: ClassVar[float] = 4 / 30

    seeds: int = setting(
        5_000, "Seeds at photo-consistent depth inside the main region; for large photos more, unless given.", low=0
    )
    behind: int = setting(
        1_500, "Seeds behind it, where its pixels show something farther; for large photos more, unless given.", low=0
    )
    seeds_at: float = setting(0.5, "Share of the phase after which they are placed.", low=0, high=1)
    seed_reach: float = setting(1.2, "Seeds lie within so many subject radii of the focus.", low=0)
    falloff: float = setting(0.5, "Width of the soft edge of the region, in subject radii.", low=1e-3)
    penalty: float = setting(0.1, "Weight of the penalty on Gaussians outside the region.", low=0)
    sh_from: int = setting(3_000, "Iteration from which SH degree 1 is used.", scaled=True, low=0)
    max_extent: float = setting(10.0, "At the end larger ones go; in medians of longest axis over distance.", low=1)
    min_covisible: float = setting(0.1, "Less co-visible ones too; share of the focus' cameras and spread.", low=0)

    @property
    def inserts(self) -> int:
        """Seeds in the region and behind it."""
        return self.seeds + self.behind

    @torch.no_grad()
    def after_step(self, state: TrainingState) -> None:
        """Densification; half way through also the seeds."""
        super().after_step(state)
        if state.config.run.seeds == "none":
            return
        if state.iteration == min(self.start + int(self.seeds_at * self.length), self.end):
            self._insert_seeds(state)

    def _insert_seeds(self, state: TrainingState) -> None:
        """The subject's surfaces, and what shows behind them through the projected region."""
        geometry, reach = state.geometry, self.seed_reach * state.geometry.subject_radius

        def inside(points: np.ndarray) -> np.ndarray:
            return np.linalg.norm(points - geometry.focus, axis=1) < reach

        if self.seeds:
            insert_seeds(state, seed_count(state, "--main_seeds", self.seeds), label=Label.SUBJECT, inside=inside)
        if self.behind:
            views = [(view.index, state.scene.train_cameras[view.index]) for view in state.depth.views]
            weight = {index: region_weight(camera, geometry, self.falloff).numpy() for index, camera in views}
            count = seed_count(state, "--main_behind", self.behind)
            insert_seeds(state, count, label=Label.AMBIENT, weight=weight, inside=lambda points: ~inside(points))

    def loss(self, state: TrainingState, step: Step) -> dict[str, Tensor]:
        """The weighted photometric loss and the pull back into the region."""
        terms = super().loss(state, step)
        if self.penalty:
            own = (state.gaussians.labels == Label.SUBJECT).float()
            outside = (relative_radius(state.gaussians.means, state.geometry) - 1).relu()
            terms["region"] = self.penalty * (own * outside.square()).sum() / own.sum().clamp_min(1)
        return terms

    def pixel_weight(self, state: TrainingState, step: Step) -> Tensor:
        """1 inside the projected region, falling off outside, 0 where masked; divided by its mean."""
        weight = region_weight(step.camera, state.geometry, self.falloff, state.device)
        if step.mask is not None:
            weight = weight * step.mask
        return weight / weight.mean().clamp_min(LEAST_MEAN_WEIGHT)

    def events(self, state: TrainingState) -> Events:
        """Densification by the whole image's scores times the region's weight; nothing else."""
        optim = state.config.optim

        def in_region(gaussians: GaussianModel) -> Tensor:
            return soft_edge(relative_radius(gaussians.means.detach(), state.geometry), self.falloff)

        densify = Every(optim.densification_interval, optim.densify_from_iter, self.end + 1)
        return Events(densify=densify, importance=in_region)

    def sh_degree(self, state: TrainingState) -> int:
        """0, then 1."""
        return int(state.iteration >= self.sh_from)

    @torch.no_grad()
    def on_end(self, state: TrainingState) -> None:
        """Drop what is too large or too little seen; keep a picture."""
        before = len(state.gaussians)
        state.gaussians.keep(self._sound(state))
        state.density.finish(state)
        state.run.event(f"main region: {before - len(state.gaussians)} of {before} Gaussians pruned")
        snapshot(state, "main_end")

    def _sound(self, state: TrainingState) -> Tensor:
        """Rows that are neither outliers in extent nor nearly unseen, bool [N]."""
        if not len(state.gaussians):
            return torch.zeros(0, dtype=torch.bool, device=state.device)
        largest = state.gaussians.scales.amax(1) / state.density.relative_distance(state.gaussians.means)
        cameras = state.scene.train_cameras
        count, spread = covisibility(state.gaussians.means.detach().cpu().numpy().astype(np.float64), cameras)
        full_count, full_spread = covisibility(state.geometry.focus[None], cameras)
        seen = (count >= self.min_covisible * full_count) & (spread >= self.min_covisible * full_spread)
        return (largest <= self.max_extent * largest.median()) & torch.from_numpy(seen).to(state.device)


def region_weight(camera: Camera, geometry: ViewGeometry, falloff: float, device: torch.device = HOST) -> Tensor:
    """Weight [H, W] of each pixel: 1 where its ray meets the subject's ball, falling off with the angle to it.

    Args:
        camera: The view.
        geometry: Focus and subject radius.
        falloff: Width of the edge in units of the ball's angular radius.
        device: Where the weight is wanted.
    """
    pose = camera.camera_from_world
    center = pose[:3, :3] @ geometry.focus + pose[:3, 3]
    distance = float(np.linalg.norm(center))
    x = (torch.arange(camera.width, device=device) + 0.5 - camera.cx) / camera.fx
    y = ((torch.arange(camera.height, device=device) + 0.5 - camera.cy) / camera.fy)[:, None]
    along = (center[0] * x + center[1] * y + center[2]) / (distance * (x * x + y * y + 1).sqrt())
    radius = np.arcsin(min(geometry.subject_radius / distance, 1.0))
    return soft_edge(along.clamp(-1, 1).acos().float() / radius, falloff)


def relative_radius(means: Tensor, geometry: ViewGeometry) -> Tensor:
    """Distance of points [N, 3] to the focus in subject radii, [N]."""
    return (means - torch.as_tensor(geometry.focus).to(means)).norm(dim=1) / geometry.subject_radius


def soft_edge(radius: Tensor, falloff: float) -> Tensor:
    """1 up to radius 1, then a Gaussian of that width."""
    return torch.exp(-0.5 * ((radius - 1).relu() / falloff).square())
