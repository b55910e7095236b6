# SPDX-License-Identifier: Apache-2.0
"""One posed view.

Camera axes are x right, y down, z forward. A point X of the world is `camera_from_world @ X` in the camera and falls
on u = fx x/z + cx, v = fy y/z + cy in pixels, where (0.5, 0.5) is the centre of the first pixel.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

from .photo_cache import HOST
from .photos import Photo

if TYPE_CHECKING:
    from diff_gaussian_rasterization import View


@dataclass(frozen=True)
class SourceSize:
    """Size and focal lengths in pixels of the capture's own model, before any resizing."""

    width: int
    height: int
    fx: float
    fy: float


# Compared by identity: arrays have no truth value, and a view is itself only.
@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """A view: intrinsics in pixels of the training resolution, pose, photo.

    `camera_from_world` is float64 [4, 4]. `photo` is None for a view that only renders.
    """

    name: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    camera_from_world: np.ndarray
    source: SourceSize
    photo: Photo | None = None
    clamp: tuple[float, float, float, float] | None = None
    """Range of x/z and y/z beyond which splats are not stretched further; by default the view's own."""

    @cached_property
    def position(self) -> np.ndarray:
        """Centre in the world, float64 [3]."""
        return -self.camera_from_world[:3, :3].T @ self.camera_from_world[:3, 3]

    @property
    def viewing_direction(self) -> np.ndarray:
        """Where the camera looks, unit vector [3] in the world."""
        return self.camera_from_world[2, :3]

    @property
    def up(self) -> np.ndarray:
        """What is up in the photo, unit vector [3] in the world."""
        return -self.camera_from_world[1, :3]

    @cached_property
    def view(self) -> "View":
        """The same for the rasteriser."""
        from diff_gaussian_rasterization import View

        return View(
            width=self.width,
            height=self.height,
            fx=self.fx,
            fy=self.fy,
            cx=self.cx,
            cy=self.cy,
            camera_from_world=torch.from_numpy(self.camera_from_world).float(),
            clamp=self.clamp,
        )

    def image(self, device: torch.device = HOST) -> Tensor:
        """The photo, RGB [3, H, W] in [0, 1]."""
        return self._photo().image(device)

    def mask(self, device: torch.device = HOST) -> Tensor | None:
        """1 where the photo counts, 0 where it is masked out, [H, W]; None when all of it counts."""
        return self._photo().mask(device)

    def moved(self, offset: np.ndarray) -> "Camera":
        """The same view in a world whose zero lies `offset` [3] farther on."""
        camera_from_world = self.camera_from_world.copy()
        camera_from_world[:3, 3] += camera_from_world[:3, :3] @ offset
        return replace(self, camera_from_world=camera_from_world)

    def scaled(self, width: int) -> "Camera":
        """The same view at another width, in pixels; the height follows."""
        height = max(1, round(self.height * width / self.width))
        x, y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * x,
            fy=self.fy * y,
            cx=self.cx * x,
            cy=self.cy * y,
            photo=None if self.photo is None else self.photo.resized(width, height),
        )

    def part(self, rows: slice, columns: slice) -> "Camera":
        """These pixels of the view, drawn as they are in the whole, without its photo."""
        return replace(
            self,
            width=columns.stop - columns.start,
            height=rows.stop - rows.start,
            cx=self.cx - columns.start,
            cy=self.cy - rows.start,
            photo=None,
            clamp=self.view.clamp_range,
        )

    def _photo(self) -> Photo:
        if self.photo is None:
            raise UserError(f"view {self.name!r} has no photo; it can only be rendered")
        return self.photo


def pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """`camera_from_world` [4, 4] of a rotation [3, 3] and a translation [3]."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """`camera_from_world` [4, 4] of a camera at `position` that looks at `target`, with `up` upwards in the image."""
    position = np.asarray(position, np.float64)
    forward = np.asarray(target, np.float64) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, np.float64))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return pose(rotation, -rotation @ position)
