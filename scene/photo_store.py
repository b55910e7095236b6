# SPDX-License-Identifier: Apache-2.0
"""Undistorted photos on disk, outside the dataset, so that a second run need not undo the lens again.

Files are PNGs named by a hash of all that decides about their pixels; they may be deleted at any time. A photo that
cannot be stored is computed again: a full or read-only disk costs time, not the run.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.atomic import write_bytes
from utils.errors import UserError

from .photos import Pixels

VERSION = 1
"""Raised whenever the same inputs give other pixels."""

LARGEST_STORE = 16 << 30
"""Bytes above which the files used longest ago are deleted."""

LEFT_FREE = 2 << 30
"""Bytes of the disk that are never taken."""

Reader = Callable[[int, int], Pixels]


def default_folder() -> Path:
    """Where the user's programs keep what they can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlm-instruct-fastgs" / "photos"


def stored(folder: Path, files: tuple[Path, ...], decides: Any, read: Reader) -> Reader:
    """A reader that looks into `folder` before it asks `read`.

    Args:
        folder: The store.
        files: What `read` reads; a change of one makes another photo.
        decides: All else that decides about the pixels, as something with a faithful repr.
        read: Gives the pixels at a width and a height.
    """

    def look_first(width: int, height: int) -> Pixels:
        stamps = [(str(file.absolute()), stat.st_mtime_ns, stat.st_size) for file in files for stat in [file.stat()]]
        text = repr((VERSION, cv2.__version__, stamps, decides, width, height))
        path = folder / f"{hashlib.sha256(os.fsencode(text)).hexdigest()[:32]}.png"
        pixels = _read(path, width, height)
        if pixels is None:
            pixels = read(width, height)
            _write(path, pixels)
        return pixels

    return look_first


def prune(folder: Path, largest: int = LARGEST_STORE) -> None:
    """Delete the photos used longest ago until the rest fits."""
    with suppress(OSError):
        files = sorted((stat.st_mtime_ns, stat.st_size, p) for p in folder.glob("*.png") for stat in [p.stat()])
        excess = sum(size for _, size, _ in files) - largest
        for _, size, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _read(path: Path, width: int, height: int) -> Pixels | None:
    try:
        data = np.fromfile(path, np.uint8)
        os.utime(path)
        picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        return None
    if picture is None or picture.shape[:2] != (height, width) or picture.ndim != 3:
        return None
    kept = picture[..., 3] > 0 if picture.shape[2] == 4 else None
    return Pixels(np.ascontiguousarray(picture[..., 2::-1]), kept)


def _write(path: Path, pixels: Pixels) -> None:
    picture = pixels.rgb[..., ::-1]
    if pixels.kept is not None:
        picture = np.dstack([picture, pixels.kept * np.uint8(255)])
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(picture), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with suppress(OSError, UserError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if encoded and shutil.disk_usage(path.parent).free > LEFT_FREE + len(data):
            write_bytes(path, data.tobytes())
