# SPDX-License-Identifier: Apache-2.0
"""A dataset as a phone gives it, only tiny: photos of a textured ball in a textured room, and their COLMAP model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.captures import Capture, Shot
from tests.scenes.raycast import room, scene, solid_texture, sphere, supersampled
from tests.scenes.rigs import RigCamera, photographed, ring


def small_ring(count: int = 12) -> list[RigCamera]:
    """Views of 48x36 pixels from all sides at two heights."""
    size = {"width": 48, "height": 36, "fx": 42.0, "fy": 42.0, "cx": 24.0, "cy": 18.0}
    return [replace(camera, **size) for camera in ring(count, radius=3.0, heights=(0.8, 1.6))]


def write_capture(
    folder: Path, cameras: Sequence[RigCamera] | None = None, finest: tuple[float, float] | None = (1.5, 0.4)
) -> Path:
    """Write images/ and sparse/0/ without points3D; by default the small ring.

    Args:
        folder: Made where it is not there yet.
        cameras: Who takes the photos.
        finest: Cycles per unit of the textures of ball and room; None for the model without photos.
    """
    cameras = small_ring() if cameras is None else cameras
    shots = list(cameras)
    if finest is not None:
        ball = sphere((0, 0, 0), 1.0, solid_texture(1, finest=finest[0]))
        walls = room((7, 7, 4), solid_texture(2, finest=finest[1]))
        shade = scene(ball, walls)
        small = cameras[0].width < 100  # fine enough texture does not alias in larger ones
        shots, _ = photographed(cameras, supersampled(shade, 1 / cameras[0].fx) if small else shade)
    capture = capture_of(shots)
    capture.write_bin(folder / "sparse" / "0")
    (folder / "sparse" / "0" / "points3D.bin").unlink()
    if finest is None:
        return folder
    (folder / "images").mkdir()
    for k, shot in enumerate(shots):
        pixels = (np.clip(shot.photo, 0, 1) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{k:02}.png")
    return folder


def capture_of(cameras: Sequence[RigCamera]) -> Capture:
    """The model of photos called 00.png, 01.png, ... of one camera."""
    first = cameras[0]
    capture = Capture(cameras={1: ("PINHOLE", first.width, first.height, _intrinsics(first))})
    for k, camera in enumerate(cameras):
        x, y, z, w = Rotation.from_matrix(camera.camera_from_world[:3, :3]).as_quat()
        translation = tuple(map(float, camera.camera_from_world[:3, 3]))
        capture.shots.append(Shot(f"{k:02}.png", 1, tuple(map(float, (w, x, y, z))), translation))
    return capture


def _intrinsics(camera: RigCamera) -> tuple[float, ...]:
    return tuple(map(float, (camera.fx, camera.fy, camera.cx, camera.cy)))
