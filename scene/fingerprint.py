# SPDX-License-Identifier: Apache-2.0
"""What makes a dataset this dataset: for `--resume`, which must go on with the same one."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from .cameras import Camera


def fingerprint(cameras: Iterable[Camera], folders: Iterable[Path]) -> dict[str, str]:
    """A short hash for each view by name, in order: pose, intrinsics, size, and the length of its photo's file.

    Photos are not read for it, and times of files do not matter, so that a copied dataset stays the same.

    Args:
        cameras: The views.
        folders: Where photos are looked for, by name.
    """
    folders = list(folders)
    return {camera.name: _hash(camera, _length(camera.name, folders)) for camera in cameras}


def _hash(camera: Camera, length: int) -> str:
    numbers = [camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy, length]
    numbers += camera.camera_from_world.ravel().tolist()
    words = " ".join(f"{number:.9g}" for number in numbers)  # another numpy may differ in the last bits
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _length(name: str, folders: list[Path]) -> int:
    """Bytes of the photo's file; 0 where there is none of that name."""
    for folder in folders:
        try:
            return (folder / name).stat().st_size
        except (OSError, ValueError):
            continue
    return 0
