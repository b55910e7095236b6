# SPDX-License-Identifier: Apache-2.0
"""Coloured points."""

from dataclasses import dataclass

import numpy as np

LARGEST = 1e9
"""Coordinate that no scene has, UTM and earth-centred ones included, but damaged files do."""


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points of the world, xyz float64 [M, 3] in scene units and rgb uint8 [M, 3]; all within `LARGEST`."""

    xyz: np.ndarray
    rgb: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


def sane(values: np.ndarray) -> np.ndarray:
    """Which rows [N] of values [N, C] are numbers of a size that occurs."""
    return (np.abs(values) <= LARGEST).all(axis=1)  # false for NaN


def sane_points(xyz: np.ndarray, rgb: np.ndarray) -> PointCloud | None:
    """The points whose coordinates are sane; None when there is none."""
    good = sane(xyz)
    return PointCloud(xyz[good], rgb[good]) if good.any() else None
