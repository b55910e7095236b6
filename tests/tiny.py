# SPDX-License-Identifier: Apache-2.0
"""A tiny world with everything real but its size: Gaussians that are known, cameras round them, photos of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import phases
from arguments import Config, DataConfig, OptimConfig, RunConfig
from gaussian_renderer import render
from phases.start import start
from phases.state import TrainingState
from scene.cameras import Camera, SourceSize, look_at
from scene.dataset import Scene
from scene.gaussian_model import GaussianModel
from scene.initialization import gaussians_at
from scene.photos import Photo
from utils.run_dir import RunDir


def camera(position: Any, *, target: Any = (0, 0, 0), up: Any = (0, 0, 1), width: int = 48, height: int = 36) -> Camera:
    """A camera that looks at `target`; focal length 0.9 of the width, principal point in the middle."""
    focal = 0.9 * width
    return Camera(
        name=f"{np.asarray(position).round(3).tolist()}.png",
        width=width,
        height=height,
        fx=focal,
        fy=focal,
        cx=width / 2,
        cy=height / 2,
        camera_from_world=look_at(np.asarray(position, float), np.asarray(target, float), np.asarray(up, float)),
        source=SourceSize(width, height, focal, focal),
    )


def orbit(count: int = 12, radius: float = 4.0, height: float = 1.0) -> list[Camera]:
    """Cameras on a circle round the origin."""
    angles = 2 * np.pi * np.arange(count) / count
    return [camera((radius * np.cos(a), radius * np.sin(a), height + 0.3 * (k % 2))) for k, a in enumerate(angles)]


def world(seed: int = 0) -> GaussianModel:
    """A coloured ball of Gaussians at the origin, and a far wall all round."""
    generator = torch.Generator().manual_seed(seed)
    ball = torch.nn.functional.normalize(torch.randn(80, 3, generator=generator), dim=1)
    far = torch.nn.functional.normalize(torch.randn(160, 3, generator=generator), dim=1) * 12
    points = torch.cat([ball * 0.8, far])
    scales = torch.cat([torch.full((80,), 0.18), torch.full((160,), 1.6)])
    colors = torch.rand(240, 3, generator=generator)
    return GaussianModel(gaussians_at(points, colors, scales=scales, opacity=0.95))


def scene(count: int = 12) -> Scene:
    """Photos of the world from an orbit; every fourth view is held out."""
    cameras = [photographed(view, world()) for view in orbit(count)]
    train = tuple(view for k, view in enumerate(cameras) if k % 4)
    positions = np.array([view.position for view in train])
    extent = 1.1 * np.linalg.norm(positions - positions.mean(0), axis=1).max()
    return Scene(
        train_cameras=train, test_cameras=tuple(cameras[::4]), points=None, extent=float(extent), source=Path("tiny")
    )


@torch.no_grad()
def photographed(view: Camera, gaussians: GaussianModel) -> Camera:
    """The view with a photo of the Gaussians."""
    image = render(view, gaussians, torch.zeros(3), mult=1.0).image.clamp(0, 1)
    rgb = (image.permute(1, 2, 0) * 255 + 0.5).to(torch.uint8).numpy()
    return replace(view, photo=Photo.in_memory(np.ascontiguousarray(rgb)))


def config(
    path: Path, *, optim: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **run: Any
) -> Config:
    """Settings for a run of 100 iterations in `path`."""
    values = {"iterations": 100, "quiet": True, "model_path": path, "test_iterations": (), "save_iterations": ()}
    events = {"densify_from_iter": 10, "densify_until_iter": 60, "densification_interval": 10, "grace": 5}
    rates = {"opacity_reset_interval": 1000, "late_prune_interval": 1000, "sh_interval": 20}
    return Config(
        run=RunConfig(**(values | run)),
        optim=OptimConfig(**(events | rates | {"position_lr_max_steps": 100} | (optim or {}))),
        data=DataConfig(**(data or {})),
        phases={name: {} for name in phases.available()},
    )


def state(path: Path, settings: Config | None = None, world_of: Scene | None = None) -> TrainingState:
    """A state before its first iteration, in a run folder of its own."""
    settings = settings or config(path)
    return start(settings, world_of or scene(), RunDir.open(settings))
