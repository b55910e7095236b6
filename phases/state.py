# SPDX-License-Identifier: Apache-2.0
"""All that a phase may read or change, and what one training step looked at."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from arguments import Config
from gaussian_renderer import RenderOutput, render
from scene.cameras import Camera
from scene.dataset import Scene
from scene.depth_sweep import DepthMaps, sweep
from scene.gaussian_model import GaussianModel
from scene.photo_cache import AHEAD
from scene.view_geometry import ViewGeometry
from utils.run_dir import RunDir

from .density import DensityControl, keeping
from .dropout import thinned
from .optimizer import Optimizer
from .ranks import OneProcess
from .watch import Watch


@dataclass(frozen=True)
class Step:
    """One view as a phase sees it: the photo [3, H, W], its mask [H, W] or None, and the render."""

    iteration: int
    camera: Camera
    target: Tensor
    mask: Tensor | None
    output: RenderOutput

    @property
    def l1(self) -> Tensor:
        """Mean absolute error where the mask leaves anything, a scalar; not part of the loss."""
        error = (self.output.image.detach() - self.target).abs()
        return error.mean() if self.mask is None else (error * self.mask).mean() / self.mask.mean().clamp_min(1e-6)


@dataclass
class TrainingState:
    """A run in progress. `iteration` counts finished steps."""

    config: Config
    scene: Scene
    geometry: ViewGeometry
    gaussians: GaussianModel
    optimizer: Optimizer
    generator: torch.Generator
    run: RunDir
    density: DensityControl = field(init=False)
    watch: Watch = field(init=False)
    ranks: OneProcess = field(default_factory=OneProcess)
    iteration: int = 0
    pending_cameras: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = Watch(self.device)

    @property
    def device(self) -> torch.device:
        """Where the Gaussians are, and all tensors that meet them."""
        return self.gaussians.device

    @cached_property
    def depth(self) -> DepthMaps:
        """Depth of the training photos, swept when first asked for and cached beside the run."""
        maps = sweep(
            self.scene.train_cameras,
            self.geometry,
            threads=self.config.run.threads,
            cache=self.run.path / "depth.npz",
        )
        self.run.event(
            f"plane sweep: depth for {maps.accepted:.1%} of the pixels of {len(maps.views)} views",
            accepted=maps.accepted,
            stage="plane sweep",
            seconds=maps.seconds,
        )
        return maps

    def next_views(self) -> list[tuple[Camera, Tensor]]:
        """The next step's training views, each with the colour [3] behind the scene."""
        views = [(self._next_camera(), self.background()) for _ in range(self.config.optim.views_per_step)]
        coming = [self.scene.train_cameras[index] for index in self.ranks.mine(self.pending_cameras[::-1])[:AHEAD]]
        self.scene.expect([*(camera for camera, _ in self.ranks.mine(views)), *coming])
        return views

    def _next_camera(self) -> Camera:
        """Every epoch is a fresh permutation."""
        if not self.pending_cameras:
            order = torch.randperm(len(self.scene.train_cameras), generator=self.generator)
            self.pending_cameras = order.tolist()
        return self.scene.train_cameras[self.pending_cameras.pop()]

    def background(self) -> Tensor:
        """Colour [3] behind the scene in training."""
        if self.config.data.random_background:
            return torch.rand(3, generator=self.generator).to(self.device)
        return self.fixed_background()

    def fixed_background(self) -> Tensor:
        """Colour [3] behind the scene in evaluation."""
        return torch.full((3,), float(self.config.data.white_background), device=self.device)

    def photo(self, camera: Camera) -> tuple[Tensor, Tensor | None]:
        """The photo of a view [3, H, W] and its mask [H, W], None when all of it counts."""
        return camera.image(self.device), camera.mask(self.device)

    def draw(self, camera: Camera, background: Tensor, *, dropout: float, count_seen: bool = False) -> RenderOutput:
        """A training view: a share of the Gaussians is left out, the same ones in whatever process or resumed run.

        With `count_seen` a masked view has `counts`: in how many unmasked pixels each Gaussian is.
        """
        seed = f"{self.config.run.seed} {self.iteration} {camera.name}"
        thin = thinned(self.gaussians.logit_opacities, dropout, seed) if dropout else None
        seen = camera.mask(self.device) if count_seen else None
        return self.render(camera, background=background, logit_opacities=thin, count_mask=seen)

    def render(self, camera: Camera, **options: Any) -> RenderOutput:
        """The present Gaussians from a camera, as they are evaluated: fixed background, the run's compact box."""
        options.setdefault("background", self.fixed_background())
        return render(camera, self.gaussians, mult=self.mult, **options)

    @property
    def mult(self) -> float:
        """Compact-box factor of this iteration: small while Gaussians grow, the full footprint for those that stay."""
        config, final = self.config, self.config.pipeline.mult_final
        if final is None:
            as_given = config.run.phases == "none" or config.optim.fastgs_faithful or "--mult" in config.given
            final = config.pipeline.mult if as_given else 1.0
        return final if self.iteration >= keeping(config)[0] else config.pipeline.mult

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact continuation needs, as plain data."""
        return {
            "iteration": self.iteration,
            "rows": self.gaussians.rows.state_dict(),
            "sh_degree": self.gaussians.sh_degree,
            "optimizer": self.optimizer.state_dict(),
            "density": self.density.state_dict(),
            "generator": self.generator.get_state(),
            "pending_cameras": list(self.pending_cameras),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.iteration = saved["iteration"]
        self.gaussians.rows.load_state_dict(saved["rows"])
        self.gaussians.sh_degree = saved["sh_degree"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.density.load_state_dict(saved["density"])
        self.generator.set_state(saved["generator"])
        self.pending_cameras = list(saved["pending_cameras"])
