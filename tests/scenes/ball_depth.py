# SPDX-License-Identifier: Apache-2.0
"""Depth maps of the tiny world in closed form, so that phases can be tested without a sweep."""

import numpy as np

from phases.state import TrainingState
from scene.depth_sweep import DepthMaps, DepthView


def depth_of_the_ball(state: TrainingState) -> DepthMaps:
    """Depths of a ball of radius 0.8 at the origin, and of a wall at depth 14 behind it."""
    views = []
    for index, camera in enumerate(state.scene.train_cameras):
        u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
        center = camera.camera_from_world[:3, 3]
        a, b = (rays**2).sum(-1), rays @ center
        inner = b * b - a * (center @ center - 0.64)
        depth = np.where(inner > 0, (b - np.sqrt(np.maximum(inner, 0))) / a, 14.0).astype(np.float32)
        rgb = np.round(camera.image().permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        intrinsics = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
        views.append(
            DepthView(
                index=index, intrinsics=intrinsics, camera_from_world=camera.camera_from_world, depth=depth, rgb=rgb
            )
        )
    return DepthMaps(views=tuple(views), seconds=0.0)
