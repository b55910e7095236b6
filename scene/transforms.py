# SPDX-License-Identifier: Apache-2.0
"""Datasets of the NeRF family: transforms.json of nerfstudio and instant-ngp, transforms_train.json of Blender.

Poses are camera-to-world with OpenGL's axes (x right, y up, z backwards). What nerfstudio did to the world
(`applied_transform`, `applied_scale`) is undone, so that the scene lies where the tool that posed it had put it.
Format: docs.nerf.studio/quickstart/data_conventions.html
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError

from .capture import Capture, Shot, check_names
from .lens import LARGEST_SIDE, Lens
from .ply import read_points
from .points import LARGEST, PointCloud, sane

SizeOf = Callable[[str], tuple[str, tuple[int, int]] | None]
"""Name of a photo as found on disk, perhaps with an extension that the name lacks, and its size; None without file."""

LARGEST_FILE = 1 << 28
"""Bytes above which no JSON is parsed."""

_BLENDER = ("transforms_train.json", "transforms_test.json")
_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def has_transforms(source: Path) -> bool:
    """Whether a dataset has such a file."""
    return any((source / name).is_file() for name in ("transforms.json", _BLENDER[0]))


def read_transforms(source: Path, size_of: SizeOf) -> Capture:
    """The photos that a dataset's transforms file poses, and its points if it names any.

    Args:
        source: Folder of the dataset.
        size_of: Finds photos; files of Blender say neither their extension nor their size.

    Raises:
        UserError: There is none, or it is damaged.
    """
    if (source / "transforms.json").is_file():
        return _nerfstudio(source, size_of)
    if not (source / _BLENDER[0]).is_file():
        raise UserError(f"--source {source}: no transforms.json and no transforms_train.json")
    return _blender(source, size_of)


def _nerfstudio(source: Path, size_of: SizeOf) -> Capture:
    file = _File(source / "transforms.json")
    undo = _world_of_the_posing_tool(file)
    shots, without = file.shots(size_of, undo)
    lists = {split: file.names(f"{split}_filenames") for split in ("train", "val", "test")}
    held_out = lists["test"] or lists["val"]
    if lists["train"] or held_out:
        left_out = (lists["val"] | lists["test"]) - held_out - lists["train"]
        shots = [_split(shot, lists["train"], held_out) for shot in shots if _stem(shot.name) not in left_out]
    check_names(tuple(shots), str(file.path))
    points = _points(source, file, undo)
    return Capture(origin="transforms.json", shots=tuple(shots), points=points, without_photo=tuple(without))


def _blender(source: Path, size_of: SizeOf) -> Capture:
    shots: list[Shot] = []
    without: list[str] = []
    for name in _BLENDER:
        if (source / name).is_file():
            some, lost = _File(source / name).shots(size_of, np.eye(4), held_out=name == _BLENDER[1])
            shots, without = shots + some, without + lost
    check_names(tuple(shots), _BLENDER[0])
    return Capture(
        origin=" and ".join(name for name in _BLENDER if (source / name).is_file()),
        shots=tuple(shots),
        without_photo=tuple(without),
        alpha_masks=False,
    )


class _File:
    """One JSON file, and what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise self.wrong(f"has more than {LARGEST_FILE >> 20} MiB")
            self.content = json.loads(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); give another --source") from error
        except (ValueError, RecursionError):
            raise self.wrong("is not JSON") from None
        if not isinstance(self.content, dict) or not isinstance(self.content.get("frames"), list):
            raise self.wrong("has no list of frames")

    def wrong(self, what: str) -> UserError:
        return UserError(f"{self.path}: {what}; export the dataset again")

    def shots(self, size_of: SizeOf, undo: np.ndarray, held_out: bool | None = None) -> tuple[list[Shot], list[str]]:
        """The frames, and the names of those whose photo would have to tell the size but is not there."""
        shots, without = [], []
        for index, frame in enumerate(self.content["frames"]):
            if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str) or not frame["file_path"]:
                raise self.wrong(f"frame {index} has no file_path")
            name = _plain(frame["file_path"])
            found = size_of(name)
            lens = self._lens({**self.content, **frame}, index, found and found[1])
            if lens is None:
                without.append(name)
                continue
            mask = frame.get("mask_path")
            radius = self.number({**self.content, **frame}, "fisheye_crop_radius", math.inf)
            if not radius > 0:
                raise self.wrong(f"fisheye_crop_radius is {radius:g}")
            shots.append(
                Shot(
                    name=found[0] if found else name,
                    lens=lens,
                    camera_from_world=_camera_from_world(self._pose(frame, index), undo),
                    mask=_plain(mask) if isinstance(mask, str) and mask else None,
                    held_out=held_out,
                    radius=radius,
                )
            )
        return shots, without

    def names(self, key: str) -> set[str]:
        """A list of file names, as stems that do not depend on extensions."""
        names = self.content.get(key) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.wrong(f"{key} is not a list of names")
        return {_stem(_plain(name)) for name in names}

    def number(self, values: Mapping[str, Any], key: str, default: float | None = None) -> float | None:
        """A number of the file, or the default where it is absent."""
        value = values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise self.wrong(f"{key} is {str(value)[:40]}")
        return float(value)

    def matrix(self, value: Any, what: str) -> np.ndarray:
        """A matrix of 3 or 4 rows as [4, 4]."""
        try:
            matrix = np.array(value, np.float64)
        except (TypeError, ValueError, OverflowError):
            matrix = np.zeros(0)
        if matrix.shape not in ((3, 4), (4, 4)) or not sane(matrix).all():
            raise self.wrong(f"{what} is no 4x4 matrix of numbers")
        return np.vstack([matrix[:3], [0, 0, 0, 1]])

    def _pose(self, frame: Mapping[str, Any], index: int) -> np.ndarray:
        return self.turned(self.matrix(frame.get("transform_matrix"), f"transform_matrix of frame {index}"), index)

    def turned(self, matrix: np.ndarray, what: Any) -> np.ndarray:
        """A pose whose rotation is one; a common scale is taken out of it."""
        left, stretch, right = np.linalg.svd(matrix[:3, :3])
        if stretch[2] < 1e-9 or stretch[0] > 1.01 * stretch[2] or np.linalg.det(left @ right) < 0:
            raise self.wrong(f"the matrix of {what if isinstance(what, str) else f'frame {what}'} is no rotation")
        matrix = matrix.copy()
        matrix[:3, :3] = left @ right
        return matrix

    def _lens(self, values: Mapping[str, Any], index: int, photo: tuple[int, int] | None) -> Lens | None:
        """The intrinsics of a frame, its own before those of the file."""
        width, height = (self.number(values, key) for key in ("w", "h"))
        if width is None or height is None:
            if photo is None:
                return None
            width, height = photo
        if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
            raise self.wrong(f"frame {index} has the size {width:g}x{height:g}")
        fx, fy = self._focal_lengths(values, width, height)
        if fx is None or not (fx > 0 and fy > 0):
            raise self.wrong(f"frame {index} has no valid fl_x, fl_y or camera_angle_x")
        cx, cy = self.number(values, "cx", width / 2), self.number(values, "cy", height / 2)
        model, bend = self._distortion(values)
        return Lens(model, int(width), int(height), (fx, fy, cx, cy, *bend))

    def _focal_lengths(self, values: Mapping[str, Any], width: float, height: float) -> tuple[float | None, float]:
        lengths = []
        for key, angle, side in (("fl_x", "camera_angle_x", width), ("fl_y", "camera_angle_y", height)):
            length, radians = self.number(values, key), self.number(values, angle)
            if length is None and radians is not None and 0 < radians < math.pi:
                length = 0.5 * side / math.tan(0.5 * radians)
            lengths.append(length)
        fx = lengths[0] or lengths[1]
        return fx, lengths[1] or fx or 0.0

    def _distortion(self, values: Mapping[str, Any]) -> tuple[str, tuple[float, ...]]:
        """Model and coefficients, in COLMAP's names and order."""
        name = values.get("camera_model", "OPENCV")
        k1, k2, k3, k4, p1, p2 = (self.number(values, key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
        if name in ("OPENCV_FISHEYE", "FISHEYE") or values.get("is_fisheye") is True:
            return "OPENCV_FISHEYE", (k1, k2, k3, k4)
        if name in ("PINHOLE", "SIMPLE_PINHOLE"):
            return "PINHOLE", ()
        if name not in ("OPENCV", "FULL_OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"):
            raise UserError(f"{self.path}: camera_model {str(name)[:40]!r} is not read; export perspective photos")
        if any((k3, k4)):
            return "FULL_OPENCV", (k1, k2, p1, p2, k3, k4, 0.0, 0.0)
        return ("OPENCV", (k1, k2, p1, p2)) if any((k1, k2, p1, p2)) else ("PINHOLE", ())


def _world_of_the_posing_tool(file: _File) -> np.ndarray:
    """What takes the file's world back to where it was before nerfstudio's change, [4, 4]."""
    scale = file.number(file.content, "applied_scale", 1.0)
    if not scale > 0:
        raise file.wrong(f"applied_scale is {scale:g}")
    applied = np.eye(4)
    if file.content.get("applied_transform") is not None:
        applied = file.turned(file.matrix(file.content["applied_transform"], "applied_transform"), "applied_transform")
    return np.linalg.inv(applied) @ np.diag([1 / scale] * 3 + [1])


def _camera_from_world(world_from_camera: np.ndarray, undo: np.ndarray) -> np.ndarray:
    moved = undo @ world_from_camera
    scale = np.cbrt(np.linalg.det(undo[:3, :3]))
    rotation = (moved[:3, :3] / scale @ _TO_OPENCV[:3, :3]).T
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = rotation, -rotation @ moved[:3, 3]
    return camera


def _points(source: Path, file: _File, undo: np.ndarray) -> PointCloud | None:
    """The point cloud that the file names, if it is there."""
    name = file.content.get("ply_file_path")
    if not isinstance(name, str) or not name:
        return None
    path = source / _plain(name)
    if ".." in path.parts or not path.is_file():
        return None
    cloud = read_points(path)
    return PointCloud(cloud.xyz @ undo[:3, :3].T + undo[:3, 3], cloud.rgb)


def _split(shot: Shot, train: set[str], held_out: set[str]) -> Shot:
    """A listed photo goes where its list says; an unlisted one where the other list leaves it."""
    stem = _stem(shot.name)
    out = stem in held_out or (bool(train) and stem not in train)
    return Shot(**{**vars(shot), "held_out": out})


def _stem(name: str) -> str:
    head, _, last = name.rpartition("/")
    stem = last.rsplit(".", 1)[0] if "." in last[1:] else last
    return f"{head}/{stem}" if head else stem


def _plain(name: str) -> str:
    """A file name without ./ and backslashes."""
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name
