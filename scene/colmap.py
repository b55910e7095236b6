# SPDX-License-Identifier: Apache-2.0
"""COLMAP models: cameras, images and points3D, binary or text.

Files are data from outside: every count is checked against the bytes that are there, every number against what it may
be. Rigs and frames of COLMAP >= 3.12 lie in files of their own and are not needed. Layout: colmap.github.io/format.html
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from utils.errors import UserError

from .cameras import pose
from .capture import Capture, Shot, check_names
from .lens import LARGEST_SIDE, LENS_MODELS, Lens
from .points import PointCloud, sane, sane_points

_PANORAMA = 17

_BY_NUMBER = {model.number: name for name, model in LENS_MODELS.items()}

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A registered photo: name, camera, world-to-camera rotation [3, 3] and translation [3]."""

    name: str
    camera_id: int
    rotation: np.ndarray
    translation: np.ndarray


@dataclass(frozen=True)
class ColmapModel:
    """What a model folder holds; points is None when there are none."""

    cameras: dict[int, Lens]
    images: list[ColmapImage]
    points: PointCloud | None


def read_colmap(source: Path, number: int | None = None) -> Capture:
    """The COLMAP model of a dataset; of several the largest, or `sparse/<number>`.

    Raises:
        UserError: There is none, or it is damaged.
    """
    folder = _chosen(source, number)
    if folder is None:
        wanted = "sparse/0" if number is None else f"sparse/{number}"
        raise UserError(
            f"--source {source}: no {wanted}/cameras.bin; run COLMAP, or point --source at the folder that holds "
            "images/ and sparse/0/"
        )
    model = read_model(folder)
    shots = tuple(
        Shot(
            name=image.name,
            lens=model.cameras[image.camera_id],
            camera_from_world=pose(image.rotation, image.translation),
        )
        for image in model.images
    )
    check_names(shots, str(folder))
    return Capture(origin=_origin(source, folder), shots=shots, points=model.points)


def find_model(source: Path) -> Path | None:
    """The folder of the dataset that holds its COLMAP model, the largest of several."""
    return _chosen(source, None)


def find_models(source: Path) -> dict[Path, int]:
    """All folders of the dataset that hold a COLMAP model, and how many images each says it has."""
    numbered = sorted(
        (path for path in (source / "sparse").glob("*") if path.name.isdecimal()), key=lambda path: int(path.name)
    )
    for places in (numbered, [source / "sparse"], [source / "colmap" / "sparse" / "0"], [source]):
        found = [place for place in places if _file(place, "images") and _file(place, "cameras")]
        if found:
            return {place: _image_count(place) for place in found}
    return {}


def read_model(folder: Path) -> ColmapModel:
    """Read the files of a COLMAP model; binary ones win over text.

    Raises:
        UserError: A file is damaged, or says something that cannot be.
    """
    cameras_file, images_file, points_file = (_file(folder, stem) for stem in ("cameras", "images", "points3D"))
    if cameras_file is None or images_file is None:
        raise UserError(f"{folder}: no cameras and images files of COLMAP, .bin or .txt")
    cameras = _read(cameras_file, _cameras_bin, _cameras_txt)
    images = _read(images_file, _images_bin, _images_txt)
    for image in images:
        if image.camera_id not in cameras:
            raise UserError(
                f"{images_file}: image {image.name!r} uses camera {image.camera_id}, which {cameras_file.name} lacks"
            )
    points = None if points_file is None else _read(points_file, _points_bin, _points_txt)
    return ColmapModel(cameras, images, points)


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] of a quaternion (w, x, y, z) of any length but zero."""
    w, x, y, z = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


class _DamageError(Exception):
    """What is wrong with the file in hand."""


def _chosen(source: Path, number: int | None) -> Path | None:
    models = find_models(source)
    if number is not None:
        return next((folder for folder in models if folder.name == str(number)), None)
    return max(models, key=models.__getitem__, default=None)


def _origin(source: Path, folder: Path) -> str:
    """Which model was read, and which were not."""
    others = {path.name: count for path, count in find_models(source).items() if path != folder}
    text = f"COLMAP model {folder.relative_to(source)}"
    if others:
        listing = ", ".join(f"{name} with {count} images" for name, count in others.items())
        text += f" (also there: {listing}; --sparse N takes another)"
    return text


def _image_count(folder: Path) -> int:
    """What the file says; reading it will show whether that is true."""
    path = _file(folder, "images")
    try:
        if path.suffix == ".bin":
            with path.open("rb") as file:
                return _COUNT.unpack(file.read(_COUNT.size))[0]
        with path.open("rb") as file:
            return (sum(not line.startswith(b"#") for line in file) + 1) // 2
    except (OSError, struct.error):
        return 0


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for end in (".bin", ".txt") if (path := folder / (stem + end)).is_file()), None)


class _Cursor:
    """Reads packed little-endian records and never past the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: struct.Struct) -> tuple:
        self.skip(layout.size)
        return layout.unpack_from(self.data, self.at - layout.size)

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise _DamageError(f"ends at byte {len(self.data)}, in the middle of a record")
        self.at += size

    def count(self, smallest_record: int) -> int:
        """A number of records that the rest of the file can hold."""
        (count,) = self.take(_COUNT)
        if count * smallest_record > len(self.data) - self.at:
            left = len(self.data) - self.at
            raise _DamageError(f"says {count} records at byte {self.at - 8}, but only {left} bytes follow")
        return count

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise _DamageError("ends in the middle of a name")
        raw, self.at = self.data[self.at : end], end + 1
        return os.fsdecode(raw)


def _read(path: Path, binary: Callable[[_Cursor], T], text: Callable[[list[str]], T]) -> T:
    try:
        if path.suffix == ".bin":
            return binary(_Cursor(path.read_bytes()))
        return text(os.fsdecode(path.read_bytes()).split("\n"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except _DamageError as error:
        raise UserError(f"{path}: {error}; the file is damaged, export the model again") from error


_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_POINT = struct.Struct("<Q3d3Bd")
_OBSERVATION, _TRACK_ELEMENT = 24, 8


def _cameras_bin(cursor: _Cursor) -> dict[int, Lens]:
    cameras = {}
    for _ in range(cursor.count(_CAMERA.size)):
        camera_id, number, width, height = cursor.take(_CAMERA)
        if number not in _BY_NUMBER:
            raise _unknown(camera_id, number)
        name = _BY_NUMBER[number]
        layout = struct.Struct(f"<{LENS_MODELS[name].parameters}d")
        cameras[camera_id] = _camera(name, width, height, cursor.take(layout))
    return cameras


def _cameras_txt(lines: list[str]) -> dict[int, Lens]:
    cameras = {}
    for number, line in _DataLines(lines):
        words = line.split()
        if len(words) > 1 and words[1] == "EQUIRECTANGULAR":
            raise _unknown(words[0], _PANORAMA)
        if len(words) < 4 or words[1] not in LENS_MODELS or len(words) != 4 + LENS_MODELS[words[1]].parameters:
            raise _DamageError(f"line {number} is not CAMERA_ID MODEL WIDTH HEIGHT PARAMS")
        camera_id, width, height = (_integer(words[i], number) for i in (0, 2, 3))
        cameras[camera_id] = _camera(words[1], width, height, _floats(words[4:], number))
    return cameras


def _images_bin(cursor: _Cursor) -> list[ColmapImage]:
    images = []
    for _ in range(cursor.count(_IMAGE.size + 1 + _COUNT.size)):
        _, *numbers, camera_id = cursor.take(_IMAGE)
        name = cursor.text()
        cursor.skip(cursor.count(_OBSERVATION) * _OBSERVATION)
        images.append(_image(name, camera_id, numbers))
    return images


def _images_txt(lines: list[str]) -> list[ColmapImage]:
    images = []
    entries = _DataLines(lines)
    for number, line in entries:
        words = line.strip().split(maxsplit=9)  # the name is the rest of the line, blanks included
        if len(words) != 10:
            raise _DamageError(f"line {number} is not IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
        images.append(_image(words[9], _integer(words[8], number), _floats(words[1:8], number)))
        next(entries.observations, None)
    return images


def _points_bin(cursor: _Cursor) -> PointCloud | None:
    starts = np.empty(cursor.count(_POINT.size + _COUNT.size), np.int64)
    for i in range(len(starts)):
        starts[i] = cursor.at + 8
        cursor.skip(_POINT.size)
        cursor.skip(cursor.count(_TRACK_ELEMENT) * _TRACK_ELEMENT)
    bytes_of_point = np.frombuffer(cursor.data, np.uint8)[starts[:, None] + np.arange(27)]
    xyz = np.ascontiguousarray(bytes_of_point[:, :24]).view("<f8").reshape(-1, 3)
    return sane_points(xyz, bytes_of_point[:, 24:].copy())


def _points_txt(lines: list[str]) -> PointCloud | None:
    rows = []
    for number, line in _DataLines(lines):
        words = line.split(maxsplit=7)
        if len(words) < 7:
            raise _DamageError(f"line {number} is not POINT3D_ID X Y Z R G B ERROR TRACK")
        rows.append(_floats(words[1:7], number))
    table = np.array(rows, np.float64).reshape(-1, 6)
    return sane_points(table[:, :3].copy(), np.nan_to_num(table[:, 3:]).clip(0, 255).astype(np.uint8))


class _DataLines(Iterator):
    """Lines with data and their 1-based numbers; `observations` gives the very next line, empty or not."""

    def __init__(self, lines: list[str]) -> None:
        self.observations = iter(enumerate(lines, 1))

    def __next__(self) -> tuple[int, str]:
        for number, line in self.observations:
            if line.strip() and not line.lstrip().startswith("#"):
                return number, line
        raise StopIteration


def _camera(model: str, width: int, height: int, parameters: tuple[float, ...]) -> Lens:
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise _DamageError(f"a camera has the size {width}x{height}")
    lens = Lens(model, width, height, tuple(parameters))
    if not sane(np.array([parameters])).all() or min(lens.pinhole[:2]) <= 0:
        raise _DamageError(f"a {model} camera has the parameters {list(parameters)}")
    return lens


def _unknown(camera: int | str, number: int) -> Exception:
    if number == _PANORAMA:
        return UserError(f"camera {camera} is a panorama (EQUIRECTANGULAR); cut it into perspective views first")
    return _DamageError(f"camera {camera} is of model {number}, which COLMAP does not have")


def _image(name: str, camera_id: int, numbers: list[float] | tuple[float, ...]) -> ColmapImage:
    quaternion, translation = np.array(numbers[:4]), np.array(numbers[4:])
    if not name or not sane(np.array([numbers])).all() or np.linalg.norm(quaternion) < 1e-6:
        raise _DamageError(f"image {name!r} has no valid name and pose")
    return ColmapImage(name, camera_id, rotation_matrix(quaternion), translation)


def _integer(word: str, line: int) -> int:
    try:
        return int(word)
    except ValueError:
        raise _DamageError(f"line {line}: {word[:40]!r} is not a whole number") from None


def _floats(words: list[str], line: int) -> tuple[float, ...]:
    try:
        return tuple(map(float, words))
    except ValueError:
        raise _DamageError(f"line {line} holds something that is not a number") from None
