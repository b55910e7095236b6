# SPDX-License-Identifier: Apache-2.0
"""Places to look from, without photos: a cameras.json, or the cameras of a COLMAP model."""

from pathlib import Path

from utils.errors import UserError

from .cameras import Camera, SourceSize, pose
from .colmap import find_model, read_model
from .model_folder import read_cameras


def read_viewpoints(path: Path) -> list[Camera]:
    """Views of a cameras.json file, or of a folder with a COLMAP model or a cameras.json; sorted by name.

    Raises:
        UserError: There is neither, or it is damaged, or a camera has distortion.
    """
    if path.is_file():
        cameras = read_cameras(path)
    elif (folder := find_model(path)) is not None:
        cameras = _of_model(folder)
    elif (path / "cameras.json").is_file():
        cameras = read_cameras(path / "cameras.json")
    else:
        raise UserError(f"--cameras {path}: neither a cameras.json nor a folder with a COLMAP model")
    return sorted(cameras, key=lambda camera: camera.name)


def _of_model(folder: Path) -> list[Camera]:
    model = read_model(folder)
    cameras = []
    for image in model.images:
        intrinsics = model.cameras[image.camera_id]
        lens = intrinsics.pinhole()
        if lens is None:
            raise UserError(
                f"{folder}: camera model {intrinsics.model} is not read yet; undistort it with "
                "'colmap image_undistorter'"
            )
        fx, fy, cx, cy = lens
        cameras.append(
            Camera(
                name=image.name,
                width=intrinsics.width,
                height=intrinsics.height,
                fx=fx,
                fy=fy,
                cx=cx,
                cy=cy,
                camera_from_world=pose(image.rotation, image.translation),
                source=SourceSize(intrinsics.width, intrinsics.height, fx, fy),
            )
        )
    if not cameras:
        raise UserError(f"--cameras {folder}: the COLMAP model has no registered image")
    return cameras
