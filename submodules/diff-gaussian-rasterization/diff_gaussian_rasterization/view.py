# SPDX-License-Identifier: Apache-2.0
"""What a camera sees, in the units of the rasteriser."""

from dataclasses import dataclass, field
from types import ModuleType

import torch

from . import _native

CLAMP_MARGIN = 1.3  # of the image's half width: beyond it, a ray's slope no longer stretches a splat


@dataclass
class Room:
    """For how many (tile, Gaussian) pairs a card makes arrays before it has counted them; decides about no result."""

    entries: int | None = None
    """Pairs of the last picture; None before the first."""

    @property
    def capacity(self) -> int | None:
        """A quarter more, in few sizes, so that memory can be used again."""
        if self.entries is None:
            return None
        step = 1 << max(self.entries.bit_length() - 3, 8)
        return (self.entries + self.entries // 4) // step * step + step


@dataclass(frozen=True)
class View:
    """A pinhole camera: x right, y down, z forward; the first pixel's centre is at (0.5, 0.5)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    camera_from_world: torch.Tensor
    """[4, 4], any float dtype."""
    near: float = 0.2
    """Splats whose centre is nearer than this are not drawn; scene units."""
    clamp: tuple[float, float, float, float] | None = None
    """Range (xmin, xmax, ymin, ymax) of x/z and y/z in the projection's Jacobian. A crop of a larger image has to
    carry the large image's range to look the same. Default: 1.3 times this image's own."""
    room: Room = field(default_factory=Room, repr=False, compare=False)

    @property
    def clamp_range(self) -> tuple[float, float, float, float]:
        """The given clamp range or the default one."""
        if self.clamp is not None:
            return self.clamp
        return (
            -CLAMP_MARGIN * self.cx / self.fx,
            CLAMP_MARGIN * (self.width - self.cx) / self.fx,
            -CLAMP_MARGIN * self.cy / self.fy,
            CLAMP_MARGIN * (self.height - self.cy) / self.fy,
        )

    @property
    def position(self) -> torch.Tensor:
        """Camera centre in the world, [3] float64."""
        matrix = self.camera_from_world.detach().to(torch.float64)
        return -(matrix[:3, :3].T @ matrix[:3, 3])

    def native(self, module: ModuleType = _native) -> "_native.Camera":
        """The same camera for the stages of a native module."""
        camera = module.Camera()
        camera.width, camera.height = int(self.width), int(self.height)
        camera.fx, camera.fy = float(self.fx), float(self.fy)
        camera.cx, camera.cy = float(self.cx), float(self.cy)
        camera.near = float(self.near)
        rows = self.camera_from_world.tolist()[:3]
        camera.camera_from_world = [entry for row in rows for entry in row]
        camera.position = [-sum(row[axis] * row[3] for row in rows) for axis in range(3)]
        camera.clamp = [float(bound) for bound in self.clamp_range]
        return camera
