# SPDX-License-Identifier: Apache-2.0
"""Coloured points."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points of the world, xyz float64 [M, 3] in scene units and rgb uint8 [M, 3]; all finite."""

    xyz: np.ndarray
    rgb: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


def finite(xyz: np.ndarray, rgb: np.ndarray) -> PointCloud | None:
    """The points whose coordinates are numbers; None when there is none."""
    good = np.isfinite(xyz).all(axis=1)
    return PointCloud(xyz[good], rgb[good]) if good.any() else None
