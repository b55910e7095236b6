# SPDX-License-Identifier: Apache-2.0
"""Tiny datasets written from scratch: a COLMAP model in both layouts, and photos of one colour each."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

NUMBERS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "OPENCV": 4, "OPENCV_FISHEYE": 5, "FOV": 7}


@dataclass
class Shot:
    """One registered image; `observations` are (x, y, point id)."""

    name: str
    camera: int = 1
    quaternion: tuple = (1.0, 0.0, 0.0, 0.0)
    translation: tuple = (0.0, 0.0, 0.0)
    observations: list = field(default_factory=list)


@dataclass
class Capture:
    """Cameras (model, width, height, parameters) by id, images, points (xyz, rgb, track)."""

    cameras: dict = field(default_factory=lambda: {1: ("PINHOLE", 40, 30, (36.0, 35.0, 21.0, 14.0))})
    shots: list = field(default_factory=list)
    points: list = field(default_factory=list)

    def cameras_bin(self) -> bytes:
        data = struct.pack("<Q", len(self.cameras))
        for number, (model, width, height, parameters) in self.cameras.items():
            data += struct.pack("<IiQQ", number, NUMBERS[model], width, height)
            data += struct.pack(f"<{len(parameters)}d", *parameters)
        return data

    def images_bin(self) -> bytes:
        data = struct.pack("<Q", len(self.shots))
        for i, shot in enumerate(self.shots, 1):
            data += struct.pack("<I7dI", i, *shot.quaternion, *shot.translation, shot.camera)
            data += shot.name.encode() + b"\0" + struct.pack("<Q", len(shot.observations))
            data += b"".join(struct.pack("<ddq", *seen) for seen in shot.observations)
        return data

    def points_bin(self) -> bytes:
        data = struct.pack("<Q", len(self.points))
        for i, (xyz, rgb, track) in enumerate(self.points, 1):
            data += struct.pack("<Q3d3BdQ", i, *xyz, *rgb, 0.5, len(track))
            data += b"".join(struct.pack("<II", *seen) for seen in track)
        return data

    def write_bin(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cameras.bin").write_bytes(self.cameras_bin())
        (folder / "images.bin").write_bytes(self.images_bin())
        (folder / "points3D.bin").write_bytes(self.points_bin())
        return folder

    def write_txt(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        cameras = ["# Camera list", "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
        for number, (model, width, height, parameters) in self.cameras.items():
            cameras.append(f"{number} {model} {width} {height} {' '.join(map(repr, parameters))}")
        images = ["# Image list with two lines of data per image:"]
        for i, shot in enumerate(self.shots, 1):
            images.append(f"{i} {_words(shot.quaternion)} {_words(shot.translation)} {shot.camera} {shot.name}")
            images.append(" ".join(map(_words, shot.observations)))
        points = ["# 3D point list"]
        for i, (xyz, rgb, track) in enumerate(self.points, 1):
            points.append(f"{i} {_words(xyz)} {_words(rgb)} 0.5 {' '.join(map(_words, track))}")
        for stem, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
            (folder / f"{stem}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    def write_dataset(self, root: Path, size: tuple[int, int] | None = None) -> Path:
        """The binary model under sparse/0 and a photo for every image, at its camera's size or another."""
        self.write_bin(root / "sparse" / "0")
        for i, shot in enumerate(self.shots):
            path = root / "images" / shot.name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size or self.cameras[shot.camera][1:3], (20 * i % 256, 100, 50)).save(path)
        return root


def transforms(capture: Capture, folder: str = "images/") -> dict:
    """The same capture of one PINHOLE camera as nerfstudio's transforms.json says it."""
    (_, width, height, (fx, fy, cx, cy)) = capture.cameras[1]
    frames = [{"file_path": f"{folder}{s.name}", "transform_matrix": opengl_pose(s).tolist()} for s in capture.shots]
    lens = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": width, "h": height}
    return {"camera_model": "OPENCV", **lens, "frames": frames}


def opengl_pose(shot: Shot) -> np.ndarray:
    """World from camera [4, 4] of a shot, with y up and z backwards."""
    camera_from_world = np.eye(4)
    w, x, y, z = shot.quaternion
    camera_from_world[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    camera_from_world[:3, 3] = shot.translation
    return np.linalg.inv(camera_from_world) @ np.diag([1.0, -1, -1, 1])


def ring(count: int = 10, radius: float = 4.0) -> Capture:
    """`count` cameras on a circle round the origin, looking at it, names 00.png, 01.png, ..., and three points."""
    capture = Capture()
    for i in range(count):
        angle = 2 * np.pi * i / count
        # A turn about the y axis: the origin stays at depth `radius` in front of each camera.
        quaternion = (np.cos(angle / 2), 0.0, np.sin(angle / 2), 0.0)
        capture.shots.append(Shot(f"{i:02}.png", 1, tuple(map(float, quaternion)), (0.0, 0.0, radius)))
    capture.points = [((0.5, -0.25, 1.0), (255, 0, 7), [(1, 0), (2, 5)]), ((0.0, 0.0, 0.0), (1, 2, 3), [])]
    capture.points.append(((-1e3, 1e-3, 12.5), (9, 8, 7), [(3, 3)]))
    return capture


def _words(values) -> str:
    return " ".join(map(repr, values))
