# SPDX-License-Identifier: Apache-2.0
"""Places to look from, without photos: a cameras.json, the cameras of a COLMAP model, a camera path."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils import trajectory
from utils.errors import UserError

from .cameras import Camera, SourceSize, pose
from .colmap import find_model, read_model
from .model_folder import ORIGIN, read_cameras
from .view_geometry import view_geometry


def read_viewpoints(path: Path) -> list[Camera]:
    """Views of a cameras.json file, or of a folder with a COLMAP model or a cameras.json; sorted by name.

    Raises:
        UserError: There is neither, or it is damaged.
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


def camera_path(
    name: str, cameras: Sequence[Camera], frames: int, zero: np.ndarray = ORIGIN
) -> tuple[list[Camera], float | None]:
    """The cameras of a path, and its frames per second where it has its own.

    Args:
        name: "ellipse" round the focus of `cameras`, "interp" through them in their order, or a path file.
        cameras: Views of the scene; what a path leaves open of its lens is as in the first of them.
        frames: Length of ellipse and interp.
        zero: Where in the world the zero of `cameras` lies, [3]; path files are in the world.

    Raises:
        UserError: The file is not a camera path.
    """
    if name == "ellipse":
        geometry = view_geometry(cameras)
        path = trajectory.path_of(trajectory.ellipse(geometry.positions, geometry.focus, geometry.up, frames))
    elif name == "interp":
        world_from_camera = [np.linalg.inv(camera.camera_from_world) for camera in cameras]
        path = trajectory.path_of(trajectory.interpolate(world_from_camera, frames))
    else:
        path = trajectory.read_path(Path(name))
    pairs = enumerate(zip(path.poses, path.lenses, strict=True))
    views = [_on_path(f"{index:05d}", pose, lens, cameras[0]) for index, (pose, lens) in pairs]
    return views if name in ("ellipse", "interp") else [view.moved(zero) for view in views], path.fps


def _on_path(name: str, world_from_camera: np.ndarray, lens: trajectory.Lens, like: Camera) -> Camera:
    """A camera without photo; what its lens leaves open is as in `like`, scaled to its width."""
    width = lens.width or like.width
    scale = width / like.width
    height = lens.height or max(1, round(like.height * scale))
    fx = lens.fx or like.fx * scale
    fy = lens.fy or lens.fx or like.fy * scale
    return Camera(
        name=name,
        width=width,
        height=height,
        fx=fx,
        fy=fy,
        cx=width / 2 if lens.cx is None else lens.cx,
        cy=height / 2 if lens.cy is None else lens.cy,
        camera_from_world=np.linalg.inv(world_from_camera),
        source=SourceSize(width, height, fx, fy),
    )


def _of_model(folder: Path) -> list[Camera]:
    model = read_model(folder)
    cameras = []
    for image in model.images:
        lens = model.cameras[image.camera_id]
        fx, fy, cx, cy = lens.pinhole
        cameras.append(
            Camera(
                name=image.name,
                width=lens.width,
                height=lens.height,
                fx=fx,
                fy=fy,
                cx=cx,
                cy=cy,
                camera_from_world=pose(image.rotation, image.translation),
                source=SourceSize(lens.width, lens.height, fx, fy),
            )
        )
    if not cameras:
        raise UserError(f"--cameras {folder}: the COLMAP model has no registered image")
    return cameras
