# SPDX-License-Identifier: Apache-2.0
"""Phase 1: wrap the subject in oblique hollow elliptical tubes, then train the whole scene.

Seeds go first, to surfaces of known depth wherever the render is empty or wrong. The wall is for what no depth
could be found for: sky, ceiling, plain walls, glass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from arguments import setting
from scene.cameras import Camera
from scene.gaussian_model import Label
from scene.shells import Wall, box_wall, photo_colors, sphere_wall, times_seen, tube_layers, tube_wall, where_wanted
from scene.tube import Placement, Rays, place_tube, subject_rays

from .base import Phase
from .density import Events, keeping, last_reset
from .every import Every
from .seeding import append, insert_seeds, numpy_generator, seed_count, snapshot
from .state import Step, TrainingState

EMPTY = 0.5
"""Accumulated alpha below which a pixel is unexplained."""
WRONG = 0.1
"""Mean absolute error above which an opaque pixel is wrong."""
SEEDED = 0.1
"""Alpha that seeds have added where they explain a pixel."""
LAYERS = (1.0, 2.0, 4.0, 10.0)
"""Sizes of concentric tubes relative to the placed one, about even in inverse depth; that one is as small as it can be,
often right behind the cameras."""
SPHERE = 2.5
"""Radius of the sphere, and half side of the box, in units of the camera ring's larger semi-axis."""
WALL, BARE_WALL = 2_000, 5_000
"""Gaussians on the wall unless given, with seeds and without."""
VIEW_PIXELS = 6_000
"""Resolution at which the photos are asked for what is missing."""


@dataclass(frozen=True)
class _Look:
    """A training view before the insertion, reduced to about `VIEW_PIXELS` pixels."""

    camera: Camera
    photo: np.ndarray  # [h, w, 3]
    empty: np.ndarray  # [h, w] bool
    bad: np.ndarray  # [h, w] share of the pixels that are empty or wrong
    alpha: np.ndarray  # [h, w]


@dataclass(kw_only=True)
class Ambient(Phase):
    """Surroundings: seeds, the wall, then FastGS on the whole image."""

    name: ClassVar[str] = "ambient"
    share: ClassVar[float] = 16 / 30

    shape: Literal["tube", "layers", "sphere", "box", "none"] = setting(
        "layers", "What is put round the scene: one tube, layers of tubes, a sphere, a box."
    )
    points: int = setting(-1, f"Gaussians on the wall; -1: {WALL} with seeds, {BARE_WALL} without.", low=-1)
    seeds: int = setting(
        10_000,
        "Seeds at photo-consistent depth where the render is empty or wrong; for large photos more, unless given.",
        low=0,
    )
    opacity: float = setting(0.1, "Opacity of the wall's Gaussians at the start.", low=0.005, high=0.99)
    opaque: float = setting(0.05, "Weight of the mean transparency in the loss: photos have no holes.", low=0)
    densify_after: int = setting(1_000, "First densification, iterations after the insertion.", scaled=True, low=0)
    reset_after: int = setting(3_000, "No opacity reset so long after the insertion.", scaled=True, low=0)
    reset_until: int = setting(12_000, "Last opacity reset; none shortly before the keeping.", scaled=True, low=0)
    snapshot_every: int = setting(1_000, "Iterations between the three pictures.", scaled=True, low=1)

    @property
    def inserts(self) -> int:
        """Seeds, and the wall of a run with seeds."""
        return self.seeds + max(self.points, WALL)

    @torch.no_grad()
    def on_start(self, state: TrainingState) -> None:
        """Insert seeds and wall; keep pictures before and after."""
        snapshot(state, "ambient_before")
        looks = [_look(state, camera) for camera in state.scene.train_cameras]
        seeded = state.config.run.seeds == "all" and self.seeds > 0
        if seeded:
            bad = {index: look.bad for index, look in enumerate(looks)}
            insert_seeds(state, seed_count(state, "--ambient_seeds", self.seeds), label=Label.AMBIENT, weight=bad)
        if self.shape != "none":
            count = self.points if self.points >= 0 else WALL if seeded else BARE_WALL
            self._insert_wall(state, looks, count)
        snapshot(state, "ambient_insertion")

    def _insert_wall(self, state: TrainingState, looks: list[_Look], count: int) -> None:
        """Gaussians on the wall, where some photo shows what neither phase 0 nor a seed explains."""
        make = self._wall(state, looks)
        open_views = [(look.camera, _unexplained(state, look)) for look in looks]

        def wanted(points: np.ndarray) -> np.ndarray:
            return times_seen(points, open_views) > 0

        if not count or not any(mask.any() for _, mask in open_views):
            state.run.event(f"nothing is left unexplained: no wall ({self.shape})", wall=0)
            return
        wall = where_wanted(make, count, wanted)
        colors, _ = photo_colors(
            wall.points,
            ((look.camera, look.photo, mask) for look, (_, mask) in zip(looks, open_views, strict=True)),
        )
        append(
            state,
            wall.points,
            colors,
            scales=wall.scales,
            quats=wall.quats,
            opacity=self.opacity,
            label=Label.AMBIENT,
        )
        state.run.event(f"{len(wall)} Gaussians on the wall ({self.shape})", wall=len(wall))

    def _wall(self, state: TrainingState, looks: list[_Look]) -> Callable[[int], Wall]:
        """The chosen shape as a function of the number of points."""
        ring, focus, up = state.geometry.ring, state.geometry.focus, state.geometry.up
        reach = SPHERE * max(float(ring.semi_axes[0]), 0.25 * state.geometry.median_distance)
        if self.shape == "sphere":
            return lambda count: sphere_wall(focus, reach, count, up)
        if self.shape == "box":
            axes = np.vstack([ring.axes, up])
            return lambda count: box_wall(focus, axes, np.full(3, reach), count)
        tube = self._place(state, looks).tube
        if self.shape == "layers":
            return lambda count: tube_layers(tube, count, LAYERS)
        return lambda count: tube_wall(tube, count)

    def _place(self, state: TrainingState, looks: list[_Look]) -> Placement:
        generator = numpy_generator(state)
        placement = place_tube(
            state.geometry, _empty_rays(looks, 2_000, generator), subject_rays(state.geometry, 1_000, generator)
        )
        figures = placement.figures()
        state.run.log(**figures)
        upright = placement.upright or placement
        state.run.event(
            f"tube: {placement.hit:.1%} of the unexplained rays hit it, {placement.blocked:.1%} of the subject "
            f"rays are blocked{' (none can be: convex)' if placement.convex else ''}; upright {upright.hit:.1%} "
            f"and {upright.blocked:.1%}",
            tube={
                "center": placement.tube.center.tolist(),
                "axis": placement.tube.axis.tolist(),
                "across": placement.tube.across.tolist(),
                "semi_axes": placement.tube.semi_axes.tolist(),
                "half_length": placement.tube.half_length,
            },
        )
        return placement

    def loss(self, state: TrainingState, step: Step) -> dict[str, Tensor]:
        """The FastGS loss, and what shines through from the background where the photo counts."""
        terms = super().loss(state, step)
        if self.opaque:
            clear = 1 - step.output.alpha
            terms["holes"] = self.opaque * (clear if step.mask is None else clear * step.mask).mean()
        return terms

    def events(self, state: TrainingState) -> Events:
        """FastGS's events, kept away from the insertion."""
        optim, end = state.config.optim, self.end + 1
        until = min(end, optim.densify_until_iter)
        calm = self.start + self.reset_after
        reset_end = min(end, min(self.reset_until, last_reset(state.config)) + 1)
        return Events(
            densify=Every(optim.densification_interval, self.start - 1 + self.densify_after, until),
            reset_opacity=Every(optim.opacity_reset_interval, calm - 1, reset_end),
            late_prune=Every(optim.late_prune_interval, optim.densify_until_iter, end),
            keep=keeping(state.config),
        )

    def sh_degree(self, state: TrainingState) -> int:
        """One more every `sh_interval` iterations of the phase."""
        return 1 + (state.iteration - self.start) // state.config.optim.sh_interval

    def after_step(self, state: TrainingState) -> None:
        """FastGS's events, and three pictures of the progress."""
        super().after_step(state)
        since = state.iteration - (self.start - 1)
        if since % self.snapshot_every == 0 and since <= 3 * self.snapshot_every:
            snapshot(state, f"ambient_{since // self.snapshot_every}")


def _look(state: TrainingState, camera: Camera) -> _Look:
    """Render a view and compare it with its photo; masked pixels are neither empty nor wrong."""
    output, (photo, mask) = state.render(camera), state.photo(camera)
    error = (output.image - photo).abs().mean(0)
    empty = output.alpha < EMPTY
    bad = empty | (error > WRONG)
    if mask is not None:
        empty, bad = empty & (mask > 0), bad & (mask > 0)
    reduction = min(1.0, (VIEW_PIXELS / (camera.width * camera.height)) ** 0.5)
    size = max(1, round(camera.width * reduction)), max(1, round(camera.height * reduction))

    def reduced(values: Tensor) -> np.ndarray:
        return cv2.resize(np.ascontiguousarray(values.cpu(), np.float32), size, interpolation=cv2.INTER_AREA)

    return _Look(
        camera=camera,
        photo=reduced(photo.permute(1, 2, 0)),
        empty=reduced(empty) > 0.5,
        bad=reduced(bad),
        alpha=reduced(output.alpha),
    )


def _unexplained(state: TrainingState, look: _Look) -> np.ndarray:
    """Pixels [h, w] that were empty before the seeds came and that the seeds do not cover, bool."""
    size = look.alpha.shape[::-1]
    alpha = cv2.resize(state.render(look.camera).alpha.cpu().numpy(), size, interpolation=cv2.INTER_AREA)
    return look.empty & (alpha - look.alpha < SEEDED)


def _empty_rays(looks: list[_Look], count: int, generator: np.random.Generator) -> Rays:
    """Rays through random empty pixels of all views, every pixel as likely."""
    pixels = np.array([int(look.empty.sum()) for look in looks])
    shares = generator.multinomial(count, pixels / pixels.sum()) if pixels.sum() else np.zeros(len(looks), int)
    parts = [_pixel_rays(look, share, generator) for look, share in zip(looks, shares, strict=True) if share]
    if not parts:
        return Rays(origins=np.zeros((0, 3)), directions=np.zeros((0, 3)), reach=np.zeros(0))
    origins, directions = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Rays(origins=origins, directions=directions, reach=np.full(len(origins), np.inf))


def _pixel_rays(look: _Look, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Origins and unit directions [count, 3] of rays through random empty pixels of a view."""
    camera, (height, width) = look.camera, look.empty.shape
    rows, columns = np.nonzero(look.empty)
    chosen = generator.integers(len(rows), size=count)
    x = ((columns[chosen] + 0.5) / width * camera.width - camera.cx) / camera.fx
    y = ((rows[chosen] + 0.5) / height * camera.height - camera.cy) / camera.fy
    rays = np.stack([x, y, np.ones(count)], axis=1) @ camera.camera_from_world[:3, :3]
    directions = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return np.repeat(camera.position[None], count, axis=0), directions
